"""The page "interpolants, measured" shows what the benchmarks wrote, and what it says of the setting holds there."""

import math
import re

import numpy as np
import pytest
from house_rules import ROOT

pytest.importorskip("sphinx")

from measured import interpolants, load, pages  # noqa: E402

PAGE = (ROOT / "book/interpolants-measured.md").read_text(encoding="utf-8")
FILES = ("checkerboard", "ml_or_interpolant", "path_energy")
FOUND = {name: load(name) for name in FILES}


def test_the_prose_has_no_measured_number():
    prose = re.sub(
        r"^```.*?^```|^<img.*?$|^\$\$.*?^\$\$|\$[^$]*\$|`[^`]*`|\(20\d\d.*?\)", "", PAGE, flags=re.M | re.S
    )
    assert not re.search(r"\d\.\d", prose)
    assert set(re.findall(r"(?<![\w#-])\d[\d,]*", prose)) <= {"4", "5"}


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
    seeds = {name: {run["seed"] for run in runs if run["row"] == name} for name in interpolants.WAYS}
    assert len({frozenset(s) for s in seeds.values()}) == 1 and all(seeds.values())
    assert len({(tuple(r["budget"]), r["threads"], r["points"]) for r in runs}) == 1
    for run in runs:
        assert [p["steps"] for p in run["curve"]] == sorted(p["steps"] for p in run["curve"])
        assert len(run["curve"]) == len(run["budget"])


def test_the_time_to_a_level_is_read_off_the_curve():
    seconds, gap = np.array([1.0, 4.0, 16.0]), np.array([0.5, 0.3, 0.1])
    assert interpolants.time_to((seconds, gap), 0.3) == pytest.approx(4)
    assert interpolants.time_to((seconds, gap), 0.2) == pytest.approx(8)
    assert interpolants.time_to((seconds, gap), 0.05) == math.inf
    assert interpolants.time_to((seconds, gap), 0.6) == -1
    back = np.array([0.3, 0.5, 0.1])  # a curve that turns back has been there
    assert interpolants.time_to((seconds, back), 0.3) == -1 and interpolants.time_to((seconds, back), 0.2) > 8


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
    assert interpolants.factor(*times) == said


def test_published_numbers_stand_beside_those_measured():
    text = pages("interpolants-energy")["interpolants-energy"]
    for number in (
        "0.222 ± 0.032",
        "0.018 ± 0.014",
        "2.738 ± 0.181",
        "0.053 ± 0.035",
        "0.338 ± 0.109",
        "0.239 ± 0.048",
    ):
        assert number in text
    assert text.count("\n") == 2 + len(interpolants.PUBLISHED)


@pytest.mark.parametrize(
    "run", FOUND["path_energy"]["runs"], ids=lambda r: f"{r['problem']}, {r['pairing']}, {r['seed']}"
)
def test_the_path_energy_is_normalised_as_the_page_says(run):
    energy, between = run["energy"], run["W2^2 of the ends"]
    assert run["NPE"] == pytest.approx(
        abs(energy - between) / between, rel=1e-4, abs=1e-5
    )  # six digits are kept
    assert run["W2^2 of two samples"] < between
