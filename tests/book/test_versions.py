"""Two versions beside each other: the rows of this one run, and the verdict is what the times say."""

import math
from pathlib import Path

import pytest
import rows
import torch
import versions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", rows.rows)
def test_a_row_gives_the_same_again(name):
    """With the same random numbers, so that versions are compared at the same work; a step returns nothing."""

    def call():
        torch.manual_seed(0)
        return rows.rows[name]()

    first, second = call(), call()
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)


def test_a_row_counts_as_slower_only_where_the_whole_interval_is(capsys):
    old = [{"a": 1.0, "b": 1.0, "c": 1.0, "gone": 1.0} for _ in range(4)]
    new = [{"a": 1.1, "b": b, "c": 0.5, "come": 1.0} for b in (1.0, 1.2, 1.0, 1.2)]
    versions.show(old, new)
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert lines["a"].endswith("1.100  1.100-1.100  slower") and lines["c"].endswith("faster")
    assert "slower" not in lines["b"]
    assert "Only in the old version: gone." in out and "Only in the new version: come." in out
    assert "3 rows" in out and out.endswith("slower: a.\n")


def test_the_interval_is_student_s():
    mean, low, high = versions.ratio([1.0, 1.0], [1.0, math.exp(2.0)])
    assert mean == pytest.approx(math.e)
    assert math.log(high) - 1 == pytest.approx(12.706, abs=1e-3) == 1 - math.log(low)


def test_the_fastest_call_counts_and_each_has_the_same_random_numbers():
    seeds, calls = [], []
    ms = versions.fastest(lambda: calls.append(0), 0.0, seeds.append)
    assert len(calls) == 3 and seeds == [0, 0, 0] and 0 <= ms < 100


def test_each_version_runs_its_own_rows(tmp_path, capsys):
    """The two here are empty libraries; the rows of one are named by hand."""
    for name in ("old", "new"):
        (tmp_path / name / "cnflib").mkdir(parents=True)
        (tmp_path / name / "cnflib/__init__.py").write_text("")
    (tmp_path / "new/benchmarks").mkdir()
    (tmp_path / "new/benchmarks/rows.py").write_text("rows = {'a': lambda: sum(range(10**5)), 'b': int}")
    (tmp_path / "by_hand.py").write_text("rows = {'a': lambda: sum(range(10**3)), 'b': int}")
    with pytest.raises(SystemExit, match="rows.py is missing.*--rows-old"):
        versions.version(tmp_path / "old", None)
    old = versions.version(tmp_path / "old", tmp_path / "by_hand.py")
    versions.compare(old, versions.version(tmp_path / "new", None), 2, 0.0, ["a"])
    out, err = capsys.readouterr()
    assert "1 rows, geometric mean" in out and "b" not in out.splitlines()[1]
    assert [line.split(":")[0].rpartition("/")[2] for line in err.splitlines()] == [
        "old",
        "new",
        "new",
        "old",
    ]


def test_a_worker_refuses_another_library(tmp_path):
    version = versions.Version(tmp_path, ROOT / "benchmarks/rows.py")
    with pytest.raises(SystemExit, match="failed"):
        versions.measure(version, 0.0, ["BetaTimes"])


def test_what_is_no_version_is_named(tmp_path):
    with pytest.raises(SystemExit, match="--old no-such-revision is neither a folder"):
        versions.checkout("no-such-revision", tmp_path)
