"""Errors at the boundary: each is a ValueError that names the argument and says what was expected."""

import math
import re

import numpy as np
import pytest
import torch
from registry import coupling, rng
from torch import nn

from cnflib import Chain, DiagonalNormal, Flow, Standardize, StandardNormal, tempered
from cnflib.continuous import CNF, Bottleneck, Hutchinson, HutchPP, PathDerivative
from cnflib.discrete import (
    MADE,
    ActNorm,
    Additive,
    Affine,
    Contraction,
    Coupling,
    Dequantize,
    Flatten,
    InvertibleConv1x1,
    Logit,
    MaskedAutoregressive,
    Planar,
    Radial,
    RationalQuadratic,
    Residual,
    RussianRoulette,
    TruncatedSeries,
    halves,
    spectral_norm,
)
from cnflib.interpolants import (
    BetaTimes,
    Bridge,
    Constant,
    EncodingDecoding,
    ImportanceTimes,
    IndependentPairing,
    Interpolant,
    LearnableInterpolant,
    Linear,
    Mirror,
    OptimalTransport,
    Oracle,
    Rated,
    Sigmoid,
    Sinkhorn,
    best_diffusion,
    continuity_residual,
    denoiser_from_score,
    denoiser_loss,
    drop_context,
    gaussian_cost,
    monitor,
    path_energy,
    path_measure_bound,
    sample_ode,
    sample_sde,
    score_from_denoiser,
    score_from_velocity,
    score_loss,
    score_residual,
    sinkhorn_plan,
    velocity_from_score,
    velocity_loss,
    velocity_objective,
)
from cnflib.interpolants import ConditionalPairing as conditioned
from cnflib.models import (
    ffjord,
    glow,
    iaf,
    maf,
    planar_flow,
    radial_flow,
    realnvp,
    residual_flow,
    spline_flow,
)
from cnflib.nets import MLP, Conditioner, ConvNet
from cnflib.ode import Adaptive, Fixed, SolveError, heun

x = torch.randn(4, 2, generator=rng())
c = torch.randn(4, 3, generator=rng())
bad = x.index_put((torch.tensor(1), torch.tensor(0)), torch.tensor(torch.nan))
flows = {
    "realnvp": realnvp(dim=2, layers=2, hidden=(4,)),
    "ffjord": ffjord(dim=2, hidden=(4,), solver=Fixed(1)),
    "residual_flow": residual_flow(dim=2, layers=2, hidden=(4,)),
    "Standardize": Flow(Standardize(torch.zeros(2), torch.ones(2)), StandardNormal(2)),
    "planar": planar_flow(dim=2, layers=2),
    "radial": radial_flow(dim=2, layers=2),
    "maf": maf(dim=2, layers=1, hidden=(4,)),
    "Chain": Flow(Chain(coupling(Affine())), StandardNormal(2)),
}
conditional = {
    "realnvp": realnvp(dim=2, hidden=(4,), context=3),
    "ffjord": ffjord(dim=2, hidden=(4,), context=3),
    "planar": planar_flow(dim=2, layers=2, hidden=(4,), context=3),
    "radial": radial_flow(dim=2, layers=2, hidden=(4,), context=3),
    "maf": maf(dim=2, layers=1, hidden=(4,), context=3),
    "residual_flow": residual_flow(dim=2, layers=2, hidden=(4,), context=3),
}
cnf, field = flows["ffjord"].bijection, flows["ffjord"].bijection.field
oracle = Oracle(Linear(), StandardNormal(2), StandardNormal(2))
flat = torch.zeros(1, 1, 1)


def sde(eps=1.0, solver=None, score=lambda t, x, c: -x, **options):
    return sample_sde(lambda t, x, c: x, score, x, eps, solver or TWO, **options)


TWO = Fixed(2, heun)
DROPS = MLP(2, activation=nn.Dropout)
square = lambda t, x, c: x.square().sum(1)  # noqa: E731
noisy = Interpolant(lambda t: 1 - t, lambda t: t, lambda t: t * (1 - t))


def anything(function: object) -> nn.Module:
    module = nn.Module()
    module.forward = function
    return module


points = {  # a wrong x: what the message says
    "other dimension": (torch.zeros(4, 3), "Expected x"),
    "transposed image": (
        torch.zeros(4, 1, 2),
        "Expected x",
    ),
    "no batch dimension": (
        torch.zeros(2),
        "Expected x",
    ),
    "scalar": (torch.tensor(0.0), "Expected x"),
    "empty of other dimension": (torch.zeros(0, 3), "Expected x"),
    "integers": (
        torch.zeros(4, 2, dtype=torch.int64),
        "Expected x",
    ),
    "booleans": (torch.zeros(4, 2, dtype=torch.bool), "Expected x"),
    "numpy": (np.zeros((4, 2)), "Expected x"),
    "list": ([[0.0, 0.0]], "Expected x"),
    "dtype": (
        torch.zeros(4, 2).double(),
        "Expected x",
    ),
    "device": (torch.zeros(4, 2, device="meta"), "Expected x"),
}


@pytest.mark.parametrize(("wrong", "match"), points.values(), ids=points)
@pytest.mark.parametrize("flow", flows.values(), ids=flows)
def test_log_prob_says_what_is_wrong_with_x(flow, wrong, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        flow.log_prob(wrong)


@pytest.mark.parametrize("wrong", [w for name, (w, _) in points.items() if "empty" not in name])
@pytest.mark.parametrize("flow", flows.values(), ids=flows)
def test_a_bijection_of_its_own_refuses_the_same_points(flow, wrong):
    for call in (flow.bijection, flow.encode, flow.decode):
        with pytest.raises(ValueError, match=r"Expected [xz] (of|to|on)"):
            call(wrong)


def test_one_dimensional_data_need_an_event_axis():
    with pytest.raises(ValueError, match="Expected x"):
        ffjord(dim=1).log_prob(torch.zeros(5))


def test_a_table_is_told_how_to_become_a_tensor():
    frame = pytest.importorskip("pandas").DataFrame(x.numpy())
    flow, given = flows["realnvp"], conditional["realnvp"]
    with pytest.raises(ValueError, match=r"x to be a tensor.*got DataFrame.*torch.tensor\(x.to_numpy\(\)\)"):
        flow.log_prob(frame)
    with pytest.raises(ValueError, match=r"x to be a tensor.*got ndarray.*torch.as_tensor\(x\)"):
        flow.log_prob(x.numpy())
    with pytest.raises(ValueError, match=r"context to be a tensor.*torch.tensor\(context.to_numpy\(\)\)"):
        given.log_prob(x, frame)
    with pytest.raises(ValueError, match=r"context to be a tensor.*torch.as_tensor\(context\)"):
        given.sample(len(x), x.numpy())


contexts = {
    "missing": (None, "Expected a context of"),
    "of other batch": (c[:3], "Expected context"),
    "of other features": (c[:, :2], "Expected context"),
    "without batch": (
        c[0],
        "Expected context",
    ),
    "labels": (
        torch.arange(4),
        "Expected context",
    ),
    "a number a row": (c[:, 0], "Expected context"),
    "dtype": (c.double(), "Expected context"),
    "list": (c.tolist(), r"Expected context to be a tensor.*got list.*torch.as_tensor\(context\)"),
    "NumPy": (c.numpy(), r"Expected context to be a tensor.*got ndarray.*torch.as_tensor\(context\)"),
}


@pytest.mark.parametrize(("wrong", "match"), contexts.values(), ids=contexts)
@pytest.mark.parametrize("flow", conditional.values(), ids=conditional)
def test_a_wrong_context_is_named(flow, wrong, match):
    for call in (flow.log_prob, flow.bijection, flow.encode, flow.decode):
        with pytest.raises(ValueError, match=match):
            call(x, wrong)


@pytest.mark.parametrize("flow", [flows[name] for name in conditional], ids=conditional)
def test_a_context_that_was_not_declared_is_refused(flow):
    with pytest.raises(ValueError, match="Expected no context"):
        flow.log_prob(x, c)


contexts_of_one_row = {
    "a point": (x[:1], c[0], r"context\[None\]\."),
    "points": (x, c[0, :2], r"context\[None\]\.expand\(4, -1\)"),
    "one for all": (x, c[:1], r"context\.expand\(4, \*context\.shape\[1:\]\)"),
    "a number": (x, c[0, 0], r"context\.expand\(4, \*context\.shape\[1:\]\)"),
    "some rows": (x, c[:3], "rows"),
}


@pytest.mark.parametrize(("x", "wrong", "way"), contexts_of_one_row.values(), ids=contexts_of_one_row)
def test_the_way_to_a_row_for_each_point_is_one(x, wrong, way):
    flow = next(iter(conditional.values()))
    with pytest.raises(ValueError, match=way) as error:
        flow.log_prob(x, wrong)
    if code := re.search(r"context(\[None\])?(\.expand\(.*\))?\.$", str(error.value)):
        rows = eval(code.group()[:-1], {"context": wrong})
        assert len(rows) == len(x)


def test_a_sample_of_one_names_the_way_to_a_row():
    with pytest.raises(ValueError, match=r"context\[None\]"):
        next(iter(conditional.values())).sample(7, c[0, :2])


calls = {
    "sample of none": (lambda: flows["realnvp"].sample(0), "Expected n"),
    "sample of a half": (
        lambda: flows["realnvp"].rsample_and_log_prob(2.5),
        "Expected n",
    ),
    "base of none": (lambda: StandardNormal(2).sample(0), "Expected n"),
    "context rows for samples": (
        lambda: conditional["realnvp"].sample(3, c),
        "Expected context",
    ),
    "list for samples": (
        lambda: conditional["realnvp"].sample(3, [1.0]),
        "Expected context",
    ),
    "t0 above 1": (lambda: cnf.solve(x, 1.5, 0.0), "Expected times"),
    "t1 below 0": (lambda: cnf.solve(x, 0.5, -0.1), "Expected times"),
    "t0 = t1 outside": (lambda: cnf.solve(x, 2.0, 2.0), "Expected times"),
    "t NaN": (lambda: cnf.solve(x, float("nan"), 1.0), "Expected times"),
    "path outside": (
        lambda: cnf.solve_along(x, [0.0, 0.5, 1.01]),
        "Expected times",
    ),
    "t0 of a batch": (
        lambda: cnf.solve(x, torch.zeros(4), 1.0),
        "Expected every time of",
    ),
    "t1 of shape (1,)": (lambda: cnf.solve(x, 0.0, torch.ones(1)), "Expected every time of"),
    "times of a batch": (lambda: cnf.solve_along(x, torch.rand(2, 4)), "Expected every time of"),
    "path of one time": (
        lambda: cnf.solve_along(x, [0.5]),
        "Expected at least two times",
    ),
    "path out of order": (
        lambda: cnf.solve_along(x, [0.0, 1.0, 0.5]),
        "Expected at least two times",
    ),
    "path that rests": (
        lambda: cnf.solve_along(x, [0.0, 0.5, 0.5]),
        "Expected at least two times",
    ),
    "NaN": (lambda: ffjord(dim=2).log_prob(bad), "Expected finite starting state"),
    "inf": (
        lambda: ffjord(dim=2).bijection.decode(x / 0),
        "Expected finite starting state",
    ),
    "field of other shape": (
        lambda: CNF(lambda t, x, c: x[:, :1])(x),
        "Expected field",
    ),
    "field of a number": (
        lambda: CNF(lambda t, x, c: x.sum(), solver=Fixed(1)).decode(x),
        "Expected field",
    ),
    "field of a tuple": (
        lambda: CNF(lambda t, x, c: (x, x), solver=Fixed(1))(x),
        "Expected field",
    ),
    "field that detaches": (
        lambda: CNF(lambda t, x, c: torch.sin(x.detach())).solve(x, 0.0, 1.0),
        "Expected field",
    ),
    "field without gradients": (
        lambda: CNF(torch.no_grad()(lambda t, x, c: torch.sin(x)), solver=Fixed(2))(x),
        "Expected field",
    ),
    "field of data": (
        lambda: CNF(lambda t, x, c: torch.tanh(x.data), Hutchinson()).decode_and_logdet(x),
        "Expected field",
    ),
    "field that rounds": (
        lambda: CNF(lambda t, x, c: (500 * x).round() / 500, HutchPP(), Fixed(2))(x),
        "Expected field",
    ),
    "hidden from the adjoint": (
        lambda: CNF(lambda t, x, c: field(t, x, c), solver=Adaptive(adjoint=True)).solve(x, 0.0, 1.0),
        "Expected every tensor that",
    ),
    "hidden from checkpoints": (
        lambda: CNF(lambda t, x, c: field(t, x, c), solver=Fixed(2, checkpoint=True))(x),
        "the first of shape",
    ),
    "adjoint tolerance": (
        lambda: Adaptive(rtol=-1.0, adjoint=True),
        "Expected rtol",
    ),
    "adjoint method": (lambda: Adaptive("euler", adjoint=True), "Expected tableau"),
    "checkpointed steps": (lambda: Fixed(0, checkpoint=True), "Expected steps"),
    "steps negative": (lambda: Fixed(-3), "Expected steps"),
    "order": (lambda: PathDerivative(0), "Expected order"),
    "sketch": (lambda: HutchPP(sketch=0), "Expected sketch"),
    "bottleneck probes": (lambda: Bottleneck(probes=0), "Expected probes"),
    "bottleneck of a wide net": (
        lambda: CNF(MLP(2), Bottleneck(), Fixed(1))(x),
        "Expected a hidden layer",
    ),
    "scales": (
        lambda: ffjord(shape=(1, 6, 6), scales=3),
        "Expected sides",
    ),
    "divergence not called": (
        lambda: CNF(field, Hutchinson),
        "Expected divergence",
    ),
    "solver not called": (
        lambda: CNF(field, solver=Fixed),
        "Expected solver",
    ),
    "solver of a name": (lambda: CNF(field, solver="dopri5"), "Expected solver"),
    "field not built": (lambda: CNF(MLP), "Expected field"),
    "field of nothing": (lambda: CNF(None), "Expected field"),
    "field of four arguments": (
        lambda: CNF(lambda t, x, c, more: x),
        r"f\(t, x, context\)",
    ),
    "field of one argument": (
        lambda: CNF(nn.Sequential(nn.Linear(2, 2))),
        "got Sequential",
    ),
    "tableau of a name": (lambda: Fixed(10, "rk4"), "Expected tableau"),
    "cost of a number": (
        lambda: CNF(field, costs=(lambda f, t, x, c, local: x.square().mean(),), solver=Fixed(2))(x),
        r"every cost to return a rate of shape \(4,\)",
    ),
    "cost of a column": (
        lambda: CNF(field, costs=(lambda f, t, x, c, local: x[:, :1],))(x),
        r"rate of shape \(4,\)",
    ),
    "dropout": (
        lambda: CNF(MLP(2, activation=lambda: nn.Dropout(0.1)))(x),
        "function of each row alone; Dropout in training mode",
    ),
    "spectral norm by a parametrization": (
        lambda: CNF(MLP(2, activation=lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(64, 64))))(x),
        "SpectralNorm in training mode",
    ),
    "spectral norm by a hook": (
        lambda: CNF(MLP(2, activation=lambda: nn.utils.spectral_norm(nn.Linear(64, 64)))).decode(x),
        "SpectralNorm in training mode",
    ),
    "random slopes": (lambda: CNF(MLP(2, activation=nn.RReLU))(x), "RReLU in training mode"),
    "dropout in attention": (
        lambda: CNF(MLP(2, activation=lambda: nn.MultiheadAttention(64, 1, 0.1)))(x),
        "dropout of MultiheadAttention in training mode",
    ),
    "batch norm": (
        lambda: CNF(MLP(2, activation=lambda: nn.BatchNorm1d(64)), solver=Fixed(1)).decode(x),
        "BatchNorm1d in training mode",
    ),
    "steps 0": (lambda: Fixed(0), "Expected steps"),
    "steps 1.5": (lambda: Fixed(1.5), "Expected steps"),
    "steps True": (lambda: Fixed(True), "Expected steps"),
    "rtol 0": (lambda: Adaptive(rtol=0), "Expected rtol"),
    "atol negative": (lambda: Adaptive(atol=-1e-5), "Expected atol"),
    "rtol NaN": (lambda: Adaptive(rtol=float("nan")), "Expected rtol"),
    "method": (lambda: Adaptive("rk4"), "Expected tableau"),
    "max_steps": (lambda: Adaptive(max_steps=0), "Expected max_steps"),
    "probes": (lambda: Hutchinson(probes=0), "Expected probes"),
    "mask keeps all": (
        lambda: Coupling(torch.ones(2).bool(), Affine(), None),
        "Expected mask",
    ),
    "mask keeps none": (
        lambda: Coupling(torch.zeros(2).bool(), Affine(), None),
        "Expected mask",
    ),
    "mask of numbers": (lambda: Coupling(torch.ones(2), Affine(), None), "Expected mask"),
    "coupling net": (
        lambda: Coupling(torch.tensor([True, False]), Affine(), Conditioner(1, 1))(x),
        "Expected net",
    ),
    "channels of a coupling": (
        lambda: Coupling(halves(3), Affine(), None)(torch.zeros(4, 2, 5, 5)),
        "Expected x",
    ),
    "coordinates of a coupling": (
        lambda: Coupling(halves(3), Affine(), None)(x),
        "Expected x",
    ),
    "half of one": (lambda: halves(1), "Expected size"),
    "bound 0": (lambda: Affine(0.0), "Expected bound"),
    "bound NaN": (lambda: Affine(float("nan")), "Expected bound"),
    "bound inf": (lambda: Affine(float("inf")), "Expected bound"),
    "bins 0": (lambda: RationalQuadratic(bins=0), "Expected bins"),
    "bins 1000": (
        lambda: RationalQuadratic(1000),
        "Expected 1",
    ),
    "box 0": (lambda: RationalQuadratic(bound=0.0), "Expected bound"),
    "box inf": (lambda: spline_flow(dim=2, bound=float("inf")), "Expected bound"),
    "hidden of one number": (
        lambda: maf(dim=2, hidden=64),
        "Expected hidden",
    ),
    "hidden of a conditioner": (lambda: realnvp(dim=2, hidden=(8, 0)), "Expected hidden"),
    "MADE of no hidden layer": (
        lambda: MADE(2, 2, hidden=()),
        "Expected hidden",
    ),
    "MADE of other parameters": (
        lambda: MaskedAutoregressive(Affine(), MADE(2, 3)),
        "Expected a net with",
    ),
    "no MADE": (
        lambda: MaskedAutoregressive(Affine(), nn.Linear(2, 4)),
        "Expected a net with",
    ),
    "transform not called": (
        lambda: maf(dim=2, transform=RationalQuadratic),
        "Expected transform",
    ),
    "transform of a coupling": (
        lambda: Coupling(halves(2), "affine", None),
        "Expected transform",
    ),
    "transform of a layer": (lambda: MaskedAutoregressive(None, MADE(2, 2)), "Expected transform"),
    "coefficient 1": (lambda: residual_flow(dim=2, coefficient=1.0), "Expected 0"),
    "coefficient of many dimensions": (
        lambda: residual_flow(dim=20, coefficient=1.5),
        "Expected 0",
    ),
    "coefficient 0": (lambda: Contraction(2, coefficient=0), "Expected 0"),
    "coefficient NaN": (lambda: Contraction(2, coefficient=float("nan")), "Expected 0"),
    "kernel even": (lambda: Contraction((1, 4, 4), kernel=2), "Expected an odd kernel"),
    "kernel of a vector": (
        lambda: Contraction(4, kernel=3),
        r"event of shape \(C, H, W\)",
    ),
    "kernel 0": (lambda: Contraction((1, 4, 4), kernel=0), "Expected an odd kernel"),
    "roulette terms": (lambda: RussianRoulette(terms=0), "Expected terms"),
    "roulette probes": (lambda: RussianRoulette(probes=0), "Expected probes"),
    "end in between": (
        lambda: score_from_velocity(lambda t, x: x, Linear(), gaussian_end=0.5),
        "Expected gaussian_end",
    ),
    "roulette ratio 1": (
        lambda: RussianRoulette(ratio=1.0),
        "Expected 0",
    ),
    "roulette ratio 0": (lambda: RussianRoulette(ratio=0.0), "Expected 0"),
    "truncated terms": (lambda: TruncatedSeries(0), "Expected terms"),
    "norm of a vector": (
        lambda: spectral_norm(x[0]),
        "Expected a weight of",
    ),
    "norm of a strip": (lambda: spectral_norm(torch.ones(1, 1, 3, 1)), r"inputs, k, k\); got \(1, 1, 3, 1\)"),
    "residual of no contraction": (
        lambda: Residual(anything(lambda x, c: 2 * x)).decode(x),
        "Expected the iteration",
    ),
    "residual of too few iterations": (
        lambda: Residual(anything(lambda x, c: 0.9 * x), iterations=3).decode_and_logdet(x),
        "did not in 4 of 4 rows",
    ),
    "residual of NaN weights": (
        lambda: Residual(anything(lambda x, c: x * torch.nan)).decode(x),
        "did not in 4 of 4 rows.*NaN in the weights",
    ),
    "residual of one bad row": (
        lambda: flows["residual_flow"].bijection.decode(bad),
        "did not in 1 of 4 rows.*NaN.* in z",
    ),
    "residual net of other shape": (
        lambda: Residual(anything(lambda x, c: x[:, :1]))(x),
        "Expected net",
    ),
    "std 0": (
        lambda: Standardize(torch.zeros(2), torch.tensor([1.0, 0])),
        "Expected finite mean",
    ),
    "std inf": (
        lambda: Standardize(torch.zeros(2), torch.ones(2) / 0),
        "Expected finite mean",
    ),
    "mean NaN": (lambda: Standardize(bad[1], torch.ones(2)), "Expected finite mean"),
    "mean and std": (
        lambda: Standardize(torch.zeros(2), torch.ones(3)),
        "mean and std of one",
    ),
    "one coordinate": (
        lambda: realnvp(dim=1),
        "size >= 2; got 1",
    ),
    "glow of one coordinate": (
        lambda: glow(shape=(1, 1, 1)),
        "Expected mask",
    ),
    "glow scales": (
        lambda: glow(shape=(1, 28, 28), scales=4),
        "Expected sides",
    ),
    "glow context missing": (
        lambda: glow(shape=(1, 4, 4), context=3).log_prob(torch.randn(4, 1, 4, 4)),
        "Expected a context of",
    ),
    "glow context undeclared": (
        lambda: glow(shape=(1, 4, 4)).log_prob(torch.randn(4, 1, 4, 4), c),
        "Expected no context",
    ),
    "image scales": (lambda: realnvp(shape=(1, 6, 6), scales=3), "at most scales=2"),
    "ActNorm of one row": (
        lambda: ActNorm(2)(x[:1]),
        "finite and not constant to set up an ActNorm; 2 of 2",
    ),
    "ActNorm of none": (lambda: ActNorm(2)(x[:0]), "finite and not constant"),
    "ActNorm of a constant": (
        lambda: ActNorm(2)(torch.ones(4, 2)),
        "finite and not constant",
    ),
    "ActNorm of NaN": (lambda: ActNorm(2)(bad), "finite and not constant"),
    "ActNorm before a transform": (
        lambda: torch.func.vjp(lambda y: ActNorm(2)(y)[0], x),
        "Expected an ActNorm that",
    ),
    "ActNorm of other channels": (lambda: ActNorm(3)(x), "Expected x"),
    "ActNorm dtype": (
        lambda: ActNorm(2)(x.double()),
        "Expected x",
    ),
    "convolution of other channels": (
        lambda: InvertibleConv1x1(3)(torch.zeros(4, 2, 5, 5)),
        "Expected x",
    ),
    "convolution dtype": (
        lambda: InvertibleConv1x1(2).double()(x),
        "Expected x",
    ),
    "flatten": (lambda: Flatten((2, 3))(x), "Expected x"),
    "ConvNet of one layer": (lambda: ConvNet(1, 2, ()), "Expected hidden"),
    "level too high": (
        lambda: Dequantize(4)(torch.tensor([[0.0, 4.0]])),
        "Expected integers",
    ),
    "level too low": (lambda: Dequantize()(torch.tensor([[-1.0]])), "integers from 0 to 255; got -1"),
    "level of a half": (
        lambda: Dequantize()(torch.tensor([[0.5, 1.0]])),
        "got 0.5 at 1 of 2",
    ),
    "level NaN": (lambda: Dequantize()(bad), "Expected integers"),
    "levels in an integer dtype": (
        lambda: Dequantize()(torch.zeros(2, 3, dtype=torch.uint8)),
        "Expected x",
    ),
    "alpha 0": (lambda: Logit(0.0), "Expected 0"),
    "alpha 1/2": (lambda: Logit(0.5), "Expected 0"),
    "spline in half precision": (
        lambda: spline_flow(dim=2).bfloat16().log_prob(x.bfloat16()),
        "float32 or float64 for a spline; got torch.bfloat16",
    ),
    "spline of float16 decoded": (
        lambda: spline_flow(dim=2).half().sample(3),
        "float32 or float64 for a spline",
    ),
    "spline of one bin": (lambda: spline_flow(dim=2, bins=1), "Expected bins >= 2"),
    "maf of one coordinate": (lambda: maf(dim=1), r"bends the line, as \(1,\) is one coordinate"),
    "iaf of one coordinate": (lambda: iaf(shape=(1, 1), context=2), "stays normal.*RationalQuadratic"),
    "maf of one coordinate shifted": (lambda: maf(dim=1, transform=Additive()), "got Additive"),
    "temperature 0": (
        lambda: tempered(flows["realnvp"], 0.0),
        "Expected 0",
    ),
    "temperature NaN": (lambda: tempered(flows["realnvp"], float("nan")), "Expected 0"),
    "planar of none": (lambda: Planar(0), "Expected shape"),
    "planar of ()": (lambda: Planar(()), "Expected a shape of"),
    "radial of ()": (lambda: Radial(()), "Expected a shape of"),
    "dim and shape": (
        lambda: ffjord(dim=2, shape=(2,)),
        "Expected exactly",
    ),
    "neither": (lambda: realnvp(), "Expected exactly"),
    "dim 0": (lambda: ffjord(dim=0), "Expected dim"),
    "shape of a half": (
        lambda: ffjord(shape=(2, 0.5)),
        "Expected each size in",
    ),
    "shape ()": (lambda: StandardNormal(()), "Expected a shape of"),
    "latent": (lambda: StandardNormal(3).log_prob(x), "Expected x"),
    "ends of other dimension": (lambda: Linear()(0.5, x, c), "Expected x1"),
    "ends of other batch": (
        lambda: Linear().rate(0.5, x, x[:3]),
        "Expected x1",
    ),
    "ends of other dtype": (lambda: Linear()(0.5, x, x.double()), "Expected x1"),
    "end without batch": (
        lambda: Linear()(0.5, x[0], x[0]),
        "Expected x0",
    ),
    "t above 1": (lambda: Linear()(1.1, x, x), "Expected t"),
    "t below 0": (lambda: Linear().rate(-0.1, x, x), "Expected t"),
    "t of other batch": (
        lambda: Linear()(torch.rand(3), x, x),
        "Expected t",
    ),
    "xi missing": (lambda: noisy(0.5, x, x), r"Expected noise xi of shape \(4, 2\)"),
    "xi of other shape": (lambda: noisy.rate(0.5, x, x, x[:1]), "Expected noise xi"),
    "xi of other dtype": (
        lambda: noisy(0.5, x, x, x.double()),
        "Expected noise xi",
    ),
    "t of a row above 1": (
        lambda: Linear()(torch.tensor([0, 0, 0, 2.0]), x, x),
        "Expected t",
    ),
    "t of a row nan": (lambda: Linear()(torch.full((4,), math.nan), x, x), "Expected t"),
    "schedule in numbers": (
        lambda: Interpolant(lambda t: math.cos(t), lambda t: t),
        "Expected alpha to be a function of a tensor t",
    ),
    "schedule detached": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: t.detach() ** 2),
        "Expected beta",
    ),
    "schedule detached, small": (
        lambda: Linear(lambda t: (0.1 * t.detach() * (1 - t.detach())) ** 2),
        "Expected gamma",
    ),
    "schedule with a step": (
        lambda: Interpolant(lambda t: (t < 0.4).float(), lambda t: t),
        "Expected alpha to be differentiable",
    ),
    "schedule with a step where it is looked at": (
        lambda: Interpolant(lambda t: (t < 0.5).float(), lambda t: t),
        "Expected alpha to be differentiable",
    ),
    "schedule rounded": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: (8 * t).round() / 8),
        "Expected beta",
    ),
    "schedule of one number": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: torch.tensor(1.0)),
        "Expected beta",
    ),
    "schedule infinite": (
        lambda: Interpolant(lambda t: 1 / (t - t), lambda t: t),
        "Expected alpha to be finite",
    ),
    "schedule negative": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: t, lambda t: t - 1),
        "Expected gamma2",
    ),
    "schedule of no noise": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: t, lambda t: 0 * t),
        "Expected gamma2",
    ),
    "noise of no scale": (lambda: Bridge(0.0), "Expected a to be"),
    "noise of infinite scale": (lambda: Constant(math.inf), "Expected sigma"),
    "noise of negative steepness": (lambda: Sigmoid(1.0, -1.0), "Expected steepness"),
    "mirror without noise": (lambda: Mirror(None), "Expected gamma"),
    "loss ends": (lambda: velocity_loss(field, Linear(), x, c), "Expected x1"),
    "loss field": (
        lambda: velocity_loss(lambda t, x, c: x[:, :1], Linear(), x, x),
        "Expected field",
    ),
    "loss tuple": (lambda: velocity_loss(lambda t, x, c: (x,), Linear(), x, x), "Expected field"),
    "loss context": (lambda: velocity_loss(field, Linear(), x, x, context=c), "Expected no context"),
    "loss context batch": (
        lambda: velocity_loss(field, Linear(), x, x, context=c[:2]),
        "Expected context",
    ),
    "pairing of other batch": (
        lambda: OptimalTransport()(x, x[:3]),
        "Expected x1",
    ),
    "pairing of other dimension": (lambda: Sinkhorn()(x, c), "Expected x1"),
    "pairing of other dtype": (
        lambda: IndependentPairing()(x, x.double()),
        "Expected x1",
    ),
    "pairing NaN": (
        lambda: OptimalTransport()(bad, bad),
        "Expected finite x0",
    ),
    "transport NaN in data": (
        lambda: OptimalTransport()(x[:, :1], bad[:, :1]),
        "Expected finite x1",
    ),
    "plan of other batch": (lambda: sinkhorn_plan(x, x[:3]), "Expected x1"),
    "labels that a pairing ignores": (
        lambda: OptimalTransport()(x, x, context=torch.arange(4)),
        "Expected no context",
    ),
    "labels of other batch": (
        lambda: conditioned(OptimalTransport())(x, x, context=torch.arange(3)),
        "Expected context",
    ),
    "labels in a list": (
        lambda: conditioned(OptimalTransport())(x, x, context=[0, 1, 0, 1]),
        "Expected context",
    ),
    "conditional of a factory": (lambda: conditioned(Sinkhorn), "Expected pairing"),
    "conditional twice": (
        lambda: conditioned(conditioned(IndependentPairing())),
        "Expected pairing",
    ),
    "conditional weight": (lambda: conditioned(IndependentPairing(), 0.0), "Expected .*weight"),
    "conditional weight NaN": (
        lambda: conditioned(IndependentPairing(), math.nan),
        "Expected .*weight",
    ),
    "too few iterations": (
        lambda: sinkhorn_plan(torch.eye(4), torch.arange(16.0).reshape(4, 4), 1e-3, 1, 1e-6),
        "Expected Sinkhorn's marginal error",
    ),
    "loss time of other batch": (
        lambda: velocity_loss(field, Linear(), x, x, torch.rand(3)),
        "Expected t",
    ),
    "loss time above 1": (
        lambda: denoiser_loss(field, noisy, x, x, torch.full((4,), 2.0)),
        "Expected t",
    ),
    "loss noise of other shape": (
        lambda: score_loss(field, noisy, x, x, xi=x[:1]),
        r"Expected noise xi of shape \(4, 2\)",
    ),
    "loss where noise vanishes": (
        lambda: velocity_loss(field, noisy, x, x, torch.tensor([0.0, 0.5, 0.5, 1.0])),
        "Expected times t",
    ),
    "objective where noise vanishes": (
        lambda: velocity_objective(field, noisy, x, x, torch.zeros(4)),
        "got 4 of 4 where it is 0",
    ),
    "monitor context batch": (
        lambda: monitor(field, noisy, x, x, context=c[:2]),
        "Expected context",
    ),
    "score of no noise": (
        lambda: score_loss(field, Linear(), x, x),
        "Expected an interpolant with",
    ),
    "denoiser of no noise": (
        lambda: denoiser_loss(field, Linear(), x, x),
        "Expected an interpolant with",
    ),
    "denoiser context batch": (
        lambda: denoiser_loss(lambda t, x, c: x, noisy, x, x, context=c[:2]),
        "Expected context",
    ),
    "score of other shape": (
        lambda: score_loss(lambda t, x, c: x[:, :1], noisy, x, x),
        "Expected score",
    ),
    "energy context batch": (
        lambda: path_energy(lambda t, x, c: x, Linear(), x, x, context=c[:2]),
        "Expected context",
    ),
    "energy field": (lambda: path_energy(lambda t, x, c: x[0], Linear(), x, x), "Expected field"),
    "false rate": (
        lambda: Interpolant(lambda t: 1 - t, Rated(torch.square, lambda t: t)),
        "Expected beta",
    ),
    "beta of 0": (lambda: BetaTimes(0.0, 1.0), "Expected a and b"),
    "beta of NaN": (lambda: BetaTimes(1.0, math.nan), "Expected a and b"),
    "beta of inf": (lambda: BetaTimes(math.inf, 1.0), "Expected a and b"),
    "more than uniform": (lambda: ImportanceTimes(uniform=1.5), "Expected 0"),
    "no end of memory": (
        lambda: ImportanceTimes(memory=math.inf),
        "Expected .*memory",
    ),
    "no uniform share": (lambda: ImportanceTimes(uniform=0.0), "Expected 0"),
    "no memory": (lambda: ImportanceTimes(memory=0.5), "Expected .*memory"),
    "a mean recorded": (
        lambda: ImportanceTimes().record(torch.rand(4), torch.tensor(1.0)),
        "Expected t",
    ),
    "NaN recorded": (
        lambda: ImportanceTimes().record(torch.rand(1), torch.tensor([math.nan])),
        "Expected t",
    ),
    "path of no order": (lambda: LearnableInterpolant(0), "Expected order"),
    "base of no shape": (lambda: DiagonalNormal(0), "positive int; got 0"),
    "base at points of other shape": (
        lambda: DiagonalNormal(2).log_prob(x[:, :1]),
        "Expected x",
    ),
    "covariance of a number": (
        lambda: gaussian_cost(x[0], torch.eye(2), x[1], torch.tensor(1.0)),
        "Expected mean0",
    ),
    "mean of a number": (
        lambda: gaussian_cost(torch.tensor(0.0), torch.eye(2), x[1], torch.eye(2)),
        "Expected mean0",
    ),
    "mean of another dimension": (
        lambda: gaussian_cost(x[0], torch.eye(2), c[0, :1], torch.eye(2)),
        "Expected mean0",
    ),
    "covariance of a variance": (
        lambda: gaussian_cost(x[0], torch.ones(2), x[1], torch.eye(2)),
        "Expected mean0",
    ),
    "sampling without batch": (
        lambda: sample_ode(field, x[0]),
        "Expected x",
    ),
    "sampling outside of time": (
        lambda: sample_ode(field, x, t0=1.0, t1=2.0),
        "Expected times",
    ),
    "sde without batch": (
        lambda: sample_sde(oracle.velocity, oracle.score, x[0], 1.0, TWO),
        "Expected x0",
    ),
    "sde from outside of time": (lambda: sde(t0=-0.5), "Expected t0"),
    "sde outside of time": (lambda: sde(t1=1.5), "Expected t0"),
    "sde solver": (lambda: sde(solver=10), "Expected solver"),
    "sde eps negative": (
        lambda: sde(-1.0),
        "Expected eps",
    ),
    "sde eps negative somewhere": (
        lambda: sde(lambda t: 0.5 - t),
        "Expected eps",
    ),
    "sde eps NaN": (lambda: sde(math.nan), "Expected eps"),
    "sde eps infinite": (lambda: sde(lambda t: 1 / t), "Expected eps"),
    "sde score shape": (lambda: sde(score=lambda t, x, c: x[:, :1]), "Expected score"),
    "sde context": (lambda: sde(context=c[:2]), "Expected context"),
    "sde dropout in the velocity": (
        lambda: sample_sde(DROPS, field, x, 1.0, TWO),
        "Expected field",
    ),
    "sde dropout": (
        lambda: sde(score=DROPS),
        "Expected field",
    ),
    "dropping too much": (lambda: drop_context(c, 1.5), "Expected a probability p"),
    "dropping less than nothing": (
        lambda: drop_context(c, -0.1),
        "Expected a probability p",
    ),
    "interpolant not called": (
        lambda: velocity_loss(field, Linear, x, x),
        "Expected interpolant",
    ),
    "interpolant inside": (
        lambda: score_loss(field, LearnableInterpolant(), x, x),
        "Expected interpolant",
    ),
    "noise not called": (lambda: Linear(Bridge), "Expected gamma"),
    "times of a column": (
        lambda: Linear()(torch.zeros(4, 1), x, x),
        "Expected t",
    ),
    "dropping labels": (
        lambda: drop_context(torch.arange(4)),
        "Expected context",
    ),
    "score between two data sets": (
        lambda: score_from_velocity(field, Linear(Bridge()), gaussian_end=None),
        "Expected a path on",
    ),
    "score without noise": (
        lambda: score_from_velocity(field, Linear(), gaussian_end=None),
        "Expected an interpolant with",
    ),
    "score of dependent ends": (
        lambda: score_from_velocity(
            field, Linear(), pairing=lambda x0, x1, context=None, generator=None: (x0, x0)
        ),
        "Expected an independent pairing",
    ),
    "velocity of dependent ends": (
        lambda: velocity_from_score(
            field, Linear(), pairing=lambda x0, x1, context=None, generator=None: (x0, x0)
        ),
        "Expected an independent pairing",
    ),
    "score where it does not exist": (
        lambda: score_from_velocity(field, EncodingDecoding(), gaussian_end=None)(1.0, x),
        "Expected times t",
    ),
    "score of a denoiser without noise": (
        lambda: score_from_denoiser(field, Linear()),
        "Expected an interpolant with",
    ),
    "denoiser without noise": (
        lambda: denoiser_from_score(field, Linear()),
        "Expected an interpolant with",
    ),
    "score of a denoiser at an end": (
        lambda: score_from_denoiser(field, Linear(Bridge()))(0.0, x),
        "Expected times t",
    ),
    "converted time": (lambda: score_from_velocity(field, Linear())(1.5, x), "Expected t"),
    "oracle of two dimensions": (
        lambda: Oracle(Linear(), StandardNormal(2), StandardNormal(3)),
        "Expected rho0",
    ),
    "oracle points": (lambda: oracle.score(0.5, torch.zeros(4, 3)), "Expected x"),
    "oracle time": (lambda: oracle.velocity(-0.1, x), "Expected t"),
    "residual without batch": (
        lambda: continuity_residual(field, square, 0.5, x[0]),
        "Expected x",
    ),
    "residual time": (
        lambda: score_residual(field, field, 2.0, x),
        "Expected t",
    ),
    "residual of values": (
        lambda: continuity_residual(field, lambda t, x, c: x.square(), 0.5, x),
        "Expected log_prob",
    ),
    "residual field": (
        lambda: continuity_residual(lambda t, x, c: x[:, :1], square, 0.5, x),
        "Expected field",
    ),
    "residual score": (
        lambda: score_residual(field, square, 0.5, x),
        "Expected score",
    ),
    "bound of a negative gap": (
        lambda: path_measure_bound(0.1, torch.tensor([0.1, -0.2]), 1.0),
        "Expected gap_s",
    ),
    "bound of a negative gap of the velocity": (
        lambda: path_measure_bound(-0.1, 0.1, 1.0),
        "Expected gap_b",
    ),
    "bound of NaN": (lambda: path_measure_bound(math.nan, 0.1, 1.0), "Expected gap_b"),
    "bound at NaN": (lambda: path_measure_bound(0.1, 0.1, math.nan), "Expected eps"),
    "diffusion of a negative gap": (lambda: best_diffusion(-1.0, 1.0), "Expected gap_b"),
    "diffusion of a negative gap of the score": (lambda: best_diffusion(1.0, -1.0), "Expected gap_s"),
    "sampling integers": (lambda: sample_ode(field, x.long()), "Expected x"),
}


@pytest.mark.parametrize(("call", "match"), calls.values(), ids=calls)
def test_a_wrong_argument_is_named(call, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        call()


def test_an_error_says_how_far_a_solve_of_many_rows_is_from_finite():
    x = torch.zeros(5, 2, 2)
    x[1], x[3, 0, 0] = torch.inf, torch.nan
    with pytest.raises(ValueError, match="2 of 5 rows"):
        ffjord(shape=(2, 2)).log_prob(x)


def spoiled():
    flow = ffjord(dim=2, hidden=(4,))
    torch.nn.init.constant_(flow.bijection.field.net[0].weight, torch.nan)
    return flow


solves = {
    "NaN weights": (
        lambda: spoiled().log_prob(x),
        r"stopped at t = 1 .*NaN or inf.*NaN weights \(a learning rate",
    ),
    "NaN weights in samples": (lambda: spoiled().sample(3), "NaN or inf.*NaN weights"),
    "stiff field": (
        lambda: CNF(lambda t, x, c: -1e6 * x, solver=Adaptive(max_steps=30)).decode_and_logdet(x),
        "max_steps was reached.*too stiff.*Try larger rtol.*float64.*Lipschitz.*Fixed",
    ),
    "field that blows up": (
        lambda: CNF(lambda t, x, c: x**2, solver=Adaptive(adjoint=True)).decode_and_logdet(x.abs() + 2),
        "blows up in finite time|underflowed",
    ),
}


@pytest.mark.parametrize(("call", "match"), solves.values(), ids=solves)
def test_a_solve_that_cannot_go_on_says_why_and_what_to_try(call, match):
    with pytest.raises(SolveError, match=f"(?s){match}"):
        call()


def test_modules_that_are_at_rest_are_no_mistake():
    norms = nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm
    iterated = [norm(nn.Linear(64, 64)).eval() for norm in norms]
    for rest in (
        nn.Dropout(0.0),
        nn.Dropout(0.5).eval(),
        nn.BatchNorm1d(64).eval(),
        *iterated,
    ):
        solution = CNF(MLP(2, activation=lambda: rest), solver=Fixed(1)).solve(x, 0.0, 1.0)
        assert solution.x.isfinite().all()


def test_a_field_that_does_not_change_with_x_is_no_mistake():
    for still in (lambda t, x, c: torch.ones_like(x), lambda t, x, c: torch.zeros_like(x)):
        solution = CNF(still).solve(x, 0.0, 1.0)
        assert not solution.logdet.any()


def test_fixed_steps_do_not_look_at_values():
    assert flows["ffjord"].log_prob(bad).isnan().tolist() == [False, True, False, False]


def test_a_chain_refuses_what_is_not_a_bijection():
    with pytest.raises(ValueError, match="Expected layer 0"):
        Chain(nn.Identity(), lambda x: x)
