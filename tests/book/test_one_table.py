"""The page "one table, every model" shows what the benchmark wrote, and what it says in words holds there."""

from statistics import median

import pytest
import torch
from house_rules import ROOT

pytest.importorskip("sphinx")

import one_table  # noqa: E402
from measured import load, pages, plant, tables  # noqa: E402

from cnflib import models  # noqa: E402

PAGE = (ROOT / "book/one-table.md").read_text(encoding="utf-8")
FOUND = load("one_table")
ROWS = tables.by_row(FOUND["runs"])


def value(row, key="nll"):
    return median(run[key][0] for run in ROWS[row])


def gain(row):
    return value(row, "over the Gaussian")


def test_every_builder_has_a_row_of_three_seeds_with_the_steps_of_the_benchmark():
    assert set(models.__all__) - {"gaussian"} <= set(one_table.ROWS)
    for name, row in one_table.ROWS.items():
        assert [run["seed"] for run in ROWS[name]] == list(one_table.SEEDS)
        assert {run["steps"] for run in ROWS[name]} == {row.steps} and {
            run["threads"] for run in ROWS[name]
        } == {1}
    assert set(ROWS) == {*one_table.ROWS, *one_table.SIMPLE} and plant.BASELINES == one_table.SIMPLE


def test_the_differences_are_paired_and_add_up():
    """A difference of means is the mean of differences; its error is smaller than that of two separate means."""
    normal = value("Gaussian")
    for run in FOUND["runs"]:
        difference, error = run["over the Gaussian"]
        assert abs(difference - (normal - run["nll"][0])) < 1e-3
        total = difference - run["over the kernel density"][0]
        assert abs(total - value("kernel density", "over the Gaussian")) < 1e-3
        assert (
            error < (run["nll"][1] ** 2 + ROWS["Gaussian"][0]["nll"][1] ** 2) ** 0.5
            or run["row"] == "realnvp"
        )


def test_the_table_shows_all_rows_best_first():
    shown = pages("one-table")["one-table"].splitlines()[2:]
    values = [float(row.split("|")[2].split("±")[0]) for row in shown]
    assert len(values) == len(ROWS) and values == sorted(values)
    assert "three times 64" in PAGE and "thirty-two" in PAGE and "best of nine" in PAGE
    assert len(one_table.BANDWIDTHS) == 9 and ROWS["kernel density"][0]["bandwidth"] == 0.1


def test_the_simple_thing_wins():
    assert list(ROWS)[0] == "kernel density" and list(ROWS)[-1] == "Gaussian"
    assert max(run["over the kernel density"][0] for row in one_table.ROWS for run in ROWS[row]) < -0.25


def test_repeated_rows_are_not_what_the_kernel_density_wins_by():
    """Without the test rows that have a copy among the training rows its gain falls by a hundredth."""
    data = one_table.table()
    gains = one_table.kernel_density(data)[0] - one_table.gaussian(data.train).log_prob(data.test.double())
    units = [(part.double() - data.mean) / data.std for part in (data.train, data.test)]
    copies = torch.cdist(units[1], units[0]).amin(1) < 1e-2
    assert abs(gains.mean() - gain("kernel density")) < 1e-4
    assert 0 < copies.sum() < 41 and abs(gains.mean() - gains[~copies].mean() - 0.01) < 5e-3


def test_splines_lead_and_the_affine_rows_are_not_to_be_ranked():
    assert set(list(ROWS)[1:3]) == {"maf of splines", "spline_flow"}
    affine = [value(row) for row in ("glow", "realnvp", "maf")]
    seeds = [run["nll"][0] for run in ROWS["realnvp"]]
    assert max(affine) - min(affine) < max(seeds) - min(seeds)
    assert gain("realnvp") - gain("nice") < 0.15


def test_few_parameters_come_far():
    few, many = (ROWS[row][0]["parameters"] for row in ("planar_flow", "maf of splines"))
    assert few == 352 and 90 < many / few < 110
    assert gain("maf of splines") - gain("planar_flow") < 0.5


def test_some_have_begun_to_learn_by_heart_and_others_have_not_finished():
    distance = {row: value(row) - value(row, "training nll") for row in one_table.ROWS}
    assert min(distance[row] for row in ("maf of splines", "spline_flow", "realnvp")) > 0.35
    assert max(distance[row] for row in ("ffjord", "residual_flow", "planar_flow")) < 0.15


def test_the_interpolant_comes_further_than_ffjord_in_less_time():
    sizes = [ROWS[row][0]["parameters"] for row in ("ffjord", "interpolant")]
    assert max(sizes) / min(sizes) < 1.1
    assert gain("interpolant") > gain("ffjord") + 0.1
    seconds = [median(run["cpu seconds"] for run in ROWS[row]) for row in ("ffjord", "interpolant")]
    assert seconds[1] < seconds[0]
