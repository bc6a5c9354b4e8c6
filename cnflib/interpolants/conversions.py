r"""Velocity and score: which follows from which, and where.

The velocity b is bound to the score :math:`s = \nabla \log p_t` only where all but one end is Gaussian noise. Let
:math:`x_0 \sim N(0, I)` be independent of :math:`x_1`. Then :math:`x_t = \beta x_1 + \sigma \xi'` with
:math:`\sigma^2 = \alpha^2 + \gamma^2`, and

.. math:: b = \frac{\dot\beta}{\beta} (x + \sigma^2 s) - \sigma\dot\sigma\, s, \qquad
          s = \frac{\beta\, b - \dot\beta\, x}{\sigma^2 \dot\beta - \beta\, \sigma\dot\sigma}.

For :math:`x_1 \sim N(0, I)` exchange α and β. Where the two ends never meet in :math:`x_t` (:math:`\alpha\beta = 0`, as
in :class:`~cnflib.interpolants.Mirror` and :class:`~cnflib.interpolants.EncodingDecoding`) neither need be Gaussian:
α + β stands for β, and γ² for σ².

A dependent pairing breaks this. Between N(0, 1) and N(0, 4), paired by :math:`x_1 = 2 x_0`, the velocity of the linear
path at t = ½ is 0.67 x and the score -0.44 x; the formula would give -1.33 x.

References:
    Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571;
    Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cnflib._check import eager
from cnflib._field import Uniform
from cnflib.interpolants._derived import Derived, check_noisy, time_like, value_at, with_rate
from cnflib.interpolants._pairs import check_path
from cnflib.interpolants.interpolant import Interpolant, Schedule
from cnflib.interpolants.pairing import Pairing
from cnflib.nets import VectorField

__all__ = ["score_from_velocity", "velocity_from_score"]


def score_from_velocity(
    field: VectorField,
    interpolant: Interpolant,
    *,
    gaussian_end: int | None = 0,
    pairing: Pairing | None = None,
) -> Derived:
    r"""The score :math:`s = (a b - \dot a x) / (\sigma^2 \dot a - a \sigma\dot\sigma)` of a velocity b.

    It is the score only if the base :math:`x_0 \sim N(0, I)` was drawn independently of the data, which neither the
    interpolant nor the field can tell: pass the ``pairing`` that was trained with, and it is checked. For two ends of
    which neither is Gaussian say ``gaussian_end=None``.

    Here a is the coefficient of the end that is not Gaussian. Where both sides of the fraction vanish, as at t = 1
    without noise, s is the ratio of their derivatives in t; for this the field must be differentiable in t, and forward
    mode runs through it. An error of a learned b grows by :math:`a / (\sigma^2 \dot a - a \sigma\dot\sigma)`, which is
    t / (1 - t) on the linear path: where the score matters near such a time, learn it or its denoiser as well.

    Args:
        field: The velocity ``b(t, x)`` or ``b(t, x, context)``.
        interpolant: The interpolant that it is the velocity of.
        gaussian_end: The time, 0 or 1, of the end that is N(0, I) and independent of the other; None if neither is,
            for a path on which the ends never meet.
        pairing: The pairing that was trained with, e.g. ``IndependentPairing()``, to be checked; None states that the
            ends are independent.

    Returns:
        The field ``s(t, x, context=None)``.

    Raises:
        ValueError: If the pairing is not known to be independent, if the velocity does not fix the score (neither
            end is Gaussian and both meet), or, when called outside of compilation, at a time where it does not.

    Example:
        >>> import torch
        >>> from cnflib import StandardNormal
        >>> from cnflib.interpolants import Linear, Oracle
        >>> oracle = Oracle(Linear(), StandardNormal(2), StandardNormal(2))
        >>> score_from_velocity(oracle.velocity, Linear())(0.5, torch.ones(1, 2))
        tensor([[-2., -2.]])
    """
    return Derived(
        field, _Score(*_split(interpolant, gaussian_end, pairing)), "score from velocity", interpolant
    )


def velocity_from_score(
    field: VectorField,
    interpolant: Interpolant,
    *,
    gaussian_end: int | None = 0,
    pairing: Pairing | None = None,
) -> Derived:
    r"""The velocity :math:`b = \tfrac{\dot a}{a} (x + \sigma^2 s) - \sigma\dot\sigma\, s` of a score s.

    Here a is the coefficient of the end that is not Gaussian. Where it vanishes, as at t = 0, the first term is taken
    as :math:`\tfrac{d}{dt} (\sigma^2 s)`, its limit; for this the score must be differentiable in t.

    Args:
        field: The score ``s(t, x)`` or ``s(t, x, context)``; of a denoiser take :func:`score_from_denoiser` first.
        interpolant: The interpolant that it is the score of.
        gaussian_end: As in :func:`score_from_velocity`.
        pairing: As in :func:`score_from_velocity`.

    Returns:
        The field ``b(t, x, context=None)``.

    Raises:
        ValueError: As :func:`score_from_velocity`; when called, only at a time where a schedule has no finite rate.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear
        >>> velocity_from_score(lambda t, x: -x / (t**2 + (1 - t) ** 2), Linear())(0.75, torch.ones(1, 2))
        tensor([[0.8000, 0.8000]])
    """
    return Derived(
        field, _Velocity(*_split(interpolant, gaussian_end, pairing)), "velocity from score", interpolant
    )


@dataclass(frozen=True)
class _Score:
    r"""The rule :math:`s = (a b - \dot a x) / (\sigma^2 \dot a - a \sigma\dot\sigma)`."""

    a: Schedule
    sigma2: Schedule

    def __call__(self, field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        def above(t: Tensor) -> Tensor:
            value, rate = with_rate(self.a, t)
            return value * value_at(field, t, x, context) - rate * x

        t = time_like(t, x)
        (value, rate), (bottom, slope) = with_rate(self.a, t), with_rate(self.below, t)
        alone = (value == 0) & (rate == 0)  # x_t is the Gaussian and nothing else
        removable = _vanishes(bottom, slope) & ~alone
        bottom = torch.where(removable, slope, bottom)
        _check_fixed(t, bottom, torch.where(removable, 1, rate.abs()), alone)
        if eager(bottom) and not removable.any():
            top = above(t)
        else:
            top = torch.where(removable, *reversed(with_rate(above, t)))
        return torch.where(alone, -x, top) / torch.where(alone, self.sigma2(t), bottom)

    def below(self, t: Tensor) -> Tensor:
        (value, rate), (variance, growth) = with_rate(self.a, t), with_rate(self.sigma2, t)
        return variance * rate - value * growth / 2


@dataclass(frozen=True)
class _Velocity:
    r"""The rule :math:`b = \tfrac{\dot a}{a} (x + \sigma^2 s) - \sigma\dot\sigma\, s`."""

    a: Schedule
    sigma2: Schedule

    def __call__(self, field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        def scaled(t: Tensor) -> Tensor:
            return self.sigma2(t) * value_at(field, t, x, context)

        t = time_like(t, x)
        (value, rate), (variance, growth) = with_rate(self.a, t), with_rate(self.sigma2, t)
        _check_rates(t, rate, growth)
        s = value_at(field, t, x, context)
        removable = _vanishes(value, rate)
        forming = rate / torch.where(removable, 1, value) * (x + variance * s)
        if not eager(value) or removable.any():
            forming = torch.where(removable, with_rate(scaled, t)[1], forming)
        return forming - growth / 2 * s


def _split(
    interpolant: Interpolant, gaussian_end: int | None, pairing: Pairing | None
) -> tuple[Schedule, Schedule]:
    """The coefficient a of what is not Gaussian in x_t, and the variance of what is."""
    check_path(interpolant)
    alpha, beta, gamma2 = interpolant.alpha, interpolant.beta, interpolant.gamma2
    if gaussian_end not in (0, 1, None):
        raise ValueError(
            f"Expected gaussian_end to be 0, 1 or None: the time of the end that is N(0, I); got {gaussian_end!r}."
        )
    if gaussian_end is None:
        _check_apart(interpolant)
        return _Sum(alpha, beta), gamma2
    _check_independent(pairing)
    a, other = (beta, alpha) if gaussian_end == 0 else (alpha, beta)
    return a, _Variance(other, gamma2)


@dataclass(frozen=True)
class _Sum:
    r"""The coefficient :math:`\alpha + \beta` of two ends that never meet."""

    alpha: Schedule
    beta: Schedule

    def __call__(self, t: Tensor) -> Tensor:
        return self.alpha(t) + self.beta(t)


@dataclass(frozen=True)
class _Variance:
    r"""The variance :math:`\alpha^2 + \gamma^2` of a Gaussian end and the noise."""

    other: Schedule
    gamma2: Schedule | None

    def __call__(self, t: Tensor) -> Tensor:
        square = self.other(t) ** 2
        return square if self.gamma2 is None else square + self.gamma2(t)


def _vanishes(value: Tensor, rate: Tensor) -> Tensor:
    """Whether a zero is so near in time that a quotient by it has fewer true digits than the limit there."""
    return value.abs() <= torch.finfo(value.dtype).eps ** 0.5 * rate.abs()


def _check_fixed(t: Tensor, bottom: Tensor, scale: Tensor, alone: Tensor) -> None:
    """Refuse times at which rounding leaves the quotient by ``bottom`` no digits."""
    if not eager(bottom):
        return
    lost = ~bottom.isfinite() | (bottom.abs() <= 10 * torch.finfo(bottom.dtype).eps * scale) & ~alone
    if lost.any():
        raise ValueError(
            f"Expected times at which the velocity fixes the score; at t = {t[lost][0].item():g} it does not: the path "
            "is at rest there, or a schedule has no finite rate. Stay away from it, learn the score as well "
            "(score_loss or denoiser_loss), or take an eps that vanishes there."
        )


def _check_rates(t: Tensor, *rates: Tensor) -> None:
    """Refuse times at which a schedule has no finite rate, and the velocity with it."""
    lost = ~torch.stack([rate.isfinite() for rate in rates]).all(0)
    if eager(lost) and lost.any():
        raise ValueError(
            f"Expected times at which the schedules have a finite rate; at t = {t[lost][0].item():g} one has none. "
            "Stay away from it, e.g. by t0 and t1 of the sampler."
        )


def _check_apart(interpolant: Interpolant) -> None:
    """Refuse a path on which two ends that are not Gaussian are mixed, or are not smoothed by noise."""
    check_noisy(interpolant)
    if torch.compiler.is_compiling():
        return
    t = torch.linspace(0, 1, 101)
    if (interpolant.alpha(t) * interpolant.beta(t)).abs().max() > 1e-6:
        raise ValueError(
            "Expected a path on which the ends never meet, alpha beta = 0, where gaussian_end=None: else the velocity "
            "does not fix the score. Learn that too, by score_loss or denoiser_loss; or say gaussian_end=0 or 1 where "
            "an end is N(0, I)."
        )


def _check_independent(pairing: Pairing | None) -> None:
    built = not isinstance(pairing, type)
    if pairing is not None and not (built and getattr(pairing, "independent", False)):
        raise ValueError(
            "Expected an independent pairing, e.g. IndependentPairing(); got "
            f"{getattr(pairing, '__name__', repr(pairing))}. Where the Gaussian "
            "end depends on the other the velocity does not fix the score: learn that too, by score_loss or "
            "denoiser_loss, which hold for any pairing."
        )
