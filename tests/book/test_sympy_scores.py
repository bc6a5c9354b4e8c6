"""What chapter 18 derives and computes by hand holds letter by letter, or in float64 on a Gaussian mixture."""

import math

import pytest
import sympy
import torch
from sympy import Rational, cos, diff, exp, integrate, log, oo, pi, simplify, sin, solve, sqrt, symbols, tanh

from cnflib import GaussianMixture, StandardNormal
from cnflib.interpolants import (
    Bridge,
    Linear,
    Oracle,
    Trigonometric,
    best_diffusion,
    path_measure_bound,
    sample_sde,
    velocity_objective,
)
from cnflib.ode import Fixed, heun

x, t, eps = symbols("x t epsilon", real=True)
s2 = symbols("sigma2", positive=True)
PATHS = {"linear": (1 - t, t), "trigonometric": (cos(pi * t / 2), sin(pi * t / 2))}
MIXTURE = GaussianMixture(
    [0.3, 0.7], [[-1.0, 0.5], [1.5, 0.0]], [[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.4]]]
)


def gaussian(V):
    return exp(-(x**2) / (2 * V)) / sqrt(2 * pi * V)


def star(alpha, beta):
    """ε* of (18.5)."""
    return alpha**2 * diff(beta, t) / beta - alpha * diff(alpha, t)


def velocity(V):
    """(15.11), without a mean."""
    return diff(V, t) / (2 * V) * x


# Fokker–Planck and the reversal.


def test_the_fokker_planck_equation_of_an_ornstein_uhlenbeck_process():
    V0, e = symbols("V0 e", positive=True)
    V = e + (V0 - e) * exp(-2 * t)  # the variance of dx = -x dt + sqrt(2 e) dW
    p = gaussian(V)
    assert simplify((diff(p, t) + diff(-x * p, x) - e * diff(p, x, 2)) / p) == 0


@pytest.mark.parametrize("path", PATHS)
def test_all_diffusions_have_the_laws_of_the_velocity_forward_and_backward(path):
    alpha, beta = PATHS[path]
    V = alpha**2 + s2 * beta**2
    p, b = gaussian(V), velocity(V)
    s = diff(log(p), x)
    forward = diff(p, t) + diff(p * (b + eps * s), x) - eps * diff(p, x, 2)
    backward = diff(p, t) + diff(p * (b - eps * s), x) + eps * diff(p, x, 2)
    assert simplify(forward / p) == 0 and simplify(backward / p) == 0


@pytest.mark.parametrize("path", PATHS)
def test_with_eps_star_the_backward_motion_is_linear_and_has_the_variance_of_the_noise(path):
    alpha, beta = PATHS[path]
    V = alpha**2 + s2 * beta**2
    drift = velocity(V) - star(alpha, beta) * (-x / V)
    assert simplify(drift - diff(beta, t) / beta * x) == 0
    assert simplify(diff(alpha**2, t) - 2 * diff(beta, t) / beta * alpha**2 + 2 * star(alpha, beta)) == 0
    assert alpha.subs(t, 1) == 0  # from no variance at t = 1


def test_eps_star_of_two_paths():
    assert simplify(star(*PATHS["linear"]) - (1 - t) / t) == 0
    assert simplify(star(*PATHS["trigonometric"]) - pi / 2 / sympy.tan(pi * t / 2)) == 0


# Tweedie and the conversion.


def test_two_ends_by_hand():
    s = symbols("s", positive=True)
    p = exp(-((x - 1) ** 2) / (2 * s**2)) + exp(-((x + 1) ** 2) / (2 * s**2))
    at = {x: Rational(1, 2), s: 1}
    mean = (x + s**2 * diff(log(p), x)).subs(at)
    assert abs(float(mean - tanh(Rational(1, 2)))) < 1e-12 and round(float(mean), 3) == 0.462
    weights = [round(math.exp(-((0.5 - end) ** 2) / 2), 4) for end in (1, -1)]
    assert weights == [0.8825, 0.3247] and round(weights[0] * 0.5 - weights[1] * 1.5, 4) == -0.0458
    assert round(float(diff(log(p), x).subs(at)), 3) == -0.038


@pytest.mark.parametrize("path", PATHS)
def test_the_sign_of_the_conversion_on_a_gaussian(path):
    alpha, beta = PATHS[path]
    V = alpha**2 + s2 * beta**2
    s = (velocity(V) - diff(beta, t) / beta * x) / star(alpha, beta)
    assert simplify(s + x / V) == 0


def test_the_sign_of_the_conversion_on_a_mixture():
    oracle = Oracle(Trigonometric(), StandardNormal(2), MIXTURE)
    points = torch.linspace(-2, 2, 42, dtype=torch.float64).reshape(21, 2)
    for time in (0.2, 0.5, 0.8):
        b, s = oracle.velocity(time, points), oracle.score(time, points)
        factor = 2 / math.pi * math.tan(math.pi * time / 2)
        assert (factor * b - points - s).abs().max() < 1e-13
        assert (-factor * b - points - s).abs().max() > 0.5


def test_a_dependent_pairing_breaks_the_conversion_and_noise_mends_it():
    b = Rational(2, 3) * x  # at t = 1/2 of x1 = 2 x0
    assert simplify((b / 2 - x) / Rational(1, 2) + Rational(4, 3) * x) == 0  # -1.33 x
    assert simplify(diff(log(gaussian(Rational(9, 4))), x) + Rational(4, 9) * x) == 0  # -0.44 x
    gamma, V = Rational(1, 2), Rational(9, 4) + Rational(1, 4)
    assert -(gamma / V) / gamma == -Rational(2, 5)  # the score from E[ξ | x]
    b = Rational(3, 2) / V * x
    assert b == Rational(3, 5) * x and (b / 2 - x) / Rational(1, 2) == -Rational(7, 5) * x


# The three answers.


def test_a_draw_of_the_posterior_has_twice_the_error_and_the_ode_lies_between():
    tau2, beta, sigma = symbols("tau2 beta sigma", positive=True)
    V = beta**2 * tau2 + sigma**2
    rho = beta * sqrt(tau2) / sqrt(V)
    error = lambda slope: slope**2 * V - 2 * slope * beta * tau2 + tau2  # E (slope x_t - x1)²
    mean = error(beta * tau2 / V)
    posterior = 1 / (1 / tau2 + beta**2 / sigma**2)  # of one precision and the other
    assert simplify(mean - posterior) == 0
    assert simplify((mean + posterior) / mean - 2) == 0  # a draw is the mean and the posterior's spread
    assert simplify(error(sqrt(tau2 / V)) / mean - 2 / (1 + rho)) == 0


def test_only_eps_star_draws_from_the_posterior():
    oracle = Oracle(Linear(), StandardNormal(1), GaussianMixture([1.0], [[0.0]], [[[4.0]]]))
    start, at = torch.full((40_000, 1), 1.0), 0.5
    precision = 1 / 4 + at**2 / (1 - at) ** 2
    want = at / (1 - at) ** 2 / precision, precision**-0.5
    generator = torch.Generator().manual_seed(0)
    got = {}
    for name, size in (("star", lambda t: (1 - t) / t), ("less", lambda t: 0.2 * (1 - t) / t)):
        ends = sample_sde(
            oracle.velocity, oracle.score, start, size, Fixed(100, heun), generator=generator, t0=at
        )
        got[name] = ends.mean().item(), ends.std().item()
    assert got["star"] == pytest.approx(want, abs=0.03)
    assert abs(got["less"][1] - want[1]) > 0.2


# The bound.


def test_the_best_noise_of_the_bound():
    gb, gs, e = symbols("g_b g_s e", positive=True)
    bound = gb / (2 * e) + e * gs / 2
    (best,) = solve(diff(bound, e), e)
    assert simplify(best - sqrt(gb / gs)) == 0 and simplify(bound.subs(e, best) - sqrt(gb * gs)) == 0
    assert best_diffusion(0.04, 1.0).item() == pytest.approx(0.2)
    assert path_measure_bound(0.04, 1.0, 2.0).item() == pytest.approx(1.01)
    assert path_measure_bound(0.01, 1.0, 0.2).item() == pytest.approx(0.125)


def test_the_divergence_of_one_step():
    h, e, d = symbols("h e d", positive=True)
    step = gaussian(2 * e * h)
    ratio = sympy.expand(sympy.expand_log(log(step) - log(step.subs(x, x - h * d)), force=True))
    assert sympy.degree(ratio, x) == 1  # so its mean is its value at the mean of x, which is 0
    assert simplify(ratio.subs(x, 0) - (h * d) ** 2 / (4 * e * h)) == 0


def test_with_a_converted_score_the_bound_is_least_at_eps_star():
    e, st, d = symbols("e s d", positive=True)
    rate = (d * (1 + e / st)) ** 2 / (4 * e)
    assert solve(diff(rate, e), e) == [st] and simplify(rate.subs(e, st) - d**2 / st) == 0


# The noise of a bridge.


def test_the_squared_rate_of_a_bridge_has_an_infinite_mean_and_its_product_is_finite():
    gamma2 = t * (1 - t)
    rate = diff(sqrt(gamma2), t)
    assert simplify(rate**2 - (1 - 2 * t) ** 2 / (4 * t * (1 - t))) == 0
    a = symbols("a", positive=True)
    assert (
        sympy.limit(integrate(sympy.apart((1 - 2 * t) ** 2 / (4 * gamma2), t), (t, a, Rational(1, 2))), a, 0)
        == oo
    )
    assert simplify(sqrt(gamma2) * rate - (1 - 2 * t) / 2) == 0


def test_the_objective_over_both_signs_of_the_noise_stays_bounded_at_the_ends():
    generator = torch.Generator().manual_seed(0)
    x0, x1, xi = (torch.randn(2000, 1, generator=generator, dtype=torch.float64) for _ in range(3))
    at = torch.full((2000,), 1e-10, dtype=torch.float64)
    values = velocity_objective(lambda t, x: torch.sin(x), Linear(Bridge()), x0, x1, t=at, xi=xi)
    rate = (1 - 2e-10) / (2 * math.sqrt(1e-10))
    assert values.abs().max() < 100 < (rate * xi).square().mean()


# The hand calculations and exercises.


def test_the_exercises():
    y = symbols("y", real=True)
    law = exp(-((y - 2) ** 2) / 10)
    assert (y + diff(log(law), y)).subs(y, 5) == Rational(22, 5) and Rational(4 * 1, 5) == Rational(4, 5)
    b = velocity((1 - t) ** 2 + t**2) + Rational(1, 2)
    exact = -x / ((1 - t) ** 2 + t**2)
    assert simplify((t * b - x) / (1 - t) - exact - t / (2 * (1 - t))) == 0  # Exercise 18.4


def test_the_posterior_share_of_exercise_7():
    means, V = (0.5, -0.5), 0.25 * 0.09 + 0.25
    weights = [w * math.exp(-((0.3 - m) ** 2) / (2 * V)) for w, m in zip((0.7, 0.3), means, strict=True)]
    share = 0.0
    for weight, end in zip(weights, (1, -1), strict=True):  # the posterior of each component is Gaussian
        precision = 1 / 0.09 + 1
        mean = (end / 0.09 + 0.3 * 0.5 / 0.25) / precision
        share += weight / sum(weights) * 0.5 * (1 + math.erf(-mean * math.sqrt(precision / 2)))
    assert round(share, 3) == 0.125
