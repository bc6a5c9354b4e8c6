"""What a continuous flow is built from and called with: its parts, and its times."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnflib._check import check_floating, eager, takes
from cnflib.continuous.control import adaptive
from cnflib.continuous.costs import Cost
from cnflib.continuous.divergence import Divergence, bottleneck, hutchinson, hutchpp
from cnflib.continuous.gradients import adjoint, checkpointed
from cnflib.continuous.solvers import Solver, fixed
from cnflib.nets import VectorField

__all__: list[str] = []


def as_times(times: Sequence[float | Tensor] | Tensor, x: Tensor) -> Tensor:
    """Times as one tensor of x's dtype and device, without cutting the gradient of a learnable one."""
    check_floating(x, "x")
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


def check_parts(
    field: VectorField, divergence: Divergence, solver: Solver | None, costs: Sequence[Cost]
) -> None:
    """Refuse parts that were not called, or were called too early, and a field of other arguments."""
    for part, name in ((field, "field"), (divergence, "divergence"), (solver or adaptive(), "solver")):
        if not callable(part) or isinstance(part, type) or part in _FACTORIES:
            example = {"field": "MLP(dim)", "divergence": "exact or hutchinson()", "solver": "fixed(steps)"}[
                name
            ]
            got = getattr(part, "__name__", repr(part))
            raise ValueError(
                f"Expected {name} to be something like {example}; got {got}. Is it to be called first?"
            )
    if callable(costs):
        raise ValueError(
            "Expected costs to be a sequence of rates; got a function. Write costs=(kinetic_energy,)."
        )
    if not takes(field.forward if isinstance(field, nn.Module) else field, 3):
        raise ValueError(
            f"Expected field to be called as field(t, x, context); {type(field).__name__} takes other arguments. Give "
            "it a context=None, or wrap it by cnflib.adapters: time_first(net), time_second(net), time_as_feature(net)."
        )


_FACTORIES = (hutchinson, hutchpp, bottleneck, adaptive, fixed, adjoint, checkpointed)


def in_order(times: Tensor) -> bool:
    steps = times.diff()
    return bool((steps > 0).all() or (steps < 0).all())
