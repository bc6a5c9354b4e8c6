r"""Score and denoiser: the same thing wherever :math:`\gamma > 0`, :math:`\bar\xi = E[\xi | x_t] = -\gamma s`."""

from functools import partial

import torch
from torch import Tensor

from cnflib._check import eager
from cnflib.interpolants._derived import Derived, check_noisy, time_like, value_at
from cnflib.interpolants._root import root
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["denoiser_from_score", "score_from_denoiser"]


def denoiser_from_score(interpolant: Interpolant, field: VectorField) -> Derived:
    r"""The denoiser :math:`\bar\xi = E[\xi | x_t] = -\gamma s` of a score s, under any pairing.

    Args:
        interpolant: An interpolant with noise.
        field: Its score ``s(t, x, context)``.

    Returns:
        The field ``denoiser(t, x, context)``.

    Raises:
        ValueError: If ``gamma2`` is :func:`zero`.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import constant, linear
        >>> denoiser_from_score(linear(constant(0.5)), lambda t, x, context: -x)(0.3, torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    check_noisy(interpolant)
    return Derived(field, partial(_denoiser, interpolant), "denoiser from score")


def score_from_denoiser(interpolant: Interpolant, field: VectorField) -> Derived:
    r"""The score :math:`s = -\bar\xi / \gamma` of a denoiser, under any pairing.

    Args:
        interpolant: An interpolant with noise.
        field: Its denoiser ``denoiser(t, x, context)``.

    Returns:
        The field ``s(t, x, context)``.

    Raises:
        ValueError: If ``gamma2`` is :func:`zero`, or, when called outside of compilation, at a time where γ = 0.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import constant, linear
        >>> score_from_denoiser(linear(constant(0.5)), lambda t, x, context: x)(0.3, torch.ones(1, 2))
        tensor([[-2., -2.]])
    """
    check_noisy(interpolant)
    return Derived(field, partial(_score, interpolant), "score from denoiser")


def _denoiser(
    interpolant: Interpolant, field: VectorField, t: float | Tensor, x: Tensor, context: Tensor | None
) -> Tensor:
    t = time_like(t, x)
    return -root(interpolant.gamma2(t)) * value_at(field, t, x, context)


def _score(
    interpolant: Interpolant, field: VectorField, t: float | Tensor, x: Tensor, context: Tensor | None
) -> Tensor:
    t = time_like(t, x)
    gamma = root(interpolant.gamma2(t))
    none = gamma <= torch.finfo(gamma.dtype).eps  # what rounding leaves of sin πt at t = 1
    if eager(gamma) and none.any():
        raise ValueError(
            f"Expected times where gamma > 0; got gamma = 0 at t = {t[none][0].item():g}: a denoiser says nothing "
            "of the score there. Stay inside (0, 1), by t0 and t1 of the sampler, or let eps vanish there, "
            "e.g. eps=interpolant.gamma2."
        )
    return -value_at(field, t, x, context) / gamma
