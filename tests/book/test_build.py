"""The build sees every change that matters, and refuses pages that ask another host or hide a figure."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("jupyter_book")

import build  # noqa: E402
from cnflib_book import ROOT, cache_folder, chapter_number, drop_thebe, plain_bibliography  # noqa: E402
from site_checks.loaded import page_faults  # noqa: E402


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A library of one module, one table and one pinned version."""
    (tmp_path / "cnflib/data/__pycache__").mkdir(parents=True)
    (tmp_path / "cnflib/flow.py").write_text("x = 1")
    (tmp_path / "cnflib/data/table.csv").write_text("1,2")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["cnflib/flow.py", "cnflib/data/table.csv", "constraints.txt", "cnflib/new.py"]
)
def test_a_change_of_the_library_gets_a_new_cache(root, name):
    before = cache_folder(root)
    (root / name).write_text("changed")
    assert cache_folder(root) != before


@pytest.mark.parametrize("name", ["cnflib/data/__pycache__/flow.pyc", "README.md"])
def test_other_changes_keep_the_cache(root, name):
    before = cache_folder(root)
    (root / name).write_text("changed")
    assert cache_folder(root) == before


def test_a_cache_cut_short_is_emptied(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(build, "cache_folder", lambda: folder)
    build.open_cache()
    (folder / "executed").mkdir()
    build.open_cache()
    assert (folder / "executed").exists()
    (folder / "writing").touch()
    build.open_cache()
    assert not (folder / "executed").exists()


ALT = "A histogram of a thousand draws under a bell curve."


@pytest.mark.parametrize(
    ("html", "message"),
    [
        (f'<script src="_static/a.js"></script><img src="../_images/a.png" alt="{ALT}">', None),
        ('<a href="https://arxiv.org">a paper</a>', None),
        ('<script src="https://example.org/a.js"></script>', "loads https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "loads //example.org/a.css"),
        ('<img src="https://example.org/a.png">', "loads https://example.org/a.png"),
        ('<img src="../_images/a.png" alt="../_images/a.png">', "needs alt text"),
        ('<img src="../_images/a.png" alt="A figure.">', "needs alt text"),
    ],
)
def test_a_bad_page_is_refused(tmp_path, html, message):
    page = tmp_path / "page.html"
    page.write_text(html)
    found = list(page_faults(tmp_path, page))
    assert any(message in fault for fault in found) if message else not found


def test_the_number_of_a_chapter_is_in_its_name():
    names = ["chapters/08-neural-odes", "chapters/12-x", "chapters/A-linear-algebra", "book/notation"]
    assert [chapter_number(name) for name in names] == ["8", "12", "A", None]


# What is written before Sphinx runs.

COSTS = {"execution_seconds": 41.6, "processor_seconds": 38.2, "peak_mebibytes": 612.3, "threads": 1}


def test_the_run_times_are_a_table_with_the_machine():
    page = build.run_times(
        [
            ("chapters/01-a", {**COSTS, "processor": "Model X"}),
            ("chapters/02-b", {**COSTS, "peak_mebibytes": 700.0, "processor": "Model X"}),
        ]
    )
    assert "| {doc}`/chapters/01-a` | 42 | 38 | 612 |" in page
    assert "| **all** | **83** | **76** | **700** |" in page
    assert "Measured on 1 thread of Model X;" in page and page.count("Model X") == 1


def test_a_cost_of_an_older_build_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "cache")
    cache, path = build.open_cache(), build.chapter_paths()[0]
    notebook = build.read(path)
    build.store(cache, path, notebook, {"execution_seconds": 1.0, "peak_mebibytes": 1.0})
    assert build.cost_of(cache, path) is None
    build.store(cache, path, notebook, {**COSTS, "processor": "Model X"})
    assert build.cost_of(cache, path)["threads"] == 1


def test_the_processor_has_a_name():
    assert build.processor().strip()


def test_a_file_that_says_the_same_is_left_alone(tmp_path):
    path = tmp_path / "pages/map.md"
    build.write(path, "a")
    os.utime(path, (1, 1))
    build.write(path, "a")
    assert path.stat().st_mtime == 1
    build.write(path, "b")
    assert path.read_text() == "b" and path.stat().st_mtime > 1


PAINTER = """
from pathlib import Path

def draw(folder):
    count = Path(__file__).with_name("count")
    count.write_text(count.read_text() + "x" if count.exists() else "x")
    (folder / "hero.webp").write_text("picture")
"""


@pytest.fixture
def studio(tmp_path, root, monkeypatch):
    """A place to draw in: a script that counts how often it drew, and a library of one module."""
    monkeypatch.setattr(build, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(build, "PICTURES", tmp_path / "book/_generated")
    monkeypatch.setattr(build, "HERO", tmp_path / "book/hero.py")
    monkeypatch.setattr(build, "cache_folder", lambda: cache_folder(root))
    (tmp_path / "_build").mkdir()
    (tmp_path / "book").mkdir()
    build.HERO.write_text(PAINTER)
    build.draw_hero()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "times"),
    [("README.md", 1), ("cnflib/flow.py", 2), ("constraints.txt", 2), ("book/hero.py", 2)],
)
def test_the_picture_is_drawn_again_when_what_it_shows_changed(studio, name, times):
    (studio / name).write_text(f"{PAINTER}\n" if name == "book/hero.py" else "changed")
    build.draw_hero()
    assert len((studio / "book/count").read_text()) == times
    assert (studio / "book/_generated/hero.webp").read_text() == "picture"


def test_a_lost_picture_is_drawn_again(studio):
    shutil.rmtree(studio / "book/_generated")
    build.draw_hero()
    assert (studio / "book/_generated/hero.webp").exists()


def test_a_picture_that_fails_stops_the_build_every_time(studio):
    build.HERO.write_text("def draw(folder):\n    raise ValueError('no field learned')")
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            build.draw_hero()


def test_the_site_names_no_thebe_and_no_deprecated_role():
    files = ["_static/doctools.js", "_static/sphinx-thebe.js"]
    entries = '<div role="list"><div class="citation" role="doc-biblioentry">'
    context = {"script_files": files, "css_files": ["_static/sphinx-thebe.css"], "body": entries}
    drop_thebe(None, "book/bibliography", "page.html", context, None)
    plain_bibliography(None, "book/bibliography", "page.html", context, None)
    assert context["script_files"] == ["_static/doctools.js"] and context["css_files"] == []
    assert context["body"] == '<div><div class="citation">'


def test_no_file_changes_where_python_looks_for_modules():
    """A script's own folder is on the path anyway, the root by the installation; pyproject.toml names the tests'."""
    changes = re.compile(r"sys\.path(\[|\.(insert|append|extend)|\s*\+?=)|syspath" + "_prepend")
    folders = ("benchmarks", "book", "chapters", "cnflib", "scripts", "tests")
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.*"))
    code = [path for path in files if path.suffix in {".py", ".ipynb"}]
    assert code and not [path for path in code if changes.search(path.read_text(encoding="utf-8"))]


def test_titles_in_the_bibliography_are_plain_text():
    works = (ROOT / "book/references.bib").read_text(encoding="utf-8")
    assert "$" not in works, "The page shows TeX as it stands: write tr(f(A)), not $\\mathrm{tr}(f(A))$."
