"""The closed forms between Gaussian mixtures, against the paths themselves and the laws they must obey."""

import math

import pytest
import torch
from registry import interpolants, rng
from torch.func import grad, jacrev, jvp, vmap

from cnflib import Flow, GaussianMixture, StandardNormal
from cnflib.continuous import CNF
from cnflib.interpolants import Bridge, Linear, Oracle, continuity_residual, sample_ode
from cnflib.ode import Adaptive, dopri8

rho0 = GaussianMixture(
    [0.6, 0.4], [[0.0, 2.0], [1.0, -1.0]], [[[0.3, 0.0], [0.0, 1.3]], [[0.7, 0.3], [0.3, 0.6]]]
)
rho1 = GaussianMixture(
    [0.3, 0.2, 0.5],
    [[-1.0, 0.5], [1.0, 0.0], [2.0, 2.0]],
    [[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.6]], [[0.4, 0.0], [0.0, 0.4]]],
)
ready = pytest.mark.parametrize("name", interpolants)


def oracle(name):
    """A mirror is a path between equal laws: only then is x0 the base."""
    return Oracle(interpolants[name], rho1 if "mirror" in name else rho0, rho1)


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def draw(n=5, seed=0):
    return torch.randn(n, 2, generator=rng(seed), dtype=torch.float64)


def path(name, n, t):
    """Ends, noise, points and rates of n pairs."""
    ends = [rho.sample(n, generator=rng(seed)).double() for seed, rho in enumerate((rho0, rho1))]
    xi = draw(n, 2)
    return *ends, xi, interpolants[name](t, *ends, xi), interpolants[name].rate(t, *ends, xi)


def finite(name):
    """Times at which the schedules have finite rates, the ends among them."""
    times = [0.0, 0.2, 0.47, 0.9, 1.0]
    return torch.tensor(times[:-1] if "of a diffusion" in name else times, dtype=torch.float64)


def assert_vanishes(sample):
    """Each mean over rows within four standard errors of 0."""
    mean, error = sample.mean(0), sample.std(0) / len(sample) ** 0.5
    assert (mean.abs() < 4 * error + 1e-12).all(), (mean / error).tolist()


@ready
def test_means_given_the_point_are_those_of_the_paths(name):
    """E[φ(t, x_t) (y - E[y | x_t])] = 0 for y the rate, the noise and both ends, and several φ."""
    n = 5000
    t = 0.05 + 0.9 * torch.rand(n, generator=rng(3), dtype=torch.float64)
    x0, x1, xi, x_t, rate = path(name, n, t)
    exact = oracle(name)
    a = x_t[:, None]
    tests = torch.cat([torch.ones_like(a), a, t[:, None, None] * a.sin(), (2 * a).cos(), (a - 1).tanh()], 1)
    known = [(rate, exact.velocity(t, x_t)), (x1, exact.ends(t, x_t)[1])]
    known += [] if "mirror" in name else [(x0, exact.ends(t, x_t)[0])]
    known += [(xi, exact.denoiser(t, x_t))]
    for y, mean in known:
        assert_vanishes(((y - mean)[:, None] * tests).flatten(1))
    assert (x1 - exact.ends(t, x_t)[1]).var() < 0.95 * x1.var()


@ready
def test_density_is_that_of_the_paths(name):
    """E[q / p_t] = 1 for any density q under the law p_t, here for one q narrower than p_t at each of nine places."""
    exact, n = oracle(name), 20_000
    for t in (0.25, 0.6):
        x_t = path(name, n, t)[3]
        width = 0.4 * torch.linalg.eigvalsh(exact._covariance(*_squares(name, t), x_t)).min()
        centres = exact.sample(t, 9, rng(4)).double()
        distance = (x_t[:, None] - centres).square().sum(2)
        log_q = -distance / (2 * width) - (2 * math.pi * width).log()
        assert_vanishes((log_q - exact.log_prob(t, x_t)[:, None]).exp() - 1)


def _squares(name, t):
    c = interpolants[name].coefficients(torch.tensor([[t]], dtype=torch.float64))
    return c.alpha**2, c.beta**2, c.gamma2


@ready
def test_moments_and_samples_are_those_of_the_paths(name):
    n = 20_000
    for t in (0.25, 0.6):
        x_t, own = path(name, n, t)[3], oracle(name).sample(t, n, rng(5)).double()
        features = [
            torch.cat([x, x.square(), x[:, :1] * x[:, 1:], (2 * x).sin(), x.sum(1, True).cos()], 1)
            for x in (x_t, own)
        ]
        assert_vanishes(features[0] - features[1])
        c = interpolants[name].coefficients(torch.tensor([t], dtype=torch.float64))
        m0, m1 = (rho.weights @ rho.means for rho in (rho0, rho1))
        assert_vanishes(own - c.alpha * m0 - c.beta * m1)
        second = [_second(rho) for rho in (rho0, rho1)]
        spread = c.alpha**2 * second[0] + c.beta**2 * second[1] + c.gamma2 * torch.eye(2)
        centred = own - c.alpha * m0 - c.beta * m1
        assert_vanishes((centred[:, :, None] * centred[:, None] - spread).flatten(1))


def _second(rho):
    """The covariance of a mixture."""
    centred = rho.means - rho.weights @ rho.means
    outer = centred[:, :, None] * centred[:, None]
    return (rho.weights[:, None, None] * (rho.covariances + outer)).sum(0)


@ready
def test_the_ends_are_the_laws_that_were_given(name):
    exact, x = oracle(name), draw()
    first = rho1 if "mirror" in name else rho0
    if "constant" in name:
        first, last = (
            GaussianMixture(rho.weights, rho.means, rho.covariances + 0.4**2 * torch.eye(2).double())
            for rho in (first, rho1)
        )
    else:
        last = rho1
    assert_close(exact.log_prob(0.0, x), first.log_prob(x))
    assert_close(exact.log_prob(1.0, x), last.log_prob(x))


@ready
def test_score_is_the_gradient_of_the_density(name):
    exact, x = oracle(name), draw()
    for t in (0.0, 0.3, 0.5, 1.0):
        assert_close(exact.score(t, x), grad(lambda x: exact.log_prob(t, x).sum())(x), 1e-11)
        gamma = interpolants[name].coefficients(torch.tensor(t, dtype=torch.float64)).gamma2.sqrt()
        assert_close(exact.denoiser(t, x), -gamma * exact.score(t, x))


@ready
def test_density_and_velocity_obey_the_continuity_equation(name):
    r"""∂_t log p + ∇·b + b·s = 0, at both ends too, where γ' may be infinite."""
    exact, x = oracle(name), draw()
    for t in finite(name):
        log_rate = jvp(lambda t: exact.log_prob(t, x), (t,), (torch.ones_like(t),))[1]
        jacobian = vmap(jacrev(lambda y: exact.velocity(t, y[None])[0]))(x)
        divergence = jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)
        transport = (exact.velocity(t, x) * exact.score(t, x)).sum(1)
        assert_close(log_rate + divergence + transport, torch.zeros(len(x)).double(), 1e-10)


@ready
def test_means_add_up_to_the_point_and_its_velocity(name):
    exact, x = oracle(name), draw()
    for t in finite(name)[1:-1]:
        c = interpolants[name].coefficients(t)
        (x0, x1), eta = exact.ends(t, x), exact.denoiser(t, x)
        assert_close(c.alpha * x0 + c.beta * x1 + c.gamma2.sqrt() * eta, x)
        b = c.alpha_rate * x0 + c.beta_rate * x1 - c.gamma2_rate / 2 * exact.score(t, x)
        assert_close(exact.velocity(t, x), b)


@ready
def test_derivatives_in_time_are_those_of_differences(name):
    exact, x, h = oracle(name), draw(), 1e-5
    for call in (exact.velocity, exact.score, exact.log_prob):
        for t in torch.tensor([0.3, 0.47, 0.8], dtype=torch.float64):
            rate = jvp(lambda t: call(t, x), (t,), (torch.ones_like(t),))[1]
            assert_close(rate, (call(t + h, x) - call(t - h, x)) / (2 * h), 1e-6)


def test_every_order_of_differentiation_is_right():
    """Reverse over forward mode is where torch has been wrong."""
    exact = oracle("linear, bridge")
    t, x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True), draw(2).requires_grad_()

    def forward(t, x):
        return jvp(exact.velocity, (t, x), (torch.ones_like(t), torch.ones_like(x)))[1]

    assert torch.autograd.gradcheck(exact.velocity, (t, x))
    assert torch.autograd.gradcheck(forward, (t, x))
    assert torch.autograd.gradgradcheck(exact.log_prob, (t, x))


def test_times_and_dtypes_of_all_kinds_agree():
    exact, x = oracle("trigonometric, sigmoid"), draw()
    for call in (exact.velocity, exact.score, exact.denoiser, exact.log_prob):
        value = call(0.3, x)
        assert_close(call(torch.tensor(0.3, dtype=torch.float64), x), value, 0)
        assert_close(call(torch.full((5,), 0.3, dtype=torch.float64), x), value)
        times = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
        assert_close(call(times, x), torch.cat([call(t, row[None]) for t, row in zip(times, x)]))
        single = call(0.3, x.float())
        assert single.dtype == torch.float32
        assert_close(single.double(), value, 1e-5)
    assert exact.sample(0.3, 7).shape == (7, 2) and exact.sample(0.3, 7).dtype == torch.float32


def test_samples_have_the_default_dtype_and_no_gradient():
    exact = oracle("linear, bridge")
    assert torch.equal(exact.sample(0.3, 7, rng()), exact.sample(0.3, 7, generator=rng()))
    assert not exact.sample(torch.tensor(0.3, requires_grad=True), 7).requires_grad
    old = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert exact.sample(0.3, 7).dtype == torch.float64
    finally:
        torch.set_default_dtype(old)


def test_an_oracle_refuses_ends_of_two_dimensions():
    with pytest.raises(ValueError, match="Expected rho0"):
        Oracle(Linear(), StandardNormal(3), rho1)


def test_a_standard_normal_is_a_mixture():
    unit = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
    x = draw()
    assert_close(
        Oracle(Linear(), StandardNormal(2), rho1).velocity(0.4, x),
        Oracle(Linear(), unit, rho1).velocity(0.4, x),
    )


@pytest.mark.parametrize("gamma", [None, Bridge()], ids=["no noise", "bridge"])
def test_the_velocity_carries_one_law_to_the_other(gamma):
    exact = Oracle(Linear(gamma), StandardNormal(2), rho1)
    solver = Adaptive(dopri8, rtol=1e-7, atol=1e-7)
    flow = Flow(CNF(exact.velocity, solver=solver), StandardNormal(2))
    assert_close(flow.log_prob(draw()), rho1.log_prob(draw()), 1e-6)
    assert_close(sample_ode(exact.velocity, draw(), solver), flow.bijection.decode(draw()), 0)


def test_the_density_goes_where_a_log_density_is_asked_for():
    closed = Oracle(Linear(Bridge()), rho0, rho1)
    assert_close(closed.log_prob(0.3, draw(), None), closed.log_prob(0.3, draw()), 0)
    assert_close(continuity_residual(closed.velocity, closed.log_prob, 0.3, draw()), torch.zeros(5).double())
