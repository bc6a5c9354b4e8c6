"""The figures of the pages, most of them of measured numbers."""

import base64
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cnflib.metrics import midpoints
from cnflib.plot import BASE, DATA, MODEL, TRAJECTORY, arrow_diagram, use_style
from cnflib.plot.style import DENSITY
from measured.interpolants import curves
from measured.tables import Row, Shown, load, middle
from measured.targets import TARGETS, rows_of

LOOKS = {
    "cnflib": (MODEL, "-", "o"),
    "cnflib, compiled steps": (MODEL, "--", "s"),
    "cnflib, 6 fixed steps, compiled": (MODEL, ":", "s"),
    "torchdiffeq by hand": (TRAJECTORY, "-", "v"),
    "zuko": (BASE, "-", "^"),
    "torchdyn": (DATA, "-", "D"),
    "flow_matching": ("#CC78BC", "-", "P"),
    "diffrax, jitted": ("#A57C1B", "-", "X"),
    "interpolant": (MODEL, "-", "o"),
    "likelihood, fixed steps": (TRAJECTORY, "-", "s"),
    "likelihood, adaptive adjoint": (BASE, "-", "^"),
}
AXES = {
    "dimension": "dimension $D$",
    "batch": "rows in a batch",
    "width": "width of the net",
    "evaluations": "evaluations of a solve",
}
COLUMNS = 4  # of densities
FIGURES: dict[str, Shown] = {}
"""What the pages show, by the name of its file."""


def figure(name: str, source: str = "") -> Callable[[Callable], Callable]:
    """Declare a function that draws what a benchmark wrote, or without a source a drawing."""

    def declare(paint: Callable[[Row], plt.Figure]) -> Callable:
        FIGURES[name] = Shown(source, paint)
        return paint

    return declare


def draw(folder: Path) -> None:
    """Write every figure into the folder."""
    use_style()
    for name, (source, paint) in FIGURES.items():
        drawn = paint(load(source) if source else {})
        drawn.savefig(folder / f"{name}.png")
        plt.close(drawn)


@figure("directions")
def directions(_: Row) -> plt.Figure:
    """The two directions of a flow."""
    figure, ax = plt.subplots(figsize=(7, 3.2))
    arrow_diagram(ax)
    return figure


@figure("speed-error", "continuous")
def error(speed: Row) -> plt.Figure:
    """Error of log p against the time it takes; a point for each tolerance."""
    cases = speed["precision"]
    figure, axes = plt.subplots(1, len(cases), figsize=(7, 4.6), sharey=True)
    for ax, case in zip(axes, cases, strict=True):
        for name, (colour, line, marker) in LOOKS.items():
            points = [(row["ms"], row["error"]) for row in case["rows"] if row["row"] == name]
            if points:
                width = 2.6 if "cnflib" in name else 1.4
                ax.plot(
                    *zip(*points, strict=True), line, color=colour, marker=marker, lw=width, ms=6, label=name
                )
        ax.set(xscale="log", yscale="log", xlabel="milliseconds", title=case["title"].split(",")[0])
        plain(ax)
    axes[0].set_ylabel(r"largest error of $\log p$, nats")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


@figure("speed-growth", "continuous")
def growth(speed: Row) -> plt.Figure:
    """Time of a training step, four ways to make it longer."""
    figure, axes = plt.subplots(2, 2, figsize=(7, 5.6))
    names = {"cnflib": "cnflib", "by hand": "torchdiffeq by hand"}
    for ax, (sweep, rows) in zip(axes.flat, speed["growth"].items(), strict=True):
        at = [row["at"] for row in rows]
        for key, name in names.items():
            colour, line, marker = LOOKS[name]
            median, low, high = np.array([row[key] for row in rows]).T
            ax.plot(at, median, line, color=colour, marker=marker, label=name)
            ax.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
        ax.set(xscale="log", yscale="log", xlabel=AXES[sweep])
        plain(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("milliseconds")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


@figure("speed-quality", "quality")
def minutes(quality: Row) -> plt.Figure:
    """How far a density is from the entropy, against the seconds it was trained; the median of the seeds."""
    targets = quality["entropy"]
    figure, axes = plt.subplots(1, len(targets), figsize=(7, 4.2))
    for ax, (target, entropy) in zip(axes, targets.items(), strict=True):
        for name, (colour, line, marker) in LOOKS.items():
            curves = [c["curve"] for c in quality["curves"] if (c["target"], c["row"]) == (target, name)]
            if curves:
                points = [[(p["seconds"], p["nll"][0]) for p in curve] for curve in curves]
                seconds, nll = np.median(points, 0).T
                ax.plot(seconds, nll - entropy, line, color=colour, marker=marker, label=name)
        ax.set(xlabel="seconds of training", title=target.replace("_", " "), ylim=(0, None))
    axes[0].set_ylabel("NLL above the entropy, nats")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def densities(target: str, found: Row) -> plt.Figure:
    """A panel for each row, in the order of the table; shades are the same in all."""
    data = TARGETS[target]
    pictures = {
        name: picture
        for name, runs in rows_of(found, target).items()
        for picture in [run["picture"] for run in runs if "picture" in run]
    }
    shades = {
        name: np.frombuffer(zlib.decompress(base64.b64decode(p)), np.uint8) for name, p in pictures.items()
    }
    side = int(len(next(iter(shades.values()))) ** 0.5)
    truth = data.log_prob(midpoints(data.bounds, side)).exp()
    panels = {"the truth": (255 * truth / truth.max()).numpy(), **shades}
    height = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(height, COLUMNS, figsize=(7, 2.15 * height))
    for ax in axes.flat:
        ax.set_axis_off()
    rows = rows_of(found, target)
    for ax, (name, values) in zip(axes.flat, panels.items()):
        image = values.reshape(side, side).T
        ax.imshow(image, origin="lower", cmap=DENSITY, vmin=0, vmax=255, interpolation="nearest")
        gap = f"\ngap {middle(rows[name])['gap'][0]:.3f}" if name in rows else "\n"
        ax.set_title(name + gap, fontsize=11)
    return figure


for law in TARGETS:
    figure(f"one-target-{law}", "one_target")(partial(densities, law))


@figure("interpolants-race", "ml_or_interpolant")
def race(found: Row) -> plt.Figure:
    """NLL above the entropy against seconds of training, on logarithmic axes; the range of the seeds is shaded."""
    figure, ax = plt.subplots(figsize=(7, 4.2))
    for name, (seconds, gap) in curves(found).items():
        colour, line, marker = LOOKS[name]
        every = [
            [p["nll"][0] - found["entropy"] for p in r["curve"]] for r in found["runs"] if r["row"] == name
        ]
        ax.plot(seconds, gap, line, color=colour, marker=marker, label=name)
        ax.fill_between(seconds, np.min(every, 0), np.max(every, 0), color=colour, alpha=0.2, lw=0)
    ax.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="NLL above the entropy, nats")
    plain: Callable[[float, int], str] = lambda value, _: f"{value:g}"  # noqa: E731
    for axis, ticks in ((ax.xaxis, (1, 2, 5, 10, 20, 40, 60)), (ax.yaxis, (0.02, 0.05, 0.1, 0.2, 0.5, 1))):
        axis.set_major_formatter(plain)
        axis.set_minor_formatter(lambda value, _: "")
        low, high = axis.get_view_interval()
        axis.set_ticks([t for t in ticks if low <= t <= high])
    ax.legend(frameon=False)
    return figure


def plain(ax: Axes) -> None:
    """Plain numbers from 1 on, at the powers of ten and, where these are few, between them."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        axis.set_minor_formatter(NullFormatter())
        if low > 0.5:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
