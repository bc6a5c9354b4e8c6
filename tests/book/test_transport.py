"""What chapter 17 proves holds: batches, Sinkhorn's limits, the entropic map, and what an error of a field costs."""

import math
from fractions import Fraction
from itertools import product

import pytest
import sympy
import torch
from sympy import Rational, diff, exp, integrate, limit, oo, simplify, solve, sqrt, symbols

from cnflib.interpolants import OptimalTransport, gaussian_cost, sinkhorn_plan

EXACT = {"dtype": torch.float64}


def two_points(size: int) -> Fraction:
    """The expected cost of the best pairing of a batch, both ends fair coins at -1 and 1, by counting."""
    coins = list(product((0, 1), repeat=size))
    apart = sum(abs(sum(x) - sum(y)) for x in coins for y in coins)
    return Fraction(4 * apart, size * len(coins) ** 2)


def test_the_cost_of_a_batch_by_hand():
    """(17.1), and that it falls with the batch as Theorem 17.1 says."""
    costs = [two_points(size) for size in range(1, 6)]
    assert costs[:2] == [2, Fraction(3, 2)] and costs[3] == Fraction(280, 256)
    assert all(more >= less for more, less in zip(costs, costs[1:], strict=False))


def test_leaving_points_out_averages_to_a_plan_of_the_large_batch():
    """The proof of Theorem 17.1, on one batch: the mean of the smaller optima is a plan, and no better."""
    x0, x1 = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), **EXACT)
    plan = torch.zeros(5, 5, **EXACT)
    for i, j in product(range(5), repeat=2):
        rows, columns = [k for k in range(5) if k != i], [k for k in range(5) if k != j]
        chosen = OptimalTransport().rows(x0[rows], x1[columns])
        for column, row in zip(columns, chosen.tolist(), strict=True):
            plan[rows[row], column] += 1 / (4 * 25)
    fifth = torch.full((5,), 0.2, **EXACT)
    assert torch.allclose(plan.sum(0), fifth) and torch.allclose(plan.sum(1), fifth)
    y0, y1 = OptimalTransport()(x0, x1)
    costs = torch.cdist(x0, x1).square()
    assert (plan * costs).sum() >= (y1 - y0).square().sum(1).mean()


def test_the_correlation_of_sinkhorns_plan_on_the_line():
    """(17.7), its limits, the golden ratio, and Exercise 17.3."""
    r, eps, s0, s1 = symbols("r varepsilon sigma_0 sigma_1", positive=True)
    goal = -2 * r * s0 * s1 - eps * 2 * s0 * s1 * sympy.log(1 - r**2) / 2
    best = sqrt(1 + eps**2 / 4) - eps / 2
    assert simplify(diff(goal, r).subs(r, best)) == 0
    assert simplify(diff(goal, r, 2).subs({r: Rational(1, 2), s0: 1, s1: 1, eps: 1})) > 0
    assert limit(best, eps, 0) == 1 and limit(best, eps, oo) == 0
    assert simplify(best.subs(eps, 1) - (sqrt(5) - 1) / 2) == 0
    assert simplify((1 / r - r).subs(r, best) - eps) == 0
    assert float((1 / r - r).subs(r, Rational(9, 10))) == pytest.approx(0.211, abs=1e-3)
    assert (1 / r - r).subs(r, Rational(1, 2)) == Rational(3, 2)
    assert float(best.subs(eps, 0.05)) == pytest.approx(0.975, abs=5e-4)


def test_sinkhorn_tends_to_the_assignment_and_to_chance():
    x0, x1 = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(1), **EXACT)
    sharp = sinkhorn_plan(x0, x1, regularization=0.01, iterations=20_000, tolerance=1e-3)
    rows = OptimalTransport().rows(x0, x1)
    assert torch.equal(sharp.argmax(0), rows) and (sharp.amax(0) * 8 > 0.9).all()
    flat = sinkhorn_plan(x0, x1, regularization=1e4)
    assert torch.allclose(flat, torch.full_like(flat, 1 / 64), rtol=1e-2)


def test_the_entropic_map_is_the_gradient_of_a_convex_function():
    """(17.8), for any multipliers."""
    x1, chi = torch.randn(9, 3, **EXACT), torch.randn(9, **EXACT)
    unit = 0.7
    potential = lambda x: unit / 2 * (chi + (2 * x1 @ x - x1.square().sum(1)) / unit).logsumexp(0)
    x = torch.randn(3, **EXACT)
    weights = (chi - (x - x1).square().sum(1) / unit).softmax(0)
    assert torch.allclose(torch.func.grad(potential)(x), weights @ x1)
    assert torch.linalg.eigvalsh(torch.func.hessian(potential)(x)).min() > -1e-12


@pytest.mark.parametrize("seed", range(5))
def test_an_error_of_the_field_costs_what_the_theorem_allows(seed):
    """(17.9) and (17.10) for linear fields, whose laws stay Gaussian and whose W2 is known."""
    A, B = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(seed), **EXACT)
    zero, times = torch.zeros(3, **EXACT), torch.linspace(0, 1, 401, **EXACT)
    flows = torch.matrix_exp(times[:, None, None] * A)  # b(x) = A x, v(x) = (A + B) x
    ends = flows[-1], torch.matrix_exp(A + B)
    distance = gaussian_cost(zero, ends[0] @ ends[0].T, zero, ends[1] @ ends[1].T).sqrt()
    delta = (B @ flows).square().sum((1, 2)).sqrt()  # E |B X_t|^2 with X_t = exp(tA) X_0
    L = torch.linalg.eigvalsh((A + B + (A + B).T) / 2)[-1]
    bound = torch.trapezoid((L * (1 - times)).exp() * delta, times)
    assert distance <= bound
    squares = torch.trapezoid(delta**2, times)
    assert bound**2 <= (torch.expm1(2 * L) / (2 * L)) * squares * 1.001
    assert L < 0 or bound**2 <= (1 + 2 * L).exp() * squares


def test_the_bound_is_sharp():
    """Exercise 17.4: b = 0 and v = L x + delta from a point mass."""
    L, delta, t = symbols("L delta t", positive=True)
    bound = integrate(exp(L * (1 - t)) * delta, (t, 0, 1))
    path = delta * (exp(L * t) - 1) / L
    assert simplify(diff(path, t) - L * path - delta) == 0
    assert simplify(bound - path.subs(t, 1)) == 0
    assert limit((exp(2 * L) - 1) / (2 * L), L, 0) == 1
    assert (1 - math.exp(-3)) / 3 == pytest.approx(0.317, abs=1e-3)


def test_two_schedules_serve_two_spreads_and_not_a_third():
    """The fold on learned schedules."""
    t, squares = symbols("t"), symbols("a b")
    wide, narrow = (1 + 2 * t) ** 2, (1 - Rational(2, 3) * t) ** 2
    found = solve(
        [squares[0] + 9 * squares[1] - wide, squares[0] + squares[1] / 9 - narrow], squares, dict=True
    )[0]
    assert simplify(found[squares[1]] - (3 * t + 2 * t**2) / 5) == 0
    assert simplify(found[squares[0]] - (1 - t) * (1 - Rational(2, 5) * t)) == 0
    third = simplify(found[squares[0]] + found[squares[1]])
    assert simplify(third - (1 - Rational(4, 5) * t + Rational(4, 5) * t**2)) == 0


def test_the_exercise_by_hand():
    """Exercise 17.2."""
    x0 = torch.tensor([[0.0, 0], [2, 0], [0, 2]])
    x1 = torch.tensor([[1.0, 0], [0, 1], [3, 1]])
    costs = torch.cdist(x0, x1).square()
    assert torch.allclose(costs, torch.tensor([[1.0, 1, 10], [1, 5, 2], [5, 1, 10]]))
    y0, y1 = OptimalTransport()(x0, x1)
    assert (y1 - y0).square().sum(1).mean().item() == pytest.approx(4 / 3)
    assert costs.mean().item() == pytest.approx(4)
    ranked = x1[[1, 0, 2]] - x0[[0, 2, 1]]
    assert ranked.square().sum().item() == pytest.approx(8)
