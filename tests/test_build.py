"""The build sees every change that matters, and refuses pages that ask another host or hide a figure."""

import sys
from pathlib import Path

import pytest
from house_rules import ROOT

pytest.importorskip("jupyter_book")
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book/_ext")]

import build  # noqa: E402
from cnflib_book import cache_folder, chapter_number  # noqa: E402


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
def test_a_bad_page_is_refused(tmp_path, monkeypatch, html, message):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    page = tmp_path / "html/page.html"
    page.parent.mkdir()
    page.write_text(html)
    found = list(build.page_faults(page))
    assert any(message in fault for fault in found) if message else not found


def test_the_number_of_a_chapter_is_in_its_name():
    names = ["chapters/08-neural-odes", "chapters/12-x", "chapters/A-linear-algebra", "book/notation"]
    assert [chapter_number(name) for name in names] == ["8", "12", "A", None]
