"""Schedules, the functions of time that an interpolant is made of: what is computed from any, and the ready ones."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import jvp

from cnflib._settings import compact_repr

__all__ = [
    "FALLING",
    "RISING",
    "SMOOTH",
    "SMOOTH_COSINE",
    "SMOOTH_SINE",
    "Cosine",
    "Decoding",
    "Encoding",
    "Flat",
    "ReadySchedule",
    "Sine",
    "root",
    "with_rate",
]

Values = TypeVar("Values", Tensor, tuple[Tensor, ...])


def with_rate(f: Callable[[Tensor], Values], t: Tensor) -> tuple[Values, Values]:
    """The value of a function of time, one tensor or several, and its rate of change, in forward mode."""
    t = t.contiguous()
    return jvp(f, (t,), (torch.ones_like(t),))


def root(square: Tensor) -> Tensor:
    r"""The noise :math:`\gamma` from its square, also where rounding has left that a little below 0.

    Where it is 0 so is its gradient, which would be infinite.
    """
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)


class ReadySchedule(ABC):
    """A schedule of this library: it knows its rate and is known to be right, so an interpolant does not try it."""

    __repr__ = compact_repr

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """The schedule at t, of the shape of t."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """Its derivative at t, of the shape of t."""


# Each prints as the attribute of the path that it belongs to.


@dataclass(frozen=True)
class Falling(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return torch.rsub(t, 1)  # 1 - t without a detour through Python, at every training step

    def rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)

    def __repr__(self) -> str:
        return "Linear().alpha"


@dataclass(frozen=True)
class Rising(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return t

    def rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def __repr__(self) -> str:
        return "Linear().beta"


def _quarter(t: Tensor) -> Tensor:
    return torch.sin(math.pi / 2 * t)


@dataclass(frozen=True)
class Cosine(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return _quarter(1 - t)  # exactly 0 at t = 1

    def rate(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * _quarter(t)

    def __repr__(self) -> str:
        return "Trigonometric().alpha"


@dataclass(frozen=True)
class Sine(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return _quarter(t)

    def rate(self, t: Tensor) -> Tensor:
        return math.pi / 2 * _quarter(1 - t)

    def __repr__(self) -> str:
        return "Trigonometric().beta"


@dataclass(frozen=True)
class Smooth(ReadySchedule):
    r"""The angle :math:`\tfrac\pi2 t^2 (3 - 2t)`, which at 1 - t is :math:`\pi/2` less that at t."""

    def __call__(self, t: Tensor) -> Tensor:
        return math.pi / 2 * t**2 * (3 - 2 * t)

    def rate(self, t: Tensor) -> Tensor:
        return 3 * math.pi * t * (1 - t)

    def __repr__(self) -> str:
        return "VariancePreserving().angle"


@dataclass(frozen=True)
class SmoothCosine(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return torch.sin(SMOOTH(1 - t))  # exactly 0 at t = 1

    def rate(self, t: Tensor) -> Tensor:
        return -SMOOTH.rate(t) * torch.sin(SMOOTH(t))

    def __repr__(self) -> str:
        return "VariancePreserving().alpha"


@dataclass(frozen=True)
class SmoothSine(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return torch.sin(SMOOTH(t))

    def rate(self, t: Tensor) -> Tensor:
        return SMOOTH.rate(t) * torch.sin(SMOOTH(1 - t))

    def __repr__(self) -> str:
        return "VariancePreserving().beta"


def _square(t: Tensor) -> Tensor:  # cos² πt, exactly 0 at t = ½
    return torch.sin(math.pi * (t - 0.5)) ** 2


def _square_rate(t: Tensor) -> Tensor:
    return math.pi * torch.sin(2 * math.pi * (t - 0.5))


@dataclass(frozen=True)
class Encoding(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, _square(t), 0)

    def rate(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, _square_rate(t), 0)

    def __repr__(self) -> str:
        return "EncodingDecoding().alpha"


@dataclass(frozen=True)
class Decoding(ReadySchedule):
    def __call__(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, 0, _square(t))

    def rate(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, 0, _square_rate(t))

    def __repr__(self) -> str:
        return "EncodingDecoding().beta"


@dataclass(frozen=True)
class Flat(ReadySchedule):
    value: float

    def __call__(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.value)

    def rate(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def __repr__(self) -> str:
        return "Mirror().beta" if self.value else "Mirror().alpha"


FALLING, RISING = Falling(), Rising()
SMOOTH, SMOOTH_COSINE, SMOOTH_SINE = Smooth(), SmoothCosine(), SmoothSine()
