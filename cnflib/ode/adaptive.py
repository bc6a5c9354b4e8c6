r"""Adaptive steps: a Runge-Kutta method that estimates its own error, and the choice of the next step by it.

Times inside a solve are fractions of the way from one requested time to the next, so the step at which an answer is
asked for ends there, nothing is evaluated beyond the ends, and a gradient reaches both of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from math import log2
from types import FunctionType

import numpy as np
import torch
from torch import Tensor

from cnflib._check import check_finite, check_plain, check_positive_int
from cnflib._settings import compact_repr
from cnflib.ode._checks import check_tableau, check_tolerances, gave_up
from cnflib.ode._times import ends_and_spans, spread
from cnflib.ode.adjoint import by_adjoint
from cnflib.ode.runge_kutta import Size, begin, embedded_step
from cnflib.ode.solver import RightHandSide, SolveError, State, Stats, Work
from cnflib.ode.tableaus import Tableau, dopri5

__all__ = ["Adaptive"]

SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0

Norm = Callable[[State], Tensor]
"""Size of a state in units of its tolerance, shape ``()``, or ``(B,)`` where every row keeps its own steps."""


@dataclass(frozen=True, repr=False)
class Adaptive:
    r"""Steps chosen so that the local error keeps to a tolerance; gradients by backpropagation through them.

    With the error :math:`E` of a step of size h, in units of ``atol + rtol * |y|``, and a method of order p the next
    one has size

    .. math:: h \cdot \min\bigl(10, \max(0.2,\; 0.9\, E^{-1/p})\bigr),

    cut to an equal share of what is left. A step with :math:`E > 1` is taken again. E is the root mean square over the
    batch, for each part of the state (the point, the log-determinant) apart, and the largest of them, so an answer
    depends a little, within the tolerance, on its batch mates. With ``per_row`` each row has an error, a time and steps
    of its own: its answer is the same in any batch, up to rounding, and no row hides a large E behind the mean. The
    solve takes as long as its slowest row, and an easy row takes longer steps than it would with its batch: its error,
    and the largest of the batch, can be larger than with common steps. Float32 does not reach below about 1e-6.
    A field that stands still at the start and moves for a short while later can be stepped over: ask for times in
    between, or use :class:`Fixed`.

    With ``adjoint`` the gradient comes by a second solve backward in time (see :func:`cnflib.ode.adjoint.by_adjoint`),
    and memory does not grow with the steps. It is the gradient of the exact flow up to the errors of both solves, not
    that of the steps taken; backpropagation gives the latter and is faster where memory allows. Where the field
    contracts strongly, the backward solve magnifies errors and the gradient can be wrong without a warning: compare
    with :func:`cnflib.audit.audit_gradients`. Gradients of gradients are then refused.

    Args:
        tableau: :data:`dopri5`, :data:`dopri8`, :data:`bosh3` or :data:`adaptive_heun`, or one of your own with an
            error.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in units of the state.
        max_steps: Steps, accepted and rejected, between two consecutive times after which the solve is given up.
        per_row: Whether every row keeps its own steps. The field is then called with times of shape ``(B,)``.
        compiled: Whether a whole step, field and all, is compiled by ``torch.compile``: seconds to minutes at the first
            step of a kind (in training or not, with a divergence or points alone), once more when the size of the batch
            first changes, and for a batch of one row; then faster. Not for a field that torch cannot compile in one
            piece. What was compiled stays with the object and is no part of a copy.
        adjoint: Whether gradients come by a second solve; incompatible with ``per_row`` and ``compiled``.

    Raises:
        ValueError: On a tableau without an error, a tolerance that is not positive, or options that exclude each
            other. When called: on NaN or inf in the starting state, and with ``adjoint`` if the right-hand side depends
            on a tensor that wants a gradient and is not in ``inputs``.
        SolveError: When called: the step underflows, the field blows up, or ``max_steps`` are not enough.

    References:
        A family of embedded Runge-Kutta formulae, Dormand & Prince, 1980;
        Solving Ordinary Differential Equations I, Hairer, Nørsett & Wanner, 1993, section II.4;
        Neural Ordinary Differential Equations, Chen et al., 2018, arXiv:1806.07366 (adjoint).

    Example:
        >>> import torch
        >>> from cnflib.ode import dopri8, solve
        >>> result = solve(
        ...     lambda t, y: -y,
        ...     torch.ones(2),
        ...     (0.0, 1.0),
        ...     Adaptive(rtol=1e-3, atol=1e-3),
        ... )
        >>> result.y[-1], result.nfe, result.accepted
        (tensor([0.3683, 0.3683]), 8, 1)
        >>> Adaptive(dopri8, adjoint=True)
        Adaptive(tableau=dopri8, adjoint=True)
    """

    tableau: Tableau = dopri5
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000
    per_row: bool = False
    compiled: bool = False
    adjoint: bool = False

    __repr__ = compact_repr

    def __post_init__(self) -> None:
        ready = "dopri5, dopri8, bosh3, adaptive_heun"
        check_tableau(self.tableau, ready)
        if not any(self.tableau.e) or self.tableau.order < 1:
            raise ValueError(
                f"Expected tableau to have error weights e and an order; got {self.tableau!r}. Ready in cnflib.ode: "
                f"{ready}. Equal steps: Fixed(steps, tableau)."
            )
        check_tolerances(self.rtol, self.atol)
        object.__setattr__(self, "max_steps", check_positive_int(self.max_steps, "max_steps"))
        if self.adjoint and (self.per_row or self.compiled):
            raise ValueError(
                f"Expected adjoint without {'per_row' if self.per_row else 'compiled'}: the backward solve of the "
                "adjoint takes common steps and is not compiled. Leave one of the two out; Fixed(steps, "
                "checkpoint=True) saves memory too."
            )

    @torch.compiler.disable
    def __call__(
        self, rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor] = ()
    ) -> tuple[State, Stats]:
        """The states at all times, as a :class:`Solver` is called."""
        return _solved(self, 1, rhs, state, times, inputs)

    def halved(self) -> "_Halved":
        """The same solver with steps of half the length: each that the tolerance allows is cut in two."""
        return _Halved(self)

    @cached_property
    def _parts(self) -> tuple[Callable, Callable]:
        """The functions that begin and take a step, here and not in a copy once compiled."""
        return (_Compiled(begin), _Compiled(embedded_step)) if self.compiled else (begin, embedded_step)

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, repr=False)
class _Halved:
    """An adaptive solver whose steps are cut into so many pieces, a power of 2."""

    solver: Adaptive
    pieces: int = 2

    def __repr__(self) -> str:
        return repr(self.solver) + ".halved()" * int(log2(self.pieces))

    @torch.compiler.disable
    def __call__(
        self, rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor] = ()
    ) -> tuple[State, Stats]:
        return _solved(self.solver, self.pieces, rhs, state, times, inputs)

    def halved(self) -> "_Halved":
        return replace(self, pieces=2 * self.pieces)


def _solved(
    solver: Adaptive, pieces: int, rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor]
) -> tuple[State, Stats]:
    march = partial(_march, solver, pieces)
    return by_adjoint(rhs, state, times, inputs, march) if solver.adjoint else march(rhs, state, times)


def _march(
    solver: Adaptive,
    pieces: int,
    rhs: RightHandSide,
    state: State,
    times: Tensor,
    chosen_by: int | None = None,
) -> tuple[State, Stats]:
    """The states at all times; a step that the tolerance allows is cut into pieces.

    The first ``chosen_by`` parts of the state choose the steps, by default all.
    """
    ends, spans = ends_and_spans(times, state[0])
    check_plain((*state, spans))
    check_finite(state[0], "starting state")
    norm = _row_by_row if solver.per_row else partial(_largest, count=chosen_by) if chosen_by else _largest
    size = partial(_size, norm=norm, rtol=solver.rtol, atol=solver.atol)
    run = _Run(solver, pieces, rhs, size)
    states = [state]
    for start, end, span in zip(ends[:-1], ends[1:], spans, strict=True):
        states.append(run.go(states[-1], start, end, span))
    return tuple(torch.stack(parts) for parts in zip(*states, strict=True)), run.stats()


class _Run:
    """A solve on its way: its pace, the slope where it stands, and what it has taken so far.

    Pace and error are numbers, or arrays with one for each row, in float64: with them the next step is decided.
    """

    def __init__(self, solver: Adaptive, pieces: int, rhs: RightHandSide, size: Size) -> None:
        self.solver, self.pieces, self.rhs, self.size = solver, pieces, rhs, size
        self.tableau = solver.tableau
        self.begin, self.step = solver._parts
        self.slope: State | None = None
        self.pace: np.ndarray | None = None
        self.error: np.ndarray = np.zeros(())
        self.accepted: np.ndarray = np.zeros((), int)
        self.nfe = self.tries = 0

    def go(self, state: State, start: Tensor, end: Tensor, span: Tensor) -> State:
        """The state at the end, by as many steps as it takes."""
        way, since = np.abs(_array(span)), self.tries
        if self.pace is None:
            self.slope, part = self.begin(self.rhs, self.tableau, self.size, start, end, span, state)
            check_plain((part,))  # what the right-hand side alone depends on may be wrapped
            self.pace, self.nfe = way * _array(part), 2
        left = np.ones_like(self.pace)
        while left.any():
            part = _share(self.pace / way / self.pieces, left)
            vanishing = (part < torch.finfo(state[0].dtype).eps) & (left > 0)
            if vanishing.any() or self.tries - since >= self.solver.max_steps:
                raise self.stopped(vanishing, left, start, end, state)
            at = _stages(self.tableau, part, left, start)
            if self.slope is None:  # the method does not end its steps in the slope there
                self.slope, self.nfe = self.rhs(torch.lerp(start, end, at[0]), state), self.nfe + 1
            moved, slope, error = self.step(
                self.rhs, self.tableau, self.size, start, end, span, at, state, self.slope
            )
            self.tries, self.nfe, self.error = self.tries + 1, self.nfe + len(at) - 2, _array(error)
            good = self.error <= 1
            self.accepted = self.accepted + (good & (part > 0))
            # A row at its end waits for the others in steps of no length, which say nothing of its pace.
            self.pace = np.where(part > 0, way * part * self.change(), self.pace)
            self.slope = _choose(good, slope, self.slope) if slope else None if good.any() else self.slope
            state, left = _choose(good, moved, state), np.where(good, left - part, left)
        return state

    def change(self) -> np.ndarray:
        """The factor from the step just tried to the one that the tolerance allows."""
        p = self.tableau.order
        error = np.nan_to_num(self.error, nan=np.inf).clip(1e-30) * self.pieces**p
        return self.pieces * (SAFETY * error ** (-1 / p)).clip(SHRINK, GROW)

    def stats(self) -> Stats:
        """Accepted steps are those of the row that took most."""
        accepted = int(self.accepted.max())
        return Stats(self.nfe, accepted, self.tries - accepted, Work())

    def stopped(
        self, vanishing: np.ndarray, left: np.ndarray, start: Tensor, end: Tensor, state: State
    ) -> SolveError:
        """Why a solve is given up: where a step no longer moves the time, or after too many."""
        gone = 1 - left[vanishing if vanishing.any() else left > 0].max()
        t = torch.lerp(start, end, float(gone)).item()
        _, accepted, rejected, _ = self.stats()
        where = f"The solve stopped at t = {t:.6g} after {accepted} accepted and {rejected} rejected steps: "
        reason = "the step size underflowed" if vanishing.any() else "max_steps was reached"
        return gave_up(where, f"{reason} in {state[0].dtype}" if np.isfinite(self.error).all() else "")


class _Compiled:
    """A function compiled at its first call.

    It is a copy that is compiled: torch counts how often it compiled a function, and keeps the count with the code
    object, which all solvers would share. It gives up after so many kinds of calls as no solver should meet: fields of
    several resolutions may share one.
    """

    def __init__(self, function: Callable) -> None:
        self.function, self.compiled = function, None

    def __call__(self, *args: object) -> object:
        if self.compiled is None:
            copy = FunctionType(self.function.__code__.replace(), self.function.__globals__)
            options = {"cpp_wrapper": True} if args[-1][0].is_cpu else {}  # calls kernels not from Python
            self.compiled = torch.compile(copy, fullgraph=True, options=options, recompile_limit=64)
        return self.compiled(*args)


def _size(error: State, before: State, after: State, norm: Norm, rtol: float, atol: float) -> Tensor:
    """How large an error is in units of its tolerance."""
    scales = (atol + rtol * a.abs().maximum(b.abs()) for a, b in zip(before, after, strict=True))
    return norm(tuple(e / scale for e, scale in zip(error, scales, strict=True)))


def _largest(parts: State, count: int | None = None) -> Tensor:
    """The largest root mean square of the first parts of a state."""
    return torch.stack([y.square().mean().sqrt() for y in parts[:count]]).amax()


def _row_by_row(parts: State) -> Tensor:
    """The same for each row apart, shape ``(B,)``."""
    return torch.stack([y.reshape(y.shape[0], -1).square().mean(1).sqrt() for y in parts]).amax(0)


def _share(step: np.ndarray, left: np.ndarray) -> np.ndarray:
    """A step no longer than the given one that fits a whole number of times into what is left."""
    return left / np.ceil(left / step - 1e-6).clip(1)  # what rounding leaves over is no step of its own


def _stages(tableau: Tableau, part: np.ndarray, left: np.ndarray, like: Tensor) -> Tensor:
    """Parts of the way at which a step asks for slopes, and after them its end."""
    c = np.array([*tableau.c, 1]).reshape(-1, *[1] * part.ndim)
    return torch.from_numpy((1 - left + c * part).clip(max=1)).to(like)


def _choose(good: np.ndarray, new: State, old: State) -> State:
    """The new state in the rows where the step is good."""
    if good.all() or not good.any():
        return new if good.all() else old
    mask = torch.from_numpy(good).to(new[0].device)
    return tuple(torch.where(spread(mask, a), a, b) for a, b in zip(new, old, strict=True))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy()  # in this order: not every device has float64
