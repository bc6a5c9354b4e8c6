"""The page "one target, every model": densities after a minute, and two runs on MNIST."""

from collections.abc import Iterator
from functools import partial
from statistics import median

from cnflib.data import toy
from measured.tables import Row, error_bar, machine, middle, scatter, sentence, table, where, worst_mass

TARGETS = {"checkerboard": toy.checkerboard, "eight_gaussians": toy.eight_gaussians, "moons": toy.moons}
CODE = {"nice", "realnvp", "glow", "maf", "iaf"}
PUBLISHED = "1.05"  # bits/dim of Glow on MNIST, in Grathwohl et al. (2018)
MNIST = ("", "bits/dim", "$K$", "parameters")

machine("one-target-measured", "one_target", "python benchmarks/one_target.py")
machine("one-target-glow-measured", "glow_mnist", "python scripts/glow_mnist.py")


def rows_of(found: Row, target: str) -> dict[str, list[Row]]:
    """The runs of each row on one target, best row first by its median."""
    runs = [run for run in found["runs"] if run["target"] == target]
    rows = {run["row"]: [r for r in runs if r["row"] == run["row"]] for run in runs}
    return dict(sorted(rows.items(), key=lambda item: middle(item[1])["nll"][0]))


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


@table("one-target-cost", "one_target", "", "parameters", "steps", "20,000 samples")
def cost(found: Row) -> Iterator[tuple[str, ...]]:
    """Parameters, steps in the minute and the time of 20,000 samples: medians over all targets and seeds."""
    for name in dict.fromkeys(run["row"] for run in found["runs"]):
        runs = [run for run in found["runs"] if run["row"] == name]
        steps, sampling = (median(run[key] for run in runs) for key in ("steps", "sampling"))
        yield label(name), f"{runs[0]['parameters']:,}", f"{steps:,.0f}", f"{sampling:.2f} s"


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
