r"""Solvers of :math:`\dot y = F(t, y)`: what one is, and equal steps.

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

from cnflib._check import check_positive_int
from cnflib.continuous.tableaus import Tableau, rk4

__all__ = [
    "RightHandSide",
    "SolveError",
    "Solver",
    "State",
    "Stats",
    "Work",
    "combine",
    "fixed",
    "spread",
    "weighted",
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
            state = step(torch.add(start, h, alpha=k), h, state)
        states.append(state)
    return tuple(torch.stack(parts) for parts in zip(*states, strict=True))


def _cost(times: Tensor, steps: int, tableau: Tableau) -> Stats:
    total = steps * (len(times) - 1)
    return Stats(total * len(tableau.b), total, 0, Work())


def _step(rhs: RightHandSide, tableau: Tableau, t: Tensor, h: Tensor, state: State) -> State:
    slopes: list[State] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        slopes.append(rhs(torch.add(t, h, alpha=c), combine(state, h, row, slopes)))
    return combine(state, h, tableau.b, slopes)


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
