"""What a chapter's notebook is made of: cells, text and counts, for the house rules and the pages made of chapters."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

DRAWS = re.compile(
    r"\bplt\.(?!close|rc|style|switch)\w+\(|\.subplots\(|\.imshow\(|\bsns\.\w*(plot|map)\w*\(|\bplot\.(?!use_style)[a-z_]+\("
)
MOVES = re.compile(r"\bplot\.(slider|animation)\(")
EQUATION = re.compile(r"\$\$(?P<body>.+?)\$\$(?P<tail>[^\n]*)", re.S)
INLINE = re.compile(r"(?<!\$)\$[^$\n]+\$(?!\$)")
LABEL = re.compile(r" \(([0-9]+|[A-Z])\.([0-9]+)\)\s*")
DETAILS = re.compile(r"<details>.*?</details>", re.S)
FENCE = re.compile(r"```python\n(.*?)```", re.S)
FOLD, FOLDED_OUTPUT = "hide-input", "hide-output"


def read(path: Path) -> NotebookNode:
    """The notebook as it lies on disk."""
    return nbformat.read(path, as_version=4)


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells in order."""
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def prose(nb: NotebookNode) -> str:
    """All Markdown cells in order."""
    return "\n\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def tagged(nb: NotebookNode, tag: str) -> list[NotebookNode]:
    """The code cells that carry a tag."""
    return [cell for cell in code_cells(nb) if tag in tags(cell)]


def visible(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells that are not folded."""
    return [cell for cell in code_cells(nb) if FOLD not in tags(cell)]


def head(cell: NotebookNode) -> str:
    """The first line of a cell, to name it in a message."""
    return repr(cell.source.strip().split("\n")[0][:60])


def draws(cell: NotebookNode) -> bool:
    """Whether a code cell shows a figure. A cell that only defines a drawing function is tagged ``no-figure``."""
    return cell.cell_type == "code" and bool(DRAWS.search(cell.source)) and "no-figure" not in tags(cell)


def statements(cell: NotebookNode) -> list[ast.stmt]:
    """The statements of a code cell; lines for the shell count as nothing."""
    lines = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in cell.source.split("\n")]
    return ast.parse("\n".join(lines)).body


def labels(nb: NotebookNode) -> list[tuple[str, str]]:
    """The equation labels in order, each as (chapter, n)."""
    tails = (match["tail"] for match in EQUATION.finditer(prose(nb)))
    return [label.groups() for tail in tails if (label := LABEL.fullmatch(tail))]


def main_path(text: str) -> str:
    """A text without what is folded."""
    return DETAILS.sub(" ", text)


def words(text: str) -> int:
    """The words of a text. An inline formula is one word, a display formula none; signs alone are none."""
    text = INLINE.sub(" x ", EQUATION.sub(" ", text))
    return sum(any(map(str.isalnum, word)) for word in re.sub(r"<[^>]*>|\]\([^)]*\)", " ", text).split())


def lines(cells: list[NotebookNode]) -> int:
    """The lines of code cells that hold something."""
    return sum(bool(line.strip()) for cell in cells for line in cell.source.split("\n"))


def marked(nb: NotebookNode, kind: str) -> Iterator[tuple[str, str, str]]:
    """The paragraphs headed ``**Kind 9.1** (Name.) …``, each as (number, name, the rest)."""
    pattern = rf"^\*\*{kind} ([0-9]+\.[0-9]+|[A-Z]\.[0-9]+)\*\* \((.+?)\.?\) (.+?)(?:\n\n|\Z)"
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            yield from re.findall(pattern, cell.source, re.M | re.S)
