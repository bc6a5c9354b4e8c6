r"""Classifier-free guidance: a conditional field pushed away from the unconditional one.

One net learns both: in training the context is dropped now and then, that is, replaced by zeros. Zeros must mean
"nothing is known" and no context of the data: one-hot labels are never zero; to other features append a 1. Labels
themselves, where 0 is a class, are refused.
"""

import math
from numbers import Real

import torch
from torch import Generator, Tensor

from cnflib._check import check_event, check_labels, check_rows
from cnflib._field import Uniform, called, uniform
from cnflib._random import source
from cnflib._words import shown
from cnflib.interpolants.conversions import Derived
from cnflib.nets import VectorField

__all__ = ["drop_context", "guided"]


def drop_context(context: Tensor, p: float = 0.1, generator: Generator | None = None) -> Tensor:
    r"""Replace each row of a context by zeros with probability p, for training.

    Zeros then stand for "unknown". Numbers in standard units, as after ``Standardize.fit(context)``, are zero where
    they are the mean: append to them, after the standardisation, a column of ones, which the zeros take away.

    Args:
        context: Rows of numbers, shape ``(B, features)``; of labels pass ``one_hot(labels, classes).float()``.
        p: The probability, in [0, 1].
        generator: Source of the choice.

    Raises:
        ValueError: If p is outside [0, 1], or context is not of a floating dtype with two axes at least.

    References:
        Classifier-Free Diffusion Guidance, Ho & Salimans, 2022, arXiv:2207.12598.

    Example:
        >>> import torch
        >>> drop_context(torch.ones(2, 3), p=1.0)
        tensor([[0., 0., 0.],
                [0., 0., 0.]])
    """
    check_labels(context)
    check_event(context, None, "context")
    if not 0 <= p <= 1:
        raise ValueError(f"Expected a probability p in [0, 1]; got {p}. Usual are 0.1 to 0.2.")
    kept = torch.rand(context.shape[0], **source(generator), device=context.device) >= p
    return torch.where(kept.reshape(-1, *[1] * (context.ndim - 1)), context, 0)


def guided(field: VectorField, weight: float) -> Derived:
    r"""The field :math:`f_w(t, x, c) = (1 + w)\, f(t, x, c) - w\, f(t, x, 0)` of guidance weight w.

    w = 0 is the conditional field, w = -1 the unconditional one, and larger w trade variety for typicality. It guides a
    velocity, a score, a denoiser or the logits of tokens alike. For w other than 0 and -1 the points do not in general
    follow the law :math:`p_t` given c, and the guided score is not that of their law: every ε in
    :func:`~cnflib.interpolants.sample_sde` gives another law. ``log_prob`` of the guided field is the density of the
    points that its own ODE produces.

    The 0 is the "unknown" of :func:`drop_context`, so w means something only if no context of the data is 0: one-hot
    labels never are, nor rows with a column of ones; numbers in standard units are 0 at their mean.

    Args:
        field: A field ``f(t, x, context)`` trained with :func:`drop_context`, on rows of numbers.
        weight: The weight w, in the convention of the reference.

    Returns:
        The field ``f_w(t, x, context)``, of two evaluations of f.

    Raises:
        ValueError: If the field takes no context, or the weight is no finite number; when called, if the context is
            missing or one of integers.

    References:
        Classifier-Free Diffusion Guidance, Ho & Salimans, 2022, arXiv:2207.12598.

    Example:
        >>> import torch
        >>> f = guided(lambda t, x, context: context, 2.0)
        >>> f(torch.tensor(0.5), torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[3., 3.]])
    """
    conditional = uniform(field).takes_context
    if not conditional or not isinstance(weight, Real) or not math.isfinite(weight):
        raise ValueError(
            f"Expected a field f(t, x, context), trained with drop_context, and a finite weight; got {called(field)} "
            f"called f(t, x{', context' * conditional}), and weight={shown(weight)}. Usual weights are 0.5 to 4."
        )
    return Derived(field, _towards, f"guided, weight={weight}", weight)


def _towards(field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None, weight: float) -> Tensor:
    check_rows(context, "context")
    check_labels(context)
    t = torch.as_tensor(t, dtype=x.dtype if x.is_floating_point() else None, device=x.device)
    given, free = field(t, x, context), field(t, x, torch.zeros_like(context))
    return (1 + weight) * given - weight * free
