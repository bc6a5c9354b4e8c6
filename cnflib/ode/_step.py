"""The arithmetic of a Runge-Kutta step; one adaptive step, with its error and the first pace; both of them compiled."""

import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor

from cnflib.ode.solver import RightHandSide, SolveError, State
from cnflib.ode.tableaus import Tableau

__all__: list[str] = []

Timed = TypeVar("Timed", bound=Callable[[Tensor, Any], Any])
"""A right-hand side or a projection: a function of time and state."""

Size = Callable[[State, State, State], Tensor]
"""How large an error is, between the states before and after it, in units of its tolerance."""


def check_tableau(tableau: Tableau, ready: str) -> None:
    """Refuse what is no tableau, and one whose numbers of stages do not agree."""
    if not isinstance(tableau, Tableau):
        raise ValueError(
            f"Expected tableau to be a Tableau; got {tableau!r}. Ready in cnflib.ode, without quotes: {ready}."
        )
    stages = len(tableau.b)
    rows = [len(row) for row in tableau.a]
    if rows != list(range(stages)) or len(tableau.c) != stages or len(tableau.e) not in (0, stages):
        raise ValueError(
            f"Expected tableau of {stages} stages, as many as weights b: {stages} times c, rows of 0 to {stages - 1} "
            f"weights in a, {stages} or no weights e; got {len(tableau.c)} times, rows of {rows} and "
            f"{len(tableau.e)} weights e."
        )


def check_tolerances(rtol: float, atol: float) -> None:
    """Refuse tolerances that are not positive numbers."""
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not isinstance(tolerance, int | float) or not 0 < tolerance < float("inf"):
            raise ValueError(
                f"Expected {name} to be a number, > 0 and finite; got {tolerance!r}. Usual values are 1e-3 to 1e-8."
            )


def gave_up(where: str, reason: str = "") -> SolveError:
    """What to try after a solve that stopped there for that reason, or by default for a slope that is not finite."""
    if reason:
        return SolveError(
            f"{where}{reason}. The field is too steep or too stiff for these tolerances. Try larger rtol and atol; "
            "float64; a field with a smaller Lipschitz constant (weight decay, smooth activations); or Fixed(steps), "
            "whose error you then check yourself."
        )
    return SolveError(
        f"{where}the field or its divergence returned NaN or inf. Look for NaN weights (a learning rate too high, a "
        "log or square root at 0) and for a field that blows up in finite time (bound its growth in x)."
    )


def ends_and_spans(times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Times and their differences in the dtype of the state; the differences are rounded after they are taken."""
    return times.to(like), times.diff().to(like)


def within(function: Timed, ends: Tensor) -> Timed:
    """The function at times that rounding has not carried beyond the ends, where a velocity need not exist."""
    low, high = ends.detach().aminmax()
    return lambda t, y: function(t + (t.clamp(low, high) - t).detach(), y)


def combine(state: State, h: Tensor, weights: Sequence[float], slopes: Sequence[State]) -> State:
    r""":math:`y + h \sum_i w_i k_i`, part by part, with one h or one for each row."""
    total = weighted(weights, slopes)
    return (
        tuple(torch.addcmul(y, spread(h, y), k) for y, k in zip(state, total, strict=True))
        if total
        else state
    )


def weighted(weights: Sequence[float], slopes: Sequence[State]) -> State:
    r""":math:`\sum_i w_i k_i`, part by part; weights of 0 are passed over."""
    terms = [(w, k) for w, k in zip(weights, slopes, strict=True) if w]
    total = tuple(w * k for w, part in terms[:1] for k in part)
    for w, slope in terms[1:]:
        total = tuple(torch.add(y, k, alpha=w) for y, k in zip(total, slope, strict=True))
    return total


def spread(h: Tensor, like: Tensor) -> Tensor:
    """A number for each row as ``(B, 1, ...)``; one for all stays as it is."""
    return h.reshape(-1, *[1] * (like.ndim - 1)) if h.ndim else h


def begin(
    rhs: RightHandSide, tableau: Tableau, size: Size, start: Tensor, end: Tensor, span: Tensor, state: State
) -> tuple[State, Tensor]:
    r"""The slope at the start and a first step, as a part of the way: where the Taylor remainder meets the tolerance.

    With the slope f and its rate of change :math:`L = |f'| / |f|`, by one evaluation more, the remainder is taken as
    :math:`h^{p+1} |f| L^p / (p+1)!`.
    """
    slope, p = rhs(start, state), tableau.order
    with torch.no_grad():
        speed = size(_times(span, slope), state, state)
        probe = (0.01 * size(state, state, state) / speed).nan_to_num(0.01).clamp(1e-4, 0.01)
        near = rhs(torch.lerp(start, end, probe), combine(state, probe * span, (1,), [slope]))
        change = tuple(b - a for a, b in zip(slope, near, strict=True))
        bend = size(_times(span / probe, change), state, state)
        speed = speed.double().maximum(1e-3 * bend)
        part = (math.factorial(p + 1) / (speed * (bend / speed) ** p)) ** (1 / (p + 1))
        return slope, torch.where(bend == 0, 1.0, part).nan_to_num(1e-3).clamp(1e-6, 1.0)


def step(
    rhs: RightHandSide,
    tableau: Tableau,
    size: Size,
    start: Tensor,
    end: Tensor,
    span: Tensor,
    at: Tensor,
    state: State,
    slope: State,
) -> tuple[State, State | None, Tensor]:
    """The state a step further, the slope there if the method has asked for it, and the size of the error.

    The step goes from the part ``at[0]`` of the way to ``at[-1]``, through the stages between them.
    """
    h, times = (at[-1] - at[0]) * span, torch.lerp(start, end, at)
    slopes, y = [slope], state
    for t, row in zip(times[1:], tableau.a[1:], strict=False):
        y = combine(state, h, row, slopes)
        slopes.append(rhs(t, y))
    last = tableau.b == (*tableau.a[-1], 0)
    y = y if last else combine(state, h, tableau.b, slopes)
    with torch.no_grad():
        error = size(_times(h, weighted(tableau.e, slopes)), state, y)
    return y, slopes[-1] if last else None, error


EAGER = (begin, step)


class Compiled:
    """A function compiled at its first call, as a copy: torch counts what it compiles for each function apart."""

    def __init__(self, function: Callable) -> None:
        self.function, self.compiled = function, None

    def __call__(self, *args: object) -> object:
        if self.compiled is None:
            copy = FunctionType(self.function.__code__.replace(), self.function.__globals__)
            options = {"cpp_wrapper": True} if args[-1][0].is_cpu else {}  # calls kernels not from Python
            self.compiled = torch.compile(copy, fullgraph=True, dynamic=False, options=options)
        return self.compiled(*args)


def _times(h: Tensor, parts: State) -> State:
    return tuple(spread(h, y) * y for y in parts)
