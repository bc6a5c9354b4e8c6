"""The page "interpolants, measured" shows what the benchmarks wrote, and what it says of the setting holds there."""

import copy
import json
import math
import re

import numpy as np
import pytest
from house_rules import ROOT

pytest.importorskip("sphinx")

import interpolating  # noqa: E402
import results  # noqa: E402

PAGE = (ROOT / "book/interpolants-measured.md").read_text(encoding="utf-8")
FILES = ("checkerboard", "ml_or_interpolant", "path_energy")
FOUND = {name: results.load(name) for name in FILES}
CHANGES = {
    "interpolants-minute": ("checkerboard", ["runs", 0, "nll", 0]),
    "interpolants-minute-checked": ("checkerboard", ["runs", 0, "mass, fewer nodes"]),
    "interpolants-minute-measured": ("checkerboard", ["machine", "date"]),
    "interpolants-race": ("ml_or_interpolant", ["entropy"]),
    "interpolants-race-end": ("ml_or_interpolant", ["runs", 0, "curve", -1, "nll", 0]),
    "interpolants-race-measured": ("ml_or_interpolant", ["machine", "cpu"]),
    "interpolants-energy": ("path_energy", ["runs", 0, "NPE"]),
    "interpolants-energy-setting": ("path_energy", ["runs", 0, "steps"]),
    "interpolants-energy-measured": ("path_energy", ["machine", "torch"]),
}


@pytest.fixture
def pages_of(tmp_path, monkeypatch):
    """The pages from a changed copy of what the benchmarks wrote."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)

    def pages(**changed: dict) -> dict[str, str]:
        for name in FILES:
            (tmp_path / f"{name}.json").write_text(json.dumps(changed.get(name, FOUND[name])))
        return interpolating.pages()

    return pages


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_number_changes_its_table(pages_of, name):
    file, (*path, last) = CHANGES[name]
    changed = copy.deepcopy(FOUND[file])
    place = changed
    for key in path:
        place = place[key]
    place[last] = place[last] * 2
    assert pages_of(**{file: changed})[name] != pages_of()[name]


def test_every_table_and_figure_is_on_the_page(tmp_path):
    assert set(re.findall(r"_build/pages/([\w-]+)\.md", PAGE)) == set(interpolating.pages()) == set(CHANGES)
    interpolating.draw(tmp_path)
    assert set(re.findall(r"_static/([\w-]+)\.png", PAGE)) == {path.stem for path in tmp_path.iterdir()}


def test_every_row_has_as_many_cells_as_its_head():
    for name, text in interpolating.pages().items():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            widths = {line.count("|") for line in block.splitlines()}
            assert len(widths) == 1 and widths.pop() <= 6, f"{name} would not fit on a phone"


def test_the_prose_has_no_measured_number():
    prose = re.sub(
        r"^```.*?^```|^<img.*?$|^\$\$.*?^\$\$|\$[^$]*\$|`[^`]*`|\(20\d\d.*?\)", "", PAGE, flags=re.M | re.S
    )
    assert not re.search(r"\d\.\d", prose)
    assert set(re.findall(r"(?<![\w#-])\d[\d,]*", prose)) <= {"4", "5"}


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_command_that_writes_it(pages_of, tmp_path, name):
    pages_of()
    (tmp_path / f"{name}.json").unlink()
    with pytest.raises(SystemExit, match=rf"results/{name}\.json is missing.*python benchmarks/{name}\.py"):
        interpolating.pages()


@pytest.mark.parametrize("run", FOUND["checkerboard"]["runs"], ids=lambda run: f"seed {run['seed']}")
def test_a_minute_is_judged_as_the_page_says(run):
    assert run["budget"] <= run["seconds"] < run["budget"] + 5
    assert abs(run["mass"] - 1) < 2e-3 and abs(run["mass"] - run["mass, fewer nodes"]) < 2e-3
    assert run["change at half the tolerance"] < 5e-3
    gap, error = run["gap"]
    assert gap > -2 * error
    assert abs(run["nll"][0] - FOUND["checkerboard"]["entropy"] - gap) < 5 * (run["nll"][1] + error)


def test_every_way_to_train_was_measured_with_the_same_budget():
    runs = FOUND["ml_or_interpolant"]["runs"]
    seeds = {name: {run["seed"] for run in runs if run["row"] == name} for name in interpolating.LOOKS}
    assert len({frozenset(s) for s in seeds.values()}) == 1 and all(seeds.values())
    assert len({(tuple(r["budget"]), r["threads"], r["points"]) for r in runs}) == 1
    for run in runs:
        assert [p["steps"] for p in run["curve"]] == sorted(p["steps"] for p in run["curve"])
        assert len(run["curve"]) == len(run["budget"])


def test_the_time_to_a_level_is_read_off_the_curve():
    seconds, gap = np.array([1.0, 4.0, 16.0]), np.array([0.5, 0.3, 0.1])
    assert interpolating.time_to((seconds, gap), 0.3) == pytest.approx(4)
    assert interpolating.time_to((seconds, gap), 0.2) == pytest.approx(8)
    assert interpolating.time_to((seconds, gap), 0.05) == math.inf
    assert interpolating.time_to((seconds, gap), 0.6) == -1
    back = np.array([0.3, 0.5, 0.1])  # a curve that turns back has been there
    assert (
        interpolating.time_to((seconds, back), 0.3) == -1 and interpolating.time_to((seconds, back), 0.2) > 8
    )


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((2.0, 9.0, 30.0), "4.5"),
        ((2.0, math.inf, 30.0), "15"),
        ((2.0, math.inf, math.inf), "not reached"),
        ((math.inf, 9.0, math.inf), "–"),
        ((-2.0, 9.0, 30.0), "> 4.5"),
        ((-2.0, -2.0, 30.0), ""),
        ((math.inf, math.inf, math.inf), ""),
    ],
)
def test_the_factor_is_that_of_the_faster_likelihood(times, said):
    assert interpolating.factor(dict(zip(interpolating.LOOKS, times, strict=True))) == said


def test_published_numbers_stand_beside_those_measured():
    text = interpolating.pages()["interpolants-energy"]
    for number in (
        "0.222 ± 0.032",
        "0.018 ± 0.014",
        "2.738 ± 0.181",
        "0.053 ± 0.035",
        "0.338 ± 0.109",
        "0.239 ± 0.048",
    ):
        assert number in text
    assert text.count("\n") == 2 + len(interpolating.PUBLISHED)


@pytest.mark.parametrize(
    "run", FOUND["path_energy"]["runs"], ids=lambda r: f"{r['problem']}, {r['pairing']}, {r['seed']}"
)
def test_the_path_energy_is_normalised_as_the_page_says(run):
    energy, between = run["energy"], run["W2^2 of the ends"]
    assert run["NPE"] == pytest.approx(
        abs(energy - between) / between, rel=1e-4, abs=1e-5
    )  # six digits are kept
    assert run["W2^2 of two samples"] < between
