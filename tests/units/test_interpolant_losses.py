"""Losses of an interpolant, between Gaussians, where velocity, score and denoiser are known in closed form."""

import shutil

import pytest
import torch
from registry import interpolants, noises, rng
from torch.func import functional_call, grad, jvp, vmap

from cnflib.interpolants import (
    Bridge,
    EncodingDecoding,
    Linear,
    Mirror,
    Sigmoid,
    Trigonometric,
    VariancePreserving,
    denoiser_loss,
    monitor,
    path_energy,
    score_loss,
    velocity_loss,
    velocity_objective,
)
from cnflib.nets import MLP

S0, S1, D = 1.5, 0.4, 3
losses = {
    "velocity_loss": velocity_loss,
    "velocity_objective": velocity_objective,
    "monitor": monitor,
    "score_loss": score_loss,
    "denoiser_loss": denoiser_loss,
    "path_energy": path_energy,
}
ready = pytest.mark.parametrize("name", interpolants)
noisy = pytest.mark.parametrize(
    "name", [name for name, path in interpolants.items() if path.gamma2 is not None]
)
every = pytest.mark.parametrize("loss", losses.values(), ids=losses)
times = torch.tensor([0.2, 0.47, 0.9], dtype=torch.float64)


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def draw(n=3, dim=D, seed=0):
    return torch.randn(n, dim, generator=rng(seed), dtype=torch.float64)


def ends(n=3, dim=D):
    return S0 * draw(n, dim, 1), S1 * draw(n, dim, 2)


def variance(path, t):
    """The variance of x_t between independent N(0, S0²) and N(0, S1²), and its rate by forward mode."""
    noise = torch.zeros_like if path.gamma2 is None else path.gamma2
    v = lambda t: path.alpha(t) ** 2 * S0**2 + path.beta(t) ** 2 * S1**2 + noise(t)
    return jvp(v, (t,), (torch.ones_like(t),))


def velocity(path):
    """b(t, x) = v'(t) / 2 v(t) x."""

    def b(t, x, context=None):
        v, rate = variance(path, t)
        return (rate / (2 * v)).reshape(-1, 1) * x

    return b


def curved(t, x, context=None):
    """A field that is not linear."""
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1)))


def assert_mean(rows, value=0.0):
    error = 4 * rows.std() / len(rows) ** 0.5
    assert abs(rows.mean() - value) <= error, (rows.mean().item(), value, error.item())


@ready
def test_a_rate_in_closed_form_is_the_derivative(name):
    path, t = interpolants[name], torch.linspace(0.03, 0.97, 9, dtype=torch.float64)
    for schedule in (path.alpha, path.beta, path.gamma2):
        if hasattr(schedule, "rate"):
            assert_close(schedule.rate(t), jvp(schedule, (t,), (torch.ones_like(t),))[1])


@pytest.mark.parametrize("name", [name for name, noise in noises.items() if noise is not None])
def test_a_noise_can_be_differentiated_twice(name):
    """What a conversion takes where both sides of its fraction vanish, as at t = 1/2 on a mirror."""
    noise, t = noises[name], torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    by_closed_form = jvp(noise.rate, (t,), (torch.ones_like(t),))[1]
    by_forward_mode = jvp(lambda t: jvp(noise, (t,), (torch.ones_like(t),))[1], (t,), (torch.ones_like(t),))[
        1
    ]
    assert_close(by_forward_mode, by_closed_form, 1e-9)


def test_the_ready_paths_and_noises_know_their_rates():
    for path in (Linear(), Trigonometric(), VariancePreserving(), EncodingDecoding(), Mirror()):
        assert all(hasattr(schedule, "rate") for schedule in (path.alpha, path.beta))
    assert all(hasattr(noise, "rate") for noise in noises.values() if noise is not None)


@ready
def test_the_objective_is_the_loss_less_what_the_field_does_not_change(name):
    """Row by row: the mean of |f|² - 2 ẋ·f over ±ξ, so its expectation, gradient and minimiser are the loss's."""
    path, (x0, x1), xi = interpolants[name], ends(), draw()
    rest = [
        velocity_loss(curved, path, x0, x1, times, s * xi) - path.rate(times, x0, x1, s * xi).square().sum(1)
        for s in (1, -1)
    ]
    assert_close(velocity_objective(curved, path, x0, x1, times, xi), sum(rest) / 2)


@pytest.mark.parametrize(
    "name", [name for name in interpolants if "diffusion" not in name]
)  # its rate is infinite
def test_the_objective_is_least_at_the_velocity(name):
    """Its slope along any direction vanishes at b; for (b + k h) it is 2 E (b - ẋ)·h, and the curvature |h|²."""
    path, n = interpolants[name], 20_000
    b = velocity(path)

    def slope(k):
        loss = lambda k: velocity_objective(
            lambda t, x, c: (1 + k) * b(t, x) + k * curved(t, x), path, *ends(n), generator=rng(5)
        )
        return jvp(loss, (k,), (torch.ones_like(k),))[1]

    assert_mean(slope(torch.zeros((), dtype=torch.float64)))
    far = slope(torch.tensor(0.5, dtype=torch.float64))
    assert far.mean() > 8 * far.std() / n**0.5


@pytest.mark.parametrize(
    "name", ["linear, none", "linear, bridge", "trigonometric, sine", "mirror, parabola"]
)
def test_at_the_velocity_objective_energy_and_monitor_balance(name):
    path, n = interpolants[name], 40_000
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    v, rate = variance(path, t)
    energy = D * (rate**2 / (4 * v)).mean()
    assert_mean(path_energy(velocity(path), path, *ends(n), generator=rng(3)), energy)
    assert_mean(velocity_objective(velocity(path), path, *ends(n), generator=rng(3)), -energy)
    assert_mean(monitor(velocity(path), path, *ends(n), generator=rng(3)))


def test_the_monitor_is_twice_the_balance_and_blind_at_zero():
    path, n = Linear(Bridge()), 20_000
    field, data = lambda t, x, c: 0.5 * velocity(path)(t, x), (*ends(n), None, draw(n))
    rows = monitor(field, path, *data, generator=rng())
    parts = [f(field, path, *data, generator=rng()) for f in (velocity_objective, path_energy)]
    assert_mean(rows - sum(parts))  # of the energy at +ξ alone
    assert rows.mean() < -4 * rows.std() / n**0.5
    assert not monitor(lambda t, x, c: torch.zeros_like(x), path, *data).any()


@pytest.mark.parametrize("t", [1e-4, 1e-8, 1e-12])
def test_the_objective_has_a_limit_where_the_rate_of_the_noise_has_none(t):
    """With f = A x and γ² = t (1 - t) it is |A x0|² - 2 (x1 - x0)·A x0 - ξ·A ξ at t = 0."""
    (x0, x1), xi, A = ends(), draw(), torch.diag(torch.tensor([1.0, -2.0, 0.5]).double()) + 0.3
    field = lambda t, x, c: x @ A.T
    limit = ((x0 @ A.T) ** 2 - 2 * (x1 - x0) * (x0 @ A.T) - xi * (xi @ A.T)).sum(1)
    near = torch.full((3,), t, dtype=torch.float64)
    assert_close(velocity_objective(field, Linear(Bridge()), x0, x1, near, xi), limit, 100 * t + 1e-8)
    assert velocity_loss(field, Linear(Bridge()), x0, x1, near, xi).min() > 0.01 / t


def test_antithetic_noise_lowers_the_variance():
    n, path = 20_000, Linear(Bridge())
    (x0, x1), xi = ends(n), draw(n)
    for t, factor in ((0.3, 1.3), (0.03, 2), (1e-4, 300)):
        t = torch.full((n,), t, dtype=torch.float64)
        x_t, rate = path(t, x0, x1, xi), path.rate(t, x0, x1, xi)
        f = curved(t, x_t)
        single = (f * f - 2 * rate * f).sum(1)
        assert factor * velocity_objective(curved, path, x0, x1, t, xi).var() < single.var()


@pytest.mark.parametrize("end", [0.0, 1 - 2**-24])
@noisy
def test_a_time_drawn_at_the_end_of_the_random_numbers_does_no_harm(name, end, monkeypatch):
    """torch.rand returns 0 once in 2^24 draws: one NaN would ruin a training."""
    monkeypatch.setattr(torch, "rand", lambda shape, **kw: torch.full(shape, end, dtype=torch.float32))
    x0, x1 = (x.float() for x in ends())
    for loss in losses.values():
        assert torch.isfinite(loss(curved, interpolants[name], x0, x1)).all()


def test_the_sigmoid_noise_does_not_round_to_zero_inside():
    t = torch.cat([torch.logspace(-7, -1, 50), 1 - torch.logspace(-7, -1, 50).clamp(min=2**-24)])
    assert (Sigmoid()(t) > 0).all()
    slope = Sigmoid()(t[:1]).sqrt() / t[:1]
    assert_close(slope.double(), torch.tensor([0.151962]).double(), 1e-4)


@noisy
def test_denoiser_and_score_are_least_at_those_of_the_gaussian(name):
    """eta = γ x / v with loss D (1 - γ²/v), s = -x / v; both losses are one for eta = -γ s."""
    path, n = interpolants[name], 20_000
    t = 0.1 + 0.8 * torch.rand(n, generator=rng(4), dtype=torch.float64)
    gamma, v = path.gamma2(t).sqrt()[:, None], variance(path, t)[0][:, None]
    data = (path, *ends(n), t, draw(n, seed=7))
    best = denoiser_loss(lambda t, x, c: gamma * x / v, *data)
    assert_mean(best - D * (1 - gamma**2 / v)[:, 0])
    assert_close(score_loss(lambda t, x, c: -x / v, *data), best)
    for wrong in (0.8, 1.2):
        rows = denoiser_loss(lambda t, x, c: wrong * gamma * x / v, *data) - best
        assert rows.mean() > 4 * rows.std() / n**0.5
    k = torch.zeros((), dtype=torch.float64)
    loss = lambda k: score_loss(lambda t, x, c: -x / v + k * curved(t, x), *data)
    assert_mean(jvp(loss, (k,), (torch.ones_like(k),))[1])


@every
def test_a_loss_is_a_sum_over_the_event_of_any_shape(loss):
    (x0, x1), xi, image, path = ends(3, 4), draw(3, 4), (3, 1, 2, 2), Linear(Bridge())
    parts = (x.reshape(image) for x in (x0, x1))
    rows = loss(curved, path, x0, x1, times, xi)
    assert rows.shape == (3,)
    assert_close(loss(curved, path, *parts, times, xi.reshape(image)), rows)


@every
def test_a_loss_hands_on_context_and_one_time_a_row(loss):
    (x0, x1), context, seen = ends(), draw(3, 2, 5), []

    def model(t, x, c):
        seen.append((t, x, c))
        return c[:, :1] * x

    one = loss(model, Linear(Bridge()), x0, x1, times, draw(), context)
    for i in range(3):
        row = slice(i, i + 1)
        alone = loss(model, Linear(Bridge()), x0[row], x1[row], times[row], draw()[row], context[row])
        assert_close(alone, one[row])
    assert all(t.shape == x.shape[:1] == c.shape[:1] for t, x, c in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every
def test_times_and_noise_are_drawn_in_the_dtype_of_the_ends(loss, dtype):
    def model(t, x, c):
        assert t.dtype == x.dtype == dtype
        return x

    loss(model, Linear(Bridge()), *(x.to(dtype) for x in ends()))


@every
def test_one_time_may_serve_all_rows(loss):
    (x0, x1), xi = ends(), draw()
    rows = [loss(curved, Linear(Bridge()), x0, x1, torch.full(n, 0.3).double(), xi) for n in ((), (3,))]
    assert_close(*rows)


@every
def test_the_generator_decides_what_is_drawn(loss):
    rows = [loss(curved, Linear(Bridge()), *ends(), generator=rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert loss(curved, Linear(Bridge()), *(x.float() for x in ends())).dtype == torch.float32


@every
def test_gradients_reach_both_ends_and_a_learned_noise(loss):
    """Through the point x_t as well: what a learned base or path descends."""

    def rows(x0, x1, scale):
        return loss(curved, Linear(lambda t: scale * t * (1 - t)), x0, x1, times, xi)

    (x0, x1), xi, scale = ends(), draw(), torch.tensor(0.7, dtype=torch.float64)
    assert torch.autograd.gradcheck(rows, [a.requires_grad_() for a in (x0, x1, scale)])


@every
def test_a_loss_compiles_whole_and_is_transformed(loss):
    torch._dynamo.reset()  # all compile one line of this file
    net, (x0, x1), xi = MLP(D, hidden=(4,)).double(), ends(), draw()
    path = Linear(Bridge())
    torch.compile(lambda: loss(net, path, x0, x1, generator=None), fullgraph=True, backend="eager")()
    path = Trigonometric(lambda t: t * (1 - t))
    call = lambda x0, xi: loss(net, path, x0, x1, times, xi)
    assert_close(torch.compile(call, fullgraph=True, backend="eager")(x0, xi), call(x0, xi))
    weights = dict(net.named_parameters())
    total = lambda w: loss(lambda *a: functional_call(net, w, a), path, x0, x1, times, xi).sum()
    found, wanted = grad(total)(weights), torch.autograd.grad(total(weights), list(weights.values()))
    for a, b in zip(found.values(), wanted):
        assert_close(a, b)
    each = vmap(lambda x0, xi: loss(curved, path, x0, x1, times, xi))(
        torch.stack([x0, 2 * x0]), torch.stack([xi, -xi])
    )
    assert_close(each[1], loss(curved, path, 2 * x0, x1, times, -xi))


@every
def test_a_loss_compiles_once_for_batches_of_any_size(loss):
    torch._dynamo.reset()
    net, path, programs = MLP(D, hidden=(4,)), Linear(Bridge()), []

    def count(graph, inputs):
        programs.append(graph)
        return graph.forward

    compiled = torch.compile(
        lambda x0, x1: loss(net, path, x0, x1), fullgraph=True, backend=count, dynamic=True
    )
    for n in (4, 5, 9):  # not D rows, for equal sizes share a symbol
        x0, x1 = torch.randn(2, n, D)
        assert compiled(x0, x1).shape == (n,)
    assert len(programs) == 1


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="needs a C++ compiler")
def test_a_training_step_compiled_to_machine_code_is_the_same():
    """The loss and its gradient, for a whole batch and for the smaller one at the end of a data set."""
    torch._dynamo.reset()
    net, path = MLP(D, hidden=(4,)), Linear(Bridge())
    call = lambda x0, x1, t, xi: velocity_objective(net, path, x0, x1, t, xi).mean()
    compiled = torch.compile(call, fullgraph=True, dynamic=True)
    for n in (8, 5):
        batch = (*torch.randn(2, n, D, generator=rng(n)), torch.linspace(0.1, 0.9, n), torch.ones(n, D))
        gradients = []
        for f in (call, compiled):
            net.zero_grad()
            loss = f(*batch)
            loss.backward()
            gradients.append([loss.detach(), *(p.grad for p in net.parameters())])
        for a, b in zip(*gradients):
            assert_close(a, b, 1e-5)


class Scaled(torch.nn.Module):
    """A learned noise, γ² = a² t (1 - t)."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(()))

    def forward(self, t):
        return self.a**2 * t * (1 - t)


def test_a_learned_noise_has_a_gradient_at_the_ends_too():
    gamma2, (x0, x1) = Scaled(), ends()
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    denoiser_loss(lambda t, x, c: x, Linear(gamma2), x0, x1, t=t).mean().backward()
    assert gamma2.a.grad.isfinite() and gamma2.a.grad != 0


class Embedded(torch.nn.Module):
    """A field on labels, with a required context."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(4, D, dtype=torch.float64)

    def forward(self, t, x, context):
        return self.table(context) + x


@every
def test_a_field_on_labels_trains(loss):
    field, labels = Embedded(), torch.tensor([0, 3, 3])
    loss(field, Linear(Bridge()), *ends(), context=labels).sum().backward()
    assert field.table.weight.grad[[0, 3]].all() and not field.table.weight.grad[[1, 2]].any()


@every
def test_a_field_is_taken_with_and_without_a_context(loss):
    """Without one it is called f(t, x); only a required third parameter is given None."""
    data = (Linear(Bridge()), *ends(), times, draw())
    seen = []

    def required(t, x, context):
        seen.append(context)
        return torch.sin(2 * x)

    fields = [lambda t, x: torch.sin(2 * x), lambda t, x, context=0: torch.sin(2 * x), required]
    rows = [loss(field, *data) for field in fields]
    for other in rows[1:]:
        assert_close(other, rows[0], 0)
    assert set(seen) == {None}
    with pytest.raises(ValueError, match="context"):
        loss(fields[0], *data, context=torch.ones(3, 1))
    with pytest.raises(ValueError, match="context"):
        loss(required, *data, context=torch.ones(2, 1))


@every
def test_points_of_another_dtype_than_the_field_are_named(loss):
    x0, x1 = ends()
    with pytest.raises(ValueError, match="Expected x0 of dtype torch.float32, that of the MLP"):
        loss(MLP(D, (4,)), Linear(Bridge()), x0, x1)
    with pytest.raises(ValueError, match="Expected x1"):
        loss(MLP(D, (4,)), Linear(Bridge()), x0.float(), x1)
    with pytest.raises(ValueError, match="Expected x0 to be a tensor of a floating dtype"):
        loss(MLP(D, (4,)), Linear(Bridge()), x0.tolist(), x1)


@every
def test_a_field_and_a_path_that_are_exchanged_are_pointed_out(loss):
    for arguments in ((Linear(), curved), (curved, Linear), (Linear, Linear())):
        with pytest.raises(ValueError, match="Expected"):
            loss(*arguments, *ends())
