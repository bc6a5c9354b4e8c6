"""Probes of a trace: random vectors of mean 0 and covariance I."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cnflib._random import source
from cnflib._settings import compact_repr

__all__ = ["Gaussian", "Probe", "Rademacher"]

Probe = Callable[[tuple[int, ...], Tensor, Generator | None], Tensor]
r"""``probe(shape, like, generator)``: entries of mean 0 and variance 1, with dtype and device of ``like``."""


@dataclass(frozen=True, repr=False)
class Rademacher:
    r"""Independent signs :math:`\pm 1`: the least variance of all probes with independent entries.

    Example:
        >>> import torch
        >>> Rademacher()((2, 3), torch.zeros(1)).abs()
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    __repr__ = compact_repr

    def __call__(self, shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw signs of a shape, with dtype and device of ``like``."""
        return torch.randint(0, 2, shape, **source(generator), dtype=like.dtype, device=like.device) * 2 - 1


@dataclass(frozen=True, repr=False)
class Gaussian:
    r"""Independent standard normals, :math:`\eta \sim N(0, I)`.

    Example:
        >>> import torch
        >>> Gaussian()((2, 3), torch.zeros(1, dtype=torch.float64)).dtype
        torch.float64
    """

    __repr__ = compact_repr

    def __call__(self, shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw normals of a shape, with dtype and device of ``like``."""
        return torch.randn(shape, **source(generator), dtype=like.dtype, device=like.device)
