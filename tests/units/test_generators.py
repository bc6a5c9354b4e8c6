"""Fréchet distance, precision and recall, memorisation: closed forms, invariance, bias, what a copy gives."""

import math

import pytest
import torch

from cnflib.interpolants import gaussian_cost
from cnflib.metrics import frechet_distance, memorisation, precision_recall


def points(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(seed, D):
    return torch.linalg.qr(points(seed, D, D)).Q


def test_the_frechet_distance_is_the_transport_cost_of_the_fitted_gaussians():
    x, y = points(0, 300, 4) @ points(1, 4, 4), 2 + points(2, 200, 4) @ points(3, 4, 4)
    wanted = gaussian_cost(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    assert frechet_distance(x, y) == pytest.approx(wanted.item(), rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("N", [3, 5, 200])
def test_it_is_zero_between_a_sample_and_itself_and_the_square_of_a_shift(N):
    x = points(4, N, 5)
    assert abs(frechet_distance(x, x)) < 1e-12
    assert frechet_distance(x, x + 2) == pytest.approx(20, rel=1e-9)
    assert frechet_distance(x, 3 * x) == pytest.approx(
        4 * (x.mean(0).square().sum() + x.T.cov().trace()).item(), rel=1e-9
    )


def test_it_does_not_see_a_rotation_of_both_nor_anything_but_two_moments():
    x, y, Q = points(5, 80, 3), 1 + 2 * points(6, 90, 3), rotation(7, 3)
    assert frechet_distance(x @ Q, y @ Q) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    two = (
        torch.tensor([[-1.0], [1.0]]).double().repeat(50, 1)
    )  # two atoms, and their Gaussian by its quantiles
    z = torch.special.ndtri((torch.arange(100).double() + 0.5) / 100)[:, None]
    bell = (z - z.mean()) / z.std() * two.std()
    assert abs(frechet_distance(two, bell)) < 1e-12


@pytest.mark.parametrize(("D", "N", "scale"), [(3, 400, 1.0), (16, 400, 1.0), (16, 400, 0.8)])
def test_its_bias_is_the_one_of_the_formula(D, N, scale):
    """(1 - s)² D + (1 + s²) D/N + s D (D + 1) / 2N for N(0, I) against N(0, s² I)."""
    values = torch.tensor([frechet_distance(*_pair(seed, N, D, scale)) for seed in range(60)])
    formula = (1 - scale) ** 2 * D + (1 + scale**2) * D / N + scale * D * (D + 1) / (2 * N)
    assert abs(values.mean().item() - formula) < 4 * values.std().item() / math.sqrt(60) + 0.03 * formula


def _pair(seed, N, D, scale):
    x, y = points(100 + seed, 2, N, D)
    return x, scale * y


def test_a_bias_falls_like_one_over_n():
    at = [sum(frechet_distance(*_pair(s, N, 6, 1.0)) for s in range(40)) for N in (200, 800)]
    assert at[0] / at[1] == pytest.approx(4, rel=0.25)


def test_precision_and_recall_of_a_square_and_a_part_of_it():
    whole = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
    part = torch.rand(2000, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.5, 1.0])
    precision, recall = precision_recall(whole, part)
    assert precision > 0.9 and abs(recall - 0.5) < 0.04
    assert precision_recall(part, whole) == (recall, precision)
    assert precision_recall(whole, whole) == (1.0, 1.0)
    assert precision_recall(whole, whole + 5) == (0.0, 0.0)
    Q = rotation(2, 2).float()
    assert precision_recall(whole @ Q, part @ Q).recall == pytest.approx(recall, abs=2e-3)


def test_more_neighbours_cover_more():
    x, y = points(8, 200, 4), points(9, 200, 4)
    shares = [precision_recall(x, y, k=k).precision for k in (1, 3, 10)]
    assert shares == sorted(shares) and shares[0] < shares[-1]


def test_a_copycat_is_found_and_a_poor_generator_is_not():
    train, test = points(10, 400, 8), points(11, 100, 8)
    copied = memorisation(train, test, train[:200] + 0.01 * points(12, 200, 8))
    assert copied.share == 1 and copied.expected == 0.8
    poor = memorisation(train, test, 3 * points(13, 200, 8) + 1)
    assert abs(poor.share - 0.8) < 4 * poor.standard_error
    assert "not" in str(copied)


def test_the_standard_error_is_that_of_dividing_the_real_points_anew():
    real, generated = points(14, 60, 3), points(15, 40, 3)
    orders = [torch.randperm(60, generator=torch.Generator().manual_seed(k)) for k in range(1500)]
    found = [memorisation(real[o[:40]], real[o[40:]], generated) for o in orders]
    shares = torch.tensor([one.share for one in found])
    assert abs(shares.mean() - 2 / 3) < 4 * shares.std() / math.sqrt(1500)
    assert shares.std().item() == pytest.approx(found[0].standard_error, rel=0.1)


def test_equal_distances_count_in_equal_parts():
    zero, one = torch.zeros(2, 1), torch.ones(2, 1)
    assert memorisation(zero, one, torch.full((3, 1), 0.5)).share == 0.5
    assert memorisation(zero, zero, zero).share == 0.5


@pytest.mark.parametrize("bad", [torch.zeros(5, 3), torch.zeros(5), torch.full((5, 2), math.nan)])
def test_samples_that_do_not_fit_are_refused(bad):
    good = torch.zeros(5, 2)
    for call in (frechet_distance, precision_recall, lambda x, y: memorisation(x, x, y)):
        with pytest.raises(ValueError, match="Expected"):
            call(good, bad)
    with pytest.raises(ValueError, match="k"):
        precision_recall(good, good, k=0)
