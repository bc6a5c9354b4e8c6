"""Laws of two-sample statistics: closed forms between Gaussians, scipy's numbers, invariances, exact p-values."""

import math

import pytest
import scipy.stats
import torch
from registry import rng

from cnflib.metrics import MMD, EnergyDistance, SlicedWasserstein, TwoSampleStatistic, permutation_test

STATISTICS = [EnergyDistance(), MMD(), MMD((0.5, 2.0)), SlicedWasserstein(20), SlicedWasserstein(20, order=1)]
each = pytest.mark.parametrize("statistic", STATISTICS, ids=repr)


class FirstMean(TwoSampleStatistic):
    """One's own: the difference of the means of the first coordinate, in one direction."""

    def splits(self, points, member, generator=None):
        a, b = member.double(), (~member).double()
        return b @ points[:, 0] / b.sum(1) - a @ points[:, 0] / a.sum(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def rotation(dims, seed=0):
    return torch.linalg.qr(normal(dims, dims, seed=seed))[0]


def quantiles(n, mean=0.0, scale=1.0):
    """Points that stand for a normal law with an error of order 1/n: the quantiles of n equal cells."""
    q = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return (mean + scale * torch.special.ndtri(q))[:, None]


def absolute_moment(mean, variance):
    """E|X| of a normal law."""
    law = torch.distributions.Normal(0.0, 1.0)
    m, s = mean, math.sqrt(variance)
    density = math.exp(-0.5 * (m / s) ** 2) / math.sqrt(2 * math.pi)
    return 2 * s * density + m * (2 * law.cdf(torch.tensor(m / s, dtype=torch.float64)).item() - 1)


@pytest.mark.parametrize(("mean", "scale"), [(1.0, 1.0), (0.0, 2.0), (0.7, 0.5)])
def test_distances_between_gaussians_have_their_closed_forms(mean, scale):
    x, y = quantiles(800), quantiles(800, mean, scale)
    energy = (
        2 * absolute_moment(mean, 1 + scale**2) - absolute_moment(0, 2) - absolute_moment(0, 2 * scale**2)
    )
    assert EnergyDistance()(x, y) == pytest.approx(energy, abs=0.01)

    def kernel(m, variance, sigma):
        return sigma / math.sqrt(sigma**2 + variance) * math.exp(-0.5 * m**2 / (sigma**2 + variance))

    mmd = sum(
        kernel(0, 2, s) + kernel(0, 2 * scale**2, s) - 2 * kernel(mean, 1 + scale**2, s) for s in (0.5, 2)
    )
    assert MMD((0.5, 2.0))(x, y) == pytest.approx(mmd / 2, abs=0.004)
    assert SlicedWasserstein(3)(x, y) == pytest.approx(math.hypot(mean, scale - 1), abs=0.01)


def test_the_median_heuristic_is_the_bandwidth_it_says():
    x, y = normal(40, 3), 1 + normal(30, 3, seed=1)
    median = torch.pdist(torch.cat([x, y])).median().item()
    assert MMD()(x, y) == pytest.approx(MMD((median,))(x, y), rel=1e-12)


def test_mmd_is_unbiased_and_the_energy_distance_is_not_negative():
    pairs = [(normal(6, 2, seed=k), normal(4, 2, seed=1000 + k)) for k in range(400)]
    values = torch.tensor([MMD((1.0,))(x, y) for x, y in pairs])
    assert abs(values.mean()) < 4 * values.std() / 20 and (values < 0).any()
    assert all(EnergyDistance()(x, y) >= 0 for x, y in pairs[:50])
    assert EnergyDistance()(pairs[0][0], pairs[0][0].flip(0)) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (17, 40), (2, 5)])
def test_they_agree_with_scipy_in_one_dimension(n, m):
    x, y = normal(n, 1), 0.5 + 2 * normal(m, 1, seed=1)
    a, b = x[:, 0].numpy(), y[:, 0].numpy()
    assert EnergyDistance()(x, y) ** 0.5 == pytest.approx(scipy.stats.energy_distance(a, b), rel=1e-10)
    assert SlicedWasserstein(2, order=1)(x, y) == pytest.approx(
        scipy.stats.wasserstein_distance(a, b), rel=1e-10
    )


def test_w2_of_unequal_sizes_is_that_of_repeated_points():
    x, y = normal(6, 2), normal(4, 2, seed=1)
    whole = SlicedWasserstein()(x.repeat(2, 1), y.repeat(3, 1), rng(1))
    assert SlicedWasserstein()(x, y, rng(1)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_sliced_w2_of_a_shift_is_its_length_over_the_root_of_the_dimension(dims):
    x, shift = normal(30, dims), torch.linspace(1, 2, dims, dtype=torch.float64)
    expected = (shift.square().sum() / dims).sqrt().item()
    assert SlicedWasserstein(40_000)(x, x + shift, rng(1)) == pytest.approx(expected, rel=0.015)


@each
def test_a_statistic_is_symmetric_and_ignores_the_order_of_points_and_translations(statistic):
    x, y = normal(12, 3), 1 + 2 * normal(9, 3, seed=1)
    value = statistic(x, y, rng(1))
    for a, b in (
        (y, x),
        (x.flip(0), y.flip(0)),
        (x + 100, y + 100),
        (x.reshape(12, 3, 1), y.reshape(9, 3, 1)),
    ):
        assert statistic(a, b, rng(1)) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS[:3], ids=repr)
def test_distances_between_points_do_not_see_a_rotation(statistic):
    x, y, Q = normal(12, 4), 1 + 2 * normal(9, 4, seed=1), rotation(4)
    assert statistic(x @ Q, y @ Q) == pytest.approx(statistic(x, y), rel=1e-10)


@pytest.mark.parametrize(
    ("statistic", "power"), [(EnergyDistance(), 1), (MMD(), 0), (SlicedWasserstein(20), 1)], ids=repr
)
def test_the_unit_of_x_is_that_of_the_statistic(statistic, power):
    x, y = normal(12, 3), 1 + normal(9, 3, seed=1)
    assert statistic(10 * x, 10 * y, rng(1)) == pytest.approx(10**power * statistic(x, y, rng(1)), rel=1e-9)


@each
def test_many_splits_are_each_split_alone(statistic):
    points, member = normal(11, 2), torch.rand(5, 11, generator=rng(1)).argsort(1) < 4
    values = statistic.splits(points, member, rng(2))
    alone = [statistic(points[m], points[~m], rng(2)) for m in member]
    assert values.tolist() == pytest.approx(alone, rel=1e-10)


@pytest.mark.parametrize(
    "statistic", [*STATISTICS[:2], SlicedWasserstein(5), FirstMean()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize(("n", "m"), [(12, 12), (5, 20)])
def test_the_p_value_is_uniform_for_samples_of_one_law(statistic, n, m):
    generator = rng(1)
    ps = [
        permutation_test(
            *torch.randn(n + m, 2, generator=generator).split([n, m]), statistic, 19, generator
        ).p_value
        for _ in range(300)
    ]
    # p is uniform on 1/20, …, 1: spread over the step below it is uniform on [0, 1].
    assert min(ps) >= 1 / 20
    spread = torch.tensor(ps).double() - torch.rand(300, generator=generator, dtype=torch.float64) / 20
    assert scipy.stats.kstest(spread, "uniform").pvalue > 0.01


@pytest.mark.parametrize("statistic", [EnergyDistance(), MMD(), SlicedWasserstein(3)], ids=repr)
def test_the_p_value_is_that_of_all_splits_where_these_are_few(statistic):
    x, y = 1.3 * torch.tensor([[[0.0], [1.0], [2.5]], [[4.0], [4.5], [6.0]]], dtype=torch.float64)
    # Of the 20 splits into 3 and 3 two are as far apart as this one: itself, and its mirror image up to rounding.
    p = permutation_test(x, y, statistic, 4000, rng(1)).p_value
    assert abs(p - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 4000)


@pytest.mark.parametrize("statistic", STATISTICS[:4], ids=repr)
@pytest.mark.parametrize(
    "wrong", [lambda y: y + 1, lambda y: 3 * y, lambda y: y.abs()], ids=["shift", "scale", "fold"]
)
def test_a_clear_difference_is_found(statistic, wrong):
    found = permutation_test(normal(60, 2), wrong(normal(70, 2, seed=1)), statistic, 199, rng(2))
    assert found.p_value == 1 / 200
    assert found.statistic == pytest.approx(
        statistic(normal(60, 2), wrong(normal(70, 2, seed=1)), rng(2)), rel=0.5
    )


def test_equal_points_show_no_difference():
    x = torch.ones(5, 2)
    for statistic in STATISTICS:
        assert permutation_test(x, x, statistic, 19).p_value == 1


def test_float32_and_graphs_are_taken_and_the_generator_alone_decides():
    x, y = normal(20, 2).float().requires_grad_(), normal(20, 2, seed=1).float()
    state = torch.get_rng_state()
    first, second = (permutation_test(x, y, SlicedWasserstein(5), 49, rng(1)) for _ in range(2))
    assert first == second and all(type(v) is float for v in first)
    assert torch.equal(state, torch.get_rng_state())
    assert str(first) == f"{first.statistic:.3g}, p = {first.p_value:.2g}"


X = torch.zeros(4, 2)
FAULTS = {
    "numbers": (lambda: EnergyDistance()(X[:, 0], X[:, 0]), "x of shape"),
    "events": (lambda: MMD()(X, torch.zeros(4, 3)), r"\(4, 2\) and \(4, 3\)"),
    "one point": (lambda: permutation_test(X, X[:1]), "N, M ≥ 2"),
    "NaN": (lambda: EnergyDistance()(X, X * torch.nan), "finite y"),
    "integers": (lambda: MMD()(X.long(), X), "x to be a tensor of a floating dtype"),
    "no splits": (lambda: permutation_test(X, X, permutations=0), "permutations"),
    "no directions": (lambda: SlicedWasserstein(0), "projections"),
    "order below 1": (lambda: SlicedWasserstein(order=0.5), "order"),
    "no bandwidth": (lambda: MMD(()), "bandwidths"),
    "bandwidth 0": (lambda: MMD((0.0,)), "bandwidths"),
    "a number": (lambda: MMD(1.0), "bandwidths"),
    "data for settings": (lambda: EnergyDistance(X, X), r"EnergyDistance\(\)"),
    "a class": (lambda: permutation_test(X, X, MMD), r"MMD\(\)"),
    "a name": (lambda: permutation_test(X, X, "mmd"), "statistic"),
    "overflow": (lambda: permutation_test(X.double(), X.double() + 1e200), "finite values"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    call, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        call()
