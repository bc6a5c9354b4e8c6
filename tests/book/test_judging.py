"""What chapter 16 reads from the benchmark is what the benchmark wrote, and its formulas hold."""

import math

import pytest
import torch
from house_rules import ROOT
from notebooks import read, tagged
from sympy import Rational, diff, log, simplify, solve, symbols

pytest.importorskip("sphinx")

from measured import load  # noqa: E402

from cnflib.metrics import frechet_distance, precision_recall  # noqa: E402

NOTEBOOK = read(ROOT / "chapters/16-judging-a-generator.ipynb")
RUNS, LONGER = (load(name)["runs"] for name in ("ml_or_interpolant", "judging"))
RECORDED: dict[str, object] = {}
for cell in tagged(NOTEBOOK, "recorded"):
    exec(compile(cell.source, "recorded", "exec"), RECORDED)


def test_the_chapter_holds_the_race_of_the_benchmark():
    race, seconds = RECORDED["race"], RECORDED["seconds"]
    assert set(race) == {run["row"] for run in RUNS}
    for name, curves in race.items():
        runs = [run for run in RUNS if run["row"] == name]
        assert len(curves) == len(runs) == 3
        for curve, run in zip(curves, runs, strict=True):
            assert run["budget"] == seconds
            assert curve == pytest.approx([point["nll"][0] for point in run["curve"]], abs=6e-4)


def test_the_chapter_holds_the_flow_that_was_trained_longer():
    """Its three seeds, and that the Gaussians keep no more than a tie in features, and reading."""
    longer = RECORDED["longer"]
    assert [(run["steps"], run["seed"]) for run in LONGER] == [(1800, 0), (1800, 1), (1800, 2)]
    for k, machine in enumerate(("A: Gaussians", "B: flow")):
        for judge, pair in longer.items():
            of = "bits" if judge == "bits/dim" else "means"
            kept = [run[of][machine] if of == "bits" else run[of][machine][judge] for run in LONGER]
            assert pair[k] == pytest.approx(kept, abs=6e-4)
    low = {"bits/dim", "classifier AUC", "FD, pixels", "FD, features"}
    flow_leads = {j: (sum(a) > sum(b)) == (j in low) for j, (a, b) in longer.items()}
    assert [judge for judge, leads in flow_leads.items() if not leads] == ["FD, features", "read as asked"]


def test_precision_of_a_perfect_machine_tends_to_63_in_64():
    """Exercise 16.5: on the line, for three neighbours, and for the wrong machine of the solution too."""
    generator = torch.Generator().manual_seed(0)
    u = [torch.rand(4000, 1, dtype=torch.float64, generator=generator) for _ in range(3)]
    for drawn in (u[1], u[2].sqrt()):  # uniform; density 2x
        found = precision_recall(u[0], drawn, k=3)
        assert found.precision == pytest.approx(63 / 64, abs=8e-3)
        assert found.recall == pytest.approx(63 / 64, abs=8e-3)


def test_the_best_temperature_is_below_one():
    """(16.6), (16.7) and Exercise 16.4."""
    D, N, T = symbols("D N T", positive=True)
    both = D * (1 - T) ** 2 + (1 + T**2) * D / N + T * D * (D + 1) / (2 * N)
    (best,) = solve(diff(both, T), T)
    assert simplify(1 - best - (D + 5) / (4 * N + 4)) == 0
    # The form for any covariance, with all D eigenvalues 1.
    assert simplify(1 - best - both.subs(T, 1) * N / (2 * (N + 1) * D)) == 0
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
