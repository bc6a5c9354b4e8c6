"""Points carried by a field from one time to another, without a density: one evaluation of the field a stage."""

from torch import Tensor

from cnflib._check_field import check_deterministic, check_velocity
from cnflib._field import uniform
from cnflib.continuous._boundary import ONE_STEP, as_times, check_parts, check_points, inputs_of, same_time
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Solver
from cnflib.ode.solver import State, integrate

__all__ = ["carry", "carry_along"]

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
    check_parts(field, solver)
    check_points(field, x, context)
    times = as_times((t0, t1), x)
    same = same_time(t0, t1, times)
    if same and not times.requires_grad:
        return x
    return carry_along(field, x, times, context, ONE_STEP if same else solver)[-1]


def carry_along(
    field: VectorField, x: Tensor, times: Tensor, context: Tensor | None, solver: Solver
) -> Tensor:
    """Carry points from the first of several times through all others, shape ``(T, B, *event)``.

    Arguments are those of :func:`carry`; ``times`` is a strictly monotone tensor of x's dtype, of length 2 or more.

    Example:
        >>> import torch
        >>> from cnflib.ode import Fixed
        >>> carry_along(
        ...     lambda t, x: -x,
        ...     torch.ones(3, 2),
        ...     torch.linspace(0, 1, 5),
        ...     None,
        ...     Fixed(2),
        ... ).shape
        torch.Size([5, 3, 2])
    """
    check_deterministic(field)
    f = uniform(field)

    def rhs(t: Tensor, state: State) -> State:
        velocity = f(t, state[0], context)
        check_velocity(velocity, x)
        return (velocity,)

    (path,), _ = integrate(solver, rhs, (x,), times, inputs_of(field, context))
    return path
