"""Paths of tokens against the Kolmogorov equation, on a space small enough to enumerate: two tokens of three values."""

import itertools
import math

import pytest
import torch
from registry import rng
from torch import nn
from torch.func import jvp

from cnflib.interpolants import (
    Linear,
    Masked,
    UniformNoise,
    elbo,
    guided,
    mean_rate,
    posterior_loss,
    sample_first_hitting,
    sample_jumps,
)

V, D = 3, 2
SQUARE = lambda t: t**2  # noqa: E731
paths = {
    "masked": Masked(V),
    "masked, late": Masked(V, SQUARE),
    "uniform": UniformNoise(V),
    "uniform, late": UniformNoise(V, SQUARE),
}
every = pytest.mark.parametrize("path", paths.values(), ids=paths)
data = torch.tensor(list(itertools.product(range(V), repeat=D)))
p1 = torch.tensor([0.20, 0.02, 0.13, 0.05, 0.25, 0.03, 0.01, 0.11, 0.20], dtype=torch.float64)


def states(path):
    """All points on the way, shape (states², D)."""
    return torch.tensor(list(itertools.product(range(path.states), repeat=D)))


def likelihood(path, t, x):
    """p_t(x | x_1) for every x of rows and every x_1 of the data, shape (B, V²); t of shape (B,)."""
    noise = (x == V).double() if isinstance(path, Masked) else torch.full(x.shape, 1 / V, dtype=torch.float64)
    kappa = path.kappa(t)[:, None, None]
    same = (x[:, None] == data).double()
    return ((1 - kappa) * noise[:, None] + kappa * same).prod(2)


def law(path, t):
    """p_t of all states."""
    x = states(path)
    return likelihood(path, t.expand(len(x)), x) @ p1


def exact(path, odds=None):
    """The logits of p(x_1^i | x_t = x), by enumeration; of other data with these odds."""
    p = p1 if odds is None else (p1 * odds) / (p1 * odds).sum()

    def posterior(t, x, context=None):
        joint = likelihood(path, t.double().clamp(1e-12, 1 - 1e-12), x) * p
        each = torch.stack([joint[:, data[:, i] == v].sum(1) for i in range(D) for v in range(V)], 1)
        return (each.reshape(-1, D, V) + 1e-300).log()

    return posterior


class Table(nn.Module):
    """Logits for each state, learned; the time is ignored."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.logits = nn.Parameter(torch.randn(path.states**D, D, V, generator=rng(9), dtype=torch.float64))

    def forward(self, t, x, context=None):
        return self.logits[x[:, 0] * self.path.states + x[:, 1]]


def generator_matrix(path, posterior, t):
    """R_t(x, y) between all states; two tokens never jump at once."""
    x = states(path)
    each = mean_rate(posterior, path, t.expand(len(x)), x)
    same = x[:, None] == x
    R = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i in range(D):
        others = same[..., [j for j in range(D) if j != i]].all(-1)
        R += each[:, i].gather(1, x[:, i].expand(len(x), -1)) * others
    return R


def kernel(path, posterior, s, t):
    """The probabilities of one tau-leaping step from time s to t, between all states."""
    x = states(path)
    a = (path.kappa(t) - path.kappa(s)) / (1 - path.kappa(s))
    log_p = path.log_posterior(posterior(s.expand(len(x)), x), x)
    moves = a * log_p.exp() + (1 - a) * nn.functional.one_hot(x, path.states)
    return math.prod(moves[:, i].gather(1, x[:, i].expand(len(x), -1)) for i in range(D))


def end_law(path, posterior, steps):
    """The law of tau-leaping at t = 1, of the data."""
    p = law(path, torch.tensor(0.0, dtype=torch.float64))
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    for k in range(steps):
        p = p @ kernel(path, posterior, times[k], times[k + 1])
    return p[(states(path) < V).all(1)]


def frequencies(x):
    return torch.bincount(x[:, 0] * V + x[:, 1], minlength=V * V).double() / len(x)


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def assert_drawn(x, p):
    """The frequencies of draws are these, within four standard errors each."""
    error = 4 * (p * (1 - p) / len(x)).sqrt() + 1e-12
    assert ((frequencies(x) - p).abs() <= error).all(), (frequencies(x), p)


def assert_mean(rows, value):
    error = 4 * rows.std() / len(rows) ** 0.5
    assert abs(rows.mean() - value) <= error, (rows.mean().item(), value, error.item())


def draws(n, seed=0):
    return data[p1.multinomial(n, replacement=True, generator=rng(seed))]


@every
def test_points_of_the_path_have_its_law(path):
    t, x = path.draw(draws(40_000), torch.tensor(0.4, dtype=torch.float64), rng(1))
    assert (t == 0.4).all()
    counts = torch.bincount(x[:, 0] * path.states + x[:, 1], minlength=path.states**D).double() / len(x)
    p = law(path, torch.tensor(0.4, dtype=torch.float64))
    assert ((counts - p).abs() <= 4 * (p * (1 - p) / len(x)).sqrt() + 1e-12).all()


@every
def test_the_mean_rates_carry_the_law_of_the_path(path):
    """The Kolmogorov equation, dp_t/dt = p_t R_t, to rounding."""
    for time in (0.0, 0.15, 0.5, 0.9):
        t = torch.tensor(time, dtype=torch.float64)
        p, rate = jvp(lambda t: law(path, t), (t,), (torch.ones_like(t),))
        R = generator_matrix(path, exact(path), t)
        assert_close(p.sum(), torch.ones_like(t))
        assert_close(R.sum(1), torch.zeros(len(R), dtype=torch.float64))
        assert (R - R.diag().diag() >= 0).all()
        assert_close(p @ R, rate)


@every
def test_the_mean_rate_is_the_mean_of_the_rates_given_the_point(path):
    """E[R_t(x, y | x_1) | x_t = x], over all data by Bayes' rule."""
    x = states(path)
    t = torch.full((len(x),), 0.3, dtype=torch.float64)
    weights = likelihood(path, t, x) * p1
    weights = weights / weights.sum(1, keepdim=True)
    each = torch.stack([path.rate(t, x, x1.expand_as(x)) for x1 in data])
    assert_close(mean_rate(exact(path), path, t, x), (weights.T[..., None, None] * each).sum(0))


def test_two_states_by_hand():
    """One token of two values, p(1) = 0.7, κ = t: p_t(1) = (1 - t)/2 + 0.7 t, R_t(0, 1) = p(1 | 0) / (1 - t)."""
    path, t, p = UniformNoise(2), 0.4, 0.7
    arrived = lambda x: t * (x == 1) + (1 - t) / 2  # p_t(x | x_1 = 1)
    given = lambda x: p * arrived(x) / (p * arrived(x) + (1 - p) * arrived(1 - x))
    net = lambda t, x: torch.stack([1 - given(x), given(x)], -1).log()
    rates = mean_rate(net, path, t, torch.tensor([[0], [1]]))
    up, down = rates[0, 0, 1].item(), rates[1, 0, 0].item()
    at_zero = p * (1 - t) / 2 / (p * (1 - t) / 2 + (1 - p) * (1 + t) / 2)
    assert up == pytest.approx(at_zero / (1 - t), rel=1e-5)
    law1 = (1 - t) / 2 + p * t
    assert (1 - law1) * up - law1 * down == pytest.approx(p - 0.5, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 4])
@every
def test_the_simulated_chain_has_the_law_of_its_transition_matrix(path, steps):
    x = sample_jumps(exact(path), path, path.noise((40_000, D), rng(2)), steps, generator=rng(3))
    assert_drawn(x, end_law(path, exact(path), steps))


@every
def test_one_step_leaves_the_tokens_independent_of_each_other(path):
    each = [torch.stack([p1[data[:, i] == v].sum() for v in range(V)]) for i in range(D)]
    if isinstance(path, Masked):
        assert_close(end_law(path, exact(path), 1), (each[0][:, None] * each[1]).flatten())
    assert (end_law(path, exact(path), 1) - p1).abs().sum() > 0.2


@every
def test_the_error_of_tau_leaping_falls_with_the_step(path):
    error = lambda steps: (end_law(path, exact(path), steps) - p1).abs().sum() / 2
    order = (error(64) / error(128)).log2()
    assert order == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("path", [paths["masked"], paths["masked, late"]], ids=["linear", "late"])
def test_one_token_at_a_time_is_exact(path):
    x = sample_first_hitting(exact(path), path, path.noise((40_000, D)), generator=rng(4))
    assert_drawn(x, p1)


def test_tokens_are_uncovered_at_the_times_of_the_schedule():
    path, seen = Masked(V, SQUARE), []

    def net(t, x):
        seen.append((t, (x != V).sum(1)))
        return torch.zeros(*x.shape, V)

    sample_first_hitting(net, path, path.noise((40_000, D)), generator=rng(5))
    (first, none), (second, one) = seen
    assert (none == 0).all() and (one == 1).all() and (first <= second).all()
    assert_mean(first.square(), 1 / 3)  # κ at the smaller of two uniform numbers
    assert_mean(second.square(), 2 / 3)


def test_tokens_that_are_no_masks_are_kept():
    path = Masked(V)
    x0 = torch.tensor([[V, 2], [1, V]]).repeat(20_000, 1)
    for x in (
        sample_first_hitting(exact(path), path, x0, generator=rng(6)),
        sample_jumps(exact(path), path, x0, 3, generator=rng(6)),
    ):
        assert (x < V).all() and (x[::2, 1] == 2).all() and (x[1::2, 0] == 1).all()
        given = p1[data[:, 1] == 2] / p1[data[:, 1] == 2].sum()
        counts = torch.bincount(x[::2, 0], minlength=V).double() / 20_000
        assert ((counts - given).abs() < 4 * (given * (1 - given) / 20_000).sqrt()).all()


def integrand(path, posterior, t, x1):
    """The bound's integrand at t for one x_1, over all states: the formula of the divergence of rates, once more."""
    x = states(path)
    weights = likelihood(path, t.expand(len(x)), x)[:, (data == x1).all(1)][:, 0]
    model, truth = mean_rate(posterior, path, t.expand(len(x)), x), path.rate(t, x, x1.expand_as(x))
    off = nn.functional.one_hot(x, path.states) == 0
    ratio = torch.where(off & (truth > 0), truth / model, 1).log()
    return -(weights * (off * (model - truth + truth * ratio)).sum((1, 2)))[weights > 0].sum()


def bound(path, posterior, x1):
    """The integral of it over t, in u with t = 1 - u², by Gauss's rule."""
    u, w = gauss(40)
    return sum(2 * ui * wi * integrand(path, posterior, 1 - ui**2, x1) for ui, wi in zip(u, w, strict=True))


def gauss(n):
    """Nodes and weights on (0, 1)."""
    k = torch.arange(1, n, dtype=torch.float64)
    off = k / (4 * k**2 - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0] ** 2


@pytest.mark.parametrize("path", [paths["masked"], paths["masked, late"]], ids=["linear", "late"])
def test_with_masks_and_the_exact_posterior_the_bound_is_the_probability_of_the_data(path):
    for x1, p in zip(data, p1, strict=True):
        assert_close(bound(path, exact(path), x1), p.log(), 1e-4)


def test_with_uniform_noise_and_the_exact_posterior_it_stays_below():
    """Its process is not the path's, in which a token jumps once; the schedule makes no difference."""
    bounds = [
        torch.stack([bound(path, exact(path), x1) for x1 in data])
        for path in (paths["uniform"], paths["uniform, late"])
    ]
    assert_close(*bounds, 1e-4)
    assert (bounds[0] < p1.log() - 0.1).all() and (bounds[0] > p1.log() - 3).all()


@every
def test_the_estimate_is_unbiased(path):
    for k in (0, 5):
        for posterior in (exact(path), Table(path)):
            rows = elbo(posterior, path, data[k].expand(40_000, D), generator=rng(7))
            assert_mean(rows.detach(), bound(path, posterior, data[k]).item())


@every
def test_for_another_posterior_it_is_below_the_probability_that_the_model_gives(path):
    """The model's law is that of its rates, here by very short steps, and not that of the data."""
    odds = torch.rand(V * V, generator=rng(8), dtype=torch.float64) + 0.5
    for posterior in (exact(path, odds), Table(path)):
        model = end_law(path, posterior, 400).log()
        bounds = torch.stack([bound(path, posterior, x1) for x1 in data])
        assert (bounds <= model + 1e-2).all()
        assert (p1 * bounds).sum() < (p1 * p1.log()).sum()
    assert (bounds < model - 2e-2).any()


def test_covered_tokens_alone_cost_and_as_the_weighted_cross_entropy():
    path, x1, t = Masked(V), draws(50), torch.full((50,), 0.75, dtype=torch.float64)
    table = Table(path)
    cross_entropy = posterior_loss(table, path, x1, t, generator=rng(1))
    assert_close(-elbo(table, path, x1, t, generator=rng(1)), cross_entropy / (1 - 0.75))
    _, x = path.draw(x1, t, rng(1))
    assert (cross_entropy[(x != V).all(1)] == 0).all() and (cross_entropy[(x == V).any(1)] > 0).all()


@every
@pytest.mark.parametrize("loss", [posterior_loss, lambda *args: -elbo(*args)], ids=["plain", "bound"])
def test_a_loss_is_least_at_the_posterior(path, loss):
    """At one time: the mean gradient in the logits of every state vanishes there, and away from it the loss is more."""
    n, time = 100_000, torch.tensor(0.4, dtype=torch.float64)
    x = states(path)

    def at(change):
        table = Table(path)
        with torch.no_grad():
            table.logits.copy_(exact(path)(time.expand(len(x)), x).clamp_min(-30) + change)
        return table, loss(table, path, draws(n), time.expand(n), None, rng(2)).mean()

    table, least = at(0)
    grad = torch.autograd.grad(least, table.logits)[0]
    assert grad.abs().max() < 6 / n**0.5
    for seed in range(3):
        away = torch.randn(table.logits.shape, generator=rng(seed), dtype=torch.float64)
        assert at(0.5 * away)[1] > least + 0.01


@every
def test_losses_have_finite_gradients_at_all_times_and_for_all_states(path):
    for loss in (posterior_loss, elbo):
        for t in (0.0, 0.999999, None):
            table = Table(path)
            value = loss(table, path, draws(500), t, generator=rng(3))
            (grad,) = torch.autograd.grad(value.sum(), table.logits)
            assert value.shape == (500,)
            assert value.isfinite().all() and grad.isfinite().all()
            assert grad.any() or t is not None  # at an end there may be nothing to learn


def test_a_context_reaches_the_net_untouched_and_one_row_serves_all():
    seen, labels = [], torch.arange(6)

    def net(t, x, context):
        seen.append(context)
        return torch.zeros(*x.shape, V)

    for path in (Masked(V), UniformNoise(V)):
        posterior_loss(net, path, draws(6), context=labels)
        elbo(net, path, draws(6), context=labels)
        mean_rate(net, path, 0.5, draws(6), labels)
        assert all(context is labels for context in seen)
    seen.clear()
    sample_jumps(net, path, path.noise((6, D)), 2, labels[:1])
    sample_first_hitting(net, Masked(V), Masked(V).noise((6, D)), labels[:1])
    assert [len(context) for context in seen] == [6] * (2 + D)


@every
@pytest.mark.parametrize("loss", [posterior_loss, elbo])
def test_losses_compile_to_one_graph(path, loss):
    table, x1, values = Table(path), draws(6), []
    with torch.random.fork_rng():
        for call in (loss, torch.compile(loss, fullgraph=True, backend="eager")):
            torch.manual_seed(0)
            values.append(call(table, path, x1))
    assert_close(*values)


def test_a_posterior_is_guided_at_its_own_time():
    """The net reads the time, and its logits are 0 where the context is: those of weight w are 1 + w times its own."""
    net = lambda t, x, context: (
        (t[:, None, None] + 1) * torch.arange(V) * context[:, :1, None] + 0 * x[..., None]
    )
    path, x, one = UniformNoise(V), draws(4), torch.ones(4, 1)
    expected = mean_rate(lambda t, x: 3 * net(t, x, one), path, 0.5, x)
    assert_close(mean_rate(guided(net, 2.0), path, 0.5, x, one), expected, 1e-6)


def test_whatever_draws_draws_from_its_generator_alone():
    path = UniformNoise(V)
    calls = (
        lambda g: path.noise((50, D), g),
        lambda g: path.draw(draws(50), None, g)[1],
        lambda g: elbo(exact(path), path, draws(50), generator=g),
        lambda g: sample_jumps(exact(path), path, draws(50), 3, generator=g),
        lambda g: sample_first_hitting(exact(Masked(V)), Masked(V), Masked(V).noise((50, D)), None, g),
    )
    for call in calls:
        state = torch.get_rng_state()
        assert torch.equal(call(rng(1)), call(rng(1))) and not torch.equal(call(rng(1)), call(rng(2)))
        assert torch.equal(torch.get_rng_state(), state)


def test_a_net_gets_times_of_its_own_dtype():
    table = Table(Masked(V))
    seen = []
    table.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    for call in (posterior_loss, elbo):
        call(table, Masked(V), draws(4))
    sample_jumps(table, Masked(V), Masked(V).noise((4, D)), 1)
    assert set(seen) == {torch.float64}


def test_what_is_no_path_and_no_token_is_refused():
    net = exact(Masked(V))
    with pytest.raises(ValueError, match="vocabulary"):
        Masked(0)
    with pytest.raises(ValueError, match="kappa"):
        Masked(V, lambda t: 1 - t)
    with pytest.raises(ValueError, match="kappa"):
        Masked(V, Linear().alpha)
    with pytest.raises(ValueError, match="x1"):
        posterior_loss(net, Masked(V), torch.full((4, D), V))
    with pytest.raises(ValueError, match="x1"):
        elbo(net, Masked(V), torch.rand(4, D))
    with pytest.raises(ValueError, match="x0"):
        sample_jumps(net, UniformNoise(V), Masked(V).noise((4, D)))
    with pytest.raises(ValueError, match="Masked"):
        sample_first_hitting(net, UniformNoise(V), draws(4))
    with pytest.raises(ValueError, match="logits"):
        posterior_loss(lambda t, x: torch.zeros(4, D, V + 1), Masked(V), draws(4))
    with pytest.raises(ValueError, match="t in"):
        posterior_loss(net, Masked(V), draws(4), t=1.5)
    with pytest.raises(ValueError, match="context"):
        elbo(net, Masked(V), draws(4), context=torch.zeros(3))
