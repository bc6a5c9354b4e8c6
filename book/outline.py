"""The outline of the book: the chapters that are there, as their notebooks say, and the ones that are planned."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
Concepts = Mapping[str, Mapping[str, list[str]]]  # by a chapter's number what it requires and provides

PLAN = {
    "I · Change of variables": {
        "1": "Change of variables",
        "2": "Planar and radial flows",
        "3": "Coupling flows",
        "4": "Glow",
        "5": "Autoregressive and spline flows",
        "6": "Residual flows",
        "7": "What flows cannot do",
    },
    "II · Continuous time": {
        "8": "Neural ODEs",
        "9": "Instantaneous change of variables",
        "10": "Hutchinson's trace estimator",
        "11": "Adjoints",
        "12": "FFJORD",
        "13": "Regularised dynamics",
        "14": "Continuous flows in a VAE",
    },
    "III · Stochastic interpolants": {
        "15": "Stochastic interpolants",
        "16": "Judging a generator",
        "17": "Optimal transport",
        "18": "Scores and SDEs",
        "19": "Images",
        "20": "Flow maps",
        "21": "Discrete data",
    },
    "IV · Applications": {
        "22": "Conditional flows and inference",
        "23": "Snapshots and spheres",
        "24": "Audio: WaveFlow",
        "25": "Molecules: GraphAF",
        "26": "Point clouds: PointFlow",
        "27": "Video: VideoFlow",
    },
    "Appendices": {
        "A": "Linear algebra",
        "B": "Probability",
        "C": "ODEs and Itô calculus",
        "D": "Many GPUs",
        "E": "Solver guide",
    },
}
FAST_PATHS = {
    "generators": ("1", "8", "9", "15", "18", "19", "20"),
    "likelihoods": ("1", "3", "8", "9", "10", "12"),
}


@dataclass(frozen=True)
class Chapter:
    """A chapter of the book; one that is only planned has no path. An appendix may be a page instead."""

    number: str
    title: str
    path: Path | None = None
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    page: Path | None = None


def chapter_paths(root: Path = ROOT) -> list[Path]:
    """Every chapter, in the order of the book: numbers first, then the lettered appendices."""
    return sorted((root / "chapters").glob("*.ipynb"), key=lambda path: (path.name[0].isalpha(), path.name))


def number(path: Path) -> str:
    """``08-neural-odes.ipynb`` is chapter 8, ``A-linear-algebra.ipynb`` is A."""
    return path.stem.split("-")[0].lstrip("0")


def read_chapter(path: Path) -> Chapter:
    """The chapter of a notebook: its title from the first cell, its concepts from the metadata."""
    notebook = nbformat.read(path, as_version=4)
    meta = notebook.metadata.get("cnflib", {})
    title = notebook.cells[0].source.split("\n")[0].partition(". ")[2]
    concepts = (tuple(meta.get(key, ())) for key in ("requires", "provides"))
    return Chapter(number(path), title, path, *concepts)


def appendix(name: str, root: Path = ROOT) -> Path | None:
    """The page of an appendix that is written."""
    path = root / f"book/appendix-{name.lower()}.md"
    return path if path.exists() else None


def outline(root: Path = ROOT) -> dict[str, list[Chapter]]:
    """Part by part, the chapters of the plan; a chapter that is written stands for its plan."""
    written = {number(path): read_chapter(path) for path in chapter_paths(root)}
    planned = {name for chapters in PLAN.values() for name in chapters}
    if strays := written.keys() - planned:
        raise ValueError(f"book/outline.py plans no chapter {', '.join(sorted(strays))}: add it there.")
    return {
        part: [
            written.get(name, Chapter(name, title, page=appendix(name, root)))
            for name, title in chapters.items()
        ]
        for part, chapters in PLAN.items()
    }


def providers(chapters: Concepts) -> dict[str, str]:
    """The chapter that provides each concept."""
    return {concept: chapter for chapter, meta in chapters.items() for concept in meta["provides"]}


def needs(chapters: Concepts) -> dict[str, dict[str, list[str]]]:
    """For each chapter the chapters it builds on, each with the concepts it takes from there."""
    source = providers(chapters)
    found: dict[str, dict[str, list[str]]] = {chapter: {} for chapter in chapters}
    for chapter, meta in chapters.items():
        for concept in meta["requires"]:
            if concept in source:
                found[chapter].setdefault(source[concept], []).append(concept)
    return found
