r"""A fixed order of rows, so that a split is the same on every machine and in every version."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_split", "fixed_order"]


def fixed_order(n: int) -> Tensor:
    r"""Return a fixed pseudo-random permutation of 0, ..., n - 1, int64 of shape ``(n,)``.

    It comes from NumPy's legacy generator with seed 0, whose stream is frozen for good (NEP 19, 2018); neither torch's
    nor NumPy's newer generators promise that.

    Args:
        n: The number of rows.
    """
    return torch.from_numpy(np.random.RandomState(0).permutation(n).astype(np.int64))


def check_split(split: str, splits: Iterable[str]) -> None:
    """Check that a data set has a split of that name."""
    if split not in splits:
        raise ValueError(f"Expected split to be one of {', '.join(map(repr, splits))}; got {split!r}.")
