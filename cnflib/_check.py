"""Checks at the boundary: each raises a ValueError that names the argument, what was expected and a way out.

Here are those of calls: points, contexts, draws, and the objects that are called. Those of vector fields are in
``_check_field``, those of sizes that a constructor takes in ``_check_sizes``.
"""

import inspect
import math
import operator
from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Generator, Tensor, nn

from cnflib._words import Shape, batched, described, shown, tensor_of

Context = Tensor | None
Source = Generator | None

ROWS = "One number a row, e.g. value.flatten(1).sum(1)."

METHODS = ("encode", "decode", "encode_and_logdet", "decode_and_logdet")
"""What a bijection must have; containers call these."""


def reference(*modules: object) -> Tensor | None:
    """The first floating parameter of the modules, else the first floating buffer; None where there is none.

    It does not call torch's own walk over a module, which would cost ten times as much at every call.
    """
    for module in modules:
        for kind in ("_parameters", "_buffers"):
            waiting = [module] if isinstance(module, nn.Module) else []
            while waiting:
                if (part := waiting.pop()) is None:  # a part that was set to None
                    continue
                for t in getattr(part, kind).values():
                    if t is not None and t.is_floating_point():
                        return t
                waiting += list(part._modules.values())[::-1]
    return None


def event_of(bijection: object, x: Tensor) -> Shape:
    """The event that a bijection takes: its own, or that of x with the bijection's number of channels."""
    channels = getattr(bijection, "channels", None)
    if channels is None:
        return getattr(bijection, "event_shape", None)
    return (channels, *getattr(x, "shape", ())[2:])


def rearranged(bijection: object, shape: tuple[int, ...], method: str) -> tuple[int, ...]:
    """The shape that an event has on the other side of a bijection, by a method of it; the same if it has none."""
    return getattr(bijection, method, lambda shape: shape)(shape)


def eager(x: Tensor) -> bool:
    """Whether Python may look at x's values: not in torch.compile, torch.func or the capture of a CUDA graph."""
    if torch.compiler.is_compiling() or torch.func.debug_unwrap(x) is not x:
        return False
    return not x.is_meta and not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def rounding(columns: Tensor) -> Tensor:
    """The deviation that rounding alone gives each column of rows; that of float32 where all its numbers are such."""
    single = (columns == columns.float()).all(0)
    half, full = torch.finfo(torch.float32).eps / 2, torch.finfo(columns.dtype).eps
    return columns.abs().mean(0) * torch.where(single, half, full)


def check_call(
    x: Tensor, shape: Shape, context: Context, owner: object, name: str = "x", generator: Source = None
) -> None:
    """Check what a map is called with: points of its event, dtype and device, and rows of context."""
    check_event(x, shape, name)
    check_like(x, reference(owner), name, type(owner).__name__)
    check_context(context, x, name)
    check_generator(generator)


def check_floating(x: Tensor, name: str) -> None:
    """Check that x is a tensor of a floating dtype."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError(
            f"Expected {name} to be a tensor of a floating dtype; got "
            f"{x.dtype if isinstance(x, Tensor) else described(x)}. Use {tensor_of(x, name)}, and {name}.float() for "
            "integers."
        )


def check_event(x: Tensor, shape: Shape, name: str = "x") -> None:
    r"""Check that x is floating, of shape (B, \*shape); with ``shape=None`` of any (B, \*event)."""
    check_floating(x, name)
    if x.ndim < 2 if shape is None else x.shape[1:] != shape or x.ndim == 0:
        raise ValueError(
            f"Expected {name} of shape {batched(shape)}; got {tuple(x.shape)}. {_way_out(x, shape, name)}"
        )


def _way_out(x: Tensor, shape: Shape, name: str) -> str:
    if shape is None:
        return f"Add the missing dimension: {name}[None] for one point, {name}[:, None] for B numbers."
    if len(shape) > 1 and x.ndim == len(shape) + 1 and x.shape[-1] == shape[0] != x.shape[1]:
        return f"Channels go first: {name}.movedim(-1, 1)."
    if x.shape == shape:
        return f"Add a batch dimension: {name}[None]."
    if x.ndim == 1 and shape == (1,):
        return f"Add the event dimension: {name}[:, None]."
    if x.ndim > 1 and x.shape[1:].numel() == math.prod(shape):
        return f"The sizes agree after {name}.reshape(-1, {', '.join(map(str, shape))})."
    if x.ndim > len(shape) + 1 and x.shape[-len(shape) :] == shape:
        return f"All rows along one axis: {name}.flatten(0, {-len(shape) - 1})."
    return "Rebuild the flow with the event shape of your data, or select the columns it was built for."


def check_like(x: Tensor, like: Tensor | None, name: str, owner: str) -> None:
    """Check that x has the dtype and device of ``like``, a tensor of the owner."""
    if like is not None and (x.dtype != like.dtype or x.device != like.device):
        raise ValueError(
            f"Expected {name} of dtype {like.dtype}, that of the {owner}, on device {like.device}; got {x.dtype} on "
            f'{x.device}. Move one of the two: {name}.to({like.dtype}).to("{like.device}"), or the {owner}.'
        )


def check_context(context: Tensor | None, x: Tensor, name: str = "x") -> None:
    """Check that a context, where given, is a tensor with a row for each row of x; of integers too."""
    if context is not None and not (isinstance(context, Tensor) and context.shape[:1] == x.shape[:1]):
        raise ValueError(
            f"Expected context to be a tensor with B = {len(x)} rows, one for each row of {name}; got "
            f"{described(context)}. {_way_to_rows(context, len(x))}"
        )


def _way_to_rows(context: object, n: int) -> str:
    if isinstance(context, int | float):
        seed = "generator=torch.Generator().manual_seed(0)"
        return f"Of a number: torch.full(({n}, 1), {float(context)}); a seed goes by name: {seed}."
    if not isinstance(context, Tensor):
        return f"Use {tensor_of(context, 'context')}; a generator goes by name: generator=…."
    if context.shape[:1] in ((), (1,)):
        return f"One context for all rows: context.expand({n}, *context.shape[1:])."
    if context.ndim > 1:
        return (
            "Select its rows as those of the points were, context[rows], or repeat each by repeat_interleave."
        )
    return "The numbers of one row: context[None]" + (f".expand({n}, -1)." if n > 1 else ".")


def row_each(context: Tensor | None, n: int) -> Tensor | None:
    """A context with one row for each of n points: as it is, or its only row repeated."""
    if context is None:
        return None
    if not isinstance(context, Tensor) or context.shape[:1] not in ((1,), (n,)):
        raise ValueError(
            f"Expected context to be a tensor of n = {n} rows, one for each point, or of 1 row for all; got "
            f"{described(context)}. {_way_to_rows(context, n)} Many points for each of several rows: "
            "cnflib.adapters.given(flow, context).sample((n,))."
        )
    return context if context.shape[0] == n else context.repeat(n, *[1] * (context.ndim - 1))


def check_labels(context: Tensor) -> None:
    """Refuse labels where a net or a loss wants rows of numbers."""
    if isinstance(context, Tensor) and not context.is_floating_point():
        column = "[:, 0]" if context.ndim > 1 else ""
        raise ValueError(
            f"Expected context of shape (B, features), one row of floating numbers for each point; got "
            f"{tuple(context.shape)} of {context.dtype}. {'Of numbers context.float(). ' * bool(column)}Labels become "
            f"rows by torch.nn.functional.one_hot(context{column}, classes).float()."
        )


def check_declared(context: Tensor | None, features: int, owner: str, x: Tensor, rows: bool = False) -> None:
    """Check that a net gets a context where one was declared, as so many numbers of x's dtype, for each of its rows."""
    if (context is None) == (features > 0):
        raise ValueError(
            f"Expected {f'a context of shape (B, {features})' if features else 'no context'}; got "
            f"{described(context)}: this {owner} was built with context={features}. Rebuild it with context=features, "
            "or pass context=… to the call. A part of a flow that needs none, where others do: "
            "cnflib.adapters.ignore_context(part)."
        )
    if context is None:
        return
    check_labels(context)
    if rows:
        check_context(context, x)
    if context.ndim < 2 or context.flatten(1).shape[1] != features:
        raise ValueError(
            f"Expected context of shape (B, {features}), as this {owner} was built with context={features}; got "
            f"{tuple(context.shape)}. "
            + (
                "One number a row is context[:, None]."
                if context.ndim < 2
                else "Rebuild it for as many numbers a row."
            )
        )
    if context.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"Expected context of dtype {x.dtype}, that of x; got {context.dtype}. Use context.to(x.dtype)."
        )


def check_returned(value: Tensor, shape: tuple[int, ...], owner: object, what: str, way: str = ROWS) -> None:
    """Check that what somebody's function returned is a tensor of a shape: another one would broadcast in silence."""
    if not isinstance(value, Tensor) or value.shape != shape:
        raise ValueError(
            f"Expected {_named(owner)} to return {what} of shape {tuple(shape)}; got {described(value)}. {way}"
        )


def _named(owner: object) -> str:
    """A string itself, the class of anything else; of a density that was wrapped its own."""
    if isinstance(owner, str):
        return owner
    return owner._get_name() if isinstance(owner, nn.Module) else type(owner).__name__


def check_plain(state: Iterable[Tensor] | None = None) -> None:
    """Refuse tensors that a transform of torch.func has wrapped; without tensors, refuse to be inside of one."""
    if torch.compiler.is_exporting() or _is_wrapped(state):
        raise ValueError(
            "Expected a call outside of torch.func transforms (grad, vmap, jvp) and of torch.export: adaptive steps, "
            "TorchDiffEq, the adjoint and checkpoints do not pass through them, also where they wrap parameters alone. "
            "Use Fixed(steps), or for derivatives in x torch.autograd.grad(…, create_graph=True)."
        )


def _is_wrapped(state: Iterable[Tensor] | None) -> bool:
    if not torch._C._are_functorch_transforms_active():
        return False
    return state is None or any(torch.func.debug_unwrap(y) is not y for y in state)


def check_finite(x: Tensor, name: str) -> None:
    """Check that every number in x is finite."""
    if not (finite := torch.isfinite(x)).all():
        rows = finite.reshape(len(x), -1).all(1) if x.ndim else finite.reshape(1)
        raise ValueError(
            f"Expected finite {name}; got NaN or inf in {(~rows).sum().item()} of {len(rows)} rows. Drop or repair "
            "them: x[torch.isfinite(x).flatten(1).all(1)]."
        )


def check_module(module: object) -> None:
    """Check that something is a module, not its parameters."""
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"Expected module to be a torch.nn.Module, like a flow; got {described(module)}. Pass flow, not "
            "flow.parameters(); of an average, ema.module."
        )


def check_bijection(bijection: object, name: str) -> None:
    """Check that something has the four methods of a bijection."""
    missing = [method for method in METHODS if not _takes_three(getattr(bijection, method, None))]
    if missing or isinstance(bijection, type) or hasattr(bijection, "log_prob"):
        raise ValueError(
            f"Expected {name} to be a bijection, with the methods {', '.join(METHODS)} and no log_prob, each called as "
            f"encode(x, context, generator); got {described(bijection)}{' without ' * bool(missing)}"
            f"{', '.join(missing)}{' of three arguments' * bool(missing)}. A class is to be called, e.g. "
            "Standardize.fit(x); layers in a list: Chain(*layers); a flow holds one: flow.bijection; of a field: "
            "CNF(field); one's own: a subclass of cnflib.Bijection. The order is Flow(bijection, base)."
        )


def _takes_three(method: object) -> bool:
    """Whether something can be called with x, context and generator, in this order; one without a signature may."""
    try:
        inspect.signature(method).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def check_flow(flow: object, needs: str = "log_prob") -> None:
    """Check that something has a log-density, like a flow, or another attribute of one."""
    if isinstance(flow, type) or not hasattr(flow, needs):
        raise ValueError(
            f"Expected flow to be a Flow; got {described(flow)}. It comes first; of a bijection: Flow(bijection, "
            "StandardNormal(shape))."
        )


def check_rows(x: Tensor, name: str) -> None:
    """Check that something is a tensor with an axis of rows."""
    if not isinstance(x, Tensor) or x.ndim == 0:
        raise ValueError(
            f"Expected {name} to be a tensor of B rows; got {described(x)}. Use {tensor_of(x, name)}; of one number: "
            "torch.tensor([3])."
        )


def check_draw(n: int, context: Tensor | None = None, generator: Generator | None = None) -> int:
    """Check what a density is sampled with; the number of points as an int."""
    check_generator(generator)
    if not isinstance(context, Tensor | None):
        raise ValueError(
            f"Expected context to be a tensor of n rows, or of 1 row for all, or None; got {described(context)}. "
            f"{_way_to_rows(context, 1)}"
        )
    return check_positive_int(n, "n", " Batches of a shape: cnflib.adapters.given(flow).sample(shape).")


def check_generator(generator: Generator | None) -> None:
    """Refuse a seed, or a generator of NumPy, where torch's generator is taken."""
    if not isinstance(generator, Generator | None):
        raise ValueError(
            f"Expected generator to be a torch.Generator or None; got {generator!r}. From a seed: "
            "torch.Generator().manual_seed(0), on a GPU torch.Generator(device)."
        )


def check_positive_int(n: int, name: str, way: str = "", least: int = 1) -> int:
    """The number as an int, where it is one of at least so much; integers of NumPy and of torch are welcome."""
    if not is_int(n) or operator.index(n) < least:
        raise ValueError(
            f"Expected {name} to be {'a positive int' if least == 1 else f'an int >= {least}'}; got {shown(n)}.{way}"
        )
    return operator.index(n)


def is_int(n: object) -> bool:
    if type(n) is int:
        return True
    if isinstance(n, Tensor):
        return n.ndim == 0 and n.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return isinstance(n, Integral) and not isinstance(n, bool)


def check_built(value: object, name: str) -> None:
    """Refuse a class in the place of what it makes."""
    if isinstance(value, type):
        raise ValueError(
            f"Expected {name} to be built; got the class {value.__name__}, which is to be called: {value.__name__}()."
        )


def check_transform(transform: object) -> None:
    """Check that a layer was given a family of maps."""
    check_built(transform, "transform")
    if not isinstance(getattr(transform, "parameters", None), int):
        raise ValueError(
            "Expected transform to be a family of maps, like Affine() or an object with parameters, encode and decode; "
            f"got {described(transform)}."
        )
