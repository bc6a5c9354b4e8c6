"""Pages made of the chapters' paragraphs lead to the places where these stand."""

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from cnflib_book import anchor, mark, title_folds
from docutils import nodes
from docutils.core import publish_doctree
from excerpts import excerpts
from nbformat.v4 import new_markdown_cell, new_notebook
from outline import Chapter

TEXT = """## What goes wrong

**Trap 9.1** (The sign of $J$.) *Symptom:* the mass is 4. *Cure:* encode has
the other sign.

**Trap 9.2** (Coarse steps.) *Symptom:* the NLL is too low ([chapter 1](01-change.ipynb)). *Cure:* halve them."""


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, list[Chapter]]:
    """A book of one chapter with two traps, and one that is planned."""
    path = tmp_path / "09-instantaneous.ipynb"
    nbformat.write(
        new_notebook(cells=[new_markdown_cell(TEXT), new_markdown_cell("**Simpler** is easy.")]), path
    )
    return {"II": [Chapter("9", "Instantaneous", path), Chapter("10", "Later")]}


def test_a_page_has_the_paragraphs_under_their_chapter(parts):
    page = excerpts("Trap", parts)
    assert page.startswith("## 9. Instantaneous\n\n**The sign of $J$.** *Symptom:* the mass is 4.")
    assert page.count("## ") == 1 and "Later" not in page
    assert '<a href="../chapters/09-instantaneous.html#trap-9-1">Trap 9.1</a>' in page
    assert page.index("Trap 9.1") < page.index("**Coarse steps.**") < page.index("#trap-9-2")
    assert '(<a href="../chapters/01-change.html">chapter 1</a>)' in page and "ipynb" not in page
    assert excerpts("Simpler", parts) == ""


def marked_in(docname: str) -> list[tuple[list[str], list[str]]]:
    """Anchors and classes of the paragraphs of a page."""
    tree = publish_doctree(
        "**Trap 9.1** (The sign.) It is wrong.\n\n**Traps** are many.\n\nA **Figure 9.1**."
    )
    for node in tree.children:
        node.insert(0, nodes.Text(""))  # as MyST makes them
    mark(SimpleNamespace(env=SimpleNamespace(docname=docname)), tree)
    return [(node["ids"], node["classes"]) for node in tree.children]


def test_what_is_marked_in_a_chapter_has_an_anchor_and_a_class():
    trap, *others = marked_in("chapters/09-x")
    assert trap == ([anchor("Trap", "9.1")], ["book-trap"]) and anchor("Trap", "9.1") == "trap-9-1"
    assert others == [([], [])] * 2 == marked_in("book/x")[1:]


def test_a_folded_cell_is_headed_by_its_title():
    head = '<p class="{} admonition-title">{} code cell source</p>\n'
    heads = head.format("collapsed", "Show") + head.format("expanded", "Hide")
    untitled = heads + "</summary><pre>x = 1</pre>"
    context = {"body": heads + '</summary><pre><span class="c1"># @title Set &lt; up</span></pre>' + untitled}
    title_folds(None, "", "", context, None)
    assert context["body"].count(">Set &lt; up</p>") == 2 and context["body"].endswith(untitled)
