r"""Adaptive steps: a Runge-Kutta method that estimates its own error, and the choice of the next step by it.

Times inside a solve are fractions of the way from one requested time to the next, so the step at which an answer is
asked for ends there, nothing is evaluated beyond the ends, and a gradient reaches both of them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cnflib._check import check_finite, check_plain, check_positive_int
from cnflib.continuous._step import EAGER, Compiled, Size
from cnflib.continuous.solvers import RightHandSide, SolveError, Solver, State, Stats, Work, spread
from cnflib.continuous.tableaus import Tableau, adaptive_heun, bosh3, dopri5, dopri8

__all__ = ["Norm", "adaptive", "largest", "row_by_row"]

METHODS = {"dopri5": dopri5, "dopri8": dopri8, "bosh3": bosh3, "adaptive_heun": adaptive_heun}
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0

Norm = Callable[[State], Tensor]
"""Size of a state in units of its tolerance, shape ``()``, or ``(B,)`` where every row keeps its own steps."""


def adaptive(
    method: str | Tableau = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
    per_row: bool = False,
    compiled: bool = False,
) -> Solver:
    r"""Steps chosen so that the local error keeps to a tolerance; gradients by backpropagation through them.

    With the error :math:`E` of a step of size h, in units of ``atol + rtol * |y|``, and a method of order p the next
    one has size

    .. math:: h \cdot \min\bigl(10, \max(0.2,\; 0.9\, E^{-1/p})\bigr),

    cut to an equal share of what is left. A step with :math:`E > 1` is taken again. E is the root mean square over the
    batch, for the point and the log-determinant apart and the larger of them, so an answer depends a little, within the
    tolerance, on its batch mates. With ``per_row`` each row has an error, a time and steps of its own: its answer is
    the same in any batch, up to rounding, and no row hides a large E behind the mean. But all rows wait for the one
    with the most steps, and where a row allows longer steps than its batch it takes them: its error, and the largest
    of the batch, can be larger than with common steps. Float32 does not reach below about 1e-6. A field that stands
    still at the start and moves for a short while later can be stepped over: ask for times in between
    (:meth:`CNF.path`), or use :func:`fixed`.

    Args:
        method: dopri5, dopri8, bosh3 or adaptive_heun, or a :class:`Tableau` of your own with an error.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in units of the state.
        max_steps: Steps, accepted and rejected, between two consecutive times after which the solve is given up.
        per_row: Whether every row keeps its own steps. The field is then called with times of shape ``(B,)``.
        compiled: Whether a whole step, field and all, is compiled by ``torch.compile``: seconds to minutes at the first
            step and for every new shape, then faster. Not for a field that torch cannot compile in one piece.

    Raises:
        ValueError: On an unknown method, a tolerance that is not positive, or NaN or inf in the starting state.
        SolveError: When the step underflows, the field blows up, or ``max_steps`` are not enough.

    References:
        A family of embedded Runge-Kutta formulae, Dormand & Prince, 1980;
        Solving Ordinary Differential Equations I, Hairer, Nørsett & Wanner, 1993, section II.4.
    """
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0 < tolerance < float("inf"):
            raise ValueError(
                f"Expected {name} > 0 and finite; got {tolerance}. Usual values are 1e-3 to 1e-8."
            )
    check_positive_int(max_steps, "max_steps")
    return partial(
        _adaptive,
        tableau=_tableau(method),
        rtol=rtol,
        atol=atol,
        max_steps=max_steps,
        norm=row_by_row if per_row else largest,
        parts=tuple(map(Compiled, EAGER)) if compiled else EAGER,
        pieces=1,
    )


def _tableau(method: str | Tableau) -> Tableau:
    tableau = METHODS.get(method) if isinstance(method, str) else method
    if not isinstance(tableau, Tableau) or not tableau.e or tableau.order < 1:
        raise ValueError(
            f"Expected method to be one of {', '.join(METHODS)}, or a Tableau with error weights and an order; got "
            f"{method!r}. Equal steps: fixed(steps)."
        )
    return tableau


@torch.compiler.disable
def _adaptive(
    rhs: RightHandSide,
    state: State,
    times: Tensor,
    inputs: Sequence[Tensor] = (),
    *,
    tableau: Tableau,
    norm: Norm,
    rtol: float,
    atol: float,
    max_steps: int,
    parts: tuple[Callable, Callable],
    pieces: int,
) -> tuple[State, Stats]:
    """With ``pieces`` a step that the tolerance allows is cut into so many."""
    check_plain(state)
    check_finite(state[0], "x")
    size = partial(_size, norm=norm, rtol=rtol, atol=atol)
    run = _Run(rhs, tableau, size, max_steps, pieces, parts)
    states = [state]
    for start, end in zip(times[:-1], times[1:], strict=True):
        states.append(run.go(states[-1], start, end))
    return tuple(torch.stack(parts) for parts in zip(*states, strict=True)), run.stats()


class _Run:
    """A solve on its way: its pace, the slope where it stands, and what it has taken so far.

    Pace and error are numbers, or arrays with one for each row, in float64: with them the next step is decided.
    """

    def __init__(
        self,
        rhs: RightHandSide,
        tableau: Tableau,
        size: Size,
        max_steps: int,
        pieces: int,
        parts: tuple[Callable, Callable],
    ) -> None:
        self.rhs, self.tableau, self.size = rhs, tableau, size
        self.max_steps, self.pieces = max_steps, pieces
        self.begin, self.step = parts
        self.slope: State | None = None
        self.pace: np.ndarray | None = None
        self.error: np.ndarray = np.zeros(())
        self.accepted: np.ndarray = np.zeros((), int)
        self.nfe = self.tries = 0

    def go(self, state: State, start: Tensor, end: Tensor) -> State:
        """The state at the end, by as many steps as it takes."""
        span, since = np.abs(_array(end - start)), self.tries
        if self.pace is None:
            self.slope, part = self.begin(self.rhs, self.tableau, self.size, start, end, state)
            self.pace, self.nfe = span * _array(part), 2
        left = np.ones_like(self.pace)
        while left.any():
            part = _share(self.pace / span / self.pieces, left)
            self.check(part, left, self.tries - since, start, end, state)
            at = _stages(self.tableau, part, left, start)
            if self.slope is None:
                self.slope, self.nfe = self.rhs(torch.lerp(start, end, at[0]), state), self.nfe + 1
            moved, slope, error = self.step(
                self.rhs, self.tableau, self.size, start, end, at, state, self.slope
            )
            self.tries, self.nfe, self.error = self.tries + 1, self.nfe + len(at) - 2, _array(error)
            good = self.error <= 1
            self.accepted = self.accepted + (good & (part > 0))
            self.pace = np.where(part > 0, span * part * self.change(), self.pace)
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

    def check(
        self, part: np.ndarray, left: np.ndarray, tries: int, start: Tensor, end: Tensor, state: State
    ) -> None:
        """Give up where the step no longer moves the time, or after too many."""
        vanishing = (part < torch.finfo(state[0].dtype).eps) & (left > 0)
        if not vanishing.any() and tries < self.max_steps:
            return
        gone = 1 - left[vanishing if vanishing.any() else left > 0].max()
        t = torch.lerp(start, end, float(gone)).item()
        _, accepted, rejected, _ = self.stats()
        where = f"The solve stopped at t = {t:.6g} after {accepted} accepted and {rejected} rejected steps: "
        if not np.isfinite(self.error).all():
            raise SolveError(
                where
                + "the field or its divergence returned NaN or inf. Look for NaN weights (a learning rate too high, "
                "a log or square root at 0) and for a field that blows up in finite time (bound its growth in x)."
            )
        reason = "the step size underflowed" if vanishing.any() else "max_steps was reached"
        raise SolveError(
            where
            + f"{reason} in {state[0].dtype}. The field is too steep or too stiff for these tolerances. Try larger "
            "rtol and atol; float64; a field with a smaller Lipschitz constant (weight decay, smooth activations); "
            "or fixed(steps), whose error you then check yourself."
        )


def _size(error: State, before: State, after: State, norm: Norm, rtol: float, atol: float) -> Tensor:
    """How large an error is in units of its tolerance."""
    scales = (atol + rtol * a.abs().maximum(b.abs()) for a, b in zip(before, after, strict=True))
    return norm(tuple(e / scale for e, scale in zip(error, scales, strict=True)))


def largest(parts: State) -> Tensor:
    """The largest root mean square of the parts of a state."""
    return torch.stack([y.square().mean().sqrt() for y in parts]).amax()


def row_by_row(parts: State) -> Tensor:
    """The same for each row apart, shape ``(B,)``."""
    return torch.stack([y.reshape(len(y), -1).square().mean(1).sqrt() for y in parts]).amax(0)


def _share(step: np.ndarray, left: np.ndarray) -> np.ndarray:
    """A step no longer than the given one that fits a whole number of times into what is left."""
    return left / np.ceil(left / step - 1e-6).clip(1)


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
    return x.detach().double().cpu().numpy()
