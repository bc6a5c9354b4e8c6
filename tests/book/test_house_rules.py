"""Every chapter keeps the house rules, and every rule is seen to catch what it is there for."""

import copy
from pathlib import Path

import pytest
from house_rules import (
    ALL_WORDS,
    BOOTSTRAP,
    CHECKS,
    CODE_LINES,
    MAIN_PATH,
    ROOT,
    chapter_paths,
    check_references,
    concept_faults,
    faults,
    number,
    toc_faults,
)
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebooks import FOLD, lines, main_path, marked, read, visible, words
from seeds import with_seed

PATH = Path("chapters/03-coupling-flows.ipynb")


# The chapters.


@pytest.mark.parametrize("path", chapter_paths(), ids=lambda path: path.stem)
def test_a_chapter_keeps_the_house_rules(path):
    assert not faults(path), "\n".join(faults(path))


def test_the_concepts_are_provided_before_they_are_used():
    chapters = {number(path): read(path).metadata.get("cnflib", {}) for path in chapter_paths()}
    assert not list(concept_faults(chapters))


def test_the_contents_list_every_chapter():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert not list(toc_faults(toc, [path.stem for path in chapter_paths()]))


# The rules themselves.

FIGURE = {
    "mystnb": {"image": {"alt": "Histogram of a thousand draws under the bell curve of their density."}}
}
FOLDED = {"tags": [FOLD], "jupyter": {"source_hidden": True}, "cellView": "form"}
MISTAKES = [
    {"code": "def half(x):\n    return x", "hint": "halve"},
    {"code": "def half(x):\n    return 2 * x", "hint": "2"},
]
EXERCISES = "\n\n".join(
    f"**Exercise 3.{n}** ★ (10 min{', core' if n < 4 else ''}) Do it.\n\n"
    f"<details><summary>Solution 3.{n}</summary>\n\n```python\ndef half(x):\n    return x / 2\n```\n\n</details>"
    for n in range(1, 5)
)
CHOICES = "**Check A.** Which? (a) This.\n\n**Check B.** And here? (a) That.\n\n"
TRAPS = "\n\n".join(
    f"**Trap 3.{n}** (The wrong sign.) *Symptom:* the mass is not 1. *Cure:* turn it." for n in (1, 2)
)


def folded(title: str, source: str, *more: str, **metadata) -> NotebookNode:
    """A folded code cell, with more tags."""
    signs = {**copy.deepcopy(FOLDED), **metadata}
    signs["tags"] += more
    return new_code_cell(f"# @title {title}\n{source}", metadata=signs)


def figure(n: int, source: str = "fig, ax = plt.subplots()\nax.plot([1, 2])") -> list[NotebookNode]:
    """A figure and its caption."""
    caption = new_markdown_cell(f"**Figure 3.{n}.** The draws follow the density.")
    return [new_code_cell(source, metadata=copy.deepcopy(FIGURE)), caption]


def good() -> NotebookNode:
    """A small chapter without a fault."""
    cells = [
        new_markdown_cell(
            "# 3. Coupling flows\n\nSee [Dinh et al. (2016)](https://arxiv.org/abs/1605.08803)."
        ),
        new_code_cell(BOOTSTRAP, metadata=copy.deepcopy(FOLDED)),
        folded(
            "Set up", "import matplotlib.pyplot as plt\nfrom cnflib import plot\n\nplot.use_style()", "setup"
        ),
        new_markdown_cell(
            "> **Theorem 3.1.** Let\n>\n> $$ a = b $$ (3.1)\n\n$$\nb = c\n$$ (3.2)\n\n"
            "$$ c = d $$ (3.3)\n\nBy [(3.1)](#3.1)."
        ),
        *figure(1),
        *figure(2),
        *figure(3, "plot.slider(fig, draw, values, alt='A square that moves.')"),
        new_code_cell("\n".join(["assert True"] * 5) + "\nprint('so it is')"),
        new_markdown_cell(CHOICES + EXERCISES),
        new_code_cell(
            "def half(x):\n    ...", metadata={"tags": ["exercise"], "cnflib": {"exercise": "3.4"}}
        ),
        folded("Check", "half(1)", "check", cnflib={"check": "3.4", "mistakes": copy.deepcopy(MISTAKES)}),
        new_markdown_cell(TRAPS),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nb = new_notebook(cells=cells, metadata=metadata)
    nb.metadata["cnflib"] = {
        "requires": ["change of variables"],
        "provides": ["coupling"],
        "question": "Which is real?",
    }
    nb.cells[4].metadata.tags = ["still"]
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
    "wide line": (code(f"x = {'1' * 81}"), "a line over 84 columns"),
    "no alt": (lambda nb: nb.cells[4].metadata.mystnb.pop("image"), "no mystnb.image.alt"),
    "thin alt": (lambda nb: nb.cells[4].metadata.mystnb.image.update(alt="A figure."), "no mystnb.image.alt"),
    "caption in the metadata": (
        lambda nb: nb.cells[4].metadata.mystnb.update(figure={"caption": "They follow."}),
        "the caption is the next cell",
    ),
    "no caption": (lambda nb: nb.cells.pop(5), "no Markdown cell begins with '**Figure 3.1.** '"),
    "caption in code": (lambda nb: nb.cells.insert(5, new_code_cell("print(1)")), "no Markdown cell begins"),
    "caption out of order": (replace(7, "3.2", "3.4"), "no Markdown cell begins with '**Figure 3.2.** '"),
    "plot without alt": (code("plot.density(ax, log_prob)"), "no mystnb.image.alt"),
    "slider without alt": (replace(8, "alt=", ""), "plot.slider and plot.animation need alt="),
    "nothing moves": (replace(8, "plot.slider", "plot.samples"), "nothing moves"),
    "no still": (lambda nb: nb.cells[4].metadata.pop("tags"), "not exactly one figure"),
    "two stills": (lambda nb: nb.cells[6].metadata.update(tags=["still"]), "not exactly one figure"),
    "still that moves": (replace(4, "plt.subplots()", "plot.slider(alt='')"), "not exactly one figure"),
    "no question": (lambda nb: nb.metadata.cnflib.pop("question"), "is no question"),
    "statement": (lambda nb: nb.metadata.cnflib.update(question="It is real."), "is no question"),
    "late picture": (
        lambda nb: nb.cells.insert(1, new_markdown_cell("word " * 220)),
        "words before the first picture",
    ),
    "no tag": (lambda nb: nb.cells[2].metadata.update(tags=["setup"]), "it lacks the tag hide-input"),
    "open in Jupyter": (lambda nb: nb.cells[2].metadata.pop("jupyter"), "it lacks jupyter.source_hidden"),
    "open in Colab": (lambda nb: nb.cells[2].metadata.pop("cellView"), 'it lacks cellView "form"'),
    "fold without a title": (replace(2, "# @title Set up", "# Set up"), "it lacks a first line '# @title …'"),
    "imports unfolded": (code("import torch"), "imports: fold it"),
    "idle import": (
        replace(2, "from cnflib import", "from cnflib import Chain,"),
        "Chain is imported and not used",
    ),
    "check unfolded": (
        lambda nb: nb.cells.__setitem__(13, new_code_cell("half(1)", metadata={"tags": ["check"]})),
        "checks an exercise: fold it",
    ),
    "folded answer with a figure": (
        lambda nb: nb.cells[4].metadata.update(tags=["hide-output"]),
        "the figure of the cell",
    ),
    "much code": (
        lambda nb: [code("x = 1\n" * 20)(nb) for _ in range(CODE_LINES // 20 + 1)],
        "lines of code are not folded",
    ),
    "inverse": (code("x = flow.inverse(z)"), "names that cannot be mixed up"),
    "forward": (code("z = flow.forward(x)"), "names that cannot be mixed up"),
    "assert alone": (code("assert 1 + 1 == 2"), "only asserts"),
    "long path": (text("word " * MAIN_PATH), "words on the main path"),
    "long folds": (text(f"<details>{'word ' * ALL_WORDS}</details>"), "words in all"),
    "equation outside": (
        replace(3, "Let\n>\n> $$ a = b $$", "Let\n\n$$ a = b $$"),
        "an equation stands under the box",
    ),
    "trap without cure": (replace(14, "*Cure:* turn", "Turn"), "does not read '*Symptom:* … *Cure:* …'"),
    "trap unnamed": (
        replace(14, "**Trap 3.2** (The wrong sign.)", "**Trap 3.2**"),
        "the traps are not headed",
    ),
    "one trap": (lambda nb: nb.cells.pop(14), "0 traps; at least 2 are due"),
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
    "few exercises": (replace(11, "**Exercise 3.4** ★ (10 min)", ""), "3 exercises; at least 4"),
    "exercise out of order": (replace(11, "**Exercise 3.2**", "**Exercise 3.7**"), "numbered 3.1, 3.7, 3.3"),
    "no stars": (
        replace(11, "**Exercise 3.2** ★ (10 min, core)", "**Exercise 3.2** (10 min)"),
        "Exercise 3.2 is not headed",
    ),
    "no minutes": (
        replace(11, "**Exercise 3.2** ★ (10 min, core)", "**Exercise 3.2** ★ (long)"),
        "Exercise 3.2 is not headed",
    ),
    "two easy": (
        lambda nb: [replace(11, f"3.{n}** ★", f"3.{n}** ★★")(nb) for n in (1, 2)],
        "2 exercises with one star",
    ),
    "two core": (replace(11, "3.3** ★ (10 min, core)", "3.3** ★ (10 min)"), "2 core exercises of 20 minutes"),
    "long core": (replace(11, "3.3** ★ (10 min, core)", "3.3** ★ (30 min, core)"), "3 core exercises of 50"),
    "one choice": (replace(11, "**Check B.**", "Check B."), "1 concept checks"),
    "no solution": (replace(11, "Solution 3.2", "Answer"), "no '<details><summary>Solution 3.2"),
    "no starter": (lambda nb: nb.cells.pop(12), "Exercise 3.4 needs a starter"),
    "no check": (lambda nb: nb.cells.pop(13), "Exercise 3.4 needs a starter"),
    "starter unnamed": (lambda nb: nb.cells[12].metadata.pop("cnflib"), "does not name its exercise"),
    "starter solved": (replace(12, "    ...", "    return x / 2"), "has no function whose body"),
    "one mistake": (lambda nb: nb.cells[13].metadata.cnflib.mistakes.pop(), "fewer than two mistakes"),
    "mistake without hint": (
        lambda nb: nb.cells[13].metadata.cnflib.mistakes[0].pop("hint"),
        "fewer than two mistakes",
    ),
    "solution without code": (lambda nb: replace(11, "```python", "```text")(nb), "Solution 3.4 holds no"),
    "few figures": (lambda nb: [nb.cells.pop(4) for _ in range(2)], "2 figures; at least 3"),
    "few equations": (replace(3, "$$ c = d $$ (3.3)", ""), "2 numbered equations; at least 3"),
    "few asserts": (lambda nb: nb.cells.pop(10), "0 asserts; at least 5"),
    "no code exercise": (lambda nb: nb.cells.pop(12), "0 code exercises; at least 1"),
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


def test_words_and_lines_are_counted():
    text = "One $x + y$, two [(3.1)](#3.1).\n\n$$ a = b $$ (3.1)\n\n— → 3\n\n<details>hidden words</details>"
    assert words(main_path(text)) == 5  # One x, two (3.1 . and 3
    assert words(text) == 7
    nb = good()
    assert lines(visible(nb)) == 2 + 2 + 1 + 6 + 2


def test_a_seed_is_replaced_in_its_one_line():
    nb = good()
    with pytest.raises(ValueError, match="one cell with the line 'seed = 0'; found 0"):
        with_seed(nb, 3)
    nb.cells[2].source += "\nseed = 0\nrng.manual_seed(seed)"
    assert "\nseed = 3\nrng" in with_seed(nb, 3).cells[2].source and "seed = 0" in nb.cells[2].source


def test_marked_paragraphs_are_found():
    (trap, *_), nb = marked(good(), "Trap"), good()
    assert trap == ("3.1", "The wrong sign", "*Symptom:* the mass is not 1. *Cure:* turn it.")
    text("**Simpler 3.1** (A Gaussian of $f(x)$.) It wins,\nand fast.\n\nMore.")(nb)
    assert list(marked(nb, "Simpler")) == [("3.1", "A Gaussian of $f(x)$", "It wins,\nand fast.")]


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
