"""How a table of the book is declared, and how it becomes Markdown."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cnflib_book import ROOT

RESULTS = ROOT / "benchmarks/results"
ROUNDING = 1e-4  # a standard deviation below this is 0 but for rounding in float32
Row = Any  # a piece of what a benchmark wrote
Cases = Callable[[Row], Iterable[tuple[str, Row]]]
Note = Callable[[Row], str]
whole: Cases = lambda found: [("", found)]
silent: Note = lambda found: ""

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


TABLES: dict[str, "Shown"] = {}
"""What the pages include, by name: a page includes ``_build/pages/<name>.md``."""


class Shown(NamedTuple):
    """The benchmark that something is from, and how what that wrote is shown as Markdown."""

    source: str
    show: Callable[[Row], str]


def sentence(name: str, source: str) -> Callable[[Callable], Callable]:
    """Declare a function that says in words what a benchmark wrote."""

    def declare(say: Callable[[Row], str]) -> Callable[[Row], str]:
        TABLES[name] = Shown(source, say)
        return say

    return declare


def table(
    name: str,
    source: str,
    *heads: str | Callable[[Row], Iterable[str]],
    cases: Cases = whole,
    note: Note = silent,
) -> Callable[[Callable], Callable]:
    """Declare a function of what a benchmark wrote that yields the rows of a table, each as its cells.

    Args:
        name: Under which a page includes it.
        source: The benchmark.
        heads: Of the columns, the first that of the labels; or one function of what was written.
        cases: What was written as pairs of a title and a piece; each has a table under its title.
        note: What is said below a table.
    """

    def declare(rows: Callable[[Row], Iterable[Sequence[object]]]) -> Callable:
        def show(found: Row) -> str:
            first = heads[0](found) if callable(heads[0]) else heads
            lines = [map(typeset, first), ["---", *["--:"] * (len(first) - 1)]]
            lines += [[typeset(label), *map(str, cells)] for label, *cells in rows(found)]
            return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + note(found)

        def titled(found: Row) -> str:
            return "\n".join(f"*{typeset(title)}*\n\n{show(case)}" for title, case in cases(found))

        TABLES[name] = Shown(source, show if cases is whole else titled)
        return rows

    return declare


def by(key: str) -> Cases:
    """The cases under a key, each under its title."""
    return lambda found: [(case["title"], case) for case in found[key]]


def machine(name: str, source: str, command: str = "make bench") -> None:
    """Declare where and when the numbers were taken, with what, and how to take them again."""
    sentence(name, source)(lambda found: where(found["machine"], found.get("packages", {}), command))


def where(host: Row, packages: Row, command: str = "make bench") -> str:
    """A machine and what was installed there, in words."""
    others = "".join(f"{name} {version}, " for name, version in packages.items())
    threads = f"{host['threads']} thread{'s' * (host['threads'] > 1)}"
    said = f"{threads} of {host['cpu']}, PyTorch {host['torch']}, {others}{host['date']}"
    return f"Measured on {said}; `{command}` measures again.\n"


def pages(*names: str) -> dict[str, str]:
    """What the pages include, all of it or what is named: Markdown by name."""
    chosen = {name: TABLES[name] for name in names or TABLES}
    found = {source: load(source) for source in {shown.source for shown in chosen.values()}}
    return {name: shown.show(found[shown.source]) for name, shown in chosen.items()}


def load(name: str) -> Row:
    """What a benchmark wrote."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        folder = "scripts" if (ROOT / f"scripts/{name}.py").exists() else "benchmarks"
        raise SystemExit(
            f"benchmarks/results/{name}.json is missing, of which the book shows tables: restore it with "
            f"'git checkout benchmarks/results', or measure again with 'python {folder}/{name}.py'."
        )
    return json.loads(path.read_text(encoding="utf-8"))


# Numbers.


def typeset(label: str) -> str:
    """A label of the benchmarks with its mathematics typeset."""
    plain = "|".join(map(re.escape, TYPESET))
    label = re.sub(plain, lambda match: TYPESET[match[0]], label)
    return re.sub(r"\bD = \d+", r"$\g<0>$", label)


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


def error_bar(pair: Sequence[float], after: int = 3, decimals: int = 3) -> str:
    """An estimate to so many decimals with its standard error, which has ``after``."""
    return f"{pair[0]:.{decimals}f} ± {pair[1]:.{after}f}".replace("-", "−")


def middle(runs: Sequence[Row]) -> Row:
    """The run of median NLL, of an even number the worse of the two."""
    return sorted(runs, key=lambda run: run["nll"][0])[len(runs) // 2]


def by_row(runs: Sequence[Row]) -> dict[str, list[Row]]:
    """The runs of each row, best row first by its median."""
    rows = {run["row"]: [r for r in runs if r["row"] == run["row"]] for run in runs}
    return dict(sorted(rows.items(), key=lambda item: middle(item[1])["nll"][0]))


def scatter(runs: Sequence[Row], decimals: int = 3) -> str:
    """The range of the NLL of several seeds."""
    values = [run["nll"][0] for run in runs]
    return f"{min(values):.{decimals}f} … {max(values):.{decimals}f}" if len(values) > 1 else "one seed"


def worst_mass(runs: Sequence[Row]) -> float:
    """The mass furthest from 1."""
    return max((run["mass"] for run in runs), key=lambda mass: abs(mass - 1))


def bold(cell: str, which: bool) -> str:
    """A cell that stands out, where it does."""
    return f"**{cell}**" if which else cell


def least(values: Sequence[float]) -> list[str]:
    """Three digits, in bold the least."""
    return [bold(digits(value, 3), value == min(values)) for value in values]


def deviations(values: Sequence[float]) -> list[str]:
    """Standard deviations, in bold the least and what is within 5 % of it; 0 where there is rounding alone."""
    bound = max(1.05 * min(values), ROUNDING)
    return [bold("0" if value < ROUNDING else digits(value, 3), value < bound) for value in values]
