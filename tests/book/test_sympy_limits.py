"""What chapter 7 says of two modes, of bridges, of nested Gaussians and of units holds letter by letter."""

import math

import pytest
import sympy
from scipy.integrate import quad
from scipy.stats import norm
from sympy import Rational, exp, log, oo, pi, simplify, sqrt, symbols


def bump(x, m, sigma):
    return exp(-((x - m) ** 2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi))


def test_the_slope_between_two_modes():
    x, m, sigma = symbols("x m sigma", positive=True)
    p = (bump(x, m, sigma) + bump(x, -m, sigma)) / 2
    slope = bump(0, 0, 1) / p.subs(x, 0)
    assert simplify(slope - sigma * exp(m**2 / (2 * sigma**2))) == 0
    assert round(float(p.subs({x: 0, m: 2, sigma: Rational(1, 2)})), 6) == 0.000268
    assert round(float(slope.subs({m: 2, sigma: Rational(1, 2)})), -1) == 1490
    assert 1e7 < float(slope.subs({m: 3, sigma: Rational(1, 2)})) < 1e8
    flat = math.sqrt(2 * math.log(2)) / 2  # where σ exp(m²/2σ²) is 1
    assert round(flat, 2) == 0.59


@pytest.mark.parametrize(("L", "c"), [(5.0, 1.0), (2.0, 0.3)])
def test_a_straight_piece_attains_the_bound(L, c):
    p_A = norm.cdf(-c / L)  # x = L z on the piece from -c to c
    between = quad(lambda x: norm.pdf(x / L) / L, -c, c)[0]
    assert between == pytest.approx(norm.cdf(norm.ppf(p_A) + 2 * c / L) - p_A, abs=1e-12)


def test_how_steep_a_map_must_be():
    assert 159 < 4 / norm.ppf(0.51) < 160
    assert 3600 < 10 / (norm.ppf(1 / 3 + 0.001) - norm.ppf(1 / 3)) < 3700
    assert norm.cdf(1e-5) - 0.5 == pytest.approx(4e-6, rel=0.01)


def test_a_calm_source_costs_its_entropy_and_its_distance():
    x, m = symbols("x m", real=True)
    sigma = symbols("sigma", positive=True)
    q = bump(x, m, sigma)
    mean = lambda f: simplify(sympy.integrate(sympy.expand(f) * q, (x, -oo, oo)))
    cost = mean(log(2 * pi) / 2 + x**2 / 2)
    assert simplify(cost - log(2 * pi) / 2 - (m**2 + sigma**2) / 2) == 0
    entropy = log(2 * pi) / 2 + log(sigma) + Rational(1, 2)
    divergence = -log(sigma) + (sigma**2 + m**2 - 1) / 2
    assert simplify(cost - entropy - divergence) == 0
    at = {m: 0, sigma: Rational(1, 2)}
    assert [round(float(f.subs(at)), 3) for f in (cost, entropy, divergence)] == [1.044, 0.726, 0.318]


def test_angles_alike_lose_less_than_one_third_of_a_nat():
    t = symbols("t", real=True)
    f = (1 + sympy.cos(t)) / (2 * pi)
    loss = quad(sympy.lambdify(t, f * log(2 * pi * f)), -math.pi, math.pi)[0]
    assert loss == pytest.approx(1 - math.log(2), abs=1e-8)
    right = math.log(2 * math.pi) - loss + math.log(0.1 * math.sqrt(2 * math.pi))
    wrong = math.log(2 * math.pi) + math.log(0.01 * math.sqrt(2 * math.pi))
    assert (round(right, 3), round(wrong, 3)) == (0.147, -1.848)


@pytest.mark.parametrize("R", [1e-3, 40.0])
def test_units_give_two_points_any_ratio(R):
    x, y = 0.4, 1.9  # of density p = N(0, 1); y is less dense
    wanted = norm.pdf(x) / (R * norm.pdf(y))  # the slope at x; at y, more than 1 away, it is 1
    bump = lambda v: math.exp(1 - 1 / (1 - (v - x) ** 2)) if abs(v - x) < 1 else 0.0  # smooth, 1 at x
    T = lambda v: quad(lambda s: wanted ** bump(s), -3, v, epsabs=1e-13, limit=200)[0]
    h = 1e-4
    dense = lambda v: 2 * h * norm.pdf(v) / (T(v + h) - T(v - h))  # the density at T(v), in the new units
    assert dense(x) / dense(y) == pytest.approx(R, rel=1e-4)
    steps = [T(v + 0.1) - T(v) for v in (-2.0, -0.5, 0.3, 1.0, 5.0)]
    assert min(steps) > 0 and T(9.1) - T(9.0) == pytest.approx(0.1)  # increasing, onto the whole line
