"""The square root of a schedule, safe where it vanishes."""

import torch
from torch import Tensor

__all__ = ["root"]


def root(square: Tensor) -> Tensor:
    r"""The noise :math:`\gamma` from its square, also where rounding has left that a little below 0.

    Where it is 0 so is its gradient, which would be infinite.
    """
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)
