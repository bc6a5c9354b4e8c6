"""Learned paths between Gaussians, whose energy and distance to optimal transport are known in closed form."""

import copy
import math

import pytest
import torch
from registry import rng, seeded

from cnflib import DiagonalNormal, Flow
from cnflib.continuous import CNF
from cnflib.interpolants import (
    Bridge,
    FourierSchedule,
    Interpolant,
    LearnableInterpolant,
    Linear,
    Trigonometric,
    gaussian_cost,
    path_energy,
    transport_gap,
    velocity_objective,
)
from cnflib.nets import MLP
from cnflib.ode import Fixed

S0, S1, N = 1.5, 0.4, 400
grid = (torch.arange(N, dtype=torch.float64) + 0.5) / N
starts = {
    "linear": Linear(),
    "trigonometric": Trigonometric(),
    "of a user, with noise": Interpolant(lambda t: 1 - t**2, lambda t: t**2, Bridge()),
}
every = pytest.mark.parametrize("start", starts.values(), ids=starts)


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def perturbed(start, order=3, scale=0.2):
    path = LearnableInterpolant(order, start).double()
    with torch.no_grad():
        for i, p in enumerate(path.parameters()):
            p += scale * torch.randn(p.shape, generator=rng(i), dtype=torch.float64)
    return path


def energy(interpolant, scales0=(S0,), scales1=(S1,), means=(0.0,)):
    """∫ E|b|² dt = ∫ Σ (β' m)² + v'² / 4v dt between N(0, diag s0²) and N(m, diag s1²), drawn independently."""
    c = interpolant.coefficients(grid)
    total = 0.0
    for s0, s1, m in zip(scales0, scales1, means):
        v = c.alpha**2 * s0**2 + c.beta**2 * s1**2
        rate = 2 * (c.alpha * c.alpha_rate * s0**2 + c.beta * c.beta_rate * s1**2)
        total = total + (c.beta_rate**2 * m**2 + rate**2 / (4 * v)).mean()
    return total


def shortest(order, start, *ends):
    """The path of least energy of its family, by quasi-Newton on the closed form."""
    path = LearnableInterpolant(order, start).double()
    optimizer = torch.optim.LBFGS(path.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = energy(path.interpolant, *ends)
        value.backward()
        return value

    optimizer.step(closure)
    return energy(path.interpolant, *ends).item()


@every
def test_a_path_begins_as_its_start(start):
    path = LearnableInterpolant(4, start).double().interpolant
    for name, value in path.coefficients(grid)._asdict().items():
        assert_close(value, getattr(start.coefficients(grid), name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every
def test_the_ends_are_exact_whatever_the_coefficients(start, dtype):
    path = perturbed(start, order=7, scale=3.0).to(dtype)
    t = torch.tensor([0.0, 1.0], dtype=dtype)
    for schedule, begun in ((path.alpha, start.alpha), (path.beta, start.beta)):
        assert torch.equal(schedule(t), begun(t))


@every
def test_a_schedule_is_its_series_and_the_rate_its_derivative(start):
    path = perturbed(start)
    m = torch.arange(1, 4, dtype=torch.float64)
    for schedule, begun in ((path.alpha, start.alpha), (path.beta, start.beta)):
        series = (torch.sin(math.pi * m * grid[:, None]) * schedule.coefficients).sum(1)
        assert_close(schedule(grid), begun(grid) + series)
        rate = torch.func.jvp(schedule, (grid,), (torch.ones_like(grid),))[1]
        assert_close(schedule.rate(grid), rate)
        assert_close(schedule(grid.reshape(20, 20)), schedule(grid).reshape(20, 20))


@every
def test_the_gradient_of_the_objective_agrees_with_differences(start):
    path, net, h = perturbed(start), MLP(2, hidden=(8,)).double(), 1e-6
    x0, x1, xi = torch.randn(3, 16, 2, generator=rng(5), dtype=torch.float64)
    t = torch.rand(16, generator=rng(6), dtype=torch.float64)
    value = lambda: velocity_objective(net, path.interpolant, x0, x1, t, xi).mean()
    found = torch.autograd.grad(value(), list(path.parameters()))
    for p, gradient in zip(path.parameters(), found):
        assert gradient.all()
        for i in range(len(p)):
            step = torch.zeros_like(p).index_fill_(0, torch.tensor(i), h)
            with torch.no_grad():
                up = (p.add_(step), value())[1]
                down = (p.sub_(2 * step), value())[1]
                p.add_(step)
            assert_close(gradient[i], (up - down) / (2 * h), 1e-6)


def test_at_the_velocity_the_gradient_is_that_of_minus_the_energy():
    """The envelope theorem: what maximises the minimum over fields shortens the path; for the base as well."""
    path, base, m = perturbed(Linear(), 2), DiagonalNormal(1).double(), 0.7
    with torch.no_grad():
        base.mean += 0.3
        base.log_scale += 0.2
    parameters = [*path.parameters(), *base.parameters()]

    def moments(t):
        c, s = path.interpolant.coefficients(t), base.log_scale.exp()
        v = c.alpha**2 * s**2 + c.beta**2 * S1**2
        rate = 2 * (c.alpha * c.alpha_rate * s**2 + c.beta * c.beta_rate * S1**2)
        return (
            c.alpha_rate * base.mean + c.beta_rate * m,
            c.alpha * base.mean + c.beta * m,
            rate / (2 * v),
            v,
        )

    drift, _, k, v = moments(grid)
    wanted = torch.autograd.grad(-(drift**2 + k**2 * v).mean(), parameters)

    def b(t, x):
        with torch.no_grad():
            drift, mean, k, _ = (part[:, None] for part in moments(t))
        return drift + k * (x - mean)

    found, generator = [], rng(8)
    for _ in range(40):
        x1 = m + S1 * torch.randn(2000, 1, generator=generator, dtype=torch.float64)
        x0 = base.rsample(2000, generator=generator)
        loss = velocity_objective(b, path.interpolant, x0, x1, generator=generator)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), parameters)]))
    found, wanted = torch.stack(found), torch.cat([g.flatten() for g in wanted])
    assert ((found.mean(0) - wanted).abs() < 4 * found.std(0) / 40**0.5).all()
    assert (wanted.abs() > 8 * found.std(0) / 40**0.5).any()


def test_energies_of_the_ready_paths_are_their_closed_forms():
    """E|ẋ|² less the conditional variance of the rate."""
    assert_close(energy(Linear()), torch.tensor(S0**2 + S1**2 - math.pi * S0 * S1 / 2).double(), 1e-4)
    arc = math.pi**2 / 8 * (S0**2 + S1**2) - math.pi**2 / 4 * S0 * S1
    assert_close(energy(Trigonometric()), torch.tensor(arc).double(), 1e-4)


def test_path_energy_is_the_mean_square_of_the_field():
    path, n = Linear(), 40_000
    x0, x1 = (s * torch.randn(n, 1, generator=rng(i), dtype=torch.float64) for i, s in enumerate((S0, S1)))

    def b(t, x):
        v = (1 - t) ** 2 * S0**2 + t**2 * S1**2
        return ((t * S1**2 - (1 - t) * S0**2) / v)[:, None] * x

    gap = transport_gap(path_energy(b, path, x0, x1, generator=rng(4)), (S0 - S1) ** 2)
    assert abs(gap.energy - energy(path).item()) < 4 * gap.error < 0.1
    assert gap.gap == gap.energy - gap.cost and gap.normalised == gap.gap / gap.cost
    assert f"{gap.gap:.4f}" in str(gap)
    images = (x.reshape(-1, 2, 2, 1) for x in (x0[:40], x1[:40]))
    assert_close(
        path_energy(lambda t, x, c: x, path, *images, torch.zeros(10)), x0[:40].reshape(10, 4).square().sum(1)
    )


@pytest.mark.parametrize("start", [Linear(), Trigonometric()], ids=["linear", "trigonometric"])
def test_between_centred_gaussians_the_shortest_path_is_optimal_transport(start):
    cost = (S0 - S1) ** 2
    found = [shortest(order, start) for order in (1, 4)]
    assert energy(start) > 1.15 * cost
    assert cost - 1e-9 < found[1] < found[0] < 1.02 * cost and found[1] < 1.0001 * cost


def test_scalar_schedules_do_not_reach_optimal_transport_in_general():
    """Two scales and a mean want three functions of time: more coefficients do not close the gap."""
    ends = (1.0, 1.0), (3.0, 0.3), (1.0, -1.0)
    cost = gaussian_cost(
        torch.zeros(2), torch.eye(2), torch.tensor([1.0, -1.0]), torch.diag(torch.tensor([9, 0.09]))
    )
    assert_close(cost, torch.tensor(4 + 0.49 + 2), 1e-6)
    found = [shortest(order, Linear(), *ends) for order in (1, 4, 8)]
    assert energy(Linear(), *ends) > 1.1 * found[0] and found[0] > found[1] > found[2] > 1.04 * cost


def test_a_path_learned_beside_its_field_gets_shorter():
    generator, path = rng(0), LearnableInterpolant(2)
    with seeded(0):
        field = MLP(1, hidden=(32,))
    optimizer = torch.optim.Adam(
        [
            {"params": field.parameters(), "lr": 1e-2},
            {"params": path.parameters(), "lr": 3e-3, "maximize": True},
        ]
    )
    before = energy(path.interpolant).item()
    for _ in range(500):
        x0, x1 = torch.randn(2, 512, 1, generator=generator) * torch.tensor([S0, S1]).reshape(2, 1, 1)
        loss = velocity_objective(field, path.interpolant, x0, x1, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after, cost = energy(path.interpolant).item(), (S0 - S1) ** 2
    assert cost < after < cost + 0.6 * (before - cost)


@every
def test_a_learned_path_is_copied_and_restored(start):
    path = perturbed(start)
    twin, fresh = copy.deepcopy(path), LearnableInterpolant(3, start).double()
    fresh.load_state_dict(path.state_dict())
    assert len(path.state_dict()) == 2
    for other in (twin, fresh):
        assert torch.equal(
            other.interpolant.coefficients(grid).beta, path.interpolant.coefficients(grid).beta
        )
    with torch.no_grad():
        twin.beta.coefficients.zero_()
    assert_close(twin.interpolant.coefficients(grid).beta, start.beta(grid))
    assert not torch.equal(twin.interpolant.coefficients(grid).beta, path.interpolant.coefficients(grid).beta)


def test_a_single_schedule_compiles_whole():
    schedule = FourierSchedule(torch.sin, 3)
    with torch.no_grad():
        schedule.coefficients += 0.3
    path = Interpolant(lambda t: 1 - t, schedule)
    x = torch.ones(3, 2)
    call = lambda x: velocity_objective(lambda t, x, c: x, path, x, x, torch.full((3,), 0.3)).sum()
    assert_close(torch.compile(call, fullgraph=True, backend="eager")(x), call(x), 1e-6)


def test_a_learned_base_is_a_density_and_serves_a_flow():
    base = DiagonalNormal((2, 1))
    with torch.no_grad():
        base.mean += torch.tensor([[0.5], [-1.0]])
        base.log_scale += torch.tensor([[0.3], [-0.7]])
    x = base.sample(20_000, generator=rng())
    normal = torch.distributions.Normal(base.mean, base.log_scale.exp())
    assert_close(base.log_prob(x[:5]), normal.log_prob(x[:5]).sum((1, 2)), 1e-5)
    assert ((x.mean(0) - base.mean).abs() < 4 * base.log_scale.exp() / 20_000**0.5).all()
    assert ((x.std(0) / base.log_scale.exp() - 1).abs() < 4 / 40_000**0.5).all()
    flow = Flow(CNF(lambda t, x: x, solver=Fixed(20)), base)
    sample, log_prob = flow.rsample_and_log_prob(4, generator=rng(1))
    assert_close(flow.log_prob(sample), log_prob, 1e-4)
    gradients = torch.autograd.grad(flow.log_prob(sample.detach()).sum(), list(base.parameters()))
    assert all(g.all() for g in gradients)


def test_a_learned_base_is_standard_normal_at_the_start_and_draws_from_the_generator_in_its_dtype():
    base, z = DiagonalNormal((2, 1)).double(), torch.randn(5, 2, 1, generator=rng(3), dtype=torch.float64)
    assert torch.equal(base.sample(5, generator=rng(3)), z)
    with torch.no_grad():
        base.mean += 0.5
        base.log_scale -= 0.7
    assert_close(base.sample(5, generator=rng(3)), 0.5 + math.exp(-0.7) * z)


def test_a_gap_has_the_error_of_a_mean_and_its_size_may_lie_below_the_cost():
    gap = transport_gap(torch.tensor([1.0, 3.0, 5.0]), 4.0)
    assert gap.error == pytest.approx(2 / 3**0.5)
    assert gap.gap == -1 and gap.normalised == 0.25


def test_a_gap_that_no_flow_has_is_pointed_out():
    assert "misses its ends" in str(transport_gap(torch.tensor([0.9, 1.0, 1.1]), 4.0))
    assert "misses its ends" not in str(transport_gap(torch.tensor([1.0, 4.0, 6.0]), 4.0))
    assert transport_gap(torch.ones(3), 0.0).normalised == math.inf


def test_the_cost_of_a_learned_base_has_a_gradient():
    """Also at equal eigenvalues, where it begins: the gradient of |m|² + Σ (σ_i - s_i)²."""
    base, s = DiagonalNormal(3), torch.tensor([1.0, 2.0, 3.0])
    covariance = torch.diag((2 * base.log_scale).exp())
    gaussian_cost(base.mean, covariance, torch.ones(3), torch.diag(s**2)).backward()
    torch.testing.assert_close(base.log_scale.grad, 2 * (1 - s))
    torch.testing.assert_close(base.mean.grad, -2 * torch.ones(3))


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_the_cost_between_gaussians_on_lines_is_that_of_the_angle(dim):
    """Covariances u uᵀ and v vᵀ, of which rounding makes eigenvalues below 0: |u|² + |v|² - 2 |u·v|."""
    zero = torch.zeros(dim, dtype=torch.float64)
    for seed in range(8):
        u, v = torch.randn(2, dim, generator=rng(seed), dtype=torch.float64)
        found = gaussian_cost(zero, u.outer(u), zero, v.outer(v))
        assert_close(found, u.dot(u) + v.dot(v) - 2 * u.dot(v).abs(), 1e-6)


def test_the_cost_between_gaussians_is_that_of_bures():
    A, B = torch.randn(2, 3, 3, generator=rng(1), dtype=torch.float64)
    A, B = A @ A.T, B @ B.T
    m, n = torch.randn(2, 3, generator=rng(2), dtype=torch.float64)
    root = lambda C: (lambda e, V: V @ e.sqrt().diag() @ V.T)(*torch.linalg.eigh(C))
    R = root(A)
    wanted = (m - n).square().sum() + (A + B - 2 * root(R @ B @ R)).trace()
    assert_close(gaussian_cost(m, A, n, B), wanted, 1e-8)
    assert_close(gaussian_cost(n, B, m, A), wanted, 1e-8)
    assert_close(gaussian_cost(m, A, m, A), torch.zeros(()).double(), 1e-7)
    point = torch.zeros(3, 3, dtype=torch.float64)
    assert_close(gaussian_cost(m, A, n, point), (m - n).square().sum() + A.trace())
