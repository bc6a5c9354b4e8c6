"""Laws of time against their distribution functions, and weights that keep a mean."""

import copy
import pickle

import pytest
import scipy.stats
import torch
from registry import rng, seeded

from cnflib.interpolants import BetaTimes, ImportanceTimes, Linear, TimeLaw, UniformTimes, velocity_loss

shapes = [(1.0, 0.5), (0.5, 1.0), (2.0, 3.0), (0.5, 0.5), (30.0, 4.0), (1.0, 1.0), (0.2, 5.0)]
beta = pytest.mark.parametrize(("a", "b"), shapes)
double = torch.zeros((), dtype=torch.float64)


def peaked(t):
    """A loss with a sharp peak, and its mean over uniform times."""
    return 0.5 + 20 * torch.exp(-(((t - 0.8) / 0.03) ** 2))


PEAKED = 0.5 + 20 * 0.03 * torch.pi**0.5


def trained(**options):
    """A sampler that has seen the peaked loss, times a random number."""
    times, generator = ImportanceTimes(**options), rng(1)
    for _ in range(50):
        t, _ = times(256, double, generator)
        times.record(t, peaked(t) * torch.rand(256, generator=generator, dtype=torch.float64))
    return times


laws = {
    "uniform": UniformTimes(),
    "beta": BetaTimes(1.0, 0.5),
    "beta, unbiased": BetaTimes(1.5, 0.5, unbiased=True),
    "importance": ImportanceTimes(),
    "importance, trained": trained(),
}
every = pytest.mark.parametrize("law", laws.values(), ids=laws)


def assert_mean(rows, value):
    error = 4 * rows.std() / len(rows) ** 0.5
    assert abs(rows.mean() - value) <= error, (rows.mean().item(), value, error.item())


@beta
def test_beta_times_have_their_distribution(a, b):
    t, weight = BetaTimes(a, b)(20_000, double, rng(3))
    assert scipy.stats.kstest(t.numpy(), scipy.stats.beta(a, b).cdf).pvalue > 1e-3
    assert_mean(t, a / (a + b))
    assert_mean((t - a / (a + b)) ** 2, a * b / ((a + b) ** 2 * (a + b + 1)))
    assert (weight == 1).all()


@beta
def test_the_density_is_that_of_beta(a, b):
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(
        BetaTimes(a, b).density(t), torch.tensor(scipy.stats.beta(a, b).pdf(t.numpy()))
    )


@every
def test_a_law_returns_times_and_weights_of_the_wanted_kind(law):
    for dtype in (torch.float32, torch.float64):
        t, weight = law(7, torch.zeros((), dtype=dtype), rng())
        assert t.shape == weight.shape == (7,) and t.dtype == weight.dtype == dtype
        assert torch.equal(t, law(7, torch.zeros((), dtype=dtype), rng())[0])
        assert not torch.equal(t, law(7, torch.zeros((), dtype=dtype), rng(1))[0])
    assert law(3)[0].dtype == torch.get_default_dtype()


@every
def test_times_have_the_default_dtype_whatever_it_is(law):
    torch.set_default_dtype(torch.float64)
    try:
        assert law(3)[0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_times_are_drawn_where_the_tensor_is_that_they_are_like():
    t, weight = UniformTimes()(3, like=torch.empty(0, device="meta"))
    assert t.device.type == weight.device.type == "meta"


@every
def test_times_lie_inside_in_single_precision(law):
    t, weight = law(200_000, generator=rng())
    assert 0 < t.min() and t.max() < 1 and torch.isfinite(weight).all() and (weight > 0).all()


@pytest.mark.parametrize("end", [0.0, 1 - 2**-24, 1 - 2**-53])
@every
def test_the_last_random_number_is_inside_too(law, end, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, **kw: torch.full((n,), end, dtype=kw.get("dtype")))
    t, _ = law(2, generator=rng())
    assert 0 < t.min() and t.max() < 1


def test_a_beta_that_crowds_the_ends_stays_inside_and_finite():
    t, _ = BetaTimes(0.01, 0.02)(10_000, generator=rng())
    assert 0 < t.min() and t.max() < 1
    assert_mean((t > 0.5).double(), scipy.stats.beta(0.01, 0.02).sf(0.5))


@pytest.mark.parametrize(
    "law", [v for k, v in laws.items() if k != "beta"], ids=[k for k in laws if k != "beta"]
)
def test_weights_keep_the_mean_over_uniform_times(law):
    t, weight = law(40_000, double, rng(5))
    assert_mean(weight * peaked(t), PEAKED)
    assert_mean(weight * t**2, 1 / 3)
    assert_mean(weight, 1.0)


@every
def test_the_density_is_that_of_the_draws(law):
    t, weight = law(20_000, double, rng(6))
    grid = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    p = law.density(grid)
    assert abs(p.mean() - 1) < 5e-3  # an end with infinite density
    cdf = lambda x: (p.cumsum(0) / p.sum())[(torch.as_tensor(x) * 200_000).long().clamp(max=199_999)].numpy()
    assert scipy.stats.kstest(t.numpy(), cdf).pvalue > 1e-3
    unbiased = getattr(law, "unbiased", True)
    torch.testing.assert_close(weight, 1 / law.density(t) if unbiased else torch.ones_like(t))


def test_without_weights_beta_weighs_the_times():
    t, weight = BetaTimes(1.0, 0.5)(40_000, double, rng(5))
    assert_mean(weight * (1 - t), 1 / 3)


def test_importance_lowers_the_variance_of_a_peaked_loss():
    n = 20_000
    plain = peaked(torch.rand(n, generator=rng(2), dtype=torch.float64))
    t, weight = trained()(n, double, rng(2))
    weighted = weight * peaked(t)
    assert weighted.var() < 0.1 * plain.var()
    assert weight.max() <= 1 / 0.1 + 1e-9


def test_importance_is_uniform_before_it_has_seen_a_loss_and_where_it_has_seen_none():
    times, t = ImportanceTimes(bins=4), torch.tensor([0.1, 0.3, 0.6, 0.9])
    assert (times.density(t) == 1).all()
    times.record(t[:2], torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(times.density(t), 0.1 + 0.9 * torch.tensor([0.5, 1.5, 1.0, 1.0]))
    times = ImportanceTimes(bins=4)
    times.record(t, torch.zeros(4))
    assert (times.density(t) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_importance_outlives_a_cast(dtype):
    times, t = ImportanceTimes(bins=4), torch.tensor([0.1, 0.3, 0.6, 0.9])
    times.record(t[:2], torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(times.to(dtype).density(t), 0.1 + 0.9 * torch.tensor([0.5, 1.5, 1.0, 1.0]))


@pytest.mark.parametrize(
    "law", [UniformTimes(), BetaTimes(1.0, 0.5), BetaTimes(2.0, 1.0, unbiased=True)], ids=repr
)
def test_laws_of_time_are_settings(law):
    for other in (pickle.loads(pickle.dumps(law)), copy.deepcopy(law), eval(repr(law))):
        assert other == law and hash(other) == hash(law) and repr(other) == repr(law)
        assert torch.equal(other(5, generator=rng())[0], law(5, generator=rng())[0])
    assert law != BetaTimes(3.0, 4.0)


def test_laws_of_time_print_without_defaults():
    laws = UniformTimes(), BetaTimes(1.0, 0.5), BetaTimes(1.0, 0.5, unbiased=True)
    assert [repr(law) for law in laws] == [
        "UniformTimes()",
        "BetaTimes(1.0, 0.5)",
        "BetaTimes(1.0, 0.5, unbiased=True)",
    ]


def test_laws_of_time_are_built_inside_a_compiled_function():
    torch._dynamo.reset()

    def draw(x):
        t, weight = UniformTimes()(4, x)
        s, other = BetaTimes(1.5, 0.5, unbiased=True)(4, x)
        return t * weight, s * other

    with seeded():
        wanted = draw(double)
    with seeded():
        found = torch.compile(draw, fullgraph=True, backend="eager")(double)
    torch.testing.assert_close(found, wanted)


class Late(TimeLaw):
    """One's own, by its two methods."""

    unbiased = True

    def draw(self, n, like, generator=None):
        return torch.rand(n, generator=generator, dtype=like.dtype, device=like.device).sqrt()

    def density(self, t):
        return 2 * t


def test_a_law_of_ones_own_has_weights():
    t, weight = Late()(40_000, double, rng(5))
    assert_mean(t, 2 / 3)
    assert_mean(weight * t**2, 1 / 3)


def test_both_ends_of_time_belong_to_a_bin():
    times, ends = ImportanceTimes(bins=4), torch.tensor([0.0, 1.0])
    times.record(ends, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(times.density(ends), 0.1 + 0.9 * torch.tensor([0.5, 1.5]))
    assert times.density(torch.tensor(1.0)) == times.density(torch.tensor(0.9))


def test_importance_goes_by_the_root_of_the_mean_square():
    times, t = ImportanceTimes(bins=2, uniform=0.5), torch.tensor([0.2, 0.3, 0.7, 0.8])
    times.record(t, torch.tensor([1.0, 7.0, 5.0, -5.0]))
    torch.testing.assert_close(times.density(t), torch.ones(4))
    times.record(t[:1], torch.tensor([15.0]))
    r = torch.tensor([((1 + 49) * 0.99 + 225) / (2 * 0.99 + 1), 25.0]).sqrt()
    torch.testing.assert_close(times.density(t[[0, 2]]), 0.5 + 0.5 * r / r.mean())


def test_importance_forgets():
    times, t = ImportanceTimes(bins=2, memory=5.0), torch.tensor([0.2, 0.8])
    times.record(t, torch.tensor([100.0, 1.0]))
    for _ in range(100):
        times.record(t, torch.tensor([1.0, 100.0]))
    p = times.density(t)
    assert p[1] > 10 * p[0]


def test_importance_keeps_its_state():
    times, fresh = trained(bins=8), ImportanceTimes(bins=8)
    fresh.load_state_dict(times.state_dict())
    for other in (fresh, copy.deepcopy(times)):
        assert torch.equal(other(100, generator=rng())[0], times(100, generator=rng())[0])


def test_no_gradient_flows_through_the_record():
    times, loss = ImportanceTimes(), torch.ones(2, requires_grad=True)
    times.record(torch.tensor([0.2, 0.8]), loss * 2)
    assert not times.squares.requires_grad


@every
def test_the_loop_is_the_same_for_all(law):
    x0, x1 = torch.randn(2, 64, 2, generator=rng())
    t, weight = law(64, x0, rng())
    loss = (weight * velocity_loss(lambda t, x, c: torch.zeros_like(x), Linear(), x0, x1, t=t)).mean()
    torch.testing.assert_close(loss, (weight * (x1 - x0).square().sum(1)).mean())
