"""The figures of the page on speed, drawn from what the benchmarks wrote."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from results import Row, load

from cnflib.plot import BASE, DATA, MODEL, TRAJECTORY, use_style

LOOKS = {
    "cnflib": (MODEL, "-", "o"),
    "cnflib, compiled steps": (MODEL, "--", "s"),
    "cnflib, 6 fixed steps, compiled": (MODEL, ":", "s"),
    "torchdiffeq by hand": (TRAJECTORY, "-", "v"),
    "zuko": (BASE, "-", "^"),
    "torchdyn": (DATA, "-", "D"),
    "flow_matching": ("#CC78BC", "-", "P"),
    "diffrax, jitted": ("#A57C1B", "-", "X"),
}
AXES = {
    "dimension": "dimension $D$",
    "batch": "rows in a batch",
    "width": "width of the net",
    "evaluations": "evaluations of a solve",
}


def draw(folder: Path) -> None:
    """Write every figure into the folder."""
    use_style()
    speed, quality = load("continuous"), load("quality")
    figures = {
        "speed-error": error(speed["precision"]),
        "speed-growth": growth(speed["growth"]),
        "speed-quality": minutes(quality),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
        plt.close(figure)


def error(cases: list[Row]) -> plt.Figure:
    """Error of log p against the time it takes; a point for each tolerance."""
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


def growth(sweeps: dict[str, list[Row]]) -> plt.Figure:
    """Time of a training step, four ways to make it longer."""
    figure, axes = plt.subplots(2, 2, figsize=(7, 5.6))
    names = {"cnflib": "cnflib", "by hand": "torchdiffeq by hand"}
    for ax, (sweep, rows) in zip(axes.flat, sweeps.items(), strict=True):
        at = [row["at"] for row in rows]
        for key, name in names.items():
            colour, line, marker = LOOKS[name]
            middle, low, high = np.array([row[key] for row in rows]).T
            ax.plot(at, middle, line, color=colour, marker=marker, label=name)
            ax.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
        ax.set(xscale="log", yscale="log", xlabel=AXES[sweep])
        plain(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("milliseconds")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return figure


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


def plain(ax: Axes) -> None:
    """Plain numbers from 1 on, at the powers of ten and, where these are few, between them."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1,)))
        axis.set_minor_formatter(NullFormatter())
        if low > 0.5:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
