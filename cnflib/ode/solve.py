r"""Initial value problems on their own: :math:`\dot y = f(t, y)` from a first time through others."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnflib._check import check_floating, eager
from cnflib._tensors import widest
from cnflib.ode._checks import check_solver
from cnflib.ode._times import in_order
from cnflib.ode.adaptive import Adaptive
from cnflib.ode.solver import Solver, State, Work, integrate

__all__ = ["Result", "solve"]

_ADAPTIVE = Adaptive()


class Result(NamedTuple):
    r"""The solution at all times and what it took.

    Attributes:
        y: :math:`y(t_k)` with a new first axis of times; a tuple of such where ``y0`` was one.
        nfe: Evaluations of f.
        accepted: Accepted steps.
        rejected: Rejected steps.
        backward: The same three numbers of the backward pass: 0 until it runs, and where it evaluates nothing anew.

    Example:
        >>> import torch
        >>> from cnflib.ode import solve
        >>> solve(lambda t, y: -y, torch.ones(2), (0.0, 0.5, 1.0)).y.shape
        torch.Size([3, 2])
    """

    y: Tensor | State
    nfe: int
    accepted: int
    rejected: int
    backward: Work


def solve(
    f: Callable[[Tensor, Tensor | State], Tensor | State],
    y0: Tensor | State,
    times: Tensor | Sequence[float | Tensor],
    solver: Solver = _ADAPTIVE,
    params: Iterable[Tensor] | None = None,
) -> Result:
    r"""The solution of :math:`\dot y = f(t, y)`, :math:`y(t_0) = y_0` at all times, with gradients.

    Times far from 0, such as years, cost no digits of the steps: their differences are taken in the precision they come
    in, float64 for floats. But f sees t in y's dtype, in float32 a year to 6e-5: where that matters, write f with the
    time since 1900, or use float64.

    Args:
        f: ``f(t, y)`` with t of shape ``()`` in y's dtype, or ``(B,)`` with ``per_row``; returns what y is, a tensor or
            a tuple, of the same shapes.
        y0: The value at ``times[0]``: a tensor of any shape, or a tuple of tensors, of a floating dtype. An adaptive
            solver bounds the root mean square of the error over all of a tensor.
        times: At least two, strictly increasing or decreasing: a tensor, which may want a gradient, or floats.
        solver: :class:`Adaptive` by default, or :class:`Fixed`, :class:`TorchDiffEq` or your own.
        params: Tensors that f depends on and that want a gradient, for a backward pass that evaluates f anew (adjoint,
            checkpoint); the parameters of f by default where it is a module.

    Returns:
        The :class:`Result`.

    Raises:
        ValueError: On y0 or times that are no such, an f that returns something else than its argument's shapes, or
            what the solver refuses.
        SolveError: If the solve cannot go on.

    Example:
        >>> import torch
        >>> result = solve(
        ...     lambda t, y: (y[1], -y[0]),
        ...     (torch.tensor(1.0), torch.tensor(0.0)),
        ...     (0.0, torch.pi),
        ... )
        >>> [round(part[-1].item(), 3) for part in result.y], result.nfe
        ([-1.0, 0.0], 56)
    """
    several = isinstance(y0, tuple)
    state = y0 if several else (y0,)
    _check_state(state)
    check_solver(solver)
    if params is None:
        params = f.parameters() if isinstance(f, nn.Module) else ()

    def rhs(t: Tensor, state: State) -> State:
        slopes = f(t, state) if several else (f(t, state[0]),)
        if _kinds(slopes) != _kinds(state):  # what torch would broadcast or cast
            raise ValueError(
                "Expected f(t, y) to return dy/dt, of the shapes and dtypes of y, as a tuple where y is one: "
                f"{_kinds(state)}; got {_kinds(slopes)}."
            )
        return slopes

    params = (params,) if isinstance(params, Tensor) else params
    states, stats = integrate(solver, rhs, state, _as_times(times, state[0]), params)
    return Result(states if several else states[0], *stats)


def _check_state(state: State) -> None:
    for k, y in enumerate(state):
        check_floating(y, f"y0[{k}]" if len(state) > 1 else "y0")
        if y.dtype != state[0].dtype or y.device != state[0].device:
            raise ValueError(
                f"Expected all parts of y0 of one dtype and device; got {state[0].dtype} on {state[0].device} and "
                f"{y.dtype} on {y.device}. Cast them: tuple(y.to(y0[0]) for y in y0)."
            )


def _kinds(parts: State) -> list[object]:
    return [(tuple(y.shape), y.dtype) if isinstance(y, Tensor) else type(y).__name__ for y in parts]


def _as_times(times: Tensor | Sequence[float | Tensor], like: Tensor) -> Tensor:
    """Times as one tensor; floats in float64, which keeps the digits of their differences."""
    if not isinstance(times, Tensor):
        parts = [torch.as_tensor(t, dtype=widest(like.device), device=like.device) for t in times]
        times = torch.stack(parts) if parts else like.new_zeros(0)
    times = times if times.is_floating_point() else times.to(widest(times.device))
    if not in_order(times):
        raise ValueError(
            "Expected times, at least two, of shape (T,), finite and strictly increasing or decreasing; got "
            f"{times.tolist() if eager(times) else tuple(times.shape)}."
        )
    return times
