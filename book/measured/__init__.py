"""Every measured number that a page shows: tables, sentences and figures, made of ``benchmarks/results``."""

from measured import appendices, costs, figures, interpolants, peers, plant, solvers, speed, targets
from measured.tables import TABLES, load, pages

__all__ = [
    "TABLES",
    "appendices",
    "costs",
    "figures",
    "interpolants",
    "load",
    "pages",
    "peers",
    "plant",
    "solvers",
    "speed",
    "targets",
]
