"""What the schedules of this library have in common, and the paths that have one as a default."""

import inspect
from abc import ABC, abstractmethod
from typing import TypeVar

from torch import Tensor

from cnflib._settings import compact_repr

__all__ = ["Default", "ReadySchedule", "traceable"]

T = TypeVar("T", bound=type)


class ReadySchedule(ABC):
    """A schedule that knows its rate and is known to be right: an interpolant that is built of it does not try it."""

    __repr__ = compact_repr

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """The schedule at t, of the shape of t."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """Its derivative at t, of the shape of t."""


class Default:
    """What an argument left out is until ``__post_init__`` puts the default of its field there."""


def traceable(path: T) -> T:
    """A path that torch.compile can build, which takes no object as the default of an argument; the signature stays."""
    path.__signature__ = inspect.signature(path)
    defaults = path.__init__.__defaults__
    path.__init__.__defaults__ = tuple(None if default is None else Default for default in defaults)
    return path
