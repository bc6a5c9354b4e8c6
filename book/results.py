"""The tables of the pages on costs and speed, made from what the benchmarks wrote: a function each, Markdown out."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence

from cnflib_book import ROOT

RESULTS = ROOT / "benchmarks/results"
KINDS = {"with gradient": "training", "without": "evaluation"}  # the benchmark's names and the page's
NAMES = ("Rademacher", "Gaussian", "Hutch++")
PLACES = ("in x", "in the layer")
ACTS = {"training": "training step", "log_prob": "log-density", "sampling": "sam&shy;pling"}
ADJOINT = {"zuko": "zuko, adaptive checkpoint adjoint"}  # where a name does not say it
SMALL = r"error, $10^{-5}$"
MEASURED = ("training", "log_prob")
ROUNDING = 1e-4  # a standard deviation below this is 0 but for rounding in float32
Row = dict[str, object]

# Labels of the benchmarks as the page shows them; what is not here stays as it is. At a soft hyphen (shy) a long word
# may break on a phone.
TYPESET = {
    "(-1)^k / k^2": "$(-1)^k / k^2$",
    "1/k^2": "$1/k^2$",
    "the same W V": "the same $W V$",
    "W V x, V and W": "$W V x$, $V$ and $W$",
    "W = V^T, rows of V": r"$W = V^\top$, rows of $V$",
    "N(0, 1/D)": "$N(0, 1/D)$",
    "N(0, 1)": "$N(0, 1)$",
    " x ": " × ",
    "rotation (skew)": "skew (field of a rotation)",
    "bottleneck at 64, 1 probe": "bottleneck, layer of 64, 1 probe",
    "hutchinson": "Hutchin&shy;son",
    "hutchpp": "Hutch++",
    "Rademacher": "Rade&shy;macher",
    "convolutional": "convo&shy;lutional",
    "checkpointed": "check&shy;pointed",
    "eight_gaussians": "eight Gaussians",
    "eigenvalues": "eigen&shy;values",
    "independent": "inde&shy;pendent",
    "initialisation": "initiali&shy;sation",
    "orthonormal": "ortho&shy;normal",
}


def pages() -> dict[str, str]:
    """What the page includes: Markdown by name."""
    traces, gradients = load("divergences"), load("gradients")
    speed, quality, discrete = load("continuous"), load("quality"), load("discrete")
    regression, pairs = load("interpolants"), load("pairing")
    return {
        "costs-traces-measured": measured(traces["machine"]),
        "costs-exact": exact(traces["time"]),
        "costs-scatter": scatter(traces["scatter"]),
        "costs-agreement": agreement(traces["scatter"], traces["bottleneck"]),
        "costs-bottleneck-gaussian": bottleneck(traces["bottleneck"], "Gaussian"),
        "costs-bottleneck-rademacher": bottleneck(traces["bottleneck"], "Rademacher"),
        "costs-estimates": estimates(traces["time"], "D = 64,"),
        "costs-products-training": products(traces["time"], "with gradient"),
        "costs-products-evaluation": products(traces["time"], "without"),
        "costs-gradients-measured": measured(gradients["machine"]),
        "costs-gradients": by_case(gradients["cost"], gradient),
        "costs-adjoint": adjoint(gradients["cost"]),
        "costs-memory": by_case(gradients["memory"], memory),
        "speed-measured": measured(speed["machine"], speed["packages"]),
        "speed-times": by_case(speed["cost"], times),
        "speed-summary": summary(speed),
        "speed-evaluations": evaluations(speed["cost"]),
        "speed-shares": shares(speed),
        "speed-equal-error": equal_error(speed["equal error"]),
        "speed-memory": peak(speed["memory"]),
        "speed-own-steps": by_case(speed["own steps"], own_steps),
        "speed-quality": quality_at_the_end(quality),
        "speed-quality-measured": measured(quality["machine"]),
        "discrete-parameters": parameters(discrete["cost"]),
        "discrete-check": checked(discrete["check"]),
        "discrete-ratios": ratios(discrete["cost"]),
        "discrete-summary": losing(discrete["summary"]),
        **{f"discrete-{act}": libraries(discrete["cost"], act) for act in (*ACTS, "MiB")},
        "discrete-measured": measured(discrete["machine"], discrete["packages"]),
        "flow-matching-times": by_dimension(regression["runs"]),
        "flow-matching-summary": beside(regression),
        "flow-matching-measured": measured(
            {**regression["machine"], "threads": regression["runs"][0]["threads"]}, regression["packages"]
        ),
        "pairing-times": pairing(pairs["cost"]),
        "pairing-summary": optimal(pairs),
        "pairing-measured": measured(pairs["machine"], pairs["packages"]),
    }


def load(name: str) -> dict[str, object]:
    """What a benchmark wrote."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        folder = "scripts" if (ROOT / f"scripts/{name}.py").exists() else "benchmarks"
        raise SystemExit(
            f"benchmarks/results/{name}.json is missing, of which the book shows tables: restore it with "
            f"'git checkout benchmarks/results', or measure again with 'python {folder}/{name}.py'."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def measured(machine: Row, packages: Row | None = None, command: str = "make bench") -> str:
    """Where and when the numbers were taken, with what, and how to take them again."""
    others = "".join(f"{name} {version}, " for name, version in (packages or {}).items())
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}"
    where = f"{threads} of {machine['cpu']}, PyTorch {machine['torch']}, {others}{machine['date']}"
    return f"Measured on {where}; `{command}` measures again.\n"


# The trace.


def exact(times: list[Row]) -> str:
    """Time of the exact trace over that of one probe, by dimension."""
    ways = {(row["field"], row["divergence"], row["product"]): row for row in times}
    rows = []
    for (field, name, product), row in ways.items():
        if (name, product) == ("exact", "own tangents"):
            probe = ways[field, "hutchinson, 1 probe", product]
            ratios = (row[kind]["ms"][0] / probe[kind]["ms"][0] for kind in KINDS)
            rows.append([short(field), *(digits(ratio, 2) for ratio in ratios)])
    return table(["exact : one probe", *KINDS.values()], rows)


def scatter(rows: list[Row]) -> str:
    """Standard deviations at equal numbers of products."""
    return table(
        ["Jacobian", *NAMES], ([row["matrix"], *deviations(row[n][0] for n in NAMES)] for row in rows)
    )


def agreement(rows: list[Row], narrow: list[Row]) -> str:
    """How far the measured standard deviations are from their formulas."""
    pairs = [row[name] for row in rows for name in NAMES]
    pairs += [row[noise][place] for row in narrow for noise in NAMES[:2] for place in PLACES]
    worst = max(abs(found / formula - 1) for found, formula in pairs if formula > ROUNDING)
    return (
        "Here and in the tables of the bottleneck below, a measured deviation differs from its formula by at most "
        f"{100 * worst:.1f} %, and is 0 where the formula is. (For Hutch++ the formula is that of the rest, averaged "
        "over sketches.)\n"
    )


def bottleneck(rows: list[Row], noise: str) -> str:
    """Standard deviations with the probe in x and in the layer, for one law of the probe."""
    head = [f"{noise} probe", "in $x$", "in the layer"]
    return table(head, ([row["field"], *deviations(row[noise][p][0] for p in PLACES)] for row in rows))


def estimates(times: list[Row], dim: str) -> str:
    """Milliseconds of one evaluation in one dimension: by the net's own tangents, where the estimate takes them."""
    rows = [row for row in times if dim in row["field"]]
    own = {row["divergence"] for row in rows if row["product"] == "own tangents"}
    shown = [row for row in rows if row["product"] == "own tangents" or row["divergence"] not in own]
    cells = ([row["divergence"], *(spread(row[kind]["ms"]) for kind in KINDS)] for row in shown)
    return table(["ms", *KINDS.values()], cells)


def products(times: list[Row], kind: str) -> str:
    """Time of both forward modes over that of reverse mode."""
    ratios = {(row["field"], row["divergence"], row["product"]): row[kind]["ratio"] for row in times}
    rows = []
    for (field, name, product), ratio in ratios.items():
        if product == "torch.func.jvp" and (own := ratios.get((field, name, "own tangents"))):
            label = f"{short(field)}, {name.removeprefix('hutchinson, ')}"
            rows.append([label, digits(own, 2), digits(ratio, 2)])
    return table([KINDS[kind], "own tangents", "func.jvp"], rows)


# The gradient.


def by_case(measured: list[Row], show: Callable[[list[Row]], str]) -> str:
    """One table for each case, under its title."""
    return "\n".join(f"*{typeset(case['title'])}*\n\n{show(case['rows'])}" for case in measured)


def gradient(rows: list[Row]) -> str:
    """Time of a training step, its ratio, evaluations forward + backward, relative error of the gradient."""
    cells = (
        [
            row["gradient"],
            spread(row["ms"]),
            digits(row["ratio"], 3),
            "&nbsp;+&nbsp;".join(map(str, row["nfe"])),
            digits(1e6 * row["error"], 2),
        ]
        for row in rows
    )
    return table(["training step", "ms", "ratio", "NFE", "error × 10⁶"], cells)


def adjoint(cost: list[Row]) -> str:
    """How close the adjoint comes to backpropagation when both are solved tightly."""
    apart = max(case["float64 adjoint from backprop"] for case in cost)
    power = math.ceil(math.log10(apart))
    return (
        "In float64 at tolerance $10^{-10}$ the gradients of dopri5 by backpropagation and by the adjoint agree to a "
        f"relative $10^{{{power}}}$.\n"
    )


def memory(rows: list[Row]) -> str:
    """Peak memory by the number of steps."""
    asked = rows[0]["steps"]
    cells = ([row["gradient"], *(digits(size, 3) for size in row["MiB"])] for row in rows)
    others = sorted({tuple(row["steps"]) for row in rows} - {tuple(asked)})
    notes = (f"\nThe adaptive solves took {', '.join(map(str, steps))} steps.\n" for steps in others)
    return table(["MiB", *(f"{steps} steps" for steps in asked)], cells) + "".join(notes)


# What is in a table.


# Speed.


def times(rows: list[Row]) -> str:
    """Medians in ms of a training step, log_prob and sampling, with the largest error of log p."""
    cells = (
        [
            row["row"],
            *(digits(row[kind]["ms"][0], 2) if kind in row else "–" for kind in ACTS),
            small(row["error"]) if row["error"] else "exact",
        ]
        for row in rows
    )
    text = table(["ms", *ACTS.values(), SMALL], cells)
    wide = max(
        (row[k]["ms"][2] - row[k]["ms"][1]) / row[k]["ms"][0] for row in rows for k in ACTS if k in row
    )
    first = {row["row"]: row["first call, s"] for row in rows}
    waits = " and ".join(digits(first[name], 2) for name in first if "compiled" in name)
    return text + (
        f"\nIn the widest cell the quartiles are {digits(100 * wide, 2)} % of the median apart. The first calls "
        f"of the two compiled rows took {waits} s.\n"
    )


def summary(speed: Row) -> str:
    """Geometric means of the ratios to the fastest eager peer, and the row that does worst."""
    said = (
        f"*{name}*: {digits(found['mean'], 2)}, at worst {digits(found['worst'], 2)}"
        for name, found in speed["summary"].items()
    )
    return (
        "Time over that of the fastest eager peer in the same column, geometric mean of the six columns: "
        + "; ".join(said)
        + ".\n"
    )


def equal_error(cases: list[Row]) -> str:
    """ms of the log-density at one error for all, that of the jitted diffrax; fastest first in the first case."""
    names = sorted(cases[0]["ms"], key=cases[0]["ms"].__getitem__)
    cells = ([name, *(digits(c["ms"][name], 2) if name in c["ms"] else "–" for c in cases)] for name in names)
    return table(["ms", *(case["title"].split(",")[0] for case in cases)], cells)


def evaluations(cases: list[Row]) -> str:
    """How often a log-density evaluates the field."""
    count = [{row["row"]: str(row["nfe"]) for row in case["rows"] if row["nfe"]} for case in cases]
    rows = ([name, *(column[name] for column in count)] for name in count[0])
    return table(["evalu&shy;ations", *(case["title"].split(",")[0] for case in cases)], rows)


def shares(speed: Row) -> str:
    """What part of the machine's own rate of matrix products is reached."""
    rows = [
        [
            f"{case['title'].split(',')[0]}, {row['row']}",
            *(f"{100 * row[k]['share']:.0f} %" for k in MEASURED),
        ]
        for case in speed["cost"]
        for row in case["rows"]
        if "share" in row.get("training", {})
    ]
    return table([f"of {digits(speed['GFLOP/s'], 2)} GFLOP/s", *(ACTS[k] for k in MEASURED)], rows)


def peak(cases: list[Row]) -> str:
    """MiB of live tensors at the peak of a training step."""
    names = [row["row"] for row in cases[0]["rows"]]
    columns = [{row["row"]: digits(row["MiB"], 3) for row in case["rows"]} for case in cases]
    return table(
        ["MiB", *(case["title"].split(",")[0] for case in cases)],
        ([ADJOINT.get(name, name), *(column[name] for column in columns)] for name in names),
    )


def own_steps(rows: Row) -> str:
    """Common steps beside steps of its own for every row."""
    cells = (
        [
            name,
            *(digits(row[kind][0], 2) for kind in MEASURED),
            str(row["nfe"]),
            small(row["error"]),
        ]
        for name, row in rows.items()
    )
    changes = [row["change with its batch"] for row in rows.values()]
    text = table(["ms", *(ACTS[kind] for kind in MEASURED), "evalu&shy;ations", SMALL], cells)
    if None in changes:
        return text
    common, own = map(power, changes)
    return text + (
        "\nWhen a row is solved alone and not in its batch, its base point $z$ moves, at $D = 2$ and over 32 rows by "
        f"at most {common} with common steps and {own} with steps of its own.\n"
    )


def quality_at_the_end(quality: Row) -> str:
    """NLL at the end of training, median over seeds, its standard error over points, the steps and the worst mass."""
    rows = []
    for target, entropy in quality["entropy"].items():
        for name in dict.fromkeys(c["row"] for c in quality["curves"]):
            curves = [c for c in quality["curves"] if (c["target"], c["row"]) == (target, name)]
            ends = sorted((c["curve"][-1] for c in curves), key=lambda p: p["nll"][0])
            end = ends[len(ends) // 2]
            mass = max((c["mass"] for c in curves), key=lambda m: abs(m - 1))
            nll, error = end["nll"]
            rows.append([f"{target}, {name}", f"{nll:.3f} ± {error:.3f}", str(end["steps"]), f"{mass:.4f}"])
        rows.append([f"{target}, entropy", f"{entropy:.3f}", "", ""])
    return table(["nats", "NLL", "steps", "mass"], rows)


# Speed of discrete flows.


def parameters(cases: list[Row]) -> str:
    """How many parameters a flow has, the same in all libraries; a row a kind, a column a dimension."""
    counts = {tuple(case["title"].split(", ")): case["rows"][0]["parameters"] for case in cases}
    kinds, dims = (list(dict.fromkeys(parts)) for parts in zip(*counts, strict=True))
    rows = ([kind, *(f"{counts[kind, dim]:,}" for dim in dims)] for kind in kinds)
    return table(["parameters", *dims], rows)


def checked(cases: list[Row]) -> str:
    """How right the flows are, over libraries, kinds and dimensions."""
    rows = [row for case in cases for row in case["rows"]]
    inverse, log_prob = (power(max(row[name] for row in rows)) for name in ("inverse", "log_prob"))
    mass = power(max(abs(row["mass"] - 1) for row in rows if "mass" in row))
    return (
        f"In double precision no inverse of any library errs by more than {inverse}, no $\\log p$ differs by more "
        f"than {log_prob} from that with the Jacobian of autograd, and no mass of a density in two dimensions, on a "
        f"grid, is off 1 by more than {mass}.\n"
    )


def ratios(cases: list[Row]) -> str:
    """cnflib over the best peer in time and in memory; in bold where it is worse."""
    rows = []
    for case in cases:
        peers = {row["row"]: row for row in case["rows"]}
        ours = peers.pop("cnflib")
        held = ours["MiB"] / min(row["MiB"] for row in peers.values())
        values = [*(ours[act]["ratio"] for act in ACTS), held]
        rows.append([case["title"], *(bold(f"{value:.2f}", value > 1) for value in values)])
    return table(["cnflib : best peer", *ACTS.values(), "memory"], rows)


def losing(found: Row) -> str:
    """The means of the ratios, the worst, and how many lose."""
    means = ", ".join(f"{digits(found[act], 2)} for the {ACTS[act]}" for act in ACTS)
    text = (
        f"Geometric mean of all ratios of times: {digits(found['mean'], 2)}; {means.replace('&shy;', '')}. Of memory: "
        f"{digits(found['memory']['mean'], 2)}, at worst {digits(found['memory']['worst'], 3)}. "
    )
    if not found["losing"]:
        return text + f"*cnflib* is slower nowhere; its worst ratio is {digits(found['worst'], 3)}.\n"
    where = sorted(found["losing"], key=lambda row: -row[-1])
    slower = "; ".join(
        f"{typeset(title)}, {ACTS[act].replace('&shy;', '')} ({digits(ratio, 3)})"
        for title, act, ratio in where
    )
    return text + f"*cnflib* is slower than the fastest peer here: {slower}.\n"


def libraries(cases: list[Row], act: str) -> str:
    """A column a library: milliseconds of one act, or MiB; the best in bold."""
    names = [row["row"] for row in cases[0]["rows"]]
    rows = []
    for case in cases:
        values = [row[act] if act == "MiB" else row[act]["ms"][0] for row in case["rows"]]
        cells = (bold(digits(value, 3), value == min(values)) for value in values)
        rows.append([case["title"], *cells])
    return table(["MiB" if act == "MiB" else "ms", *names], rows)


# Speed of flow matching.

SOLVED = {"training": "training step", "midpoint, 20 steps": "midpoint", "dopri5, 1e-5": "dopri5"}
SOLVERS = ("cnflib", "torchcfm", "POT", "SciPy", "lapx")  # of the pairing; the last two share a column


def by_dimension(runs: list[Row]) -> str:
    """One table for each dimension: a row a library, medians in ms of a training step and of sampling two ways."""
    return "\n".join(f"*$D = {run['dim']}$*\n\n{regression(run['rows'])}" for run in runs)


def regression(rows: list[Row]) -> str:
    least = {act: min(row[act]["ms"][0] for row in rows) for act in SOLVED}
    cells = (
        [row["row"], *(bold(digits(row[act]["ms"][0], 3), row[act]["ms"][0] == least[act]) for act in SOLVED)]
        for row in rows
    )
    cells = ([*cell, small(row["error"])] for cell, row in zip(cells, rows, strict=True))
    return table(["ms", *SOLVED.values(), SMALL], cells)


def beside(found: Row) -> str:
    """The means of the ratios to the fastest peer, the worst, and how far the rows agree."""
    said = "; ".join(
        f"*{name}*: training {mean_ratio(found, name, ['training'])}, sampling "
        f"{mean_ratio(found, name, [act for act in SOLVED if act != 'training'])}, all "
        f"{digits(ratio['mean'], 2)}, at worst {digits(ratio['worst'], 3)}"
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


def pairing(cases: list[Row]) -> str:
    """One table for each dimension: milliseconds of a batch, a column a library, the best in bold."""
    tables: dict[str, list[list[str]]] = {}
    for case in cases:
        points, dim = case["title"].split(" points, ")
        ms = {row["row"]: row["ms"][0] for row in case["rows"]}
        *whole, last, other = (bold(digits(ms[name], 3), ms[name] == min(ms.values())) for name in SOLVERS)
        tables.setdefault(dim, []).append([points, *whole, f"{last} / {other}"])
    head = ["ms, points", *SOLVERS[:-2], " / ".join(SOLVERS[-2:])]
    return "\n".join(f"*{typeset(dim)}*\n\n{table(head, rows)}" for dim, rows in tables.items())


def optimal(found: Row) -> str:
    """The means of the ratios of times, the worst, and how far the costs are from that of POT's exact solver."""
    said = "; ".join(
        f"over *{name}* {digits(ratio['mean'], 2)}, at worst {digits(ratio['worst'], 2)}"
        for name, ratio in found["summary"].items()
    )
    excess = {
        name: max(abs(row["excess"]) for case in found["cost"] for row in case["rows"] if row["row"] == name)
        for name in SOLVERS[:2]
    }
    return (
        f"Time of *cnflib*, geometric mean of the {len(found['cost'])} rows: {said}. The cost of its pairs differs "
        f"from that of POT's exact solver by at most {power(excess['cnflib'])} of it, that of torchcfm's plan by "
        f"{power(excess['torchcfm'])}, where it stops early.\n"
    )


def bold(cell: str, which: bool) -> str:
    return f"**{cell}**" if which else cell


# Pieces.


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: first a column of labels, then columns of numbers."""
    lines = [map(typeset, head), ["---", *["--:"] * (len(head) - 1)]]
    lines += [[typeset(label), *numbers] for label, *numbers in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def typeset(label: str) -> str:
    """A label of the benchmarks with its mathematics typeset."""
    plain = "|".join(map(re.escape, TYPESET))
    label = re.sub(plain, lambda match: TYPESET[match[0]], label)
    return re.sub(r"\bD = \d+", r"$\g<0>$", label)


def short(field: str) -> str:
    """A field by its dimension, or by its kind where none is named."""
    return (re.search(r"D = \d+", field) or re.match(r"\w+", field))[0]


def digits(value: float, count: int) -> str:
    """A positive number to so many digits, all of its whole part, and no exponent."""
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(value)))}f}"


def spread(ms: Sequence[float]) -> str:
    """A median with its quartiles, which do not break apart."""
    middle, low, high = (digits(value, 3) for value in ms)
    return f"{middle} ({low}&NoBreak;–&NoBreak;{high})"


def small(value: float) -> str:
    """In units of 10^-5, as the head of its column says."""
    return digits(1e5 * value, 2)


def power(value: float) -> str:
    """Two digits and a power of ten, as 2.4e-05 says it."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"${mantissa} \\cdot 10^{{{int(exponent)}}}$"


def deviations(values: Iterable[float]) -> list[str]:
    """Standard deviations, in bold the least and what is within 5 % of it; 0 where there is rounding alone."""
    values = list(values)
    bound = max(1.05 * min(values), ROUNDING)
    cells = ["0" if value < ROUNDING else digits(value, 3) for value in values]
    return [f"**{cell}**" if value < bound else cell for cell, value in zip(cells, values, strict=True)]
