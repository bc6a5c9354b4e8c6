"""Every class and function of discrete flows and interpolants, and every builder, shows an example that runs."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from registry import seeded

import cnflib

shown = [
    name
    for package in (cnflib.discrete, cnflib.interpolants, cnflib.models)
    for _, name, _ in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    if "._" not in name
]
finder = doctest.DocTestFinder(recurse=False)
public = {
    f"{module}.{name}": getattr(importlib.import_module(module), name)
    for module in shown
    for name in importlib.import_module(module).__all__
}
examples = {
    name: v for name, v in public.items() if inspect.isclass(v) or inspect.isfunction(v)
}  # no named types


@pytest.mark.parametrize("name", examples)
def test_the_example_in_a_docstring_runs(name):
    own = {name.rpartition(".")[2]: examples[name]}  # all else an example imports itself
    (test,) = finder.find(examples[name], name, globs=own)
    assert test.examples, f"{name} has no example: add one under 'Example:'"
    said = []
    with seeded():
        failures, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
            test, out=said.append
        )
    assert not failures, "".join(said)
