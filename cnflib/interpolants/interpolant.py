r"""Interpolants: paths :math:`x_t` from a base point to a data point.

.. math:: x_t = \alpha(t)\,x_0 + \beta(t)\,x_1 + \gamma(t)\,\xi, \qquad \xi \sim N(0, I)

An interpolant is given by :math:`\alpha, \beta` and :math:`\gamma^2` as functions of t; rates of change come from
forward-mode differentiation, so a new one is one line. Ready ones are in :mod:`cnflib.interpolants.paths`, and the
functions :math:`\gamma^2` in :mod:`cnflib.interpolants.noise`. It is :math:`\gamma^2` that is given, because its rate
:math:`2 \gamma \dot\gamma` is finite where :math:`\dot\gamma` is not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cnflib._check import eager
from cnflib._random import source
from cnflib._settings import Built, compact_repr
from cnflib.interpolants._checks import check_ends, check_schedule, check_time
from cnflib.interpolants._schedules import ReadySchedule, root, with_rate
from cnflib.interpolants.times import inside

__all__ = ["Coefficients", "Interpolant", "PathPoint", "Rated", "Schedule"]

Schedule = Callable[[Tensor], Tensor]
"""A differentiable function of time, elementwise: t and the result have the same shape."""


@dataclass(frozen=True, repr=False)
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

    __repr__ = compact_repr

    def __call__(self, t: Tensor) -> Tensor:
        """The schedule at t."""
        return self.value(t)


class Coefficients(NamedTuple):
    r"""The schedules of an interpolant at a time, and their rates: each a tensor of the shape of t.

    Attributes:
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        gamma2: :math:`\gamma^2`, 0 where the path has no noise.
        alpha_rate: :math:`\dot\alpha`.
        beta_rate: :math:`\dot\beta`.
        gamma2_rate: :math:`\tfrac{d}{dt} \gamma^2 = 2 \gamma \dot\gamma`, finite where :math:`\dot\gamma` need not be.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear
        >>> Linear().coefficients(torch.tensor(0.25)).beta_rate
        tensor(1.)
    """

    alpha: Tensor
    beta: Tensor
    gamma2: Tensor
    alpha_rate: Tensor
    beta_rate: Tensor
    gamma2_rate: Tensor


class PathPoint(NamedTuple):
    r"""Where B pairs are at a time each, and how they move: what one step of a regression needs.

    Attributes:
        t: The times, shape ``(B,)``.
        x: The points :math:`x_t`, shape ``(B, *event)``.
        rate: The rates :math:`\dot x_t`, shape ``(B, *event)``.
        xi: The noise :math:`\xi`, shape ``(B, *event)``; None where the path has none.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear
        >>> point = Linear().draw(torch.randn(5, 2), torch.rand(5, 2))
        >>> point.t.shape, point.x.shape, point.rate.shape, point.xi
        (torch.Size([5]), torch.Size([5, 2]), torch.Size([5, 2]), None)
    """

    t: Tensor
    x: Tensor
    rate: Tensor
    xi: Tensor | None


class _Motion(NamedTuple):
    r"""A drawn pair and its noise, apart: :math:`x_t` is ``x + gamma * xi``, its rate ``rate + gamma_rate * xi``.

    Where the path has no noise the last three are None.
    """

    t: Tensor
    x: Tensor
    rate: Tensor
    xi: Tensor | None
    gamma: Tensor | None
    gamma_rate: Tensor | None


@dataclass(frozen=True, repr=False)
class Interpolant(Built):
    r"""The path :math:`x_t = \alpha x_0 + \beta x_1 + \gamma \xi` between two points, with :math:`t \in [0, 1]`.

    With :math:`\alpha(0) = \beta(1) = 1`, :math:`\alpha(1) = \beta(0) = 0` and :math:`\gamma(0) = \gamma(1) = 0` it
    leads from :math:`x_0` (base) to :math:`x_1` (data). Nothing enforces this: other ends are met where a path has
    them, see :class:`cnflib.interpolants.Mirror` and :class:`cnflib.interpolants.Constant`.

    Args:
        alpha: The schedule :math:`\alpha`, a differentiable function of a tensor t, elementwise.
        beta: The schedule :math:`\beta`.
        gamma2: The schedule :math:`\gamma^2 \ge 0`, not :math:`\gamma`: it is smooth where :math:`\gamma` is not.
            None is no noise, and then ``xi`` is ignored.

    Raises:
        ValueError: If a schedule changes the shape of t, is not finite, has no derivative in forward mode or a false
            one, or if ``gamma2`` is negative; each is tried at a few times inside (0, 1). The schedules of this
            library are not.

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
    gamma2: Schedule | None = None

    __repr__ = compact_repr

    def __post_init__(self) -> None:
        """Try each schedule that is not of this library; None is one only where it is the default."""
        for setting in fields(self):
            schedule = getattr(self, setting.name)
            if not isinstance(schedule, ReadySchedule) and not (schedule is None and setting.default is None):
                check_schedule(schedule, setting.name)

    def __call__(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None = None) -> Tensor:
        r"""The point :math:`x_t`, shape ``(B, *event)``.

        Args:
            t: Time in [0, 1], a float or shape ``()`` or ``(B,)``.
            x0: Base points, shape ``(B, *event)``.
            x1: Data points, shape ``(B, *event)``.
            xi: Standard normal noise :math:`\xi`, shape ``(B, *event)``; required where the path has noise, and
                ignored where it has none.

        Raises:
            ValueError: If the ends differ in shape, dtype or device, t is outside [0, 1], or xi is missing.
        """
        check_ends(x0, x1, xi, noisy=self.gamma2 is not None)
        t = check_time(t, x0)
        return self._point(t, x0, x1, xi)[0]

    def rate(self, t: float | Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None = None) -> Tensor:
        r"""The rate along one pair, :math:`\dot x_t = \dot\alpha x_0 + \dot\beta x_1 + \dot\gamma \xi`.

        Arguments as for the point. Its conditional mean given :math:`x_t`, not itself, is the velocity b.
        It is computed with :math:`\dot\gamma = \dot{(\gamma^2)} / 2\gamma`, so it is inf or NaN where
        :math:`\gamma = 0`, most often at the ends.
        """
        check_ends(x0, x1, xi, noisy=self.gamma2 is not None)
        t = check_time(t, x0)
        values, rates = self._schedules(t)
        rate = rates[0] * x0 + rates[1] * x1
        return rate if self.gamma2 is None else rate + rates[2] / (2 * root(values[2])) * xi

    def coefficients(self, t: Tensor) -> Coefficients:
        r"""The three schedules and their rates at t, a floating tensor of any shape."""
        values, rates = self._schedules(t)
        none = (torch.zeros_like(t),) if self.gamma2 is None else ()
        return Coefficients(*values, *none, *rates, *none)

    def draw(
        self,
        x0: Tensor,
        x1: Tensor,
        t: float | Tensor | None = None,
        xi: Tensor | None = None,
        generator: Generator | None = None,
    ) -> PathPoint:
        r"""A point of the path for each pair, at a time drawn for it: what one step of a regression needs.

        Args:
            x0: Base points, shape ``(B, *event)``.
            x1: Data points, shape ``(B, *event)``.
            t: Times in [0, 1], a float or shape ``()`` or ``(B,)``; drawn uniformly on the open interval by default,
                never 0 or 1.
            xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default where the path has noise, and ignored
                where it has none.
            generator: Source of t and xi.

        Returns:
            ``t`` of shape ``(B,)``, ``x``, ``rate`` and ``xi``.

        Raises:
            ValueError: If ends, times or noise disagree in shape, dtype or device, or if a given t is one at which the
                noise vanishes, where it has no rate.

        Example:
            >>> import torch
            >>> from cnflib.interpolants import Linear
            >>> from cnflib.nets import MLP
            >>> field, path = MLP(2), Linear()
            >>> p = path.draw(torch.randn(64, 2), torch.rand(64, 2))
            >>> loss = (field(p.t, p.x) - p.rate).square().sum(1).mean()
        """
        p = self._motion(x0, x1, t, xi, generator)
        if p.xi is None:
            return PathPoint(p.t, p.x, p.rate, None)
        return PathPoint(p.t, p.x + p.gamma * p.xi, p.rate + p.gamma_rate * p.xi, p.xi)

    def _motion(
        self, x0: Tensor, x1: Tensor, t: float | Tensor | None, xi: Tensor | None, generator: Generator | None
    ) -> _Motion:
        """Points drawn as by ``draw``, with their noise apart."""
        given = t is not None
        t, column, xi = self._drawn(x0, x1, t, xi, generator)
        values, rates = self._schedules(column)
        x, rate = values[0] * x0 + values[1] * x1, rates[0] * x0 + rates[1] * x1
        if xi is None:
            return _Motion(t, x, rate, None, None, None)
        gamma2, gamma2_rate = values[2], rates[2]
        if given and eager(gamma2) and not (gamma2 > 0).all():
            raise ValueError(
                "Expected times t at which the noise gamma² is positive, as its rate is divided by gamma; got "
                f"{(gamma2 <= 0).sum().item()} of {gamma2.numel()} where it is 0. Keep t inside the open (0, 1)."
            )
        gamma = root(gamma2)
        # A drawn time without noise lies, but for chance, in a stretch of time without noise: the rate is 0 as well.
        gamma_rate = torch.where(gamma > 0, gamma2_rate / (2 * torch.where(gamma > 0, gamma, 1)), 0)
        return _Motion(t, x, rate, xi, gamma, gamma_rate)

    def _noisy_point(
        self, x0: Tensor, x1: Tensor, t: float | Tensor | None, xi: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        r"""Times and points drawn as by ``draw``, with :math:`\gamma` and :math:`\xi` or None; no rate is asked for."""
        t, column, xi = self._drawn(x0, x1, t, xi, generator)
        x_t, gamma = self._point(column, x0, x1, xi)
        return t, x_t, gamma, xi

    def _drawn(
        self, x0: Tensor, x1: Tensor, t: float | Tensor | None, xi: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Times inside (0, 1), shape ``(B,)`` and as a column, and the noise, None where there is none.

        What is given is checked, what is not is drawn; the ends are checked as well.
        """
        noisy = self.gamma2 is not None
        check_ends(x0, x1, xi, noisy=noisy and xi is not None)
        if t is None:
            t = inside(torch.rand(x0.shape[:1], **source(generator), dtype=x0.dtype, device=x0.device))
        else:
            t = check_time(t, x0).flatten().expand(x0.shape[0]).contiguous()
        if noisy and xi is None:
            xi = torch.randn(x0.shape, **source(generator), dtype=x0.dtype, device=x0.device)
        return t, t.reshape(-1, *[1] * (x0.ndim - 1)), xi if noisy else None

    def _point(self, t: Tensor, x0: Tensor, x1: Tensor, xi: Tensor | None) -> tuple[Tensor, Tensor | None]:
        r"""The point :math:`x_t` and the noise :math:`\gamma`, for arguments that are checked."""
        x_t = self.alpha(t) * x0 + self.beta(t) * x1
        if self.gamma2 is None:
            return x_t, None
        gamma = root(self.gamma2(t))
        return x_t + gamma * xi, gamma

    def _schedules(self, t: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        r""":math:`\alpha, \beta` and, where there is noise, :math:`\gamma^2` at t; and their rates."""
        gamma2 = self.gamma2
        schedules = (self.alpha, self.beta) if gamma2 is None else (self.alpha, self.beta, gamma2)
        rates = [getattr(f, "rate", None) for f in schedules]
        if all(map(callable, rates)):
            return [f(t) for f in schedules], [f(t) for f in rates]
        return with_rate(lambda t: tuple(f(t) for f in schedules), t)
