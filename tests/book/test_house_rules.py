"""Every chapter keeps the house rules, and every rule is seen to catch what it is there for."""

import copy
import warnings
from pathlib import Path

import pytest
from house_rules import (
    BOOTSTRAP,
    CHECKS,
    ROOT,
    chapter_paths,
    check_references,
    concept_faults,
    faults,
    number,
    read,
    toc_faults,
    words,
)
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PATH = Path("chapters/03-coupling-flows.ipynb")


# The chapters.


@pytest.mark.parametrize("path", chapter_paths(), ids=lambda path: path.stem)
def test_a_chapter_keeps_the_house_rules(path):
    assert not faults(path), "\n".join(faults(path))
    count = words(read(path))
    if not 1500 <= count <= 4000:
        warnings.warn(f"{path.stem} has {count} words; 1,500 to 4,000 are usual", stacklevel=1)


def test_the_concepts_are_provided_before_they_are_used():
    chapters = {number(path): read(path).metadata.get("cnflib", {}) for path in chapter_paths()}
    assert not list(concept_faults(chapters))


def test_the_contents_list_every_chapter():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert not list(toc_faults(toc, [path.stem for path in chapter_paths()]))


# The rules themselves.

FIGURE = {
    "mystnb": {
        "image": {"alt": "Histogram of a thousand draws under the bell curve of their density."},
        "figure": {"caption": "The draws follow the density."},
    }
}
MISTAKES = [
    {"code": "def half(x):\n    return x", "hint": "halve"},
    {"code": "def half(x):\n    return 2 * x", "hint": "2"},
]
EXERCISES = "\n\n".join(
    f"**Exercise 3.{n}** ★★ (15 min) Do it.\n\n<details><summary>Solution 3.{n}</summary>\n\n"
    "```python\ndef half(x):\n    return x / 2\n```\n\n</details>"
    for n in range(1, 5)
)


def good() -> NotebookNode:
    """A small chapter without a fault."""
    cells = [
        new_markdown_cell(
            "# 3. Coupling flows\n\nSee [Dinh et al. (2016)](https://arxiv.org/abs/1605.08803)."
        ),
        new_code_cell(BOOTSTRAP),
        new_code_cell(
            "import matplotlib.pyplot as plt\nfrom cnflib import plot\n\nplot.use_style()",
            metadata={"tags": ["setup"]},
        ),
        new_markdown_cell(
            "> **Theorem 3.1.** Let\n>\n> $$ a = b $$ (3.1)\n\n$$\nb = c\n$$ (3.2)\n\n"
            "$$ c = d $$ (3.3)\n\nBy [(3.1)](#3.1)."
        ),
        *[
            new_code_cell("fig, ax = plt.subplots()\nax.plot([1, 2])", metadata=copy.deepcopy(FIGURE))
            for _ in range(3)
        ],
        new_code_cell("\n".join(["assert True"] * 5)),
        new_markdown_cell(EXERCISES),
        new_code_cell(
            "def half(x):\n    ...", metadata={"tags": ["exercise"], "cnflib": {"exercise": "3.4"}}
        ),
        new_code_cell(
            "half(1)",
            metadata={"tags": ["check"], "cnflib": {"check": "3.4", "mistakes": copy.deepcopy(MISTAKES)}},
        ),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nb = new_notebook(cells=cells, metadata=metadata)
    nb.metadata["cnflib"] = {"requires": ["change of variables"], "provides": ["coupling"]}
    return nb


def found(nb: NotebookNode) -> list[str]:
    """The faults of a notebook held in memory."""
    return [fault for check in CHECKS for fault in check(nb, PATH)]


def test_a_good_chapter_has_no_fault():
    assert not found(good())


def replace(cell: int, old: str, new: str):
    """A change of one cell's text."""

    def change(nb: NotebookNode) -> None:
        assert old in nb.cells[cell].source
        nb.cells[cell].source = nb.cells[cell].source.replace(old, new)

    return change


def code(source: str, **metadata):
    """One more code cell."""
    return lambda nb: nb.cells.append(new_code_cell(source, metadata=metadata))


def text(source: str):
    """One more Markdown cell."""
    return lambda nb: nb.cells.append(new_markdown_cell(source))


BREAKS = {
    "kernel": (lambda nb: nb.metadata.kernelspec.update(name="torch"), "the kernel is not python3"),
    "no id": (lambda nb: nb.cells[0].pop("id"), "a cell has no id"),
    "invalid": (lambda nb: nb.cells[0].metadata.update(tags="intro"), "not a valid notebook"),
    "count": (lambda nb: nb.cells[1].update(execution_count=1), "outputs or an execution count"),
    "outputs": (
        lambda nb: nb.cells[1].outputs.append(NotebookNode(output_type="stream", name="stdout", text="1")),
        "outputs or an execution count",
    ),
    "title": (replace(0, "# 3.", "# 4."), "the first cell does not begin with '# 3. '"),
    "bootstrap": (replace(1, "-q ", ""), "the first code cell is not the one"),
    "long cell": (code("\n".join(["x = 1"] * 26)), "26 lines of code"),
    "long median": (
        lambda nb: [code("\n".join(["x = 1"] * 12))(nb) for _ in range(20)],
        "the median code cell has 12",
    ),
    "no alt": (lambda nb: nb.cells[4].metadata.mystnb.pop("image"), "no mystnb.image.alt"),
    "thin alt": (lambda nb: nb.cells[4].metadata.mystnb.image.update(alt="A figure."), "no mystnb.image.alt"),
    "no caption": (lambda nb: nb.cells[4].metadata.mystnb.pop("figure"), "no mystnb.figure.caption"),
    "plot without alt": (code("plot.density(ax, log_prob)"), "no mystnb.image.alt"),
    "animation without words": (
        code("plot.animation(fig, draw, frames=9, alt='', caption='It moves.')"),
        "plot.animation needs alt= and caption=",
    ),
    "open formula": (text("$$ a = b"), "a $$ is left open"),
    "text after a formula": (text("$$ a = b $$ (3.4)."), "is followed by '(3.4).'"),
    "label by name": (text("$$ a = b $$ (eq:flow)"), "is followed by '(eq:flow)'"),
    "label out of order": (replace(3, "(3.2)", "(3.4)"), "the equations are labelled 3.1, 3.4, 3.3"),
    "label of another chapter": (text("$$ a = b $$ (2.4)"), "labelled 3.1, 3.2, 3.3, 2.4"),
    "directive": (text("```{note}\nLook.\n```"), "does not render"),
    "colon fence": (text(":::note\nLook.\n:::"), "does not render"),
    "role": (text("See {ref}`here`."), "does not render"),
    "tex label": (text("$$ a = b \\label{x} $$"), "does not render"),
    "macro": (text("$\\newcommand{\\R}{\\mathbb{R}}$"), "does not render"),
    "cuda": (code("x = x.cuda()"), "use best_device()"),
    "device by name": (code("x = x.to('cuda:0')"), "use best_device()"),
    "global seed": (code("random.seed(0)"), "seed a torch.Generator"),
    "numpy seed": (code("np.random.seed(0)"), "seed a torch.Generator"),
    "urllib": (code("from urllib.request import urlopen"), "runs without a network"),
    "wget": (code("!wget example.org/x.csv"), "runs without a network"),
    "url": (code('pd.read_csv("https://example.org/x.csv")'), "runs without a network"),
    "fetch": (code("fetch_openml('x')"), "runs without a network"),
    "arxiv": (text("[Nobody (2020)](https://arxiv.org/abs/2000.00000)"), "2000.00000 is not in"),
    "doi": (text("[Nobody (2020)](https://doi.org/10.1000/none)"), "10.1000/none is not in"),
    "few exercises": (replace(8, "**Exercise 3.4** ★★ (15 min)", ""), "3 exercises; at least 4"),
    "exercise out of order": (replace(8, "**Exercise 3.2**", "**Exercise 3.7**"), "numbered 3.1, 3.7, 3.3"),
    "no stars": (
        replace(8, "**Exercise 3.2** ★★ (15 min)", "**Exercise 3.2** (15 min)"),
        "Exercise 3.2 is not headed",
    ),
    "no minutes": (
        replace(8, "**Exercise 3.2** ★★ (15 min)", "**Exercise 3.2** ★★ (long)"),
        "Exercise 3.2 is not headed",
    ),
    "no solution": (replace(8, "Solution 3.2", "Answer"), "no '<details><summary>Solution 3.2"),
    "no starter": (lambda nb: nb.cells.pop(9), "Exercise 3.4 needs a starter"),
    "no check": (lambda nb: nb.cells.pop(10), "Exercise 3.4 needs a starter"),
    "starter unnamed": (lambda nb: nb.cells[9].metadata.pop("cnflib"), "does not name its exercise"),
    "starter solved": (replace(9, "    ...", "    return x / 2"), "has no function whose body"),
    "one mistake": (lambda nb: nb.cells[10].metadata.cnflib.mistakes.pop(), "fewer than two mistakes"),
    "mistake without hint": (
        lambda nb: nb.cells[10].metadata.cnflib.mistakes[0].pop("hint"),
        "fewer than two mistakes",
    ),
    "solution without code": (lambda nb: replace(8, "```python", "```text")(nb), "Solution 3.4 holds no"),
    "few figures": (lambda nb: nb.cells.pop(4), "2 figures; at least 3"),
    "few equations": (replace(3, "$$ c = d $$ (3.3)", ""), "2 numbered equations; at least 3"),
    "few asserts": (lambda nb: nb.cells.pop(7), "0 asserts; at least 5"),
    "no code exercise": (lambda nb: nb.cells.pop(9), "0 code exercises; at least 1"),
    "no concepts": (lambda nb: nb.metadata.pop("cnflib"), "metadata.cnflib.requires is not a list"),
    "concept as text": (
        lambda nb: nb.metadata.cnflib.update(provides="coupling"),
        "metadata.cnflib.provides is not",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_rule_catches_its_break(name):
    change, message = BREAKS[name]
    nb = good()
    change(nb)
    assert any(message in fault for fault in found(nb)), found(nb)


def test_every_rule_has_a_break():
    caught = set()
    for change, _ in BREAKS.values():
        nb = good()
        change(nb)
        caught |= {check for check in CHECKS if any(check(nb, PATH))}
    assert caught == set(CHECKS)


def test_an_animation_says_what_it_shows_in_its_arguments():
    nb = good()
    code("plot.animation(fig, draw, frames=9, alt='A square that moves.', caption='It moves.')")(nb)
    assert not found(nb)


def test_references_are_resolved_across_chapters():
    nb = good()
    assert not list(check_references(nb, PATH, {"3.1"}))
    assert list(check_references(nb, PATH, {"3.2"})) == ["no equation is labelled (3.1)"]
    nb.cells.append(new_markdown_cell("[(1.2)](#1.3)"))
    assert any("should read" in fault for fault in check_references(nb, PATH, {"3.1", "1.3"}))


def chapter(requires: str = "", provides: str = "") -> dict[str, list[str]]:
    """The concepts of a chapter, given as words."""
    return {"requires": requires.split(), "provides": provides.split()}


@pytest.mark.parametrize(
    ("chapters", "message"),
    [
        ({"1": chapter("", "a"), "2": chapter("a", "b")}, None),
        ({"1": chapter("j", "a"), "A": chapter("", "j")}, None),
        ({"1": chapter("b", "a"), "2": chapter("", "b")}, "provides only later"),
        ({"1": chapter("c", "a")}, "no chapter provides"),
        ({"1": chapter("", "a"), "2": chapter("", "a")}, "is provided 2 times"),
        ({"1": chapter("a", "a")}, "in a circle"),
        ({"1": chapter("j", "a"), "A": chapter("a", "j")}, "in a circle"),
    ],
)
def test_concepts_come_in_order(chapters, message):
    found = list(concept_faults(chapters))
    assert any(message in fault for fault in found) if message else not found


def test_the_contents_miss_nothing():
    toc = "parts: [{chapters: [{file: book/notation}, {file: chapters/01-a}]}]"
    assert not list(toc_faults(toc, ["01-a"]))
    assert list(toc_faults(toc, ["01-a", "02-b"]))
