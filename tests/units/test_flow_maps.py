"""Flow maps and their losses, between Gaussians, where the map is known in closed form."""

import pytest
import torch
from registry import rng
from torch import nn
from torch.func import jvp

from cnflib.continuous import CNF
from cnflib.interpolants import (
    AverageVelocity,
    Bridge,
    FlowMap,
    Linear,
    Trigonometric,
    consistency_loss,
    eulerian_loss,
    lagrangian_loss,
    map_residuals,
    mean_flow_loss,
    sample_map,
    sample_ode,
    semigroup_loss,
    time_pairs,
    velocity_loss,
)
from cnflib.nets import MLP, UNet
from cnflib.ode import Fixed

M, S0, S1, D = 1.3, 1.5, 0.4, 2
paths = {"linear": Linear(), "linear, bridge": Linear(Bridge(0.8)), "trigonometric": Trigonometric()}
every = pytest.mark.parametrize("path", paths.values(), ids=paths)
losses = {
    "lagrangian": lagrangian_loss,
    "eulerian": eulerian_loss,
    "mean flow": mean_flow_loss,
    "semigroup": semigroup_loss,
    "consistency": consistency_loss,
}
distilling = {name: losses[name] for name in ("lagrangian", "eulerian", "consistency")}


def moments(path, t):
    """Mean and variance of x_t between N(0, S0²) and N(M, S1²)."""
    noise = 0 if path.gamma2 is None else path.gamma2(t)
    return M * path.beta(t), path.alpha(t) ** 2 * S0**2 + path.beta(t) ** 2 * S1**2 + noise


def velocity(path):
    """b(t, x) = ṁ + V̇ / 2V (x - m)."""

    def b(t, x, context=None):
        (m, V), (m_rate, V_rate) = jvp(lambda t: moments(path, t), (t,), (torch.ones_like(t),))
        column = lambda a: a.reshape(-1, 1)
        return column(m_rate) + column(V_rate / (2 * V)) * (x - column(m))

    return b


def exact(path):
    """The map X_{s,t}(x) = m_t + sqrt(V_t / V_s) (x - m_s), by its average velocity."""

    def average(s, t, x):
        (m_s, V_s), (m_t, V_t) = moments(path, s), moments(path, t)
        column = lambda a: a[:, None]
        apart = torch.where(t == s, 1, t - s)
        moved = column(m_t) + column((V_t / V_s).sqrt()) * (x - column(m_s)) - x
        return torch.where(column(t == s), velocity(path)(s, x), moved / column(apart))

    return FlowMap(average)


class Bent(nn.Module):
    """The exact average velocity, bent in three directions by numbers of each row's own, 0 for the exact one."""

    def __init__(self, path, rows, bend=0.0):
        super().__init__()
        self.map = exact(path)
        self.bend = nn.Parameter(torch.full((rows, 3, 1), bend, dtype=torch.float64))

    def forward(self, s, t, x):
        directions = [x, torch.ones_like(x) * s[:, None], torch.sin(2 * x) * (1 + t)[:, None]]
        return self.map.average(s, t, x) + (self.bend * torch.stack(directions, 1)).sum(1)


def ends(n=5, seed=1):
    x0, x1 = torch.randn(2, n, D, generator=rng(seed), dtype=torch.float64)
    return S0 * x0, M + S1 * x1


def pairs(n, seed=3):
    return time_pairs(n, torch.zeros(0, dtype=torch.float64), rng(seed))


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def assert_mean(rows, value=0.0, errors=4):
    bound = errors * rows.std(0) / len(rows) ** 0.5
    assert ((rows.mean(0) - value).abs() <= bound).all(), (rows.mean(0), value, bound)


def gradients(loss, path, times, **options):
    """The gradient of each row's loss in the three bends, at the exact map: shape (B, 3)."""
    n = len(times[0])
    bent = Bent(path, n)
    value = loss(FlowMap(bent), path, *ends(n), times, generator=rng(4), **options)
    return torch.autograd.grad(value.sum(), bent.bend)[0][..., 0]


@every
def test_the_exact_map_has_no_residuals_and_a_bent_one_has_all(path):
    (s, t), x = pairs(6), ends(6)[0]
    for residual in map_residuals(exact(path), velocity(path), s, t, x):
        assert_close(residual, torch.zeros_like(x))
    for residual in map_residuals(FlowMap(Bent(path, 6, 0.1)), velocity(path), s, t, x):
        assert residual.square().mean() > 1e-6


def test_a_map_of_another_field_composes_and_misses_the_field_alone():
    x, (s, t) = ends(6)[0], pairs(6)
    rest = map_residuals(exact(Trigonometric()), velocity(Linear()), s, t, x)
    assert (rest.lagrangian.abs() > 1e-4).all() and (rest.eulerian.abs() > 1e-4).all()
    assert_close(rest.semigroup, torch.zeros_like(x))


def test_residuals_are_those_of_difference_quotients():
    path, h = Linear(), 1e-5
    (s, t), x, bent = pairs(6), ends(6)[0], FlowMap(Bent(Linear(), 6, 0.3))
    rest, v = map_residuals(bent, velocity(path), s, t, x), velocity(path)
    with torch.no_grad():
        by_t = (bent(s, t + h, x) - bent(s, t - h, x)) / (2 * h)
        along = (bent(s + h, t, x + h * v(s, x)) - bent(s - h, t, x - h * v(s, x))) / (2 * h)
        assert_close(rest.lagrangian, by_t - v(t, bent(s, t, x)), 1e-7)
        assert_close(rest.eulerian, along, 1e-7)


@every
@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("name", ["lagrangian", "eulerian", "semigroup"])
def test_a_loss_is_zero_at_the_exact_map_and_so_is_its_gradient(path, name, taught):
    options = {"teacher": velocity(path)} if taught and name in distilling else {}
    times = pairs(8)
    value = losses[name](exact(path), path, *ends(8), times, generator=rng(4), **options)
    assert value.shape == (8,)
    assert_close(value, torch.zeros(8, dtype=torch.float64))
    assert gradients(losses[name], path, times, **options).abs().max() < 1e-9


@every
@pytest.mark.parametrize("name", losses)
def test_a_loss_of_a_bent_map_is_positive(path, name):
    bent = FlowMap(Bent(path, 8, 0.1))
    assert (losses[name](bent, path, *ends(8), pairs(8), generator=rng(4)) > 0).all()
    for residual in map_residuals(bent, bent.velocity, *pairs(8), ends(8)[0]):
        assert residual.abs().min() > 1e-7


@pytest.mark.parametrize("taught", [False, True])
def test_losses_are_the_squares_of_the_residuals(taught):
    path, (s, t) = Linear(), pairs(8)
    x0, x1 = ends(8)
    bent = FlowMap(Bent(path, 8, 0.2))
    teacher = velocity(path) if taught else None
    x, square = path(s, x0, x1), lambda r: r.square().sum(1)
    rest = map_residuals(bent, teacher or bent.velocity, s, t, x)
    assert_close(lagrangian_loss(bent, path, x0, x1, (s, t), teacher=teacher), square(rest.lagrangian))
    assert_close(eulerian_loss(bent, path, x0, x1, (s, t), teacher=teacher), square(rest.eulerian))
    assert_close(semigroup_loss(bent, path, x0, x1, (s, t)), square(rest.semigroup) / (t - s) ** 2)


@every
def test_the_mean_gradient_of_mean_flow_vanishes_at_the_exact_map(path):
    assert_mean(gradients(mean_flow_loss, path, pairs(20_000)))


@every
def test_mean_flow_has_at_the_exact_map_the_variance_that_the_map_carries_on(path):
    """E|∇X (ẋ - b)|² at fixed times, where ∇X = sqrt(V_t / V_s) and ẋ is Gaussian given x."""
    n, s, t = 40_000, *torch.tensor([0.3, 0.8], dtype=torch.float64)
    c = path.coefficients(s)
    V_s, V_t = moments(path, s)[1], moments(path, t)[1]
    rate2 = c.alpha_rate**2 * S0**2 + c.beta_rate**2 * S1**2
    rate2 = rate2 + (c.gamma2_rate**2 / (4 * c.gamma2) if path.gamma2 else 0)
    both = c.alpha * c.alpha_rate * S0**2 + c.beta * c.beta_rate * S1**2 + c.gamma2_rate / 2
    times = s.expand(n), t.expand(n)
    floor = D * V_t / V_s * (rate2 - both**2 / V_s)
    assert_mean(mean_flow_loss(exact(path), path, *ends(n), times, generator=rng(4)), floor)


def test_mean_flow_on_the_diagonal_is_the_loss_of_a_velocity():
    path, t = Linear(), torch.rand(8, generator=rng(2), dtype=torch.float64)
    bent = FlowMap(Bent(path, 8, 0.2))
    args = bent, path, *ends(8)
    assert_close(mean_flow_loss(*args, (t, t)), velocity_loss(bent.velocity, *args[1:], t))


@every
def test_consistency_of_near_neighbours_is_mean_flow_to_the_end(path):
    s = torch.linspace(0.1, 0.9, 20_000, dtype=torch.float64)
    near = gradients(consistency_loss, path, (s, s + 1e-6))
    assert_close(near, (1 - s)[:, None] * gradients(mean_flow_loss, path, (s, torch.ones_like(s))), 1e-4)
    assert_mean(gradients(consistency_loss, path, (s, s + 1e-3)))


def test_consistency_with_a_teacher_errs_by_its_euler_step():
    """The distance of two ends is of the order of the squared step, so the loss of its third power."""
    path, s = Linear(), torch.full((8,), 0.4, dtype=torch.float64)
    loss = lambda h: consistency_loss(exact(path), path, *ends(8), (s, s + h), teacher=velocity(path)).mean()
    assert (loss(0.02) / loss(0.01)).log2().item() == pytest.approx(3, abs=0.1)
    assert gradients(consistency_loss, path, (s, s + 1e-4), teacher=velocity(path)).abs().max() < 1e-3


@pytest.mark.parametrize("name", distilling)
def test_a_teacher_gets_no_gradient(name):
    teacher = MLP(D, (8,)).double()
    losses[name](FlowMap(Bent(Linear(), 8, 0.2)), Linear(), *ends(8), teacher=teacher).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_no_gradient_flows_through_a_target():
    """It is twice the error times the derivative of what is moved: an average velocity, or the map to t = 1."""
    path, (x0, x1), (s, t) = Linear(), ends(8), pairs(8)
    bent, x = Bent(path, 8, 0.2), path(s, x0, x1)
    flow_map = FlowMap(bent)
    slopes = lambda t: torch.stack(
        [x, torch.ones_like(x) * s[:, None], torch.sin(2 * x) * (1 + t)[:, None]], 1
    )
    grad = lambda value: torch.autograd.grad(value.sum(), bent.bend)[0][..., 0]
    moved = lambda error, slope: 2 * (error[:, None] * slope).sum(2)
    rest = map_residuals(flow_map, flow_map.velocity, s, t, x)
    assert_close(grad(eulerian_loss(flow_map, path, x0, x1, (s, t))), moved(-rest.eulerian, slopes(t)))
    halves = -rest.semigroup / (t - s)[:, None]
    assert_close(grad(semigroup_loss(flow_map, path, x0, x1, (s, t))), moved(halves, slopes(t)))
    apart = flow_map(s, 1.0, x) - flow_map(t, 1.0, path(t, x0, x1))
    to_end = slopes(torch.ones_like(t)) * ((1 - s) / (t - s))[:, None, None]
    assert_close(grad(consistency_loss(flow_map, path, x0, x1, (s, t))), moved(apart, to_end))


@pytest.mark.parametrize("name", ["lagrangian", "eulerian"])
def test_a_map_that_teaches_itself_leaves_its_diagonal_alone(name):
    """As if the teacher were a copy of it: only a loss of the velocity moves what the map takes for its field."""
    path, times = Linear(), pairs(8)
    grads = []
    for copy in (False, True):
        bent = Bent(path, 8, 0.2)
        options = {"teacher": FlowMap(Bent(path, 8, 0.2)).velocity} if copy else {}
        value = losses[name](FlowMap(bent), path, *ends(8), times, **options)
        grads.append(torch.autograd.grad(value.sum(), bent.bend)[0])
    assert_close(*grads)
    assert grads[0].abs().min() > 1e-8


@pytest.mark.parametrize("name", losses)
def test_gradient_reaches_every_parameter(name):
    net = MLP(D, (8, 8), context=1 + 3, time_frequencies=1).double()
    context = torch.randn(16, 3, generator=rng(5), dtype=torch.float64)
    flow_map = FlowMap(AverageVelocity(net))
    losses[name](flow_map, Linear(), *ends(16), context=context, generator=rng(6)).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("name", losses)
def test_a_context_reaches_map_and_teacher_untouched(name):
    labels, seen = torch.arange(8), []

    def average(s, t, x, context):
        seen.append(context)
        return x + s[:, None]

    def teacher(t, x, context):
        seen.append(context)
        return -x

    options = {"teacher": teacher} if name in distilling else {}
    losses[name](FlowMap(average), Linear(), *ends(8), context=labels, generator=rng(), **options)
    assert len(seen) >= 1 and all(context is labels for context in seen)


def test_losses_draw_from_their_generator_alone():
    for loss in losses.values():
        args = exact(Linear(Bridge())), Linear(Bridge()), *ends(8)
        assert torch.equal(loss(*args, generator=rng(1)), loss(*args, generator=rng(1)))
        assert not torch.equal(loss(*args, generator=rng(1)), loss(*args, generator=rng(2)))


def test_times_are_in_order_uniform_on_the_triangle_and_some_are_equal():
    s, t = time_pairs(40_000, torch.zeros(0, dtype=torch.float64), rng(), diagonal=0.25)
    same = s == t
    assert s.dtype == torch.float64 and (s <= t).all() and (0 < s).all() and (t < 1).all()
    assert_mean(same.double(), 0.25)
    assert_mean(s[~same], 1 / 3)
    assert_mean(t[~same], 2 / 3)
    assert_mean((s * t)[~same], 1 / 4)
    with pytest.raises(ValueError, match="diagonal"):
        time_pairs(3, diagonal=2.0)


@every
def test_steps_of_the_exact_map_compose(path):
    x0 = ends(5)[0]
    (m0, V0), (m1, V1) = (moments(path, torch.tensor(t, dtype=torch.float64)) for t in (0.0, 1.0))
    x1 = m1 + (V1 / V0).sqrt() * (x0 - m0)
    for times in (1, 2, 7, [0.0, 0.1, 0.95, 1.0], torch.linspace(0, 1, 4)):
        assert_close(sample_map(exact(path), x0, times), x1, 1e-6 if torch.is_tensor(times) else 1e-9)
    if path.gamma2 is None:
        assert_close(sample_ode(velocity(path), x0, Fixed(120)), x1, 1e-7)
    assert_close(sample_map(exact(path), x1, [1.0, 0.5, 0.0]), x0)  # and back


def test_a_map_is_called_once_for_each_step_with_the_context_of_each_row():
    seen = []

    def average(s, t, x, context):
        seen.append((s[0].item(), t[0].item(), context.shape))
        return context

    x = sample_map(
        FlowMap(average), torch.zeros(3, 2), [0.0, 0.25, 1.0], torch.ones(1, 2, requires_grad=True)
    )
    assert seen == [(0.0, 0.25, (3, 2)), (0.25, 1.0, (3, 2))]
    assert_close(x, torch.ones(3, 2))
    assert not x.requires_grad


def test_the_diagonal_of_a_map_is_a_field_for_all_that_takes_one():
    flow_map, x = exact(Linear()), ends(5)[0]
    assert_close(flow_map(0.3, 0.3, x), x)
    t = torch.full((5,), 0.3, dtype=torch.float64)
    assert_close(flow_map.velocity(0.3, x), velocity(Linear())(t, x))
    assert_close(CNF(flow_map.velocity, solver=Fixed(120)).decode(x), sample_map(flow_map, x), 1e-8)


def test_images_are_carried_as_points_are():
    average = lambda s, t, x: torch.ones_like(x) * (s + t)[:, None, None, None]
    x = torch.zeros(3, 1, 2, 2)
    assert_close(
        FlowMap(average)(0.5, torch.tensor([0.5, 1.0, 0.0]), x)[:, 0, 0, 0], torch.tensor([0, 0.75, -0.25])
    )
    for loss in losses.values():
        assert loss(FlowMap(average), Linear(), x, x + 1, generator=rng()).shape == (3,)


def test_a_net_of_images_makes_a_map_that_is_differentiated_rightly():
    """Its norms too: forward in t, then backward in a weight, against a difference quotient at a constant target."""
    net = UNet((1, 4, 4), channels=4, multipliers=(1,), context=1, groups=1).double()
    with torch.no_grad():
        for seed, p in enumerate(net.parameters()):
            p += 0.2 * torch.randn(p.shape, generator=rng(seed), dtype=p.dtype)
    x0, x1 = torch.randn(2, 3, 1, 4, 4, generator=rng(1), dtype=torch.float64)
    flow_map = FlowMap(AverageVelocity(net))
    loss = lambda: lagrangian_loss(
        flow_map, Linear(), x0, x1, pairs(3), teacher=lambda t, x: torch.ones_like(x)
    ).sum()
    weight = next(p for p in net.parameters() if p.ndim == 4)
    grad, h = torch.autograd.grad(loss(), weight)[0].flatten()[0], 1e-5
    with torch.no_grad():
        values = []
        for step in (h, -2 * h):
            weight.view(-1)[0] += step
            values.append(loss())
    assert_close(grad, (values[0] - values[1]) / (2 * h), 1e-6)
    assert grad.abs() > 1e-3


@pytest.mark.parametrize("name", losses)
def test_losses_compile_to_one_graph(name):
    flow_map, loss = FlowMap(AverageVelocity(MLP(D, (8,), context=1).double())), losses[name]
    call = lambda x0, x1, s, t: loss(flow_map, Linear(), x0, x1, (s, t))
    args = *ends(4), *pairs(4)
    assert_close(torch.compile(call, fullgraph=True, backend="eager")(*args), call(*args))


class Normed(nn.LayerNorm):
    def forward(self, s, t, x):
        return super().forward(x)


def test_norms_whose_tangents_have_a_wrong_gradient_are_refused_where_it_would_be_taken():
    flow_map = FlowMap(Normed(D).double())
    with pytest.raises(ValueError, match="Normed"):
        lagrangian_loss(flow_map, Linear(), *ends(4))
    for name in set(losses) - {"lagrangian"}:
        assert losses[name](flow_map, Linear(), *ends(4)).isfinite().all()


def test_what_is_no_map_is_refused():
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match="average"):
        FlowMap(MLP)
    with pytest.raises(ValueError, match="average"):
        FlowMap(lambda s, t, x: x[:, :1])(0.0, 1.0, x)
    with pytest.raises(ValueError, match="one_hot"):
        FlowMap(AverageVelocity(MLP(2, context=2)))(0.0, 1.0, x, torch.arange(4)[:, None])
    with pytest.raises(ValueError, match="times"):
        sample_map(exact(Linear()), x, [0.5])
    with pytest.raises(ValueError, match="t in"):
        lagrangian_loss(exact(Linear()), Linear(), x, x, (torch.zeros(4), torch.full((4,), 2.0)))
    with pytest.raises(ValueError, match="x1"):
        semigroup_loss(exact(Linear()), Linear(), x, x[:3])
    with pytest.raises(ValueError, match="context"):
        eulerian_loss(exact(Linear()), Linear(), x, x, context=x[:3])
