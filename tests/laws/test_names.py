"""A name at the top of a file means one thing in the whole library, private ones too."""

import ast
from collections import defaultdict
from pathlib import Path

import cnflib

ROOT = Path(cnflib.__file__).parent


def meanings(path):
    """What a file defines at its top, and what it means by it: a place, or the value of a constant."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, path
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs = zip(target.elts, value.elts) if isinstance(target, ast.Tuple) else [(target, value)]
            yield from ((one.id, ast.unparse(what)) for one, what in pairs if isinstance(one, ast.Name))


def test_a_name_has_one_meaning_but_those_that_python_knows():
    found = defaultdict(set)
    for path in ROOT.rglob("*.py"):
        for name, meaning in meanings(path):
            found[name].add(meaning)
    twice = {name: several for name, several in found.items() if len(several) > 1 and name[:2] != "__"}
    assert not twice, "\n".join(f"{name}: {', '.join(map(str, several))}" for name, several in twice.items())
