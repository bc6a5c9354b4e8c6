"""Coupling layers: what they keep, what they transform, and the two families of maps by their formulas."""

import pytest
import torch
from registry import Member, built, coupling, points, rng

from cnflib.discrete import Coupling, additive, affine, checkerboard, halves
from cnflib.nets import Conditioner

families = {"additive": additive(), "affine": affine(), "affine bound 1": affine(1.0)}
family = pytest.mark.parametrize("transform", families.values(), ids=families)
x3 = Member(None, (3,))


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@family
@pytest.mark.parametrize("keep_first", [True, False])
def test_mask_is_true_on_the_coordinates_that_are_kept(transform, keep_first):
    g = built(Member(lambda: coupling(transform, (3,), keep_first=keep_first)))
    x, _ = points(x3)
    for y in (g(x)[0], g.inverse(x)[0]):
        assert torch.equal(y[:, g.mask], x[:, g.mask])
        assert (y[:, ~g.mask] != x[:, ~g.mask]).all()


@family
def test_parameters_depend_on_the_kept_coordinates_alone(transform):
    g = built(Member(lambda: coupling(transform, (3,))))
    x, _ = points(x3)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: g(row[None])[0][0]))(x)
    assert (jacobian[:, 1, [0, 2]] != 0).all()  # the transformed coordinate follows both that are kept
    assert_close(jacobian[:, [0, 2]], torch.eye(3).double()[[0, 2]].expand(3, 2, 3))


@family
def test_a_fresh_coupling_is_the_identity(transform):
    x, _ = points(x3)
    z, logdet = coupling(transform, (3,)).double()(x)
    assert_close(z, x)
    assert_close(logdet, torch.zeros(3).double())


@family
def test_a_family_is_increasing_and_its_inverse_undoes_it(transform):
    generator = rng()
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    theta = 4 * torch.randn(transform.parameters, generator=generator, dtype=torch.float64).expand(50, -1)
    y, slope = transform.forward(x, theta)
    back, slope_back = transform.inverse(y, theta)
    assert (y.diff() > 0).all()
    assert_close(back, x)
    assert_close(slope + slope_back, torch.zeros_like(x))
    assert_close(slope[1:].exp(), y.diff() / x.diff())  # both families are straight lines


def test_additive_shifts_and_keeps_volume():
    y, slope = additive().forward(torch.tensor([1.0, 2.0]), torch.tensor([[0.5], [-3.0]]))
    assert y.tolist() == [1.5, -1] and slope.tolist() == [0, 0]


@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_affine_scales_by_a_bounded_exponential_and_then_shifts(bound):
    theta = torch.tensor([[2.0, 0.3], [-1.0, 50.0], [0.0, -50.0]], dtype=torch.float64)
    x = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    y, slope = affine(bound).forward(x, theta)
    s = bound * torch.tanh(theta[:, 1] / bound)
    assert_close(y, x * s.exp() + theta[:, 0])
    assert_close(slope, s)
    assert (slope.abs() <= bound).all() and slope[1] > 0 > slope[2]


def test_logdet_is_the_sum_over_transformed_coordinates_of_the_log_slope():
    mask = torch.tensor([True, False, False])
    net = Conditioner(1, 4).double()
    with torch.no_grad():  # every coordinate gets shift 1 and scale 2, the kept one is not to count
        net.net[-1].bias.copy_(
            torch.tensor([1.0, 3 * torch.atanh(torch.tensor(2.0).log() / 3)]).repeat_interleave(2)
        )
    x, _ = points(x3)
    z, logdet = Coupling(mask, affine(), net)(x)
    assert_close(z[:, 1:], 2 * x[:, 1:] + 1, 1e-6)
    assert_close(logdet, torch.full((3,), 2 * torch.tensor(2.0).log()).double(), 1e-6)


def test_context_conditions_the_map():
    g = built(Member(lambda: coupling(affine(), (3,), 2)))
    x, context = points(Member(None, (3,), 2))
    assert (g(x, context)[0] != g(x, context + 1)[0]).any(1).all()
    assert (g(x, context)[1] != g(x, context + 1)[1]).all()


def test_parameters_of_an_image_go_to_their_own_pixel():
    """A net that returns its channel and pixel number as shift shows where each number arrives."""
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 0, 0] = True
    shift = torch.arange(12.0).reshape(1, 2, 2, 3)
    g = Coupling(mask, additive(), lambda_module(lambda x, context: shift.expand(len(x), -1, -1, -1)))
    assert torch.equal(g(torch.zeros(4, 2, 2, 3))[0], shift.masked_fill(mask, 0).expand(4, -1, -1, -1))


def lambda_module(function):
    module = torch.nn.Module()
    module.forward = function
    return module


@pytest.mark.parametrize(
    "mask", [halves(5), ~halves(5), halves(5)[torch.randperm(5, generator=rng())]], ids=str
)
def test_any_mask_of_a_vector_is_the_same_map_up_to_the_order_of_coordinates(mask):
    order = (~mask).int().argsort(stable=True)
    net = built(Member(lambda: Conditioner(3, 4, (8,)) if mask.sum() == 3 else Conditioner(2, 6, (8,))))
    x, _ = points(Member(None, (5,)))
    z, logdet = Coupling(mask, affine(), net)(x)
    sorted_z, sorted_logdet = Coupling(mask[order], affine(), net)(x[:, order])
    assert_close(z[:, order], sorted_z)
    assert_close(logdet, sorted_logdet)


def test_a_mask_of_channels_acts_at_every_pixel():
    net = lambda_module(lambda x, context: torch.cat([x, 2 * x], 1))
    x, _ = points(Member(None, (3, 2, 2)))
    z, _ = Coupling(torch.tensor([False, True, False]), additive(), net)(x)
    assert_close(z, torch.stack([x[:, 0] + x[:, 1], x[:, 1], x[:, 2] + 2 * x[:, 1]], 1))


def test_masks_keep_the_first_half_or_every_second_pixel():
    assert halves(4).tolist() == [True, True, False, False] and halves(3).tolist() == [True, True, False]
    c, h, w = torch.meshgrid(*map(torch.arange, (2, 3, 3)), indexing="ij")
    assert torch.equal(checkerboard((2, 3, 3)), (c + h + w) % 2 == 0)
