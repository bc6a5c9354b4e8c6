"""The page "one table, every model": densities of the power plant's five columns."""

from collections.abc import Iterator, Sequence
from statistics import median

from measured.tables import Row, bold, machine, middle, table
from measured.targets import label

BASELINES = ("Gaussian", "kernel density")

machine("one-table-measured", "one_table", "python benchmarks/one_table.py")


def rows_of(found: Row) -> dict[str, list[Row]]:
    """The runs of each row, best row first by its median."""
    rows = {run["row"]: [r for r in found["runs"] if r["row"] == run["row"]] for run in found["runs"]}
    return dict(sorted(rows.items(), key=lambda item: middle(item[1])["nll"][0]))


def named(name: str) -> str:
    return bold(name, True) if name in BASELINES else label(name)


def short(pair: Sequence[float]) -> str:
    """An estimate with its standard error, to hundredths."""
    return f"{pair[0]:.2f} ± {pair[1]:.2f}".replace("-", "−")


@table("one-table", "one_table", "nats", "test NLL", "seeds", "over the Gaussian", "over the kernel density")
def quality(found: Row) -> Iterator[tuple[str, ...]]:
    """NLL of the median seed, the range of the seeds, paired differences of the median seed to both baselines."""
    for name, runs in rows_of(found).items():
        run, values = middle(runs), [run["nll"][0] for run in runs]
        seeds = f"{min(values):.2f} … {max(values):.2f}" if name not in BASELINES else ""
        differences = [short(run[f"over the {other}"]) if name != other else "" for other in BASELINES]
        yield named(name), short(run["nll"]), seeds, *differences


@table("one-table-cost", "one_table", "", "parameters", "steps", "CPU, s", "training NLL")
def cost(found: Row) -> Iterator[tuple[str, ...]]:
    """Parameters, steps and their CPU time, and the NLL of the training rows: medians over the seeds."""
    for name, runs in rows_of(found).items():
        if name not in BASELINES:
            seconds = median(run["cpu seconds"] for run in runs)
            training = median(run["training nll"][0] for run in runs)
            size, steps = f"{runs[0]['parameters']:,}", f"{runs[0]['steps']:,}"
            yield label(name), size, steps, f"{seconds:.0f}", f"{training:.2f}"
