"""What a figure shows of a plane: densities, points, trajectories, vector fields and grids under a map."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.contour import QuadContourSet
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver
from torch import Tensor

from cnflib._check import check_positive_int, reference, row_each
from cnflib._field import uniform
from cnflib.metrics import Bounds, LogProb, midpoints, on_grid
from cnflib.plot._axes import as_array, as_box, as_points, set_plane
from cnflib.plot.style import BASE, DATA, DENSITY, INK, MODEL, TRAJECTORY, VOLUME

__all__ = ["contours", "density", "field", "grid_warp", "samples", "trajectories"]


def __dir__() -> list[str]:
    return sorted(__all__)


Device = torch.device | str | None


def density(
    ax: Axes,
    log_prob: LogProb,
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
    log_prob: LogProb,
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
        masses: The shares m, a sequence of numbers between 0 and 1.

    Raises:
        ValueError: As in :func:`density`.
    """
    set_plane(ax, bounds)
    if not all(0 < m < 1 for m in masses):
        raise ValueError(f"Expected masses to be shares between 0 and 1; got {masses}. 90 % is 0.9.")
    values = on_grid(log_prob, bounds, points, dtype=dtype, device=device).exp().numpy()
    ranked = np.sort(values, axis=None)[::-1]
    levels = np.unique(ranked[np.searchsorted(np.cumsum(ranked) / ranked.sum(), masses)])
    x, y = (midpoints([side], points, torch.float64, "cpu").flatten().numpy() for side in bounds)
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


def trajectories(ax: Axes, path: Tensor, bounds: Bounds | None = None) -> LineCollection:
    """Paths of points through the plane, from the base (blue) at t = 0 to the data (vermilion) at t = 1.

    Args:
        path: Positions at times from 0 to 1, shape ``(T, B, 2)``, as ``CNF.trajectory(z, times)`` returns them.
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
        bijection: Maps points ``(N, 2)`` to points ``(N, 2)``: ``flow.decode`` from latent to data, ``flow.encode``
            from data to latent.
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


def field(
    ax: Axes,
    f: Callable[..., Tensor],
    t: float | Tensor,
    box: Bounds,
    points: int = 16,
    speed: float | None = None,
    color: str = MODEL,
    dtype: torch.dtype | None = None,
    device: Device = None,
    context: Tensor | None = None,
) -> Quiver:
    r"""Arrows of a vector field :math:`f(t, x)` at one time, on a grid over a box; their length is the speed.

    Args:
        f: The field, called ``f(t, x)`` or ``f(t, x, context)`` with points ``(N, 2)``.
        t: The time, a number.
        box: The box ``((a_1, b_1), (a_2, b_2))``, such as ``target.bounds``, in the unit of x.
        points: Arrows along the longer axis; those along the other are as far apart.
        speed: The speed :math:`|f|` whose arrow is as long as the arrows are apart, by default the largest here; give
            one for all pictures to compare.
        color: The object: ``MODEL``, ``DATA``, ``BASE`` or ``TRAJECTORY``.
        dtype, device: Of the points; by default those of the field's parameters, or else torch's.
        context: What the field is conditioned on, one row for all points.

    Raises:
        ValueError: If the box is not in the plane, or the field does not return finite numbers of shape ``(N, 2)``.
    """
    set_plane(ax, box)
    box, velocity = as_box(box), uniform(f)
    like = reference(velocity.field)
    dtype = dtype if like is None or dtype is not None else like.dtype
    device = device if like is None or device is not None else like.device
    spacing = max(b - a for a, b in box) / check_positive_int(points, "points")
    axes = [midpoints([side], max(1, round((side[1] - side[0]) / spacing)), dtype, device) for side in box]
    x = torch.cartesian_prod(*(axis.flatten() for axis in axes))
    time = torch.as_tensor(t, dtype=x.dtype, device=x.device)
    if time.numel() != 1:
        raise ValueError(
            f"Expected t to be one number; got a tensor of shape {tuple(time.shape)}. Pass t[0]."
        )
    time = time.reshape(())
    rows = row_each(context, len(x))
    with torch.no_grad():
        v = velocity(time, x, None if rows is None else rows.to(x.device))
    arrows = as_points(v, "f(t, x)", 2)
    if not np.isfinite(arrows).all():
        raise ValueError(
            f"Expected a field that is finite in the box; got NaN or inf at {int((~np.isfinite(arrows)).any(1).sum())} "
            f"of {len(arrows)} points at t = {t}. Take a smaller box, or a time before it grows without bound."
        )
    scale = (speed or np.hypot(*arrows.T).max() or 1.0) / spacing
    units = {"angles": "xy", "scale_units": "xy", "pivot": "mid"}
    look = {"width": 0.004, "headwidth": 4, "minlength": 0.5}
    return ax.quiver(*as_array(x).T, *arrows.T, scale=scale, color=color, **units, **look)


def _outlines(cells: int, parts: int = 4) -> Tensor:
    """Outlines of the cells of the unit square's grid, shape (cells², 4 parts, 2)."""
    side = torch.arange(parts, dtype=torch.float64, device="cpu") / parts
    zero, one = torch.zeros_like(side), torch.ones_like(side)
    ring = torch.stack(
        [torch.cat([side, one, 1 - side, zero]), torch.cat([zero, side, one, 1 - side])], dim=1
    )
    corner = torch.arange(cells, dtype=torch.float64, device="cpu")
    return (torch.cartesian_prod(corner, corner)[:, None] + ring) / cells


def _areas(polygons: np.ndarray) -> np.ndarray:
    """Areas by the shoelace formula, shape (P,), of polygons of shape (P, K, 2)."""
    x, y = np.moveaxis(polygons - polygons[:, :1], -1, 0)
    return 0.5 * np.abs((x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1))
