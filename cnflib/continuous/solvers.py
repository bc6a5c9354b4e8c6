r"""Solvers of :math:`\dot y = F(t, y)`: adaptive steps by torchdiffeq, fixed steps by a loop of our own.

A solver is called as ``solver(rhs, state, times, inputs)`` with a tuple of tensors as state and at least two times in
strict order, forward or backward; it returns the state at all of them, stacked along a new first axis, and its
:class:`Stats`. ``inputs`` are the other tensors that the right-hand side depends on and that want a gradient; the
solvers here find them by themselves, those of :mod:`cnflib.continuous.gradients` do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torchdiffeq import odeint

from cnflib._check import check_finite, check_plain, check_positive_int

__all__ = [
    "RightHandSide",
    "SolveError",
    "Solver",
    "State",
    "Stats",
    "Tableau",
    "Work",
    "adaptive",
    "euler",
    "fixed",
    "heun",
    "midpoint",
    "rk4",
]

State = tuple[Tensor, ...]
RightHandSide = Callable[[Tensor, State], State]


@dataclass
class Work:
    """Evaluations, accepted steps and rejected steps of a backward pass: 0 until it runs, then filled in."""

    nfe: int = 0
    accepted: int = 0
    rejected: int = 0


class Stats(NamedTuple):
    """Evaluations of the right-hand side, accepted steps and rejected steps of one solve, and of its backward pass.

    Backpropagation evaluates nothing anew, so its backward work stays 0.
    """

    nfe: int
    accepted: int
    rejected: int
    backward: Work


Solver = Callable[..., tuple[State, Stats]]
"""``solver(rhs, state, times, inputs=()) -> (states, stats)``."""


class SolveError(RuntimeError):
    """An adaptive solve could not go on; the message says where, why and what to try."""


class Tableau(NamedTuple):
    r"""An explicit Runge-Kutta method as its Butcher tableau.

    .. math:: k_i = F\bigl(t + c_i h,\; y + h \sum_{j<i} a_{ij} k_j\bigr), \qquad y_{+} = y + h \sum_i b_i k_i
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


euler = Tableau(c=(0,), a=((),), b=(1,))
midpoint = Tableau(c=(0, 1 / 2), a=((), (1 / 2,)), b=(0, 1))
heun = Tableau(c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
rk4 = Tableau(
    c=(0, 1 / 2, 1 / 2, 1),
    a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)

_GIVEN_UP = ("underflow in dt", "non-finite values", "max_num_steps")
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")


def fixed(steps: int, tableau: Tableau = rk4) -> Solver:
    r"""Equal steps between consecutive times, free of graph breaks: for compilation, and for a cost known in advance.

    The error is not controlled. Halve the step and compare before a likelihood is believed: coarse steps fake it.
    A solve forward and a solve backward are not inverses of each other, only up to :math:`O(h^p)`.

    Args:
        steps: Steps between two consecutive times.
        tableau: The Runge-Kutta method: :data:`euler`, :data:`midpoint`, :data:`heun`, :data:`rk4` or your own.

    Raises:
        ValueError: If ``steps`` is not a positive int.
    """
    check_positive_int(steps, "steps")
    if not isinstance(tableau, Tableau):
        raise ValueError(
            f"Expected tableau to be a Tableau: euler, midpoint, heun, rk4 or your own; got {tableau!r}."
        )
    return partial(_fixed, steps=steps, tableau=tableau)


def adaptive(
    method: str = "dopri5", rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 10_000
) -> Solver:
    r"""Adaptive steps by torchdiffeq; gradients by backpropagation through the accepted steps.

    The local error of each part of the state is kept below ``atol + rtol * |y|`` in root mean square over the batch,
    so an answer depends a little, within the tolerance, on its batch mates. Float32 does not reach below about 1e-6.

    Args:
        method: One of torchdiffeq's dopri5, dopri8, bosh3, adaptive_heun. (Its fehlberg2 misses the tolerance by
            orders of magnitude and is not offered.)
        rtol: Relative tolerance.
        atol: Absolute tolerance, in units of the state.
        max_steps: Steps, accepted and rejected, between two consecutive times after which the solve is given up.

    Raises:
        ValueError: On an unknown method, a tolerance that is not positive, or NaN or inf in the starting state.
        SolveError: When the step underflows, the field blows up, or ``max_steps`` are not enough.

    References:
        A family of embedded Runge-Kutta formulae, Dormand & Prince, 1980; https://github.com/rtqichen/torchdiffeq.
    """
    if method not in _ADAPTIVE:
        raise ValueError(
            f"Expected method to be one of {', '.join(_ADAPTIVE)}; got {method!r}. Equal steps: fixed(steps)."
        )
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0 < tolerance < float("inf"):
            raise ValueError(
                f"Expected {name} > 0 and finite; got {tolerance}. Usual values are 1e-3 to 1e-8."
            )
    check_positive_int(max_steps, "max_steps")
    return partial(_adaptive, method=method, rtol=rtol, atol=atol, max_steps=max_steps)


def _fixed(
    rhs: RightHandSide,
    state: State,
    times: Tensor,
    inputs: Sequence[Tensor] = (),
    *,
    steps: int,
    tableau: Tableau,
) -> tuple[State, Stats]:
    step = partial(_step, _within(rhs, times), tableau)
    return _march(step, state, times, steps), _cost(times, steps, tableau)


def _within(rhs: RightHandSide, times: Tensor) -> RightHandSide:
    """The right-hand side at times that rounding has not carried beyond the ends, where a velocity need not exist."""
    low, high = times.detach().aminmax()
    return lambda t, state: rhs(t + (t.clamp(low, high) - t).detach(), state)


def _march(step: Callable[[Tensor, Tensor, State], State], state: State, times: Tensor, steps: int) -> State:
    states = [state]
    for start, end in zip(times[:-1], times[1:], strict=True):
        h = (end - start) / steps
        for k in range(steps):
            state = step(start + k * h, h, state)
        states.append(state)
    return tuple(torch.stack(parts) for parts in zip(*states, strict=True))


def _cost(times: Tensor, steps: int, tableau: Tableau) -> Stats:
    total = steps * (len(times) - 1)
    return Stats(total * len(tableau.b), total, 0, Work())


@torch.compiler.disable
def _adaptive(
    rhs: RightHandSide,
    state: State,
    times: Tensor,
    inputs: Sequence[Tensor] = (),
    *,
    method: str,
    rtol: float,
    atol: float,
    max_steps: int,
    norm: Callable[[State], Tensor] | None = None,
) -> tuple[State, Stats]:
    check_plain(state)
    check_finite(state[0], "x")
    watched = _Watched(rhs, times)
    # Under no_grad: torchdiffeq would differentiate its guess of the first step.
    norm = torch.no_grad()(norm or _largest)
    options = {"max_num_steps": max_steps, "step_t": times[1:].detach(), "norm": norm}
    try:
        states = odeint(watched, state, times, method=method, rtol=rtol, atol=atol, options=options)
    except AssertionError as error:
        if not str(error).startswith(_GIVEN_UP):
            raise
        raise watched.explain(str(error), state[0].dtype) from error
    return states, Stats(watched.nfe, watched.accepted, watched.rejected, Work())


def _step(rhs: RightHandSide, tableau: Tableau, t: Tensor, h: Tensor, state: State) -> State:
    slopes: list[State] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        slopes.append(rhs(t + c * h, _add(state, h, row, slopes)))
    return _add(state, h, tableau.b, slopes)


def _add(state: State, h: Tensor, weights: tuple[float, ...], slopes: list[State]) -> State:
    for w, slope in zip(weights, slopes, strict=True):
        if w:
            state = tuple(y + w * h * k for y, k in zip(state, slope, strict=True))
    return state


def _largest(parts: State) -> Tensor:
    """The largest root mean square of the parts of a state."""
    return torch.stack([y.square().mean().sqrt() for y in parts]).max()


class _Watched:
    """A right-hand side that counts its calls and, through torchdiffeq's callbacks, the steps.

    Without its clamp, and ``step_t`` above, torchdiffeq looks beyond the end: a guess at the first step, a last step
    that overshoots. A velocity need not exist there. ``step_t`` also ends a step at every requested time, where
    torchdiffeq would interpolate at a fraction of the accuracy.
    """

    def __init__(self, rhs: RightHandSide, times: Tensor) -> None:
        self.rhs = rhs
        self.start = times[0].detach()
        self.bounds = times.detach().aminmax()
        self.nfe = self.accepted = self.rejected = 0
        self.last: tuple[Tensor, State] | None = None

    def __call__(self, t: Tensor, state: State) -> State:
        self.nfe += 1
        t = t.clamp(*self.bounds)
        slope = self.rhs(t, state)
        self.last = t, slope
        return slope

    def callback_accept_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        self.accepted += 1

    def callback_reject_step(self, t: Tensor, state: State, dt: Tensor) -> None:
        self.rejected += 1

    def explain(self, assertion: str, dtype: torch.dtype) -> SolveError:
        """The readable form of an assertion of torchdiffeq's; any other is the field's own and stays as it is."""
        t, slope = self.last
        t = torch.where(t.isnan(), self.start, t)
        where = (
            f"The solve stopped at t = {t.item():.6g} after {self.accepted} accepted and {self.rejected} rejected "
            "steps: "
        )
        if not all(torch.isfinite(k).all() for k in slope):
            return SolveError(
                where
                + "the field or its divergence returned NaN or inf. Look for NaN weights (a learning rate too high, "
                "a log or square root at 0) and for a field that blows up in finite time (bound its growth in x)."
            )
        reason = "the step size underflowed" if assertion.startswith("underflow") else "max_steps was reached"
        return SolveError(
            where
            + f"{reason} in {dtype}. The field is too steep or too stiff for these tolerances. Try larger rtol and "
            "atol; float64; a field with a smaller Lipschitz constant (weight decay, smooth activations); "
            "or fixed(steps), whose error you then check yourself."
        )
