"""The map of the chapters says what the notebooks say, and every concept they teach is in the glossary."""

import re
from collections import Counter

import map as chapter_map
import nbformat
import pytest
from cnflib_book import glossary_terms
from house_rules import ROOT
from nbformat.v4 import new_markdown_cell, new_notebook
from outline import FAST_PATHS, PLAN, Chapter, chapter_paths, needs, number, outline, read_chapter

METADATA = {
    "1": {"requires": [], "provides": ["a", "b"]},
    "2": {"requires": ["a", "b"], "provides": ["c"]},
    "3": {"requires": ["c", "a"], "provides": []},
}


@pytest.fixture
def root(tmp_path):
    """A book of one chapter."""
    (tmp_path / "chapters").mkdir()
    notebook = new_notebook(cells=[new_markdown_cell("# 3. Coupling of two\n\n**Promise.**")])
    notebook.metadata["cnflib"] = {"requires": ["flow"], "provides": ["coupling"]}
    nbformat.write(notebook, tmp_path / "chapters/03-coupling-flows.ipynb")
    return tmp_path


def test_a_written_chapter_stands_for_its_plan(root):
    (chapter,) = (chapter for chapters in outline(root).values() for chapter in chapters if chapter.path)
    assert chapter.title == "Coupling of two"
    assert (chapter.requires, chapter.provides) == (("flow",), ("coupling",))
    assert [chapter.number for chapters in outline(root).values() for chapter in chapters] == [
        name for chapters in PLAN.values() for name in chapters
    ]


def test_a_chapter_outside_the_plan_is_refused(root):
    (root / "chapters/03-coupling-flows.ipynb").rename(root / "chapters/99-stray.ipynb")
    with pytest.raises(ValueError, match="plans no chapter 99"):
        outline(root)


def test_the_plan_counts_up_and_holds_the_fast_paths():
    numbers = [name for chapters in PLAN.values() for name in chapters]
    assert numbers == [*map(str, range(1, 28)), *"ABCDE"]
    assert all(numbers == sorted(numbers, key=int) for numbers in map(list, FAST_PATHS.values()))
    assert {name for path in FAST_PATHS.values() for name in path} <= set(numbers)


def test_the_first_page_lists_the_appendices():
    text = (ROOT / "book/index.md").read_text(encoding="utf-8")
    written = re.findall(r"\{doc\}`appendix-(\w)`", text)
    planned = re.findall(r"(?:Planned:|·) ([A-E])&nbsp;", text)
    assert written == [c.number.lower() for c in outline()["Appendices"] if c.page]
    assert sorted([name.upper() for name in written] + planned) == list("ABCDE")


@pytest.mark.parametrize("page", ["map", "how-to-read"])
def test_a_page_tells_both_fast_paths(page):
    text = re.sub(r"\s+", " ", (ROOT / f"book/{page}.md").read_text(encoding="utf-8"))
    assert all(" → ".join(path) in text for path in FAST_PATHS.values())


def test_the_first_page_lists_the_chapters_that_are_written_and_those_that_are_planned():
    text = (ROOT / "book/index.md").read_text(encoding="utf-8")
    written = re.findall(r"\{doc\}`/chapters/0?(\d+)-", text)
    planned = re.findall(r"(?:Planned:|·) (\d+)&nbsp;", text)
    assert written == [number(path) for path in chapter_paths()]
    assert sorted(map(int, written + planned)) == list(range(1, 28)) and "Twenty-seven chapters" in text


def test_an_edge_is_a_concept_that_one_provides_and_the_other_requires():
    assert needs(METADATA) == {"1": {}, "2": {"1": ["a", "b"]}, "3": {"2": ["c"], "1": ["a"]}}


def drawn() -> dict[str, list[Chapter]]:
    """The chapters of METADATA as parts of a book; the fourth is planned."""
    path = ROOT / "chapters/01-change-of-variables.ipynb"
    chapters = [
        Chapter(name, f"Title {name}", path, *map(tuple, meta.values())) for name, meta in METADATA.items()
    ]
    return {"I": chapters, "II": [Chapter("4", "Later & more")]}


def test_the_drawing_holds_every_chapter_and_every_edge_once():
    svg = chapter_map.svg(drawn())
    titles = re.findall(r"<title>Chapter (\d) builds on chapter (\d)", svg)
    assert sorted(titles) == [("2", "1"), ("3", "1"), ("3", "2")]
    assert Counter(re.findall(r'class="number"[^>]*>(\w+)<', svg)) == Counter("1234")
    assert svg.count('<a href="../chapters/01-change-of-variables.html">') == 3
    assert "Later &amp; more" in svg


def test_an_appendix_is_a_page_that_the_drawing_leads_to():
    chapters = outline()["Appendices"]
    pages = [chapter for chapter in chapters if chapter.page]
    assert [chapter.number for chapter in pages] == list("ABCE")
    svg = chapter_map.svg({"Appendices": chapters})
    assert re.findall(r'href="\.\./book/appendix-(\w)\.html"', svg) == list("abce")
    assert svg.count('class="planned"') == 1 + len(chapters) - len(pages)  # and the legend's
    assert not chapter_map.concepts({"Appendices": chapters})


def test_the_table_says_the_same_in_words():
    rows = chapter_map.table(drawn(), {"c": "C"}).splitlines()[2:]
    assert len(rows) == 3
    assert "| 1: a, b | {term}`C` |" in rows[1]
    assert "2: {term}`C`; 1: a" in rows[2]


# The glossary.


def glossary_lines() -> list[str]:
    """The terms of the glossary as they stand there, one a line."""
    text = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.M | re.S)[1]
    return [line for line in block.split("\n") if line and line[0] not in " :"]


def twice(terms: list[str]) -> list[str]:
    """Terms that stand there more than once, whatever their capitals and hyphens."""
    counts = Counter(term.lower().replace("-", " ") for term in terms)
    return [term for term, count in counts.items() if count > 1]


def missing(concepts: tuple[str, ...], terms: dict[str, str]) -> list[str]:
    """Concepts that the glossary does not explain."""
    return [concept for concept in concepts if chapter_map.words(concept) not in terms]


def test_a_term_stands_once_in_the_glossary():
    assert not twice(glossary_lines())
    assert twice(["mass check", "flow", "Mass-check"]) == ["mass check"]


def test_the_glossary_is_read_whole():
    assert len(glossary_terms()) == len(glossary_lines()) > 60


@pytest.mark.parametrize("path", chapter_paths(), ids=lambda path: path.stem)
def test_what_a_chapter_teaches_is_in_the_glossary(path):
    found = missing(read_chapter(path).provides, glossary_terms())
    assert not found, f"book/glossary.md explains no {', '.join(found)}: add what a reader can look up"


def test_a_missing_term_is_noticed():
    assert missing(("mass-check", "kl-divergence"), {"mass check": "mass check"}) == ["kl-divergence"]


def test_every_term_that_an_entry_refers_to_is_there():
    text = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    links = [link[1] or link[2] for link in re.finditer(r"\{term\}`(?:[^`<]* <([^>]+)>|([^`<]+))`", text)]
    known = {term.lower() for term in glossary_lines()}
    assert not {link for link in links if link.lower() not in known}
