"""First calls that go wrong get one message with the way out, and those that mean the right thing are taken."""

import copy

import numpy as np
import pytest
import torch
from registry import rng
from torch import nn

from cnflib import Chain, DiagonalNormal, Flow, GaussianMixture, Standardize, StandardNormal, tempered
from cnflib.adapters import given
from cnflib.audit import audit_gradients
from cnflib.continuous import (
    CNF,
    Exact,
    Hutchinson,
    HutchPP,
    KineticEnergy,
    Rademacher,
    TrainEval,
    concat_squash,
    in_chunks,
    log_prob_and_costs,
    log_prob_at,
    log_prob_with_error,
)
from cnflib.data import toy
from cnflib.discrete import (
    MADE,
    Affine,
    Contraction,
    Coupling,
    Dequantize,
    RationalQuadratic,
    Residual,
    RussianRoulette,
)
from cnflib.interpolants import (
    BetaTimes,
    Bridge,
    ConditionalPairing,
    IndependentPairing,
    Interpolant,
    Linear,
    Mirror,
    OneSided,
    OptimalTransport,
    Oracle,
    Paired,
    Sinkhorn,
    Trigonometric,
    UniformTimes,
    denoiser_loss,
    drop_context,
    sample_ode,
    score_from_velocity,
    score_loss,
    velocity_loss,
)
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
from cnflib.nets import MLP, Conditioner, ConvNet, FourierFeatures, TimeEmbedding, UNet, feedforward
from cnflib.ode import Adaptive, Fixed

x, y = torch.randn(2, 4, 2, generator=rng())
t, image = torch.tensor(0.5), torch.randn(4, 1, 8, 8, generator=rng())
nets = {
    "MLP": lambda c: MLP(2, (4,), context=3)(t, x, c),
    "UNet": lambda c: UNet((1, 8, 8), 8, (1, 1), 1, context=3)(t, image, c),
    "Conditioner": lambda c: Conditioner(2, 2, (4,), context=3)(x, c),
    "ConvNet": lambda c: ConvNet(1, 2, (4,), context=3)(image, c),
    "MADE": lambda c: MADE(2, 2, (4,), context=3)(x, c),
    "concat-squash": lambda c: concat_squash(2, (4,), context=3)(t, x, c),
}
contexts = {
    "labels": torch.zeros(4, dtype=torch.int64),
    "labels as floats": torch.zeros(4),
    "one row": torch.zeros(1, 3),
    "too many rows": torch.zeros(5, 3),
    "too many features": torch.zeros(4, 2),
    "list": [0, 1, 2, 0],
    "number": 3,
}


@pytest.mark.parametrize("context", contexts.values(), ids=contexts)
@pytest.mark.parametrize("call", nets.values(), ids=nets)
def test_a_net_names_a_context_of_another_shape(call, context):
    with pytest.raises(ValueError, match="Expected context"):
        call(context)


builders = {
    "realnvp": lambda k: realnvp(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "realnvp image": lambda k: realnvp((k(1), k(8), k(8)), layers=k(1), hidden=(k(4),), context=k(3)),
    "nice": lambda k: nice(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "spline_flow": lambda k: spline_flow(
        dim=k(2), layers=k(2), hidden=(k(4),), context=k(3), bins=k(4), bound=k(5)
    ),
    "maf": lambda k: maf(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "iaf": lambda k: iaf(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "planar_flow": lambda k: planar_flow(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "radial_flow": lambda k: radial_flow(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "gaussian": lambda k: gaussian(dim=k(2), hidden=(k(4),), context=k(3)),
    "residual_flow": lambda k: residual_flow(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "glow": lambda k: glow(dim=k(2), layers=k(2), hidden=(k(4),), context=k(3)),
    "ffjord": lambda k: ffjord(dim=k(2), hidden=(k(4),), context=k(3), solver=Fixed(k(2))),
    "ffjord image": lambda k: ffjord(
        (k(1), k(8), k(8)), hidden=(k(4),), context=k(3), blocks=k(1), solver=Fixed(k(2))
    ),
    "UNet": lambda k: Flow(
        CNF(
            UNet((k(1), k(8), k(8)), k(8), (k(1), k(1)), k(1), context=k(3), groups=k(4), patch=k(1)),
            Hutchinson(probes=k(2)),
            Adaptive(max_steps=k(100)),
        ),
        StandardNormal((k(1), k(8), k(8))),
    ),
}
integers = {"NumPy": np.int64, "NumPy of 32 bits": np.int32, "torch": torch.tensor}


@pytest.mark.parametrize("kind", integers.values(), ids=integers)
@pytest.mark.parametrize("build", builders.values(), ids=builders)
def test_integers_of_numpy_and_torch_are_integers(build, kind):
    flow = build(kind)
    assert repr(flow) == repr(build(int))
    samples = flow.sample(kind(3), torch.zeros(1, 3), chunk=kind(2))
    assert samples.shape == (3, *flow.event_shape) and set(map(type, flow.event_shape)) == {int}
    assert copy.deepcopy(flow).state_dict().keys() == build(int).state_dict().keys()


@pytest.mark.parametrize("kind", integers.values(), ids=integers)
def test_integers_of_numpy_and_torch_count_draws(kind):
    assert len(toy.moons.sample(kind(5))) == len(DiagonalNormal(kind(2)).sample(kind(5))) == 5
    assert len(UniformTimes()(kind(5))[0]) == len(in_chunks(lambda x: x, torch.zeros(5), kind(2))) == 5
    assert len(log_prob_with_error(ffjord(dim=2, hidden=(4,), solver=Fixed(1)), x, kind(2)).mean) == 4


no_counts = {
    "context of 3.0": lambda: MLP(2, context=3.0),
    "context below 0": lambda: MLP(2, context=-1),
    "a tensor for context": lambda: realnvp(dim=2, context=x),
    "None for context": lambda: UNet((1, 8, 8), context=None),
    "time frequencies below 0": lambda: TimeEmbedding(-1),
    "fourier frequencies of 2.5": lambda: FourierFeatures(2, 2.5),
    "layers of 2.0": lambda: maf(dim=2, layers=2.0),
    "blocks of 1.5": lambda: ffjord((1, 8, 8), blocks=1.5),
    "bins of 8.0": lambda: RationalQuadratic(8.0),
    "levels as text": lambda: Dequantize("256"),
    "channels of 1.0": lambda: ConvNet(1.0, 2),
    "hidden as a number": lambda: MLP(2, 64),
    "hidden as text": lambda: MLP(2, "64"),
    "hidden of floats": lambda: MLP(2, (64.0,)),
    "hidden of a 0-dim array": lambda: MLP(2, np.array(64)),
    "points of a tensor": lambda: realnvp(dim=2).sample(x),
    "points of True": lambda: realnvp(dim=2).sample(True),
    "points of 5.0": lambda: realnvp(dim=2).sample(torch.tensor(5.0)),
    "times of 5.0": lambda: UniformTimes()(5.0),
    "a tensor for dim": lambda: realnvp(x),
}


@pytest.mark.parametrize("call", no_counts.values(), ids=no_counts)
def test_what_is_no_count_is_refused_by_name(call):
    with pytest.raises(
        ValueError, match="Expected .* to be (a positive int|an int >= 0|a sequence of positive)"
    ):
        call()


made = {
    "MLP": lambda a: MLP(2, (4,), activation=a),
    "feedforward": lambda a: feedforward(2, 2, (4,), a),
    "Conditioner": lambda a: Conditioner(2, 2, (4,), activation=a),
    "ConvNet": lambda a: ConvNet(1, 2, (4,), activation=a),
    "MADE": lambda a: MADE(2, 2, (4,), activation=a),
    "concat_squash": lambda a: concat_squash(2, (4,), activation=a),
    "realnvp": lambda a: realnvp(dim=2, activation=a),
}


@pytest.mark.parametrize("activation", ["relu", nn.ReLU(), torch.tanh], ids=["name", "instance", "function"])
@pytest.mark.parametrize("build", made.values(), ids=made)
def test_an_activation_is_a_constructor(build, activation):
    with pytest.raises(ValueError, match="Expected activation to be the constructor.*activation=nn.ReLU"):
        build(activation)


def test_a_contraction_takes_no_name_for_its_activation():
    with pytest.raises(ValueError, match="Expected activation to be a function"):
        Contraction(2, activation="relu")


flow, flowing = realnvp(dim=2, layers=2, hidden=(4,)), ffjord(dim=2, hidden=(4,), divergence=Hutchinson())
field, bridged = flowing.bijection.field, Linear(Bridge())
conditioned = realnvp(dim=2, layers=2, hidden=(4,), context=1)
drawing = {
    "log_prob": lambda g: flow.log_prob(x, generator=g),
    "encode": lambda g: flow.encode(x, generator=g),
    "decode": lambda g: flow.decode(x, generator=g),
    "call of a bijection": lambda g: flow.bijection(x, generator=g),
    "sample": lambda g: flow.sample(5, generator=g),
    "rsample": lambda g: flow.rsample_and_log_prob(5, generator=g),
    "Hutchinson": lambda g: flowing.bijection.solve(x, 0.0, 1.0, generator=g),
    "HutchPP": lambda g: CNF(field, HutchPP()).encode_and_logdet(x, None, g),
    "Dequantize": lambda g: Dequantize().encode(torch.zeros(4, 2), None, g),
    "StandardNormal": lambda g: StandardNormal(2).sample(5, None, g),
    "DiagonalNormal": lambda g: DiagonalNormal(2).sample(5, None, g),
    "GaussianMixture": lambda g: GaussianMixture([1.0], [[0.0]], [[[1.0]]]).sample(5, None, g),
    "Oracle": lambda g: Oracle(Linear(), StandardNormal(2), StandardNormal(2)).sample(0.5, 5, g),
    "toy": lambda g: toy.moons.sample(5, generator=g),
    "path": lambda g: bridged.draw(x, y, generator=g),
    "velocity_loss": lambda g: velocity_loss(field, Linear(), x, y, generator=g),
    "score_loss": lambda g: score_loss(field, bridged, x, y, generator=g),
    "denoiser_loss": lambda g: denoiser_loss(field, bridged, x, y, generator=g),
    "drop_context": lambda g: drop_context(x, 0.1, generator=g),
    "UniformTimes": lambda g: UniformTimes()(5, generator=g),
    "BetaTimes": lambda g: BetaTimes(1, 2)(5, generator=g),
    "IndependentPairing": lambda g: IndependentPairing()(x, y, generator=g),
    "OptimalTransport": lambda g: OptimalTransport()(x, y, generator=g),
    "Sinkhorn": lambda g: Sinkhorn()(x, y, generator=g),
    "log_prob_with_error": lambda g: log_prob_with_error(flowing, x, 2, generator=g),
}


@pytest.mark.parametrize("generator", [0, np.random.default_rng(0)], ids=["seed", "NumPy"])
@pytest.mark.parametrize("call", drawing.values(), ids=drawing)
def test_a_seed_is_no_generator(call, generator):
    with pytest.raises(ValueError, match=r"Expected generator .*torch.Generator\(\).manual_seed\(0\)"):
        call(generator)


built = {
    "OptimalTransport": lambda: OptimalTransport(x, y),
    "IndependentPairing": lambda: IndependentPairing(x, y),
    "Paired": lambda: Paired(x, y),
    "Sinkhorn": lambda: Sinkhorn(x, y),
    "ConditionalPairing": lambda: ConditionalPairing(x, y),
    "Linear": lambda: Linear(x, y),
    "Linear of times": lambda: Linear(torch.rand(4)),
    "Trigonometric": lambda: Trigonometric(torch.rand(4), x, y),
    "OneSided": lambda: OneSided(x),
    "UniformTimes": lambda: UniformTimes(512),
}


@pytest.mark.parametrize("call", built.values(), ids=built)
def test_settings_are_built_before_they_are_called(call):
    with pytest.raises(ValueError, match=r"which is built first and then called with data, as in \w+\(\)"):
        call()


classes = {
    "gamma": lambda: Linear(Bridge),
    "gamma of Mirror": lambda: Mirror(Bridge),
    "alpha": lambda: Interpolant(Bridge, lambda t: t),
    "divergence": lambda: CNF(field, Exact),
    "train": lambda: TrainEval(Hutchinson, Exact()),
    "probe": lambda: Hutchinson(Rademacher),
    "solver": lambda: CNF(field, solver=Adaptive),
    "solver of sample_ode": lambda: sample_ode(field, x, Adaptive),
    "costs": lambda: CNF(field, costs=(KineticEnergy,)),
    "transform": lambda: Coupling([True, False], Affine, Conditioner(1, 2)),
    "net": lambda: Coupling([True, False], Affine(), Conditioner),
    "net of Residual": lambda: Residual(Contraction),
    "logdet": lambda: Residual(Contraction(2), RussianRoulette),
    "pairing": lambda: ConditionalPairing(OptimalTransport),
    "interpolant": lambda: velocity_loss(field, Linear, x, y),
}


@pytest.mark.parametrize("name", classes)
def test_a_class_in_the_place_of_what_it_makes_is_named(name):
    with pytest.raises(
        ValueError, match=rf"Expected {name.split()[0]} to be built; got the class (\w+).*: \1\(\)"
    ):
        classes[name]()


fields = {
    "velocity_loss": lambda f: velocity_loss(f, Linear(), x, y),
    "score_loss": lambda f: score_loss(f, Linear(Bridge()), x, y),
    "denoiser_loss": lambda f: denoiser_loss(f, Linear(Bridge()), x, y),
    "sample_ode": lambda f: sample_ode(f, x),
    "score_from_velocity": lambda f: score_from_velocity(f, Linear()),
    "CNF": CNF,
}


@pytest.mark.parametrize("call", fields.values(), ids=fields)
def test_a_flow_is_no_field(call):
    for wrong in (flowing, flowing.bijection, flow, flow.bijection):
        with pytest.raises(ValueError, match=r"Expected field.*cnf\.field"):
            call(wrong)


def test_a_generator_by_place_is_sent_by_name():
    for call in (
        lambda: velocity_loss(field, Linear(), x, y, rng()),
        lambda: velocity_loss(field, Linear(Bridge()), x, y, None, rng()),
        lambda: Linear().draw(x, y, rng()),
        lambda: StandardNormal(2).sample(3, rng()),
    ):
        with pytest.raises(ValueError, match="generator=…|generator=torch.Generator"):
            call()


@pytest.mark.parametrize("density", [StandardNormal(2), DiagonalNormal(2), toy.moons, flow], ids=repr)
def test_a_seed_in_the_place_of_the_context_is_refused(density):
    with pytest.raises(ValueError, match=r"Expected context .*; got int\. .*manual_seed"):
        density.sample(5, 0)


advice = {
    "numbers": (lambda: conditioned.log_prob(x, torch.ones(4, 1).long()), r"context\.float\(\)"),
    "labels": (lambda: conditioned.log_prob(x, torch.ones(4).long()), r"one_hot\(context, classes\)"),
    "a number a row": (lambda: conditioned.log_prob(x, torch.ones(4)), r"context\[:, None\]"),
    "two features": (lambda: conditioned.log_prob(x, x), r"built with context=1; got \(4, 2\)\. Rebuild"),
    "batches of rows": (lambda: flow.log_prob(torch.ones(4, 5, 2)), r"x\.flatten\(0, -2\)"),
    "channels last": (lambda: nice((3, 8, 8)).log_prob(torch.ones(4, 8, 8, 3)), r"x\.movedim\(-1, 1\)"),
    "units of another event": (
        lambda: flow.after(Standardize.fit(torch.randn(5, 3, generator=rng()))),
        r"events of shape \(3,\).*it is for 2 along",
    ),
    "layers of other channels": (
        lambda: Chain(Standardize(torch.zeros(3), torch.ones(3)), flow.bijection),
        r"layer 1, Chain, .* events of shape \(3,\) .* for 2 along",
    ),
}


@pytest.mark.parametrize(("call", "way"), advice.values(), ids=advice)
def test_the_way_out_is_one(call, way):
    with pytest.raises(ValueError, match=way):
        call()


def test_the_ways_out_lead_out():
    assert flow.log_prob(torch.ones(4, 5, 2).flatten(0, -2)).shape == (20,)
    images = torch.rand(4, 8, 8, 3, generator=rng())
    assert nice((3, 8, 8)).log_prob(images.movedim(-1, 1)).shape == (4,)
    assert conditioned.log_prob(x, torch.ones(4, 1).long().float()).shape == (4,)


def test_a_mask_may_be_a_list_and_a_time_a_number():
    net = Conditioner(1, 2)
    listed, mask = Coupling([True, False], Affine(), net), torch.tensor([True, False])
    assert torch.equal(listed.encode(x), Coupling(mask, Affine(), net).encode(x))
    for f, points in ((field, x), (concat_squash(2, (4,)), x), (UNet((1, 8, 8), 8, (1, 1), 1), image)):
        assert torch.equal(f(1, points), f(torch.tensor(1.0), points))


def test_one_s_own_pairing_may_be_built_from_tensors():
    class Plan(IndependentPairing.__mro__[1]):
        def __init__(self, order):
            self.order = order

        def pick(self, x0, x1, context=None, generator=None):
            return self.order

    order = torch.tensor([3, 2, 1, 0])
    assert torch.equal(Plan(order)(x, y)[0], x[order])


misplaced = {
    "Exact of points": (lambda: Exact(x), "Expected product"),
    "a cost alone": (lambda: CNF(field, costs=KineticEnergy()), "Expected costs"),
    "a class of costs": (lambda: CNF(field, costs=(KineticEnergy,)), "Expected costs"),
    "a name of a cost": (lambda: CNF(field, costs=["kinetic"]), "Expected costs"),
    "a time for times": (lambda: flowing.bijection.trajectory(x, 0.5), "Expected at least two times"),
    "text for times": (lambda: flowing.bijection.solve_along(x, "01"), "Expected at least two times"),
    "points before the flow": (lambda: log_prob_with_error(x, flowing), "Expected flow"),
    "a bijection with an error": (lambda: log_prob_with_error(flowing.bijection, x), "Expected flow"),
    "a bijection at a time": (lambda: log_prob_at(flowing.bijection, x, 0.5), "Expected flow"),
    "points at a time": (lambda: log_prob_at(x, flowing, 0.5), "Expected flow"),
    "points with costs": (lambda: log_prob_and_costs(x, flowing), "Expected flow"),
    "points given a flow": (lambda: given(x, flow), "Expected flow"),
    "a list given": (lambda: given(flow, [1, 2, 3]), "Expected context"),
    "a number given": (lambda: given(flow, 3), "Expected context"),
    "audit of a bijection": (lambda: audit_gradients(flow.bijection, x), "Expected flow"),
    "audit of points": (lambda: audit_gradients(x, flow), "Expected flow"),
    "Oracle of a class": (
        lambda: Oracle(Linear, StandardNormal(2), StandardNormal(2)),
        "Expected interpolant",
    ),
    "Oracle of a toy target": (
        lambda: Oracle(Linear(), StandardNormal(2), toy.moons),
        "Expected rho1 to be a GaussianMixture",
    ),
    "a base tempered": (lambda: tempered(StandardNormal(2), 0.5), "Expected flow"),
    "text for a temperature": (lambda: tempered(flow, "0.5"), "Expected 0 < temperature"),
    "text for a bound": (lambda: spline_flow(dim=2, bound="5"), "Expected bound"),
    "text for the bound of a scale": (lambda: Affine(bound="5"), "Expected bound"),
    "chunks of a function": (lambda: in_chunks(x, flow.log_prob, 2), "Expected x"),
    "chunks of an array": (lambda: in_chunks(flow.log_prob, x.numpy(), 2), "Expected x"),
    "chunks of other rows": (lambda: in_chunks(flow.log_prob, x, 2, y[:1]), "Expected context"),
    "chunks of a mean": (lambda: in_chunks(lambda x: x.mean(), x, 2), "Expected function"),
    "chunks with counts": (lambda: in_chunks(lambda x: (x, 3), x, 2), "Expected function"),
}


@pytest.mark.parametrize(("call", "match"), misplaced.values(), ids=misplaced)
def test_what_stands_in_the_place_of_something_else_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
