r"""Noise on the way: the schedules :math:`\gamma^2(t)` of an interpolant :math:`\alpha x_0 + \beta x_1 + \gamma \xi`.

All but :func:`constant` vanish at both ends, so that the path still leads from base to data.

===================  ==================================  ==========================================
:func:`zero`         :math:`\gamma = 0`                  no noise
:func:`bridge`       :math:`a \sqrt{t (1 - t)}`          :math:`\dot\gamma` infinite at the ends
:func:`parabola`     :math:`a\, t (1 - t)`               finite rate everywhere
:func:`sine`         :math:`a \sin^2 \pi t`              starts and ends at rest
:func:`sigmoid`      a bump between two sigmoids         narrower, the steeper they are
:func:`constant`     :math:`\sigma`                      both ends are smoothed
===================  ==================================  ==========================================
"""

import math
from functools import partial

import torch
from torch import Tensor

from cnflib.interpolants.interpolant import Rated, Schedule, zero

__all__ = ["bridge", "constant", "parabola", "sigmoid", "sine"]


def bridge(a: float = 1.0) -> Schedule:
    r"""The noise of a Brownian bridge, :math:`\gamma^2 = a^2\, t (1 - t)`.

    :math:`\dot\gamma` is infinite at both ends, and with it the mean of
    :func:`~cnflib.interpolants.velocity_loss`; :func:`~cnflib.interpolants.velocity_objective` stays finite.

    Args:
        a: Scale of the noise, in data units, positive.

    Raises:
        ValueError: If ``a`` is not positive.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> bridge()(torch.tensor(0.5))
        tensor(0.2500)
    """
    _check_scale(a, "a")
    return Rated(partial(_bridge, a), partial(_bridge_rate, a))


def _bridge(a: float, t: Tensor) -> Tensor:
    return a**2 * t * (1 - t)


def _bridge_rate(a: float, t: Tensor) -> Tensor:
    return a**2 * (1 - 2 * t)


def parabola(a: float = 1.0) -> Schedule:
    r"""The noise :math:`\gamma = a\, t (1 - t)`, of finite rate.

    Args:
        a: Scale of the noise, in data units, positive.

    Raises:
        ValueError: If ``a`` is not positive.

    Example:
        >>> import torch
        >>> parabola()(torch.tensor(0.5))
        tensor(0.0625)
    """
    _check_scale(a, "a")
    return Rated(partial(_parabola, a), partial(_parabola_rate, a))


def _parabola(a: float, t: Tensor) -> Tensor:
    return (a * t * (1 - t)) ** 2


def _parabola_rate(a: float, t: Tensor) -> Tensor:
    return 2 * a**2 * t * (1 - t) * (1 - 2 * t)


def sine(a: float = 1.0) -> Schedule:
    r"""The noise :math:`\gamma = a \sin^2 \pi t`, which starts and ends at rest.

    Args:
        a: Scale of the noise, in data units, positive.

    Raises:
        ValueError: If ``a`` is not positive.

    Example:
        >>> import torch
        >>> sine()(torch.tensor(0.25))
        tensor(0.2500)
    """
    _check_scale(a, "a")
    return Rated(partial(_sine, a), partial(_sine_rate, a))


def _half(t: Tensor) -> Tensor:
    """sin πt by the nearer end, so that it is exactly 0 at both."""
    return torch.sin(math.pi * torch.where(t < 0.5, t, 1 - t))


def _sine(a: float, t: Tensor) -> Tensor:
    return (a * _half(t) ** 2) ** 2


def _sine_rate(a: float, t: Tensor) -> Tensor:
    return 4 * math.pi * a**2 * _half(t) ** 3 * torch.cos(math.pi * t)


def sigmoid(a: float = 1.0, steepness: float = 10.0) -> Schedule:
    r"""A bump of noise about t = ½ between two sigmoids, less what they are at the ends.

    .. math:: \gamma = a\,[h(t) - h(0)], \qquad
              h(t) = \sigma\big(f (t - \tfrac12) + 1\big) - \sigma\big(f (t - \tfrac12) - 1\big)

    Args:
        a: Scale of the noise, in data units, positive; at f = 10 the bump is .45 a high.
        steepness: :math:`f`, positive: the bump is about 4 / f wide.

    Raises:
        ValueError: If ``a`` or ``steepness`` is not positive.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> sigmoid()(torch.tensor(0.5))
        tensor(0.1995)
    """
    _check_scale(a, "a")
    _check_scale(steepness, "steepness")
    return Rated(partial(_sigmoid, a, steepness), partial(_sigmoid_rate, a, steepness))


def _bump(a: float, f: float, t: Tensor) -> Tensor:
    """γ, the difference as a product, which does not round to 0 near the ends."""
    u = -(f * (t - 0.5)).abs()
    height = torch.sigmoid(u + 1) - torch.sigmoid(u - 1)
    scale = a / (1 + math.exp(-f) + 2 * math.cosh(1) * math.exp(-f / 2))
    return scale * height * torch.expm1(-f * t) * torch.expm1(-f * (1 - t))


def _sigmoid(a: float, f: float, t: Tensor) -> Tensor:
    return _bump(a, f, t) ** 2


def _sigmoid_rate(a: float, f: float, t: Tensor) -> Tensor:
    up, down = (torch.sigmoid(f * (t - 0.5) + shift) for shift in (1, -1))
    return 2 * _bump(a, f, t) * a * f * (up * (1 - up) - down * (1 - down))


def constant(sigma: float) -> Schedule:
    r"""The same noise at all times, :math:`\gamma = \sigma`: the path joins the two ends *smoothed* by it.

    At t = 0 and t = 1 the point is :math:`x_0 + \sigma\xi` and :math:`x_1 + \sigma\xi`, not base and data.

    Args:
        sigma: The standard deviation :math:`\sigma`, in data units, positive.

    Raises:
        ValueError: If ``sigma`` is not positive.

    References:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong et al., 2023,
        arXiv:2302.00482.

    Example:
        >>> import torch
        >>> constant(0.5)(torch.tensor([0.0, 0.5]))
        tensor([0.2500, 0.2500])
    """
    _check_scale(sigma, "sigma")
    return Rated(partial(_constant, sigma), torch.zeros_like)


def _constant(sigma: float, t: Tensor) -> Tensor:
    return torch.full_like(t, sigma**2)


def _check_scale(a: float, name: str) -> None:
    if not 0 < a < math.inf:
        raise ValueError(
            f"Expected {name} to be a positive number; got {a!r}. For no noise take gamma2={zero.__name__}."
        )
