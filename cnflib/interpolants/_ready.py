"""What the schedules of this library have in common."""

from abc import ABC, abstractmethod

from torch import Tensor

from cnflib._settings import compact_repr

__all__ = ["ReadySchedule"]


class ReadySchedule(ABC):
    """A schedule that knows its rate and is known to be right: an interpolant that is built of it does not try it."""

    __repr__ = compact_repr

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """The schedule at t, of the shape of t."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """Its derivative at t, of the shape of t."""
