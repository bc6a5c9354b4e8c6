"""The page "interpolants, measured": its tables and its figure, from what three benchmarks wrote."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev

import matplotlib.pyplot as plt
import numpy as np
from results import Row, digits, load, measured, power, table
from targets import middle

from cnflib.plot import BASE, MODEL, TRAJECTORY, use_style

LOOKS = {
    "interpolant": (MODEL, "-", "o"),
    "likelihood, fixed steps": (TRAJECTORY, "-", "s"),
    "likelihood, adaptive adjoint": (BASE, "-", "^"),
}
PUBLISHED = {  # Tong et al. (2023): mean and standard deviation over five seeds, of what is compared here
    ("N to eight_gaussians", "independent"): {"NPE": (0.222, 0.032)},
    ("N to eight_gaussians", "optimal transport"): {"NPE": (0.018, 0.014)},
    ("moons to eight_gaussians", "independent"): {"NPE": (2.738, 0.181)},
    ("moons to eight_gaussians", "optimal transport"): {"NPE": (0.053, 0.035)},
    ("N to moons", "independent"): {"W2^2": (0.338, 0.109)},
    ("N to moons", "optimal transport"): {"W2^2": (0.239, 0.048)},
}
NAMES = {
    "N to ": r"$\mathcal N$ → ",
    "moons to ": "moons → ",
    "eight_gaussians": "eight Gaussians",
    "optimal transport": "OT",
}
LEVELS = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.075, 0.05, 0.03)  # nats above the entropy


def pages() -> dict[str, str]:
    """What the page includes: Markdown by name."""
    minute, race, energy = load("checkerboard"), load("ml_or_interpolant"), load("path_energy")
    command = "python benchmarks/{}.py".format
    return {
        "interpolants-minute": minute_table(minute),
        "interpolants-minute-checked": checked(minute),
        "interpolants-minute-measured": measured(minute["machine"], command=command("checkerboard")),
        "interpolants-race": reached(race),
        "interpolants-race-end": end(race),
        "interpolants-race-measured": measured(race["machine"], command=command("ml_or_interpolant")),
        "interpolants-energy": straightness(energy),
        "interpolants-energy-setting": setting(energy),
        "interpolants-energy-measured": measured(energy["machine"], command=command("path_energy")),
    }


# A minute on the checkerboard.


def minute_table(found: Row) -> str:
    """A row a seed, best first, and the median."""
    runs = sorted(found["runs"], key=lambda run: run["nll"][0])
    rows = [
        [
            f"seed {run['seed']}" + (", the median" if run is middle(runs) and len(runs) > 2 else ""),
            f"{run['nll'][0]:.3f} ± {run['nll'][1]:.3f}",
            f"{run['gap'][0]:.3f}",
            f"{run['mass']:.4f}",
            f"{run['steps']:,}",
        ]
        for run in runs
    ]
    return table(
        ["nats", "NLL", "gap", "mass", "steps"], [*rows, ["entropy", f"{found['entropy']:.3f}", "0", "1", ""]]
    )


def checked(found: Row) -> str:
    """The budget, and how far solver and grid can be trusted."""
    runs = found["runs"]
    change = max(run["change at half the tolerance"] for run in runs)
    grid = max(abs(run["mass"] - run["mass, fewer nodes"]) for run in runs)
    run = runs[0]
    return (
        f"Training took {run['budget']:g} seconds of {threads(run)}, of a net of {run['parameters']:,} parameters; "
        f"judged are {run['points']:,} fresh points. At half the tolerance $\\log p$ changes by "
        f"{power(max(change, 1e-12))} nats on average, and fewer nodes give the mass to "
        f"{power(max(grid, 1e-12))}.\n"
    )


def threads(run: Row) -> str:
    return "one thread" if run["threads"] == 1 else f"{run['threads']} threads"


# Likelihood or regression.


def curves(found: Row) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Seconds and NLL above the entropy of each row, medians over its seeds."""
    rows = {}
    for name in LOOKS:
        points = [
            [(p["seconds"], p["nll"][0]) for p in run["curve"]] for run in found["runs"] if run["row"] == name
        ]
        seconds, nll = np.median(points, 0).T
        rows[name] = (seconds, nll - found["entropy"])
    return rows


def time_to(curve: tuple[np.ndarray, np.ndarray], level: float) -> float:
    """Seconds to come this near, linear in their logarithm; inf if it does not, minus the first if it is there."""
    seconds, gap = curve
    near = np.flatnonzero(gap <= level)
    if not len(near):
        return math.inf
    k = near[0]
    if k == 0:
        return -float(seconds[0])
    share = (gap[k - 1] - level) / (gap[k - 1] - gap[k])
    return float(seconds[k - 1] ** (1 - share) * seconds[k] ** share)


def reached(found: Row) -> str:
    """Seconds of each row to come so near to the entropy, and the factor between likelihood and interpolant."""
    rows, drawn = [], curves(found)
    for level in LEVELS:
        times = {name: time_to(curve, level) for name, curve in drawn.items()}
        if sum(math.isfinite(t) for t in times.values()) < 1 or all(t < 0 for t in times.values()):
            continue
        rows.append([f"entropy + {level:g}", *map(shown, times.values()), factor(times)])
    names = ["inter&shy;polant", "likelihood, fixed steps", "likelihood, adjoint"]
    return table(["NLL, nats", *names, "best likelihood : inter&shy;polant"], rows)


def shown(seconds: float) -> str:
    """Seconds; "not reached", or "at once" where the first point is already nearer."""
    if seconds < 0:
        return f"< {digits(-seconds, 2)} s"
    return "–" if math.isinf(seconds) else f"{digits(seconds, 2)} s"


def factor(times: dict[str, float]) -> str:
    """How many times longer the faster likelihood takes; a bound where a time is one, nothing where both are."""
    first, *others = times.values()
    other = min(others, key=abs)
    if math.isinf(first) and math.isinf(other):
        return ""
    if math.isinf(first):
        return "–"
    if math.isinf(other):
        return "not reached"
    if other < 0:
        return ""
    return ("> " if first < 0 else "") + digits(abs(other / first), 2)


def end(found: Row) -> str:
    """The end of training: median over seeds, their range, and steps."""
    rows = []
    for name in LOOKS:
        runs = [run for run in found["runs"] if run["row"] == name]
        ends = sorted((run["curve"][-1] for run in runs), key=lambda p: p["nll"][0])
        value, error = ends[len(ends) // 2]["nll"]
        spread = f"{ends[0]['nll'][0]:.3f} … {ends[-1]['nll'][0]:.3f}" if len(ends) > 1 else "one seed"
        rows.append([name, f"{value:.3f} ± {error:.3f}", spread, f"{median(p['steps'] for p in ends):,.0f}"])
    seconds = f"after {found['runs'][0]['budget'][-1]:g} s"
    return table([seconds, "NLL", "seeds", "steps"], [*rows, ["entropy", f"{found['entropy']:.3f}", "", ""]])


# Straight paths.


def straightness(found: Row) -> str:
    """Normalised path energy and squared distance, mean and deviation over seeds, beside the published ones."""
    rows = []
    for (problem, pairing), published in PUBLISHED.items():
        runs = [r for r in found["runs"] if (r["problem"], r["pairing"]) == (problem, pairing)]
        cells = []
        for key in ("NPE", "W2^2"):
            cells += [scatter([run[key] for run in runs]), scatter(published.get(key, ()))]
        rows.append([ends(f"{problem}, {pairing}"), *cells])
    return table(["", "path energy", "pub&shy;lished", r"$W_2^2$", "pub&shy;lished"], rows)


def shorter(runs: list[Row], pairing: str) -> str:
    """In how many runs of a pairing the energy is below the squared distance of the ends."""
    chosen = [run for run in runs if NAMES.get(run["pairing"], run["pairing"]) == pairing]
    return f"{sum(run['energy'] < run['W2^2 of the ends'] for run in chosen)} of {len(chosen)} runs with"


def ends(name: str) -> str:
    """The two ends of a problem, typeset."""
    for plain, typeset in NAMES.items():
        name = name.replace(plain, typeset)
    return name


def scatter(values: tuple[float, ...] | list[float]) -> str:
    """Mean ± standard deviation of several runs, or of a published pair."""
    if not values:
        return "–"
    if isinstance(values, tuple):
        return f"{values[0]:.3f} ± {values[1]:.3f}"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def setting(found: Row) -> str:
    """Steps, seeds and points, and what the distance of two samples of one law is."""
    runs = found["runs"]
    within = {run["problem"]: run["W2^2 of two samples"] for run in runs}
    floors = ", ".join(f"{digits(value, 2)} for {ends(name)}" for name, value in within.items())
    short = " and ".join(f"{shorter(runs, pairing)} {pairing} pairs" for pairing in ("independent", "OT"))
    seeds, run = len({run["seed"] for run in runs}), runs[0]
    return (
        f"Here training is {run['steps']:,} steps, with {seeds} seed{'s' * (seeds > 1)}, and $W_2^2$ is that of "
        f"{run['points']:,} points each. Between two samples of that size, both of the true law, it is {floors}. "
        f"Shorter than the way between their ends are the flows of {short}.\n"
    )


# The figure.


def draw(folder: Path) -> None:
    """Write the figure of the page into the folder."""
    use_style()
    figure = race(load("ml_or_interpolant"))
    figure.savefig(folder / "interpolants-race.png")
    plt.close(figure)


def race(found: Row) -> plt.Figure:
    """NLL above the entropy against seconds of training, on logarithmic axes; the range of the seeds is shaded."""
    figure, ax = plt.subplots(figsize=(7, 4.2))
    for name, (colour, line, marker) in LOOKS.items():
        seconds, gap = curves(found)[name]
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
