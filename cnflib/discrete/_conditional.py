"""Parameters of a layer that are constants, or constants plus a net of the context."""

from collections.abc import Sequence

from torch import Tensor, cat, nn

from cnflib._check import (
    check_context,
    check_declared,
    check_event,
    check_features,
    check_like,
    reference,
)
from cnflib.nets import Conditioner

__all__: list[str] = []


def conditioner(constants: Sequence[Tensor], hidden: Sequence[int], context: int) -> nn.Module | None:
    """The net that adds to the constants, at first zero; None where no context is declared."""
    check_features(context)
    return Conditioner(context, sum(map(len, constants)), hidden) if context else None


def conditioned(constants: Sequence[Tensor], net: nn.Module | None, context: Tensor | None) -> list[Tensor]:
    """Each constant of shape (k,) as (1, k) for all rows; with a net of the context as (B, k), row by row."""
    theta = cat(tuple(constants))[None]
    theta = theta if net is None else theta + net(context)
    return list(theta.split([len(constant) for constant in constants], 1))


def check_call(layer: nn.Module, x: Tensor, context: Tensor | None, name: str) -> None:
    """Check what a layer with an event shape and a number of context features is called with."""
    owner = type(layer).__name__
    check_event(x, layer.shape, name)
    check_like(x, reference(layer), name, owner)
    check_context(context, x, name)
    check_declared(context, layer.context, owner)
