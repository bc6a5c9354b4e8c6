r"""A fixed order of rows, so that a split is the same on every machine and in every version."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_split", "fixed_order", "labelled"]


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


def labelled(
    images: np.ndarray,
    labels: np.ndarray,
    levels: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[Tensor, Tensor]:
    """Images (N, H, W) as a tensor (N, 1, H, W) of a dtype that holds each of its levels, and their labels as int64."""
    dtype, values = torch.get_default_dtype() if dtype is None else dtype, torch.arange(levels, device="cpu")
    if len(images) != len(labels) or not torch.equal(values.to(dtype).to(torch.int64), values):
        raise ValueError(
            f"Expected one label for each image, and a dtype that holds 0, …, {levels - 1}; got {len(images)} images, "
            f"{len(labels)} labels, and {dtype}. Put files of one split into the folder; ask for torch.float32, or to "
            "save memory torch.uint8."
        )
    return (
        torch.as_tensor(images[:, None], dtype=dtype, device=device),
        torch.as_tensor(labels, dtype=torch.int64, device=device),
    )
