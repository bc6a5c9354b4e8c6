"""The solver guide: what an answer of a given error takes."""

import math
from collections.abc import Iterator

from measured.tables import Row, digits, machine, table

MOST = 10_000  # evaluations that the benchmark allows
FIELDS = {
    "net": "A net with tanh",
    "kinked net": "The same net with ReLU",
    "hares": "Hares and lynxes, twenty years",
    "eight lumps": "An interpolant's velocity, to eight narrow lumps",
    "stiff": "A stiff equation",
}

machine("solvers-measured", "solvers", "python benchmarks/solvers.py")


def to(error: float) -> str:
    """An error as a power of ten."""
    return f"$10^{{{round(math.log10(error))}}}$"


def cases(found: Row) -> Iterator[tuple[str, Row]]:
    """One table for each field."""
    for field in found["fields"]:
        yield FIELDS[field["title"]], field


@table("solvers-evaluations", "solvers", "to an error of", *map(to, (1e-2, 1e-4, 1e-6, 1e-8)), cases=cases)
def evaluations(field: Row) -> Iterator[tuple[str, ...]]:
    """Evaluations by each solver; in bold what is within a tenth of the fewest."""
    columns = zip(*(row["evaluations"] for row in field["rows"]), strict=True)
    fewest = [min((n for n in column if n), default=MOST) for column in columns]
    for row in field["rows"]:
        pairs = zip(row["evaluations"], fewest, strict=True)
        yield shown(row["solver"]), *(cell(n, least) for n, least in pairs)


def cell(n: int | None, least: int) -> str:
    """A number of evaluations, or that it is more than were allowed."""
    if n is None or n > MOST:
        return "–"
    return f"**{n:,}**" if n <= 1.1 * least else f"{n:,}"


def shown(solver: str) -> str:
    """A solver's name as the page writes it."""
    *whose, name = solver.split(" ")
    return solver if name == "Radau" else " ".join([*whose, f"`{name}`"])


@table("solvers-promise", "solvers", "error over tolerance", *map(to, (1e-3, 1e-5, 1e-7)))
def promise(found: Row) -> Iterator[tuple[str, ...]]:
    """What dopri5's tolerance was worth."""
    for field in found["fields"]:
        yield FIELDS[field["title"]], *(digits(ratio, 2) for ratio in field["promise"])
