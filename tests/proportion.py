"""How much of the library's code checks: ``python tests/proportion.py [cnflib]`` prints it by file and by folder.

Code lines are lines of statements, docstrings left out, and a message (raise, assert) counts as one. Lines that check
are those of a function that is named check_…, refuse_…, ensure_…, require_… or validate_…, or of which more than half
guards; elsewhere guards (an ``if`` or ``except`` whose last word is raise), bare calls of such functions, and their
imports.
"""

import ast
import re
import sys
from collections import Counter
from pathlib import Path

NAMED = re.compile(r"_*(check|refuse|ensure|require|validate)(_|$)")


def code(node: ast.AST) -> set[int]:
    """The lines of the statements in a node; of a message the first alone."""
    found: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Raise | ast.Assert):
            found.add(part.lineno)
        elif isinstance(part, ast.stmt) and not _is_text(part):
            inside = {n for child in _nested(part) for n in range(child.lineno, child.end_lineno + 1)}
            found |= set(range(part.lineno, part.end_lineno + 1)) - inside
    return found


def guards(node: ast.AST) -> set[int]:
    """The lines of guards in a node."""
    found: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.If | ast.ExceptHandler) and isinstance(part.body[-1], ast.Raise):
            found |= set(range(part.lineno, part.body[0].lineno)).union(*map(code, part.body))
        elif isinstance(part, ast.Raise | ast.Assert):
            found.add(part.lineno)
    return found


def is_check(function: ast.FunctionDef) -> bool:
    """Whether a function says by its name that it checks, or mostly does."""
    return bool(NAMED.match(function.name)) or 2 * len(guards(function)) > len(code(function))


def checks(tree: ast.AST, names: set[str]) -> set[int]:
    """The lines of a module that check; ``names`` are the functions of the library that do nothing else."""
    found = guards(tree)
    for part in ast.walk(tree):
        if isinstance(part, ast.FunctionDef) and is_check(part):
            found |= code(part)
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
            called = part.value.func
            if getattr(called, "attr", getattr(called, "id", "")) in names:
                found |= code(part)
        elif isinstance(part, ast.ImportFrom):
            found |= {alias.lineno for alias in part.names if alias.name in names}
    return found


def counts(folder: Path) -> dict[str, tuple[int, int]]:
    """Code lines, and those that check, of every file."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
    functions = (f for tree in trees.values() for f in ast.walk(tree) if isinstance(f, ast.FunctionDef))
    names = {f.name for f in functions if is_check(f) and f.name[:2] != "__"}
    found = {}
    for path, tree in trees.items():
        lines = code(tree) - _blank(path)
        found[path.relative_to(folder).as_posix()] = len(lines), len(lines & checks(tree, names))
    return found


def _nested(statement: ast.stmt) -> list[ast.stmt]:
    """The statements directly inside another."""
    parts = [statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())]
    return [s for part in parts for s in ast.iter_child_nodes(part) if isinstance(s, ast.stmt)]


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _blank(path: Path) -> set[int]:
    rows = path.read_text(encoding="utf-8").splitlines()
    return {k for k, row in enumerate(rows, 1) if not row.strip() or row.lstrip().startswith("#")}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "cnflib")
    found, folders = counts(folder), Counter()
    for name, (lines, checking) in found.items():
        for group in (name, name.rpartition("/")[0] + "/", "all"):
            folders[group, "lines"] += lines
            folders[group, "checks"] += checking
    for group in dict.fromkeys(group for group, _ in folders):
        lines, checking = folders[group, "lines"], folders[group, "checks"]
        print(f"{checking:5} of {lines:5} {checking / max(lines, 1):7.1%}  {group}")


if __name__ == "__main__":
    main()
