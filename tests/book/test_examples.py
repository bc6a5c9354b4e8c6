"""Every example in a docstring runs; all of the folders of flows, solvers and builders show one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from registry import seeded

import cnflib

SHOWING = tuple(f"cnflib.{name}." for name in ("continuous", "discrete", "interpolants", "models", "ode"))
modules = [
    info.name
    for info in pkgutil.walk_packages(cnflib.__path__, "cnflib.")
    if "._" not in info.name and not info.ispkg
]
public = {
    f"{module}.{name}": getattr(importlib.import_module(module), name)
    for module in modules
    for name in importlib.import_module(module).__all__
}
finder = doctest.DocTestFinder(recurse=False)


def example(name: str) -> doctest.DocTest:
    """The example of a class or function; it has its own name, all else it imports itself."""
    (test,) = finder.find(public[name], name, globs={name.rpartition(".")[2]: public[name]})
    return test


described = [
    name for name, v in public.items() if inspect.isclass(v) or inspect.isfunction(v)
]  # no named types


@pytest.mark.parametrize(
    "name", [name for name in described if name.startswith(SHOWING) or example(name).examples]
)
def test_the_example_in_a_docstring_runs(name):
    test = example(name)
    assert test.examples, f"{name} has no example: add one under 'Example:'"
    said = []
    with seeded():
        failures, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
            test, out=said.append
        )
    assert not failures, "".join(said)
