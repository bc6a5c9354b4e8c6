"""One adaptive step: the first slope and pace, the step itself with its error, and both of them compiled."""

import math
from collections.abc import Callable
from types import FunctionType

import torch
from torch import Tensor

from cnflib.continuous.solvers import RightHandSide, State, combine, spread, weighted
from cnflib.continuous.tableaus import Tableau

__all__: list[str] = []

Size = Callable[[State, State, State], Tensor]
"""How large an error is, between the states before and after it, in units of its tolerance."""


def begin(
    rhs: RightHandSide, tableau: Tableau, size: Size, start: Tensor, end: Tensor, state: State
) -> tuple[State, Tensor]:
    r"""The slope at the start and a first step, as a part of the way: where the Taylor remainder meets the tolerance.

    With the slope f and its rate of change :math:`L = |f'| / |f|`, by one evaluation more, the remainder is taken as
    :math:`h^{p+1} |f| L^p / (p+1)!`.
    """
    slope, p, h = rhs(start, state), tableau.order, end - start
    with torch.no_grad():
        speed = size(_times(h, slope), state, state)
        probe = (0.01 * size(state, state, state) / speed).nan_to_num(0.01).clamp(1e-4, 0.01)
        near = rhs(torch.lerp(start, end, probe), combine(state, probe * h, (1,), [slope]))
        bend = size(_times(h / probe, tuple(b - a for a, b in zip(slope, near, strict=True))), state, state)
        speed = speed.double().maximum(1e-3 * bend)
        part = (math.factorial(p + 1) / (speed * (bend / speed) ** p)) ** (1 / (p + 1))
        return slope, torch.where(bend == 0, 1.0, part).nan_to_num(1e-3).clamp(1e-6, 1.0)


def step(
    rhs: RightHandSide,
    tableau: Tableau,
    size: Size,
    start: Tensor,
    end: Tensor,
    at: Tensor,
    state: State,
    slope: State,
) -> tuple[State, State | None, Tensor]:
    """The state a step further, the slope there if the method has asked for it, and the size of the error.

    The step goes from the part ``at[0]`` of the way to ``at[-1]``, through the stages between them.
    """
    h, times = (at[-1] - at[0]) * (end - start), torch.lerp(start, end, at)
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

    def __reduce__(self) -> tuple:
        return Compiled, (self.function,)


def _times(h: Tensor, parts: State) -> State:
    return tuple(spread(h, y) * y for y in parts)
