"""The house rules for chapters, one small function each: given a notebook, the faults in plain words.

Look at one chapter with ``python book/house_rules.py chapters/01-change-of-variables.ipynb``.
"""

import ast
import json
import re
import statistics
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from notebooks import (
    EQUATION,
    FENCE,
    FOLD,
    FOLDED_OUTPUT,
    LABEL,
    MOVES,
    code_cells,
    draws,
    head,
    labels,
    lines,
    main_path,
    marked,
    prose,
    read,
    statements,
    tagged,
    tags,
    visible,
    words,
)
from outline import ROOT, Concepts, chapter_paths, needs, number, providers

BOOTSTRAP = (ROOT / "book/bootstrap.txt").read_text(encoding="utf-8").rstrip()
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
    "Repository"
]

NETWORK = re.compile(
    r"https?://|\b(urllib|requests|httpx|wget|curl|socket|ftplib)\b|\bfetch_\w+|\bdownload\w*", re.I
)
DEVICE = re.compile(r"\.cuda\(|\btorch\.device\(|[\"']cuda")
GLOBAL_SEED = re.compile(
    r"\b(torch\.cuda|np\.random|numpy\.random|random)\.(manual_seed|manual_seed_all|seed)\("
)
NOT_PLAIN = re.compile(
    r"```\{|^:::|\{[a-z][a-z:_-]*\}`|\\label\b|\\(?:re|provide)?newcommand\b|\\def\b|\\DeclareMathOperator\b",
    re.M,
)
REFERENCE = re.compile(r"\[([^\]]*)\]\(#((?:[0-9]+|[A-Z])\.[0-9]+)\)")
ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf|html)/([0-9]{4}\.[0-9]{4,5})", re.I)
DOI = re.compile(r"doi\.org/(10\.[^\s)>\"]+)", re.I)
EXERCISE = re.compile(r"^\*\*Exercise ([0-9]+|[A-Z])\.([0-9]+)\*\*(.*)$", re.M)
EFFORT = re.compile(r" (★|★★|★★★) \(([0-9]+) min(, core)?\)")
SOLUTION = re.compile(
    r"<details>\s*<summary>Solution ([0-9]+|[A-Z])\.([0-9]+)</summary>(.*?)</details>", re.S
)
# A box without an equation, and an equation right under it.
OUTSIDE = re.compile(r"^> \*\*(?:(?!\$\$).)*\n(?:>(?:(?!\$\$).)*\n)*\n\$\$", re.M)
OPPOSITES = re.compile(r"\.inverse\(|\bforward\(")
ALT_LENGTH = 40
COLUMNS = 84
QUESTION = 90  # characters
# The most that a chapter may have; the aims are 3,000 words, 3,600 in the long chapters, and 150 lines.
MAIN_PATH, LONG_PATH, ALL_WORDS, CODE_LINES, BEFORE_PICTURE, CORE_MINUTES = 3600, 4200, 5600, 190, 220, 40
LONG = {"9", "15", "18"}


def bibliography() -> str:
    """The text of references.bib in lower case."""
    return (ROOT / "book/references.bib").read_text(encoding="utf-8").lower()


# The rules. Each takes a notebook and its path and yields the faults it finds.


def check_format(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A valid notebook of the ``python3`` kernel, its cells with ids."""
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"
    if any("id" not in cell for cell in nb.cells):
        yield "a cell has no id: save the notebook in format 4.5"
        return
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.message}"


def check_clean(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Committed without outputs and without execution counts."""
    for cell in code_cells(nb):
        if cell.outputs or cell.execution_count is not None:
            yield f"outputs or an execution count in the cell {head(cell)}: clear them before you commit"


def check_title(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The first cell is the title, with the chapter's number."""
    if not nb.cells or not nb.cells[0].source.startswith(f"# {number(path)}. "):
        yield f"the first cell does not begin with '# {number(path)}. ' and the title"


def check_bootstrap(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The first code cell is the same in every chapter."""
    cells = code_cells(nb)
    if not cells or cells[0].source.rstrip() != BOOTSTRAP:
        yield "the first code cell is not the one in book/bootstrap.txt"


def check_cell_size(nb: NotebookNode, path: Path) -> Iterator[str]:
    """No code cell over 25 lines, and a median of at most 10; no line over 84 columns."""
    cells = code_cells(nb)
    for cell in cells:
        if max(map(len, cell.source.split("\n"))) > COLUMNS:
            yield f"a line over {COLUMNS} columns in the cell {head(cell)}: it runs out of its box"
    lengths = [len(cell.source.rstrip().split("\n")) for cell in cells]
    for cell, length in zip(cells, lengths, strict=True):
        if length > 25:
            yield f"{length} lines of code in the cell {head(cell)}: 25 is the most"
    if lengths and statistics.median(lengths) > 10:
        yield f"the median code cell has {statistics.median(lengths):g} lines: 10 is the most"


def check_figures(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Every figure has words for those who do not see it, and its caption opens the next cell, in order.

    A figure that moves says its words in the argument ``alt``; any other in its cell's metadata.
    """
    following = [*nb.cells[1:], NotebookNode(cell_type="none", source="")]
    figures = [(cell, after) for cell, after in zip(nb.cells, following, strict=True) if draws(cell)]
    for n, (cell, after) in enumerate(figures, start=1):
        meta = cell.metadata.get("mystnb", {})
        if MOVES.search(cell.source):
            if not re.search(r"\balt\s*=", cell.source):
                yield f"plot.slider and plot.animation need alt= in the cell {head(cell)}"
        elif len(meta.get("image", {}).get("alt", "").strip()) < ALT_LENGTH:
            yield f"no mystnb.image.alt of at least {ALT_LENGTH} characters in the figure cell {head(cell)}"
        if meta.get("figure"):
            yield f"mystnb.figure in the cell {head(cell)}: the caption is the next cell, for Colab to show it"
        caption = f"**Figure {number(path)}.{n}.** "
        if after.cell_type != "markdown" or not after.source.startswith(caption):
            yield f"after the figure cell {head(cell)} no Markdown cell begins with {caption!r}"
    if not any(MOVES.search(cell.source) for cell, _ in figures):
        yield "nothing moves: plot.slider or plot.animation is called nowhere"


def check_still(nb: NotebookNode, path: Path) -> Iterator[str]:
    """One picture and one question stand for the chapter on the first page."""
    stills = [cell for cell in tagged(nb, "still") if draws(cell) and not MOVES.search(cell.source)]
    if len(stills) != 1 or len(tagged(nb, "still")) != 1:
        yield "not exactly one figure that does not move is tagged 'still', for the gallery of the first page"
    question = nb.metadata.get("cnflib", {}).get("question", "")
    if not question.endswith("?") or len(question) > QUESTION:
        yield f"metadata.cnflib.question is no question of at most {QUESTION} characters"


def check_first_picture(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The hook: a picture within the first words."""
    first = next((k for k, cell in enumerate(nb.cells) if draws(cell)), len(nb.cells))
    text = "\n\n".join(cell.source for cell in nb.cells[:first] if cell.cell_type == "markdown")
    if (count := words(main_path(text))) > BEFORE_PICTURE:
        yield f"{count} words before the first picture: {BEFORE_PICTURE} are the most"


def check_folds(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A folded cell is folded on the site, in JupyterLab and in Colab, where its title says what it does."""
    for cell in code_cells(nb):
        signs = {
            f"the tag {FOLD}": FOLD in tags(cell),
            "jupyter.source_hidden": cell.metadata.get("jupyter", {}).get("source_hidden") is True,
            'cellView "form"': cell.metadata.get("cellView") == "form",
            "a first line '# @title …'": bool(re.match(r"# @title \S", cell.source)),
        }
        if len(set(signs.values())) > 1:
            missing = ", ".join(sign for sign, there in signs.items() if not there)
            yield f"the cell {head(cell)} is folded in part only: it lacks {missing}"
        imports = any(isinstance(statement, ast.Import | ast.ImportFrom) for statement in statements(cell))
        if FOLD not in tags(cell) and (imports or "check" in tags(cell)):
            yield f"the cell {head(cell)} {'imports' if imports else 'checks an exercise'}: fold it"
        if FOLDED_OUTPUT in tags(cell) and draws(cell):
            yield f"the figure of the cell {head(cell)} is folded and its caption is not: print what was predicted"


def check_visible_code(nb: NotebookNode, path: Path) -> Iterator[str]:
    """What is read has few lines, calls no direction forward or inverse, and says what its asserts found."""
    if (count := lines(visible(nb))) > CODE_LINES:
        yield f"{count} lines of code are not folded: {CODE_LINES} are the most"
    for cell in visible(nb):
        if match := OPPOSITES.search(cell.source):
            yield f"{match[0]!r} in the cell {head(cell)}: encode and decode have names that cannot be mixed up"
        if {type(statement) for statement in statements(cell)} == {ast.Assert}:
            yield f"the cell {head(cell)} only asserts: print what it found, or join it to its neighbour"


def check_lengths(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The main path and the whole text are short enough to be read."""
    most = LONG_PATH if number(path) in LONG else MAIN_PATH
    if (count := words(main_path(prose(nb)))) > most:
        yield f"{count} words on the main path: {most} are the most; fold what not everyone needs"
    if (count := words(prose(nb))) > ALL_WORDS:
        yield f"{count} words in all: {ALL_WORDS} are the most"


def check_theorems(nb: NotebookNode, path: Path) -> Iterator[str]:
    """The equation of a theorem stands inside its box."""
    for match in OUTSIDE.finditer(prose(nb)):
        yield f"an equation stands under the box {match[0][:50]!r}: begin its lines with '> '"


def check_traps(nb: NotebookNode, path: Path) -> Iterator[str]:
    """What goes wrong is told in paragraphs that the page of traps can take: name, symptom, cure."""
    text = prose(nb)
    traps = list(marked(nb, "Trap"))
    wanted = [f"{number(path)}.{n}" for n in range(1, len(traps) + 1)]
    if [trap for trap, _, _ in traps] != wanted or len(traps) != text.count("**Trap "):
        yield f"the traps are not headed '**Trap {number(path)}.1** (Name.) …', counting up"
    if len(traps) < 2:
        yield f"{len(traps)} traps; at least 2 are due"
    for trap, _, body in traps:
        if not re.match(r"\*Symptom:\* .+ \*Cure:\* ", body, re.S):
            yield f"Trap {trap} does not read '*Symptom:* … *Cure:* …' in one paragraph"


def check_equations(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Labels stand at the end of the line and count k.1, k.2, … within chapter k."""
    text = prose(nb)
    if text.count("$$") % 2:
        yield "a $$ is left open"
    for match in EQUATION.finditer(text):
        if match["tail"].strip() and not LABEL.fullmatch(match["tail"]):
            yield f"'$$' is followed by {match['tail'].strip()!r}: only a label like ' (1.3)' may stand there"
    found = [".".join(label) for label in labels(nb)]
    wanted = [f"{number(path)}.{n}" for n in range(1, len(found) + 1)]
    if found != wanted:
        yield f"the equations are labelled {', '.join(found)}; expected {', '.join(wanted)}"


def check_references(nb: NotebookNode, path: Path, known: set[str]) -> Iterator[str]:
    """``[(8.3)](#8.3)``: the text agrees with the target, and the target is a label of some chapter."""
    for text, target in REFERENCE.findall(prose(nb)):
        if text != f"({target})":
            yield f"the reference [{text}](#{target}) should read [({target})](#{target})"
        if target not in known:
            yield f"no equation is labelled ({target})"


def check_markdown(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Only Markdown that Jupyter and Colab render as well: no directives, roles, labels or macros."""
    for match in NOT_PLAIN.finditer(prose(nb)):
        yield f"{match[0]!r} in the text does not render in Jupyter and Colab"


def check_devices(nb: NotebookNode, path: Path) -> Iterator[str]:
    """``device = best_device()`` and nothing else about devices."""
    for cell in code_cells(nb):
        if match := DEVICE.search(cell.source):
            yield f"{match[0]!r} in the cell {head(cell)}: use best_device()"


def check_seeds(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Seeds live in a ``torch.Generator``; ``torch.manual_seed`` is for the weights of networks, which take none."""
    for cell in code_cells(nb):
        if match := GLOBAL_SEED.search(cell.source):
            yield f"{match[0]!r} in the cell {head(cell)}: seed a torch.Generator"


def check_network(nb: NotebookNode, path: Path) -> Iterator[str]:
    """No chapter needs the network."""
    for cell in code_cells(nb)[1:]:
        if match := NETWORK.search(cell.source):
            yield f"{match[0]!r} in the cell {head(cell)}: a chapter runs without a network"


def check_imports(nb: NotebookNode, path: Path) -> Iterator[str]:
    """What is imported is used, by a cell or by a solution."""
    body = [statement for cell in code_cells(nb)[1:] for statement in statements(cell)]
    nodes = [node for statement in body for node in ast.walk(statement)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    solutions = "\n".join(match[1] for match in FENCE.finditer(prose(nb)))
    for name in [
        name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for name in node.names
    ]:
        bound = (name.asname or name.name).partition(".")[0]
        if bound not in used and not re.search(rf"\b{bound}\b", solutions):
            yield f"{bound} is imported and not used"


def check_citations(nb: NotebookNode, path: Path) -> Iterator[str]:
    """Every cited arXiv id and DOI is in references.bib."""
    works = bibliography()
    for work in ARXIV.findall(prose(nb)) + DOI.findall(prose(nb)):
        if not re.search(rf"{{{re.escape(work.lower().rstrip('.,;'))}}}", works):
            yield f"{work} is not in book/references.bib"


def check_exercises(nb: NotebookNode, path: Path) -> Iterator[str]:
    """At least four exercises, in order, with stars, minutes and a folded solution; three core ones, 40 minutes."""
    text = prose(nb)
    exercises = EXERCISE.findall(text)
    found = [f"{chapter}.{n}" for chapter, n, _ in exercises]
    wanted = [f"{number(path)}.{n}" for n in range(1, len(found) + 1)]
    if len(found) < 4:
        yield f"{len(found)} exercises; at least 4 are due"
    if found != wanted:
        yield f"the exercises are numbered {', '.join(found)}; expected {', '.join(wanted)}"
    efforts = [EFFORT.match(rest) for _, _, rest in exercises]
    for name, effort in zip(found, efforts, strict=True):
        if not effort:
            yield f"Exercise {name} is not headed like '**Exercise {name}** ★★ (15 min)' or '(15 min, core)'"
    efforts = [effort.groups() for effort in efforts if effort]
    if (easy := sum(stars == "★" for stars, _, _ in efforts)) < 3:
        yield f"{easy} exercises with one star; at least 3 are due"
    core = [int(minutes) for _, minutes, chosen in efforts if chosen]
    if len(core) != 3 or sum(core) > CORE_MINUTES:
        yield f"{len(core)} core exercises of {sum(core)} minutes; 3 are due, in {CORE_MINUTES} minutes at most"
    if (checks := len(re.findall(r"^\*\*Check [A-Z]\.\*\*", text, re.M))) < 2:
        yield f"{checks} concept checks '**Check A.** …'; at least 2 are due"
    solved = {f"{chapter}.{n}" for chapter, n, _ in SOLUTION.findall(text)}
    for missing in sorted(set(found) - solved):
        yield f"no '<details><summary>Solution {missing}</summary>' … '</details>'"


def check_code_exercises(nb: NotebookNode, path: Path) -> Iterator[str]:
    """A starter, its check with two hidden mistakes or more, and a solution in Python belong together."""
    starters = {cell.metadata.get("cnflib", {}).get("exercise"): cell for cell in tagged(nb, "exercise")}
    checks = {cell.metadata.get("cnflib", {}).get("check"): cell for cell in tagged(nb, "check")}
    solutions = {f"{chapter}.{n}": FENCE.search(body) for chapter, n, body in SOLUTION.findall(prose(nb))}
    if None in starters or None in checks:
        yield "a cell tagged exercise or check does not name its exercise in metadata.cnflib"
    for name in sorted(filter(None, starters.keys() ^ checks.keys())):
        yield f"Exercise {name} needs a starter cell tagged exercise and a cell tagged check"
    for name in sorted(filter(None, starters.keys() & checks.keys())):
        if not re.search(r"^    \.\.\.$", starters[name].source, re.M):
            yield f"the starter of Exercise {name} has no function whose body is '...'"
        mistakes = checks[name].metadata.cnflib.get("mistakes", [])
        if len(mistakes) < 2 or not all(mistake.get("code") and mistake.get("hint") for mistake in mistakes):
            yield f"the check of Exercise {name} lists fewer than two mistakes with code and hint"
        if not solutions.get(name):
            yield f"Solution {name} holds no ```python fence"


def check_amounts(nb: NotebookNode, path: Path) -> Iterator[str]:
    """At least three figures, three numbered equations, five asserts, and one code exercise."""
    asserts = sum(len(re.findall(r"^\s*assert\b", cell.source, re.M)) for cell in code_cells(nb))
    counts = {
        "figures": (sum(map(draws, code_cells(nb))), 3),
        "numbered equations": (len(labels(nb)), 3),
        "asserts": (asserts, 5),
        "code exercises": (len(tagged(nb, "exercise")), 1),
    }
    for what, (count, least) in counts.items():
        if count < least:
            yield f"{count} {what}; at least {least} are due"


def check_concepts_listed(nb: NotebookNode, path: Path) -> Iterator[str]:
    """``metadata.cnflib`` lists the concepts a chapter requires and provides."""
    meta = nb.metadata.get("cnflib", {})
    for key in ("requires", "provides"):
        if not isinstance(meta.get(key), list) or not all(isinstance(concept, str) for concept in meta[key]):
            yield f"metadata.cnflib.{key} is not a list of concepts"


CHECKS = [
    check_format,
    check_clean,
    check_title,
    check_bootstrap,
    check_cell_size,
    check_figures,
    check_still,
    check_first_picture,
    check_folds,
    check_visible_code,
    check_lengths,
    check_equations,
    check_theorems,
    check_traps,
    check_markdown,
    check_devices,
    check_seeds,
    check_network,
    check_imports,
    check_citations,
    check_exercises,
    check_code_exercises,
    check_amounts,
    check_concepts_listed,
]


# Rules about all chapters together.


def concept_faults(chapters: Concepts) -> Iterator[str]:
    """A concept is provided once, by a chapter before the first that requires it; appendices may be anywhere.

    ``chapters`` maps a chapter's number to its ``requires`` and ``provides``, in the order of the book.
    """
    order = {chapter: -1 if chapter.isalpha() else place for place, chapter in enumerate(chapters)}
    counts = Counter(concept for meta in chapters.values() for concept in meta["provides"])
    yield from (f"{concept!r} is provided {n} times" for concept, n in counts.items() if n > 1)
    source = providers(chapters)
    for chapter, meta in chapters.items():
        for concept in meta["requires"]:
            if concept not in source:
                yield f"chapter {chapter} requires {concept!r}, which no chapter provides"
                continue
            if order[source[concept]] > order[chapter] >= 0:
                yield f"chapter {chapter} uses {concept!r}, which chapter {source[concept]} provides only later"
    try:
        TopologicalSorter(needs(chapters)).prepare()
    except CycleError as error:
        yield f"the concepts run in a circle through the chapters {', '.join(error.args[1])}"


def toc_faults(toc: str, stems: list[str]) -> Iterator[str]:
    """The table of contents lists exactly the chapters that exist."""
    files = [entry["file"] for part in yaml.safe_load(toc)["parts"] for entry in part["chapters"]]
    listed = [file.removeprefix("chapters/") for file in files if file.startswith("chapters/")]
    if listed != stems:
        yield f"_toc.yml lists the chapters {', '.join(listed)}; the folder holds {', '.join(stems)}"


def counts(nb: NotebookNode) -> dict[str, int]:
    """What a reader has before them: words, lines, folds, pictures, what moves."""
    return {
        "words on the main path": words(main_path(prose(nb))),
        "words in all": words(prose(nb)),
        "visible lines of code": lines(visible(nb)),
        "folded cells": len(tagged(nb, FOLD)),
        "figures": sum(map(draws, nb.cells)),
        "things to move": sum(bool(MOVES.search(cell.source)) for cell in code_cells(nb)),
    }


def faults(path: Path) -> list[str]:
    """Everything that is wrong with one chapter."""
    nb = read(path)
    known = {".".join(label) for other in {*chapter_paths(), path} for label in labels(read(other))}
    found = [fault for check in CHECKS for fault in check(nb, path)]
    return found + list(check_references(nb, path, known))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, json.dumps(counts(read(Path(name)))))
        for fault in faults(Path(name)):
            print("  -", fault)
