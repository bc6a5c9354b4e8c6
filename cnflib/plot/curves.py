"""Figures of numbers along a line: densities in one dimension, and losses over the steps of a training."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from cnflib.plot._axes import as_line
from cnflib.plot.style import DATA, MODEL

__all__ = ["curve", "training_curve"]


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
    """
    x, y = as_line(x, y)
    ax.fill_between(x, y, color=color, alpha=0.15, linewidth=0).sticky_edges.y.append(0)
    sns.despine(ax=ax)
    return ax.plot(x, y, color=color, linestyle=linestyle, label=label)[0]


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
    """
    x, y = as_line(steps, losses)
    half = len(y) // 100
    width = 2 * half + 1
    ax.plot(x, y, color=MODEL, alpha=0.3, linewidth=0.8)
    mean = np.convolve(y, np.full(width, 1 / width), mode="valid")
    (line,) = ax.plot(x[half : len(x) - half], mean, color=MODEL)
    ax.set(xlabel="step", ylabel=ylabel)
    sns.despine(ax=ax)
    if floor is not None:
        floor = floor.item() if isinstance(floor, Tensor) else floor
        _floor(ax, floor, f"{floor_label} {floor:.3f}")
    return line


def _floor(ax: Axes, floor: float, label: str) -> None:
    """A dashed line, its name below it at the left, where a falling loss leaves room."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(bottom, floor - 0.14 * (top - floor)), top)
    ax.axhline(floor, color=DATA, linestyle="--", linewidth=1.6)
    at = {"xy": (0, floor), "xycoords": ax.get_yaxis_transform(), "textcoords": "offset points"}
    ax.annotate(label, xytext=(6, -4), ha="left", va="top", color=DATA, **at)
