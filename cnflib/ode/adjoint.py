r"""The adjoint: the gradient of a solve by a second solve backward in time, which keeps no graph of the first.

It gives gradients for the state, the times and the ``inputs``, and refuses a right-hand side that depends on anything
else that wants one; to find out costs one evaluation, which is not counted. The backward pass evaluates the field
anew, so the field must be a function of its arguments and parameters, and these must be what they were: one that draws
random numbers, or is changed between the passes, gets a wrong gradient.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from cnflib.ode._backward import autocast, check_hooks, check_same, check_visible, first_order_only, vjps
from cnflib.ode.solver import RightHandSide, SolveError, State, Stats

__all__ = ["by_adjoint"]

Solve = Callable[[RightHandSide, State, Tensor, int | None], tuple[State, Stats]]
"""``solve(rhs, state, times, chosen_by)``; the first so many parts of the state choose the steps, None is all."""


def by_adjoint(
    rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor], solve: Solve
) -> tuple[State, Stats]:
    r"""The solve, with gradients by a second solve backward in time; memory does not grow with the steps.

    With :math:`a = \partial L / \partial y(t)` along :math:`\dot y = F(t, y; \theta)`,

    .. math:: \dot a = -a^\top \frac{\partial F}{\partial y}, \qquad
        \frac{dL}{d\theta} = \int_{t_0}^{t_1} a^\top \frac{\partial F}{\partial \theta}\,dt .

    The state is solved backward beside a. Steps are chosen by y and a alone (the seminorm), and a is scaled to size 1
    first, so that the tolerance means the same for any size of the loss. Gradients of gradients are refused.

    Args:
        rhs: The right-hand side ``rhs(t, state)``.
        state: The starting state.
        times: At least two times in strict order.
        inputs: Tensors that rhs depends on besides, and that want a gradient.
        solve: The solver of both passes.

    Raises:
        ValueError: If rhs depends on a tensor that wants a gradient and is not in ``inputs``.
        SolveError: When a solve, forward or backward, cannot go on.

    References:
        Neural Ordinary Differential Equations, Chen et al., 2018, arXiv:1806.07366;
        "Hey, that's not an ODE": Faster ODE Adjoints via Seminorms, Kidger et al., 2021, arXiv:2009.09457.

    Example:
        >>> import torch
        >>> from cnflib.ode import Adaptive
        >>> y = torch.ones(2, requires_grad=True)
        >>> (path,), _ = Adaptive(adjoint=True)(
        ...     lambda t, state: (-state[0],), (y,), torch.tensor([0.0, 1.0])
        ... )
        >>> path[-1].sum().backward()
        >>> y.grad
        tensor([0.3679, 0.3679])
    """
    used = check_visible(rhs, state, times[0].to(state[0]), inputs)
    done: list[Stats] = []
    states = _Adjoint.apply(rhs, solve, done, used, len(state), times, *state, *inputs)
    return states, done[0]


class _Adjoint(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        rhs: RightHandSide,
        solve: Solve,
        done: list[Stats],
        used: set[int],
        n: int,
        times: Tensor,
        *tensors: Tensor,
    ) -> State:
        states, stats = solve(rhs, tensors[:n], times, None)
        done.append(stats)
        ctx.save_for_backward(times, *states, *tensors[n:])
        ctx.rhs, ctx.solve, ctx.work, ctx.n = rhs, solve, stats.backward, n
        ctx.used, ctx.reached = used, set()
        ctx.mode = autocast(tensors[0])
        return states

    @staticmethod
    @first_order_only
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        times, *tensors = ctx.saved_tensors
        states, inputs = tensors[: ctx.n], tensors[ctx.n :]
        check_hooks(inputs)
        if not all(torch.isfinite(g).all() for g in grads):
            raise SolveError(
                "The backward pass of the adjoint got a gradient with NaN or inf from the loss. Look at the loss: the "
                "log of 0, a division by 0, or an overflow after the solve."
            )
        a, ends = tuple(g[-1] for g in grads), times.to(states[0])
        along = tuple(torch.zeros_like(p) for p in inputs)
        slopes = torch.zeros_like(times)
        with ctx.mode():
            for k in range(len(times) - 1, 0, -1):
                here, there = (tuple(y[i] for y in states) for i in (k, k - 1))
                if ctx.needs_input_grad[5]:
                    slopes[k] = _inner(_slope(ctx, ends[k], here), tuple(g[k] for g in grads))
                a, more = _pull_back(ctx, here, a, inputs, times[k - 1 : k + 1].flip(0))
                along = tuple(p + q for p, q in zip(along, more, strict=True))
                if k == 1 and ctx.needs_input_grad[5]:
                    slopes[0] = -_inner(_slope(ctx, ends[0], there), a)
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
        ends, stats = ctx.solve(augmented, start, times, 2 * n)
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


def _inner(a: State, b: State) -> Tensor:
    return sum((u * v).sum() for u, v in zip(a, b, strict=True))
