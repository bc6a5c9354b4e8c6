"""The page "one target, every model" shows what the benchmark wrote, and what it says in words holds there."""

import json
import math
from statistics import median

import pytest
import torch
from house_rules import ROOT

pytest.importorskip("sphinx")

import one_target  # noqa: E402
from measured import TABLES, load, pages, targets  # noqa: E402

from cnflib import models  # noqa: E402

PAGE = (ROOT / "book/one-target.md").read_text(encoding="utf-8")
FOUND = load("one_target")
GLOW, INTERPOLANT = load("glow_mnist"), load("interpolant_mnist")
LIMITS = {"checkerboard": 3.60, "eight_gaussians": 2.95, "moons": 2.50}


ASTRAY = ("moons", "ffjord", 2)  # a training that made its six steps lie; its ridges are finer than the grid


def runs(target, row):
    return [run for run in FOUND["runs"] if (run["target"], run["row"]) == (target, row)]


def test_every_builder_of_a_flow_has_a_row_and_every_row_was_measured_on_every_target():
    assert set(models.__all__) - {"gaussian"} <= set(one_target.ROWS)
    for target in one_target.TARGETS:
        for row in one_target.ROWS:
            found = {run["seed"]: run for run in runs(target, row)}
            assert tuple(found) == one_target.SEEDS and "picture" in found[one_target.SEEDS[0]], (target, row)


@pytest.mark.parametrize(("target", "limit"), LIMITS.items())
def test_splines_come_near_the_entropy(target, limit):
    values = [run["nll"][0] for run in runs(target, "spline_flow")]
    assert len(values) == 3
    assert FOUND["entropy"][target] < median(values) <= limit


@pytest.mark.parametrize(
    "run", FOUND["runs"], ids=lambda run: f"{run['target']}, {run['row']}, {run['seed']}"
)
def test_a_run_is_a_density_judged_after_the_steps_of_its_row(run):
    assert run["steps"] == one_target.ROWS[run["row"]].steps and run["threads"] == 1
    assert abs(run["mass"] - 1) < 1e-3 or tuple(run[k] for k in one_target.SAME) == ASTRAY
    gap, error = run["gap"]
    assert gap > -2 * error
    assert abs(run["nll"][0] - FOUND["entropy"][run["target"]] - gap) < 5 * (run["nll"][1] + error)


def test_the_tables_show_the_runs_best_first():
    shown = pages()
    for target in FOUND["entropy"]:
        rows = shown[f"one-target-{target}"].splitlines()[2:]
        values = [float(row.split("|")[2]) for row in rows[:-1]]
        assert len(values) == len(one_target.ROWS) and values == sorted(values)
        assert rows[-1].startswith("| entropy |")
    assert shown["one-target-cost"].count("\n") == 2 + len(one_target.ROWS)


def test_a_changed_run_changes_its_table_and_no_other():
    changed = json.loads(json.dumps(FOUND))
    for run in changed["runs"]:
        if (run["target"], run["row"]) == ("moons", "nice"):
            run["nll"][0] += 1
        run["parameters"] += 1
    mine = {name: shown.show for name, shown in TABLES.items() if shown.source == "one_target"}
    moved = {name for name, show in mine.items() if show(changed) != show(FOUND)}
    assert moved == {"one-target-moons", "one-target-volume", "one-target-cost"}


def test_glow_on_mnist_is_shown_beside_the_published_value():
    shown = pages("one-target-glow")["one-target-glow"]
    value, error = GLOW["bits_per_dim"]
    assert 1.05 < value < 1.5 and error < 0.01
    assert f"{value:.3f} ± {error:.3f} | {GLOW['draws']} | {GLOW['parameters']:,}" in shown
    settings = GLOW["settings"]  # the first of the three resolutions, 28 pixels a side, has no steps
    assert (settings["layers"], settings["scales"]) == (
        8,
        3,
    ) and "eight steps at each of two resolutions" in PAGE
    assert "published | 1.05" in shown


def test_the_interpolant_on_mnist_is_shown_beside_published_values_and_says_how_it_was_judged():
    shown, said = pages("one-target-interpolant", "one-target-interpolant-measured").values()
    value, error = INTERPOLANT["bits_per_dim"]
    assert 0.9 < value < 1.3 and error < 0.02
    assert f"{value:.3f} ± {error:.3f} | {INTERPOLANT['draws']} | {INTERPOLANT['parameters']:,}" in shown
    assert "FFJORD, multiscale | 0.99" in shown and "Glow | 1.05" in shown
    assert f"{INTERPOLANT['images']:,} test images" in said and INTERPOLANT["images"] >= 1000
    assert abs(INTERPOLANT["change at half the tolerance"]) < 1e-3
    settings = INTERPOLANT["settings"]
    assert (settings["path"], settings["front"], settings["power"]) == ("trigonometric", "histogram", 2)
    assert INTERPOLANT["machine"]["threads"] == 1 and not settings["classes"]


def test_the_steps_of_a_row_took_about_a_minute():
    for row in one_target.ROWS:
        assert 30 < median(run["cpu seconds"] for run in FOUND["runs"] if run["row"] == row) < 90, row


def test_the_page_says_how_it_was_measured():
    assert (one_target.BATCH, one_target.POINTS, len(one_target.SEEDS)) == (512, 20_000, 3)
    layers = {
        name: len(one_target.ROWS[name].make().bijection.layers)
        for name in ("maf", "planar_flow", "radial_flow")
    }
    assert layers == {"maf": 8, "planar_flow": 32, "radial_flow": 32} and "thirty-two" in PAGE


def order(target):
    return list(targets.rows_of(FOUND, target))


def gap(target, row):
    return median(run["gap"][0] for run in runs(target, row))


def test_halving_the_tolerance_leaves_what_is_said_of_continuous_rows():
    found = [
        run["change at half the tolerance"]
        for row in one_target.CONTINUOUS
        for t in FOUND["entropy"]
        for run in runs(t, row)
    ]
    assert len(found) == 3 * len(one_target.CONTINUOUS) * len(FOUND["entropy"])
    assert max(map(abs, found)) < 2e-4 and one_target.TRAINED.steps == 6 and "six compiled" in PAGE


def test_the_words_about_continuous_flows_hold():
    gaps = [run["gap"][0] for run in runs("moons", "ffjord")]
    astray = runs("moons", "ffjord")[2]
    assert round(astray["gap"][0], 2) == 0.69 and max(gaps[:2]) < 0.02 and 0.03 < 1 - astray["mass"] < 0.04
    assert (
        round(astray["nll by the training's solver"], 2) == 2.05
        and round(FOUND["entropy"]["moons"], 2) == 2.39
    )
    for target, entropy in FOUND["entropy"].items():
        for run in runs(target, "ffjord"):
            lies = run["nll by the training's solver"] < entropy - 0.05
            assert lies == (tuple(run[k] for k in one_target.SAME) == ASTRAY)
    couplings = [gap("checkerboard", row) for row in ("realnvp", "glow", "maf", "iaf")]
    assert min(couplings) < gap("checkerboard", "ffjord") < max(couplings)
    nearer = set(order("eight_gaussians")[: order("eight_gaussians").index("ffjord")])
    assert nearer == {"spline_flow", "maf of splines"}
    assert runs("checkerboard", "ffjord")[0]["parameters"] < 10_000


def test_the_words_about_the_checkerboard_hold():
    splines = {"spline_flow", "maf of splines"}
    assert set(order("checkerboard")[:2]) == splines
    assert max(gap("checkerboard", row) for row in ("realnvp", "glow", "maf", "iaf")) < gap(
        "checkerboard", "nice"
    )
    smooth = ("planar_flow", "radial_flow", "residual_flow")
    assert min(gap("checkerboard", row) for row in smooth) > gap("checkerboard", "maf")


def test_the_floor_of_the_checkerboard_is_exact():
    assert abs(targets.floors_of("checkerboard").volume - (math.log(32) + 1 - math.log(2))) < 1e-9


def test_both_floors_of_a_gaussian_are_its_entropy():
    gaussian = torch.distributions.MultivariateNormal(
        torch.zeros(2).double(), torch.tensor([[3.0, 1.0], [1.0, 0.5]]).double()
    )
    found = targets.floors(gaussian.log_prob, ((-12.0, 12.0), (-5.0, 5.0)), 400)
    assert abs(found.volume - gaussian.entropy()) < 1e-4 and abs(found.gaussian - gaussian.entropy()) < 1e-9


@pytest.mark.parametrize("target", ["eight_gaussians", "moons"])
def test_a_finer_grid_leaves_the_floors(target):
    data, found = targets.TARGETS[target], targets.floors_of(target)
    finer = targets.floors(data.log_prob, data.bounds, 300)
    assert max(abs(a - b) for a, b in zip(found, finer)) < 1e-4


@pytest.mark.parametrize("target", one_target.TARGETS)
def test_no_map_that_keeps_volume_is_below_its_floor(target):
    nll, error = targets.middle(runs(target, "nice"))["nll"]
    assert FOUND["entropy"][target] - 1e-4 < targets.floors_of(target).volume < nll + 3 * error


def test_nice_stays_at_a_gaussian_on_eight_bumps():
    nll, error = runs("eight_gaussians", "nice")[0]["nll"]
    assert abs(targets.floors_of("eight_gaussians").gaussian - nll) < 0.01
    assert order("eight_gaussians")[-1] == "nice"


def share(target):
    """Which part of NICE's gap all maps have that keep volume."""
    return (targets.floors_of(target).volume - FOUND["entropy"][target]) / gap(target, "nice")


def test_the_words_about_volume_hold():
    assert 0.9 < share("checkerboard") < 1
    assert targets.floors_of("eight_gaussians").volume - FOUND["entropy"]["eight_gaussians"] < 0.01
    assert 0.5 < share("moons") < 0.8


def test_nearly_all_rows_come_near_the_moons():
    assert sum(gap("moons", row) > 0.1 for row in one_target.ROWS) <= 2
    assert order("moons") != order("checkerboard")
