"""Points carried by a field from one time to another, without a density: one evaluation of the field a stage."""

from torch import Tensor

from cnflib.continuous._arguments import as_times, check_field, check_solver, same_time
from cnflib.continuous._solve import ONE_STEP, carried, check_points
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Solver

__all__ = ["carry"]

_ADAPTIVE = Adaptive()


def carry(
    field: VectorField,
    x: Tensor,
    t0: float | Tensor,
    t1: float | Tensor,
    solver: Solver = _ADAPTIVE,
    context: Tensor | None = None,
) -> Tensor:
    r"""Carry points by a field from time t0 to time t1, either way round, without building a flow.

    .. math:: x(t_1) = x(t_0) + \int_{t_0}^{t_1} f(t, x(t))\,dt

    With equal steps it compiles in one piece. Gradients reach the field, the points and the times.

    Args:
        field: The vector field, f(t, x) or f(t, x, context).
        x: Points at time t0, shape ``(B, *event)``.
        t0: Starting time in [0, 1].
        t1: Final time in [0, 1]; with ``t0 == t1`` x is returned.
        solver: :class:`cnflib.ode.Adaptive`, or any other.
        context: What the field is conditioned on, a tensor of B rows.

    Returns:
        The points at time t1, shape ``(B, *event)``.

    Raises:
        ValueError: On a wrong field, solver, shape, dtype, device or time.
        SolveError: If an adaptive solve cannot go on.

    Example:
        >>> import torch
        >>> x = carry(lambda t, x: x, torch.ones(1, 2), 0.0, 1.0)
        >>> torch.allclose(x, torch.full((1, 2), 2.71828), atol=1e-3)
        True
    """
    uniform = check_field(field)
    check_solver(solver)
    check_points(field, x, context)
    times = as_times((t0, t1), x)
    same = same_time(t0, t1, times)
    if same and not times.requires_grad:
        return x
    return carried(uniform, x, times, context, ONE_STEP if same else solver)[-1]
