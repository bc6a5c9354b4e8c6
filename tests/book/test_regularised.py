"""What chapter 13 reads from the benchmark is what the benchmark wrote, and its formulas hold letter by letter."""

import math

import pytest
import sympy
import torch
from house_rules import ROOT
from notebooks import read, tagged
from sympy import Rational, diff, exp, integrate, log, series, simplify, sqrt, symbols

pytest.importorskip("sphinx")

from measured import load  # noqa: E402

from cnflib.continuous import CNF, JacobianFrobenius, KineticEnergy  # noqa: E402
from cnflib.ode import Fixed  # noqa: E402

NOTEBOOK = read(ROOT / "chapters/13-regularised-dynamics.ipynb")
SHORT = {"calm start, kinetic 0.03": "calm, kinetic 0.03", "a third of the steps": "a third of steps"}
RUNS = load("regularised")["runs"]
KINDS = {"plant": "power plant", "ring": "eight Gaussians"}


def embedded() -> dict[str, object]:
    """The names that the two cells of recorded numbers define."""
    space: dict[str, object] = {}
    for cell in tagged(NOTEBOOK, "recorded"):
        exec(compile(cell.source, "recorded", "exec"), space)
    return space


def of(name: str, sweep: str) -> list[dict]:
    return [run for run in RUNS if run["data"] == KINDS[name] and run["sweep"] == sweep]


@pytest.mark.parametrize("sweep", ["prices", "decay"])
@pytest.mark.parametrize("name", KINDS)
def test_the_chapter_holds_the_numbers_of_the_benchmark(name, sweep):
    found, runs = embedded(), of(name, sweep)
    table = found[name if sweep == "prices" else f"{name}_decay"]
    assert len(table) == len(runs[0]["rows"]) and len(runs) == 3
    for k, row in enumerate(runs[0]["rows"]):
        for (density, samples, nats), run in zip(table[SHORT.get(row["row"], row["row"])], runs, strict=True):
            other = run["rows"][k]
            assert other["row"] == row["row"]
            assert [density, samples] == [other["nfe"][1], other["nfe of samples"][1]]
            wrote = other["lost"][0] if other["gap"] is None else other["gap"]
            assert nats == pytest.approx(wrote, abs=6e-4)


@pytest.mark.parametrize("name", KINDS)
def test_so_do_its_bills_and_its_loose_tolerance(name):
    found, runs = embedded(), of(name, "prices")
    for k, key in ((0, "loose"), (2, "loose_priced")):
        for (work, error), run in zip(found[f"{name}_{key}"], runs, strict=True):
            row = run["rows"][k]
            assert work == row["nfe"][0]
            assert error == pytest.approx(row["error in nats"][0], abs=6e-4)
    for (plain, priced), run in zip(found[f"{name}_bills"], runs, strict=True):
        assert plain == pytest.approx(run["rows"][0]["energy"], abs=0.06)
        assert priced == pytest.approx(run["rows"][2]["energy"], abs=0.06)


def test_the_gaussian_bargain_is_a_minimum_of_second_order():
    """(13.7) and Exercise 13.4."""
    price, sigma, inner = symbols("lambda sigma s", positive=True)
    goal = (inner**2 - 1) / 2 - log(inner) + price * (sigma - inner) ** 2
    best = (price * sigma + sqrt(price**2 * sigma**2 + 1 + 2 * price)) / (1 + 2 * price)
    assert simplify(diff(goal, inner).subs(inner, best)) == 0
    assert simplify(diff(goal, inner, 2)).subs({price: 1, sigma: 2, inner: 1}) > 0
    lost = ((best**2 - 1) / 2 - log(best)).subs(sigma, 3)
    saved = ((sigma - 1) ** 2 - (sigma - best) ** 2).subs(sigma, 3)
    assert simplify(series(lost, price, 0, 3).removeO() - 4 * price**2) == 0
    assert simplify(series(saved, price, 0, 2).removeO() - 8 * price) == 0


@pytest.mark.parametrize("sigma", [0.2, 2.0, 30.0])
@pytest.mark.parametrize("price", [0.01, 0.1, 3.0])
def test_a_minimiser_loses_at_most_what_is_known_before_training(price, sigma):
    """(13.7), on the Gaussians of (13.8)."""
    inner = (price * sigma + math.sqrt((price * sigma) ** 2 + 1 + 2 * price)) / (1 + 2 * price)
    lost, bill = (inner**2 - 1) / 2 - math.log(inner), (sigma - inner) ** 2
    assert 0 < lost <= price * ((sigma - 1) ** 2 - bill) <= price * (sigma - 1) ** 2


def test_straight_paths_and_even_growth_each_win_one_cost():
    """Theorem 13.4 and Exercise 13.3."""
    t, sigma = symbols("t sigma", positive=True)
    line, growth = 1 + t * (sigma - 1), exp(t * log(sigma))
    bill = lambda path: integrate(simplify(diff(path, t) ** 2), (t, 0, 1))
    assert simplify(bill(line) - (sigma - 1) ** 2) == 0
    assert simplify(bill(growth) - log(sigma) * (sigma**2 - 1) / 2) == 0
    assert simplify(diff(growth, t) / growth - log(sigma)) == 0
    number = integrate((diff(line, t) / line).subs(sigma, 8) ** 2, (t, 0, 1))
    assert simplify(number - Rational(49, 8)) == 0


def test_a_constant_velocity_along_paths_is_no_constant_field():
    """Exercise 13.6."""
    t, x = symbols("t x")
    f = x / (1 + t)
    assert simplify(diff(f, t) + f * diff(f, x)) == 0


def test_two_pairings_differ_by_twice_a_product():
    x, a, y, b = symbols("x a y b")
    assert (
        sympy.expand((b - x) ** 2 + (y - a) ** 2 - (y - x) ** 2 - (b - a) ** 2 - 2 * (a - x) * (b - y)) == 0
    )


@pytest.mark.parametrize("sigma", [0.3, 8.0])
def test_the_costs_of_the_library_agree_with_the_closed_forms(sigma):
    """Along straight paths, started at 1 so that the bill is that of unit variance."""
    field = lambda t, x: x * (sigma - 1) / (1 + t * (sigma - 1))
    cnf = CNF(field, solver=Fixed(200), costs=(KineticEnergy(), JacobianFrobenius()))
    solution = cnf.solve(torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0)
    bill, frobenius = (cost.item() for cost in solution.costs)
    assert bill == pytest.approx((sigma - 1) ** 2, rel=1e-6)
    assert frobenius == pytest.approx((sigma - 1) ** 2 / sigma, rel=1e-4)
    assert solution.logdet.item() == pytest.approx(math.log(sigma), rel=1e-5)


def test_no_gaussian_flow_has_a_bill_below_the_bures_distance():
    """Theorem 13.1 for linear fields of a random timetable: x(t) = exp(tA + sin(πt)B) x(0)."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        A, B = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator)
        times = torch.linspace(0, 1, 2001, dtype=torch.float64)
        flow = torch.matrix_exp(times[:, None, None] * A + torch.sin(math.pi * times)[:, None, None] * B)
        speed = flow.diff(dim=0) * 2000
        bill = speed.square().sum((1, 2)).mean()  # E |M x|^2 = |M|_F^2 for x ~ N(0, I)
        singular = torch.linalg.svdvals(flow[-1])  # those of the square root of the covariance
        assert bill >= (singular - 1).square().sum()
