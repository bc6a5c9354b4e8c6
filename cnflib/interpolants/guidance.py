r"""Classifier-free guidance: a conditional field pushed away from the unconditional one.

One net learns both: in training the context is dropped now and then, that is, replaced by zeros. Zeros must mean
"nothing is known" and no context of the data: one-hot labels are never zero; to other features append a 1. Labels
themselves, where 0 is a class, are refused.
"""

import torch
from torch import Generator, Tensor

from cnflib._check import check_labels
from cnflib._field import Uniform
from cnflib._random import source
from cnflib.interpolants.conversions import Derived
from cnflib.nets import VectorField

__all__ = ["drop_context", "guided"]


def drop_context(context: Tensor, p: float = 0.1, generator: Generator | None = None) -> Tensor:
    r"""Replace each row of a context by zeros with probability p, for training.

    Args:
        context: Rows of numbers, shape ``(B, features)``; of labels pass ``one_hot(labels, classes).float()``.
        p: The probability, in [0, 1].
        generator: Source of the choice.

    Raises:
        ValueError: If p is outside [0, 1], or context is not of a floating dtype.

    References:
        Classifier-Free Diffusion Guidance, Ho & Salimans, 2022, arXiv:2207.12598.

    Example:
        >>> import torch
        >>> drop_context(torch.ones(2, 3), p=1.0)
        tensor([[0., 0., 0.],
                [0., 0., 0.]])
    """
    check_labels(context)
    if not 0 <= p <= 1:
        raise ValueError(f"Expected a probability p in [0, 1]; got {p}. Usual are 0.1 to 0.2.")
    kept = torch.rand(context.shape[0], **source(generator), device=context.device) >= p
    return torch.where(kept.reshape(-1, *[1] * (context.ndim - 1)), context, 0)


def guided(field: VectorField, weight: float) -> Derived:
    r"""The field :math:`f_w(t, x, c) = (1 + w)\, f(t, x, c) - w\, f(t, x, 0)` of guidance weight w.

    w = 0 is the conditional field, w = -1 the unconditional one, and larger w trade variety for typicality. It guides a
    velocity, a score or a denoiser alike. For w other than 0 and -1 the points do not in general follow the law
    :math:`p_t` given c, and the guided score is not that of their law: every ε in
    :func:`~cnflib.interpolants.sample_sde` gives another law. ``log_prob`` of the guided field is the density of the
    points that its own ODE produces.

    Args:
        field: A field ``f(t, x, context)`` trained with :func:`drop_context`, on rows of numbers.
        weight: The weight w, in the convention of the reference.

    Returns:
        The field ``f_w(t, x, context)``, of two evaluations of f.

    Raises:
        ValueError: When called, if the context is one of integers.

    References:
        Classifier-Free Diffusion Guidance, Ho & Salimans, 2022, arXiv:2207.12598.

    Example:
        >>> import torch
        >>> f = guided(lambda t, x, context: context, 2.0)
        >>> f(torch.tensor(0.5), torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[3., 3.]])
    """
    return Derived(field, _towards, f"guided, weight={weight}", weight)


def _towards(field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None, weight: float) -> Tensor:
    check_labels(context)
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    given, free = field(t, x, context), field(t, x, torch.zeros_like(context))
    return (1 + weight) * given - weight * free
