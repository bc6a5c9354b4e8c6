"""The page on costs: what a trace and what a gradient takes, and how exact it is."""

import math
import re
from collections.abc import Iterator
from functools import partial

from measured.tables import ROUNDING, Row, by, deviations, digits, machine, sentence, spread, table

KINDS = {"with gradient": "training", "without": "evaluation"}  # the benchmark's names and the page's
NAMES = ("Rademacher", "Gaussian", "Hutch++")
PLACES = ("in x", "in the layer")

machine("costs-traces-measured", "divergences")
machine("costs-gradients-measured", "gradients")


# The trace.


@table("costs-exact", "divergences", "exact : one probe", *KINDS.values())
def exact(traces: Row) -> Iterator[tuple[str, ...]]:
    """Time of the exact trace over that of one probe, by dimension."""
    ways = by_way(traces)
    for (field, name, product), row in ways.items():
        if (name, product) == ("exact", "own tangents"):
            probe = ways[field, "hutchinson, 1 probe", product]
            yield short(field), *(digits(row[kind]["ms"][0] / probe[kind]["ms"][0], 2) for kind in KINDS)


@table("costs-scatter", "divergences", "Jacobian", *NAMES)
def scatter(traces: Row) -> Iterator[tuple[str, ...]]:
    """Standard deviations at equal numbers of products."""
    for row in traces["scatter"]:
        yield row["matrix"], *deviations([row[name][0] for name in NAMES])


@sentence("costs-agreement", "divergences")
def agreement(traces: Row) -> str:
    """How far the measured standard deviations are from their formulas."""
    pairs = [row[name] for row in traces["scatter"] for name in NAMES]
    pairs += [row[noise][place] for row in traces["bottleneck"] for noise in NAMES[:2] for place in PLACES]
    worst = max(abs(found / formula - 1) for found, formula in pairs if formula > ROUNDING)
    return (
        "Here and in the tables of the bottleneck below, a measured deviation differs from its formula by at most "
        f"{100 * worst:.1f} %, and is 0 where the formula is. (For Hutch++ the formula is that of the rest, averaged "
        "over sketches.)\n"
    )


def bottleneck(noise: str, traces: Row) -> Iterator[tuple[str, ...]]:
    """Standard deviations with the probe in x and in the layer, for one law of the probe."""
    for row in traces["bottleneck"]:
        yield row["field"], *deviations([row[noise][place][0] for place in PLACES])


for law in NAMES[:2]:
    heads = (f"{law} probe", "in $x$", "in the layer")
    table(f"costs-bottleneck-{law.lower()}", "divergences", *heads)(partial(bottleneck, law))


@table("costs-estimates", "divergences", "ms", *KINDS.values())
def estimates(traces: Row) -> Iterator[tuple[str, ...]]:
    """Milliseconds of one evaluation for D = 64: by the net's own tangents, where the estimate takes them."""
    rows = [row for row in traces["time"] if "D = 64," in row["field"]]
    own = {row["divergence"] for row in rows if row["product"] == "own tangents"}
    for row in rows:
        if row["product"] == "own tangents" or row["divergence"] not in own:
            yield row["divergence"], *(spread(row[kind]["ms"]) for kind in KINDS)


def products(kind: str, traces: Row) -> Iterator[tuple[str, ...]]:
    """Time of both forward modes over that of reverse mode."""
    ways = by_way(traces)
    for (field, name, product), row in ways.items():
        if product == "torch.func.jvp" and (own := ways.get((field, name, "own tangents"))):
            label = f"{short(field)}, {name.removeprefix('hutchinson, ')}"
            yield label, *(digits(way[kind]["ratio"], 2) for way in (own, row))


for way, shown in KINDS.items():
    table(f"costs-products-{shown}", "divergences", shown, "own tangents", "func.jvp")(partial(products, way))


def by_way(traces: Row) -> dict[tuple[str, str, str], Row]:
    """What an evaluation takes, by field, divergence and product."""
    return {(row["field"], row["divergence"], row["product"]): row for row in traces["time"]}


def short(field: str) -> str:
    """A field by its dimension, or by its kind where none is named."""
    return (re.search(r"D = \d+", field) or re.match(r"\w+", field))[0]


# The gradient.


@table("costs-gradients", "gradients", "training step", "ms", "ratio", "NFE", "error × 10⁶", cases=by("cost"))
def gradient(case: Row) -> Iterator[tuple[str, ...]]:
    """Time of a training step, its ratio, evaluations forward + backward, relative error of the gradient."""
    for row in case["rows"]:
        nfe, error = "&nbsp;+&nbsp;".join(map(str, row["nfe"])), digits(1e6 * row["error"], 2)
        yield row["gradient"], spread(row["ms"]), digits(row["ratio"], 3), nfe, error


@sentence("costs-adjoint", "gradients")
def adjoint(found: Row) -> str:
    """How close the adjoint comes to backpropagation when both are solved tightly."""
    apart = max(case["float64 adjoint from backprop"] for case in found["cost"])
    return (
        "In float64 at tolerance $10^{-10}$ the gradients of dopri5 by backpropagation and by the adjoint agree to a "
        f"relative $10^{{{math.ceil(math.log10(apart))}}}$.\n"
    )


def asked(case: Row) -> list[str]:
    """A column for each number of steps that was asked for."""
    return ["MiB", *(f"{steps} steps" for steps in case["rows"][0]["steps"])]


def taken(case: Row) -> str:
    """How many steps the adaptive solves took instead."""
    others = {tuple(row["steps"]) for row in case["rows"]} - {tuple(case["rows"][0]["steps"])}
    return "".join(
        f"\nThe adaptive solves took {', '.join(map(str, steps))} steps.\n" for steps in sorted(others)
    )


@table("costs-memory", "gradients", asked, cases=by("memory"), note=taken)
def memory(case: Row) -> Iterator[tuple[str, ...]]:
    """Peak memory by the number of steps."""
    for row in case["rows"]:
        yield row["gradient"], *(digits(size, 3) for size in row["MiB"])
