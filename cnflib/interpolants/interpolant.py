r"""Interpolants: paths :math:`x_t` from a base point to a data point.

.. math:: x_t = \alpha(t)\,x_0 + \beta(t)\,x_1 + \gamma(t)\,\xi, \qquad \xi \sim N(0, I)

An interpolant is given by :math:`\alpha, \beta` and :math:`\gamma^2` as functions of t; rates of change come from
forward-mode differentiation, so a new one is one line.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from cnflib._check import check_ends, check_like

__all__ = ["Interpolant", "linear", "trigonometric", "zero"]

Schedule = Callable[[Tensor], Tensor]


def zero(t: Tensor) -> Tensor:
    r"""The schedule :math:`\gamma^2 \equiv 0` of an interpolant without noise."""
    return torch.zeros_like(t)


@dataclass(frozen=True)
class Interpolant:
    r"""The path :math:`x_t = \alpha x_0 + \beta x_1 + \gamma \xi` between two points, with :math:`t \in [0, 1]`.

    With :math:`\alpha(0) = \beta(1) = 1`, :math:`\alpha(1) = \beta(0) = 0` and :math:`\gamma(0) = \gamma(1) = 0` it
    leads from :math:`x_0` (base) to :math:`x_1` (data).

    Args:
        alpha: The schedule :math:`\alpha`, a differentiable function of a tensor t.
        beta: The schedule :math:`\beta`.
        gamma2: The schedule :math:`\gamma^2 \ge 0`, not :math:`\gamma`: it is smooth where :math:`\gamma` is not.
            The default :func:`zero` means no noise, and then ``xi`` is ignored.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571;
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797 (our ξ is their z).
    """

    alpha: Schedule
    beta: Schedule
    gamma2: Schedule = zero

    def __call__(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None = None) -> Tensor:
        r"""The point :math:`x_t`, shape ``(B, *event)``.

        Args:
            t: Time in [0, 1], a float or shape ``()`` or ``(B,)``.
            x0: Base points, shape ``(B, *event)``.
            x1: Data points, shape ``(B, *event)``.
            xi: Standard normal noise :math:`\xi`, shape ``(B, *event)``; required unless ``gamma2`` is :func:`zero`.

        Raises:
            ValueError: If the ends differ in shape, dtype or device, t is outside [0, 1], or xi is missing.
        """
        t = self._check(t, x0, x1, xi)
        x_t = self.alpha(t) * x0 + self.beta(t) * x1
        return x_t if self.gamma2 is zero else x_t + self.gamma2(t).sqrt() * xi

    def rate(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None = None) -> Tensor:
        r"""The rate along one pair, :math:`\dot x_t = \dot\alpha x_0 + \dot\beta x_1 + \dot\gamma \xi`.

        Arguments as for the point. Its conditional mean given :math:`x_t`, not itself, is the velocity b.
        Where :math:`\gamma` vanishes, :math:`\dot\gamma = \dot{(\gamma^2)} / 2\gamma` need not be finite.
        """
        t = self._check(t, x0, x1, xi)
        rate = _derivative(self.alpha, t) * x0 + _derivative(self.beta, t) * x1
        if self.gamma2 is zero:
            return rate
        return rate + _derivative(self.gamma2, t) / (2 * self.gamma2(t).sqrt()) * xi

    def _check(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None) -> Tensor:
        """Check the arguments and return t as a tensor that broadcasts against them."""
        check_ends(x0, x1)
        if self.gamma2 is not zero:
            if xi is None or xi.shape != x0.shape:
                got = None if xi is None else tuple(xi.shape)
                raise ValueError(
                    f"Expected noise xi of shape {tuple(x0.shape)}, as gamma2 is not zero; got {got}. "
                    "Draw it with torch.randn_like(x0)."
                )
            check_like(xi, x0, "xi", "ends x0 and x1")
        if not isinstance(t, Tensor) and not 0 <= t <= 1:
            raise ValueError(f"Expected t in [0, 1], from base to data; got {t}.")
        t = torch.as_tensor(t, dtype=x0.dtype, device=x0.device)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x0)):
            raise ValueError(f"Expected t of shape () or ({len(x0)},); got {tuple(t.shape)}.")
        return t.reshape(-1, *[1] * (x0.ndim - 1))


def linear() -> Interpolant:
    r"""The straight path :math:`x_t = (1 - t)\,x_0 + t\,x_1`, of constant rate :math:`x_1 - x_0`.

    References:
        Flow Matching for Generative Modeling, Lipman et al., 2022, arXiv:2210.02747;
        Flow Straight and Fast, Liu et al., 2022, arXiv:2209.03003.
    """
    return Interpolant(alpha=lambda t: 1 - t, beta=lambda t: t)


def trigonometric() -> Interpolant:
    r"""The path :math:`x_t = \cos(\tfrac\pi2 t)\,x_0 + \sin(\tfrac\pi2 t)\,x_1`, which preserves variance.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.
    """
    return Interpolant(alpha=lambda t: torch.cos(math.pi / 2 * t), beta=lambda t: torch.sin(math.pi / 2 * t))


def _derivative(schedule: Schedule, t: Tensor) -> Tensor:
    t = t.contiguous()
    return jvp(schedule, (t,), (torch.ones_like(t),))[1]
