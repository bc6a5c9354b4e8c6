"""Checks of what an interpolant is made of and called with: schedules, times, ends, noise."""

from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torch.func import jvp

from cnflib._check import batched, check_context, check_event, check_floating, check_like, eager, reference

__all__: list[str] = []

# Where a schedule is tried that says of itself neither dtype nor device: it may hold a net of either precision.
PLACES = [(torch.float64, torch.device("cpu")), (torch.float32, torch.device("cpu"))]


T = TypeVar("T", bound=type)


def check_ends(x0: Tensor, x1: Tensor) -> None:
    """Check that the two ends of an interpolant agree in shape, dtype and device."""
    check_event(x0, None, "x0")
    if isinstance(x1, Tensor) and (x1.shape, x1.dtype, x1.device) == (x0.shape, x0.dtype, x0.device):
        return
    check_floating(x1, "x1")
    if x1.shape[1:] != x0.shape[1:] or x1.ndim == 0:
        raise ValueError(
            f"Expected x1 of shape {batched(tuple(x0.shape[1:]))}; got {tuple(x1.shape)}. The two ends of a path lie "
            "in one space: bring them to one event shape, that of x0."
        )
    check_like(x1, x0, "x1", "other end x0")
    raise ValueError(
        f"Expected as many x0 as x1; got {len(x0)} and {len(x1)}. Draw one for each of the other."
    )


def check_noise(xi: Tensor | None, x0: Tensor) -> None:
    """Check the noise of an interpolant that has some."""
    if xi is None or xi.shape != x0.shape:
        got = None if xi is None else tuple(xi.shape)
        raise ValueError(
            f"Expected noise xi of shape {tuple(x0.shape)}, as the interpolant has noise; got {got}. "
            "Draw it with torch.randn_like(x0)."
        )
    check_like(xi, x0, "xi", "ends x0 and x1")


def check_schedule(schedule: object, name: str) -> None:
    """Check a function of time: elementwise, finite, with a true rate; a noise also for being at least 0, not always 0.

    What is handed over as ``gamma`` or ``gamma2`` is the noise, whose value at t is gamma².
    """
    noise = name in ("gamma", "gamma2")
    if not callable(schedule) or isinstance(schedule, type):
        got = f"the class {schedule.__name__}" if isinstance(schedule, type) else repr(schedule)
        got = f"a tensor of shape {tuple(schedule.shape)}" if isinstance(schedule, Tensor) else got
        example = "a noise that is built, Bridge() or Constant(0.1)" if noise else "lambda t: torch.cos(t)"
        raise ValueError(f"Expected {name} to be a function of a tensor t; got {got}. Take e.g. {example}.")
    like = reference(schedule)
    if torch.compiler.is_compiling() or (like is not None and (like.is_meta or like.dtype.itemsize < 4)):
        return  # nothing to look at, or too few digits for a difference
    t, value, slope, difference = _tried(
        schedule, name, PLACES if like is None else [(like.dtype, like.device)]
    )
    if not isinstance(value, Tensor) or value.shape != t.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"Expected {name} to act elementwise, with a result of t's shape {tuple(t.shape)}; got {got}. "
            "For a constant: lambda t: torch.full_like(t, 0.5)."
        )
    if not torch.isfinite(value).all() or (noise and (value < 0).any()):
        bound, way = "", "Divide by nothing that vanishes there."
        if noise:
            bound = " and at least 0"
            way = (
                "It is the variance gamma² of the noise, whose root is taken, such as lambda t: t * (1 - t)."
            )
        raise ValueError(
            f"Expected {name} to be finite{bound} inside (0, 1); got {_short(value)} at t = {_short(t)}. {way}"
        )
    if noise and not (value > 0).any():
        raise ValueError(
            f"Expected {name} to be more than 0 somewhere; got {_short(value)}. For no noise take {name}=None."
        )
    if not torch.allclose(slope.to(difference), difference, rtol=1e-2, atol=1e-2 * value.abs().max().item()):
        raise ValueError(
            f"Expected {name} to be differentiable in t; its derivative is {_short(slope)} where differences give "
            f"{_short(difference)}. Look inside it for detach(), .data, float(t), a step, or a false rate."
        )
    if not rated(schedule):
        _check_connected(schedule, name, torch.linspace(1e-3, 1 - 1e-3, 2049, dtype=t.dtype, device=t.device))


def _tried(
    schedule: Callable[[Tensor], Tensor], name: str, places: list[tuple[torch.dtype, torch.device]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, and there the schedule, its rate and its difference quotient, at the first place where it runs."""
    for dtype, device in places:
        t = torch.linspace(0.07, 0.93, 9, dtype=dtype, device=device)
        try:
            value, slope = _with_slope(schedule, t)
            step = 1e-6 if dtype == torch.float64 else 1e-3
            return t, value, slope, (schedule(t + step) - schedule(t - step)) / (2 * step)
        except Exception as error:
            failure = error
    raise ValueError(
        f"Expected {name} to be a function of a tensor t that torch can differentiate; it failed with "
        f"{type(failure).__name__}: {failure}. Write it with torch operations, e.g. lambda t: torch.cos(t)."
    ) from failure


def rated(schedule: object) -> bool:
    """Whether a schedule knows its rate in closed form."""
    return callable(getattr(schedule, "rate", None))


def _short(x: Tensor) -> str:
    return "[" + ", ".join(f"{v:.3g}" for v in x.tolist()) + "]"


def _with_slope(schedule: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    if rated(schedule):
        return schedule(t), schedule.rate(t)
    return jvp(schedule, (t,), (torch.ones_like(t),))


def _check_connected(schedule: Callable[[Tensor], Tensor], name: str, t: Tensor) -> None:
    """Check that a function of time changes by the integral of its derivative; over a step it does not."""
    value, slope = jvp(schedule, (t,), (torch.ones_like(t),))
    missed = (value[1:] - value[0] - torch.cumulative_trapezoid(slope, t)).abs()
    if missed.max() > 5e-3 * (value.max() - value.min()) + 1e-4 * value.abs().max():
        raise ValueError(
            f"Expected {name} to be differentiable in t; up to t = {t[missed.argmax() + 1].item():.2f} it changes by "
            f"{missed.max().item():.3g} more or less than its derivative says. Look inside it for a step, like "
            "t > 0.5, or rounding."
        )


def check_time(t: float | Tensor, x: Tensor) -> Tensor:
    """Check a time in [0, 1], a float or shape () or (B,), and return it as a tensor that broadcasts against x."""
    if isinstance(t, Tensor) and not t.is_floating_point():
        raise ValueError(
            f"Expected t to be times in [0, 1]; got {t.dtype}. Labels go by name: context=labels."
        )
    if not isinstance(t, Tensor | Real):
        raise ValueError(
            f"Expected t to be a number or a tensor; got {type(t).__name__}. Of a law of times: t, weight = law(n); a "
            "generator goes by name: generator=…."
        )
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
        way = "t.flatten()." if t.numel() == len(x) else "one time for all rows, or one for each."
        raise ValueError(f"Expected t of shape () or ({len(x)},); got {tuple(t.shape)}. Pass {way}")
    if eager(t) and not ((t >= 0) & (t <= 1)).all():
        raise ValueError(
            f"Expected t in [0, 1], from base to data; got {t.min().item():g} to {t.max().item():g}. "
            "Divide by the end time, or turn time round with 1 - t."
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


def check_conditions(x1: Tensor, context: Tensor | None, generator: Generator | None) -> None:
    """Check the context of the data and the generator, which are easily taken for each other."""
    if isinstance(context, Generator):
        raise ValueError(
            "Expected context to be a tensor, one row for each of x1; got a torch.Generator. Pass it by name: "
            "generator=generator."
        )
    if generator is not None and not isinstance(generator, Generator):
        got = "a tensor" if isinstance(generator, Tensor) else type(generator).__name__
        raise ValueError(
            f"Expected generator to be a torch.Generator; got {got}. Labels come before it, or by name: "
            "context=labels."
        )
    check_context(context, x1, "x1")


def refusing_points(cls: T) -> T:
    """A class of settings that refuses points at its constructor: they are for the object that it builds."""
    build = cls.__init__

    @wraps(build)
    def __init__(self: object, *arguments: object, **options: object) -> None:
        if any(isinstance(a, Tensor) for a in (*arguments, *options.values())):
            name = cls.__name__
            raise ValueError(
                f"Expected {name} to be built from its settings; got a tensor. Build it, then call it: "
                f"{name}({'...' if cls.__dataclass_fields__ else ''})(x0, x1)."
            )
        build(self, *arguments, **options)

    cls.__init__ = __init__
    return cls
