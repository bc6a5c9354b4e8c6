"""What a continuous flow is built from and called with: its parts, its points, and its times."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnflib._check import check_built, check_context, check_event, check_like, eager, reference
from cnflib._field import uniform
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Fixed, Solver, TorchDiffEq, euler
from cnflib.ode._checks import check_solver
from cnflib.ode._times import in_order

__all__: list[str] = []

ONE_STEP = Fixed(1, euler)
"""For a solve of no length whose times are learned: it moves nothing, and its times get their gradients."""


def inputs_of(owner: object, context: Tensor | None) -> list[Tensor]:
    """What a right-hand side may depend on besides time and state: parameters and the context."""
    parameters = owner.parameters() if isinstance(owner, nn.Module) else ()
    return [*parameters, *([] if context is None else [context])]


def check_parts(field: VectorField, solver: Solver) -> None:
    """Refuse what is no field, and what is no solver."""
    uniform(field)  # refuses what is no field
    check_solver(solver)


def check_divergence(divergence: object, name: str = "divergence") -> None:
    """Refuse a class in the place of what it makes, and a solver in the place of a divergence."""
    check_built(divergence, name)
    if not callable(divergence) or isinstance(divergence, Adaptive | Fixed | TorchDiffEq):
        raise ValueError(
            f"Expected {name} to be callable like Exact() or Hutchinson(); got {divergence!r}. A solver "
            "goes by name: CNF(field, solver=Fixed(8))."
        )


def check_costs(costs: Sequence[object]) -> tuple[object, ...]:
    """The costs as a tuple, where they are a sequence of functions."""
    for cost in costs if isinstance(costs, Sequence) else (costs,):
        check_built(cost, "costs")
    if not isinstance(costs, Sequence) or not all(map(callable, costs)):
        raise ValueError(
            f"Expected costs to be a sequence of functions like KineticEnergy(); got {costs!r}. One is a sequence "
            "with a comma: costs=(KineticEnergy(),)."
        )
    return tuple(costs)


def event_of_field(field: VectorField) -> tuple[int, ...] | None:
    """The shape of the events that a field is for, where it says so by an attribute ``shape``."""
    shape = getattr(field, "shape", None)
    return shape if isinstance(shape, tuple) else None


def check_points(field: VectorField, x: Tensor, context: Tensor | None) -> None:
    """Refuse points or a context that do not fit the field."""
    check_event(x, event_of_field(field))
    check_like(x, reference(field), "x", "field")
    check_context(context, x)


def as_times(times: Sequence[float | Tensor] | Tensor, x: Tensor) -> Tensor:
    """Times as one tensor of x's dtype and device, without cutting the gradient of a learnable one."""
    if any(isinstance(t, Tensor) and t.ndim for t in times):
        raise ValueError(
            "Expected every time of shape (), one for all rows; got one with an axis. For a time of its own for each "
            "row rescale the field, f_T(t, x) = T f(T t, x) with T of shape (B, 1)."
        )
    outside = [float(t) for t in times if (not isinstance(t, Tensor) or eager(t)) and not 0 <= t <= 1]
    if outside:
        raise ValueError(
            f"Expected times in [0, 1], from base to data; got {outside}. Rescale the field to unit time."
        )
    return torch.stack([torch.as_tensor(t, dtype=x.dtype, device=x.device) for t in times])


def as_path(times: Sequence[float | Tensor] | Tensor, x: Tensor) -> Tensor:
    """At least two times in strict order as one tensor."""
    several = getattr(times, "ndim", hasattr(times, "__len__") and not isinstance(times, str))
    path = as_times(times, x) if several and len(times) else x.new_zeros(0)
    if not in_order(path):
        raise ValueError(f"Expected at least two times in strict order, up or down; got {times}.")
    return path


def same_time(t0: float | Tensor, t1: float | Tensor, times: Tensor) -> bool:
    """Whether a solve has no length, in the precision of its times where these can be looked at."""
    if eager(times):
        return bool(times[0] == times[1])
    return not isinstance(t0, Tensor) and not isinstance(t1, Tensor) and t0 == t1
