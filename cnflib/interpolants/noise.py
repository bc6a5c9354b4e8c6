r"""Noise on the way: the schedules :math:`\gamma^2(t)` of an interpolant :math:`\alpha x_0 + \beta x_1 + \gamma \xi`.

Each is called with t and gives :math:`\gamma^2`, not :math:`\gamma`; ``rate`` is the derivative of that. All but
:class:`Constant` vanish at both ends, so that the path still leads from base to data.

=====================  ==================================  ==========================================
:class:`Bridge`        :math:`a \sqrt{t (1 - t)}`          :math:`\dot\gamma` infinite at the ends
:class:`Parabola`      :math:`a\, t (1 - t)`               finite rate everywhere
:class:`SineSquared`   :math:`a \sin^2 \pi t`              starts and ends at rest
:class:`Sigmoid`       a bump between two sigmoids         narrower, the steeper they are
:class:`Constant`      :math:`\sigma`                      both ends are smoothed
=====================  ==================================  ==========================================
"""

import math
from dataclasses import dataclass, fields
from numbers import Real

import torch
from torch import Tensor

from cnflib.interpolants._schedules import ReadySchedule

__all__ = ["Bridge", "Constant", "Parabola", "Sigmoid", "SineSquared"]


class _Noise(ReadySchedule):
    """A noise, whose settings are positive numbers."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if not isinstance(value, Real) or not 0 < value < math.inf:
                raise ValueError(
                    f"Expected {setting.name} to be a positive number; got {value!r}. For no noise take gamma=None; "
                    "for a noise that is learned write an nn.Module whose value at t is gamma²."
                )


@dataclass(frozen=True, repr=False)
class Bridge(_Noise):
    r"""The noise of a Brownian bridge, :math:`\gamma^2 = a^2\, t (1 - t)`.

    :math:`\dot\gamma` is infinite at both ends, and with it the mean of
    :func:`~cnflib.interpolants.velocity_loss`; :func:`~cnflib.interpolants.velocity_objective` stays finite.

    Args:
        a: Scale of the noise, in data units, positive.

    Raises:
        ValueError: If ``a`` is not a positive number.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> Bridge()(torch.tensor(0.5)), Bridge(a=2.0)
        (tensor(0.2500), Bridge(a=2.0))
    """

    a: float = 1.0

    def __call__(self, t: Tensor) -> Tensor:
        r""":math:`\gamma^2` at t."""
        return self.a**2 * t * (1 - t)

    def rate(self, t: Tensor) -> Tensor:
        r""":math:`d\gamma^2 / dt` at t."""
        return self.a**2 * (1 - 2 * t)


@dataclass(frozen=True, repr=False)
class Parabola(_Noise):
    r"""The noise :math:`\gamma = a\, t (1 - t)`, of finite rate.

    Args:
        a: Scale of the noise, in data units, positive.

    Raises:
        ValueError: If ``a`` is not a positive number.

    Example:
        >>> import torch
        >>> Parabola()(torch.tensor(0.5))  # the square of 1/4
        tensor(0.0625)
    """

    a: float = 1.0

    def __call__(self, t: Tensor) -> Tensor:
        r""":math:`\gamma^2` at t."""
        return (self.a * t * (1 - t)) ** 2

    def rate(self, t: Tensor) -> Tensor:
        r""":math:`d\gamma^2 / dt` at t."""
        return 2 * self.a**2 * t * (1 - t) * (1 - 2 * t)


@dataclass(frozen=True, repr=False)
class SineSquared(_Noise):
    r"""The noise :math:`\gamma = a \sin^2 \pi t`, which starts and ends at rest.

    Args:
        a: Scale of the noise, in data units, positive.

    Raises:
        ValueError: If ``a`` is not a positive number.

    Example:
        >>> import torch
        >>> SineSquared()(torch.tensor(0.25))  # the square of 1/2
        tensor(0.2500)
    """

    a: float = 1.0

    def __call__(self, t: Tensor) -> Tensor:
        r""":math:`\gamma^2` at t."""
        return (self.a * _sine_of_pi(t) ** 2) ** 2

    def rate(self, t: Tensor) -> Tensor:
        r""":math:`d\gamma^2 / dt` at t."""
        return 4 * math.pi * self.a**2 * _sine_of_pi(t) ** 3 * torch.cos(math.pi * t)


def _sine_of_pi(t: Tensor) -> Tensor:
    """sin πt by the nearer end, so that it is exactly 0 at both."""
    return torch.sin(math.pi * torch.where(t < 0.5, t, 1 - t))


@dataclass(frozen=True, repr=False)
class Sigmoid(_Noise):
    r"""A bump of noise about t = ½ between two sigmoids, less what they are at the ends.

    .. math:: \gamma = a\,[h(t) - h(0)], \qquad
              h(t) = \sigma\big(f (t - \tfrac12) + 1\big) - \sigma\big(f (t - \tfrac12) - 1\big)

    Args:
        a: Scale of the noise, in data units, positive; at f = 10 the bump is .45 a high.
        steepness: :math:`f`, positive: the bump is about 4 / f wide.

    Raises:
        ValueError: If ``a`` or ``steepness`` is not a positive number.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> Sigmoid()(torch.tensor(0.5))
        tensor(0.1995)
    """

    a: float = 1.0
    steepness: float = 10.0

    def __call__(self, t: Tensor) -> Tensor:
        r""":math:`\gamma^2` at t."""
        return self._bump(t) ** 2

    def rate(self, t: Tensor) -> Tensor:
        r""":math:`d\gamma^2 / dt` at t."""
        a, f = self.a, self.steepness
        up, down = (torch.sigmoid(f * (t - 0.5) + shift) for shift in (1, -1))
        return 2 * self._bump(t) * a * f * (up * (1 - up) - down * (1 - down))

    def _bump(self, t: Tensor) -> Tensor:
        """γ, the difference as a product, which does not round to 0 near the ends."""
        f = self.steepness
        u = f * (torch.where(t < 0.5, t, 1 - t) - 0.5)  # abs would have no second derivative at t = ½
        height = torch.sigmoid(u + 1) - torch.sigmoid(u - 1)
        scale = self.a / (1 + math.exp(-f) + 2 * math.cosh(1) * math.exp(-f / 2))
        return scale * height * torch.expm1(-f * t) * torch.expm1(-f * (1 - t))


@dataclass(frozen=True, repr=False)
class Constant(_Noise):
    r"""The same noise at all times, :math:`\gamma = \sigma`: the path joins the two ends *smoothed* by it.

    At t = 0 and t = 1 the point is :math:`x_0 + \sigma\xi` and :math:`x_1 + \sigma\xi`, not base and data.

    Args:
        sigma: The standard deviation :math:`\sigma`, in data units, positive.

    Raises:
        ValueError: If ``sigma`` is not a positive number.

    References:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong et al., 2023,
        arXiv:2302.00482.

    Example:
        >>> import torch
        >>> Constant(0.5)(torch.tensor([0.0, 0.5]))
        tensor([0.2500, 0.2500])
    """

    sigma: float

    def __call__(self, t: Tensor) -> Tensor:
        r""":math:`\gamma^2` at t."""
        return torch.full_like(t, self.sigma**2)

    def rate(self, t: Tensor) -> Tensor:
        r""":math:`d\gamma^2 / dt` at t, which is 0."""
        return torch.zeros_like(t)
