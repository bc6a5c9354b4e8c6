"""What figures share: arrays of what they are given, and axes with equal units."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from cnflib.metrics import Bounds

__all__ = ["as_array", "as_box", "as_line", "as_points", "set_plane"]


Numbers = Tensor | Sequence[float] | Sequence[Tensor]


def as_array(x: Numbers) -> np.ndarray:
    """A float64 array of a tensor, of numbers, or of 0-d tensors."""
    if not isinstance(x, Tensor) and len(x) and isinstance(x[0], Tensor):
        x = torch.stack(list(x))
    return torch.as_tensor(x).detach().cpu().double().numpy()


def as_points(x: Tensor, name: str, ndim: int) -> np.ndarray:
    """Points of the plane as an array, with so many axes, the last of them for the two coordinates."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != ndim or shape[-1] != 2:
        inside = next((part for part in ("x", "y") if hasattr(x, "nfe") and hasattr(x, part)), "")
        raise ValueError(
            f"Expected {name} of shape {('(N, 2)', '(T, B, 2)')[ndim - 2]}; got {shape or type(x).__name__}. "
            + (f"Its points are {name}.{inside}." if inside else f"To show two axes: {name}[..., :2].")
        )
    return as_array(x)


def as_box(bounds: Bounds) -> Bounds:
    """The bounds, where they are those of a rectangle."""
    box = torch.as_tensor(bounds, dtype=torch.float64, device="cpu")
    if box.shape != (2, 2) or not (box[:, 0] < box[:, 1]).all():
        raise ValueError(f"Expected a box ((a1, b1), (a2, b2)) with a < b; got {bounds}. In 1-D use curve.")
    return tuple(map(tuple, box.tolist()))


def as_line(x: Numbers, y: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values as flat arrays, as many of the one as of the other."""
    x, y = (as_array(v).flatten() if hasattr(v, "__len__") else np.empty(0) for v in (x, y))
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"Expected as many values as positions, one at least; got {len(y)} at {len(x)}. Pass both as tensors or "
            "sequences of one length."
        )
    return x, y


def set_plane(ax: Axes, bounds: Bounds | None = None) -> None:
    """Equal units on both axes, few ticks, and the limits where given."""
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    if bounds is not None:
        xlim, ylim = as_box(bounds)
        ax.set(xlim=xlim, ylim=ylim)
