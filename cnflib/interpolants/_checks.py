"""Checks of what an interpolant is made of and called with: schedules, times, ends, noise, labels."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp

from cnflib._check import batched, check_event, check_floating, check_like, eager, reference

__all__: list[str] = []

# Where a schedule is tried that says of itself neither dtype nor device: it may hold a net of either precision.
PLACES = [(torch.float64, torch.device("cpu")), (torch.float32, torch.device("cpu"))]


def check_ends(x0: Tensor, x1: Tensor) -> None:
    """Check that the two ends of an interpolant agree in shape, dtype and device."""
    check_event(x0, None, "x0")
    check_floating(x1, "x1")
    if x1.shape[1:] != x0.shape[1:] or x1.ndim == 0:
        raise ValueError(
            f"Expected x1 of shape {batched(tuple(x0.shape[1:]))}; got {tuple(x1.shape)}. The two ends of a path lie "
            "in one space: bring them to one event shape, that of x0."
        )
    check_like(x1, x0, "x1", "other end x0")
    if x0.shape != x1.shape:
        raise ValueError(
            f"Expected as many x0 as x1; got {len(x0)} and {len(x1)}. Draw one for each of the other."
        )


def check_rows(context: Tensor, x: Tensor) -> None:
    """Check that labels or a context have a row for each of x, on its device; integers are welcome."""
    if not isinstance(context, Tensor) or context.ndim == 0 or len(context) != len(x):
        got = tuple(context.shape) if isinstance(context, Tensor) else type(context).__name__
        raise ValueError(
            f"Expected context to be a tensor of shape ({len(x)},) or ({len(x)}, features), one row for each of x1; "
            f"got {got}."
        )
    if context.device != x.device:
        raise ValueError(
            f'Expected context on device {x.device}, that of x1; got {context.device}. Use context.to("{x.device}").'
        )


def check_noise(xi: Tensor | None, x0: Tensor) -> None:
    """Check the noise of an interpolant that has some."""
    if xi is None or xi.shape != x0.shape:
        got = None if xi is None else tuple(xi.shape)
        raise ValueError(
            f"Expected noise xi of shape {tuple(x0.shape)}, as gamma2 is not zero; got {got}. "
            "Draw it with torch.randn_like(x0)."
        )
    check_like(xi, x0, "xi", "ends x0 and x1")


def check_schedule(schedule: object, name: str, least: float | None = None) -> None:
    """Check a function of time: elementwise, finite, with a true rate, nowhere below ``least`` and somewhere above."""
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
    if not torch.isfinite(value).all() or (least is not None and (value < least).any()):
        way = "Divide by nothing that vanishes there."
        if least is not None:
            way = "It is the variance of the noise, whose root is taken, such as lambda t: t * (1 - t)."
        bound = "" if least is None else f" and at least {least:g}"
        raise ValueError(
            f"Expected {name} to be finite{bound} inside (0, 1); got {_short(value)} at t = {_short(t)}. {way}"
        )
    if least is not None and not (value > least).any():
        raise ValueError(
            f"Expected {name} to be more than {least:g} somewhere; got {_short(value)}. For none take {name}=zero."
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
        f"{type(failure).__name__}: {failure}. Write it with torch operations, e.g. lambda t: torch.cos(t); "
        "a ready one is to be called first, e.g. bridge()."
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
