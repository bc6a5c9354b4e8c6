"""What a continuous flow is built from and called with: its parts, and its times."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from cnflib._check import eager
from cnflib._field import Uniform, uniform
from cnflib.bijection import Bijection
from cnflib.flow import Flow
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Fixed, TorchDiffEq

__all__ = [
    "as_path",
    "as_times",
    "check_callable",
    "check_field",
    "check_parts",
    "check_solver",
    "made_uniform",
    "same_time",
]

_SOLVERS = (Adaptive, Fixed, TorchDiffEq)


def check_callable(part: object, name: str, example: str, way: str = "") -> None:
    """Refuse a part that cannot be called, and a class in the place of what it makes."""
    if isinstance(part, type):
        raise ValueError(
            f"Expected {name} to be callable like {example}; got the class {part.__name__}. Call it: "
            f"{part.__name__}(…)."
        )
    if not callable(part):
        raise ValueError(f"Expected {name} to be callable like {example}; got {part!r}.{way}")


def check_field(field: VectorField) -> Uniform:
    """Refuse what is no field, bijections and flows by name; the field as one callable."""
    if isinstance(field, Bijection | Flow):
        kind = "bijection" if isinstance(field, Bijection) else "flow"
        raise ValueError(
            f"Expected field to be a vector field f(t, x) or f(t, x, context), like MLP(dim); got the {kind} "
            f"{type(field).__name__}. The field of a CNF is cnf.field; layers follow each other in Chain(*layers)."
        )
    return uniform(field)


def made_uniform(owner: nn.Module) -> Uniform:
    """The uniform field of a module with a field, made anew only where that was replaced: it takes a tenth of a ms."""
    if owner._uniform.field is not owner.field:
        owner._uniform = uniform(owner.field)
    return owner._uniform


def check_solver(solver: object) -> None:
    """Refuse what is no solver."""
    check_callable(solver, "solver", "Adaptive() or Fixed(steps)", " Methods are tableaus: Adaptive(dopri5).")


def check_parts(divergence: object, solver: object, costs: Sequence[object]) -> None:
    """Refuse parts of a flow beside its field that are not what their name says."""
    example = "Exact() or Hutchinson()"
    if isinstance(divergence, _SOLVERS):
        raise ValueError(
            f"Expected divergence to be callable like {example}; got the solver {divergence!r}. Pass it by name: "
            f"CNF(field, solver={divergence!r})."
        )
    check_callable(divergence, "divergence", example)
    check_solver(solver)
    if not isinstance(costs, Sequence) or isinstance(costs, str):
        got = costs.__name__ if isinstance(costs, type) else repr(costs)
        raise ValueError(
            f"Expected costs to be a sequence of rates; got {got}. Write costs=(KineticEnergy(),), with the comma."
        )
    for cost in costs:
        check_callable(cost, "each of the costs", "KineticEnergy()")


def as_times(times: Sequence[float | Tensor] | Tensor, x: Tensor) -> Tensor:
    """Times as one tensor of x's dtype and device, without cutting the gradient of a learnable one."""
    for t in times:
        if isinstance(t, Tensor) and t.ndim:
            raise ValueError(
                f"Expected every time of shape (), one for all rows; got {tuple(t.shape)}. For a time of its own for "
                "each row rescale the field, f_T(t, x) = T f(T t, x) with T of shape (B, 1)."
            )
    outside = [float(t) for t in times if (not isinstance(t, Tensor) or eager(t)) and not 0 <= t <= 1]
    if outside:
        raise ValueError(
            f"Expected times in [0, 1], from base to data; got {outside}. Rescale the field to unit time."
        )
    return torch.stack([torch.as_tensor(t, dtype=x.dtype, device=x.device) for t in times])


def same_time(t0: float | Tensor, t1: float | Tensor, times: Tensor) -> bool:
    """Whether a solve has no length, in the precision of its times where these can be looked at."""
    if eager(times):
        return bool(times[0] == times[1])
    return not isinstance(t0, Tensor) and not isinstance(t1, Tensor) and t0 == t1


def as_path(times: Sequence[float | Tensor] | Tensor, x: Tensor) -> Tensor:
    """At least two times in strict order as one tensor."""
    several = isinstance(times, Iterable) and not (isinstance(times, Tensor) and times.ndim == 0)
    path = as_times(times, x) if several and len(times) else x.new_zeros(0)
    if len(path) < 2 or (eager(path) and not _in_order(path)):
        raise ValueError(f"Expected at least two times in strict order, up or down; got {_shown(times)}.")
    return path


def _in_order(times: Tensor) -> bool:
    steps = times.diff()
    return bool((steps > 0).all() or (steps < 0).all())


def _shown(times: object) -> object:
    return times.tolist() if isinstance(times, Tensor) else times
