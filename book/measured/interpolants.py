"""The page "interpolants, measured": a minute, a race with likelihood, and how straight the paths are."""

import math
from collections.abc import Iterator
from statistics import mean, median, stdev

import numpy as np

from measured.tables import Row, digits, error_bar, machine, middle, power, scatter, sentence, table

WAYS = {  # to train one field, and how a table calls them
    "interpolant": "inter&shy;polant",
    "likelihood, fixed steps": "likelihood, fixed steps",
    "likelihood, adaptive adjoint": "likelihood, adjoint",
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

machine("interpolants-minute-measured", "checkerboard", "python benchmarks/checkerboard.py")
machine("interpolants-race-measured", "ml_or_interpolant", "python benchmarks/ml_or_interpolant.py")
machine("interpolants-energy-measured", "path_energy", "python benchmarks/path_energy.py")


# A minute on the checkerboard.


@table("interpolants-minute", "checkerboard", "nats", "NLL", "gap", "mass", "steps")
def minute(found: Row) -> Iterator[tuple[str, ...]]:
    """A row a seed, best first, and the median."""
    runs = sorted(found["runs"], key=lambda run: run["nll"][0])
    for run in runs:
        name = f"seed {run['seed']}" + (", the median" if run is middle(runs) and len(runs) > 2 else "")
        yield name, error_bar(run["nll"]), f"{run['gap'][0]:.3f}", f"{run['mass']:.4f}", f"{run['steps']:,}"
    yield "entropy", f"{found['entropy']:.3f}", "0", "1", ""


@sentence("interpolants-minute-checked", "checkerboard")
def checked(found: Row) -> str:
    """The budget, and how far solver and grid can be trusted."""
    runs = found["runs"]
    run, change = runs[0], max(run["change at half the tolerance"] for run in runs)
    grid = max(abs(run["mass"] - run["mass, fewer nodes"]) for run in runs)
    threads = "one thread" if run["threads"] == 1 else f"{run['threads']} threads"
    return (
        f"Training took {run['budget']:g} seconds of {threads}, of a net of {run['parameters']:,} parameters; "
        f"judged are {run['points']:,} fresh points. At half the tolerance $\\log p$ changes by "
        f"{power(max(change, 1e-12))} nats on average, and fewer nodes give the mass to "
        f"{power(max(grid, 1e-12))}.\n"
    )


# Likelihood or regression.


def curves(found: Row) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Seconds and NLL above the entropy of each way to train, medians over its seeds."""
    drawn = {}
    for name in WAYS:
        runs = [run["curve"] for run in found["runs"] if run["row"] == name]
        seconds, nll = np.median([[(p["seconds"], p["nll"][0]) for p in curve] for curve in runs], 0).T
        drawn[name] = (seconds, nll - found["entropy"])
    return drawn


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


@table(
    "interpolants-race",
    "ml_or_interpolant",
    "NLL, nats",
    *WAYS.values(),
    "best likelihood : inter&shy;polant",
)
def reached(found: Row) -> Iterator[tuple[str, ...]]:
    """Seconds of each way to come so near to the entropy, and the factor between likelihood and interpolant."""
    drawn = curves(found).values()
    for level in LEVELS:
        times = [time_to(curve, level) for curve in drawn]
        if any(map(math.isfinite, times)) and not all(t < 0 for t in times):
            yield f"entropy + {level:g}", *map(shown, times), factor(*times)


def shown(seconds: float) -> str:
    """Seconds; a dash for never, a bound where the first point is already nearer."""
    if seconds < 0:
        return f"< {digits(-seconds, 2)} s"
    return "–" if math.isinf(seconds) else f"{digits(seconds, 2)} s"


def factor(first: float, *others: float) -> str:
    """How many times longer the faster likelihood takes; a bound where a time is one, nothing where both are."""
    other = min(others, key=abs)
    if math.isinf(first):
        return "" if math.isinf(other) else "–"
    if math.isinf(other):
        return "not reached"
    return "" if other < 0 else ("> " if first < 0 else "") + digits(abs(other / first), 2)


def after(found: Row) -> list[str]:
    return [f"after {found['runs'][0]['budget'][-1]:g} s", "NLL", "seeds", "steps"]


@table("interpolants-race-end", "ml_or_interpolant", after)
def end(found: Row) -> Iterator[tuple[str, ...]]:
    """The end of training: median over seeds, their range, and steps."""
    for name in WAYS:
        ends = [run["curve"][-1] for run in found["runs"] if run["row"] == name]
        yield name, error_bar(middle(ends)["nll"]), scatter(ends), f"{median(p['steps'] for p in ends):,.0f}"
    yield "entropy", f"{found['entropy']:.3f}", "", ""


# Straight paths.


@table(
    "interpolants-energy", "path_energy", "", "path energy", "pub&shy;lished", r"$W_2^2$", "pub&shy;lished"
)
def straightness(found: Row) -> Iterator[tuple[str, ...]]:
    """Normalised path energy and squared distance, mean and deviation over seeds, beside the published ones."""
    for (problem, pairing), published in PUBLISHED.items():
        runs = [r for r in found["runs"] if (r["problem"], r["pairing"]) == (problem, pairing)]
        cells = [
            cell
            for key in ("NPE", "W2^2")
            for cell in (
                deviation([r[key] for r in runs]),
                error_bar(published[key]) if key in published else "–",
            )
        ]
        yield ends_of(f"{problem}, {pairing}"), *cells


def ends_of(name: str) -> str:
    """The two ends of a problem, typeset."""
    for plain, typeset in NAMES.items():
        name = name.replace(plain, typeset)
    return name


def deviation(values: list[float]) -> str:
    """Mean ± standard deviation of several runs."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


@sentence("interpolants-energy-setting", "path_energy")
def setting(found: Row) -> str:
    """Steps, seeds and points, and what the distance of two samples of one law is."""
    runs = found["runs"]
    within = {run["problem"]: run["W2^2 of two samples"] for run in runs}
    floors = ", ".join(f"{digits(value, 2)} for {ends_of(name)}" for name, value in within.items())
    short = " and ".join(shorter(runs, pairing) for pairing in ("independent", "optimal transport"))
    seeds, run = len({run["seed"] for run in runs}), runs[0]
    return (
        f"Here training is {run['steps']:,} steps, with {seeds} seed{'s' * (seeds > 1)}, and $W_2^2$ is that of "
        f"{run['points']:,} points each. Between two samples of that size, both of the true law, it is {floors}. "
        f"Shorter than the way between their ends are the flows of {short}.\n"
    )


def shorter(runs: list[Row], pairing: str) -> str:
    """In how many runs of a pairing the energy is below the squared distance of the ends."""
    chosen = [run for run in runs if run["pairing"] == pairing]
    below = sum(run["energy"] < run["W2^2 of the ends"] for run in chosen)
    return f"{below} of {len(chosen)} runs with {ends_of(pairing)} pairs"
