"""Checks at the boundary: each raises a ValueError that names the argument, what was expected and a way out."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import jvp, vjp


def reference(*modules: object) -> Tensor | None:
    """The first floating parameter of the modules, else the first floating buffer; None where there is none."""
    found = (
        _first(module, kind)
        for module in modules
        if isinstance(module, nn.Module)
        for kind in ("_parameters", "_buffers")
    )
    return next((t for t in found if t is not None), None)


def _first(module: nn.Module, kind: str) -> Tensor | None:
    """The first floating tensor of a kind, without torch's own walk, which at every call would cost ten times this."""
    for t in getattr(module, kind).values():
        if t is not None and t.is_floating_point():
            return t
    for child in module._modules.values():
        if child is not None and (t := _first(child, kind)) is not None:
            return t
    return None


def check_floating(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(
            f"Expected {name} to be a torch.Tensor; got {type(x).__name__}. Use torch.as_tensor({name})."
        )
    if not x.is_floating_point():
        raise ValueError(
            f"Expected {name} of a floating dtype; got {x.dtype}. Convert it, e.g. {name}.float()."
        )


def check_event(x: Tensor, shape: tuple[int, ...] | None, name: str = "x") -> None:
    """Check that x is floating, of shape (B, \\*shape); with ``shape=None`` of any (B, \\*event)."""
    check_floating(x, name)
    if shape is None:
        if x.ndim < 2:
            raise ValueError(
                f"Expected {name} of shape (B, *event); got {tuple(x.shape)}. "
                f"Add the missing dimension: {name}[None] for one point, {name}[:, None] for B numbers."
            )
    elif x.shape[1:] != shape or x.ndim == 0:
        raise ValueError(
            f"Expected {name} of shape {_batched(shape)}; got {tuple(x.shape)}. {_way_out(x, shape, name)}"
        )


def check_axis(x: Tensor, size: int, name: str = "x") -> None:
    """Check that x is floating, of shape (B, size, \\*)."""
    if isinstance(x, Tensor) and x.ndim > 2 and x.is_floating_point():
        if x.shape[1] != size:
            raise ValueError(
                f"Expected {name} of shape (B, {size}, *), {size} channels along axis 1; got {tuple(x.shape)}. "
                f"Rebuild the layer for {x.shape[1]} channels, or move the channels there: {name}.movedim(-1, 1)."
            )
    else:
        check_event(x, (size,), name)


def check_like(x: Tensor, like: Tensor | None, name: str, owner: str) -> None:
    """Check that x has the dtype and device of ``like``, a tensor of the owner."""
    if like is None:
        return
    if x.dtype != like.dtype:
        raise ValueError(
            f"Expected {name} of dtype {like.dtype}, that of the {owner}; got {x.dtype}. "
            f"Cast one of the two: {name}.to({like.dtype}), or the {owner} with .to({x.dtype})."
        )
    if x.device != like.device:
        raise ValueError(
            f"Expected {name} on device {like.device}, that of the {owner}; got {x.device}. "
            f'Move one of the two: {name}.to("{like.device}"), or the {owner} with .to("{x.device}").'
        )


def check_ends(x0: Tensor, x1: Tensor) -> None:
    """Check that the two ends of an interpolant agree in shape, dtype and device."""
    check_event(x0, None, "x0")
    check_floating(x1, "x1")
    if x1.shape[1:] != x0.shape[1:] or x1.ndim == 0:
        raise ValueError(
            f"Expected x1 of shape {_batched(tuple(x0.shape[1:]))}; got {tuple(x1.shape)}. The two ends of a path lie "
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


def check_context(context: Tensor | None, x: Tensor, name: str = "x") -> None:
    """Check that a context, where given, has dtype, device and batch size of x."""
    if context is None:
        return
    check_floating(context, "context")
    check_like(context, x, "context", name)
    if context.ndim < 2 or context.shape[0] != x.shape[0]:
        raise ValueError(
            f"Expected context of shape (B, features) with B = {x.shape[0]}, one row for each row of {name}; "
            f"got {tuple(context.shape)}. For one context shared by all rows: context.expand({x.shape[0]}, -1)."
        )


def check_declared(context: Tensor | None, features: int, owner: str) -> None:
    """Check that a context is given exactly where one was declared, with as many features."""
    if features == 0 and context is not None:
        raise ValueError(
            f"Expected no context: this {owner} was built with context=0. Rebuild it with context=features."
        )
    if features > 0 and context is None:
        raise ValueError(
            f"Expected a context of shape (B, {features}); got None. Pass context=… to the call."
        )
    if features > 0 and context.flatten(1).shape[1] != features:
        raise ValueError(f"Expected context of shape (B, {features}); got {tuple(context.shape)}.")


def check_noise(xi: Tensor | None, x0: Tensor) -> None:
    """Check the noise of an interpolant that has some."""
    if xi is None or xi.shape != x0.shape:
        got = None if xi is None else tuple(xi.shape)
        raise ValueError(
            f"Expected noise xi of shape {tuple(x0.shape)}, as gamma2 is not zero; got {got}. "
            "Draw it with torch.randn_like(x0)."
        )
    check_like(xi, x0, "xi", "ends x0 and x1")


def check_velocity(velocity: Tensor, x: Tensor, name: str = "field") -> None:
    """Check that what a field returned at x is a tensor of x's shape."""
    if not isinstance(velocity, Tensor) or velocity.shape != x.shape:
        got = tuple(velocity.shape) if isinstance(velocity, Tensor) else type(velocity).__name__
        raise ValueError(
            f"Expected {name}(t, x, context) to return a tensor of x's shape {tuple(x.shape)}; got {got}. "
            f"The {name} gives one number for each coordinate of x" + (", dx/dt." if name == "field" else ".")
        )


def check_differentiable(
    field: Callable[[Tensor, Tensor, Tensor | None], Tensor], t: Tensor, x: Tensor, context: Tensor | None
) -> None:
    """Refuse a field whose value changes with x where its derivative is exactly zero in every row."""
    t, x = t.detach(), x.detach()
    with torch.no_grad():
        change = field(t, 1.01 * x + 0.01, context) - field(t, x, context)
    if change.any() and not vjp(lambda y: field(t, y, context), x)[1](change)[0].any():
        raise ValueError(
            "Expected field to be differentiable in x; its value changes with x and its derivative is exactly 0. "
            "Look inside it for detach(), .data, torch.no_grad(), rounding, or a sign."
        )


def check_schedule(schedule: object, name: str, least: float | None = None) -> None:
    """Check a function of time: elementwise, finite, with a true rate, nowhere below ``least`` and somewhere above."""
    if torch.compiler.is_compiling():
        return
    t = torch.linspace(0.07, 0.93, 8)
    try:
        known = hasattr(schedule, "rate")
        value, slope = (
            (schedule(t), schedule.rate(t)) if known else jvp(schedule, (t,), (torch.ones_like(t),))
        )
        step = 1e-3
        difference = (schedule(t + step) - schedule(t - step)) / (2 * step)
    except Exception as error:
        raise ValueError(
            f"Expected {name} to be a function of a tensor t that torch can differentiate; it failed with "
            f"{type(error).__name__}: {error}. Write it with torch operations, e.g. lambda t: torch.cos(t)."
        ) from error
    if not isinstance(value, Tensor) or value.shape != t.shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"Expected {name} to act elementwise, with a result of t's shape {tuple(t.shape)}; got {got}. "
            "For a constant: lambda t: torch.full_like(t, 0.5)."
        )
    if not torch.isfinite(value).all() or (least is not None and (value < least).any()):
        bound = "" if least is None else f" of at least {least:g}"
        raise ValueError(
            f"Expected {name} to be finite inside (0, 1){bound}; got {value.tolist()} at t = {t.tolist()}."
        )
    if least is not None and not (value > least).any():
        raise ValueError(
            f"Expected {name} to be more than {least:g} somewhere; got {value.tolist()}. For none take {name}=zero."
        )
    if not torch.allclose(slope, difference, rtol=1e-2, atol=1e-2 * value.abs().max().item()):
        raise ValueError(
            f"Expected {name} to be differentiable in t; its derivative is {slope.tolist()} where differences give "
            f"{difference.tolist()}. Look inside it for detach(), .data, float(t), or a false rate."
        )
    if not known:
        _check_connected(schedule, name)


def _check_connected(schedule: Callable[[Tensor], Tensor], name: str) -> None:
    """Check that a function of time changes by the integral of its derivative; over a step it does not."""
    t = torch.linspace(0.07, 0.93, 1025)
    value, slope = jvp(schedule, (t,), (torch.ones_like(t),))
    missed = (value[1:] - value[0] - torch.cumulative_trapezoid(slope, t)).abs()
    if missed.max() > 0.1 * (value.max() - value.min()) + 1e-4 * value.abs().max():
        raise ValueError(
            f"Expected {name} to be differentiable in t; up to t = {t[missed.argmax() + 1].item():.2f} it changes by "
            f"{missed.max().item():.3g} more or less than its derivative says. Look inside it for a step, like "
            "t > 0.5, or rounding."
        )


def check_time(t: float | Tensor, x: Tensor) -> Tensor:
    """Check a time in [0, 1], a float or shape () or (B,), and return it as a tensor that broadcasts against x."""
    t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
        raise ValueError(f"Expected t of shape () or ({len(x)},); got {tuple(t.shape)}.")
    if eager(t) and not ((t >= 0) & (t <= 1)).all():
        raise ValueError(
            f"Expected t in [0, 1], from base to data; got {t.min().item():g} to {t.max().item():g}. "
            "Divide by the end time, or turn time round with 1 - t."
        )
    return t.reshape(-1, *[1] * (x.ndim - 1))


def eager(x: Tensor) -> bool:
    """Whether Python may look at x's values: not in torch.compile, torch.func or the capture of a CUDA graph."""
    if torch.compiler.is_compiling() or torch.func.debug_unwrap(x) is not x:
        return False
    return not x.is_meta and not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def check_plain(state: Iterable[Tensor]) -> None:
    """Refuse tensors that a transform of torch.func has wrapped."""
    if any(torch.func.debug_unwrap(y) is not y for y in state):
        raise ValueError(
            "Expected a call outside of torch.func transforms (grad, vmap, jvp): adaptive steps, the adjoint and "
            "checkpoints do not pass through them. Use fixed(steps)."
        )


def check_rate(rate: Tensor, x: Tensor) -> None:
    """Check that what a cost returned is a number for each row of x."""
    if not isinstance(rate, Tensor) or rate.shape != x.shape[:1]:
        got = tuple(rate.shape) if isinstance(rate, Tensor) else type(rate).__name__
        raise ValueError(
            f"Expected every cost to return a rate of shape {tuple(x.shape[:1])}, one number a row; got {got}. "
            "Sum over the event: rate.flatten(1).sum(1)."
        )


def check_deterministic(field: object) -> None:
    """Refuse modules that, in training mode, draw random numbers or mix rows."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    modules = field.modules() if isinstance(field, nn.Module) else ()
    found = [m for m in modules if isinstance(m, kinds) and m.training and getattr(m, "p", 1)]
    if found:
        raise ValueError(
            f"Expected field to be a function of each row alone; {type(found[0]).__name__} in training mode draws "
            "random numbers or mixes rows. Call .eval() on it, or build the field without it."
        )


def takes(function: Callable[..., object], count: int) -> bool:
    """Whether a function can be called with so many positional arguments, as far as its signature tells."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def check_finite(x: Tensor, name: str) -> None:
    finite = torch.isfinite(x)
    if not finite.all():
        rows = (~finite.flatten(1)).any(1).sum().item() if x.ndim > 1 else (~finite).sum().item()
        raise ValueError(
            f"Expected finite {name}; got NaN or inf in {rows} of {x.shape[0]} rows. "
            f"Drop or repair them: {name}[torch.isfinite({name}).flatten(1).all(1)]."
        )


def check_positive_int(n: int, name: str) -> None:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"Expected {name} to be a positive int; got {n!r}.")


def check_widths(hidden: Sequence[int], least: int = 0) -> None:
    """Check that the widths of hidden layers are a sequence of positive ints, at least so many."""
    if not isinstance(hidden, Sequence) or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"Expected hidden to be a sequence of positive ints, e.g. (64, 64); got {hidden!r}.")
    if len(hidden) < least:
        layers = "one hidden layer" if least == 1 else f"{least} hidden layers"
        raise ValueError(
            f"Expected at least {layers}; got hidden={hidden!r}. Pass e.g. hidden={(64,) * least}."
        )


def check_features(context: int) -> None:
    """Check that the context a net is built for is a number of features."""
    if not isinstance(context, int) or context < 0:
        raise ValueError(
            f"Expected context to be a number of features, an int >= 0; got {context!r}. For none: context=0."
        )


def check_coordinates(event: tuple[int, ...]) -> None:
    """Refuse an event of one coordinate, of which a coupling has nothing to condition on."""
    if math.prod(event) < 2:
        raise ValueError(
            f"Expected at least two coordinates for a coupling; got shape {event}. In 1-D use ffjord(dim=1) or "
            "maf(dim=1, transform=rational_quadratic())."
        )


def check_transform(transform: object) -> None:
    """Check that a layer was given a family of maps, not the function that makes one."""
    if not isinstance(getattr(transform, "parameters", None), int):
        got = getattr(transform, "__name__", repr(transform))
        raise ValueError(
            f"Expected transform to be an Elementwise like affine(); got {got}. Is it to be called first?"
        )


def event_shape(dim: int | None, shape: int | tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The event shape from ``dim=`` or ``shape=``, of which exactly one is given."""
    if (dim is None) == (shape is None):
        raise ValueError(f"Expected exactly one of dim and shape; got dim={dim}, shape={shape}.")
    sizes = (dim,) if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
    for size in sizes:
        check_positive_int(size, "dim" if shape is None else "each size in shape")
    if not sizes:
        raise ValueError(
            "Expected a shape of at least one axis; got (). For scalar data use dim=1 and x[:, None]."
        )
    return sizes


def _batched(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["B", *map(str, shape)]) + ")"


def _way_out(x: Tensor, shape: tuple[int, ...], name: str) -> str:
    if x.shape == shape:
        return f"Add a batch dimension: {name}[None]."
    if x.ndim == 1 and shape == (1,):
        return f"Add the event dimension: {name}[:, None]."
    if x.ndim > 1 and x.shape[1:].numel() == torch.Size(shape).numel():
        return f"The sizes agree after {name}.reshape(-1, {', '.join(map(str, shape))})."
    return "Rebuild the flow with the event shape of your data, or select the columns it was built for."
