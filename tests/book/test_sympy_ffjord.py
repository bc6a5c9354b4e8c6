"""What chapter 12 derives holds letter by letter: steep densities, the mass of a solved one, the exercises."""

import math

import pytest
import sympy
import torch
from sympy import Integer, Matrix, Rational, exp, integrate, log, oo, pi, series, simplify, sqrt, symbols
from torch.func import grad, jacrev

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF
from cnflib.ode import Fixed, euler, midpoint

x, y, t = symbols("x y t", real=True)
sigma, n = symbols("sigma n", positive=True)


def test_the_slope_of_the_log_density_obeys_12_3():
    """By the continuity equation: the total derivative of grad log p along a path, for a field of two dimensions."""
    p, f, g = sympy.Function("p")(t, x, y), sympy.Function("f")(t, x, y), sympy.Function("g")(t, x, y)
    rate = -(p * f).diff(x) - (p * g).diff(y)
    slopes = [log(p).diff(v) for v in (x, y)]
    divergence = f.diff(x) + g.diff(y)
    for v, s in zip((x, y), slopes, strict=True):
        total = s.diff(t).subs(p.diff(t), rate).doit() + f * s.diff(x) + g * s.diff(y)
        total = total.subs(sympy.Derivative(p, t, v), rate.diff(v)).doit()
        claimed = -(f.diff(v) * slopes[0] + g.diff(v) * slopes[1]) - divergence.diff(v)
        assert simplify(total - claimed) == 0


def test_the_linear_field_reaches_the_bound_of_theorem_12_1():
    density = exp(-(x**2) / (2 * sigma**2)) / (sigma * sqrt(2 * pi))
    z = symbols("z", positive=True)
    slope = -log(density).diff(x).subs(x, sigma * z)
    assert simplify(slope - exp(-log(sigma)) * z) == 0


@pytest.mark.parametrize("seed", range(3))
def test_no_field_breaks_the_bound_of_theorem_12_1(seed):
    """A field with known constants: a ridge sin(w x) in the direction u, whose trace is u w cos(w x)."""
    rng = torch.Generator().manual_seed(seed)
    u, w = torch.randn(2, 2, generator=rng, dtype=torch.float64)

    def field(t, x):
        return torch.sin(x @ w)[:, None] * u

    L, L_1 = (u.norm() * w.norm()).item(), ((u @ w).abs() * w.norm()).item()
    flow = Flow(CNF(field, solver=Fixed(50)), StandardNormal(2)).double()
    points = torch.randn(40, 2, generator=rng, dtype=torch.float64)
    slopes = grad(lambda x: flow.log_prob(x).sum())(points).norm(dim=1)
    bound = math.exp(L) * flow.encode(points).norm(dim=1) + L_1 * math.expm1(L) / L
    assert (slopes <= bound * (1 + 1e-6)).all()


def test_the_linear_field_that_claims_most_through_four_euler_steps_contracts_too_fast():
    """The stated NLL of N(0, 1/16) is least where (1 - a/4)^7 = 16, and its mass there is 1.433."""
    a = symbols("a", negative=True)
    stated = log(2 * pi) / 2 + (1 - a / 4) ** 8 / 32 + a
    best = -4 * (Integer(16) ** Rational(1, 7) - 1)
    assert abs(stated.diff(a).subs(a, best).evalf()) < 1e-9 and stated.diff(a, 2).subs(a, best) > 0
    assert abs(best.evalf() + 1.944) < 1e-3 and best < -log(4)
    assert abs(stated.subs(a, best).evalf() + 0.282) < 1e-3
    assert abs((exp(-best) / (1 - best / 4) ** 4).evalf() - 1.433) < 1e-3


def test_four_euler_steps_have_the_mass_of_theorem_12_2():
    a = -log(4)
    latent = (1 - a / 4) ** 4 * x
    density = exp(-(latent**2) / 2) / sqrt(2 * pi) * exp(-a)
    mass = integrate(density, (x, -oo, oo))
    assert simplify(mass - exp(-a) / latent.diff(x)) == 0
    assert abs(float(mass) - 1.217) < 1e-3
    nll = float(log(2 * pi) / 2 + (1 - a / 4) ** 8 / 32 + a)
    assert abs(nll + 0.130) < 1e-3 and 0.5 * math.log(2 * math.pi * math.e / 16) - math.log(1.2166) < nll


@pytest.mark.parametrize(("method", "order"), [(euler, 1), (midpoint, 2)])
def test_the_excess_of_exercise_12_4_falls_with_the_order(method, order):
    def log_mass(steps):
        flow = Flow(CNF(lambda t, x: -1.5 * x, solver=Fixed(steps, method)), StandardNormal(1)).double()
        slope = jacrev(lambda x: flow.encode(x[None])[0])(torch.ones(1).double()).item()
        return 1.5 - math.log(slope)

    assert abs(math.log2(log_mass(200) / log_mass(400)) - order) < 0.05


def test_the_numbers_of_exercise_12_4():
    a, h = symbols("a h")
    excess = series(-a - log(1 - a * h) / h, h, 0, 2).removeO()
    assert simplify(excess - a**2 * h / 2) == 0
    for sd, by_rule, exactly in ((0.25, 97, 96), (0.08, 319, 318)):
        rate = math.log(sd)
        assert math.ceil(50 * rate**2) == by_rule
        assert next(k for k in range(1, 999) if -rate - k * math.log(1 - rate / k) < 0.01) == exactly


def test_an_euler_step_gives_away_half_the_trace_of_the_square():
    J, h = Matrix(2, 2, symbols("a:4")), symbols("h")
    excess = series(-h * J.trace() - log((sympy.eye(2) - h * J).det()), h, 0, 3).removeO()
    assert simplify(excess - h**2 * (J * J).trace() / 2) == 0


@pytest.mark.parametrize(
    ("field", "at", "latent", "trace", "spread", "determinant"),
    [
        ((0.3 * x + 0.6 * y, 0.4 * x * y), (1, 1), (0.1, 0.6), 0.7, 1.0, 0.18),
        ((0.2 * x + y, 0.5 * y), (2, 1), (0.6, 0.5), 0.7, 1.0, 0.4),
    ],
)
def test_the_steps_by_hand(field, at, latent, trace, spread, determinant):
    here = dict(zip((x, y), at, strict=True))
    J = Matrix(field).jacobian((x, y)).subs(here)
    step = Matrix(at) - Matrix(field).subs(here)
    assert [round(float(v), 9) for v in step] == list(latent)
    assert abs(J.trace() - trace) < 1e-9 and abs(J[0, 1] + J[1, 0] - spread) < 1e-9
    assert abs((sympy.eye(2) - J).det() - determinant) < 1e-9


def test_the_kink_by_hand():
    d, start = symbols("d start", real=True)
    logdet = 1 - (d - start)
    assert logdet.diff(d) == -1 and logdet.subs({d: 0, start: -Rational(1, 2)}) == Rational(1, 2)
