r"""What the laws of an interpolant's samplers are, how far off, and whether a learned pair fits together.

The density of the probability flow of a velocity b is exact up to its solver: ``flow = Flow(CNF(b), base)`` gives
``flow.log_prob(x)`` of what :func:`~cnflib.interpolants.sample_ode` draws, and
:func:`log_prob_at(flow, x, t) <cnflib.continuous.log_prob_at>` gives :math:`\log p_t(x)` at any time.

The SDE of the same velocity with a score, :math:`dx = (b + \varepsilon s)\,dt + \sqrt{2 \varepsilon}\,dW`, has the
same law at every time where b and s are exact. Learned ones are not, and then the two laws differ: ``log_prob`` is
that of the ODE. How far the SDE is from the data, :func:`path_measure_bound` says in terms of the two losses; the
Kullback-Leibler divergence of the ODE is not controlled by the loss of its velocity.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp

from cnflib._check import check_event
from cnflib._field import uniform
from cnflib.continuous import Exact
from cnflib.interpolants._checks import check_time, evaluate
from cnflib.nets import VectorField

__all__ = ["TimeLogDensity", "best_diffusion", "continuity_residual", "path_measure_bound", "score_residual"]

TimeLogDensity = Callable[..., Tensor]
r"""``log_prob(t, x)`` or ``log_prob(t, x, context)``, the log-density :math:`\log p_t(x)` in nats, shape ``(B,)``."""

_DIVERGENCE = Exact()


def continuity_residual(
    field: VectorField,
    log_prob: TimeLogDensity,
    t: float | Tensor,
    x: Tensor,
    context: Tensor | None = None,
) -> Tensor:
    r"""By how much a velocity and a log-density miss the continuity equation.

    .. math:: \partial_t \log p_t + b \cdot \nabla \log p_t + \nabla \cdot b

    It is 0 at every time and point where b carries :math:`p_t`, and its integral along a path of b is the error of
    :math:`\log p_t` there. Its first two terms are one derivative, along the direction :math:`(1, b)`.

    Args:
        field: The velocity ``b(t, x)``, or ``b(t, x, context)``.
        log_prob: The log-density ``log_prob(t, x)``, or ``log_prob(t, x, context)``, differentiable in forward mode. It
            needs no normalisation that is constant in time.
        t: Time in [0, 1], a float or shape ``()`` or ``(B,)``, handed on in this shape.
        x: Points, shape ``(B, *event)``.
        context: What both are conditioned on, a row for each of x.

    Returns:
        Nats per unit of time, shape ``(B,)``.

    Raises:
        ValueError: If t or x has a wrong shape, or ``log_prob`` or ``field`` returns one.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> shrinking = lambda t, x: -x  # N(0, I) becomes N(0, exp(-2t) I)
        >>> log_prob = lambda t, x: (
        ...     -0.5 * x.square().sum(1) * torch.exp(2 * t) + x.shape[1] * t
        ... )
        >>> continuity_residual(shrinking, log_prob, 0.5, torch.ones(3, 2))
        tensor([0., 0., 0.])
    """
    t, field, log_prob = _time_at(t, x), uniform(field), uniform(log_prob)
    b, divergence, _ = _DIVERGENCE(x)(field, t, x, context)
    along = (torch.ones_like(t), b.contiguous())
    value, rate = jvp(lambda t, x: log_prob(t, x, context), (t, x.contiguous()), along)
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"Expected log_prob(t, x, context) to return shape {tuple(x.shape[:1])}, one number a row; "
            f"got {tuple(value.shape)}. Sum over the event: value.flatten(1).sum(1)."
        )
    return rate + divergence


def score_residual(
    field: VectorField,
    score: VectorField,
    t: float | Tensor,
    x: Tensor,
    context: Tensor | None = None,
) -> Tensor:
    r"""By how much a velocity and a score miss the gradient of the continuity equation.

    .. math:: \partial_t s + \nabla (\nabla \cdot b + b \cdot s)

    For a pair learned by regression, of which no log-density is known. It is 0 where s is the score of what b carries;
    the reverse needs a score that fits at one time, e.g. that of the base at t = 0. It takes second derivatives of b.

    Args:
        field: The velocity ``b(t, x)``, or ``b(t, x, context)``.
        score: The score ``s(t, x)``, or ``s(t, x, context)``.
        t: Time in [0, 1], a float or shape ``()`` or ``(B,)``, handed on in this shape.
        x: Points, shape ``(B, *event)``.
        context: What both are conditioned on, a row for each of x.

    Returns:
        The residual, shape ``(B, *event)``, in units of the score per unit of time.

    Raises:
        ValueError: If t or x has a wrong shape, or ``field`` or ``score`` returns one.

    References:
        FP-Diffusion: Improving Score-based Diffusion Models by Enforcing the Underlying Score Fokker-Planck Equation,
        Lai et al., 2022, arXiv:2210.04296 (the same for diffusions).

    Example:
        >>> import torch
        >>> shrinking = lambda t, x: -x
        >>> score = lambda t, x: -x * torch.exp(2 * t)
        >>> score_residual(shrinking, score, 0.5, torch.ones(1, 2))
        tensor([[0., 0.]])
    """
    t, field, score = _time_at(t, x), uniform(field), uniform(score)
    x = x.contiguous()
    _, rate = jvp(lambda t: evaluate(score, "score", t, x, context), (t,), (torch.ones_like(t),))

    def total(x: Tensor) -> Tensor:
        b, divergence, _ = _DIVERGENCE(x)(field, t, x, context)
        return (divergence + (b * score(t, x, context)).flatten(1).sum(1)).sum()

    return rate + grad(total)(x)


def path_measure_bound(gap_b: float | Tensor, gap_s: float | Tensor, eps: float | Tensor) -> Tensor:
    r"""A bound on how far the law of the learned SDE is from the data, by Girsanov's theorem on its paths.

    .. math:: \begin{aligned} \mathrm{KL}(\rho_1 \| \hat\rho_1)
              &\le \frac{1}{4 \varepsilon} \int_0^1 E |\hat b - b + \varepsilon (\hat s - s)|^2\,dt \\
              &\le \frac{1}{2 \varepsilon} \int_0^1 E |\hat b - b|^2\,dt \\
              &\quad + \frac\varepsilon2 \int_0^1 E |\hat s - s|^2\,dt \end{aligned}

    of the SDE :math:`dx = (\hat b + \varepsilon \hat s)\,dt + \sqrt{2 \varepsilon}\,dW` that starts at the true
    :math:`\rho_0` and is solved exactly; the means are over the true :math:`\rho_t`. A gap is by how much the mean of
    :func:`~cnflib.interpolants.velocity_loss`, with uniform t and without the factor ½ that some papers give it,
    exceeds the least that it can be. That least is not 0; it is known where the exact velocity is.

    Args:
        gap_b: :math:`\int E |\hat b - b|^2\,dt`, in squared data units.
        gap_s: :math:`\int E |\hat s - s|^2\,dt`. It is not the excess of
            :func:`~cnflib.interpolants.score_loss`, which has a weight :math:`\gamma^2` in the integral: where the
            exact score is known, take the mean of :math:`|\hat s - s|^2`.
        eps: The diffusion :math:`\varepsilon > 0`. Where it depends on time, hand squared errors at uniform
            times and :math:`\varepsilon` at these times, elementwise, and average the result.

    Returns:
        The bound in nats, elementwise; infinite where eps is 0, as no loss of the velocity bounds the divergence of the
        ODE.

    Raises:
        ValueError: If a gap or ``eps`` is negative.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797; its losses carry a
        factor ½, with which its constants would have to be 1/ε and ε.

    Example:
        >>> path_measure_bound(gap_b=0.02, gap_s=0.5, eps=0.2)
        tensor(0.1000)
    """
    gap_b, gap_s, eps = _at_least_0(gap_b, "gap_b"), _at_least_0(gap_s, "gap_s"), _at_least_0(eps, "eps")
    return gap_b / (2 * eps) + eps * gap_s / 2


def best_diffusion(gap_b: float | Tensor, gap_s: float | Tensor) -> Tensor:
    r"""The constant diffusion of the least :func:`path_measure_bound`, which is there :math:`\sqrt{g_b g_s}`.

    .. math:: \varepsilon = \sqrt{g_b / g_s}

    Args:
        gap_b: :math:`g_b = \int E |\hat b - b|^2\,dt`.
        gap_s: :math:`g_s = \int E |\hat s - s|^2\,dt`; of an exact score the bound falls without end as ε grows.

    Raises:
        ValueError: If a gap is negative.

    Example:
        >>> best_diffusion(gap_b=0.02, gap_s=0.5)
        tensor(0.2000)
    """
    return (_at_least_0(gap_b, "gap_b") / _at_least_0(gap_s, "gap_s")).sqrt()


def _time_at(t: float | Tensor, x: Tensor) -> Tensor:
    """Check points and their time, and return it as a tensor."""
    check_event(x, None)
    check_time(t, x)
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).contiguous()


def _at_least_0(value: float | Tensor, name: str) -> Tensor:
    value = torch.as_tensor(value)
    if not (value >= 0).all():
        raise ValueError(
            f"Expected {name} >= 0; got {value.min().item():g}. A gap is a mean of squares: from a loss subtract the "
            "least that it can be, not the loss of another model."
        )
    return value
