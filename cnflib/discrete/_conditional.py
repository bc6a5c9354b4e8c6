"""Parameters of a layer that are constants, or constants plus a net of the context."""

import math
from collections.abc import Sequence

from torch import Tensor, cat, nn

from cnflib._check import check_declared
from cnflib.nets import Conditioner

__all__: list[str] = []

UNIT = math.log(math.e - 1)
"""The number of which softplus is 1."""


def conditioner(constants: Sequence[Tensor], hidden: Sequence[int], context: int) -> nn.Module | None:
    """The net that adds to the constants, at first zero; None where no context is declared."""
    return Conditioner(context, sum(map(len, constants)), hidden) if context else None


def conditioned(layer: nn.Module, constants: Sequence[Tensor], context: Tensor | None) -> list[Tensor]:
    """Each constant of shape (k,) as (1, k) for all rows; with the layer's net of the context as (B, k), row by row."""
    check_declared(context, layer.context, type(layer).__name__, constants[0])
    theta = cat(tuple(constants))[None]
    theta = theta if layer.net is None else theta + layer.net(context)
    return list(theta.split([len(constant) for constant in constants], 1))
