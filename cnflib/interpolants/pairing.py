r"""Pairings: the joint law of the two ends :math:`(x_0, x_1)` of an interpolant.

Papers call it a coupling; in this library a coupling is a layer.
"""

from collections.abc import Callable

from torch import Generator, Tensor

__all__ = ["Pairing", "independent"]

Pairing = Callable[..., tuple[Tensor, Tensor]]
"""``pairing(x0, x1, generator=None) -> (x0, x1)``: both of shape ``(B, *event)``, paired row by row."""


def independent() -> Pairing:
    r"""The product law :math:`x_0 \perp x_1`: rows drawn independently are paired as they come.

    Example:
        >>> import torch
        >>> x0, x1 = independent()(torch.zeros(3, 2), torch.ones(3, 2))
    """
    return _independent


def _independent(x0: Tensor, x1: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    return x0, x1
