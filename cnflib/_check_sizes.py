"""Checks of what nets and flows are built with: event shapes, layers, widths, features, activations."""

import operator
from collections.abc import Callable, Sequence

from torch import nn

from cnflib._check import check_positive_int, is_int
from cnflib._words import shown


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
    if not several or len(hidden) < least or not all(is_int(n) and n > 0 for n in hidden):
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
