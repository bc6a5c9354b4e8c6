"""Laws of importance weights: a known constant, unbiased and with a true error; bounds; tails of known shape."""

import math

import pytest
import torch
from registry import rng
from torch.distributions import Normal

from cnflib.metrics import effective_sample_size, log_z, pareto_k

LOG_Z = 3.7


def draws(n, scale=1.0, mean=0.0, seed=0):
    """Log-weights of draws of N(mean, scale²), for the target Z N(0, 1)."""
    q = Normal(torch.tensor(mean).double(), scale)
    x = mean + scale * torch.randn(n, generator=rng(seed), dtype=torch.float64)
    return LOG_Z + Normal(torch.zeros(()).double(), 1.0).log_prob(x) - q.log_prob(x)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.5), (0.5, 1.2), (-0.3, 1.0)])
def test_the_constant_of_a_gaussian_is_found_within_its_error(mean, scale):
    found = log_z(draws(5000, scale, mean))
    assert abs(found.value - LOG_Z) < 4 * found.standard_error < 0.1


def test_the_standard_error_is_the_spread_over_repetitions():
    found = [log_z(draws(400, 1.4, seed=k)) for k in range(300)]
    values, errors = torch.tensor(found).T
    assert values.std() == pytest.approx(errors.mean().item(), rel=0.12)
    assert abs(values.double().exp().mean() - math.exp(LOG_Z)) < 4 * values.double().exp().std() / 300**0.5


def test_the_exact_law_has_no_error():
    log_w = draws(50)
    assert log_z(log_w) == pytest.approx((LOG_Z, 0), abs=1e-12)
    assert effective_sample_size(log_w) == pytest.approx(50, rel=1e-12)
    assert pareto_k(log_w) == -math.inf


@pytest.mark.parametrize("scale", [1.3, 2.0])
def test_the_effective_sample_size_has_its_limit(scale):
    # E w² / (E w)² for N(0, 1) by N(0, s²): s² / sqrt(2 s² - 1)
    expected = math.sqrt(2 * scale**2 - 1) / scale**2
    assert effective_sample_size(draws(100_000, scale)) / 100_000 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.0, 3.0])
def test_the_effective_sample_size_lies_between_one_and_n_and_ignores_z(scale):
    log_w = draws(200, scale)
    size = effective_sample_size(log_w)
    assert 1 <= size <= 200 * (1 + 1e-12)
    assert effective_sample_size(log_w + 1e4) == pytest.approx(size, rel=1e-9)
    assert effective_sample_size(torch.cat([log_w, torch.full((7,), -math.inf)])) == pytest.approx(size)
    assert effective_sample_size(torch.tensor([0.0, 800.0, 0.0])) == 1


def test_the_error_and_the_effective_sample_size_say_the_same():
    log_w = draws(60, 1.5)
    relative = 60 / effective_sample_size(log_w) - 1
    assert log_z(log_w).standard_error == pytest.approx(math.sqrt(relative / 59), rel=1e-12)


def test_weights_far_from_one_do_not_overflow():
    for shift in (-1e5, 1e5):
        value, error = log_z(draws(50, 1.5) + shift)
        assert value == pytest.approx(log_z(draws(50, 1.5)).value + shift, rel=1e-12)
        assert error == pytest.approx(log_z(draws(50, 1.5)).standard_error, rel=1e-9)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9, 1.5])
def test_the_shape_of_a_pareto_tail_is_found(k):
    # U^-k is a generalised Pareto law of shape k above any threshold; the prior pulls 10 / (n + 10) towards 1/2.
    found = [
        pareto_k(-k * torch.rand(10_000, generator=rng(seed), dtype=torch.float64).log())
        for seed in range(30)
    ]
    n = 300
    expected = (n * k + 5) / (n + 10)
    assert abs(sum(found) / 30 - expected) < 4 * (1 + k) / math.sqrt(30 * n) + 0.02


def fitted(y):
    """The fit of Zhang and Stephens, number by number, and the prior of PSIS: ten points of shape 1/2."""
    n, m = len(y), 30 + int(len(y) ** 0.5)
    grid = [
        1 / y[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * y[int(n / 4 + 0.5) - 1]) for j in range(1, m + 1)
    ]
    shapes = [sum(math.log1p(-b * v) for v in y) / n for b in grid]
    logs = [n * (math.log(-b / k) - k - 1) for b, k in zip(grid, shapes)]
    b = sum(b / sum(math.exp(other - own) for other in logs) for b, own in zip(grid, logs))
    return (sum(math.log1p(-b * v) for v in y) + 10 * 0.5) / (n + 10)


@pytest.mark.parametrize("n", [25, 100, 2000])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_fit_is_the_published_one(n, scale):
    log_w = draws(n, scale)
    tail = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    cut, *largest = log_w.exp().sort().values[-tail - 1 :].tolist()
    assert pareto_k(log_w) == pytest.approx(fitted([w - cut for w in largest]), rel=1e-6)


@pytest.mark.parametrize("scale", [0.4, 0.6, 0.8])
def test_a_normal_law_too_narrow_has_weights_of_shape_one_minus_its_variance(scale):
    found = [pareto_k(draws(100_000, scale, seed=seed)) for seed in range(5)]
    assert sum(found) / 5 == pytest.approx(1 - scale**2, abs=0.12)


def test_bounded_weights_have_a_negative_shape_and_one_that_is_alone_a_large_one():
    assert pareto_k(draws(10_000, 2.0)) < 0.1
    assert pareto_k(torch.rand(10_000, generator=rng(1), dtype=torch.float64).log()) < -0.5  # k = -1
    alone = torch.zeros(1000)
    alone[3] = 500.0
    assert pareto_k(alone) > 1
    assert pareto_k(torch.where(alone > 0, 0.0, -math.inf)) > 1


def test_a_dropped_mode_shows_in_none_of_them():
    x = torch.randn(4000, generator=rng(1), dtype=torch.float64) - 10
    log_q = Normal(-10.0, 1.0).log_prob(x)
    log_p = torch.logaddexp(log_q, Normal(10.0, 1.0).log_prob(x)) - math.log(2)  # mass 1, half of it at 10
    value, error = log_z(log_p - log_q)
    assert value == pytest.approx(-math.log(2), abs=1e-6) and error < 1e-6
    assert effective_sample_size(log_p - log_q) == pytest.approx(4000) and pareto_k(log_p - log_q) < 0.5


FAULTS = {
    "NaN": (lambda: log_z(torch.tensor([0.0, math.nan])), "log_w.*NaN"),
    "+inf": (lambda: effective_sample_size(torch.tensor([0.0, math.inf])), r"log_w.*\+inf"),
    "nothing": (lambda: log_z(torch.full((4,), -math.inf)), "log_w finite at one draw"),
    "column": (lambda: log_z(torch.zeros(4, 1)), r"log_w to be a tensor of shape \(N,\)"),
    "few": (lambda: pareto_k(torch.zeros(24)), "N ≥ 25"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    call, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        call()
