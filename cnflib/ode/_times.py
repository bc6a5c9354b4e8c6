"""Times and lengths of steps, as a solver takes them."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from cnflib._check import eager

__all__: list[str] = []

Timed = TypeVar("Timed", bound=Callable[[Tensor, Any], Any])
"""A right-hand side or a projection: a function of time and state."""


def in_order(times: Tensor) -> bool:
    """Whether there are two times or more, of shape ``(T,)``, that go strictly up or down where one may look."""
    if times.ndim != 1 or len(times) < 2:
        return False
    steps = times.diff()
    return not eager(times) or bool((steps > 0).all() or (steps < 0).all())


def ends_and_spans(times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Times and their differences in the dtype of the state; the differences are rounded after they are taken."""
    return times.to(like), times.diff().to(like)


def within(function: Timed, ends: Tensor) -> Timed:
    """The function at times that rounding has not carried beyond the ends, where a velocity need not exist."""
    low, high = ends.detach().aminmax()
    return lambda t, y: function(t + (t.clamp(low, high) - t).detach(), y)


def spread(h: Tensor, like: Tensor) -> Tensor:
    """A number for each row as ``(B, 1, ...)``; one for all stays as it is."""
    return h.reshape(-1, *[1] * (like.ndim - 1)) if h.ndim else h
