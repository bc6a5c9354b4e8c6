"""The reference pages describe every public name once, and what other pages say of the library is so."""

import re
import sys
from collections import Counter
from importlib import import_module
from types import ModuleType

import pytest
from house_rules import ROOT

pytest.importorskip("sphinx")
sys.path.insert(0, str(ROOT / "book/_ext"))

import cnflib_api as api  # noqa: E402

import cnflib  # noqa: E402
from cnflib import models  # noqa: E402
from cnflib.continuous import cnf, tableaus  # noqa: E402
from cnflib.data import mixture, toy  # noqa: E402

PAGES = sorted((ROOT / "book").rglob("*.md"))
DIRECTIVE = re.compile(r"^\.\. public:: (\S+)$", re.M)
ROLE = re.compile(r"\{py:(?:func|class|data|meth|mod)\}`(?:[^`<]*<)?~?([\w.]+)>?`")


def described() -> Counter[str]:
    """How often each public path is described, by the directives on the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = DIRECTIVE.findall(text)
    return Counter(api.public_path(module, name) for module in modules for name in api.own_names(module))


def public_objects() -> dict[str, list[str]]:
    """Every name of every ``__all__`` but modules: the paths that lead to one and the same thing together."""
    found: dict[str, list[str]] = {}
    packages = {".".join(module.split(".")[:k]) for module in api.public_modules() for k in range(1, 4)}
    for module in sorted(packages):
        space = import_module(module)
        for name in space.__all__:
            value = getattr(space, name)
            if not isinstance(value, ModuleType):
                found.setdefault(f"{name} {id(value)}", []).append(f"{module}.{name}")
    return found


def test_every_public_name_is_described_exactly_once():
    counts = described()
    wrong = {
        paths[0]: sum(counts[path] for path in paths)
        for paths in public_objects().values()
        if sum(counts[path] for path in paths) != 1
    }
    assert not wrong, (
        f"described so often, not once: {wrong}; a page in book/api needs '.. public:: <module>'"
    )


def test_a_module_that_no_page_describes_is_noticed(monkeypatch):
    monkeypatch.setattr(
        sys.modules[__name__], "DIRECTIVE", re.compile(r"^\.\. public:: (cnflib\.models)$", re.M)
    )
    with pytest.raises(AssertionError, match="cnflib.Bijection"):
        test_every_public_name_is_described_exactly_once()


@pytest.mark.parametrize(
    ("module", "name", "path"),
    [
        ("cnflib.bijection", "Chain", "cnflib.Chain"),
        ("cnflib.flow", "Base", "cnflib.flow.Base"),
        ("cnflib.continuous.cnf", "CNF", "cnflib.continuous.CNF"),
        ("cnflib.continuous.solvers", "Stats", "cnflib.continuous.solvers.Stats"),
        ("cnflib.data.digits", "digits", "cnflib.data.digits.digits"),
    ],
)
def test_a_name_is_described_where_readers_import_it(module, name, path):
    assert api.public_path(module, name) == path


def test_a_name_that_another_module_defines_is_left_to_it():
    assert toy.GaussianMixture is mixture.GaussianMixture
    assert "GaussianMixture" not in api.own_names("cnflib.data.toy")
    assert {"Target", "checkerboard"} <= set(api.own_names("cnflib.data.toy"))


def test_named_types_keep_their_names():
    assert api.with_paths("Solver | None", cnf) == "~cnflib.continuous.Solver | None"
    assert api.with_paths("Solver", mixture) == "Solver"
    assert api.annotations(cnf.CNF)["divergence"] == "Divergence"
    assert api.annotations(tableaus.Tableau)["c"] == "tuple[float, ...]"


def test_the_text_under_an_assignment_is_shown():
    lines = list(api.describe("cnflib.continuous.divergence"))
    start = lines.index(".. py:type:: Divergence")
    assert "   :module: cnflib.continuous" == lines[start + 1]
    assert any("draws its probes" in line for line in lines[start : start + 5])


def resolve(path: str) -> object:
    """The object that a dotted path names."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            value = getattr(value, name)
        return value
    raise ModuleNotFoundError(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_only_what_is_there(page):
    for path in ROLE.findall(page.read_text(encoding="utf-8")):
        assert resolve(path) is not None
        assert path == "cnflib" or path.startswith("cnflib.")


def test_a_name_that_is_not_there_is_noticed():
    with pytest.raises(AttributeError):
        resolve("cnflib.models.no_such_flow")
    assert resolve("cnflib.Flow") is cnflib.Flow


def test_the_guide_names_every_builder():
    text = (ROOT / "book/which-flow.md").read_text(encoding="utf-8")
    for name in models.__all__:
        assert f"cnflib.models.{name}`" in text, f"book/which-flow.md does not say that there is {name}"
