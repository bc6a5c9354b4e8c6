"""Builders: each returns a ready flow on vectors or on any shape, of the parts that its name promises."""

from inspect import signature

import pytest
import torch
from registry import Member, built, points, rng, started

from cnflib import Chain, Flow, Inverse, Standardize, StandardNormal
from cnflib.continuous import CNF, Exact, Hutchinson
from cnflib.discrete import Coupling, LowerTriangular, Planar, Radial, Split, Squeeze
from cnflib.models import (
    ffjord,
    gaussian,
    glow,
    iaf,
    maf,
    nice,
    planar_flow,
    radial_flow,
    realnvp,
    residual_flow,
    spline_flow,
)
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, euler

BUILDERS = [
    gaussian,
    planar_flow,
    radial_flow,
    nice,
    realnvp,
    spline_flow,
    maf,
    iaf,
    glow,
    residual_flow,
    ffjord,
]
builders = pytest.mark.parametrize("build", BUILDERS)


@builders
@pytest.mark.parametrize(
    ("size", "event"),
    [
        ({"dim": 3}, (3,)),
        ({"shape": 3}, (3,)),
        ({"shape": (2, 3)}, (2, 3)),
        ({"shape": [1, 2, 2]}, (1, 2, 2)),
    ],
)
def test_a_builder_takes_dim_or_shape_alone(build, size, event):
    flow = build(**size)
    assert isinstance(flow, Flow) and isinstance(flow.base, StandardNormal)
    x = flow.sample(3, generator=rng())
    assert x.shape == (3, *event)
    assert flow.log_prob(x).isfinite().all()


@builders
def test_builders_agree_on_the_order_of_their_arguments(build):
    names = ("dim", "shape", "layers", "hidden", "context", "activation")
    taken = list(signature(build).parameters)
    shared = [name for name in names if name in taken]
    assert taken[: len(shared)] == shared and {"dim", "shape", "hidden", "context"} <= set(shared)


@pytest.mark.parametrize("event", [(2,), (1, 4, 4)], ids=["vector", "image"])
@builders
def test_a_builder_names_a_wrong_declaration_and_a_context_that_is_missing_or_too_much(build, event):
    for wrong in (8, (0,), (8.0,)):
        with pytest.raises(ValueError, match="Expected hidden"):
            build(shape=event, context=1, hidden=wrong)
    x, c = torch.randn(4, *event, generator=rng()), torch.ones(4, 2)
    declared, plain = build(shape=event, context=2).eval(), build(shape=event).eval()
    for call, message in (
        (lambda: declared.log_prob(x), "Expected a context of"),
        (lambda: declared.sample(4), "Expected a context of"),
        (lambda: declared.log_prob(x, c[:, :1]), "Expected context"),
        (lambda: plain.log_prob(x, c), "Expected no context"),
        (lambda: plain.sample(4, c), "Expected no context"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_realnvp_is_a_chain_of_affine_couplings_with_alternating_masks():
    flow = realnvp(dim=5, layers=3)
    assert isinstance(flow.bijection, Chain)
    assert all(
        isinstance(layer, Coupling) and layer.transform.parameters == 2 for layer in flow.bijection.layers
    )
    masks = [layer.mask.tolist() for layer in flow.bijection.layers]
    first = [True, True, True, False, False]
    assert masks == [first, [not keep for keep in first], first]


def test_realnvp_masks_images_as_a_checkerboard():
    mask = realnvp(shape=(2, 3, 3), layers=1).bijection.layers[0].mask
    c, h, w = torch.meshgrid(*map(torch.arange, (2, 3, 3)), indexing="ij")
    assert torch.equal(mask, (c + h + w) % 2 == 0)


def test_realnvp_starts_as_the_identity():
    x, _ = points(Member(None), dtype=torch.float32)
    z, logdet = realnvp(dim=2).bijection(x)
    assert torch.equal(z, x) and not logdet.any()


@pytest.mark.parametrize("layers", [2, 3])
def test_two_layers_of_realnvp_move_every_coordinate(layers):
    member = Member(lambda: realnvp(dim=4, layers=layers, hidden=(8,)), (4,))
    x, _ = points(member)
    assert (built(member).bijection(x)[0] != x).all()


@pytest.mark.parametrize(("build", "layer"), [(planar_flow, Planar), (radial_flow, Radial)])
def test_a_planar_and_a_radial_flow_are_chains_of_their_layers(build, layer):
    flow = build(shape=(2, 3), layers=5, hidden=(7,), context=4)
    assert isinstance(flow.bijection, Chain) and len(flow.bijection.layers) == 5
    for part in flow.bijection.layers:
        assert (type(part), part.event_shape, part.context) == (layer, (2, 3), 4)
        assert part.net.net[0].weight.shape == (7, 4)
    assert len(build(dim=2).bijection.layers) == 16


def test_ffjord_is_the_flow_of_a_free_field():
    solver, estimate = Fixed(2), Hutchinson()
    flow = ffjord(dim=2, hidden=(7, 6), context=3, divergence=estimate, solver=solver)
    cnf = flow.bijection
    assert isinstance(cnf, CNF) and isinstance(cnf.field, MLP)
    assert (cnf.solver, cnf.divergence, cnf.field.context) == (solver, estimate, 3)
    assert [p.shape[0] for p in cnf.field.parameters()] == [7, 7, 6, 6, 2, 2]


def test_ffjord_is_exact_and_adaptive_by_default():
    cnf = ffjord(dim=2).bijection
    x, _ = points(Member(None), dtype=torch.float32)
    assert (cnf.divergence, cnf.solver) == (Exact(), Adaptive())
    solution = cnf.solve(x, 0.0, 1.0)
    assert solution.accepted > 0 and solution.nfe > 6


def test_ffjord_on_images_is_a_multiscale_chain_of_convolutional_flows():
    flow = ffjord(shape=(1, 28, 28), hidden=(4,), context=3)
    top = flow.bijection.layers
    kinds = [type(layer) for layer in top]
    assert kinds == [CNF, CNF, Squeeze, CNF, CNF, Split, Inverse]
    shapes = [m.field.shape for m in flow.modules() if isinstance(m, CNF)]
    assert (
        shapes
        == [(1, 28, 28)] * 2 + [(4, 14, 14)] * 2 + [(2, 14, 14)] * 2 + [(8, 7, 7)] * 2 + [(4, 7, 7)] * 2
    )
    assert all(m.field.context == 3 for m in flow.modules() if isinstance(m, CNF))


@pytest.mark.parametrize(
    ("shape", "scales", "flows"),
    [((1, 28, 28), 3, 10), ((3, 32, 32), 3, 10), ((1, 6, 6), 2, 6), ((1, 5, 8), 1, 2), ((2, 4, 8), 3, 10)],
)
def test_ffjord_halves_an_image_as_often_as_it_can_up_to_twice(shape, scales, flows):
    count = lambda **options: sum(  # noqa: E731
        isinstance(m, CNF) for m in ffjord(shape=shape, hidden=(2,), **options).modules()
    )
    assert count() == count(scales=scales) == flows == 4 * scales - 2
    assert count(blocks=1) == flows / 2 and count(scales=1) == 2


def test_the_divergence_of_ffjord_is_exact_in_low_dimension_and_in_evaluation_and_estimated_for_images():
    for shape, training, evaluation in (
        ((2,), "exact", "exact"),
        ((8,), "exact", "exact"),
        ((2, 4), "exact", "exact"),
        ((9,), "noisy", "exact"),
        ((3, 3), "noisy", "exact"),
        ((1, 2, 2), "noisy", "noisy"),
    ):
        flow = ffjord(shape=shape, hidden=(3,), solver=Fixed(1))
        x = torch.randn(3, *shape, generator=rng())
        for mode, law in ((True, training), (False, evaluation)):
            first, second = (flow.train(mode).log_prob(x, generator=rng(seed)) for seed in (1, 2))
            assert torch.equal(first, second) == (law == "exact")


def test_the_estimate_of_ffjord_in_training_is_unbiased_for_what_it_says_in_evaluation():
    flow = built(Member(lambda: ffjord(dim=9, hidden=(6,), solver=Fixed(2))), scale=0.5)
    x = torch.randn(1, 9, generator=rng(), dtype=torch.float64)
    with torch.no_grad():
        draws = flow.log_prob(x.repeat(4000, 1), generator=rng())
        wanted = flow.eval().log_prob(x)
    assert abs(draws.mean() - wanted) < 4 * draws.std() / 4000**0.5


def started_if_glow(build, event, **options):
    flow = build(event, **options)
    return started(flow, event, options.get("context", 0)) if build is glow else flow


@pytest.mark.parametrize(
    ("build", "event"),
    [(build, (4,)) for build in BUILDERS]
    + [(build, (1, 2, 4)) for build in (nice, realnvp, glow, residual_flow, ffjord)],  # others flatten images
)
def test_a_density_compiles_without_a_graph_break(build, event):
    options = {gaussian: {}, ffjord: {"solver": Fixed(1, euler), "scales": 1, "blocks": 1}}.get(
        build, {"layers": 1}
    )
    flow = started_if_glow(build, event, hidden=(4,), context=2, **options)
    x, c = points(Member(None, event, 2), dtype=torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    with torch.no_grad():
        found, wanted = compiled(x, c), flow.log_prob(x, c)
    if not (build is ffjord and len(event) == 3):  # which draws a probe
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.isfinite().all()
    torch.compiler.reset()


@builders
@pytest.mark.parametrize("event", [(3,), (1, 4, 4)], ids=["vector", "image"])
def test_a_shape_may_stand_first(build, event):
    flow, other = build(event, hidden=(4,)), build(shape=event, hidden=(4,))
    assert flow.event_shape == other.event_shape == event
    assert flow.sample(2, generator=rng()).shape == (2, *event)
    assert flow.state_dict().keys() == other.state_dict().keys()


@builders
def test_a_flow_takes_data_in_other_units(build):
    """log p(x) = log p((x - m) / s) - Σ log s."""
    x = 1000 + torch.tensor([50.0, 0.1]) * torch.randn(256, 2, generator=rng())
    units = Standardize.fit(x)
    inner = build(dim=2, hidden=(4,))
    flow = inner.after(units).eval()
    z = (x - units.mean) / units.std
    assert flow.event_shape == (2,) and flow.sample(3).shape == (3, 2)
    wanted = inner.log_prob(z) - units.std.log().sum()
    torch.testing.assert_close(flow.log_prob(x), wanted, rtol=1e-4, atol=1e-3)


@builders
def test_labels_are_told_to_become_rows(build):
    flow = build(dim=2, hidden=(4,), context=3).eval()
    x, labels = torch.zeros(4, 2), torch.tensor([0, 1, 2, 1])
    with pytest.raises(ValueError, match="context"):
        flow.log_prob(x, labels)
    with pytest.raises(ValueError, match="context"):
        flow.log_prob(x, torch.nn.functional.one_hot(labels, 3).double())
    assert flow.log_prob(x, torch.nn.functional.one_hot(labels, 3).float()).shape == (4,)


@builders
def test_a_flow_prints_what_it_is_made_of(build):
    text = repr(build(dim=3, hidden=(4,)))
    assert {
        gaussian: "LowerTriangular(shape=(3,)",
        nice: "transform=Additive()",
        realnvp: "transform=Affine()",
        spline_flow: "transform=RationalQuadratic()",
        maf: "transform=Affine()",
        iaf: "transform=Affine()",
        glow: "transform=Affine()",
        residual_flow: "logdet=ExactLogDet()",
        ffjord: "solver=Adaptive()",
        planar_flow: "Planar(shape=(3,), context=0)",
        radial_flow: "Radial(shape=(3,), context=0)",
    }[build] in text


def test_a_gaussian_is_one_triangular_map():
    flow = gaussian(shape=(2, 3), context=4, hidden=(7,))
    assert isinstance(flow.bijection, LowerTriangular) and flow.bijection.net.net[0].weight.shape == (7, 4)
    assert sum(p.numel() for p in gaussian(dim=3).parameters()) == 3 + 9


@builders
def test_context_is_used(build):
    member = Member(lambda: build(dim=2, context=3, hidden=(8,)), (2,), 3)
    flow, (x, context) = built(member), points(member)
    assert (flow.log_prob(x, context) != flow.log_prob(x, context + 1)).all()


@builders
def test_hidden_sets_the_size_of_the_nets(build):
    small, large = (
        sum(p.numel() for p in build(dim=2, hidden=h, context=3).parameters()) for h in ((4,), (32, 32))
    )
    assert small < large / 8
