"""The page "one table, every model": densities of the power plant's five columns."""

from collections.abc import Iterator
from functools import partial
from statistics import median

from measured.tables import Row, bold, by_row, error_bar, machine, middle, scatter, table
from measured.targets import label

BASELINES = ("Gaussian", "kernel density")
hundredths = partial(error_bar, after=2, decimals=2)

machine("one-table-measured", "one_table", "python benchmarks/one_table.py")


def named(name: str) -> str:
    return bold(name, True) if name in BASELINES else label(name)


@table("one-table", "one_table", "nats", "test NLL", "seeds", "over the Gaussian", "over the kernel density")
def quality(found: Row) -> Iterator[tuple[str, ...]]:
    """NLL of the median seed, the range of the seeds, paired differences of the median seed to both baselines."""
    for name, runs in by_row(found["runs"]).items():
        run, seeds = middle(runs), "" if name in BASELINES else scatter(runs, 2)
        differences = ["" if name == other else hundredths(run[f"over the {other}"]) for other in BASELINES]
        yield named(name), hundredths(run["nll"]), seeds, *differences


@table("one-table-cost", "one_table", "", "parameters", "steps", "CPU, s", "training NLL")
def cost(found: Row) -> Iterator[tuple[str, ...]]:
    """Parameters, steps and their CPU time, and the NLL of the training rows: medians over the seeds."""
    for name, runs in by_row(found["runs"]).items():
        if name not in BASELINES:
            seconds = median(run["cpu seconds"] for run in runs)
            training = median(run["training nll"][0] for run in runs)
            size, steps = f"{runs[0]['parameters']:,}", f"{runs[0]['steps']:,}"
            yield label(name), size, steps, f"{seconds:.0f}", f"{training:.2f}"
