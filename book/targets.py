"""The page "one target, every model": its tables and its figure, from what benchmarks/one_target.py wrote."""

import base64
import zlib
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from results import Row, load, measured, table

from cnflib.data import toy
from cnflib.metrics import midpoints
from cnflib.plot import use_style
from cnflib.plot.style import DENSITY

TARGETS = {"checkerboard": toy.checkerboard, "eight_gaussians": toy.eight_gaussians, "moons": toy.moons}
COLUMNS = 4


def pages() -> dict[str, str]:
    """What the page includes: Markdown by name."""
    found = load("one_target")
    tables = {f"one-target-{target}": quality(found, target) for target in found["entropy"]}
    mnist, interpolant = load("glow_mnist"), load("interpolant_mnist")
    return {
        **tables,
        "one-target-cost": cost(found),
        "one-target-measured": measured(found["machine"], command="python benchmarks/one_target.py"),
        "one-target-glow": glow(mnist),
        "one-target-glow-measured": measured(mnist["machine"], command="python scripts/glow_mnist.py"),
        "one-target-interpolant": digits(interpolant),
        "one-target-interpolant-measured": judged(interpolant)
        + measured(interpolant["machine"], command="python scripts/interpolant_mnist.py"),
    }


def rows_of(found: Row, target: str) -> dict[str, list[Row]]:
    """The runs of each row on one target, best row first by its median."""
    runs = [run for run in found["runs"] if run["target"] == target]
    rows = {run["row"]: [r for r in runs if r["row"] == run["row"]] for run in runs}
    return dict(sorted(rows.items(), key=lambda item: middle(item[1])["nll"][0]))


def middle(runs: list[Row]) -> Row:
    """The run of median NLL, of an even number the worse of the two."""
    return sorted(runs, key=lambda run: run["nll"][0])[len(runs) // 2]


def quality(found: Row, target: str) -> str:
    """NLL and paired gap of the median seed, the scatter of the seeds, and the mass furthest from 1."""
    rows = []
    for name, runs in rows_of(found, target).items():
        run, values = middle(runs), [run["nll"][0] for run in runs]
        mass = max((run["mass"] for run in runs), key=lambda m: abs(m - 1))
        gap, error = run["gap"]
        spread = f"{min(values):.3f} … {max(values):.3f}" if len(values) > 1 else "one seed"
        rows.append([label(name), f"{run['nll'][0]:.3f}", spread, f"{gap:.3f} ± {error:.4f}", f"{mass:.4f}"])
    rows.append(["entropy", f"{found['entropy'][target]:.3f}", "", "0", "1"])
    return table(["nats", "NLL", "seeds", "gap", "mass"], rows)


def cost(found: Row) -> str:
    """Parameters, steps in the minute and the time of 20,000 samples: medians over all targets and seeds."""
    rows = []
    for name in dict.fromkeys(run["row"] for run in found["runs"]):
        runs = [run for run in found["runs"] if run["row"] == name]
        steps, sampling = (median(run[key] for run in runs) for key in ("steps", "sampling"))
        rows.append([label(name), f"{runs[0]['parameters']:,}", f"{steps:,.0f}", f"{sampling:.2f} s"])
    return table(["", "parameters", "steps", "20,000 samples"], rows)


def glow(mnist: Row) -> str:
    """Bits per dimension of the test images beside the published value, and what it took."""
    value, error = mnist["bits_per_dim"]
    minutes = f"{mnist['seconds'] / 60:.0f} min"
    rows = [
        ["here", f"{value:.3f} ± {error:.3f}", str(mnist["draws"]), f"{mnist['parameters']:,}", minutes],
        ["published", PUBLISHED, "", "", ""],
    ]
    return table(["", "bits/dim", "$K$", "parameters", "training"], rows)


def digits(mnist: Row) -> str:
    """Bits per dimension by the interpolant beside published values, and what it took."""
    value, error = mnist["bits_per_dim"]
    minutes = f"{mnist['cpu seconds'] / 60:.0f} min"
    here = ["here", f"{value:.3f} ± {error:.3f}", str(mnist["draws"]), f"{mnist['parameters']:,}", minutes]
    published = [[name, f"{bits:.2f}", "", "", ""] for name, bits in mnist["published"].items()]
    return table(["", "bits/dim", "$K$", "parameters", "CPU time"], [here, *published])


def judged(mnist: Row) -> str:
    """On how many images, and how exactly."""
    return (
        f"Judged on {mnist['images']:,} test images, with {mnist['nfe']:.0f} evaluations of the field and its "
        f"divergence at tolerance {mnist['tolerance']:g}; at half of it the value of the first fifty images changes "
        f"by {abs(mnist['change at half the tolerance']):.1g}. Samples took {mnist['nfe of samples']} evaluations. "
        f"Training took {mnist['steps']:,} steps of {mnist['settings']['batch']} images, "
        f"{mnist['seconds'] / 60:.0f} minutes by the clock of a machine that had other work too.\n\n"
    )


PUBLISHED = "1.05"  # bits/dim of Glow on MNIST, in Grathwohl et al. (2018)


def label(name: str) -> str:
    """A builder as code, any other row in words."""
    return f"`{name}`" if "_" in name or name in CODE else name


CODE = {"nice", "realnvp", "glow", "maf", "iaf"}


def draw(folder: Path) -> None:
    """Write the densities of every target into the folder, one figure each: the truth first, then each row."""
    use_style()
    found = load("one_target")
    for target in found["entropy"]:
        figure = densities(found, target)
        figure.savefig(folder / f"one-target-{target}.png")
        plt.close(figure)


def densities(found: Row, target: str) -> plt.Figure:
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
