r"""Interpolants: paths :math:`x_t` from a base point to a data point.

.. math:: x_t = \alpha(t)\,x_0 + \beta(t)\,x_1 + \gamma(t)\,\xi, \qquad \xi \sim N(0, I)

An interpolant is given by :math:`\alpha, \beta` and :math:`\gamma^2` as functions of t; rates of change come from
forward-mode differentiation, so a new one is one line. Ready ones are in :mod:`cnflib.interpolants.paths`, and the
functions :math:`\gamma^2` in :mod:`cnflib.interpolants.noise`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp

from cnflib.interpolants._checks import check_ends, check_noise, check_schedule, check_time, rated
from cnflib.interpolants._root import root

__all__ = ["Coefficients", "Interpolant", "Rated", "Schedule", "zero"]

Schedule = Callable[[Tensor], Tensor]
"""A differentiable function of time, elementwise: t and the result have the same shape."""


def zero(t: Tensor) -> Tensor:
    r"""The schedule :math:`\gamma^2 \equiv 0` of an interpolant without noise.

    Example:
        >>> import torch
        >>> zero(torch.tensor([0.0, 0.5]))
        tensor([0., 0.])
    """
    return torch.zeros_like(t)


zero.rate = zero


@dataclass(frozen=True)
class Rated:
    r"""A schedule that knows its rate of change in closed form, which saves the forward-mode pass.

    The numbers are the same; a training step of a small net is shorter by a tenth or more. Any schedule with an
    attribute ``rate`` is taken in this way, a module too.

    Args:
        value: The schedule, a function of t.
        rate: Its derivative, a function of t. :class:`Interpolant` compares the two.

    Example:
        >>> import torch
        >>> square = Rated(lambda t: t**2, lambda t: 2 * t)
        >>> square(torch.tensor(0.5)), square.rate(torch.tensor(0.5))
        (tensor(0.2500), tensor(1.))
    """

    value: Schedule
    rate: Schedule

    def __call__(self, t: Tensor) -> Tensor:
        """The schedule at t."""
        return self.value(t)


class Coefficients(NamedTuple):
    r"""The schedules of an interpolant at a time, and their rates: each a tensor of the shape of t.

    Attributes:
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        gamma2: :math:`\gamma^2`.
        alpha_rate: :math:`\dot\alpha`.
        beta_rate: :math:`\dot\beta`.
        gamma2_rate: :math:`\tfrac{d}{dt} \gamma^2 = 2 \gamma \dot\gamma`, finite where :math:`\dot\gamma` need not be.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import linear
        >>> linear().coefficients(torch.tensor(0.25)).beta_rate
        tensor(1.)
    """

    alpha: Tensor
    beta: Tensor
    gamma2: Tensor
    alpha_rate: Tensor
    beta_rate: Tensor
    gamma2_rate: Tensor


@dataclass(frozen=True)
class Interpolant:
    r"""The path :math:`x_t = \alpha x_0 + \beta x_1 + \gamma \xi` between two points, with :math:`t \in [0, 1]`.

    With :math:`\alpha(0) = \beta(1) = 1`, :math:`\alpha(1) = \beta(0) = 0` and :math:`\gamma(0) = \gamma(1) = 0` it
    leads from :math:`x_0` (base) to :math:`x_1` (data). Nothing enforces this: other ends are met where a path has
    them, see :func:`cnflib.interpolants.mirror` and :func:`cnflib.interpolants.constant`.

    Args:
        alpha: The schedule :math:`\alpha`, a differentiable function of a tensor t, elementwise.
        beta: The schedule :math:`\beta`.
        gamma2: The schedule :math:`\gamma^2 \ge 0`, not :math:`\gamma`: it is smooth where :math:`\gamma` is not.
            The default :func:`zero` means no noise, and then ``xi`` is ignored.

    Raises:
        ValueError: If a schedule changes the shape of t, is not finite, has no derivative in forward mode or a false
            one, or if ``gamma2`` is negative; each is tried at a few times inside (0, 1).

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571;
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797 (our ξ is their z).

    Example:
        >>> import torch
        >>> accelerating = Interpolant(lambda t: 1 - t**2, lambda t: t**2)
        >>> accelerating(0.5, torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
        >>> accelerating.rate(0.5, torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[1., 1.]])
    """

    alpha: Schedule
    beta: Schedule
    gamma2: Schedule = zero

    def __post_init__(self) -> None:
        """Try each schedule."""
        check_schedule(self.alpha, "alpha")
        check_schedule(self.beta, "beta")
        if self.gamma2 is not zero:
            check_schedule(self.gamma2, "gamma2", least=0.0)

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
        return x_t if self.gamma2 is zero else x_t + root(self.gamma2(t)) * xi

    def rate(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None = None) -> Tensor:
        r"""The rate along one pair, :math:`\dot x_t = \dot\alpha x_0 + \dot\beta x_1 + \dot\gamma \xi`.

        Arguments as for the point. Its conditional mean given :math:`x_t`, not itself, is the velocity b.
        It is computed with :math:`\dot\gamma = \dot{(\gamma^2)} / 2\gamma`, so it is inf or NaN where
        :math:`\gamma = 0`, most often at the ends.
        """
        t = self._check(t, x0, x1, xi)
        c = self.coefficients(t)
        rate = c.alpha_rate * x0 + c.beta_rate * x1
        return rate if self.gamma2 is zero else rate + c.gamma2_rate / (2 * root(c.gamma2)) * xi

    def coefficients(self, t: Tensor) -> Coefficients:
        r"""The three schedules and their rates at t, a floating tensor of any shape."""
        if self.gamma2 is zero and rated(self.alpha) and rated(self.beta):
            none = zero(t)
            return Coefficients(
                self.alpha(t), self.beta(t), none, self.alpha.rate(t), self.beta.rate(t), none
            )
        schedules = (self.alpha, self.beta, self.gamma2)
        if all(rated(schedule) for schedule in schedules):
            return Coefficients(*(f(t) for f in schedules), *(f.rate(t) for f in schedules))
        t = t.contiguous()
        values, rates = jvp(lambda t: tuple(f(t) for f in schedules), (t,), (torch.ones_like(t),))
        return Coefficients(*values, *rates)

    def _check(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None) -> Tensor:
        """Check the arguments and return t as a tensor that broadcasts against them."""
        check_ends(x0, x1)
        if self.gamma2 is not zero:
            check_noise(xi, x0)
        return check_time(t, x0)
