r"""The book's figures: one style, and one colour for one object.

Blue is the base, vermilion the data, green the model, dark grey a trajectory. The four stay apart in the
common kinds of colour blindness and stand out from the opaque white background, which keeps them legible in
dark mode. Every function draws on the ``ax`` it is given, and takes tensors with gradients, on any device.
"""

from collections.abc import Callable, Sequence

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.contour import QuadContourSet
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from cnflib._animation import Animation, animation
from cnflib._style import (
    BASE,
    COLORS,
    DATA,
    DENSITY,
    INK,
    MODEL,
    TRAJECTORY,
    VOLUME,
    arrow_diagram,
    as_array,
    as_box,
    as_points,
    check_lengths,
    set_plane,
    use_style,
)
from cnflib.metrics import Bounds, LogDensity, midpoints, on_grid

__all__ = [
    "BASE",
    "COLORS",
    "DATA",
    "MODEL",
    "TRAJECTORY",
    "Animation",
    "animation",
    "arrow_diagram",
    "contours",
    "curve",
    "density",
    "grid_warp",
    "samples",
    "training_curve",
    "trajectories",
    "use_style",
]

Device = torch.device | str | None


def density(
    ax: Axes,
    log_prob: LogDensity,
    bounds: Bounds,
    points: int = 200,
    vmax: float | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
) -> AxesImage:
    r"""Image of a 2-D density :math:`\exp \log p(x)`, white where it is 0; one colour map for all densities.

    Args:
        log_prob: Maps points ``(N, 2)`` to log-densities ``(N,)`` in nats.
        bounds: The box ``((a_1, b_1), (a_2, b_2))`` in the unit of x.
        points: Pixels along each axis.
        vmax: The density drawn darkest, by default the largest here; pass ``image.get_clim()[1]`` of another
            image to compare the two.
        dtype, device: Of the points, torch's defaults if None.

    Raises:
        ValueError: If the box is not in the plane, or as in :func:`cnflib.metrics.mass`.
    """
    set_plane(ax, bounds)
    values = on_grid(log_prob, bounds, points, dtype=dtype, device=device).exp().numpy()
    extent = (*bounds[0], *bounds[1])
    return ax.imshow(
        values.T, cmap=DENSITY, vmin=0, vmax=vmax, extent=extent, origin="lower", interpolation="nearest"
    )


def contours(
    ax: Axes,
    log_prob: LogDensity,
    bounds: Bounds,
    color: str = MODEL,
    masses: Sequence[float] = (0.25, 0.5, 0.75, 0.95),
    points: int = 200,
    dtype: torch.dtype | None = None,
    device: Device = None,
) -> QuadContourSet:
    r"""Lines that enclose the densest m of a 2-D density's mass in the box, for each share m.

    .. math:: \{x : p(x) = c_m\}, \qquad \int_{p(x) \ge c_m} p(x)\, dx = m \int p(x)\, dx

    Args:
        log_prob, bounds, points, dtype, device: As in :func:`density`.
        color: The object: ``MODEL``, ``DATA`` or ``BASE``.
        masses: The shares m, between 0 and 1.

    Raises:
        ValueError: If a share is not between 0 and 1, or as in :func:`density`.
    """
    if not all(0 < share < 1 for share in masses):
        raise ValueError(f"Expected masses between 0 and 1; got {tuple(masses)}. Half the mass is 0.5.")
    set_plane(ax, bounds)
    values = on_grid(log_prob, bounds, points, dtype=dtype, device=device).exp().numpy()
    ranked = np.sort(values, axis=None)[::-1]
    levels = np.unique(ranked[np.searchsorted(np.cumsum(ranked) / ranked.sum(), masses)])
    x, y = (midpoints([side], points, torch.float64).flatten().numpy() for side in bounds)
    return ax.contour(x, y, values.T, levels=levels, colors=color, linewidths=1.6)


def samples(
    ax: Axes, x: Tensor, color: str = DATA, bounds: Bounds | None = None, label: str | None = None
) -> PathCollection:
    """Points in the plane, smaller and fainter the more there are.

    Args:
        x: The points, shape ``(N, 2)``.
        color: The object they come from: ``DATA``, ``MODEL`` or ``BASE``.
        bounds: The box to show, by default that of the points.
        label: Name in the legend.

    Raises:
        ValueError: If x is not of shape ``(N, 2)``.
    """
    points = as_points(x, "x", 2)
    set_plane(ax, bounds)
    crowd = 600 / max(len(points), 1)
    size, alpha = np.clip(12 * crowd, 3, 36), np.clip(crowd, 0.25, 0.9)
    if label is not None:
        ax.scatter([], [], s=36, color=color, linewidths=0, label=label)
    return ax.scatter(*points.T, s=size, color=color, alpha=alpha, linewidths=0, rasterized=True)


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


def trajectories(ax: Axes, path: Tensor, bounds: Bounds | None = None) -> LineCollection:
    """Paths of points through the plane, from the base (blue) at t = 0 to the data (vermilion) at t = 1.

    Args:
        path: Positions at times from 0 to 1, shape ``(T, B, 2)``, as in ``CNF.path(...).x``.
        bounds: The box to show, by default that of the paths.

    Raises:
        ValueError: If ``path`` is not of shape ``(T, B, 2)``.
    """
    x = as_points(path, "path", 3)
    set_plane(ax, bounds)
    for end, color in ((x[0], BASE), (x[-1], DATA)):
        ax.scatter(*end.T, s=18, color=color, linewidths=0, zorder=3)
    lines = LineCollection(list(x.swapaxes(0, 1)), colors=TRAJECTORY, linewidths=0.9, alpha=0.6)
    ax.add_collection(lines)
    ax.autoscale_view()
    return lines


def grid_warp(
    ax: Axes,
    bijection: Callable[[Tensor], Tensor],
    bounds: Bounds,
    cells: int = 20,
    dtype: torch.dtype | None = None,
    device: Device = None,
) -> PolyCollection:
    r"""Image of a square grid under a map, each cell coloured by how much its area grew.

    .. math:: \log_2 \frac{|g(\mathrm{cell})|}{|\mathrm{cell}|} \approx \log_2 |\det \partial g / \partial x|

    Args:
        bijection: Maps points ``(N, 2)`` to points ``(N, 2)``: ``flow.bijection.decode`` from latent to data,
            ``lambda x: flow.bijection(x)[0]`` from data to latent.
        bounds: The box ``((a_1, b_1), (a_2, b_2))`` that the grid fills before the map.
        cells: Cells along each axis.
        dtype, device: Of the points, torch's defaults if None.

    Returns:
        The cells; their array is the log2 ratio of areas, which ``figure.colorbar`` can show.

    Raises:
        ValueError: If the box is not in the plane, or the map does not return ``(N, 2)``.
    """
    low, high = torch.tensor(as_box(bounds), dtype=dtype or torch.get_default_dtype(), device=device).T
    nodes = low + (high - low) * _outlines(cells).to(low)
    with torch.no_grad():
        image = as_points(bijection(nodes.reshape(-1, 2)), "bijection(x)", 2).reshape(nodes.shape)
    growth = np.log2(_areas(image) / _areas(as_array(nodes)))
    limit = max(1.0, np.abs(growth).max())
    set_plane(ax)
    look = {"cmap": VOLUME, "clim": (-limit, limit), "edgecolor": INK, "linewidths": 0.5}
    patches = PolyCollection(list(image), array=growth, **look)
    ax.add_collection(patches)
    ax.autoscale_view()
    return patches


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


def _outlines(cells: int, parts: int = 4) -> Tensor:
    """Outlines of the cells of the unit square's grid, shape (cells², 4 parts, 2)."""
    side = torch.arange(parts, dtype=torch.float64) / parts
    zero, one = torch.zeros_like(side), torch.ones_like(side)
    ring = torch.stack(
        [torch.cat([side, one, 1 - side, zero]), torch.cat([zero, side, one, 1 - side])], dim=1
    )
    corner = torch.arange(cells, dtype=torch.float64)
    return (torch.cartesian_prod(corner, corner)[:, None] + ring) / cells


def _areas(polygons: np.ndarray) -> np.ndarray:
    """Areas by the shoelace formula, shape (P,), of polygons of shape (P, K, 2)."""
    x, y = np.moveaxis(polygons - polygons[:, :1], -1, 0)
    return 0.5 * np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1))
