r"""Ready interpolants :math:`x_t = \alpha x_0 + \beta x_1 + \gamma \xi`.

==============================  ==============================================  ===================================
path                            :math:`\alpha,\ \beta`                          :math:`\gamma`
==============================  ==============================================  ===================================
:func:`linear`                  :math:`1 - t,\ t`                               any
:func:`trigonometric`           :math:`\cos \frac\pi2 t,\ \sin \frac\pi2 t`     any
:func:`variance_preserving`     :math:`\cos\theta(t),\ \sin\theta(t)`           0
:func:`one_sided`               :math:`\alpha,\ \beta` of your own              0, as :math:`x_0` is the noise
:func:`encoding_decoding`       :math:`\cos^2 \pi t` before ½, or from ½ on     :math:`\sin^2 \pi t`
:func:`mirror`                  :math:`0,\ 1`                                   any but 0
==============================  ==============================================  ===================================
"""

import math
from functools import partial

import torch
from torch import Tensor

from cnflib.interpolants.interpolant import Interpolant, Rated, Schedule, zero
from cnflib.interpolants.noise import bridge, sine

__all__ = [
    "encoding_decoding",
    "linear",
    "mirror",
    "one_sided",
    "trigonometric",
    "variance_preserving",
]


def _mirrored(f: Schedule, t: Tensor) -> Tensor:
    """f of 1 - t, which is exact at t = 1 where f is at 0, and keeps its digits on the way there."""
    return f(1 - t)


def _negated(f: Schedule, t: Tensor) -> Tensor:
    return -f(1 - t)


def _falling_as(rising: Rated) -> Rated:
    """The schedule that falls as the other rises."""
    return Rated(partial(_mirrored, rising.value), partial(_negated, rising.rate))


def _identity(t: Tensor) -> Tensor:
    return t


def _rest(t: Tensor) -> Tensor:
    return 1 - t


def _rest_rate(t: Tensor) -> Tensor:
    return torch.full_like(t, -1.0)


def _quarter(t: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * t)


def _quarter_rate(t: Tensor) -> Tensor:
    return math.pi / 2 * _quarter(1 - t)


_rising = Rated(_identity, torch.ones_like)
_falling = Rated(_rest, _rest_rate)
_sine = Rated(_quarter, _quarter_rate)
_cosine = _falling_as(_sine)


def linear(gamma2: Schedule = zero) -> Interpolant:
    r"""The straight path :math:`x_t = (1 - t)\,x_0 + t\,x_1 + \gamma\xi`, of constant rate where :math:`\gamma = 0`.

    Args:
        gamma2: The noise :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise`.

    References:
        Flow Matching for Generative Modeling, Lipman et al., 2022, arXiv:2210.02747;
        Flow Straight and Fast, Liu et al., 2022, arXiv:2209.03003.

    Example:
        >>> import torch
        >>> linear()(0.25, torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
    """
    return Interpolant(_falling, _rising, gamma2)


def trigonometric(gamma2: Schedule = zero) -> Interpolant:
    r"""The path :math:`x_t = \cos(\tfrac\pi2 t)\,x_0 + \sin(\tfrac\pi2 t)\,x_1 + \gamma\xi`.

    Without noise it preserves variance: independent ends of covariance C have :math:`\operatorname{Cov} x_t = C`.

    Args:
        gamma2: The noise :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise`.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> trigonometric()(0.5, torch.ones(1, 2), torch.ones(1, 2))
        tensor([[1.4142, 1.4142]])
    """
    return Interpolant(_cosine, _sine, gamma2)


def _smooth_angle(t: Tensor) -> Tensor:
    return math.pi / 2 * t**2 * (3 - 2 * t)


def _smooth(t: Tensor) -> Tensor:
    return torch.sin(_smooth_angle(t))


def _smooth_rate(t: Tensor) -> Tensor:
    return 3 * math.pi * t * (1 - t) * torch.sin(_smooth_angle(1 - t))


_smooth_sine = Rated(_smooth, _smooth_rate)


def _sine_of(angle: Schedule, t: Tensor) -> Tensor:
    return torch.sin(angle(t))


def _cosine_of(angle: Schedule, t: Tensor) -> Tensor:
    return torch.cos(angle(t))


def variance_preserving(angle: Schedule = _smooth_angle) -> Interpolant:
    r"""The path :math:`x_t = \cos\theta(t)\,x_0 + \sin\theta(t)\,x_1` with :math:`\alpha^2 + \beta^2 = 1`.

    Every path with this property is the trigonometric one, run at another speed :math:`\dot\theta`.

    Args:
        angle: The schedule :math:`\theta` from 0 to :math:`\pi/2`; by default
            :math:`\tfrac\pi2 t^2 (3 - 2t)`, at rest at both ends. ``torch.asin`` gives
            :math:`\alpha = \sqrt{1 - t^2}, \beta = t`, the path of a variance-preserving diffusion; its
            :math:`\dot\alpha` is infinite at t = 1, and the mean of the velocity loss with it.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2020,
        arXiv:2011.13456; Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> variance_preserving(torch.asin)(0.6, torch.ones(1, 1), torch.zeros(1, 1))
        tensor([[0.8000]])
    """
    if angle is _smooth_angle:
        return Interpolant(_falling_as(_smooth_sine), _smooth_sine)
    return Interpolant(partial(_cosine_of, angle), partial(_sine_of, angle))


def one_sided(alpha: Schedule = _falling, beta: Schedule = _rising) -> Interpolant:
    r"""The path :math:`x_t = \alpha(t)\,x_0 + \beta(t)\,x_1` of a Gaussian base, where :math:`x_0` is the noise.

    A base :math:`N(0, I)` drawn independently of the data smooths :math:`x_1` all the way, so no :math:`\xi` is
    needed: the score s follows from the velocity, see :func:`~cnflib.interpolants.score_from_velocity`, and with it
    :math:`E[x_0 | x_t] = -\alpha s`. The default is the path of :func:`linear`.

    Args:
        alpha: The schedule :math:`\alpha`, from 1 to 0.
        beta: The schedule :math:`\beta`, from 0 to 1.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> late = one_sided(beta=lambda t: t**2)
        >>> late(0.5, torch.zeros(1, 1), torch.ones(1, 1))
        tensor([[0.2500]])
    """
    return Interpolant(alpha, beta)


def _square(t: Tensor) -> Tensor:  # cos² πt, exactly 0 at t = ½
    return torch.sin(math.pi * (t - 0.5)) ** 2


def _square_rate(t: Tensor) -> Tensor:
    return math.pi * torch.sin(2 * math.pi * (t - 0.5))


def _first(f: Schedule, t: Tensor) -> Tensor:
    return torch.where(t < 0.5, f(t), 0)


def _second(f: Schedule, t: Tensor) -> Tensor:
    return torch.where(t < 0.5, 0, f(t))


_encoding = Rated(partial(_first, _square), partial(_first, _square_rate))
_decoding = Rated(partial(_second, _square), partial(_second, _square_rate))


def encoding_decoding() -> Interpolant:
    r"""The path that forgets :math:`x_0` until t = ½, where it is pure noise, and then forms :math:`x_1`.

    .. math:: x_t = \cos^2(\pi t)\,\big(1_{t < 1/2}\,x_0 + 1_{t \ge 1/2}\,x_1\big) + \sin^2(\pi t)\,\xi

    The law of :math:`x_{1/2}` is N(0, I) whatever the two ends are.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> encoding_decoding()(0.25, torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
        tensor([[0.5000]])
    """
    return Interpolant(_encoding, _decoding, sine())


_BRIDGE = bridge()


def mirror(gamma2: Schedule = _BRIDGE) -> Interpolant:
    r"""The path :math:`x_t = x_1 + \gamma\xi` from data to noisy data and back; :math:`x_0` is ignored.

    Base and data have the same law. The ODE's map is then the identity at t = 1; what is of use is its SDE, which
    carries a data point to others near it.

    Args:
        gamma2: The noise :math:`\gamma^2`; by default that of :func:`~cnflib.interpolants.bridge`.

    Raises:
        ValueError: If there is no noise.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> mirror()(0.5, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1))
        tensor([[1.5000]])
    """
    if gamma2 is zero:
        raise ValueError(
            "Expected gamma2 to be a noise like bridge(); got zero, and then mirror stands still."
        )
    return Interpolant(torch.zeros_like, torch.ones_like, gamma2)
