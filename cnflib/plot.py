r"""The book's figures: one style, and one colour for one object.

Blue is the base, vermilion the data, green the model, dark grey a trajectory. The four stay apart in the
common kinds of colour blindness and stand out from the opaque white background, which keeps them legible in
dark mode. Every function draws on the ``ax`` it is given, and takes tensors with gradients, on any device;
:func:`animation` and :func:`slider` take a figure that is drawn again and again.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from cnflib._animation import Animation, Slider, animation, slider
from cnflib._check import check_finite, check_positive_int
from cnflib._plane import contours, density, field, grid_warp, samples, trajectories
from cnflib._style import (
    BASE,
    COLORS,
    DATA,
    MODEL,
    TRAJECTORY,
    arrow_diagram,
    as_array,
    check_lengths,
    use_style,
)

__all__ = [
    "BASE",
    "COLORS",
    "DATA",
    "MODEL",
    "TRAJECTORY",
    "Animation",
    "Slider",
    "animation",
    "arrow_diagram",
    "contours",
    "curve",
    "density",
    "field",
    "grid_warp",
    "images",
    "samples",
    "slider",
    "training_curve",
    "trajectories",
    "use_style",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def curve(
    ax: Axes, x: Tensor, y: Tensor, label: str | None = None, color: str = MODEL, linestyle: str = "-"
) -> Line2D:
    """A 1-D density y over x, with the area under it shaded.

    Args:
        x: Positions in increasing order, shape ``(N,)`` or ``(N, 1)``.
        y: Densities, not their logarithms, shape ``(N,)``, in one over the unit of x.
        label: Name in the legend.
        color: The object: ``MODEL``, ``DATA`` or ``BASE``.
        linestyle: As in matplotlib; ``"--"`` keeps an exact curve visible on a fitted one.

    Raises:
        ValueError: If x and y differ in length.
    """
    x, y = as_array(x).flatten(), as_array(y).flatten()
    check_lengths(x, y, "x", "y")
    ax.fill_between(x, y, color=color, alpha=0.15, linewidth=0).sticky_edges.y.append(0)
    sns.despine(ax=ax)
    return ax.plot(x, y, color=color, linestyle=linestyle, label=label)[0]


def images(
    ax: Axes, x: Tensor, columns: int | None = None, low: float | None = None, high: float | None = None
) -> AxesImage:
    """A grid of images, row by row, grey or in colour, with thin white lines between them.

    Args:
        x: The images, shape ``(N, H, W)`` or ``(N, 1, H, W)`` for grey ones, ``(N, 3, H, W)`` for red, green and blue.
        columns: Images in a row, by default as many as make the grid nearly square.
        low: The value drawn black, by default the smallest here.
        high: The value drawn white, or at full strength of its colour, by default the largest here.

    Returns:
        The picture of them all, its values between 0 and 1.

    Raises:
        ValueError: If x is of another shape, empty, or not finite, ``columns`` is no positive int, or low ≥ high.
    """
    pictures = _rgb(x)
    low, high = (np.min(pictures) if low is None else low), (np.max(pictures) if high is None else high)
    if low > high or (low == high and np.ptp(pictures) > 0):
        raise ValueError(
            f"Expected low < high; got low={low:g}, high={high:g}. Images in [0, 1]: low=0, high=1."
        )
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


def training_curve(
    ax: Axes,
    steps: Sequence[int],
    losses: Sequence[float] | Sequence[Tensor] | Tensor,
    floor: float | None = None,
    floor_label: str = "entropy",
    ylabel: str = "NLL (nats)",
) -> Line2D:
    """Loss over steps: every value faintly, a centred mean over 1/50 of the run, and the floor dashed.

    Args:
        steps: Step numbers, N of them.
        losses: One number or 0-d tensor per step.
        floor: What no normalised model can be below in expectation, e.g. the entropy of the data.
        floor_label: Its name.
        ylabel: Name and unit of the loss.

    Returns:
        The line of means.

    Raises:
        ValueError: If there is not one loss per step.
    """
    x, y = as_array(steps), as_array(losses)
    check_lengths(x, y, "steps", "losses")
    half = len(y) // 100
    width = 2 * half + 1
    ax.plot(x, y, color=MODEL, alpha=0.3, linewidth=0.8)
    mean = np.convolve(y, np.full(width, 1 / width), mode="valid")
    (line,) = ax.plot(x[half : len(x) - half], mean, color=MODEL)
    ax.set(xlabel="step", ylabel=ylabel)
    sns.despine(ax=ax)
    if floor is not None:
        _floor(ax, floor, f"{floor_label} {floor:.3f}")
    return line


def _floor(ax: Axes, floor: float, label: str) -> None:
    """A dashed line, its name below it at the left, where a falling loss leaves room."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(bottom, floor - 0.14 * (top - floor)), top)
    ax.axhline(floor, color=DATA, linestyle="--", linewidth=1.6)
    at = {"xy": (0, floor), "xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    ax.annotate(label, xytext=(6, -4), ha="left", va="top", color=DATA, **at)


def _rgb(x: Tensor) -> np.ndarray:
    """Finite images as an array (N, H, W, 3)."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) == 3:
        x, shape = x[:, None], (shape[0], 1, *shape[1:])
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        got = tuple(getattr(x, "shape", ())) or type(x).__name__
        raise ValueError(
            f"Expected x of shape (N, 1, H, W), (N, 3, H, W) or (N, H, W), one image at least; got {got}. Channels go "
            "first: x.movedim(-1, 1); one image alone is x[None]."
        )
    check_finite(x, "x")
    pictures = as_array(x)
    return np.broadcast_to(np.moveaxis(pictures, 1, -1), (shape[0], *shape[2:], 3))
