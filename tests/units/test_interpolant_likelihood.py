"""Densities, residuals and bounds of interpolants, between Gaussians where all is known in closed form."""

import math

import pytest
import torch
from registry import interpolants, rng, seeded
from torch.distributions import Independent, Normal

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, log_prob_at
from cnflib.interpolants import (
    Linear,
    Trigonometric,
    best_diffusion,
    continuity_residual,
    path_measure_bound,
    score_residual,
)
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, dopri8, rk4

S0, S1, D = 1.5, 0.4, 3
times = torch.tensor([0.2, 0.47, 0.9], dtype=torch.float64)
every = pytest.mark.parametrize("path", interpolants.values(), ids=interpolants)


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def points(*shape, seed=0):
    return torch.randn(*(shape or (3, D)), generator=rng(seed), dtype=torch.float64)


def column(a):
    return a.reshape(-1, 1)


class Gaussians:
    """Velocity, score and log-density between N(0, S0²) and N(0, S1²), drawn independently."""

    def __init__(self, path):
        self.path = path

    def variance(self, t):
        c = self.path.coefficients(t)
        return c.alpha**2 * S0**2 + c.beta**2 * S1**2 + c.gamma2

    def rate(self, t):
        """That of half the logarithm of the variance."""
        c = self.path.coefficients(t)
        slope = c.alpha * c.alpha_rate * S0**2 + c.beta * c.beta_rate * S1**2 + c.gamma2_rate / 2
        return slope / self.variance(t)

    def velocity(self, t, x, context=None):
        return column(self.rate(t)) * x

    def score(self, t, x, context=None):
        return -x / column(self.variance(t))

    def log_prob(self, t, x, context=None):
        v = self.variance(t)
        return -0.5 * (x.square().sum(1) / v + x.shape[1] * torch.log(2 * math.pi * v))


def normal(v):
    """The base N(0, v), v what a path has at t = 0."""
    scale = torch.full((D,), v**0.5, dtype=torch.float64)
    return Independent(Normal(torch.zeros_like(scale), scale), 1)


@every
@pytest.mark.parametrize("t", [0.47, 0.9])
def test_log_prob_at_any_time_is_that_of_the_interpolant(path, t):
    """Tolerances hold where the field jumps too, as that of encoding-decoding may."""
    exact = Gaussians(path)
    base = normal(exact.variance(torch.tensor(1e-12).double()).item())
    flow = Flow(CNF(exact.velocity, solver=Adaptive(dopri8, rtol=1e-7, atol=1e-7)), base)
    assert_close(log_prob_at(flow, points(), t), exact.log_prob(torch.tensor(t).double(), points()), 1e-5)


@every
def test_the_residuals_of_an_exact_pair_vanish(path):
    exact, x = Gaussians(path), points()
    assert_close(continuity_residual(exact.velocity, exact.log_prob, times, x), torch.zeros(3).double())
    assert_close(score_residual(exact.velocity, exact.score, times, x), torch.zeros(3, D).double())


def test_fields_and_densities_of_two_arguments_are_those_of_three():
    exact, x = Gaussians(Trigonometric()), points()
    wrong = lambda t, x, context: exact.velocity(t, x) + x.sin()
    for residual, other in ((continuity_residual, exact.log_prob), (score_residual, exact.score)):
        for f in (lambda t, x: wrong(t, x, None), lambda t, x, context=None: wrong(t, x, context), wrong):
            for g in (lambda t, x: other(t, x), lambda t, x, context: other(t, x)):
                assert_close(residual(f, g, times, x), residual(wrong, other, times, x))


@every
def test_the_residuals_of_a_wrong_field_are_what_its_error_makes(path):
    """With b + sin(x) + t: cos summed, less (sin x + t) x / v summed; and the gradient of this."""
    exact, x = Gaussians(path), points()
    v, t = exact.variance(times), column(times)
    wrong = lambda t, x, c: exact.velocity(t, x) + x.sin() + column(t)
    scalar = (x.cos() - (x.sin() + t) * x / column(v)).sum(1)
    vector = -x.sin() - (x.cos() * x + x.sin() + t) / column(v)
    assert_close(continuity_residual(wrong, exact.log_prob, times, x), scalar)
    assert_close(score_residual(wrong, exact.score, times, x), vector)


def test_the_residuals_of_a_wrong_density_are_what_its_error_makes():
    """log p + t² |x|²/2 adds t |x|² + t² b·x; the score with t² x adds its rate and the gradient of b·t² x."""
    exact, x, t = Gaussians(Trigonometric()), points(), column(times)
    log_prob = lambda t, x, c: exact.log_prob(t, x) + 0.5 * t**2 * x.square().sum(1)
    score = lambda t, x, c: exact.score(t, x) + column(t**2) * x
    rate, square = exact.rate(times), x.square().sum(1)
    scalar = (times + times**2 * rate) * square
    assert_close(continuity_residual(exact.velocity, log_prob, times, x), scalar)
    assert_close(score_residual(exact.velocity, score, times, x), 2 * (t + t**2 * column(rate)) * x)


def test_the_vector_residual_is_the_gradient_of_the_scalar_one_where_axes_mix():
    """A field of no special kind, and a log-density whose gradient is the score."""
    A, B = points(D, D, seed=1), points(D, D, seed=2)
    field = lambda t, x, c: torch.tanh(x @ A.T) * column(t) + x @ B.T
    log_prob = lambda t, x, c: ((x @ B.T).sin().sum(1) * torch.exp(t)).flatten()
    score = lambda t, x, c: torch.func.grad(lambda y: log_prob(t, y, c).sum())(x)
    scalar = lambda x: continuity_residual(field, log_prob, times, x).sum()
    x = points().requires_grad_()
    (gradient,) = torch.autograd.grad(scalar(x), x)
    assert_close(score_residual(field, score, times, x.detach()), gradient)


@pytest.mark.parametrize("kind", ["scalar", "vector"])
def test_one_time_for_all_is_the_same_time_for_each_and_images_are_carried_like_vectors(kind):
    exact, x = Gaussians(Linear()), points(3, 4)
    wrong = lambda t, x, c: exact.velocity(t, x.flatten(1)).reshape(x.shape) + x.square()
    residual, other = {
        "scalar": (continuity_residual, lambda t, x, c: exact.log_prob(t, x.flatten(1))),
        "vector": (score_residual, lambda t, x, c: exact.score(t, x.flatten(1)).reshape(x.shape)),
    }[kind]
    each = residual(wrong, other, torch.full((3,), 0.3, dtype=torch.float64), x)
    assert_close(residual(wrong, other, 0.3, x), each)
    assert_close(residual(wrong, other, torch.tensor(0.3, dtype=torch.float64).expand(3), x), each)
    image = residual(wrong, other, 0.3, x.reshape(3, 1, 2, 2))
    assert_close(image.reshape(each.shape), each)
    assert image.shape == (x.shape[:1] if kind == "scalar" else (3, 1, 2, 2))


def test_a_flow_of_a_net_obeys_its_own_continuity_equation():
    """log p_t by a solve, differentiated through it, in time too; of another net it does not."""
    with seeded():
        nets = [MLP(D, (8,), context=2).double() for _ in range(2)]
    flow = Flow(CNF(nets[0], solver=Fixed(30, rk4)), normal(S0**2))
    x, context = points(), points(3, 2, seed=3)
    log_prob = lambda t, x, c: log_prob_at(flow, x, t, c)
    own, other = (continuity_residual(net, log_prob, 0.6, x, context) for net in nets)
    assert own.abs().max() < 1e-7 and other.abs().max() > 1e-2


def test_gradients_of_both_residuals_reach_what_the_fields_are_made_of():
    """As a penalty in training wants them."""
    x, weights = points(), [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (0.7, -1.2)]
    field = lambda a: lambda t, x, c: a * column(t) * x.sin()
    log_prob = lambda b: lambda t, x, c: b * t * x.pow(3).sum(1)
    score = lambda b: lambda t, x, c: b * column(t**2) * x.pow(3)
    for residual, other in ((continuity_residual, log_prob), (score_residual, score)):
        rows = lambda a, b: residual(field(a), other(b), times, x)  # noqa: B023
        assert torch.autograd.gradcheck(rows, weights)


def test_context_is_handed_on():
    context = torch.tensor([[1], [2], [0]])  # integers too
    shrinking = lambda t, x, c: -c * x
    score = lambda t, x, c: -x * torch.exp(2 * c * column(t))
    log_prob = lambda t, x, c: 0.5 * (score(t, x, c) * x).sum(1) + D * c[:, 0] * t
    assert_close(continuity_residual(shrinking, log_prob, times, points(), context), torch.zeros(3).double())
    assert_close(score_residual(shrinking, score, times, points(), context), torch.zeros(3, D).double())


# The bound. Between Gaussians the SDE stays linear where its errors are, and its law is a matter of integrals.


def kl(v, mean, variance):
    """Of N(0, v) from N(mean, variance)."""
    return 0.5 * (v / variance + mean**2 / variance - 1 - torch.log(v / variance))


SLOPES = {"errors in line": (0.3, 0.3), "errors against": (0.3, -0.3), "of the velocity": (0.5, 0.0)}


def learned(exact, eps, slope_b, slope_s, shift, nodes=20_000):
    """KL(ρ1 ‖ ρ̂1) of the SDE dx = (a x + 2 m) dt + √2ε dW with b + slope_b x + m and s + slope_s x + m/ε; both gaps.

    The shift m grows as what is added at t reaches t = 1, exp of the integral of a from t on.
    """
    t = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    v, (v0, v1) = exact.variance(t), exact.variance(torch.tensor([0.0, 1.0]).double())
    a = (exact.rate(t) + slope_b + eps * (slope_s - 1 / v)) / nodes
    reach = (a.flip(0).cumsum(0).flip(0) - a / 2).exp()
    m = shift * reach
    mean, variance = (2 * m * reach).mean(), (2 * a.sum()).exp() * v0 + 2 * eps * (reach**2).mean()
    gap_b, gap_s = slope_b**2 * v + m**2, slope_s**2 * v + (m / eps) ** 2
    return kl(v1, mean, variance), gap_b.mean(), gap_s.mean()


@pytest.mark.parametrize("eps", [0.1, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("slopes", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_law_of_the_sde_is_within_the_bound(eps, slopes, shift):
    found, *gaps = learned(Gaussians(Trigonometric()), eps, *slopes, shift)
    assert 0 < found <= path_measure_bound(*gaps, eps)


def test_the_exact_sde_has_the_law_of_the_data():
    found, *gaps = learned(Gaussians(Trigonometric()), 0.7, 0.0, 0.0, 0.0)
    assert abs(found) < 1e-12 and path_measure_bound(*gaps, 0.7) == 0


def test_half_the_bound_would_fail():
    """The bound is nearly met where both errors agree and the end of a path tells nearly all of it."""
    found, *gaps = learned(Gaussians(Trigonometric()), 1.0, 0.0, 0.0, 0.4)
    ratio = found / path_measure_bound(*gaps, 1.0)
    assert 0.9 < ratio <= 1
    half = path_measure_bound(
        gaps[0] / 2, gaps[1] / 2, 1.0
    )  # the same constants with losses that carry a factor 1/2
    assert found / half > 1


def test_the_best_diffusion_has_the_least_bound():
    gaps = torch.tensor(0.03).double(), torch.tensor(0.7).double()
    best = best_diffusion(*gaps)
    assert_close(path_measure_bound(*gaps, best), (gaps[0] * gaps[1]).sqrt())
    eps = best * torch.linspace(0.5, 2, 301).double()
    assert path_measure_bound(*gaps, eps).min() >= path_measure_bound(*gaps, best) - 1e-12
    assert best_diffusion(0.1, 0.0) == math.inf


def test_a_diffusion_that_depends_on_time_is_averaged():
    t = (torch.arange(1000).double() + 0.5) / 1000
    bound = path_measure_bound(t, 1 - t, 1 + t).mean()
    exact = (1 - math.log(2)) / 2 + (1 - 1 / 3) / 2
    assert abs(bound - exact) < 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-5)], ids=str)
def test_the_density_of_a_flow_meets_its_own_continuity_equation(dtype, tolerance):
    with seeded(0):
        field = MLP(D).to(dtype)
    with torch.no_grad():
        for p in field.parameters():
            p *= 2
    flow = Flow(CNF(field, solver=Fixed(20)), StandardNormal(D))
    own = lambda t, x, context: log_prob_at(flow, x, t)
    x = points(5, D).to(dtype)
    assert continuity_residual(field, own, 0.6, x).abs().max() < tolerance
    assert continuity_residual(lambda t, x, c: 1.1 * field(t, x, c), own, 0.6, x).abs().max() > 50 * tolerance
