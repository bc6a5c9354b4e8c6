"""A field computed from another, and what such a computation begins with."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jvp

from cnflib._check import check_event
from cnflib._field import Uniform, uniform
from cnflib.interpolants._checks import check_time
from cnflib.interpolants._pairs import check_path, evaluate
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["Derived", "check_noisy", "time_like", "value_at", "with_rate"]

Rule = Callable[[Uniform, float | Tensor, Tensor, Tensor | None], Tensor]
"""``rule(field, t, x, context)``: the value of the new field."""


class Derived(nn.Module):
    """A field that keeps what it is computed from, with its parameters, so that a solver sees them.

    These are those of the field, and of the schedules of a path that is learned.
    """

    def __init__(
        self, field: VectorField, rule: Rule, name: str, interpolant: Interpolant | None = None
    ) -> None:
        super().__init__()
        self.field = uniform(field).field
        self.rule = rule
        self.name = name
        schedules = () if interpolant is None else (interpolant.alpha, interpolant.beta, interpolant.gamma2)
        learned = [schedule for schedule in schedules if isinstance(schedule, nn.Module)]
        if learned:
            self.schedules = nn.ModuleList(learned)

    def forward(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.rule(uniform(self.field), t, x, context)

    def extra_repr(self) -> str:
        return self.name


def time_like(t: float | Tensor, x: Tensor) -> Tensor:
    """The time as a tensor that broadcasts against x."""
    check_event(x, None)
    return check_time(t, x).clone(memory_format=torch.contiguous_format)  # a view fails in a compiled jvp


def value_at(field: Uniform, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """The field at a time that broadcasts against x."""
    return evaluate(field, "field", t.flatten() if len(t) == len(x) else t.reshape(()), x, context)


def check_noisy(interpolant: Interpolant) -> None:
    """Refuse a path without noise."""
    check_path(interpolant)
    if interpolant.gamma2 is None:
        raise ValueError(
            "Expected an interpolant with noise, of which a denoiser is the mean; got one without. With a Gaussian end "
            "use score_from_velocity; with none, give the path noise: Linear(Parabola())."
        )


def with_rate(f: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """A function of time and its rate of change, in forward mode."""
    t = t.contiguous()
    return jvp(f, (t,), (torch.ones_like(t),))
