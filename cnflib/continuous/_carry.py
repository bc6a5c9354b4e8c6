"""Points carried by a field, and what every solve of a flow begins with."""

import torch
from torch import Tensor, nn

from cnflib._check import (
    check_context,
    check_deterministic,
    check_event,
    check_like,
    check_velocity,
    reference,
)
from cnflib.continuous._arguments import as_times, same_time
from cnflib.continuous.control import adaptive
from cnflib.continuous.solvers import RightHandSide, Solver, State, Stats, Work, fixed
from cnflib.continuous.tableaus import euler
from cnflib.nets import VectorField

__all__ = ["carry", "check", "inputs", "integrate"]


def carry(
    field: VectorField,
    x: Tensor,
    t0: float | Tensor,
    t1: float | Tensor,
    context: Tensor | None = None,
    solver: Solver | None = None,
) -> Tensor:
    """Points x at time t0, carried by the field to time t1; no flow is built, which a compiled function could not."""
    times = as_times((t0, t1), x)
    check(field, x, context)
    same = same_time(t0, t1, times)
    if same and not times.requires_grad:
        return x

    def rhs(t: Tensor, state: State) -> State:
        velocity = field(t, state[0], context)
        check_velocity(velocity, state[0])
        return (velocity,)

    solver = fixed(1, euler) if same else adaptive() if solver is None else solver
    (path,), _ = integrate(rhs, (x,), times, inputs(field, context), solver)
    return path[-1]


def integrate(
    rhs: RightHandSide, state: State, times: Tensor, inputs: tuple[Tensor, ...], solver: Solver
) -> tuple[State, Stats]:
    """The states at all times; of no rows without a solve."""
    if state[0].shape[0] == 0:
        return tuple(torch.stack([y] * len(times)) for y in state), Stats(0, 0, 0, Work())
    return solver(rhs, state, times, inputs)


def inputs(owner: object, context: Tensor | None) -> tuple[Tensor, ...]:
    """What the right-hand side depends on besides time and state, and wants a gradient."""
    parameters = owner.parameters() if isinstance(owner, nn.Module) else ()
    tensors = [*parameters, *([] if context is None else [context])]
    return tuple({id(p): p for p in tensors if p.requires_grad}.values())


def check(field: VectorField, x: Tensor, context: Tensor | None) -> None:
    """Refuse a field that is no function of each row alone, and points or a context that do not fit it."""
    check_deterministic(field)
    check_event(x, None)
    check_like(x, reference(field), "x", "field")
    check_context(context, x)
