"""The one place that makes vector fields uniform: ``f(t, x)`` and ``f(t, x, context)`` become one callable."""

import inspect
from collections.abc import Callable
from types import FunctionType
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from cnflib._words import batched, described

__all__ = ["Uniform", "called", "takes", "uniform"]

CALLED = (
    "A field is called f(t, x), or f(t, x, context), with x of shape (B, *event) and t of shape () in a solve, (B,) in "
    "a loss. A net of another order is wrapped: cnflib.adapters.time_second(net) calls net(x, t) with t of shape (B,)."
)


class Uniform:
    """A field as ``f(t, x, context=None)``, whatever of the two ways it is written; ``field`` is the original.

    It is made anew for every solve, and ``found`` is what this solve has found out of the field.
    """

    __slots__ = ("field", "found", "needs_context", "takes_context")

    def __init__(self, field: Callable[..., Tensor], takes_context: bool, needs_context: bool) -> None:
        self.field = field
        self.found: dict[str, object] = {}
        self.takes_context = takes_context
        self.needs_context = needs_context

    def __call__(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        if getattr(t, "ndim", 0) == 1 and 1 < x.shape[0] == x.shape[-1] and not torch.compiler.is_compiling():
            self._keeps_rows(t, x, context)
        try:
            if context is None and not self.needs_context:
                return self.field(t, x)
            if self.takes_context:
                return self.field(t, x, context)
        except (IndexError, RuntimeError, TypeError) as error:
            if not torch.compiler.is_compiling() and (reason := self._reason(error, t, x, context)):
                raise ValueError(reason) from error
            raise
        raise ValueError(
            f"Expected no context, as the field {called(self.field)} is called f(t, x); got one of shape "
            f"{tuple(context.shape)}. Give it a third argument: f(t, x, context)."
        )

    def _reason(self, error: Exception, t: Tensor, x: Tensor, context: Tensor | None) -> str:
        """The reason of an error, where it is known; where not, the error gets a note of how a field is called."""
        fault = self._fault(t, x, context, f"{type(error).__name__}: {error}")
        if not fault and CALLED not in getattr(error, "__notes__", ()):
            error.add_note(CALLED)
        return fault

    def _keeps_rows(self, t: Tensor, x: Tensor, context: Tensor | None) -> None:
        """Refuse a field that takes times of rows for those of columns, where as many of both would let it pass."""
        if "keeps rows" in self.found:
            return
        self.found["keeps rows"] = True
        rows = torch.arange(2 if x.shape[-1] != 2 else 3, device=x.device) % x.shape[0]
        part, c = x[rows], None if context is None else context[rows]
        if not self._runs(t[rows], part, c, part) and self._runs(t[0], part, c, part):
            raise ValueError(self._one_shape("(B,)", "()", "its times are those of columns"))

    @torch.no_grad()
    def _runs(self, first: Tensor, second: Tensor, context: Tensor | None, x: Tensor) -> bool:
        """Whether the field, called with these two, returns something of the shape of x."""
        try:
            value = self.field(
                first, second, *(() if context is None and not self.needs_context else (context,))
            )
        except Exception:
            return False
        return getattr(value, "shape", None) == x.shape

    def _fault(self, t: Tensor, x: Tensor, context: Tensor | None, said: str) -> str:
        """What the user is told of a field that failed, where the reason can be found."""
        event, name = getattr(self.field, "shape", None), called(self.field)
        if isinstance(event, tuple) and x.shape[1:] != event:
            return f"Expected x of shape {batched(event)}, that of the field {name}; got {tuple(x.shape)}."
        if "not require grad" in said or "requires_grad_()" in said:  # from torch.autograd.grad
            return (
                f"Expected field to run without gradients, as in sample, and inside of torch.func transforms, as in "
                f"log_prob; {name} does not, most likely because of torch.autograd.grad ({said}). The gradient of a "
                "potential U that runs everywhere is torch.func.grad(lambda y: U(y).sum())(x)."
            )
        if context is None and self.needs_context:
            return (
                f"Expected a context, as {name} has a third argument without a default and fails where it is None "
                f"({said}). Pass context=…, or let the argument default to None."
            )
        if not isinstance(t, Tensor) or t.ndim > 1 or self._runs(t, x, context, x):  # memory may have run out
            return ""
        if self._runs(x, t.expand(x.shape[0]), context, x):
            return (
                f"Expected field to be called f(t, x); {name} fails so and runs as f(x, t) ({said}). Wrap it: "
                "cnflib.adapters.time_second(net)."
            )
        other = t.expand(x.shape[0]) if t.ndim == 0 else t[:1].reshape(())
        if not self._runs(other, x, context, x):
            return ""
        return self._one_shape(*(("()", "(B,)") if t.ndim == 0 else ("(B,)", "()")), said)

    def _one_shape(self, got: str, wanted: str, said: str) -> str:
        return (
            f"Expected field to take t of shape () in a solve and of shape (B,) in a loss; {called(self.field)} fails "
            f"at shape {got} and runs at {wanted} ({said}). Let t.reshape(-1, 1) be a column for both, expanded by "
            ".expand(len(x), 1), or wrap the net: cnflib.adapters has time_first, time_second and time_as_feature."
        )


def uniform(field: Callable[..., Tensor]) -> Uniform:
    """The field as one callable ``f(t, x, context=None)``.

    Without a context it is called ``f(t, x)``, with one ``f(t, x, context)``; only where a third parameter is required
    is it called with None. The signature is looked for through compiled and parallel wrappers.
    """
    if isinstance(field, Uniform):
        return field
    inner = _unwrapped(field)
    own = not isinstance(inner, nn.Module) or "forward" in inner.__dict__
    if hasattr(type(inner), "decode_and_logdet") or hasattr(type(inner), "rsample_and_log_prob"):
        raise ValueError(
            f"Expected field to be a function f(t, x) or f(t, x, context); got {type(inner).__name__}, a flow or "
            "bijection. The field of a CNF is cnf.field, of its flow flow.bijection.field; layers follow each other in "
            "Chain(*layers)."
        )
    known = callable(inner) and not isinstance(inner, type)
    two, three = _accepts(inner if own else type(inner)) if known else (False, False)
    if not two and not three:
        raise ValueError(
            f"Expected field to be a function f(t, x) or f(t, x, context), or a module like MLP(dim); got "
            f"{described(field)}. A class is to be called first; a net that takes other arguments is wrapped by "
            "cnflib.adapters: time_first(net), time_second(net), time_as_feature(net)."
        )
    return Uniform(field, takes_context=three, needs_context=not two)


@torch.compiler.assume_constant_result  # dynamo does not trace signatures
def _accepts(field: Callable[..., Tensor] | type[nn.Module]) -> tuple[bool, bool]:
    """Whether a field, or the modules of a class, can be called with two, and with three, positional arguments."""
    if isinstance(field, type):
        call, known, selves = field.forward, _OF_CLASSES, 1
    else:
        call, known, selves = field.forward if isinstance(field, nn.Module) else field, _OF_FUNCTIONS, 0
    if not isinstance(call, FunctionType):
        return takes(call, 2), takes(call, 3)
    if call not in known:
        known[call] = takes(call, 2 + selves), takes(call, 3 + selves)
    return known[call]


# What was found of functions and of classes: a signature takes longer to read than a small net to call.
_OF_FUNCTIONS: WeakKeyDictionary[object, tuple[bool, bool]] = WeakKeyDictionary()
_OF_CLASSES: WeakKeyDictionary[object, tuple[bool, bool]] = WeakKeyDictionary()


def takes(function: Callable[..., object], count: int, *names: str) -> bool:
    """Whether a function can be called with so many positional arguments and these names, as its signature tells."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count, **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _unwrapped(field: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The module inside of what torch.compile and the parallel wrappers make of it."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if hasattr(field, "_orig_mod"):
            field = field._orig_mod
        elif isinstance(field, parallel):
            field = field.module
        else:
            return field


def called(field: Callable[..., Tensor]) -> str:
    """The name of a field in a message."""
    inner = _unwrapped(field)
    return getattr(inner, "__name__", type(inner).__name__)
