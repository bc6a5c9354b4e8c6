r"""MNIST, handwritten digits of 28 × 28 pixels: 60,000 to train on, 10,000 to test.

The images are those of LeCun, Bottou, Bengio and Haffner (1998, doi:10.1109/5.726791). They are read from a folder of
one's own, or downloaded once, 12 MB, and kept. A pixel is one of 256 levels: dequantise before fitting a density.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

from cnflib.data._download import Published, cache, fetched, own_folder
from cnflib.data._split import check_split, labelled
from cnflib.data.digits import Digits

__all__ = ["mnist"]

HOSTS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {  # of each split the images, then the labels
    "train": (
        Published(
            "train-images-idx3-ubyte.gz",
            9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        Published(
            "train-labels-idx1-ubyte.gz",
            28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    ),
    "test": (
        Published(
            "t10k-images-idx3-ubyte.gz",
            1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        Published(
            "t10k-labels-idx1-ubyte.gz",
            4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
}


def mnist(
    split: str = "train", dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Digits:
    r"""Load a part of MNIST: 60,000 images to train on, 10,000 to test.

    If there is a folder ``$CNFLIB_DATA/mnist``, its files are read as they are: ``train-images-idx3-ubyte.gz``,
    ``train-labels-idx1-ubyte.gz``, ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``. Otherwise those of
    ``$XDG_CACHE_HOME/cnflib/mnist`` or ``~/.cache/cnflib/mnist`` are, and what is not there is downloaded and compared
    with its published SHA-256. Data sets of the same format (Fashion-MNIST, KMNIST) can be put into the folder.

    Args:
        split: Either "train" or "test".
        dtype: The dtype of the images; None is torch's default dtype, ``torch.uint8`` a quarter of its memory.
        device: The device of images and labels; None is torch's default device.

    Returns:
        Images of shape ``(N, 1, 28, 28)`` with the integers 0, ..., 255, labels of shape ``(N,)``, and 256 levels.

    Raises:
        ValueError: If there is no such split, a file in the folder is missing, broken or of another split than the
            other, ``CNFLIB_DATA`` is no folder or the folder ``mnist`` itself, the dtype does not hold each of the
            levels, or a download fails; then nothing of it is kept.

    Example:
        >>> images, labels, levels = mnist("train")  # doctest: +SKIP
        >>> images.shape  # doctest: +SKIP
        torch.Size([60000, 1, 28, 28])
    """
    check_split(split, FILES)
    own = own_folder("mnist")
    files = FILES[split]
    paths = [own / file.name if own.is_dir() else fetched(file, cache("mnist"), HOSTS) for file in files]
    images, labels = _unpacked(paths[0], 3), _unpacked(paths[1], 1)
    return Digits(*labelled(images, labels, 256, dtype, device), levels=256)


def _unpacked(path: Path, axes: int) -> np.ndarray:
    """The array of bytes in a file of the IDX format: a magic number, a size for each axis, the values."""
    try:
        content = gzip.decompress(path.read_bytes())
        sizes = np.frombuffer(content, ">i4", axes, offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(sizes)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"Expected {path} to be a whole gzip file of an array of bytes with {axes} axes, in the IDX format; got "
            f"{type(error).__name__}: {error}. Put MNIST's file there; without its folder it is downloaded."
        ) from error
    return values.copy()


def __dir__() -> list[str]:
    return sorted(__all__)
