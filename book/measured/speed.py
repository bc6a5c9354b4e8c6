"""The page on speed, first part: continuous flows beside other libraries."""

from collections.abc import Callable, Iterator

from measured.tables import (
    Row,
    by,
    digits,
    error_bar,
    machine,
    middle,
    power,
    sentence,
    small,
    table,
    worst_mass,
)

ACTS = {"training": "training step", "log_prob": "log-density", "sampling": "sam&shy;pling"}
MEASURED = ("training", "log_prob")
SMALL = r"error, $10^{-5}$"
ADJOINT = {"zuko": "zuko, adaptive checkpoint adjoint"}  # where a name does not say it

machine("speed-measured", "continuous")
machine("speed-quality-measured", "quality")


def widest(case: Row) -> str:
    """How far apart quartiles are at most, and how long compiling takes."""
    cells = [row[act]["ms"] for row in case["rows"] for act in ACTS if act in row]
    wide = max((high - low) / median for median, low, high in cells)
    waits = [digits(row["first call, s"], 2) for row in case["rows"] if "compiled" in row["row"]]
    return (
        f"\nIn the widest cell the quartiles are {digits(100 * wide, 2)} % of the median apart. The first calls "
        f"of the two compiled rows took {' and '.join(waits)} s.\n"
    )


@table("speed-times", "continuous", "ms", *ACTS.values(), SMALL, cases=by("cost"), note=widest)
def times(case: Row) -> Iterator[tuple[str, ...]]:
    """Medians in ms of a training step, log_prob and sampling, with the largest error of log p."""
    for row in case["rows"]:
        ms = (digits(row[act]["ms"][0], 2) if act in row else "–" for act in ACTS)
        yield row["row"], *ms, small(row["error"]) if row["error"] else "exact"


@sentence("speed-summary", "continuous")
def summary(speed: Row) -> str:
    """Geometric means of the ratios to the fastest eager peer, and the row that does worst."""
    said = "; ".join(
        f"*{name}*: {digits(found['mean'], 2)}, at worst {digits(found['worst'], 2)}"
        for name, found in speed["summary"].items()
    )
    return f"Time over that of the fastest eager peer in the same column, geometric mean of the six columns: {said}.\n"


def over(key: str, unit: str) -> Callable[[Row], list[str]]:
    """A column for each case under a key."""
    return lambda speed: [unit, *(case["title"].split(",")[0] for case in speed[key])]


@table("speed-equal-error", "continuous", over("equal error", "ms"))
def equal_error(speed: Row) -> Iterator[tuple[str, ...]]:
    """ms of the log-density at one error for all, that of the jitted diffrax; fastest first in the first case."""
    cases = [case["ms"] for case in speed["equal error"]]
    for name in sorted(cases[0], key=cases[0].__getitem__):
        yield name, *(digits(ms[name], 2) if name in ms else "–" for ms in cases)


@table("speed-evaluations", "continuous", over("cost", "evalu&shy;ations"))
def evaluations(speed: Row) -> Iterator[tuple[str, ...]]:
    """How often a log-density evaluates the field."""
    counts = [{row["row"]: row["nfe"] for row in case["rows"] if row["nfe"]} for case in speed["cost"]]
    for name in counts[0]:
        yield name, *(nfe[name] for nfe in counts)


@table("speed-memory", "continuous", over("memory", "MiB"))
def peak(speed: Row) -> Iterator[tuple[str, ...]]:
    """MiB of live tensors at the peak of a training step."""
    held = [{row["row"]: row["MiB"] for row in case["rows"]} for case in speed["memory"]]
    for name in held[0]:
        yield ADJOINT.get(name, name), *(digits(size[name], 3) for size in held)


def rate(speed: Row) -> list[str]:
    """The machine's own rate of matrix products."""
    return [f"of {digits(speed['GFLOP/s'], 2)} GFLOP/s", *(ACTS[act] for act in MEASURED)]


@table("speed-shares", "continuous", rate)
def shares(speed: Row) -> Iterator[tuple[str, ...]]:
    """What part of that rate is reached."""
    for case in speed["cost"]:
        for row in case["rows"]:
            if "share" in row.get("training", {}):
                label = f"{case['title'].split(',')[0]}, {row['row']}"
                yield label, *(f"{100 * row[act]['share']:.0f} %" for act in MEASURED)


def alone(case: Row) -> str:
    """How far a row's base point depends on its batch, with steps in common and of its own."""
    changes = [row["change with its batch"] for row in case["rows"].values()]
    if None in changes:
        return ""
    common, own = map(power, changes)
    return (
        "\nWhen a row is solved alone and not in its batch, its base point $z$ moves, at $D = 2$ and over 32 rows by "
        f"at most {common} with common steps and {own} with steps of its own.\n"
    )


OWN = ("ms", *(ACTS[act] for act in MEASURED), "evalu&shy;ations", SMALL)


@table("speed-own-steps", "continuous", *OWN, cases=by("own steps"), note=alone)
def own_steps(case: Row) -> Iterator[tuple[str, ...]]:
    """Common steps beside steps of its own for every row."""
    for name, row in case["rows"].items():
        yield name, *(digits(row[act][0], 2) for act in MEASURED), row["nfe"], small(row["error"])


@table("speed-quality", "quality", "nats", "NLL", "steps", "mass")
def at_the_end(quality: Row) -> Iterator[tuple[str, ...]]:
    """NLL at the end of training, median over seeds, its standard error over points, the steps and the worst mass."""
    for target, entropy in quality["entropy"].items():
        for name in dict.fromkeys(curve["row"] for curve in quality["curves"]):
            curves = [c for c in quality["curves"] if (c["target"], c["row"]) == (target, name)]
            end = middle([curve["curve"][-1] for curve in curves])
            yield f"{target}, {name}", error_bar(end["nll"]), end["steps"], f"{worst_mass(curves):.4f}"
        yield f"{target}, entropy", f"{entropy:.3f}", "", ""
