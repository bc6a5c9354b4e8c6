"""What every solve of a flow is made of: points that fit the field, the state at all times, what wants a gradient."""

from collections.abc import Sequence

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
from cnflib._field import Uniform
from cnflib.nets import VectorField
from cnflib.ode import Fixed, Solver, euler
from cnflib.ode.solver import RightHandSide, State, Stats, Work

__all__ = ["ONE_STEP", "carried", "check_points", "inputs", "integrate"]

ONE_STEP = Fixed(1, euler)
"""For a solve of no length whose times are learned: it moves nothing, and its times get their gradients."""


def carried(field: Uniform, x: Tensor, times: Tensor, context: Tensor | None, solver: Solver) -> Tensor:
    """Points at all times, shape ``(T, B, *event)``."""
    check_deterministic(field.field)

    def rhs(t: Tensor, state: State) -> State:
        velocity = field(t, state[0], context)
        check_velocity(velocity, state[0])
        return (velocity,)

    (path,), _ = integrate(rhs, (x,), times, inputs(field.field, context), solver)
    return path


def integrate(
    rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor], solver: Solver
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


def check_points(field: VectorField, x: Tensor, context: Tensor | None) -> None:
    """Refuse points or a context that do not fit the field."""
    check_event(x, None)
    check_like(x, reference(field), "x", "field")
    check_context(context, x)
