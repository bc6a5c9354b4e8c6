"""Laws of the metrics: calibrated error bars, the KL in closed form, mass and bits that do not depend on units."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from cnflib.metrics import Estimate, bits_per_dim, mass, midpoints, nll, on_grid, paired_gap

ESTIMATES = {
    "nll": lambda v: nll(-v),
    "paired_gap": lambda v: paired_gap(v, torch.zeros_like(v)),
    "bits_per_dim": lambda v: bits_per_dim(-v, 1),
}


def gaussian(mean=0.0, scale=1.0, dims=2, dtype=torch.float64):
    return Independent(Normal(torch.full((dims,), mean, dtype=dtype), scale), 1)


def draws(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", ESTIMATES)
def test_standard_error_is_the_spread_of_the_value_over_repetitions(name):
    repeated = [ESTIMATES[name](v) for v in draws(400, 64)]
    values = torch.tensor([e.value for e in repeated])
    errors = torch.tensor([e.standard_error for e in repeated])
    assert values.std() == pytest.approx(errors.mean().item(), rel=0.12)


@pytest.mark.parametrize("name", ESTIMATES)
def test_four_times_the_points_halve_the_error(name):
    v = draws(4000)
    once, four = ESTIMATES[name](v), ESTIMATES[name](v.repeat(4))
    assert four.value == pytest.approx(once.value, abs=1e-12)
    assert four.standard_error == pytest.approx(once.standard_error / 2, rel=1e-3)


def test_nll_of_the_true_density_is_its_entropy():
    p = gaussian(scale=0.3)
    estimate = nll(p.log_prob(0.3 * draws(20000, 2)))
    assert abs(estimate.value - p.entropy().item()) < 4 * estimate.standard_error


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.5), (0.7, 1.0), (-0.4, 0.8)])
def test_paired_gap_is_the_kl_divergence(mean, scale):
    p, q = gaussian(), gaussian(mean, scale)
    x = draws(20000, 2)
    gap = paired_gap(p.log_prob(x), q.log_prob(x))
    kl = torch.distributions.kl_divergence(p, q).item()
    assert abs(gap.value - kl) < 4 * gap.standard_error
    back = paired_gap(q.log_prob(x), p.log_prob(x))
    assert (back.value, back.standard_error) == (-gap.value, gap.standard_error)


def test_pairing_cancels_the_scatter_of_log_p():
    p, q = gaussian(), gaussian(0.0, 1.05)
    x = draws(5000, 2)
    gap = paired_gap(p.log_prob(x), q.log_prob(x))
    assert gap.standard_error < nll(q.log_prob(x)).standard_error / 5
    assert paired_gap(p.log_prob(x), p.log_prob(x)) == (0.0, 0.0)


def test_the_gap_of_two_models_is_the_difference_of_their_nlls_and_changes_sign_with_their_order():
    x = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, q = Normal(0.3, 1.1).log_prob(x), Normal(-0.2, 0.8).log_prob(x)
    gap, back = paired_gap(p, q), paired_gap(q, p)
    assert gap.value == pytest.approx(nll(q).value - nll(p).value) == pytest.approx(-back.value)
    assert gap.standard_error == pytest.approx(back.standard_error)


def test_a_point_of_density_zero_makes_the_gap_and_the_nll_infinite():
    log_q = torch.tensor([0.0, -math.inf, -1.0])
    assert nll(log_q) == (math.inf, math.inf)
    assert paired_gap(torch.zeros(3), log_q) == (math.inf, math.inf)
    assert str(nll(log_q)) == "inf ± inf"


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("points", [50, 81])
def test_a_density_inside_the_box_has_mass_one(dims, points):
    bounds = ((-7.0, 8.0), (-9.0, 7.0))[:dims]
    assert mass(gaussian(dims=dims).log_prob, bounds, points, dtype=torch.float64) == pytest.approx(
        1, abs=1e-8
    )
    assert mass(gaussian(dims=dims, dtype=torch.float32).log_prob, bounds, points) == pytest.approx(
        1, abs=1e-5
    )


def test_mass_is_exact_where_jumps_fall_on_the_edges_of_cells():
    def checkerboard(x):
        on = (x.floor().sum(1) % 2 == 0) & (x.abs() < 4).all(1)
        return torch.where(on, -math.log(32), -math.inf * torch.ones_like(x[:, 0]))

    assert mass(checkerboard, ((-4, 4), (-4, 4)), 40, dtype=torch.float64) == pytest.approx(1, abs=1e-12)
    assert mass(checkerboard, ((-5, 5), (-6, 6)), 60, dtype=torch.float64) == pytest.approx(1, abs=1e-12)


def test_mass_is_additive_over_boxes_and_linear_in_the_density():
    p = gaussian()
    whole, low, high = (
        mass(p.log_prob, ((-1, 2), y), n, dtype=torch.float64)
        for y, n in (((0, 3), 60), ((0, 1.5), 60), ((1.5, 3), 60))
    )
    assert low + high == pytest.approx(whole, abs=1e-4)
    tripled = mass(lambda x: p.log_prob(x) + math.log(3), ((-1, 2), (0, 3)), 60, dtype=torch.float64)
    assert tripled == pytest.approx(3 * whole, rel=1e-12)


def test_midpoint_rule_is_of_second_order():
    def error(n):
        return mass(lambda x: x[:, 0].log(), ((1, 3),), n, dtype=torch.float64) - 4, mass(
            lambda x: 2 * x[:, 0].log(), ((1, 3),), n, dtype=torch.float64
        ) - 26 / 3

    (linear, coarse), (_, fine) = error(20), error(40)
    assert linear == pytest.approx(0, abs=1e-12)
    assert coarse / fine == pytest.approx(4, rel=1e-3)


def test_chunks_bound_the_batch_and_change_nothing():
    sizes = []

    def log_prob(x):
        sizes.append(len(x))
        return gaussian().log_prob(x)

    whole = on_grid(log_prob, ((-1, 1), (0, 4)), 30, dtype=torch.float64)
    assert torch.equal(on_grid(log_prob, ((-1, 1), (0, 4)), 30, chunk=77, dtype=torch.float64), whole)
    assert sizes[0] == 900 and max(sizes[1:]) == 77 and sum(sizes[1:]) == 900


def test_a_grid_has_coordinate_d_on_axis_d_and_no_gradient():
    weight, graph = torch.ones((), requires_grad=True), torch.is_grad_enabled
    values = on_grid(lambda x: weight * (10 * x[:, 0] + x[:, 1]), ((0, 2), (0, 4)), 2)
    assert torch.allclose(values, torch.tensor([[6.0, 8.0], [16.0, 18.0]]).double())
    assert not values.requires_grad
    assert (on_grid(lambda x: x[:, 0] * graph(), ((1, 2),), 3) == 0).all()


@pytest.mark.parametrize("bounds", [((-1.0, 3.0),), ((-1.0, 3.0), (2.0, 2.5))])
def test_midpoints_are_the_centres_of_equal_cells(bounds):
    x = midpoints(bounds, 10, torch.float64)
    low, high = torch.tensor(bounds, dtype=torch.float64).T
    cell = (high - low) / 10
    assert x.shape == (10 ** len(bounds), len(bounds))
    assert torch.allclose(x.mean(0), (low + high) / 2)
    assert torch.allclose(x.amin(0), low + cell / 2) and torch.allclose(x.amax(0), high - cell / 2)


@pytest.mark.parametrize("scale", [1.0, 128.0, 255.0, 256.0])
def test_bits_do_not_depend_on_the_unit_of_the_data(scale):
    density = Independent(Normal(torch.full((12,), 120.0), 40.0), 1)
    y = 120 + 40 * draws(200, 12, dtype=torch.float32)
    integers = bits_per_dim(density.log_prob(y), 12)
    scaled = Independent(Normal(torch.full((12,), 120.0 / scale), 40.0 / scale), 1)
    estimate = bits_per_dim(scaled.log_prob(y / scale), 12, levels=scale)
    assert estimate == pytest.approx(integers, rel=1e-5)


@pytest.mark.parametrize("levels", [2, 32, 256])
def test_a_uniform_density_costs_log2_of_the_levels(levels):
    per_image = -3 * torch.full((5,), math.log(levels)).double()
    assert bits_per_dim(per_image, 3).value == pytest.approx(math.log2(levels))
    assert bits_per_dim(torch.zeros(5), 3, levels=levels).value == pytest.approx(math.log2(levels))


def test_the_published_log_likelihood_of_nice_is_its_published_bits():
    assert bits_per_dim(torch.full((2,), 1980.50), 784, levels=256).value == pytest.approx(4.36, abs=0.005)


def test_dequantised_bits_bound_the_discrete_code_length():
    p = Normal(torch.tensor(4.0), 1.3)
    edges = torch.arange(9.0)
    code = -(p.cdf(edges[1:]) - p.cdf(edges[:-1])).log2()
    u = torch.rand(4000, generator=torch.Generator().manual_seed(1))
    for y in range(8):
        bound = bits_per_dim(p.log_prob(y + u), 1)
        assert bound.value > code[y] - 4 * bound.standard_error


@pytest.mark.parametrize("error", [0.004, 0.0049, 0.0123, 0.00999, 0.5, 3e-7, 1.0, 27.0])
def test_an_estimate_prints_the_digits_that_its_error_supports(error):
    value, printed = str(Estimate(3.5121234567891, error)).split(" ± ")
    unit = 10.0 ** -len(value.partition(".")[2])
    assert unit <= error / 2 * (1 + 1e-9) or unit == 1
    assert unit == 1 or unit > error / 20.01
    assert float(printed) == pytest.approx(error, abs=unit / 1.99)


def test_an_estimate_formats_both_numbers():
    assert str(Estimate(3.5121, 0.004)) == f"{Estimate(3.5121, 0.004)}" == "3.512 ± 0.004"
    assert f"{Estimate(3.5121, 0.004):.1f}" == "3.5 ± 0.0"
    assert str(Estimate(0.0, 0.0)) == "0 ± 0"


def test_an_estimate_is_its_value_as_a_float():
    assert float(Estimate(1, 0.5)) == 1.0 and float(nll(torch.tensor([1.0, 3.0]))) == -2.0


def test_values_on_a_graph_in_float32_are_accepted_and_left_alone():
    log_prob = draws(10, dtype=torch.float32).requires_grad_()
    assert all(isinstance(number, float) for number in nll(log_prob))
    assert log_prob.requires_grad and log_prob.grad is None


NAN, INF = torch.tensor([0.0, math.nan, 1.0]), torch.tensor([0.0, 1.0, math.inf])
SQUARE = ((0, 1), (0, 1))
FAULTS = {
    "NaN": (lambda: nll(NAN), "log_prob.*NaN at 1 of 3 points, first at index 1"),
    "NaN in q": (lambda: paired_gap(torch.zeros(3), NAN), "log_q.*NaN"),
    "NaN in p": (lambda: paired_gap(NAN, torch.zeros(3)), "log_p.*NaN"),
    "+inf": (lambda: nll(INF), r"\+inf at 1 of 3 points, first at index 2"),
    "empty": (lambda: nll(torch.zeros(0)), r"got \(0,\)"),
    "one point": (lambda: nll(torch.zeros(1)), "N ≥ 2"),
    "mean taken": (lambda: nll(torch.zeros(())), r"shape \(N,\)"),
    "column": (lambda: nll(torch.zeros(5, 1)), r"got \(5, 1\)"),
    "float": (lambda: nll(0.5), "got float"),
    "bits of NaN": (lambda: bits_per_dim(NAN, 3), "NaN"),
    "bits of no dimension": (lambda: bits_per_dim(torch.zeros(5), 0), "Expected dims"),
    "bits of a shape": (lambda: bits_per_dim(torch.zeros(5), (1, 8, 8)), "Expected dims"),
    "bits of no level": (lambda: bits_per_dim(torch.zeros(5), 3, levels=0), "levels"),
    "gap of two sizes": (lambda: paired_gap(torch.zeros(5), torch.zeros(3)), r"log_q of shape \(5,\)"),
    "no cells": (lambda: mass(lambda x: x[:, 0], SQUARE, points=0), "Expected points"),
    "no chunk": (lambda: mass(lambda x: x[:, 0], SQUARE, chunk=0), "Expected chunk"),
    "3-D box": (lambda: mass(lambda x: x[:, 0], (*SQUARE, (0, 1))), "paired_gap"),
    "empty side": (lambda: mass(lambda x: x[:, 0], ((1, 1),)), "a < b"),
    "flat bounds": (lambda: midpoints(((0, 1, 2),)), "a < b"),
    "no pairs": (lambda: mass(lambda x: x[:, 0], (-4, 4)), "got .-4, 4."),
    "NaN density": (lambda: mass(lambda x: x[:, 0] * math.nan, SQUARE), "NaN"),
    "scalar density": (lambda: mass(lambda x: x.sum(), SQUARE), "one number per point"),
    "column density": (lambda: mass(lambda x: x[:, :1], SQUARE), "one number per point"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name):
    call, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_mass_on_a_gpu():
    p = Independent(Normal(torch.zeros(2, device="cuda"), 1.0), 1)
    assert mass(p.log_prob, ((-7, 7), (-7, 7)), device="cuda") == pytest.approx(1, abs=1e-4)
    assert nll(p.log_prob(torch.zeros(4, 2, device="cuda"))).value == pytest.approx(math.log(2 * math.pi))
