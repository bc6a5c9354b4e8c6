"""The reference pages describe every public name once, and what other pages say of the library is so."""

import inspect
import re
import sys
from collections import Counter
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from house_rules import ROOT

pytest.importorskip("sphinx")

import cnflib_api as api  # noqa: E402

import cnflib  # noqa: E402
from cnflib import models  # noqa: E402
from cnflib.continuous import cnf  # noqa: E402
from cnflib.data import toy  # noqa: E402
from cnflib.ode import adaptive, tableaus  # noqa: E402

PAGES = sorted((ROOT / "book").rglob("*.md"))
DIRECTIVE = re.compile(r"^\.\. public:: (\S+)$", re.M)
ROLE = re.compile(r"\{py:(func|class|data|meth|mod)\}`(?:[^`<]*<)?~?([\w.]+)>?`")


def described() -> Counter[str]:
    """How often each public path is described, by the directives on the pages."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = DIRECTIVE.findall(text)
    return Counter(api.public_path(module, name) for module in modules for name in api.own_names(module))


def public_objects() -> dict[str, list[str]]:
    """What a package or a module shown by its package has in ``__all__``; the paths to one thing stand together."""
    found: dict[str, list[str]] = {}
    shown = {module.rpartition(".")[0] for module in api.public_modules()}
    for module in sorted(shown.union(filter(api.is_shown, api.public_modules()))):
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
        ("cnflib.flow", "tempered", "cnflib.tempered"),
        ("cnflib.continuous.cnf", "CNF", "cnflib.continuous.CNF"),
        ("cnflib.ode.solver", "Stats", "cnflib.ode.Stats"),
        ("cnflib.continuous.probes", "Probe", "cnflib.continuous.probes.Probe"),
        ("cnflib.data.digits", "digits", "cnflib.data.digits.digits"),
    ],
)
def test_a_name_is_described_where_readers_import_it(module, name, path):
    assert api.public_path(module, name) == path


def test_a_name_that_another_module_defines_is_left_to_it():
    assert cnf.CNF.__module__ in api.public_modules() and "CNF" not in api.own_names(
        "cnflib.continuous.points"
    )
    assert {"Target", "checkerboard"} <= set(api.own_names("cnflib.data.toy"))


def test_a_module_describes_what_readers_import_and_the_types_beside_it():
    names = api.own_names("cnflib.continuous.divergence")
    assert {"Exact", "Estimator"} <= set(names)
    assert not api.own_names("cnflib.ode.adjoint")
    assert api.is_shown("cnflib.data.toy") and api.is_shown("cnflib.train")
    assert not api.is_shown("cnflib.ode.solve") and not api.is_shown("cnflib.flow")


def test_named_types_keep_their_names():
    assert api.with_paths("Divergence | None", cnf) == "~cnflib.continuous.Divergence | None"
    assert api.with_paths("Divergence", toy) == "Divergence"
    assert api.annotations(cnf.CNF)["divergence"] == "Divergence"
    assert api.annotations(tableaus.Tableau)["c"] == "tuple[float, ...]"
    assert api.annotations(adaptive.Adaptive)["rtol"] == "float"


@pytest.mark.parametrize(("page", "stacked"), [("book/api/ode", True), ("chapters/09-x", False)])
def test_formulas_side_by_side_are_stacked_on_the_pages_of_the_reference(page, stacked):
    tree = publish_doctree(".. math:: a = b, \\qquad\n    c = d\n\n.. math:: e = f")
    api.stack_formulas(SimpleNamespace(env=SimpleNamespace(docname=page)), tree)
    first, second = (formula.astext() for formula in tree.findall(nodes.math_block))
    assert first == (
        r"\begin{gathered} a = b, \\ c = d \end{gathered}" if stacked else "a = b, \\qquad\nc = d"
    )
    assert second == "e = f"


def test_a_base_that_says_nothing_to_a_reader_is_not_shown():
    assert "   :show-inheritance:" in api.describe_name("cnflib.interpolants.paths", "Linear", [])
    for module, name in (("cnflib.interpolants.noise", "Bridge"), ("cnflib.density", "Density")):
        assert "   :show-inheritance:" not in api.describe_name(module, name, [])


def test_a_default_is_shown_by_its_name_or_as_what_it_is():
    assert api.with_names(adaptive.Adaptive).startswith("(tableau=dopri5, rtol=1e-5, ")
    assert api.without_private_names("(field, solver=_ADAPTIVE, _own=0)", cnf) == (
        "(field, solver=Adaptive(), _own=0)"
    )


def test_a_value_that_names_what_is_private_is_not_shown():
    shown = {
        name: "\n".join(api.describe_name("cnflib.ode.tableaus", name, [])) for name in ("rk4", "dopri5")
    }
    assert ":value: Tableau(" in shown["rk4"] and ":value:" not in shown["dopri5"]


def test_the_text_under_an_assignment_is_shown():
    lines = list(api.describe("cnflib.continuous.divergence"))
    start = lines.index(".. py:type:: Divergence")
    assert "   :module: cnflib.continuous" == lines[start + 1]
    assert any("draws its probes" in line for line in lines[start : start + 5])


def resolve(path: str) -> object:
    """The object that a dotted path names, as a reader reaches it: by attributes, where need be by import."""
    first, *rest = path.split(".")
    value = import_module(first)
    for name in rest:
        if isinstance(value, ModuleType) and not hasattr(value, name):
            import_module(f"{value.__name__}.{name}")
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_only_what_is_there_and_by_its_kind(page):
    for kind, path in ROLE.findall(page.read_text(encoding="utf-8")):
        value = resolve(path)
        assert path == "cnflib" or path.startswith("cnflib.")
        right = {"class": inspect.isclass, "func": inspect.isroutine, "mod": inspect.ismodule}.get(kind)
        assert right is None or right(value), f"{path} is no {kind}"


def test_a_name_that_is_not_there_is_noticed():
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve("cnflib.models.no_such_flow")
    assert resolve("cnflib.Flow") is cnflib.Flow


def test_the_guide_names_every_builder():
    text = (ROOT / "book/which-flow.md").read_text(encoding="utf-8")
    for name in models.__all__:
        assert f"cnflib.models.{name}`" in text, f"book/which-flow.md does not say that there is {name}"
