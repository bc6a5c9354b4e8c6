"""Coupling layers: what they keep, what they transform, and the families of maps as settings and by their formulas."""

import copy
import math
import pickle

import pytest
import torch
from registry import Member, built, coupling, points, rng

from cnflib.discrete import (
    Additive,
    Affine,
    Coupling,
    Elementwise,
    MaskedAutoregressive,
    RationalQuadratic,
    checkerboard_mask,
    halves,
)
from cnflib.models import iaf, maf
from cnflib.nets import Conditioner

families = {"additive": Additive(), "affine": Affine(), "affine bound 1": Affine(1.0)}
family = pytest.mark.parametrize("transform", families.values(), ids=families)
x3 = Member(None, (3,))


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@family
@pytest.mark.parametrize("keep_first", [True, False])
def test_mask_is_true_on_the_coordinates_that_are_kept(transform, keep_first):
    g = built(Member(lambda: coupling(transform, (3,), keep_first=keep_first)))
    x, _ = points(x3)
    for y in (g(x)[0], g.decode_and_logdet(x)[0]):
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
    y, slope = transform.encode(x, theta)
    back, slope_back = transform.decode(y, theta)
    assert (y.diff() > 0).all()
    assert_close(back, x)
    assert_close(slope + slope_back, torch.zeros_like(x))
    assert_close(slope[1:].exp(), y.diff() / x.diff())  # both families are straight lines


def test_additive_shifts_and_keeps_volume():
    y, slope = Additive().encode(torch.tensor([1.0, 2.0]), torch.tensor([[0.5], [-3.0]]))
    assert y.tolist() == [1.5, -1] and slope.tolist() == [0, 0]


@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_affine_scales_by_a_bounded_exponential_and_then_shifts(bound):
    theta = torch.tensor([[2.0, 0.3], [-1.0, 50.0], [0.0, -50.0]], dtype=torch.float64)
    x = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    y, slope = Affine(bound).encode(x, theta)
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
    z, logdet = Coupling(mask, Affine(), net)(x)
    assert_close(z[:, 1:], 2 * x[:, 1:] + 1, 1e-6)
    assert_close(logdet, torch.full((3,), 2 * torch.tensor(2.0).log()).double(), 1e-6)


def test_context_conditions_the_map():
    g = built(Member(lambda: coupling(Affine(), (3,), 2)))
    x, context = points(Member(None, (3,), 2))
    assert (g(x, context)[0] != g(x, context + 1)[0]).any(1).all()
    assert (g(x, context)[1] != g(x, context + 1)[1]).all()


def test_parameters_of_an_image_go_to_their_own_pixel():
    """A net that returns its channel and pixel number as shift shows where each number arrives."""
    mask = torch.zeros(2, 2, 3, dtype=torch.bool)
    mask[0, 0, 0] = True
    shift = torch.arange(12.0).reshape(1, 2, 2, 3)
    g = Coupling(mask, Additive(), lambda_module(lambda x, context: shift.expand(len(x), -1, -1, -1)))
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
    z, logdet = Coupling(mask, Affine(), net)(x)
    sorted_z, sorted_logdet = Coupling(mask[order], Affine(), net)(x[:, order])
    assert_close(z[:, order], sorted_z)
    assert_close(logdet, sorted_logdet)


def test_a_mask_of_channels_acts_at_every_pixel():
    net = lambda_module(lambda x, context: torch.cat([x, 2 * x], 1))
    x, _ = points(Member(None, (3, 2, 2)))
    z, _ = Coupling(torch.tensor([False, True, False]), Additive(), net)(x)
    assert_close(z, torch.stack([x[:, 0] + x[:, 1], x[:, 1], x[:, 2] + 2 * x[:, 1]], 1))


def test_masks_keep_the_first_half_or_every_second_pixel():
    assert halves(4).tolist() == [True, True, False, False] and halves(3).tolist() == [True, True, False]
    c, h, w = torch.meshgrid(*map(torch.arange, (2, 3, 3)), indexing="ij")
    assert torch.equal(checkerboard_mask((2, 3, 3)), (c + h + w) % 2 == 0)


# ---- the families as settings

settings = {
    Additive(): "Additive()",
    Affine(): "Affine()",
    Affine(1.5): "Affine(bound=1.5)",
    RationalQuadratic(): "RationalQuadratic()",
    RationalQuadratic(4): "RationalQuadratic(bins=4)",
    RationalQuadratic(4, 3.0): "RationalQuadratic(bins=4, bound=3.0)",
}
every_setting = pytest.mark.parametrize(("transform", "shown"), settings.items(), ids=settings.values())


@every_setting
def test_a_family_is_a_value_that_prints_as_the_call_that_makes_it(transform, shown):
    assert repr(transform) == shown and eval(shown) == transform and isinstance(transform, Elementwise)
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert other == transform and hash(other) == hash(transform)
    assert [other for other in settings if other == transform] == [transform]
    for name in ("bound", "bins", "parameters"):
        with pytest.raises(AttributeError):
            setattr(transform, name, 2)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Affine(0.0), "bound"),
        (lambda: Affine(-1), "bound"),
        (lambda: Affine(math.inf), "bound"),
        (lambda: Affine(math.nan), "bound"),
        (lambda: RationalQuadratic(0), "bins"),
        (lambda: RationalQuadratic(1000), "bins"),
        (lambda: RationalQuadratic(bound=0), "bound"),
        (lambda: RationalQuadratic(bound=math.inf), "bound"),
    ],
)
def test_a_family_is_checked_when_it_is_built(build, match):
    with pytest.raises(ValueError, match=match):
        build()


@pytest.mark.parametrize(
    "wrong", [Affine, RationalQuadratic, None, "affine", torch.nn.Linear(1, 1)], ids=repr
)
def test_a_layer_refuses_what_is_no_family_and_a_class_that_is_not_called(wrong):
    match = "transform"
    for build in (
        lambda: Coupling(halves(2), wrong, Conditioner(1, 2)),
        lambda: MaskedAutoregressive(wrong, None),
        lambda: maf(dim=2, transform=wrong),
        lambda: iaf(dim=2, transform=wrong),
    ):
        with pytest.raises(ValueError, match=match):
            build()


class Cubic:
    """A family of one's own: x + b x³, b > 0, by no class of ours; its inverse by bisection."""

    parameters = 1

    def encode(self, x, params):
        b = params[:, 0].exp()
        return x + b * x**3, (1 + 3 * b * x**2).log()

    def decode(self, z, params):
        b, high = params[:, 0].exp(), z.abs()
        low = -high
        for _ in range(80):
            middle = (low + high) / 2
            above = middle + b * middle**3 > z
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return middle, -(1 + 3 * b * middle**2).log()


def test_a_family_of_ones_own_serves_in_both_layers():
    assert isinstance(Cubic(), Elementwise)
    x, _ = points(x3)
    layers = [coupling(Cubic(), (3,)), *maf(dim=3, layers=1, transform=Cubic()).bijection.layers]
    for g in (built(Member(lambda: layer)) for layer in layers):
        z, logdet = g(x)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: g(row[None])[0][0]))(x)
        assert_close(logdet, torch.linalg.slogdet(jacobian).logabsdet)
        assert_close(g.decode(z), x)
        assert_close(g.decode_and_logdet(z)[1], -logdet)


@pytest.mark.parametrize(
    "transform", [Additive(), Affine(), Affine(1.5), RationalQuadratic(4, 3.0)], ids=repr
)
def test_a_family_may_be_built_inside_of_compiled_code(transform):
    """And outside of it, as that of a layer."""
    torch.compiler.reset()
    theta = torch.randn(5, transform.parameters, generator=rng())
    x = torch.linspace(-2, 2, 5)

    def both(x):
        if isinstance(transform, Additive):
            family = Additive()
        elif isinstance(transform, Affine):
            family = Affine(transform.bound)
        else:
            family = RationalQuadratic(transform.bins, transform.bound)
        return family.decode(family.encode(x, theta)[0], theta)

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    assert_close(compiled(x), both(x))
    g = coupling(transform, (3,))
    y = torch.randn(4, 3, generator=rng())
    assert_close(torch.compile(g, backend="eager", fullgraph=True)(y), g(y))
    torch.compiler.reset()


def test_a_layer_shows_its_mask_and_its_family():
    text = repr(maf(dim=2, layers=1, transform=RationalQuadratic(4)))
    assert "RationalQuadratic(bins=4)" in text and "shape=(2,)" in text
    text = repr(coupling(Affine(bound=1.0), (3,)))
    assert "mask=[1, 0, 1]" in text and "Affine(bound=1.0)" in text
    assert "mask=<bool of shape (1, 4, 4)>" in repr(coupling(Affine(), (1, 4, 4)))


def test_a_coupling_knows_the_shape_that_its_mask_fixes():
    g, image = coupling(Affine(), (3,)), coupling(Affine(), (1, 4, 4))
    assert (g.event_shape, g.channels) == (None, 3)
    assert (image.event_shape, image.channels) == ((1, 4, 4), None)
    for layer, x in ((g, torch.zeros(2, 4)), (g, torch.zeros(2, 4, 3)), (image, torch.zeros(2, 1, 4, 3))):
        with pytest.raises(ValueError, match="Expected x"):
            layer(x)


def test_a_context_reaches_the_net_untouched():
    """Labels too: what the net makes of them is its own affair."""
    seen = []
    net = lambda_module(lambda x, context: seen.append(context) or x)
    labels = torch.tensor([3, 1])
    g = Coupling(halves(2), Additive(), net)
    for call in (g, g.encode, g.decode, g.decode_and_logdet):
        call(torch.zeros(2, 2), labels)
    assert all(context is labels for context in seen) and len(seen) == 4
    with pytest.raises(ValueError, match="one_hot"):
        coupling(Additive(), (2,), 1)(torch.zeros(2, 2), labels)


@family
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_the_point_alone_is_that_of_the_point_with_its_log_determinant(transform, shape):
    g = built(Member(lambda: coupling(transform, shape)))
    x, _ = points(Member(None, shape))
    assert torch.equal(g.encode(x), g(x)[0]) and torch.equal(g.decode(x), g.decode_and_logdet(x)[0])
