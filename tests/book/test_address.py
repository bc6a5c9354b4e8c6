"""The public address stands in pyproject.toml; every other mention agrees, and so does every version."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from house_rules import ADDRESS, ROOT

import cnflib

OWNER, NAME = ADDRESS.removeprefix("https://github.com/").split("/")
MENTION = re.compile(rf"\bgithub(?:\.com)?/([\w-]+/(?:cnflib|{NAME}))\b|\b([\w-]+)\.github\.io/([\w-]+)")
NOT_OURS = {".git", ".venv", "_build", "build", "dist", "__pycache__", ".ruff_cache", ".pytest_cache"}
SUFFIXES = {"", ".cff", ".css", ".ipynb", ".md", ".py", ".toml", ".txt", ".yml"}
CARRIERS = ["README.md", "CITATION.cff", "_config.yml", "book/bootstrap.txt", "book/how-to-read.md"]


def text_files() -> Iterator[Path]:
    """The project's own text files."""
    for path in sorted(ROOT.rglob("*")):
        if (
            path.is_file()
            and path.suffix in SUFFIXES
            and not NOT_OURS.intersection(path.relative_to(ROOT).parts)
        ):
            yield path


def strangers(text: str) -> list[str]:
    """Mentions of this project under another address."""
    ours = {f"github.com/{OWNER}/{NAME}", f"github/{OWNER}/{NAME}", f"{OWNER}.github.io/{NAME}"}
    return [match[0] for match in MENTION.finditer(text) if match[0] not in ours]


def test_the_address_is_one():
    wrong = {path: found for path in text_files() if (found := strangers(path.read_text(encoding="utf-8")))}
    assert not wrong


@pytest.mark.parametrize("name", CARRIERS)
def test_the_address_is_given_where_it_is_needed(name):
    assert ADDRESS in (ROOT / name).read_text(encoding="utf-8")


def test_another_address_is_caught():
    assert not strangers(f"{ADDRESS} and https://github.com/rtqichen/torchdiffeq")
    for other in (
        "github.com/" + "someone/cnflib",
        "github/" + "someone/cnflib",
        "someone" + ".github.io/cnflib",
    ):
        assert strangers(f"see https://{other}/x") == [other]


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == cnflib.__version__ == citation["version"]
