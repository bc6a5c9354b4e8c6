"""What chapter 14 derives holds letter by letter: bounds, lost answers, noise in a weight, the numbers by hand."""

import itertools
import math

import pytest
import torch
from sympy import Matrix, Rational, cosh, exp, log, simplify, symbols

HALF = Rational(1, 2)


def weights_of_two(likelihoods: tuple[Rational, Rational], q: tuple[Rational, Rational]) -> list:
    """The weights p(x, z) / q(z | x) of a latent of two values with an even prior."""
    return [HALF * like / share for like, share in zip(likelihoods, q, strict=True)]


def test_the_tilted_histogram_by_hand():
    """(14.1)."""
    weights = [chi * 2**k for k, chi in enumerate((Rational(5, 10), Rational(1, 10), Rational(4, 10)))]
    law = [float(w / sum(weights)) for w in weights]
    assert sum(weights) == Rational(23, 10) and law == pytest.approx([0.217, 0.087, 0.696], abs=6e-4)


@pytest.mark.parametrize("zeta", [-1.3, 0.0, 0.7])
def test_binomial_coefficients_tilted_are_binomial(zeta):
    share = 1 / (1 + math.exp(-zeta))
    weights = [math.comb(16, k) * math.exp(k * zeta) for k in range(17)]
    for k, weight in enumerate(weights):
        binomial = math.comb(16, k) * share**k * (1 - share) ** (16 - k)
        assert weight / sum(weights) == pytest.approx(binomial, rel=1e-12)


def test_a_lost_answer_by_hand():
    """Theorem 14.1 with numbers: the gap is minus the log of what q kept."""
    likelihoods = Rational(8, 100), Rational(2, 100)
    p = HALF * sum(likelihoods)
    assert p == Rational(5, 100) and HALF * likelihoods[0] / p == Rational(8, 10)
    elbo = log(HALF * likelihoods[0])
    assert abs(float(elbo) + 3.219) < 6e-4 and abs(float(log(p)) + 2.996) < 6e-4
    assert simplify(log(p) - elbo - log(Rational(10, 8))) == 0
    assert abs(float(log(Rational(10, 8))) - 0.223) < 6e-4


def test_exercise_14_2():
    likelihoods, q = (Rational(3, 10), Rational(1, 10)), (HALF, HALF)
    weights, p = weights_of_two(likelihoods, q), Rational(2, 10)
    elbo = sum(share * log(w) for share, w in zip(q, weights, strict=True))
    pairs = itertools.product(zip(q, weights, strict=True), repeat=2)
    two = sum(a * b * log((v + w) / 2) for (a, v), (b, w) in pairs)
    for value, stated in ((elbo, -1.753), (log(p), -1.609), (two, -1.681), (log(p) - elbo, 0.144)):
        assert float(value) == pytest.approx(stated, abs=6e-4)
    assert simplify((log(p) - two) / (log(p) - elbo)) == HALF
    lost = log(p / (HALF * likelihoods[0]))
    assert float(lost) == pytest.approx(0.288, abs=6e-4) and lost > log(p) - elbo


def test_no_density_that_is_zero_on_a_set_has_a_smaller_gap():
    """The reverse divergence is at least -log(1 - eps), and the restricted posterior attains it."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(9, generator=generator, dtype=torch.float64).softmax(0)
    kept, floor = p[3:], -p[3:].sum().log()
    best = kept / kept.sum()
    assert (best * (best / kept).log()).sum() == pytest.approx(floor.item())
    for _ in range(20):
        q = (3 * torch.randn(6, generator=generator, dtype=torch.float64)).softmax(0)
        assert (q * (q / kept).log()).sum() >= floor - 1e-12
    assert 1 - math.exp(-0.3) == pytest.approx(0.26, abs=2e-3)  # Check A


def test_the_bound_rises_with_the_number_of_draws():
    """Theorem 14.2, by all draws of a latent of three values."""
    prior, likelihood = (0.2, 0.5, 0.3), (0.02, 0.3, 0.1)
    q = (0.5, 0.2, 0.3)
    weights = [a * b / c for a, b, c in zip(prior, likelihood, q, strict=True)]
    bounds = []
    for K in range(1, 8):
        draws = itertools.product(range(3), repeat=K)
        bounds.append(
            sum(math.prod(q[k] for k in d) * math.log(sum(weights[k] for k in d) / K) for d in draws)
        )
    assert all(a < b for a, b in itertools.pairwise(bounds))
    assert bounds[-1] < math.log(sum(a * b for a, b in zip(prior, likelihood, strict=True)))


def test_noise_lifts_the_bound_by_half_its_variance():
    """(14.10), and the two-valued noise of Exercise 14.4."""
    e, sigma = symbols("e sigma", real=True)
    square = -((e + sigma**2) ** 2) / (2 * sigma**2)  # of a normal law, whose mass is 1
    assert simplify(-e - e**2 / (2 * sigma**2) - sigma**2 / 2 - square) == 0
    assert simplify((exp(sigma) + exp(-sigma)) / 2 - cosh(sigma).rewrite(exp)) == 0
    assert float(log(cosh(1))) == pytest.approx(0.434, abs=6e-4)
    assert 0.9**2 / 2 == pytest.approx(0.405)  # Check B


def test_the_price_of_the_prior_splits():
    """Exercise 14.5, for a table of posteriors: the mean KL is the information and the aggregate's KL."""
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(20, 6, generator=generator, dtype=torch.float64).mul(3).softmax(1)
    prior = torch.randn(6, generator=generator, dtype=torch.float64).softmax(0)
    aggregate = q.mean(0)
    information = (q * (q / aggregate).log()).sum(1).mean()
    waste = (aggregate * (aggregate / prior).log()).sum()
    assert (q * (q / prior).log()).sum(1).mean() == pytest.approx((information + waste).item())
    assert information < math.log(20)
    assert math.log(1437) == pytest.approx(7.27, abs=5e-3)


def test_the_ruler_of_the_hidden_half():
    """(14.7), for a table of a latent of five values: the mean of the harmonic mean is the integral."""
    generator = torch.Generator().manual_seed(3)
    seen, q = torch.randn(2, 5, generator=generator, dtype=torch.float64).softmax(1)
    likelihood = torch.rand(5, generator=generator, dtype=torch.float64)
    hidden = (likelihood * seen).sum()
    r, a = q / seen, likelihood / hidden
    mean = ((q + a * seen) / 2 * (2 * r * a / (r + a))).sum()
    assert (hidden * mean).item() == pytest.approx((likelihood * q).sum().item())


def test_training_on_dreams_is_the_forward_divergence():
    """(14.8), for a table of joint probabilities: the cross-entropies of two q differ as their divergences do."""
    generator = torch.Generator().manual_seed(2)
    joint = torch.rand(5, 7, generator=generator, dtype=torch.float64)  # of z and x
    joint /= joint.sum()
    posterior, p = joint / joint.sum(0), joint.sum(0)
    constants = []
    for _ in range(3):
        q = torch.randn(5, 7, generator=generator, dtype=torch.float64).softmax(0)
        divergence = (p * (posterior * (posterior / q).log()).sum(0)).sum()
        constants.append(-(joint * q.log()).sum() - divergence)
    assert constants[0] == pytest.approx(constants[1].item()) == pytest.approx(constants[2].item())


def test_a_low_rank_update_has_few_numbers():
    """(14.6): m + n of them, and no matrix for each row."""
    W, U, V, h = (Matrix(*shape, symbols(f"{name}:9")[: shape[0] * shape[1]]) for name, shape in SHAPES)
    assert simplify((W + U * V.T) * h - (W * h + U * (V.T * h))) == Matrix([0, 0, 0])
    assert len(U) + len(V) == 5


SHAPES = (("W", (3, 2)), ("U", (3, 1)), ("V", (2, 1)), ("h", (2, 1)))
