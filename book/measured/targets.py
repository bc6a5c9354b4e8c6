"""The page "one target, every model": densities after about a minute, and two runs on MNIST."""

import math
from collections.abc import Iterator
from functools import cache, partial
from statistics import median
from typing import NamedTuple

import torch

from cnflib.data import toy
from cnflib.metrics import Bounds, LogProb, midpoints, on_grid
from measured.tables import (
    Row,
    by_row,
    error_bar,
    machine,
    middle,
    scatter,
    sentence,
    table,
    where,
    worst_mass,
)

TARGETS = {"checkerboard": toy.checkerboard, "eight_gaussians": toy.eight_gaussians, "moons": toy.moons}
CODE = {"nice", "realnvp", "glow", "maf", "iaf", "ffjord"}
PUBLISHED = "1.05"  # bits/dim of Glow on MNIST, in Grathwohl et al. (2018)
MNIST = ("", "bits/dim", "$K$", "parameters")
CELLS, MARGIN = 200, 1.0  # of the grid under the floors; twice the cells move them by less than 1e-4

machine("one-target-measured", "one_target", "python benchmarks/one_target.py")
machine("one-target-glow-measured", "glow_mnist", "python scripts/glow_mnist.py")


def rows_of(found: Row, target: str) -> dict[str, list[Row]]:
    """The runs of each row on one target, best row first by its median."""
    return by_row([run for run in found["runs"] if run["target"] == target])


def label(name: str) -> str:
    """A builder as code, any other row in words."""
    return f"`{name}`" if "_" in name or name in CODE else name


def quality(target: str, found: Row) -> Iterator[tuple[str, ...]]:
    """NLL and paired gap of the median seed, the scatter of the seeds, and the mass furthest from 1."""
    for name, runs in rows_of(found, target).items():
        run, mass = middle(runs), f"{worst_mass(runs):.4f}"
        yield label(name), f"{run['nll'][0]:.3f}", scatter(runs), error_bar(run["gap"], 4), mass
    yield "entropy", f"{found['entropy'][target]:.3f}", "", "0", "1"


for law in TARGETS:
    table(f"one-target-{law}", "one_target", "nats", "NLL", "seeds", "gap", "mass")(partial(quality, law))


class Floors(NamedTuple):
    """The least mean NLL that a family of densities can have, in nats."""

    volume: float
    gaussian: float


def floors(log_prob: LogProb, bounds: Bounds, cells: int = CELLS) -> Floors:
    r"""The floors of volume-preserving maps with one scaling, and of one Gaussian, for a density p of the plane.

    A map g of constant :math:`|\det J_g|` gives :math:`\log \hat p = \mathrm{const} - |g|^2 / 2`, and :math:`|g|^2` is
    below a level on as large a set as that of a Gaussian is. By the rearrangement inequality its mean under p is least
    if g orders the points as p does. Only the areas count then: p may be replaced by its decreasing rearrangement
    :math:`p^*`, whose best Gaussian :math:`N(0, \sigma^2 I)` has the floor

    .. math:: \log(2 \pi e\, \sigma^2), \qquad \sigma^2 = \tfrac12 \int |x|^2\, p^*(x)\, dx.

    On a grid the k-th largest of the cells of area A is a ring with :math:`|x|^2 = (k + \tfrac12) A / \pi`.
    """
    box = tuple((low - MARGIN, high + MARGIN) for low, high in bounds)
    cell = math.prod(high - low for low, high in box) / cells**2
    x = midpoints(box, cells, torch.float64)
    p = on_grid(log_prob, box, cells, dtype=torch.float64).exp().flatten()
    p = p / p.sum()
    squares = (torch.arange(len(p), dtype=torch.float64) + 0.5) * cell / math.pi
    sigma2 = p.sort(descending=True).values @ squares / 2
    covariance = torch.cov(x.T, correction=0, aweights=p)
    volume = (2 * math.pi * math.e * sigma2).log()
    return Floors(volume.item(), (2 * math.pi * math.e * covariance).logdet().item() / 2)


@cache
def floors_of(target: str) -> Floors:
    """The floors of a target of the page."""
    return floors(TARGETS[target].log_prob, TARGETS[target].bounds)


@table("one-target-volume", "one_target", "nats", "entropy", "floor", "NICE", "Gaussian")
def volume(found: Row) -> Iterator[tuple[str, ...]]:
    """What no map that keeps volume, but for one scaling, can go below, beside NICE and the best Gaussian."""
    for target, entropy in found["entropy"].items():
        least, nice = floors_of(target), middle(rows_of(found, target)["nice"])
        values = (entropy, least.volume, nice["nll"][0], least.gaussian)
        yield target, *(f"{value:.3f}" for value in values)


@table("one-target-cost", "one_target", "", "parameters", "steps", "training", "20,000 samples")
def cost(found: Row) -> Iterator[tuple[str, ...]]:
    """Parameters, steps, and the CPU times of training and of 20,000 samples: medians over all targets and seeds."""
    for name in dict.fromkeys(run["row"] for run in found["runs"]):
        runs = [run for run in found["runs"] if run["row"] == name]
        training, sampling = (median(run[key] for run in runs) for key in ("cpu seconds", "sampling"))
        sizes = (f"{runs[0][key]:,}" for key in ("parameters", "steps"))
        yield label(name), *sizes, f"{training:.0f} s", f"{sampling:.2f} s"


@table("one-target-glow", "glow_mnist", *MNIST, "training")
def glow(mnist: Row) -> Iterator[tuple[str, ...]]:
    """Bits per dimension of the test images beside the published value, and what it took."""
    yield here(mnist, mnist["seconds"])
    yield "published", PUBLISHED, "", "", ""


@table("one-target-interpolant", "interpolant_mnist", *MNIST, "CPU time")
def digits(mnist: Row) -> Iterator[tuple[str, ...]]:
    """Bits per dimension by the interpolant beside published values, and what it took."""
    yield here(mnist, mnist["cpu seconds"])
    for name, bits in mnist["published"].items():
        yield name, f"{bits:.2f}", "", "", ""


def here(mnist: Row, seconds: float) -> tuple[str, ...]:
    size, took = f"{mnist['parameters']:,}", f"{seconds / 60:.0f} min"
    return "here", error_bar(mnist["bits_per_dim"]), mnist["draws"], size, took


@sentence("one-target-interpolant-measured", "interpolant_mnist")
def judged(mnist: Row) -> str:
    """On how many images, how exactly, and where."""
    return (
        f"Judged on {mnist['images']:,} test images, with {mnist['nfe']:.0f} evaluations of the field and its "
        f"divergence at tolerance {mnist['tolerance']:g}; at half of it the value of the first fifty images changes "
        f"by {abs(mnist['change at half the tolerance']):.1g}. Samples took {mnist['nfe of samples']} evaluations. "
        f"Training took {mnist['steps']:,} steps of {mnist['settings']['batch']} images, "
        f"{mnist['seconds'] / 60:.0f} minutes by the clock of a machine that had other work too.\n\n"
    ) + where(mnist["machine"], {}, "python scripts/interpolant_mnist.py")
