"""Images side by side."""

from math import ceil

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from cnflib._check import check_finite, check_positive_int
from cnflib.plot._axes import as_array

__all__ = ["images"]


def __dir__() -> list[str]:
    return sorted(__all__)


def images(
    ax: Axes,
    x: Tensor | None = None,
    columns: int | None = None,
    low: float | None = None,
    high: float | None = None,
) -> AxesImage:
    """A grid of images, row by row, grey or in colour, with thin white lines between them.

    Args:
        ax: The axes.
        x: The images, needed, a tensor or NumPy array of any dtype: shape ``(N, H, W)`` or ``(N, 1, H, W)`` for grey
            ones, ``(N, 3, H, W)`` for red, green and blue.
        columns: Images in a row, by default as many as make the grid nearly square.
        low: The value drawn black, by default the smallest here.
        high: The value drawn white, or at full strength of its colour, by default the largest here.

    Returns:
        The picture of them all, its values between 0 and 1.

    Raises:
        ValueError: If x is of another shape, empty, or not finite, or ``columns`` is no positive int.
    """
    pictures = _rgb(x)
    low, high = (np.min(pictures) if low is None else low), (np.max(pictures) if high is None else high)
    shades = np.clip((pictures - low) / ((high - low) or 1.0), 0, 1)
    columns = ceil(len(shades) ** 0.5) if columns is None else check_positive_int(columns, "columns")
    rows = ceil(len(shades) / columns)
    gap = max(1, shades.shape[1] // 16)
    blank = np.ones((rows * columns - len(shades), *shades.shape[1:]))
    tiles = np.pad(np.concatenate([shades, blank]), ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1.0)
    _, height, width, _ = tiles.shape
    grid = (
        tiles.reshape(rows, columns, height, width, 3)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, 3)
    )
    ax.axis("off")
    return ax.imshow(grid[:-gap, :-gap], interpolation="nearest")


def _rgb(x: Tensor) -> np.ndarray:
    """Finite images as an array (N, H, W, 3)."""
    x = torch.as_tensor(x) if isinstance(x, np.ndarray) else x
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) == 3:
        x, shape = x[:, None], (shape[0], 1, *shape[1:])
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        raise ValueError(
            "Expected x of shape (N, 1, H, W), (N, 3, H, W) or (N, H, W), one image at least; got "
            f"{shape or type(x).__name__}. The axes come before them: images(ax, x). Channels go first: "
            "x.movedim(-1, 1); one image alone is x[None]."
        )
    check_finite(x, "x")
    pictures = as_array(x)
    return np.broadcast_to(np.moveaxis(pictures, 1, -1), (shape[0], *shape[2:], 3))
