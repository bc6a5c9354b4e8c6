"""Laws of calibration: uniform under the truth for any number of draws, not otherwise; regions hold what they say."""

import numpy as np
import pytest
import torch
from registry import built, flows, rng
from scipy.stats import kstest

from cnflib import Flow, Standardize, StandardNormal
from cnflib.adapters import given
from cnflib.metrics import (
    central_level,
    coverage,
    density_level,
    latent_pit,
    pit,
    rank_uniformity,
    ranks,
    tarp_level,
    uniformity,
)


def normal(*shape, seed=0, generator=None):
    return torch.randn(*shape, generator=generator or rng(seed), dtype=torch.float64)


def rounded(*shape, seed=0):
    """A law with ties."""
    return (2 * normal(*shape, seed=seed)).round()


def simulated(n, S, seed=0, spread=1.0, shift=0.0):
    """Parameters θ ~ N(0, 1) that gave y ~ N(θ, 1), and S draws of the posterior N(y/2, 1/2), or of a wrong one."""
    generator = rng(seed)
    theta = normal(n, generator=generator)
    y = theta + normal(n, generator=generator)
    return theta, y / 2 + shift + spread * 0.5**0.5 * normal(S, n, generator=generator)


@pytest.mark.parametrize("law", [normal, rounded], ids=["continuous", "ties"])
@pytest.mark.parametrize("S", [1, 2, 7])
def test_ranks_are_uniform_for_any_number_of_draws(law, S):
    n = 40_000
    counts = torch.bincount(ranks(law(n, seed=1), law(S, n, seed=2), rng(3)), minlength=S + 1)
    assert len(counts) == S + 1
    q = 1 / (S + 1)
    assert (counts / n - q).abs().max() < 4 * (q * (1 - q) / n) ** 0.5


@pytest.mark.parametrize("law", [normal, rounded], ids=["continuous", "ties"])
@pytest.mark.parametrize("S", [1, 5, 40])
def test_pit_is_uniform_for_any_number_of_draws(law, S):
    u = pit(law(5000, seed=1), law(S, 5000, seed=2), rng(3))
    assert ((u >= 0) & (u < 1)).all() and kstest(u, "uniform").pvalue > 1e-3


def test_many_draws_give_the_distribution_function():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    u = pit(x, normal(20_000, 9), rng(1))
    assert (u - torch.special.ndtr(x)).abs().max() < 4 * 0.5 / 20_000**0.5


def test_ranks_ignore_the_order_of_draws_and_increasing_maps():
    x, draws = normal(50, 3), normal(8, 50, 3, seed=1)
    r = ranks(x, draws)
    assert r.shape == x.shape and r.dtype == torch.int64
    assert torch.equal(r, ranks(x.exp(), draws.exp())) and torch.equal(r, ranks(x, draws.flip(0)))
    assert torch.equal(8 - r, ranks(-x, -draws))


@pytest.mark.parametrize("name", ["realnvp context", "spline_flow context"])
def test_the_pit_of_a_flow_by_draws_is_that_by_latents_where_both_are_the_truth(name):
    member = flows[name]
    flow, context = built(member), normal(300, member.context, seed=6)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        draws = given(flow, context).sample((11,))
        x = flow.sample(300, context, rng(1))
        latents = latent_pit(flow.encode(x, context))
        levels = density_level(flow.log_prob(x, context), given(flow, context).log_prob(draws), rng(2))
    for u in (
        latents,
        pit(x, draws, rng(3)),
        levels,
        tarp_level(x, draws, normal(300, *member.shape, seed=4), rng(5)),
    ):
        assert uniformity(u).p_value > 1e-3
    assert kstest(latents.flatten(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("mean", "std"), [(0.3, 1.0), (0.0, 1.3), (0.0, 0.75)])
def test_a_wrong_flow_is_seen_in_its_latents(mean, std):
    flow = Flow(Standardize(torch.tensor([mean]), torch.tensor([std])), StandardNormal(1))
    u = latent_pit(flow.encode(normal(2000, 1).float()))
    assert min(uniformity(u).p_value, uniformity(central_level(u)).p_value) < 1e-6


@pytest.mark.parametrize("S", [1, 9, 30])
def test_ranks_of_a_conjugate_posterior_are_uniform_and_of_a_wrong_one_not(S):
    assert rank_uniformity(ranks(*simulated(2000, S)), S).p_value > 1e-3
    assert rank_uniformity(ranks(*simulated(2000, S, shift=0.3)), S).p_value < 1e-3
    if S > 1:  # a single draw is as often above as below whatever its spread
        assert rank_uniformity(ranks(*simulated(2000, S, spread=0.6)), S).p_value < 1e-3
    assert uniformity(pit(*simulated(2000, S), rng(1))).p_value > 1e-3


@pytest.mark.parametrize(("S", "bins"), [(9, 20), (9, 4), (12, 5)])
def test_the_p_value_of_ranks_is_uniform(S, bins):
    ps = [
        rank_uniformity(torch.randint(S + 1, (200,), generator=rng(k)), S, bins).p_value for k in range(300)
    ]
    assert kstest(ps, "uniform").pvalue > 0.01


@pytest.mark.parametrize("n", [5, 40])
def test_the_p_value_of_uniformity_is_uniform(n):
    ps = [uniformity(u).p_value for u in torch.rand(300, n, generator=rng(2), dtype=torch.float64)]
    assert kstest(ps, "uniform").pvalue > 0.01


def test_several_coordinates_keep_the_level_even_if_they_are_one():
    u = torch.rand(300, 30, generator=rng(1), dtype=torch.float64)
    for copies in (u[..., None].expand(300, 30, 4), torch.rand(300, 30, 4, generator=rng(2))):
        p = torch.tensor([uniformity(one).p_value for one in copies])
        for a in (0.05, 0.2):
            assert (p <= a).double().mean() < a + 3 * (a * (1 - a) / 300) ** 0.5
    columns = [kstest(column, "uniform") for column in copies[0].T]
    assert uniformity(copies[0]).statistic == pytest.approx(max(c.statistic for c in columns))
    assert uniformity(copies[0]).p_value == pytest.approx(min(1, 4 * min(c.pvalue for c in columns)))
    assert uniformity(u[0]).statistic == uniformity(u[0][:, None].expand(30, 3)).statistic


@pytest.mark.parametrize("S", [1, 4, 50])
def test_regions_hold_their_share_in_any_dimension(S):
    n, D = 4000, 3
    x, draws = normal(n, D), normal(S, n, D, seed=1)
    log_prob = torch.distributions.Normal(0.0, 1.0).log_prob
    levels = {
        "central": central_level(pit(x, draws, rng(2)))[:, 0],
        "density": density_level(log_prob(x).sum(-1), log_prob(draws).sum(-1), rng(3)),
        "tarp": tarp_level(x, draws, normal(n, D, seed=4) + 1, rng(5)),
    }
    for name, level in levels.items():
        for a, (share, error) in zip(*coverage(level, (0.25, 0.5, 0.9))):
            assert abs(share - a) < 4 * error, name


def test_levels_of_highest_density_are_those_of_the_chi_square_law():
    x, draws = normal(8, 2), normal(20_000, 8, 2, seed=1)
    level = density_level(-x.square().sum(-1), -draws.square().sum(-1), rng(2))
    exact = 1 - (-x.square().sum(-1) / 2).exp()  # 2 degrees of freedom
    assert (level - exact).abs().max() < 4 * 0.5 / 20_000**0.5


def test_draws_that_serve_all_rows_are_those_draws_repeated():
    """The levels then depend on each other: a share has the error of N rows and of S draws."""
    x, own, r = normal(400, 2), normal(3000, 2, seed=1), normal(400, 2, seed=2)
    shared, repeated = own[:, None], own[:, None].expand(3000, 400, 2)
    assert torch.equal(ranks(x, shared, rng()), ranks(x, repeated, rng()))
    assert torch.equal(tarp_level(x, shared, r, rng()), tarp_level(x, repeated, r, rng()))
    log_prob = lambda x: -x.square().sum(-1) / 2
    level = density_level(log_prob(x), log_prob(own)[:, None], rng())
    assert torch.equal(level, density_level(log_prob(x), log_prob(repeated), rng()))
    for a, (share, error) in zip(*coverage(level)):
        assert abs(share - a) < 4 * error * (1 + 400 / 3000) ** 0.5


def test_a_point_of_density_zero_is_outside_of_all_regions():
    level = density_level(torch.full((5,), -torch.inf), normal(30, 5), rng(1))
    assert (level > 1 - 1 / 31).all()


def test_a_model_too_sure_covers_too_little_and_one_unsure_too_much():
    x = normal(3000)
    for spread, sign in ((0.5, -1), (2.0, 1)):
        _, shares = coverage(central_level(pit(x, spread * normal(99, 3000, seed=1), rng(2))), (0.5, 0.9))
        assert all(sign * (share - a) > 4 * error for a, (share, error) in zip((0.5, 0.9), shares))


def test_the_error_of_a_coverage_is_its_spread_over_repetitions():
    shares = [coverage(u, (0.8,)).shares[0] for u in torch.rand(500, 100, generator=rng(1))]
    values = torch.tensor([s.value for s in shares])
    assert values.std() == pytest.approx(shares[0].standard_error, rel=0.1)


def test_references_that_depend_on_the_context_see_a_posterior_that_is_the_prior():
    theta, y = normal(2000, 1), normal(2000, 1, seed=1)
    x, prior = theta + y, 2**0.5 * normal(50, 2000, 1, seed=2)
    assert uniformity(pit(x, prior, rng(3))).p_value > 1e-3
    assert uniformity(tarp_level(x, prior, y, rng(4))).p_value < 1e-6


def test_latents_and_levels_may_be_numpy_s():
    z = normal(30)
    assert torch.equal(latent_pit(z.numpy()), latent_pit(z))
    assert coverage(latent_pit(z), np.array([0.5, 0.9])) == coverage(latent_pit(z), (0.5, 0.9))


def test_a_coverage_prints_a_line_for_each_level():
    lines = str(coverage(torch.tensor([0.1, 0.6, 0.7, 0.97]), (0.5, 0.95))).split("\n")
    assert lines == [" 50.0%: 25.0 ± 25.0 %", " 95.0%: 75.0 ± 10.9 %"]


def test_draws_of_a_generator_are_repeated_and_torch_s_own_are_left():
    x, draws = rounded(20), rounded(3, 20, seed=1)
    state = torch.get_rng_state()
    assert torch.equal(pit(x, draws, rng(1)), pit(x, draws, rng(1)))
    assert torch.equal(state, torch.get_rng_state())


X = torch.zeros(4, 2)
FAULTS = {
    "no draws": (lambda: ranks(X, X), r"draws of x.*\(S, 4, 2\).*\(4, 2\)"),
    "rows first": (lambda: pit(X, torch.zeros(4, 9, 2)), "draws of x"),
    "empty": (lambda: pit(X, torch.zeros(0, 4, 2)), "draws of x"),
    "NaN": (lambda: pit(X * torch.nan, X[None]), "x and its draws without NaN"),
    "NaN draws": (lambda: ranks(X, X[None] * torch.nan), "x and its draws without NaN"),
    "reference": (lambda: tarp_level(X, X[None], X[:1]), "reference of the shape of x, .4, 2."),
    "too few draws": (lambda: rank_uniformity(torch.arange(9), 5), "draws = 5.* from 0 to 8"),
    "no rank": (lambda: rank_uniformity(torch.arange(0), 5), r"ranks.*at least one; got \(0,\)"),
    "ranks of a PIT": (lambda: rank_uniformity(torch.rand(9), 5), r"torch.float32.*uniformity\(u\)"),
    "ranks of NumPy": (lambda: rank_uniformity(np.arange(5), 5), "got ndarray, of which torch.as_tensor"),
    "one bin": (lambda: rank_uniformity(torch.arange(5), 5, bins=1), "Expected bins"),
    "x of NumPy": (
        lambda: pit(X.numpy(), X[None]),
        r"draws of x.*got \(1, 4, 2\) for x of ndarray.*as_tensor",
    ),
    "draws of NumPy": (lambda: pit(X, X[None].numpy()), "draws of x.*got ndarray.*as_tensor"),
    "draws for all rows": (lambda: density_level(X[:, 0], torch.zeros(9)), r"draws\[:, None\]"),
    "several coordinates": (lambda: coverage(X), r"level of shape \(N,\)"),
    "per cent": (lambda: coverage(X[:, 0], (50, 90)), r"levels.*in \(0, 1\); got \(50, 90\)"),
    "a certain level": (lambda: coverage(X[:, 0], (0.5, 1.0)), "levels"),
    "one level": (lambda: coverage(X[:, 0], 0.9), r"got 0.9.*\(0.9,\)"),
}
NO_PIT = {
    "NaN": torch.tensor([0.1, torch.nan]),
    "above one": torch.tensor([0.1, 1.1]),
    "latents": torch.tensor([-0.1, 0.3]),
    "empty": torch.zeros(0),
    "ranks": torch.arange(2),
    "a truth value": torch.tensor([True, False]),
    "NumPy": np.array([0.1, 0.2]),
}


@pytest.mark.parametrize("name", NO_PIT)
@pytest.mark.parametrize("measure", [uniformity, central_level, coverage])
def test_what_is_no_pit_and_no_level_is_refused(measure, name):
    with pytest.raises(ValueError, match=r"in \[0, 1\].*latent_pit.*rank_uniformity"):
        measure(NO_PIT[name])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    call, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        call()
