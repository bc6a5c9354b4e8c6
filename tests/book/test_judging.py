"""What chapter 16 reads from the benchmark is what the benchmark wrote, and its formulas hold."""

import math

import pytest
import torch
from house_rules import ROOT
from notebooks import read, tagged
from sympy import Rational, diff, log, simplify, solve, symbols

pytest.importorskip("sphinx")

from measured import load  # noqa: E402

from cnflib.metrics import frechet_distance  # noqa: E402

NOTEBOOK = read(ROOT / "chapters/16-judging-a-generator.ipynb")
RUNS = load("ml_or_interpolant")["runs"]


def test_the_chapter_holds_the_race_of_the_benchmark():
    space: dict[str, object] = {}
    for cell in tagged(NOTEBOOK, "recorded"):
        exec(compile(cell.source, "recorded", "exec"), space)
    race, seconds = space["race"], space["seconds"]
    assert set(race) == {run["row"] for run in RUNS}
    for name, curves in race.items():
        runs = [run for run in RUNS if run["row"] == name]
        assert len(curves) == len(runs) == 3
        for curve, run in zip(curves, runs, strict=True):
            assert run["budget"] == seconds
            assert curve == pytest.approx([point["nll"][0] for point in run["curve"]], abs=6e-4)


def test_the_best_temperature_is_below_one():
    """(16.6), (16.7) and Exercise 16.4."""
    D, N, T = symbols("D N T", positive=True)
    both = D * (1 - T) ** 2 + (1 + T**2) * D / N + T * D * (D + 1) / (2 * N)
    (best,) = solve(diff(both, T), T)
    assert simplify(1 - best - (D + 5) / (4 * N + 4)) == 0
    one = D * (1 - T) ** 2 + T**2 * D / N + T * D * (D + 1) / (4 * N)
    (best,) = solve(diff(one, T), T)
    assert simplify(1 - best - (D + 9) / (8 * N + 8)) == 0
    lead = (both.subs(T, Rational(9, 10)) - both.subs(T, 1)).subs(D, 64)
    (crossing,) = solve(lead, N)
    assert crossing == 344 and lead.subs(N, 100) < 0 < lead.subs(N, 400)


def draws(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_one_side_known_exactly_has_the_bias_of_exercise_16_4():
    """The sample's Gaussian against N(0, I), whose root is I."""
    D, N, T = 16, 400, 0.9
    values = []
    for seed in range(200):
        y = T * draws(seed, N, D)
        roots = torch.linalg.eigvalsh(y.T.cov()).sqrt()
        values.append(float(y.mean(0).square().sum() + (roots - 1).square().sum()))
    wanted = D * (1 - T) ** 2 + T**2 * D / N + T * D * (D + 1) / (4 * N)
    assert sum(values) / 200 == pytest.approx(wanted, rel=0.02)


def test_the_bias_under_any_covariance():
    variances, N = torch.tensor([4.0, 1.0, 0.25, 0.01]).double(), 500
    pair = variances[:, None] * variances / (variances[:, None] + variances)
    wanted = (2 * variances.sum() + pair.sum() + pair.diagonal().sum()).item() / N
    draw = lambda seed: draws(seed, N, 4) * variances.sqrt()
    values = torch.tensor([frechet_distance(draw(2 * k), draw(2 * k + 1)) for k in range(400)])
    assert abs(values.mean().item() - wanted) < 4 * values.std().item() / 20 + 0.02 * wanted


def test_the_numbers_of_the_exercises():
    assert math.log2(1000) / 64 == pytest.approx(0.156, abs=1e-3)
    assert math.log2(1000) / (3 * 256**2) == pytest.approx(5.1e-5, rel=0.01)
    assert math.ceil(math.log(0.05) / math.log(0.999)) == 2995
    bias = 2 * 2048 + 2048 * 2049 / 2
    assert bias == 2_102_272 and bias / 10_000 == pytest.approx(210.2, abs=0.05)
    assert (100 * (2048 + 5) - 4) / 4 == 51_324
    assert math.ceil(bias / 20) == 105_114
    x = symbols("x", positive=True)
    assert float((-log(2 * x)).integrate((x, 0, 1))) == pytest.approx(0.307, abs=1e-3)


def test_coarse_steps_add_mass_as_the_chapter_says():
    """Trap 16.3: four Euler steps of x' = -x log 4 stretch by less than 4, the divergence counts in full."""
    assert 4 / (1 + math.log(4) / 4) ** 4 == pytest.approx(1.217, abs=5e-4)
