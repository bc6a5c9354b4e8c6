r"""Initial value problems on their own: :math:`\dot y = f(t, y)` from a first time through others."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnflib._check import check_floating, eager
from cnflib.ode.adaptive import Adaptive
from cnflib.ode.solver import Solver, State, Work

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
        >>> result = solve(lambda t, y: (y[1], -y[0]), (torch.tensor(1.0), torch.tensor(0.0)), (0.0, torch.pi))
        >>> [round(part[-1].item(), 3) for part in result.y], result.nfe
        ([-1.0, 0.0], 56)
    """
    state = y0 if isinstance(y0, tuple) else (y0,)
    _check_state(state)
    times = _as_times(times, state[0])
    if not callable(solver) or isinstance(solver, type):
        raise ValueError(
            f"Expected solver to be like Adaptive() or Fixed(steps); got {solver!r}. Methods are tableaus, "
            "Adaptive(dopri5), or those of torchdiffeq, TorchDiffEq('dopri5')."
        )
    if isinstance(params, Tensor):
        params = (params,)
    elif params is None:
        params = f.parameters() if isinstance(f, nn.Module) else ()
    inputs = tuple({id(p): p for p in params if p.requires_grad}.values())

    def rhs(t: Tensor, state: State) -> State:
        value = f(t, state if isinstance(y0, tuple) else state[0])
        slopes = value if isinstance(y0, tuple) else (value,)
        _check_value(slopes, state)
        return slopes

    if not any(y.numel() for y in state):
        states, stats = tuple(torch.stack([y] * len(times)) for y in state), (0, 0, 0, Work())
    else:
        states, stats = solver(rhs, state, times, inputs)
    return Result(states if isinstance(y0, tuple) else states[0], *stats)


def _check_state(state: State) -> None:
    for k, y in enumerate(state):
        name = f"y0[{k}]" if len(state) > 1 else "y0"
        check_floating(y, name)
        if y.dtype != state[0].dtype or y.device != state[0].device:
            raise ValueError(
                f"Expected all parts of y0 of one dtype and device; got {state[0].dtype} on {state[0].device} and "
                f"{y.dtype} on {y.device}. Cast them: tuple(y.to(y0[0]) for y in y0)."
            )
        if eager(y) and not torch.isfinite(y).all():
            raise ValueError(f"Expected finite {name}; got NaN or inf in it.")
    if not state:
        raise ValueError("Expected y0 to be a tensor or a tuple of at least one; got ().")


def _as_times(times: Tensor | Sequence[float | Tensor], like: Tensor) -> Tensor:
    """Times as one tensor; floats in float64, which keeps the digits of their differences."""
    if not isinstance(times, Tensor):
        dtype = like.dtype if like.is_mps else torch.float64
        parts = [torch.as_tensor(t, dtype=dtype, device=like.device) for t in times]
        times = torch.stack(parts) if parts else like.new_zeros(0)
    times = times if times.is_floating_point() else times.double()
    steps = times.diff() if times.ndim == 1 else None
    if steps is None or not len(steps) or (eager(times) and not ((steps > 0).all() or (steps < 0).all())):
        raise ValueError(
            "Expected times, at least two, of shape (T,), finite and strictly increasing or decreasing; got "
            f"{times.tolist() if eager(times) else tuple(times.shape)}."
        )
    return times


def _check_value(slopes: State, state: State) -> None:
    """Refuse a value of f that would be broadcast or cast."""
    if isinstance(slopes, tuple) and len(slopes) == len(state):
        pairs = zip(slopes, state, strict=True)
        if all(isinstance(k, Tensor) and k.shape == y.shape and k.dtype == y.dtype for k, y in pairs):
            return
    got = [(tuple(k.shape), k.dtype) if isinstance(k, Tensor) else type(k).__name__ for k in slopes]
    raise ValueError(
        "Expected f(t, y) to return dy/dt, of the shapes and dtypes of y, as a tuple where y is one: "
        f"{[(tuple(y.shape), y.dtype) for y in state]}; got {got}."
    )
