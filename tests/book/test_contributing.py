"""What CONTRIBUTING.md names is there, and the chapters open in JupyterLab from the book's environment."""

import re
import subprocess
import sys
import tomllib

import pytest
from house_rules import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = "benchmarks|book|chapters|cnflib|scripts|tests"
PATH = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*[\w/])(?![\w<])")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_file_it_names_is_there():
    fresh = {"tests/units/test_shift.py"}  # of the layer that the recipe adds
    named = set(PATH.findall(re.sub(r"\S*<\w+>\S*", "", TEXT))) - fresh
    assert len(named) > 40 and not [path for path in named if not (ROOT / path).exists()]


def test_every_name_it_looks_up_in_a_file_stands_there():
    places = re.findall(rf"`(\w+)` (?:in|of) `((?:{FOLDERS})/[\w/]+\.py)`", TEXT)
    lost = [(name, path) for name, path in places if not re.search(rf"\b{name}\b", (ROOT / path).read_text())]
    assert len(places) > 8 and not lost


def test_the_readme_leads_to_it():
    assert "(CONTRIBUTING.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_lab_opens_the_chapters_with_pinned_packages():
    (recipe,) = re.findall(r"^lab: \$\(READY\) ## .*\n\t(.*)$", MAKEFILE, re.M)
    assert "-m jupyterlab" in recipe and recipe.endswith(" chapters")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "jupyterlab" in groups["optional-dependencies"]["book"]
    assert re.search(r"^jupyterlab==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)


def test_lab_starts():
    pytest.importorskip("jupyterlab")
    subprocess.run([sys.executable, "-m", "jupyterlab", "--version"], check=True, capture_output=True)
