"""The page on speed, second part: discrete flows, flow matching and pairings beside other libraries."""

import math
from collections.abc import Iterable, Iterator
from functools import partial

from measured.speed import ACTS, SMALL
from measured.tables import Row, bold, digits, least, machine, power, sentence, small, table, typeset, where

SOLVED = {"training": "training step", "midpoint, 20 steps": "midpoint", "dopri5, 1e-5": "dopri5"}
SOLVERS = ("cnflib", "torchcfm", "POT", "SciPy", "lapx")  # of the pairing; the last two share a column

machine("discrete-measured", "discrete")
machine("pairing-measured", "pairing")


# Discrete flows.


def counts(discrete: Row) -> dict[str, dict[str, int]]:
    """How many parameters a flow has by kind and dimension, the same in all libraries."""
    found: dict[str, dict[str, int]] = {}
    for case in discrete["cost"]:
        kind, dim = case["title"].split(", ")
        found.setdefault(kind, {})[dim] = case["rows"][0]["parameters"]
    return found


@table("discrete-parameters", "discrete", lambda found: ["parameters", *next(iter(counts(found).values()))])
def parameters(discrete: Row) -> Iterator[tuple[str, ...]]:
    """A row a kind, a column a dimension."""
    for kind, sizes in counts(discrete).items():
        yield kind, *(f"{size:,}" for size in sizes.values())


@sentence("discrete-check", "discrete")
def checked(discrete: Row) -> str:
    """How right the flows are, over libraries, kinds and dimensions."""
    rows = [row for case in discrete["check"] for row in case["rows"]]
    inverse, log_prob = (power(max(row[name] for row in rows)) for name in ("inverse", "log_prob"))
    mass = power(max(abs(row["mass"] - 1) for row in rows if "mass" in row))
    return (
        f"In double precision no inverse of any library errs by more than {inverse}, no $\\log p$ differs by more "
        f"than {log_prob} from that with the Jacobian of autograd, and no mass of a density in two dimensions, on a "
        f"grid, is off 1 by more than {mass}.\n"
    )


@table("discrete-ratios", "discrete", "cnflib : best peer", *ACTS.values(), "memory")
def ratios(discrete: Row) -> Iterator[tuple[str, ...]]:
    """cnflib over the best peer in time and in memory; in bold where it is worse."""
    for case in discrete["cost"]:
        ours, *peers = case["rows"]
        held = ours["MiB"] / min(row["MiB"] for row in peers)
        values = [*(ours[act]["ratio"] for act in ACTS), held]
        yield case["title"], *(bold(f"{value:.2f}", value > 1) for value in values)


@sentence("discrete-summary", "discrete")
def losing(discrete: Row) -> str:
    """The means of the ratios, the worst, and how many lose."""
    found, plain = discrete["summary"], {act: shown.replace("&shy;", "") for act, shown in ACTS.items()}
    text = (
        f"Geometric mean of all ratios of times: {digits(found['mean'], 2)}; "
        f"{', '.join(f'{digits(found[act], 2)} for the {shown}' for act, shown in plain.items())}. Of memory: "
        f"{digits(found['memory']['mean'], 2)}, at worst {digits(found['memory']['worst'], 3)}. "
    )
    if not found["losing"]:
        return text + f"*cnflib* is slower nowhere; its worst ratio is {digits(found['worst'], 3)}.\n"
    slower = "; ".join(
        f"{typeset(title)}, {plain[act]} ({digits(ratio, 3)})"
        for title, act, ratio in sorted(found["losing"], key=lambda row: -row[-1])
    )
    return text + f"*cnflib* is slower than the fastest peer here: {slower}.\n"


def libraries(act: str, discrete: Row) -> Iterator[tuple[str, ...]]:
    """A column a library: milliseconds of one act, or MiB; the best in bold."""
    for case in discrete["cost"]:
        yield case["title"], *least([row[act] if act == "MiB" else row[act]["ms"][0] for row in case["rows"]])


def named(unit: str, discrete: Row) -> list[str]:
    """A column for each library."""
    return [unit, *(row["row"] for row in discrete["cost"][0]["rows"])]


for kind in (*ACTS, "MiB"):
    heads = partial(named, "MiB" if kind == "MiB" else "ms")
    table(f"discrete-{kind}", "discrete", heads)(partial(libraries, kind))


# Flow matching.


def by_dimension(found: Row) -> list[tuple[str, Row]]:
    return [(f"D = {run['dim']}", run) for run in found["runs"]]


@table("flow-matching-times", "interpolants", "ms", *SOLVED.values(), SMALL, cases=by_dimension)
def regression(run: Row) -> Iterator[tuple[str, ...]]:
    """Medians in ms of a training step and of sampling two ways; the best of a column in bold."""
    best = {act: min(row[act]["ms"][0] for row in run["rows"]) for act in SOLVED}
    for row in run["rows"]:
        ms = {act: row[act]["ms"][0] for act in SOLVED}
        yield (
            row["row"],
            *(bold(digits(ms[act], 3), ms[act] == best[act]) for act in SOLVED),
            small(row["error"]),
        )


@sentence("flow-matching-summary", "interpolants")
def beside(found: Row) -> str:
    """The means of the ratios to the fastest peer, the worst, and how far the rows agree."""
    training, *sampling = SOLVED
    said = "; ".join(
        f"*{name}*: training {mean_ratio(found, name, [training])}, sampling {mean_ratio(found, name, sampling)}, "
        f"all {digits(ratio['mean'], 2)}, at worst {digits(ratio['worst'], 3)}"
        for name, ratio in found["summary"].items()
    )
    same = max(run["deviation"][k] for run in found["runs"] for k in ("loss", "gradient", "ends"))
    return (
        "Time over that of the fastest peer in the same column, geometric means of the "
        f"{3 * len(found['runs'])} columns: {said}. Loss, gradient and the ends of the midpoint rule of all rows agree "
        f"to {power(max(same, 1e-12))}.\n"
    )


def mean_ratio(found: Row, name: str, acts: Iterable[str]) -> str:
    """The geometric mean of a row's ratios in some columns."""
    rows = [row for run in found["runs"] for row in run["rows"] if row["row"] == name]
    logs = [math.log(row[act]["ratio"]) for row in rows for act in acts]
    return digits(math.exp(sum(logs) / len(logs)), 3)


@sentence("flow-matching-measured", "interpolants")
def where_and_when(found: Row) -> str:
    return where({**found["machine"], "threads": found["runs"][0]["threads"]}, found["packages"])


# Pairings.


def paired(found: Row) -> list[tuple[str, list[Row]]]:
    """The cases of each dimension, each beside its number of points."""
    dims: dict[str, list[Row]] = {}
    for case in found["cost"]:
        points, dim = case["title"].split(" points, ")
        dims.setdefault(dim, []).append((points, case))
    return list(dims.items())


@table("pairing-times", "pairing", "ms, points", *SOLVERS[:-2], " / ".join(SOLVERS[-2:]), cases=paired)
def pairing(cases: list[Row]) -> Iterator[tuple[str, ...]]:
    """Milliseconds of a batch, the best in bold."""
    for points, case in cases:
        ms = {row["row"]: row["ms"][0] for row in case["rows"]}
        *most, last, other = least([ms[name] for name in SOLVERS])
        yield points, *most, f"{last} / {other}"


@sentence("pairing-summary", "pairing")
def optimal(found: Row) -> str:
    """The means of the ratios of times, the worst, and how far the costs are from that of POT's exact solver."""
    said = "; ".join(
        f"over *{name}* {digits(ratio['mean'], 2)}, at worst {digits(ratio['worst'], 2)}"
        for name, ratio in found["summary"].items()
    )
    rows = [row for case in found["cost"] for row in case["rows"]]
    ours, plan = (
        power(max(abs(row["excess"]) for row in rows if row["row"] == name)) for name in SOLVERS[:2]
    )
    return (
        f"Time of *cnflib*, geometric mean of the {len(found['cost'])} rows: {said}. The cost of its pairs differs "
        f"from that of POT's exact solver by at most {ours} of it, that of torchcfm's plan by {plan}, where it stops "
        "early.\n"
    )
