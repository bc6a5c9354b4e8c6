"""What chapter 12 holds of committed results is what was committed, and its prose agrees with it."""

import ast
import json
import statistics

import nbformat
from house_rules import ROOT

CHAPTER = nbformat.read(ROOT / "chapters/12-ffjord.ipynb", as_version=4)
RESULTS = ROOT / "benchmarks/results"


ENTROPY = json.loads((RESULTS / "ffjord.json").read_text(encoding="utf-8"))["entropy"]


def held() -> dict[str, dict]:
    """The literals of the cells tagged ``recorded``, by name."""
    cells = [cell for cell in CHAPTER.cells if "recorded" in cell.metadata.get("tags", [])]
    statements = [statement for cell in cells for statement in ast.parse(cell.source).body]
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}


def runs(name: str, **wanted: object) -> list[dict]:
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["runs"]
    return [run for run in found if all(run.get(key) == value for key, value in wanted.items())]


def claimed(run: dict) -> float:
    return round(run["nll by the training's solver"], 3)


def test_the_power_plant_is_that_of_the_page_one_table():
    for name, (gain, error, seconds) in held()["plant_rows"].items():
        rows = runs("one_table", row=name) or runs("one_table", row=name.replace(" ", "_"))
        middle = sorted(rows, key=lambda run: run["over the Gaussian"])[len(rows) // 2]["over the Gaussian"]
        assert (gain, error) == (round(middle[0], 2), round(middle[1], 2))
        assert seconds == round(statistics.median(run["cpu seconds"] for run in rows))


def test_splines_gain_more_in_less_time_than_ffjord():
    rows = held()["plant_rows"]
    spline, ffjord, regression = (rows[name] for name in ("spline flow", "ffjord", "interpolant"))
    assert round(spline[0], 1) == 1.2 and round(ffjord[0], 1) == 0.8
    assert 20 < spline[2] < 45 and 100 < ffjord[2] < 150 and spline[2] < 0.4 * ffjord[2]
    assert max(rows, key=lambda name: rows[name][0]) == "kernel density" and regression[0] > ffjord[0]


def test_part_one_at_equal_time_is_that_of_the_page_one_target():
    names = ("checkerboard", "eight_gaussians", "moons")
    rows = held()["equal"]
    assert {"ffjord", "spline flow", "realnvp", "maf", "residual flow"} <= rows.keys()
    for name, row in rows.items():
        expected = []
        for target in names:
            found = runs("one_target", row=name, target=target) or runs(
                "one_target", row=name.replace(" ", "_"), target=target
            )
            gaps = [run["gap"][0] for run in found]
            expected += [round(statistics.median(gaps), 4), round(max(gaps), 4)]
        assert row == tuple(expected)


def test_the_runs_to_look_at_are_those_of_the_benchmark():
    for name, (floor, claim, nll, curve) in held()["watched"].items():
        target, _, row = name.partition(", ")
        target = target.replace(" ", "_")
        (run,) = runs("ffjord", part="toys", target=target, row=row or "plain", seed=0)
        assert (floor, claim, nll) == (round(ENTROPY[target], 3), claimed(run), round(run["nll"][0], 3))
        assert curve == tuple(round(point["nll"], 2) for point in run["curve"])


def test_circles_diverged_and_the_spirals_claim_too_much():
    """What the caption of Figure 12.5 and the section on made-up likelihoods say of the recorded runs."""
    (floor, claim, nll, curve), iterations = held()["watched"]["circles"], held()["iterations"]
    assert curve[iterations.index(300)] == 3.35 and round(curve[iterations.index(600)]) == 17
    assert 140 < nll < 160 and round(claim, 1) == 6.3 and claim > floor + 3
    floor, claim, nll, curve = held()["watched"]["two spirals"]
    assert claim < floor - 0.5 < nll - 0.5


def test_the_words_about_lies_in_the_wild_hold():
    spirals = "toys", "two_spirals", "plain"
    waves = "ablations", "checkerboard", "Fourier features"
    twelve = "toys", "circles", "12 steps"
    for part, target, row in (spirals, waves, twelve):
        (run,) = runs("ffjord", part=part, target=target, row=row, seed=0)
        assert claimed(run) < ENTROPY[target] - 0.2 and run["nll"][0] > ENTROPY[target] + 0.2
        best = min(run["curve"], key=lambda point: point["nll"])
        late = [point["nll"] for point in run["curve"] if point["step"] >= best["step"]]
        assert best["step"] == (600 if row == "12 steps" else 800) and late == sorted(late)
    assert best["nll"] < ENTROPY["circles"] + 0.05  # of the twelve steps: learned before


def test_the_eight_targets_are_those_of_the_benchmark():
    rows = {run["target"].replace("_", " "): run for run in runs("ffjord", part="toys", row="plain", seed=0)}
    assert held()["toys"].keys() == rows.keys()
    for name, row in held()["toys"].items():
        run = rows[name]
        numbers = round(run["nll"][0], 3), *(round(v, 3) for v in run["gap"])
        assert row == (*numbers, run["curve"][0]["nfe"], run["nfe"])
        assert run["nfe"] > run["curve"][0]["nfe"]
        assert held()["toy_claims"][name] == claimed(run)
        assert held()["growth"][name] == tuple(point["nfe"] for point in run["curve"])
        assert held()["iterations"] == tuple(point["step"] for point in run["curve"])


def test_the_ablations_are_those_of_the_benchmark():
    rows = runs("ffjord", part="ablations", target="checkerboard")
    literal = held()
    gaps, looks, claims = (literal[f"ablation_{part}"] for part in ("gaps", "looks", "claims"))
    assert gaps.keys() == looks.keys() == claims.keys() == {run["row"] for run in rows}
    for name in gaps:
        mine = sorted((run for run in rows if run["row"] == name), key=lambda run: run["seed"])
        assert gaps[name] == tuple(round(run["gap"][0], 3) for run in mine)
        assert looks[name] == tuple(run["nfe"] for run in mine)
        assert claims[name] == tuple(map(claimed, mine))


def test_tolerances_and_digits_are_those_of_the_benchmark():
    (swept,) = (run["tolerances"] for run in runs("ffjord", part="toys") if "tolerances" in run)
    rows = [(t["nfe"], float(f"{t['error']:.2g}")) for t in swept]
    assert list(held()["tolerances"].values()) == rows
    (run,) = runs("ffjord", part="digits")
    bits = {point["step"]: round(point["bits"], 3) for point in run["curve"]}
    assert held()["digit_bits"] == bits | {"test": tuple(round(v, 3) for v in run["bits"])}
