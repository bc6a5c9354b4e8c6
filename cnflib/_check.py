"""Checks at the boundary: each raises a ValueError that names the argument, what was expected and a way out."""

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import MethodType

import torch
from torch import Generator, Tensor, nn
from torch.func import vjp

METHODS = ("encode", "decode", "encode_and_logdet", "decode_and_logdet")
"""What a bijection must have; containers call these."""


def reference(*modules: object) -> Tensor | None:
    """The first floating parameter of the modules, else the first floating buffer; None where there is none."""
    for module in modules:
        if isinstance(module, nn.Module):
            for kind in ("_parameters", "_buffers"):
                if (t := _first(module, kind)) is not None:
                    return t
    return None


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
    """Check that a context, where given, is a tensor with a row for each row of x, on its device; integers too."""
    if context is None:
        return
    if not isinstance(context, Tensor):
        raise ValueError(
            f"Expected context to be a torch.Tensor; got {type(context).__name__}. Use torch.as_tensor(context), for "
            "one label torch.tensor([3]); a generator goes by name: generator=…."
        )
    if context.ndim == 0 or context.shape[0] != x.shape[0]:
        raise ValueError(
            f"Expected context with B = {x.shape[0]} rows, one for each row of {name}; got {tuple(context.shape)}. One "
            f"context shared by all rows: context.expand({x.shape[0]}, *context.shape[1:])."
        )
    if context.device != x.device:
        raise ValueError(
            f"Expected context on device {x.device}, that of {name}; got {context.device}. "
            f'Use context.to("{x.device}").'
        )


def check_labels(context: Tensor) -> None:
    """Refuse labels where a net or a loss wants rows of numbers."""
    if isinstance(context, Tensor) and not context.is_floating_point():
        raise ValueError(
            f"Expected context of shape (B, features), one row of numbers for each point; got {tuple(context.shape)} "
            f"of {context.dtype}. Labels become rows by torch.nn.functional.one_hot(labels, classes).float()."
        )


def check_declared(context: Tensor | None, features: int, owner: str, x: Tensor) -> None:
    """Check that a net gets a context where one was declared, as rows of so many numbers of x's dtype."""
    if context is None and features == 0:
        return
    if features == 0:
        raise ValueError(
            f"Expected no context: this {owner} was built with context=0. Rebuild it with context=features."
        )
    if context is None:
        raise ValueError(
            f"Expected a context of shape (B, {features}); got None. Pass context=… to the call."
        )
    check_labels(context)
    if context.ndim < 2 or context.flatten(1).shape[1] != features:
        way = " One number a row: context[:, None]." if context.ndim == 1 else ""
        raise ValueError(f"Expected context of shape (B, {features}); got {tuple(context.shape)}.{way}")
    if context.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"Expected context of dtype {x.dtype}, that of x; got {context.dtype}. Use context.to(x.dtype)."
        )


def check_bijection(bijection: object, name: str) -> None:
    """Check that something has the four methods of a bijection."""
    if isinstance(bijection, type):
        raise ValueError(
            f"Expected {name} to be a bijection; got the class {bijection.__name__}. Is it to be called, e.g. "
            "Standardize.fit(x)?"
        )
    if hasattr(bijection, "log_prob"):
        raise ValueError(
            f"Expected {name} to be a bijection; got {type(bijection).__name__}, a density. A flow holds one: "
            "flow.bijection; flow.after(bijection) puts another in front; the order is Flow(bijection, base)."
        )
    missing = [method for method in METHODS if not callable(getattr(bijection, method, None))]
    short = [m for m in METHODS if m not in missing and not _takes_three(getattr(bijection, m))]
    if short:
        raise ValueError(
            f"Expected the methods of {name} to be called as {short[0]}(x, context, generator); those of "
            f"{type(bijection).__name__} take fewer. Write def {short[0]}(self, x, context=None, generator=None)."
        )
    if missing:
        raise ValueError(
            f"Expected {name} to be a bijection, with the methods {', '.join(METHODS)}; {type(bijection).__name__} has "
            f"no {', '.join(missing)}. Of a vector field: CNF(field). One's own: a subclass of cnflib.Bijection."
        )


def _takes_three(method: Callable[..., object]) -> bool:
    """Whether a method can be called with three arguments; that of a class is looked at once."""
    if isinstance(method, MethodType):
        return _takes(method.__func__, 4)
    return takes(method, 3)


def check_call(bijection: nn.Module, x: Tensor, context: Tensor | None) -> None:
    """Check what a bijection is called with: data of its event, dtype and device, and a row of context for each."""
    if bijection.channels is None:
        check_event(x, bijection.event_shape)
    else:
        check_axis(x, bijection.channels)
    check_like(x, reference(bijection), "x", type(bijection).__name__)
    check_context(context, x)


def check_logdet(logdet: Tensor, rows: Tensor, bijection: object) -> None:
    """Check that a log-determinant is a number for each row, as ``rows`` has one."""
    if not isinstance(logdet, Tensor) or logdet.shape != rows.shape[:1]:
        got = tuple(logdet.shape) if isinstance(logdet, Tensor) else type(logdet).__name__
        way = "logdet.flatten(1).sum(1)" if isinstance(logdet, Tensor) and logdet.ndim > 1 else None
        raise ValueError(
            f"Expected {type(bijection).__name__} to return a log-determinant of shape {tuple(rows.shape[:1])}, one "
            f"number a row; got {got}. "
            + (
                f"Sum over the event: {way}."
                if way
                else "The same for all rows: x.new_full((len(x),), value)."
            )
        )


def check_draws(z: Tensor, n: int, density: object) -> None:
    """Check that what a density drew are n events."""
    expected = (n, *density.event_shape)
    if not isinstance(z, Tensor) or z.shape != expected:
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"Expected the base to draw points of shape {expected}; got {got}. Look at its sample(n)."
        )


def check_log_prob(log_prob: Tensor, x: Tensor) -> None:
    """Check that the log-density of a base is a number for each row of x."""
    if not isinstance(log_prob, Tensor) or log_prob.shape != x.shape[:1]:
        got = tuple(log_prob.shape) if isinstance(log_prob, Tensor) else type(log_prob).__name__
        raise ValueError(
            f"Expected the base to give a log-density of shape {tuple(x.shape[:1])}, one number a row; got {got}. Sum "
            "over the event in its log_prob: value.flatten(1).sum(1)."
        )


def check_draw(n: int, context: Tensor | None) -> int:
    """Check what a density is sampled with; the number of points as an int."""
    if isinstance(context, Generator):
        raise ValueError(
            "Expected context to be a tensor or None; got a Generator. Pass it by name: generator=…."
        )
    if isinstance(n, tuple | list | torch.Size):
        raise ValueError(
            f"Expected n to be a positive int; got {n!r}. Batches of shapes like this are drawn by "
            "cnflib.adapters.given(flow).sample(shape)."
        )
    return check_positive_int(n, "n")


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
            "checkpoints do not pass through them. Use Fixed(steps)."
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


_takes = lru_cache(maxsize=256)(takes)


def check_finite(x: Tensor, name: str) -> None:
    finite = torch.isfinite(x)
    if not finite.all():
        rows = (~finite.flatten(1)).any(1).sum().item() if x.ndim > 1 else (~finite).sum().item()
        raise ValueError(
            f"Expected finite {name}; got NaN or inf in {rows} of {x.shape[0]} rows. "
            f"Drop or repair them: {name}[torch.isfinite({name}).flatten(1).all(1)]."
        )


def check_positive_int(n: int, name: str) -> int:
    """The number as an int, where it is a positive one; NumPy's integers are welcome."""
    try:
        value = operator.index(n)
    except TypeError:
        value = 0
    if isinstance(n, bool) or value < 1:
        raise ValueError(f"Expected {name} to be a positive int; got {n!r}.")
    return value


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
            "maf(dim=1, transform=RationalQuadratic())."
        )


def check_transform(transform: object) -> None:
    """Check that a layer was given a family of maps, not the class that makes one."""
    if isinstance(transform, type):
        raise ValueError(
            f"Expected transform to be a family of maps; got the class {transform.__name__}. Call it: "
            f"{transform.__name__}()."
        )
    methods = [callable(getattr(transform, name, None)) for name in ("encode", "decode")]
    if not isinstance(getattr(transform, "parameters", None), int) or not all(methods):
        raise ValueError(
            f"Expected transform to be an Elementwise, like Affine() or an object with parameters, encode and decode; "
            f"got {transform!r}."
        )


def check_bound(bound: float, way: str) -> None:
    """Check that a bound is a positive, finite number."""
    if not isinstance(bound, int | float) or not 0 < bound < math.inf:
        raise ValueError(f"Expected bound to be a number > 0 and finite; got {bound!r}. {way}")


def event_shape(
    dim: int | tuple[int, ...] | None, shape: int | tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """The event shape from ``dim=`` or ``shape=``, of which exactly one is given; a tuple is a shape by either name."""
    if (dim is None) == (shape is None):
        raise ValueError(f"Expected exactly one of dim and shape; got dim={dim}, shape={shape}.")
    name = "dim" if shape is None else "shape"
    given = dim if shape is None else shape
    several = isinstance(given, Sequence) and not isinstance(given, str)
    sizes = tuple(given) if several else (given,)
    if not sizes:
        raise ValueError(
            "Expected a shape of at least one axis; got (). For scalar data use dim=1 and x[:, None]."
        )
    return tuple(check_positive_int(size, f"each size in {name}" if several else name) for size in sizes)


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
