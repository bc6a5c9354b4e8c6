r"""Score and denoiser: the same thing wherever :math:`\gamma > 0`, :math:`\bar\xi = E[\xi | x_t] = -\gamma s`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cnflib._check import eager
from cnflib._field import Uniform
from cnflib.interpolants._derived import Derived, check_noisy, time_like, value_at
from cnflib.interpolants._root import root
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["denoiser_from_score", "score_from_denoiser"]


def denoiser_from_score(field: VectorField, interpolant: Interpolant) -> Derived:
    r"""The denoiser :math:`\bar\xi = E[\xi | x_t] = -\gamma s` of a score s, under any pairing.

    Args:
        field: The score ``s(t, x)`` or ``s(t, x, context)``.
        interpolant: The interpolant, with noise, that it is the score of.

    Returns:
        The field ``denoiser(t, x, context=None)``.

    Raises:
        ValueError: If the interpolant has no noise.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Constant, Linear
        >>> denoiser_from_score(lambda t, x: -x, Linear(Constant(0.5)))(0.3, torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    check_noisy(interpolant)
    return Derived(field, _Denoiser(interpolant), "denoiser from score", interpolant)


def score_from_denoiser(field: VectorField, interpolant: Interpolant) -> Derived:
    r"""The score :math:`s = -\bar\xi / \gamma` of a denoiser, under any pairing.

    Args:
        field: The denoiser ``denoiser(t, x)`` or ``denoiser(t, x, context)``.
        interpolant: The interpolant, with noise, that it is the denoiser of.

    Returns:
        The field ``s(t, x, context=None)``.

    Raises:
        ValueError: If the interpolant has no noise, or, when called outside of compilation, at a time where γ = 0.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Constant, Linear
        >>> score_from_denoiser(lambda t, x: x, Linear(Constant(0.5)))(0.3, torch.ones(1, 2))
        tensor([[-2., -2.]])
    """
    check_noisy(interpolant)
    return Derived(field, _Score(interpolant), "score from denoiser", interpolant)


@dataclass(frozen=True)
class _Denoiser:
    r"""The rule :math:`\bar\xi = -\gamma s`."""

    interpolant: Interpolant

    def __call__(self, field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        t = time_like(t, x)
        return -root(self.interpolant.gamma2(t)) * value_at(field, t, x, context)


@dataclass(frozen=True)
class _Score:
    r"""The rule :math:`s = -\bar\xi / \gamma`."""

    interpolant: Interpolant

    def __call__(self, field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        t = time_like(t, x)
        gamma = root(self.interpolant.gamma2(t))
        none = gamma <= torch.finfo(gamma.dtype).eps  # what rounding leaves of sin πt at t = 1
        if eager(gamma) and none.any():
            raise ValueError(
                f"Expected times where gamma > 0; got gamma = 0 at t = {t[none][0].item():g}: a denoiser says nothing "
                "of the score there. Stay inside (0, 1), by t0 and t1 of the sampler, or let eps vanish there, "
                "e.g. eps=interpolant.gamma2."
            )
        return -value_at(field, t, x, context) / gamma
