r"""Sampling with a learned velocity, and score: an ODE, and SDEs of the same marginal laws.

With the exact velocity b and score s of an interpolant, points drawn from :math:`p_{t_0}` and carried by

.. math:: dx = b\,dt \qquad \text{or} \qquad dx = (b + \epsilon s)\,dt + \sqrt{2 \epsilon}\,dW

have the law :math:`p_t` at every later t, whatever :math:`\epsilon(t) \ge 0`; backwards in time the sign of
:math:`\epsilon s` changes. With learned b and s the laws differ, and change with ε. ``Flow(CNF(field), base).log_prob``
is the density of the ODE's points, and of no SDE's.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from cnflib._check import check_event, eager, row_each
from cnflib._check_field import check_deterministic
from cnflib._field import uniform
from cnflib._random import source
from cnflib.continuous import carry
from cnflib.interpolants._checks import evaluate
from cnflib.interpolants.interpolant import Schedule
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Fixed, Solver, euler, heun

__all__ = ["reflow", "sample_ode", "sample_sde"]

ROUNDING = 1e-6  # of the largest eps: what a schedule may fall below 0 where it should vanish

_ODE_SOLVER = Adaptive()
_SDE_SOLVER = Fixed(100, heun)


@torch.no_grad()
def sample_ode(
    field: VectorField,
    x0: Tensor,
    solver: Solver = _ODE_SOLVER,
    context: Tensor | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
) -> Tensor:
    r"""Carry base points to data by the probability flow :math:`\dot x = b(t, x)`, or data to base.

    For their density hand the field to a flow: ``Flow(CNF(field), base).log_prob``. The points carry no
    gradient; for gradients in x0 or in the field use ``CNF(field).decode(x0)`` or :func:`cnflib.ode.solve`.

    Args:
        field: The velocity ``b(t, x)``, or ``b(t, x, context)``.
        x0: Points at time t0, shape ``(B, *event)``; any data set may be the base.
        solver: How it is solved: :class:`cnflib.ode.Adaptive`, :class:`cnflib.ode.Fixed`, ...
        context: What the field is conditioned on, a row for each of x0 or one for all.
        t0: Starting time in [0, 1].
        t1: Final time in [0, 1]; below t0 the flow runs backwards.

    Returns:
        Points at time t1, shape ``(B, *event)``.

    Raises:
        ValueError: If points, context or times are not as above.

    Example:
        >>> import torch
        >>> x1 = sample_ode(lambda t, x: x, torch.ones(1, 2))  # x1 = e x0
        >>> x0 = sample_ode(lambda t, x: x, x1, t0=1.0, t1=0.0)
    """
    check_event(x0, None, "x0")
    return carry(field, x0, t0, t1, solver, row_each(context, x0.shape[0]))


@torch.no_grad()
def sample_sde(
    field: VectorField,
    score: VectorField,
    x0: Tensor,
    eps: float | Schedule,
    solver: Fixed = _SDE_SOLVER,
    context: Tensor | None = None,
    generator: Generator | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
) -> Tensor:
    r"""Carry points by the SDE of diffusion :math:`\epsilon(t)`, chosen after training, in equal steps.

    .. math:: dx = (b + \epsilon s)\,dt + \sqrt{2 \epsilon}\,dW, \qquad \text{backwards} \quad
              dx = (b - \epsilon s)\,dt + \sqrt{2 \epsilon}\,dW

    ``Fixed(steps, heun)`` is Heun's method with one draw a step, of weak order 2 as the noise does not depend on x.
    Each step evaluates both fields twice, at its two ends, so t0 and t1 are among the times. ``Fixed(steps, euler)`` is
    the method of Euler and Maruyama, of weak order 1: one evaluation a step, none at t1. For ε = 0 each is the method
    of its name for the ODE.

    Where ε(t) = 0 the score is not asked. Let ε vanish where a score is singular or unknown: a multiple of
    :math:`\gamma^2` (``eps=interpolant.gamma2``), or of :math:`\alpha^2 + \gamma^2` from a Gaussian base, keeps
    :math:`\epsilon s` finite for any data, even on a manifold. Other ε need a score that is bounded up to both ends,
    and steps with :math:`\epsilon h` well below the smallest variance of :math:`p_t` in any direction.

    The points carry no gradient: the law of an SDE is trained by the losses of its two fields.

    Args:
        field: The velocity ``b(t, x)``, or ``b(t, x, context)``.
        score: The score ``s(t, x)``, or ``s(t, x, context)``, learned, or of
            :func:`~cnflib.interpolants.score_from_velocity`.
        x0: Points at time t0, shape ``(B, *event)``.
        eps: The diffusion ε ≥ 0, a number or a function of a tensor t, elementwise.
        solver: The number of steps and the method: ``Fixed(steps, heun)`` or ``Fixed(steps, euler)``, of
            :mod:`cnflib.ode`.
        context: What both fields are conditioned on, a row for each of x0 or one for all.
        generator: Source of the noise.
        t0: Starting time in [0, 1].
        t1: Final time in [0, 1]; below t0 the SDE runs backwards.

    Returns:
        Points at time t1, shape ``(B, *event)``.

    Raises:
        ValueError: If points, context or times are not as above, the solver is another one, or ε is negative, not
            finite or not elementwise.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797;
        Numerical Solution of Stochastic Differential Equations, Kloeden & Platen, 1992, chapters 14 and 15.

    Example:
        >>> import torch
        >>> from cnflib import GaussianMixture, StandardNormal
        >>> from cnflib.interpolants import Linear, Oracle
        >>> from cnflib.ode import Fixed, heun
        >>> oracle = Oracle(
        ...     Linear(),
        ...     StandardNormal(1),
        ...     GaussianMixture([1.0], [[4.0]], [[[0.25]]]),
        ... )
        >>> x1 = sample_sde(
        ...     oracle.velocity,
        ...     oracle.score,
        ...     torch.zeros(500, 1),
        ...     lambda t: 1 - t,
        ...     Fixed(50, heun),
        ... )
        >>> x1.shape
        torch.Size([500, 1])
    """
    check_event(x0, None, "x0")
    field, score = uniform(field), uniform(score)
    if not torch.compiler.is_compiling():  # modules() fails there for modules that were created while tracing
        for part in (field, score):
            check_deterministic(part.field)
    context = row_each(context, x0.shape[0])
    step = _noisy_step(solver)
    if not (0 <= t0 <= 1 and 0 <= t1 <= 1):
        raise ValueError(
            f"Expected t0 and t1 in [0, 1], from base to data; got {t0} and {t1}. Rescale the fields."
        )
    times = torch.linspace(t0, t1, solver.steps + 1, dtype=x0.dtype, device=x0.device)
    diffusion = _diffusion(eps, times)
    asked = (diffusion > 0).tolist() if eager(diffusion) else [True] * len(times)
    h, x = (t1 - t0) / solver.steps, x0

    def drift(k: int, x: Tensor) -> Tensor:
        b = evaluate(field, "field", times[k], x, context)
        if not asked[k]:
            return b
        s = evaluate(score, "score", times[k], x, context)
        return b + math.copysign(1, h) * torch.where(diffusion[k] > 0, diffusion[k] * s, 0)

    for k in range(solver.steps):
        dw = abs(h) ** 0.5 * torch.randn(x.shape, **source(generator), dtype=x.dtype, device=x.device)
        x = step(drift, diffusion, k, h, x, dw)
    return x


def _heun_step(
    drift: Callable[[int, Tensor], Tensor], diffusion: Tensor, k: int, h: float, x: Tensor, dw: Tensor
) -> Tensor:
    noise = (diffusion[k] + diffusion[k + 1]).sqrt() * dw
    slope = drift(k, x)
    return x + noise + h / 2 * (slope + drift(k + 1, x + h * slope + noise))


def _euler_step(
    drift: Callable[[int, Tensor], Tensor], diffusion: Tensor, k: int, h: float, x: Tensor, dw: Tensor
) -> Tensor:
    return x + h * drift(k, x) + (2 * diffusion[k]).sqrt() * dw


def _noisy_step(solver: Fixed) -> Callable[..., Tensor]:
    """The step with noise of a method, of which there is one for Heun's and one for Euler's."""
    if not isinstance(solver, Fixed) or solver.tableau not in (heun, euler) or solver.project is not None:
        raise ValueError(
            f"Expected solver to be Fixed(steps, heun) or Fixed(steps, euler), without project; got {solver!r}. With "
            "noise other methods lose their order, adaptive steps depend on it, and a projection changes the law."
        )
    return _heun_step if solver.tableau == heun else _euler_step


def reflow(
    field: VectorField, x0: Tensor, solver: Solver = _ODE_SOLVER, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Pair base points with where the flow carries them, :math:`(x_0, x_1 = X_1(x_0))`, for a second training.

    A field trained on these pairs with :class:`~cnflib.interpolants.Linear` has straighter paths, and the transport
    cost :math:`E\, c(x_1 - x_0)` does not rise for any convex c. The law of :math:`x_1` is that of the first field,
    with its errors. The ends are no longer independent (train with :class:`~cnflib.interpolants.Paired`), so the score
    does not follow from the second velocity.

    Args:
        field: The velocity ``b(t, x)``, or ``b(t, x, context)``.
        x0: Base points, shape ``(B, *event)``.
        solver: As in :func:`sample_ode`.
        context: What the field is conditioned on, a row for each of x0; train the second field with the same rows.

    Returns:
        The pairs, without a gradient.

    References:
        Flow Straight and Fast, Liu et al., 2022, arXiv:2209.03003.

    Example:
        >>> import torch
        >>> x0, x1 = reflow(lambda t, x: -x, torch.ones(1, 2))
    """
    return x0.detach(), sample_ode(field, x0, solver, context)


def _diffusion(eps: float | Schedule, times: Tensor) -> Tensor:
    """The diffusion at all times of the grid, checked."""
    value = torch.as_tensor(eps(times) if callable(eps) else eps, dtype=times.dtype, device=times.device)
    value = value.expand_as(times)
    value = torch.where((value < 0) & (value > -ROUNDING * value.abs().max()), 0, value)
    if eager(value) and not ((value >= 0) & (value < torch.inf)).all():
        raise ValueError(
            f"Expected eps(t) >= 0 and finite, a diffusion; got {value.min().item():g} to {value.max().item():g}. "
            "To go backwards in time swap t0 and t1; for the ODE take eps=0."
        )
    return value
