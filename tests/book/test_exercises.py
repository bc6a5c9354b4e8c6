"""Every code exercise: the starter counts as not attempted, the solution passes, plausible mistakes get their hint."""

import contextlib
import copy
import io
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from house_rules import SOLUTION, chapter_paths
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebooks import FENCE, prose, read, tagged

matplotlib.use("Agg")


def cell_of(nb: NotebookNode, tag: str, name: str) -> NotebookNode:
    """The cell tagged ``exercise`` or ``check`` of one exercise."""
    return next(cell for cell in tagged(nb, tag) if cell.metadata.cnflib[tag] == name)


def solution(nb: NotebookNode, name: str) -> str:
    """The Python of a folded solution."""
    bodies = {f"{chapter}.{n}": body for chapter, n, body in SOLUTION.findall(prose(nb))}
    return "\n".join(FENCE.findall(bodies[name]))


def attempt(nb: NotebookNode, name: str, answer: str) -> str:
    """Run the cells tagged ``setup``, an answer and the check in a fresh namespace; return what they print."""
    sources = [cell.source for cell in tagged(nb, "setup")]
    printed, space = io.StringIO(), {"__name__": "__main__"}
    with contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]), plt.rc_context():
        for source in [*sources, answer, cell_of(nb, "check", name).source]:
            exec(compile(source, f"exercise {name}", "exec"), space)
    return printed.getvalue()


def exercise_faults(nb: NotebookNode, name: str) -> Iterator[str]:
    """What is wrong with the check of one exercise."""
    if "not attempted" not in attempt(nb, name, cell_of(nb, "exercise", name).source):
        yield "the check does not say 'not attempted' to the starter"
    try:
        if "not attempted" in attempt(nb, name, solution(nb, name)):
            yield "the check says 'not attempted' to the solution"
    except AssertionError as error:
        yield f"the check refuses the solution: {error}"
    for mistake in cell_of(nb, "check", name).metadata.cnflib.mistakes:
        try:
            attempt(nb, name, mistake["code"])
            yield f"the check accepts the mistake with the hint {mistake['hint']!r}"
        except AssertionError as error:
            if mistake["hint"] not in str(error):
                yield f"the mistake with the hint {mistake['hint']!r} is told {str(error)!r}"


CASES = [
    (path, cell.metadata.cnflib.exercise)
    for path in chapter_paths()
    for cell in tagged(read(path), "exercise")
    if "exercise" in cell.metadata.get("cnflib", {})
]


@pytest.mark.parametrize(("path", "name"), CASES, ids=[f"{path.stem}-{name}" for path, name in CASES])
def test_an_exercise_checks_what_it_should(path, name):
    assert not list(exercise_faults(read(path), name))


# The test itself, on a small exercise.

CHECK = """
answer = half(THREE)
if answer is None:
    print("not attempted")
else:
    assert answer != 6, "halve, do not double"
    assert answer == 1.5, "divide by 2"
    print("correct")
"""
MISTAKES = [
    {"code": "def half(x):\n    return 2 * x", "hint": "do not double"},
    {"code": "def half(x):\n    return x", "hint": "divide by 2"},
]


def small(
    check: str = CHECK, solution: str = "return x / 2", mistakes: list[dict] = MISTAKES
) -> NotebookNode:
    """A notebook with one exercise."""
    fence = f"```python\ndef half(x):\n    {solution}\n```"
    cells = [
        new_code_cell("THREE = 3", metadata={"tags": ["setup"]}),
        new_code_cell(
            "def half(x):\n    ...", metadata={"tags": ["exercise"], "cnflib": {"exercise": "1.1"}}
        ),
        new_code_cell(
            check,
            metadata={"tags": ["check"], "cnflib": {"check": "1.1", "mistakes": copy.deepcopy(mistakes)}},
        ),
        new_markdown_cell(f"<details><summary>Solution 1.1</summary>\n\n{fence}\n\n</details>"),
    ]
    return new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("nb", "message"),
    [
        (small(), None),
        (small(check="half(THREE)"), "does not say 'not attempted'"),
        (small(solution="return None"), "says 'not attempted' to the solution"),
        (small(solution="return x // 2"), "refuses the solution: divide by 2"),
        (small(mistakes=[{"code": "def half(x):\n    return x / 2", "hint": "?"}]), "accepts the mistake"),
        (small(mistakes=[{"code": "def half(x):\n    return x", "hint": "double"}]), "is told 'divide by 2'"),
    ],
    ids=["good", "silent", "unsolved", "wrong solution", "mistake accepted", "other hint"],
)
def test_a_bad_exercise_is_caught(nb, message):
    found = list(exercise_faults(nb, "1.1"))
    assert any(message in fault for fault in found) if message else not found
