"""Checks of what things are built with: numbers, shapes, activations, bijections, flows."""

import inspect
import operator
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from cnflib._words import described, shown

METHODS = ("encode", "decode", "encode_and_logdet", "decode_and_logdet")
"""What a bijection must have; containers call these."""


def event_shape(
    dim: int | tuple[int, ...] | None, shape: int | tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """The event shape from ``dim=`` or ``shape=``, of which exactly one is given; a tuple is a shape by either name."""
    if (dim is None) == (shape is None):
        raise ValueError(f"Expected exactly one of dim and shape; got dim={dim}, shape={shape}.")
    name, value = ("dim", dim) if shape is None else ("shape", shape)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (check_positive_int(value, name),)
    if not value:
        raise ValueError(
            "Expected a shape of at least one axis; got (). For scalar data use dim=1 and x[:, None]."
        )
    return tuple(check_positive_int(size, f"each size in {name}") for size in value)


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


def check_positive_int(n: int, name: str, way: str = "", least: int = 1) -> int:
    """The number as an int, where it is one of at least so much; integers of NumPy and of torch are welcome."""
    if not _is_int(n) or operator.index(n) < least:
        raise ValueError(
            f"Expected {name} to be {'a positive int' if least == 1 else f'an int >= {least}'}; got {shown(n)}.{way}"
        )
    return operator.index(n)


def _is_int(n: object) -> bool:
    if type(n) is int:
        return True
    if isinstance(n, Tensor):
        return n.ndim == 0 and n.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    return isinstance(n, Integral) and not isinstance(n, bool)


def check_features(context: int) -> int:
    """The declared number of context features, 0 or more, as an int."""
    way = " It is the number of features of a row; the context itself is passed to the call."
    return check_positive_int(context, "context", way, least=0)


def check_layers(layers: int, name: str = "layers") -> int:
    """The number of layers of a chain, 0 or more, as an int."""
    return check_positive_int(layers, name, least=0)


def check_widths(hidden: Sequence[int], least: int = 0) -> tuple[int, ...]:
    """The widths of hidden layers as ints, where they are a sequence of positive ones, at least so many."""
    several = hasattr(hidden, "__len__") and getattr(hidden, "ndim", 1) == 1
    if not several or len(hidden) < least or not all(_is_int(n) and n > 0 for n in hidden):
        raise ValueError(
            f"Expected hidden to be a sequence of positive ints, at least {least}; got {hidden!r}. Pass e.g. "
            f"hidden={(64,) * max(least, 2)}."
        )
    return tuple(map(operator.index, hidden))


def made_activation(activation: Callable[[], nn.Module]) -> nn.Module:
    """The activation that a constructor of one makes."""
    try:
        return activation()
    except TypeError as error:
        raise ValueError(
            f"Expected activation to be the constructor of a module, like nn.ReLU; got {shown(activation)}. Pass the "
            "class, not its name, an instance or a function: activation=nn.ReLU, or lambda: nn.LeakyReLU(0.1)."
        ) from error


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
