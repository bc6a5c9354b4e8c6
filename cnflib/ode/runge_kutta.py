r"""One step of an explicit Runge-Kutta method, with an estimate of its error for solvers that choose their steps."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cnflib.ode._times import spread
from cnflib.ode.solver import RightHandSide, State
from cnflib.ode.tableaus import Tableau

__all__ = ["begin", "embedded_step", "runge_kutta_step"]

Size = Callable[[State, State, State], Tensor]
"""How large an error is, between the states before and after it, in units of its tolerance."""


def runge_kutta_step(
    rhs: RightHandSide,
    tableau: Tableau,
    times: Sequence[Tensor] | Tensor,
    h: Tensor,
    state: State,
    slope: State | None = None,
) -> tuple[State, list[State]]:
    r"""The state a step further, and the slopes of its stages.

    .. math:: k_i = F\bigl(t_i,\; y + h \sum_{j<i} a_{ij} k_j\bigr), \qquad y_{+} = y + h \sum_i b_i k_i

    Args:
        rhs: The right-hand side F.
        tableau: The method.
        times: The times :math:`t_i = t + c_i h` of its stages.
        h: The length of the step, shape ``()``, or ``(B,)`` with one for each row.
        state: The state y, a tuple of tensors.
        slope: The first slope, where it is known.

    Example:
        >>> import torch
        >>> from cnflib.ode import rk4
        >>> t = torch.tensor([0.0, 0.5, 0.5, 1.0])
        >>> (y,), slopes = runge_kutta_step(
        ...     lambda t, state: (-state[0],),
        ...     rk4,
        ...     t,
        ...     torch.tensor(1.0),
        ...     (torch.ones(2),),
        ... )
        >>> y, len(slopes)
        (tensor([0.3750, 0.3750]), 4)
    """
    slopes = [] if slope is None else [slope]
    for t, row in list(zip(times, tableau.a))[len(slopes) :]:
        y = _combined(state, h, row, slopes)
        slopes.append(rhs(t, y))
    if not _ends_in_slope(tableau):
        y = _combined(state, h, tableau.b, slopes)
    return y, slopes


def _ends_in_slope(tableau: Tableau) -> bool:
    """Whether the last stage is the end of the step, whose slope begins the next one."""
    return tableau.b == (*tableau.a[-1], 0)


def embedded_step(
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

    Example:
        >>> import torch
        >>> from cnflib.ode import adaptive_heun
        >>> way, at = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 0.5, 0.5])
        >>> f, y, size = (
        ...     lambda t, state: (-state[0],),
        ...     (torch.ones(1),),
        ...     lambda error, before, after: error[0].abs(),
        ... )
        >>> embedded_step(f, adaptive_heun, size, *way, at, y, f(way[0], y))
        ((tensor([0.6250]),), None, tensor([0.1250]))
    """
    h = (at[-1] - at[0]) * span
    y, slopes = runge_kutta_step(rhs, tableau, torch.lerp(start, end, at), h, state, slope)
    with torch.no_grad():
        error = size(_by_length(h, _weighted(tableau.e, slopes)), state, y)
    return y, slopes[-1] if _ends_in_slope(tableau) else None, error


def begin(
    rhs: RightHandSide, tableau: Tableau, size: Size, start: Tensor, end: Tensor, span: Tensor, state: State
) -> tuple[State, Tensor]:
    r"""The slope at the start and a first step, as a part of the way: where the Taylor remainder meets the tolerance.

    With the slope f and its rate of change :math:`L = |f'| / |f|`, by one evaluation more, the remainder is taken as
    :math:`h^{p+1} |f| L^p / (p+1)!`.

    Example:
        >>> import torch
        >>> from cnflib.ode import dopri5
        >>> f, size = (
        ...     lambda t, state: (-state[0],),
        ...     lambda error, before, after: 1e5 * error[0].abs().max(),
        ... )
        >>> slope, part = begin(
        ...     f, dopri5, size, *torch.tensor([0.0, 1.0, 1.0]), (torch.ones(1),)
        ... )
        >>> slope, round(part.item(), 2)
        ((tensor([-1.]),), 0.44)
    """
    slope, p = rhs(start, state), tableau.order
    with torch.no_grad():
        speed = size(_by_length(span, slope), state, state)
        # How far to look for the rate of change: a hundredth of the way the state would take to move by its own size.
        ahead = (0.01 * size(state, state, state) / speed).nan_to_num(0.01).clamp(1e-4, 0.01)
        near = rhs(torch.lerp(start, end, ahead), _combined(state, ahead * span, (1,), [slope]))
        change = tuple(b - a for a, b in zip(slope, near, strict=True))
        bend = size(_by_length(span / ahead, change), state, state)
        speed = speed.maximum(1e-3 * bend)  # at rest at the start, the step must stay finite
        # The root is taken before the product, which could overflow in float32.
        part = (math.factorial(p + 1) / speed) ** (1 / (p + 1)) * (speed / bend) ** (p / (p + 1))
        return slope, torch.where(bend == 0, 1.0, part).nan_to_num(1e-3).clamp(1e-6, 1.0)


def _combined(state: State, h: Tensor, weights: Sequence[float], slopes: Sequence[State]) -> State:
    r""":math:`y + h \sum_i w_i k_i`, part by part, with one h or one for each row."""
    if not any(weights):
        return state
    total = _weighted(weights, slopes)
    return tuple([torch.addcmul(y, spread(h, y), k) for y, k in zip(state, total, strict=True)])


def _weighted(weights: Sequence[float], slopes: Sequence[State]) -> State:
    r""":math:`\sum_i w_i k_i`, part by part; weights of 0 are passed over."""
    (w, slope), *rest = [(w, k) for w, k in zip(weights, slopes) if w]
    total = [w * k for k in slope]
    for w, slope in rest:
        total = [torch.add(y, k, alpha=w) for y, k in zip(total, slope)]
    return tuple(total)


def _by_length(h: Tensor, parts: State) -> State:
    return tuple(spread(h, y) * y for y in parts)
