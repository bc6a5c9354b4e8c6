r"""Velocity, score and denoiser: which follows from which, and where.

Score and denoiser are the same thing wherever :math:`\gamma > 0`: :math:`\bar\xi = E[\xi | x_t] = -\gamma s`.

The velocity b determines the score :math:`s = \nabla \log p_t` only if everything in :math:`x_t` but one end is
Gaussian noise. Let
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

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnflib._check import check_event, eager, reference
from cnflib._field import Uniform, uniform
from cnflib.interpolants._checks import check_path, check_time, evaluate
from cnflib.interpolants._schedules import root, with_rate
from cnflib.interpolants.interpolant import Interpolant
from cnflib.interpolants.pairing import Pairing
from cnflib.nets import VectorField

__all__ = [
    "Derived",
    "denoiser_from_score",
    "score_from_denoiser",
    "score_from_velocity",
    "velocity_from_score",
]

_NOISE = "of which a denoiser is the mean"


class Derived(nn.Module):
    """A field computed from another one at every call, by a rule.

    It holds the other field, and those schedules of an interpolant that are modules, so that a solver sees the
    parameters of all.

    Args:
        field: The other field.
        rule: The function ``rule(field, t, x, context, *settings)``, whose value is that of the new field.
        name: What the field prints as.
        settings: What else the rule takes, among it the interpolant.

    Example:
        >>> import torch
        >>> twice = Derived(
        ...     lambda t, x: x,
        ...     lambda field, t, x, context: 2 * field(t, x, context),
        ...     "twice",
        ... )
        >>> twice(0.5, torch.ones(1, 2))
        tensor([[2., 2.]])
    """

    def __init__(self, field: VectorField, rule: Callable[..., Tensor], name: str, *settings: object) -> None:
        super().__init__()
        self.field = uniform(field).field
        self.rule, self.name, self.settings = rule, name, settings
        paths = [path for path in settings if isinstance(path, Interpolant)]
        schedules = [schedule for path in paths for schedule in (path.alpha, path.beta, path.gamma2)]
        if learned := [schedule for schedule in schedules if isinstance(schedule, nn.Module)]:
            self.schedules = nn.ModuleList(learned)

    def forward(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The field at x, shape ``(B, *event)``; t in [0, 1] is a float or of shape ``()`` or ``(B,)``."""
        return self.rule(uniform(self.field), t, x, context, *self.settings)

    def extra_repr(self) -> str:
        return self.name


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
    _check_bound(interpolant, gaussian_end, pairing)
    return Derived(field, _score_of_velocity, "score from velocity", interpolant, gaussian_end)


def _score_of_velocity(
    field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None, path: Interpolant, end: int | None
) -> Tensor:
    def top(t: Tensor) -> Tensor:
        (a, _), (a_rate, _) = with_rate(split, t)
        return a * _value(field, t, x, context) - a_rate * x

    def bottom(t: Tensor) -> Tensor:
        (a, sigma2), (a_rate, sigma2_rate) = with_rate(split, t)
        return sigma2 * a_rate - a * sigma2_rate / 2

    t, split = _column(t, x), lambda t: _split(path, end, t)
    (a, sigma2), (a_rate, _) = with_rate(split, t)
    below, slope = with_rate(bottom, t)
    alone = (a == 0) & (a_rate == 0)  # x_t is the Gaussian and nothing else, whose score is known
    removable = _vanishes(below, slope) & ~alone  # here both sides vanish: the rule of de l'Hospital
    below = torch.where(removable, slope, below)
    # Below this bound rounding leaves the quotient no digits.
    least = 10 * torch.finfo(below.dtype).eps * torch.where(removable, 1, a_rate.abs())
    lost = ~below.isfinite() | (below.abs() <= least) & ~alone
    _check_times(t, lost, "the velocity fixes the score: the path is not at rest, and its rates are finite")
    if eager(below) and not removable.any():
        above = top(t)
    else:
        above = torch.where(removable, *reversed(with_rate(top, t)))
    return torch.where(alone, -x, above) / torch.where(alone, sigma2, below)


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
        >>> velocity_from_score(lambda t, x: -x / (t**2 + (1 - t) ** 2), Linear())(
        ...     0.75, torch.ones(1, 2)
        ... )
        tensor([[0.8000, 0.8000]])
    """
    _check_bound(interpolant, gaussian_end, pairing)
    return Derived(field, _velocity_of_score, "velocity from score", interpolant, gaussian_end)


def _velocity_of_score(
    field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None, path: Interpolant, end: int | None
) -> Tensor:
    def scaled(t: Tensor) -> Tensor:
        return _split(path, end, t)[1] * _value(field, t, x, context)

    t = _column(t, x)
    (a, sigma2), (a_rate, sigma2_rate) = with_rate(lambda t: _split(path, end, t), t)
    _check_times(t, ~(a_rate.isfinite() & sigma2_rate.isfinite()), "the schedules have a finite rate")
    s = _value(field, t, x, context)
    removable = _vanishes(a, a_rate)
    forming = a_rate / torch.where(removable, 1, a) * (x + sigma2 * s)
    if not eager(a) or removable.any():
        forming = torch.where(removable, with_rate(scaled, t)[1], forming)
    return forming - sigma2_rate / 2 * s


def _check_bound(interpolant: Interpolant, gaussian_end: int | None, pairing: Pairing | None) -> None:
    """Refuse a pairing and a path with which the velocity does not fix the score."""
    check_path(interpolant, _NOISE if gaussian_end is None else None)
    if gaussian_end not in (0, 1, None):
        raise ValueError(
            f"Expected gaussian_end to be 0, 1 or None, the time of an end; got {gaussian_end!r}."
        )
    if gaussian_end is not None and getattr(pairing, "independent", pairing is None) is not True:
        raise ValueError(
            f"Expected an independent pairing, e.g. IndependentPairing(); got {pairing!r}. Where the Gaussian end "
            "depends on the other, learn the score as well, by score_loss or denoiser_loss, which hold for any pairing."
        )
    if gaussian_end is None and not torch.compiler.is_compiling() and _ends_meet(interpolant):
        raise ValueError(
            "Expected a path on which the ends never meet, alpha beta = 0, where gaussian_end=None; got one on which "
            "they do. Learn the score as well, by score_loss; or say gaussian_end=0 or 1 where an end is N(0, I)."
        )


def _ends_meet(path: Interpolant) -> bool:
    like = reference(path.alpha, path.beta)
    t = torch.linspace(0, 1, 101) if like is None else torch.linspace(0, 1, 101).to(like)
    return (path.alpha(t) * path.beta(t)).abs().max().item() > 1e-6


def _split(path: Interpolant, end: int | None, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""The coefficient a of what is not Gaussian in :math:`x_t`, and the variance :math:`\sigma^2` of what is."""
    alpha, beta = path.alpha(t), path.beta(t)
    if end is None:
        return alpha + beta, path.gamma2(t)
    a, other = {0: (beta, alpha), 1: (alpha, beta)}[end]
    return a, other**2 if path.gamma2 is None else other**2 + path.gamma2(t)


def _vanishes(value: Tensor, rate: Tensor) -> Tensor:
    """Whether a zero is so near in time that a quotient by it has fewer true digits than the limit there."""
    return value.abs() <= torch.finfo(value.dtype).eps ** 0.5 * rate.abs()


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
        >>> denoiser_from_score(lambda t, x: -x, Linear(Constant(0.5)))(
        ...     0.3, torch.ones(1, 2)
        ... )
        tensor([[0.5000, 0.5000]])
    """
    check_path(interpolant, _NOISE)
    return Derived(field, _denoiser_of_score, "denoiser from score", interpolant)


def _denoiser_of_score(
    field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None, path: Interpolant
) -> Tensor:
    t = _column(t, x)
    return -root(path.gamma2(t)) * _value(field, t, x, context)


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
        >>> score_from_denoiser(lambda t, x: x, Linear(Constant(0.5)))(
        ...     0.3, torch.ones(1, 2)
        ... )
        tensor([[-2., -2.]])
    """
    check_path(interpolant, _NOISE)
    return Derived(field, _score_of_denoiser, "score from denoiser", interpolant)


def _score_of_denoiser(
    field: Uniform, t: float | Tensor, x: Tensor, context: Tensor | None, path: Interpolant
) -> Tensor:
    t = _column(t, x)
    gamma = root(path.gamma2(t))
    none = gamma <= torch.finfo(gamma.dtype).eps  # what rounding leaves of sin πt at t = 1
    _check_times(t, none, "gamma > 0, as a denoiser says nothing of the score elsewhere")
    return -_value(field, t, x, context) / gamma


def _column(t: float | Tensor, x: Tensor) -> Tensor:
    """The time as a tensor that broadcasts against x."""
    check_event(x, None)
    return check_time(t, x).clone(memory_format=torch.contiguous_format)  # a view fails in a compiled jvp


def _value(field: Uniform, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """The field at a time that broadcasts against x."""
    return evaluate(field, "field", t.flatten() if t.shape[0] == x.shape[0] else t.reshape(()), x, context)


def _check_times(t: Tensor, lost: Tensor, wanted: str) -> None:
    """Refuse times at which a conversion has no value."""
    if eager(lost) and lost.any():
        raise ValueError(
            f"Expected times t at which {wanted}; got t = {t[lost][0].item():g}. Stay away from it by t0 and t1 of the "
            "sampler, or let eps vanish there, e.g. eps=interpolant.gamma2; or learn the score by score_loss."
        )
