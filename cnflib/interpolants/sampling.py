r"""Sampling with a learned velocity, and score: an ODE, and SDEs of the same marginal laws.

With the exact velocity b and score s of an interpolant, points drawn from :math:`p_{t_0}` and carried by

.. math:: dx = b\,dt \qquad \text{or} \qquad dx = (b + \epsilon s)\,dt + \sqrt{2 \epsilon}\,dW

have the law :math:`p_t` at every later t, whatever :math:`\epsilon(t) \ge 0`; backwards in time the sign of
:math:`\epsilon s` changes. With learned b and s the laws differ, and change with ε. ``Flow(CNF(field), base).log_prob``
is the density of the ODE's points, and of no SDE's.
"""

import math

import torch
from torch import Generator, Tensor

from cnflib._check import (
    check_context,
    check_deterministic,
    check_event,
    check_like,
    check_positive_int,
    eager,
    reference,
)
from cnflib._random import given
from cnflib.continuous import Solver, exact
from cnflib.continuous._arguments import check_parts
from cnflib.continuous._carry import carry
from cnflib.interpolants._pairs import evaluate
from cnflib.interpolants.interpolant import Schedule
from cnflib.nets import VectorField

__all__ = ["reflow", "sample_ode", "sample_sde"]

ROUNDING = 1e-6  # of the largest eps: what a schedule may fall below 0 where it should vanish


def sample_ode(
    field: VectorField,
    x0: Tensor,
    solver: Solver | None = None,
    context: Tensor | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
) -> Tensor:
    r"""Carry base points to data by the probability flow :math:`\dot x = b(t, x)`, or data to base.

    For their density hand the field to a flow: ``Flow(CNF(field), base).log_prob``. Gradients reach the field and
    x0 through every step; to draw points only, call it under ``torch.no_grad()``.

    Args:
        field: The velocity ``b(t, x, context)``.
        x0: Points at time t0, shape ``(B, *event)``; any data set may be the base.
        solver: :func:`cnflib.continuous.adaptive` by default.
        context: What the field is conditioned on, shape ``(B, features)``.
        t0: Starting time in [0, 1].
        t1: Final time in [0, 1]; below t0 the flow runs backwards.

    Returns:
        Points at time t1, shape ``(B, *event)``.

    Raises:
        ValueError: If points, context or times are not as above.

    Example:
        >>> import torch
        >>> x1 = sample_ode(lambda t, x, context: x, torch.ones(1, 2))  # x1 = e x0
        >>> x0 = sample_ode(lambda t, x, context: x, x1, t0=1.0, t1=0.0)
    """
    check_event(x0, None, "x0")
    if not torch.compiler.is_compiling():
        check_parts(field, exact, solver, ())
    return carry(field, x0, t0, t1, context, solver)


def sample_sde(
    field: VectorField,
    score: VectorField,
    x0: Tensor,
    eps: float | Schedule,
    steps: int,
    generator: Generator | None = None,
    context: Tensor | None = None,
    *,
    t0: float = 0.0,
    t1: float = 1.0,
) -> Tensor:
    r"""Carry points by the SDE of diffusion :math:`\epsilon(t)`, chosen after training, in equal steps.

    .. math:: dx = (b + \epsilon s)\,dt + \sqrt{2 \epsilon}\,dW, \qquad \text{backwards} \quad
              dx = (b - \epsilon s)\,dt + \sqrt{2 \epsilon}\,dW

    Heun's method with one draw a step, of weak order 2 as the noise does not depend on x; for ε = 0 it is that of
    ``fixed(steps, heun)``. Each step evaluates both fields twice, at its two ends, so t0 and t1 are among the times.
    Gradients reach both through every step, which takes memory: to draw points only, use ``torch.no_grad()``.

    Where ε(t) = 0 the score is not asked. Let ε vanish where a score is singular or unknown: a multiple of
    :math:`\gamma^2` (``eps=interpolant.gamma2``), or of :math:`\alpha^2 + \gamma^2` from a Gaussian base, keeps
    :math:`\epsilon s` finite for any data, even on a manifold. Other ε need a score that is bounded up to both ends,
    and steps with :math:`\epsilon h` well below the smallest variance of :math:`p_t` in any direction.

    Args:
        field: The velocity ``b(t, x, context)``.
        score: The score ``s(t, x, context)``, learned, or of :func:`~cnflib.interpolants.score_from_velocity`.
        x0: Points at time t0, shape ``(B, *event)``.
        eps: The diffusion ε ≥ 0, a number or a function of a tensor t, elementwise.
        steps: The number of steps.
        generator: Source of the noise.
        context: What both fields are conditioned on, shape ``(B, features)``.
        t0: Starting time in [0, 1].
        t1: Final time in [0, 1]; below t0 the SDE runs backwards.

    Returns:
        Points at time t1, shape ``(B, *event)``.

    Raises:
        ValueError: If points, context or times are not as above, ``steps`` is not a positive int, or ε is negative,
            not finite or not elementwise.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib import StandardNormal
        >>> from cnflib.data.mixture import GaussianMixture
        >>> from cnflib.interpolants import Oracle, linear
        >>> oracle = Oracle(linear(), StandardNormal(1), GaussianMixture([1.0], [[4.0]], [[[0.25]]]))
        >>> x1 = sample_sde(oracle.velocity, oracle.score, torch.zeros(500, 1), lambda t: 1 - t, steps=50)
        >>> x1.shape
        torch.Size([500, 1])
    """
    check_event(x0, None, "x0")
    for part in (field, score):
        check_deterministic(part)
        check_like(x0, reference(part), "x0", "field or score")
    check_context(context, x0, "x0")
    check_positive_int(steps, "steps")
    times = _grid(t0, t1, steps, x0)
    diffusion = _diffusion(eps, times)
    asked = (diffusion > 0).tolist() if eager(diffusion) else [True] * (steps + 1)
    h, x = (t1 - t0) / steps, x0

    def drift(k: int, x: Tensor) -> Tensor:
        b = evaluate(field, "field", times[k], x, context)
        if not asked[k]:
            return b
        s = evaluate(score, "score", times[k], x, context)
        return b + math.copysign(1, h) * torch.where(diffusion[k] > 0, diffusion[k] * s, 0)

    for k in range(steps):
        dw = abs(h) ** 0.5 * torch.randn(x.shape, **given(generator), dtype=x.dtype, device=x.device)
        noise = (diffusion[k] + diffusion[k + 1]).sqrt() * dw
        slope = drift(k, x)
        x = x + noise + h / 2 * (slope + drift(k + 1, x + h * slope + noise))
    return x


def reflow(
    field: VectorField, x0: Tensor, solver: Solver | None = None, context: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Pair base points with where the flow carries them, :math:`(x_0, x_1 = X_1(x_0))`, for a second training.

    A field trained on these pairs with :func:`~cnflib.interpolants.linear` has straighter paths, and the transport cost
    :math:`E\, c(x_1 - x_0)` does not rise for any convex c. The law of :math:`x_1` is that of the first field, with its
    errors. The ends are no longer independent (train with :func:`~cnflib.interpolants.paired`), so the score does not
    follow from the second velocity.

    Args:
        field: The velocity ``b(t, x, context)``.
        x0: Base points, shape ``(B, *event)``.
        solver: :func:`cnflib.continuous.adaptive` by default.
        context: What the field is conditioned on, shape ``(B, features)``; train the second field with the same rows.

    Returns:
        The pairs, without a gradient.

    References:
        Flow Straight and Fast, Liu et al., 2022, arXiv:2209.03003.

    Example:
        >>> import torch
        >>> x0, x1 = reflow(lambda t, x, context: -x, torch.ones(1, 2))
    """
    x0 = x0.detach()
    with torch.no_grad():
        return x0, sample_ode(field, x0, solver, context)


def _grid(t0: float, t1: float, steps: int, x: Tensor) -> Tensor:
    """Times from t0 to t1, both met exactly."""
    if not (0 <= t0 <= 1 and 0 <= t1 <= 1):
        raise ValueError(
            f"Expected t0 and t1 in [0, 1], from base to data; got {t0} and {t1}. Rescale the fields to unit time."
        )
    return torch.linspace(t0, t1, steps + 1, dtype=x.dtype, device=x.device)


def _diffusion(eps: float | Schedule, times: Tensor) -> Tensor:
    """The diffusion at all times of the grid, checked."""
    value = eps(times) if callable(eps) else torch.ones_like(times) * eps
    if not isinstance(value, Tensor) or value.shape != times.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"Expected eps to be a number or to act elementwise on t, with a result of t's shape {tuple(times.shape)}; "
            f"got {got}. For a constant pass the number itself."
        )
    value = torch.where((value < 0) & (value > -ROUNDING * value.abs().max()), 0, value)
    if eager(value) and not ((value >= 0) & (value < torch.inf)).all():
        raise ValueError(
            f"Expected eps(t) >= 0 and finite, a diffusion; got {value.min().item():g} to {value.max().item():g}. "
            "To go backwards in time swap t0 and t1; for the ODE take eps=0."
        )
    return value
