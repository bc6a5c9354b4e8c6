"""Checks of what an interpolant is made of and asked for: schedules, ends, noise, times, and what a model returns."""

from collections.abc import Callable

import torch
from torch import Tensor

from cnflib._check import check_built, check_context, check_event, check_like, eager, reference
from cnflib._check_field import check_velocity
from cnflib._field import uniform
from cnflib._words import described
from cnflib.interpolants._schedules import with_rate
from cnflib.nets import VectorField

__all__ = ["check_ends", "check_path", "check_schedule", "check_step", "check_time", "evaluate"]


def check_ends(x0: Tensor, x1: Tensor, xi: Tensor | None = None, noisy: bool = False) -> None:
    """Check that the two ends of an interpolant, and the noise of a noisy one, agree in shape, dtype and device."""
    check_event(x0, None, "x0")
    _check_as(x1, x0, "x1", "Both ends of a path lie in one space, and each x1 has its own x0.")
    if noisy:
        _check_as(
            xi, x0, "noise xi", "Draw it with torch.randn_like(x0); a generator goes by name: generator=…."
        )


def _check_as(x: Tensor | None, x0: Tensor, name: str, way: str) -> None:
    """Check that a tensor has shape, dtype and device of x0: any other would be broadcast or cast without a word."""
    if not isinstance(x, Tensor) or (x.shape, x.dtype, x.device) != (x0.shape, x0.dtype, x0.device):
        got = f"{tuple(x.shape)}, {x.dtype} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"Expected {name} of shape {tuple(x0.shape)}, {x0.dtype} on {x0.device}, as x0; got {got}. {way}"
        )


def check_time(t: float | Tensor, x: Tensor) -> Tensor:
    """Check a time in [0, 1], a float or shape () or (B,), and return it as a tensor that broadcasts against x."""
    wrong = isinstance(t, Tensor) and (not t.is_floating_point() or (t.ndim and t.shape != x.shape[:1]))
    if wrong or not hasattr(t, "__float__"):
        raise ValueError(
            f"Expected t to be a number, or of shape () or ({len(x)},), in a floating dtype; got {described(t)} "
            f"{getattr(t, 'dtype', '')}. Of a column pass t.flatten(); labels and a generator go by name: "
            "context=labels, generator=…."
        )
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if eager(t) and not ((t >= 0) & (t <= 1)).all():
        raise ValueError(
            f"Expected t in [0, 1], from base to data; got {t.min().item():g} to {t.max().item():g}. "
            "Divide by the end time, or turn time round with 1 - t."
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


def check_path(interpolant: object, use: str | None = None) -> None:
    """Refuse what is no interpolant, like the class of one or the field; for some uses also one without noise."""
    check_built(interpolant, "interpolant")
    if not hasattr(interpolant, "draw"):
        raise ValueError(
            f"Expected interpolant to be an Interpolant, e.g. Linear(); got {interpolant!r}. "
            "A field comes before it. Of a LearnableInterpolant pass path.interpolant."
        )
    if use and interpolant.gamma2 is None:
        raise ValueError(
            f"Expected an interpolant with noise, {use}; got one without. Take Linear(Parabola()), or "
            "score_from_velocity where an end is Gaussian and drawn independently of the other."
        )


def check_step(
    model: object, path: object, x0: Tensor, context: Tensor | None, use: str | None = None
) -> None:
    """Check what a loss is given, beside what an interpolant checks when it draws, as that x1 is like x0."""
    check_path(path, use)
    check_event(x0, None, "x0")
    check_like(x0, reference(model), "x0", type(model).__name__)
    check_context(context, x0, "x0")


def evaluate(model: VectorField, name: str, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """What a model says at x, checked for its shape."""
    value = uniform(model)(t, x, context)
    check_velocity(value, x, name)
    return value


def check_schedule(schedule: Callable[[Tensor], Tensor], name: str) -> None:
    """Try a function of time at a few times: it must be elementwise, finite, and have a true rate.

    What is handed over as ``gamma`` or ``gamma2`` is the noise γ², which must be at least 0 too, and not always 0.
    """
    check_built(schedule, name)
    like = reference(schedule)
    if torch.compiler.is_compiling() or (like is not None and (like.is_meta or like.dtype.itemsize < 4)):
        return  # nothing to look at, or too few digits for a difference
    t, value, rate, difference = _tried(schedule, name, like)
    if not isinstance(value, Tensor) or value.shape != t.shape:
        raise ValueError(
            f"Expected {name} to act elementwise, with a result of t's shape {tuple(t.shape)}; got {value}. "
            "For a constant: lambda t: torch.full_like(t, 0.5)."
        )
    if not value.isfinite().all() or (name.startswith("gamma") and not (value.min() >= 0 and value.any())):
        raise ValueError(
            f"Expected {name} to be finite, and gamma² to be at least 0 and more than 0 somewhere; got {value} at "
            f"t = {t}. For no noise take None."
        )
    # A step between two of the times: no difference sees it, but the values differ and the rate is 0.
    stepped = (value != value[0]).any() and not rate.any()
    if stepped or not torch.allclose(rate, difference, rtol=1e-2, atol=1e-2 * value.abs().max().item()):
        raise ValueError(
            f"Expected {name} to be differentiable in t; its derivative is {rate} where differences give {difference} "
            f"and values are {value}. Look inside it for detach(), .data, float(t), a step, rounding or a false rate."
        )


def _tried(
    schedule: Callable[[Tensor], Tensor], name: str, like: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Times, and there the schedule, its rate and its difference quotient.

    A function that says neither its dtype nor its device may hold a net of either precision.
    """
    device = torch.device("cpu") if like is None else like.device
    for dtype in (torch.float64, torch.float32) if like is None else (like.dtype,):
        t = torch.linspace(0.07, 0.93, 9, dtype=dtype, device=device)
        step = 1e-6 if dtype == torch.float64 else 1e-3
        try:
            rated = hasattr(schedule, "rate")
            value, rate = (schedule(t), schedule.rate(t)) if rated else with_rate(schedule, t)
            difference = (schedule(t + step) - schedule(t - step)) / (2 * step)
            return t, value, rate.to(difference), difference
        except Exception as error:
            failure = error
    raise ValueError(
        f"Expected {name} to be a function of a tensor t that torch can differentiate; it failed with "
        f"{type(failure).__name__}: {failure}. Write it with torch operations, like lambda t: torch.cos(t), or build a "
        "ready one, like Bridge() or Constant(0.1)."
    ) from failure
