r"""Ready interpolants :math:`x_t = \alpha x_0 + \beta x_1 + \gamma \xi`.

===========================  ==============================================  =========================================
path                         :math:`\alpha,\ \beta`                          :math:`\gamma`
===========================  ==============================================  =========================================
:class:`Linear`              :math:`1 - t,\ t`                               any, 0 by default
:class:`Trigonometric`       :math:`\cos \frac\pi2 t,\ \sin \frac\pi2 t`     any, 0 by default
:class:`VariancePreserving`  :math:`\cos\theta(t),\ \sin\theta(t)`           any, 0 by default
:class:`OneSided`            :math:`\alpha,\ \beta` of your own              any, 0 by default, as :math:`x_0` is noise
:class:`EncodingDecoding`    :math:`\cos^2 \pi t` before ½, or from ½ on     :math:`\sin^2 \pi t`
:class:`Mirror`              :math:`0,\ 1`                                   any but 0
===========================  ==============================================  =========================================

What is handed over as ``gamma`` is an object whose value at t is :math:`\gamma^2`: one of
:mod:`cnflib.interpolants.noise`, like ``Bridge()``, or a function of one's own, like ``lambda t: t * (1 - t)``.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cnflib._settings import traceable
from cnflib.interpolants._schedules import (
    FALLING,
    RISING,
    SMOOTH,
    SMOOTH_COSINE,
    SMOOTH_SINE,
    Cosine,
    Decoding,
    Encoding,
    Flat,
    Sine,
    Smooth,
)
from cnflib.interpolants.interpolant import Interpolant, Schedule
from cnflib.interpolants.noise import Bridge, SineSquared

__all__ = [
    "EncodingDecoding",
    "Linear",
    "Mirror",
    "OneSided",
    "Trigonometric",
    "VariancePreserving",
]

# A ready path says by ClassVar which of alpha, beta and gamma2 are no settings of it.
_given = property(lambda path: path.gamma)  # gamma2 of a path that is handed its noise


@dataclass(frozen=True, repr=False)
class Linear(Interpolant):
    r"""The straight path :math:`x_t = (1 - t)\,x_0 + t\,x_1 + \gamma\xi`, of constant rate where :math:`\gamma = 0`.

    Args:
        gamma: The noise, whose value at t is :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise` or one's own;
            None is no noise.

    References:
        Flow Matching for Generative Modeling, Lipman et al., 2022, arXiv:2210.02747;
        Flow Straight and Fast, Liu et al., 2022, arXiv:2209.03003.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Bridge
        >>> Linear()(0.25, torch.zeros(1, 2), torch.ones(1, 2))
        tensor([[0.2500, 0.2500]])
        >>> Linear(Bridge())
        Linear(gamma=Bridge())
    """

    gamma: Schedule | None = None
    alpha: ClassVar[Schedule] = FALLING
    beta: ClassVar[Schedule] = RISING
    gamma2: ClassVar[Schedule | None] = _given


@dataclass(frozen=True, repr=False)
class Trigonometric(Interpolant):
    r"""The path :math:`x_t = \cos(\tfrac\pi2 t)\,x_0 + \sin(\tfrac\pi2 t)\,x_1 + \gamma\xi`.

    Without noise it preserves variance: independent ends of covariance C have :math:`\operatorname{Cov} x_t = C`.

    Args:
        gamma: The noise, whose value at t is :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise` or one's own;
            None is no noise.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> Trigonometric()(0.5, torch.ones(1, 2), torch.ones(1, 2))
        tensor([[1.4142, 1.4142]])
    """

    gamma: Schedule | None = None
    alpha: ClassVar[Schedule] = Cosine()
    beta: ClassVar[Schedule] = Sine()
    gamma2: ClassVar[Schedule | None] = _given


@dataclass(frozen=True)
class _CosineOf:
    angle: Schedule

    def __call__(self, t: Tensor) -> Tensor:
        return torch.cos(self.angle(t))


@dataclass(frozen=True)
class _SineOf:
    angle: Schedule

    def __call__(self, t: Tensor) -> Tensor:
        return torch.sin(self.angle(t))


def _cosine(path: "VariancePreserving") -> Schedule:
    return SMOOTH_COSINE if isinstance(path.angle, Smooth) else _CosineOf(path.angle)


def _sine(path: "VariancePreserving") -> Schedule:
    return SMOOTH_SINE if isinstance(path.angle, Smooth) else _SineOf(path.angle)


@traceable
@dataclass(frozen=True, repr=False)
class VariancePreserving(Interpolant):
    r"""The path :math:`x_t = \cos\theta(t)\,x_0 + \sin\theta(t)\,x_1 + \gamma\xi`, with :math:`\alpha^2 + \beta^2 = 1`.

    Without noise every path with this property is the trigonometric one, run at another speed :math:`\dot\theta`.

    Args:
        angle: The schedule :math:`\theta` from 0 to :math:`\pi/2`; by default
            :math:`\tfrac\pi2 t^2 (3 - 2t)`, at rest at both ends. ``torch.asin`` gives
            :math:`\alpha = \sqrt{1 - t^2}, \beta = t`, the path of a variance-preserving diffusion; its
            :math:`\dot\alpha` is infinite at t = 1, and the mean of the velocity loss with it.
        gamma: The noise, whose value at t is :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise` or one's own;
            None is no noise.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations, Song et al., 2020,
        arXiv:2011.13456; Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> VariancePreserving(torch.asin)(0.6, torch.ones(1, 1), torch.zeros(1, 1))
        tensor([[0.8000]])
    """

    angle: Schedule = SMOOTH
    gamma: Schedule | None = None
    alpha: ClassVar[Schedule] = property(_cosine)
    beta: ClassVar[Schedule] = property(_sine)
    gamma2: ClassVar[Schedule | None] = _given


@traceable
@dataclass(frozen=True, repr=False)
class OneSided(Interpolant):
    r"""The path :math:`x_t = \alpha(t)\,x_0 + \beta(t)\,x_1 + \gamma\xi` of a base that is noise.

    A base :math:`N(0, I)` drawn independently of the data smooths :math:`x_1` all the way, so no :math:`\xi` is
    needed: the score s follows from the velocity, see :func:`~cnflib.interpolants.score_from_velocity`, and with it,
    without :math:`\xi`, :math:`E[x_0 | x_t] = -\alpha s`. The default is the path of :class:`Linear`.

    Args:
        alpha: The schedule :math:`\alpha`, from 1 to 0.
        beta: The schedule :math:`\beta`, from 0 to 1.
        gamma: The noise, whose value at t is :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise` or one's own;
            None is no noise.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> late = OneSided(beta=lambda t: t**2)
        >>> late(0.5, torch.zeros(1, 1), torch.ones(1, 1))
        tensor([[0.2500]])
    """

    alpha: Schedule = FALLING
    beta: Schedule = RISING
    gamma: Schedule | None = None
    gamma2: ClassVar[Schedule | None] = _given


@dataclass(frozen=True, repr=False)
class EncodingDecoding(Interpolant):
    r"""The path that forgets :math:`x_0` until t = ½, where it is pure noise, and then forms :math:`x_1`.

    .. math:: x_t = \cos^2(\pi t)\,\big(1_{t < 1/2}\,x_0 + 1_{t \ge 1/2}\,x_1\big) + \sin^2(\pi t)\,\xi

    The law of :math:`x_{1/2}` is N(0, I) whatever the two ends are.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> EncodingDecoding()(
        ...     0.25, torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1)
        ... )
        tensor([[0.5000]])
    """

    alpha: ClassVar[Schedule] = Encoding()
    beta: ClassVar[Schedule] = Decoding()
    gamma2: ClassVar[Schedule] = SineSquared()


_BRIDGE = Bridge()


@traceable
@dataclass(frozen=True, repr=False)
class Mirror(Interpolant):
    r"""The path :math:`x_t = x_1 + \gamma\xi` from data to noisy data and back; :math:`x_0` is ignored.

    Base and data have the same law. The ODE's map is then the identity at t = 1; what is of use is its SDE, which
    carries a data point to others near it.

    Args:
        gamma: The noise, whose value at t is :math:`\gamma^2`, from :mod:`cnflib.interpolants.noise` or one's own;
            it must not be None, without which the path would be constant.

    Raises:
        ValueError: If there is no noise.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> Mirror()(0.5, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1))
        tensor([[1.5000]])
    """

    gamma: Schedule = _BRIDGE
    alpha: ClassVar[Schedule] = Flat(0.0)
    beta: ClassVar[Schedule] = Flat(1.0)
    gamma2: ClassVar[Schedule] = _given
