"""Checks at the boundary: each raises a ValueError that names the argument, what was expected and a way out."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vjp


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
            f"Expected {name} of shape {batched(shape)}; got {tuple(x.shape)}. {_way_out(x, shape, name)}"
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


def check_context(context: Tensor | None, x: Tensor, name: str = "x") -> None:
    """Check that a context, where given, has dtype, device and batch size of x."""
    if context is None:
        return
    check_labels(context)
    check_floating(context, "context")
    check_like(context, x, "context", name)
    if context.ndim < 2 or context.shape[0] != x.shape[0]:
        each = context.shape == x.shape[:1]
        way = "One number a row" if each else "One context shared by all rows"
        call = "[:, None]" if each else f".expand({x.shape[0]}, -1)"
        raise ValueError(
            f"Expected context of shape (B, features) with B = {x.shape[0]}, one row for each row of {name}; got "
            f"{tuple(context.shape)}. {way}: context{call}."
        )


def check_labels(context: Tensor) -> None:
    """Refuse labels where a net or a loss wants rows of numbers."""
    if isinstance(context, Tensor) and not context.is_floating_point():
        raise ValueError(
            f"Expected context of shape (B, features), one row of numbers for each point; got {tuple(context.shape)} "
            f"of {context.dtype}. Labels become rows by torch.nn.functional.one_hot(labels, classes).float()."
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


def batched(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(["B", *map(str, shape)]) + ")"


def _way_out(x: Tensor, shape: tuple[int, ...], name: str) -> str:
    if x.shape == shape:
        return f"Add a batch dimension: {name}[None]."
    if x.ndim == 1 and shape == (1,):
        return f"Add the event dimension: {name}[:, None]."
    if x.ndim > 1 and x.shape[1:].numel() == torch.Size(shape).numel():
        return f"The sizes agree after {name}.reshape(-1, {', '.join(map(str, shape))})."
    return "Rebuild the flow with the event shape of your data, or select the columns it was built for."
