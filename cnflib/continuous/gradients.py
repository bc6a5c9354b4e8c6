r"""Solvers that trade time for memory in the backward pass: the adjoint, and a checkpoint at every step.

Both keep no graph of the forward solve. They return gradients for the state, the times and the ``inputs`` they are
given, and refuse a right-hand side that depends on anything else that wants one; to find out costs one evaluation,
which is not counted. The backward pass evaluates the field anew, so the field must be a function of its arguments and
parameters, and these must be what they were: one that draws random numbers, or is changed between the passes, gets a
wrong gradient.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from cnflib.continuous._step import EAGER
from cnflib.continuous._visible import check_hooks, check_same, check_visible, vjps
from cnflib.continuous.control import _adaptive, adaptive, largest
from cnflib.continuous.solvers import (
    RightHandSide,
    SolveError,
    Solver,
    State,
    Stats,
    Work,
    _cost,
    _fixed,
    _march,
    _step,
    _within,
    fixed,
)
from cnflib.continuous.tableaus import Tableau, rk4

__all__ = ["adjoint", "alternatives", "checkpointed"]


def adjoint(
    method: str | Tableau = "dopri5", rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 10_000
) -> Solver:
    r"""Adaptive steps, with gradients by a second solve backward in time; memory does not grow with the steps.

    With :math:`a = \partial L / \partial y(t)` along :math:`\dot y = F(t, y; \theta)`,

    .. math:: \dot a = -a^\top \frac{\partial F}{\partial y}, \qquad
        \frac{dL}{d\theta} = \int_{t_0}^{t_1} a^\top \frac{\partial F}{\partial \theta}\,dt .

    The state is solved backward beside a, so the gradient is that of the exact flow up to the errors of both solves,
    not that of the steps taken; :func:`adaptive` gives the latter and is faster where memory allows. Where the field
    contracts strongly, the backward solve magnifies errors and the gradient can be wrong without a warning: compare
    with :func:`cnflib.audit.audit_gradients`. Steps are chosen by y and a
    alone (the seminorm), and a is scaled to size 1 first, so that the tolerance means the same for any size of the
    loss. Gradients of gradients are refused.

    Args:
        method: dopri5, dopri8, bosh3 or adaptive_heun, or a :class:`Tableau` of your own with an error.
        rtol: Relative tolerance, forward and backward.
        atol: Absolute tolerance, forward in units of the state.
        max_steps: Steps between two consecutive times after which a solve is given up.

    Raises:
        ValueError: As :func:`adaptive`, and if the right-hand side depends on a tensor that wants a gradient and is
            neither a parameter of the field nor the context.
        SolveError: When a solve, forward or backward, cannot go on.

    References:
        Neural Ordinary Differential Equations, Chen et al., 2018, arXiv:1806.07366;
        "Hey, that's not an ODE": Faster ODE Adjoints via Seminorms, Kidger et al., 2021, arXiv:2009.09457.
    """
    return partial(_adjoint, **adaptive(method, rtol, atol, max_steps).keywords)


def checkpointed(steps: int, tableau: Tableau = rk4) -> Solver:
    r"""Equal steps, each computed again in the backward pass; the gradient is that of :func:`fixed`.

    Memory is one state for each step and the graph of a single step, time about half more than :func:`fixed`.
    Gradients of gradients are refused.

    Args:
        steps: Steps between two consecutive times.
        tableau: The Runge-Kutta method.

    Raises:
        ValueError: As :func:`fixed`, and if the right-hand side depends on a tensor that wants a gradient and is
            neither a parameter of the field nor the context.

    References:
        Training Deep Nets with Sublinear Memory Cost, Chen et al., 2016, arXiv:1604.06174.
    """
    return partial(_checkpointed, **fixed(steps, tableau).keywords)


def alternatives(solver: Solver) -> dict[str, Solver]:
    r"""The same solve with each way to differentiate it: ``{"backprop": ..., "adjoint": ...}`` or ``"checkpoint"``.

    Empty for a solver that is not of this library.
    """
    pairs = {"adjoint": (_adaptive, _adjoint), "checkpoint": (_fixed, _checkpointed)}
    for name, (plain, other) in pairs.items():
        if getattr(solver, "func", None) in (plain, other):
            return {"backprop": partial(plain, **solver.keywords), name: partial(other, **solver.keywords)}
    return {}


def _adjoint(
    rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor] = (), **options: float | str
) -> tuple[State, Stats]:
    used = check_visible(rhs, state, times, inputs)
    # The backward pass differentiates inside a step, which torch does not compile.
    solve, done = partial(_adaptive, **options | {"parts": EAGER}), []
    states = _Adjoint.apply(rhs, solve, done, used, len(state), times, *state, *inputs)
    return states, done[0]


def _once(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., tuple[Tensor | None, ...]]:
    """A backward pass that refuses to be differentiated, also where the gradient that comes in is a constant."""

    @wraps(backward)
    def refusing(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Expected no gradient of a gradient; got create_graph=True through the adjoint or checkpointing, whose "
                "backward pass keeps no graph. Use adaptive() or fixed(steps)."
            )
        return backward(ctx, *grads)

    return refusing


class _Adjoint(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rhs: RightHandSide,
        solve: Solver,
        done: list[Stats],
        used: set[int],
        n: int,
        times: Tensor,
        *tensors: Tensor,
    ) -> State:
        states, stats = solve(rhs, tensors[:n], times)
        done.append(stats)
        ctx.save_for_backward(times, *states, *tensors[n:])
        ctx.rhs, ctx.solve, ctx.work, ctx.n = rhs, solve, stats.backward, n
        ctx.used, ctx.reached = used, set()
        ctx.mode = _autocast(times)
        return states

    @staticmethod
    @_once
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        times, *tensors = ctx.saved_tensors
        states, inputs = tensors[: ctx.n], tensors[ctx.n :]
        check_hooks(inputs)
        if not all(torch.isfinite(g).all() for g in grads):
            raise SolveError(
                "The backward pass of the adjoint got a gradient with NaN or inf from the loss. Look at the loss: the "
                "log of 0, a division by 0, or an overflow after the solve."
            )
        a = tuple(g[-1] for g in grads)
        along = tuple(torch.zeros_like(p) for p in inputs)
        slopes = torch.zeros_like(times)
        with ctx.mode():
            for k in range(len(times) - 1, 0, -1):
                here, there = (tuple(y[i] for y in states) for i in (k, k - 1))
                if ctx.needs_input_grad[5]:
                    slopes[k] = _inner(_slope(ctx, times[k], here), tuple(g[k] for g in grads))
                a, more = _pull_back(ctx, here, a, inputs, times[k - 1 : k + 1].flip(0))
                along = tuple(p + q for p, q in zip(along, more, strict=True))
                if k == 1 and ctx.needs_input_grad[5]:
                    slopes[0] = -_inner(_slope(ctx, times[0], there), a)
                a = tuple(v + g[k - 1] for v, g in zip(a, grads, strict=True))
        check_same(ctx.used, ctx.reached)
        return None, None, None, None, None, slopes, *a, *along


def _slope(ctx: FunctionCtx, t: Tensor, state: State) -> State:
    ctx.work.nfe += 1
    return ctx.rhs(t, state)


def _pull_back(
    ctx: FunctionCtx, state: State, a: State, inputs: Sequence[Tensor], times: Tensor
) -> tuple[State, State]:
    """The adjoint a at the earlier time, and the integral of its product with the slope in the inputs."""
    n = ctx.n
    size = max(v.abs().max() for v in a)
    size = torch.where(size > 0, size, 1)

    def augmented(t: Tensor, parts: State) -> State:
        slope, pulled = _pull(ctx, t, parts[:n], inputs, parts[n : 2 * n])
        return (*slope, *(-v for v in pulled))

    start = (*state, *(v / size for v in a), *(torch.zeros_like(p) for p in inputs))
    try:
        ends, stats = ctx.solve(augmented, start, times, norm=lambda parts: largest(parts[: 2 * n]))
    except SolveError as error:
        raise SolveError(f"In the backward pass of the adjoint: {error}") from error
    for name in ("nfe", "accepted", "rejected"):
        setattr(ctx.work, name, getattr(ctx.work, name) + getattr(stats, name))
    ends = tuple(size * y[-1] for y in ends)
    return ends[n : 2 * n], ends[2 * n :]


def _pull(
    ctx: FunctionCtx, t: Tensor, state: State, inputs: Sequence[Tensor], a: State
) -> tuple[State, State]:
    """The slope at a state, and its vector-Jacobian products with a, for the state and then the inputs."""
    with torch.enable_grad():
        leaves = tuple(y.detach().requires_grad_() for y in state)
        slope = ctx.rhs(t, leaves)
        pulled = vjps(slope, leaves, inputs, a, ctx.reached)
    return tuple(v.detach() for v in slope), pulled


def _checkpointed(
    rhs: RightHandSide,
    state: State,
    times: Tensor,
    inputs: Sequence[Tensor] = (),
    *,
    steps: int,
    tableau: Tableau,
) -> tuple[State, Stats]:
    rhs = _within(rhs, times)
    expected = [check_visible(rhs, state, times, inputs)]
    stats = _cost(times, steps, tableau)

    def step(t: Tensor, h: Tensor, state: State) -> State:
        used = expected.pop() if expected else set()
        return _Step.apply(rhs, tableau, stats.backward, used, len(state), t, h, *state, *inputs)

    return _march(step, state, times, steps), stats


class _Step(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rhs: RightHandSide,
        tableau: Tableau,
        work: Work,
        used: set[int],
        n: int,
        t: Tensor,
        h: Tensor,
        *tensors: Tensor,
    ) -> State:
        ctx.save_for_backward(t, h, *tensors)
        ctx.rhs, ctx.tableau, ctx.work, ctx.used, ctx.n = rhs, tableau, work, used, n
        ctx.mode = _autocast(t)
        return _step(rhs, tableau, t, h, tensors[:n])

    @staticmethod
    @_once
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        t, h, *tensors = ctx.saved_tensors
        inputs = tensors[ctx.n :]
        check_hooks(inputs)
        with torch.enable_grad(), ctx.mode():
            t, h, *state = (y.detach().requires_grad_() for y in (t, h, *tensors[: ctx.n]))
            ends = _step(ctx.rhs, ctx.tableau, t, h, tuple(state))
        ctx.work.nfe += len(ctx.tableau.b)
        ctx.work.accepted += 1
        reached: set[int] = set()
        pulled = vjps(ends, (t, h, *state), inputs, grads, reached)
        check_same(ctx.used, reached)
        return None, None, None, None, None, *pulled


def _inner(a: State, b: State) -> Tensor:
    return sum((u * v).sum() for u, v in zip(a, b, strict=True))


def _autocast(like: Tensor) -> Callable[[], AbstractContextManager]:
    """The autocast in force now, to be entered again in the backward pass."""
    kind = like.device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)
