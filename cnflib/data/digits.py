r"""Handwritten digits of 8 × 8 pixels, the smallest image data that still looks like something.

The 1,797 images are scikit-learn's copy of the test set of Alpaydin and Kaynak (1998, UCI Machine Learning
Repository, doi:10.24432/C50P49). A pixel counts the dark dots in a 4 × 4 block, hence 17 levels. Dequantise
before fitting a density.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cnflib.data._split import check_split, fixed_order, labelled

__all__ = ["LEVELS", "Digits", "digits"]

LEVELS = 17

SPLITS = {"train": slice(None, 1437), "test": slice(1437, None)}


class Digits(NamedTuple):
    r"""Images with their labels.

    Attributes:
        images: The integers 0, 1, ..., ``levels`` - 1, as floating numbers by default, shape ``(N, 1, 8, 8)``; of
            :func:`cnflib.data.mnist.mnist` ``(N, 1, 28, 28)``.
        labels: The digits 0, ..., 9, int64 of shape ``(N,)``.
        levels: The number of values that a pixel takes, 17, of MNIST 256, as dequantisation and bits per dimension need
            it.
    """

    images: Tensor
    labels: Tensor
    levels: int = LEVELS


def digits(
    split: str = "train", dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Digits:
    r"""Load a fixed part of the digits: 1,437 images to train on, 360 to test on.

    Args:
        split: Either "train" or "test".
        dtype: The dtype of the images; None is torch's default dtype.
        device: The device of images and labels; None is torch's default device.

    Raises:
        ValueError: If there is no such split, or the dtype does not hold each of the levels.

    Example:
        >>> digits("test").images.shape
        torch.Size([360, 1, 8, 8])
    """
    check_split(split, SPLITS)

    from sklearn.datasets import load_digits

    data = load_digits()
    rows = fixed_order(len(data.images))[SPLITS[split]].numpy()
    return Digits(*labelled(data.images[rows], data.target[rows], LEVELS, dtype, device))


def __dir__() -> list[str]:
    return sorted(__all__)
