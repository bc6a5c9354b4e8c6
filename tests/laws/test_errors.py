"""Errors at the boundary: each is a ValueError that names the argument and says what was expected."""

import math

import numpy as np
import pytest
import torch
from registry import coupling, rng
from torch import nn

from cnflib import Chain, DiagonalNormal, Flow, Standardize, StandardNormal, tempered
from cnflib.continuous import CNF, Bottleneck, Hutchinson, HutchPP, KineticEnergy, PathDerivative
from cnflib.discrete import (
    MADE,
    ActNorm,
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
    "other dimension": (torch.zeros(4, 3), r"Expected x of shape \(B, 2\); got \(4, 3\)\. Rebuild"),
    "transposed image": (
        torch.zeros(4, 1, 2),
        r"Expected x of shape \(B, 2\); got \(4, 1, 2\)\..*x.reshape\(-1, 2\)",
    ),
    "no batch dimension": (
        torch.zeros(2),
        r"Expected x of shape \(B, 2\); got \(2,\)\. Add a batch dimension: x\[None\]",
    ),
    "scalar": (torch.tensor(0.0), r"Expected x of shape \(B, 2\); got \(\)"),
    "empty of other dimension": (torch.zeros(0, 3), r"Expected x of shape \(B, 2\); got \(0, 3\)"),
    "integers": (
        torch.zeros(4, 2, dtype=torch.int64),
        r"Expected x of a floating dtype; got torch.int64.*x.float\(\)",
    ),
    "booleans": (torch.zeros(4, 2, dtype=torch.bool), r"Expected x of a floating dtype; got torch.bool"),
    "numpy": (np.zeros((4, 2)), r"Expected x of a floating dtype; got ndarray.*as_tensor\(x\)"),
    "list": ([[0.0, 0.0]], r"Expected x of a floating dtype; got list"),
    "dtype": (
        torch.zeros(4, 2).double(),
        r"Expected x of dtype torch.float32.*got torch.float64.*x.to\(torch.float32\)",
    ),
    "device": (torch.zeros(4, 2, device="meta"), r"Expected x .*on device cpu; got .*meta.*x.to\("),
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
    with pytest.raises(
        ValueError, match=r"Expected x of shape \(B, 1\); got \(5,\).*event dimension: x\[:, None\]"
    ):
        ffjord(dim=1).log_prob(torch.zeros(5))


contexts = {
    "missing": (None, r"Expected a context of shape \(B, 3\); got None"),
    "of other batch": (c[:3], r"Expected context with B = 4 rows, one for each row of [xz]; got \(3, 3\)"),
    "of other features": (c[:, :2], r"Expected context of shape \(B, 3\); got \(4, 2\)"),
    "without batch": (
        c[0],
        r"Expected context with B = 4 rows.*got \(3,\).*context.expand\(4, ",
    ),
    "labels": (
        torch.arange(4),
        r"Expected context of shape \(B, features\).*int64.*one_hot\(labels, classes\).float",
    ),
    "a number a row": (c[:, 0], r"Expected context of shape \(B, 3\); got \(4,\).*context\[:, None\]"),
    "dtype": (c.double(), "Expected context of dtype torch.float32"),
    "list": (c.tolist(), "Expected context with B = 4 rows.*got list"),
}


@pytest.mark.parametrize(("wrong", "match"), contexts.values(), ids=contexts)
@pytest.mark.parametrize("flow", conditional.values(), ids=conditional)
def test_a_wrong_context_is_named(flow, wrong, match):
    for call in (flow.log_prob, flow.bijection, flow.encode, flow.decode):
        with pytest.raises(ValueError, match=match):
            call(x, wrong)


@pytest.mark.parametrize("flow", [flows[name] for name in conditional], ids=conditional)
def test_a_context_that_was_not_declared_is_refused(flow):
    with pytest.raises(ValueError, match=r"Expected no context.*context=0.*Rebuild"):
        flow.log_prob(x, c)


calls = {
    "sample of none": (lambda: flows["realnvp"].sample(0), "Expected n to be a positive int; got 0"),
    "sample of a half": (
        lambda: flows["realnvp"].rsample_and_log_prob(2.5),
        "Expected n .*positive int; got 2.5",
    ),
    "base of none": (lambda: StandardNormal(2).sample(0), "Expected n .*positive int; got 0"),
    "context rows for samples": (
        lambda: conditional["realnvp"].sample(3, c),
        r"Expected context.*n = 3 rows.*got \(4, 3\)",
    ),
    "list for samples": (
        lambda: conditional["realnvp"].sample(3, [1.0]),
        "Expected context to be a tensor.*got list",
    ),
    "t0 above 1": (lambda: cnf.solve(x, 1.5, 0.0), r"Expected times in \[0, 1\].*got \[1.5\]"),
    "t1 below 0": (lambda: cnf.solve(x, 0.5, -0.1), r"Expected times in \[0, 1\].*got \[-0.1\]"),
    "t0 = t1 outside": (lambda: cnf.solve(x, 2.0, 2.0), r"Expected times in \[0, 1\]"),
    "t NaN": (lambda: cnf.solve(x, float("nan"), 1.0), r"Expected times in \[0, 1\].*got \[nan\]"),
    "path outside": (
        lambda: cnf.solve_along(x, [0.0, 0.5, 1.01]),
        r"Expected times in \[0, 1\].*got \[1.01\]",
    ),
    "t0 of a batch": (
        lambda: cnf.solve(x, torch.zeros(4), 1.0),
        r"Expected every time of shape \(\), one for all rows; got \(4,\).*f_T\(t, x\)",
    ),
    "t1 of shape (1,)": (lambda: cnf.solve(x, 0.0, torch.ones(1)), r"Expected every time of shape \(\)"),
    "times of a batch": (lambda: cnf.solve_along(x, torch.rand(2, 4)), r"Expected every time of shape \(\)"),
    "path of one time": (
        lambda: cnf.solve_along(x, [0.5]),
        r"Expected at least two times in strict order.*got \[0.5\]",
    ),
    "path out of order": (
        lambda: cnf.solve_along(x, [0.0, 1.0, 0.5]),
        "Expected at least two times in strict order",
    ),
    "path that rests": (
        lambda: cnf.solve_along(x, [0.0, 0.5, 0.5]),
        "Expected at least two times in strict order",
    ),
    "NaN": (lambda: ffjord(dim=2).log_prob(bad), "Expected finite x; got NaN or inf in 1 of 4 rows"),
    "inf": (
        lambda: ffjord(dim=2).bijection.decode(x / 0),
        "Expected finite x; got NaN or inf in 4 of 4 rows",
    ),
    "field of other shape": (
        lambda: CNF(lambda t, x, c: x[:, :1])(x),
        r"Expected field.*shape \(4, 2\); got \(4, 1\)",
    ),
    "field of a number": (
        lambda: CNF(lambda t, x, c: x.sum(), solver=Fixed(1)).decode(x),
        r"Expected field.*got \(\)",
    ),
    "field of a tuple": (
        lambda: CNF(lambda t, x, c: (x, x), solver=Fixed(1))(x),
        "Expected field.*got tuple",
    ),
    "field that detaches": (
        lambda: CNF(lambda t, x, c: torch.sin(x.detach())).solve(x, 0.0, 1.0),
        r"Expected field to be differentiable in x.*detach\(\).*no_grad",
    ),
    "field without gradients": (
        lambda: CNF(torch.no_grad()(lambda t, x, c: torch.sin(x)), solver=Fixed(2))(x),
        "Expected field to be differentiable in x",
    ),
    "field of data": (
        lambda: CNF(lambda t, x, c: torch.tanh(x.data), Hutchinson()).decode_and_logdet(x),
        "Expected field to be differentiable in x",
    ),
    "field that rounds": (
        lambda: CNF(lambda t, x, c: (500 * x).round() / 500, HutchPP(), Fixed(2))(x),
        "Expected field to be differentiable in x.*rounding",
    ),
    "hidden from the adjoint": (
        lambda: CNF(lambda t, x, c: field(t, x, c), solver=Adaptive(adjoint=True)).solve(x, 0.0, 1.0),
        r"Expected every tensor that wants a gradient to be a parameter of the field.*uses 4 more.*nn.Module that owns",
    ),
    "hidden from checkpoints": (
        lambda: CNF(lambda t, x, c: field(t, x, c), solver=Fixed(2, checkpoint=True))(x),
        r"4 more, the first of shape \(.*pass them as context",
    ),
    "adjoint tolerance": (
        lambda: Adaptive(rtol=-1.0, adjoint=True),
        "Expected rtol .*> 0 and finite; got -1.0",
    ),
    "adjoint method": (lambda: Adaptive("euler", adjoint=True), "Expected tableau.*got 'euler'"),
    "checkpointed steps": (lambda: Fixed(0, checkpoint=True), "Expected steps to be a positive int; got 0"),
    "steps negative": (lambda: Fixed(-3), "Expected steps to be a positive int; got -3"),
    "order": (lambda: PathDerivative(0), "Expected order to be a positive int; got 0"),
    "sketch": (lambda: HutchPP(sketch=0), "Expected sketch to be a positive int; got 0"),
    "bottleneck probes": (lambda: Bottleneck(probes=0), "Expected probes to be a positive int; got 0"),
    "bottleneck of a wide net": (
        lambda: CNF(MLP(2), Bottleneck(), Fixed(1))(x),
        "Expected a hidden layer of at most 2 numbers.*the narrowest has 64",
    ),
    "scales": (
        lambda: ffjord(shape=(1, 6, 6), scales=3),
        r"Expected sides that can be halved 2 times; got \(6, 6\).*at most scales=2",
    ),
    "divergence not called": (
        lambda: CNF(field, Hutchinson),
        r"Expected divergence.*Hutchinson\(\); got the class Hutchinson. Call it",
    ),
    "solver not called": (
        lambda: CNF(field, solver=Fixed),
        r"Expected solver.*Fixed\(steps\); got the class Fixed. Call it",
    ),
    "solver of a name": (lambda: CNF(field, solver="dopri5"), "Expected solver.*got 'dopri5'"),
    "field not built": (lambda: CNF(MLP), r"Expected field.*MLP\(dim\); got the class MLP.*called"),
    "field of nothing": (lambda: CNF(None), "Expected field to be.*got None"),
    "field of four arguments": (
        lambda: CNF(lambda t, x, c, more: x),
        r"f\(t, x, context\).*time_first\(net\)",
    ),
    "field of one argument": (
        lambda: CNF(nn.Sequential(nn.Linear(2, 2))),
        "got Sequential.*other arguments.*adapters",
    ),
    "costs not in a sequence": (
        lambda: CNF(field, costs=KineticEnergy()),
        r"Write costs=\(KineticEnergy\(\),\)",
    ),
    "tableau of a name": (lambda: Fixed(10, "rk4"), "Expected tableau to be a Tableau.*got 'rk4'"),
    "cost of a number": (
        lambda: CNF(field, costs=(lambda f, t, x, c, local: x.square().mean(),), solver=Fixed(2))(x),
        r"every cost to return a rate of shape \(4,\).*got \(\)",
    ),
    "cost of a column": (
        lambda: CNF(field, costs=(lambda f, t, x, c, local: x[:, :1],))(x),
        r"rate of shape \(4,\).*got \(4, 1\)",
    ),
    "dropout": (
        lambda: CNF(MLP(2, activation=lambda: nn.Dropout(0.1)))(x),
        r"function of each row alone; Dropout in training mode.*\.eval\(\)",
    ),
    "batch norm": (
        lambda: CNF(MLP(2, activation=lambda: nn.BatchNorm1d(64)), solver=Fixed(1)).decode(x),
        "BatchNorm1d in training mode",
    ),
    "steps 0": (lambda: Fixed(0), "Expected steps to be a positive int; got 0"),
    "steps 1.5": (lambda: Fixed(1.5), "Expected steps to be a positive int; got 1.5"),
    "steps True": (lambda: Fixed(True), "Expected steps to be a positive int; got True"),
    "rtol 0": (lambda: Adaptive(rtol=0), "Expected rtol .*> 0 and finite; got 0"),
    "atol negative": (lambda: Adaptive(atol=-1e-5), "Expected atol .*> 0 and finite; got -1e-05"),
    "rtol NaN": (lambda: Adaptive(rtol=float("nan")), "Expected rtol"),
    "method": (lambda: Adaptive("rk4"), "Expected tableau.*got 'rk4'"),
    "max_steps": (lambda: Adaptive(max_steps=0), "Expected max_steps to be a positive int; got 0"),
    "probes": (lambda: Hutchinson(probes=0), "Expected probes to be a positive int; got 0"),
    "mask keeps all": (
        lambda: Coupling(torch.ones(2).bool(), Affine(), None),
        "Expected mask.* keeps some",
    ),
    "mask keeps none": (
        lambda: Coupling(torch.zeros(2).bool(), Affine(), None),
        r"Expected mask.*ffjord\(dim=1\)",
    ),
    "mask of numbers": (lambda: Coupling(torch.ones(2), Affine(), None), "Expected mask to be a bool tensor"),
    "coupling net": (
        lambda: Coupling(torch.tensor([True, False]), Affine(), Conditioner(1, 1))(x),
        r"Expected net\(x, context\) to return shape \(4, 2\), 2 numbers for each.*got \(4, 1\)",
    ),
    "channels of a coupling": (
        lambda: Coupling(halves(3), Affine(), None)(torch.zeros(4, 2, 5, 5)),
        r"Expected x of shape \(B, 3, 5, 5\); got \(4, 2, 5, 5\)",
    ),
    "coordinates of a coupling": (
        lambda: Coupling(halves(3), Affine(), None)(x),
        r"Expected x of shape \(B, 3\); got \(4, 2\)",
    ),
    "half of one": (lambda: halves(1), "Expected size >= 2; got 1.*squeeze an image"),
    "bound 0": (lambda: Affine(0.0), "Expected bound .*> 0 and finite; got 0.0"),
    "bound NaN": (lambda: Affine(float("nan")), "Expected bound"),
    "bound inf": (lambda: Affine(float("inf")), "Expected bound .*> 0 and finite; got inf"),
    "bins 0": (lambda: RationalQuadratic(bins=0), "Expected 1 <= bins < 1000; got 0"),
    "bins 1000": (
        lambda: RationalQuadratic(1000),
        "Expected 1 <= bins < 1000; got 1000.*use more layers",
    ),
    "box 0": (lambda: RationalQuadratic(bound=0.0), "Expected bound .*> 0 and finite; got 0.0"),
    "box inf": (lambda: spline_flow(dim=2, bound=float("inf")), "Expected bound .*> 0 and finite; got inf"),
    "hidden of one number": (
        lambda: maf(dim=2, hidden=64),
        r"Expected hidden to be a sequence of positive ints.*got 64.*hidden=\(64, 64\)",
    ),
    "hidden of a conditioner": (lambda: realnvp(dim=2, hidden=(8, 0)), r"Expected hidden.*got \(8, 0\)"),
    "MADE of no hidden layer": (
        lambda: MADE(2, 2, hidden=()),
        r"Expected hidden.*at least 1; got \(\)",
    ),
    "MADE of other parameters": (
        lambda: MaskedAutoregressive(Affine(), MADE(2, 3)),
        r"Expected a net with parameters=2.*got 3. Build it by MADE\(shape, transform.parameters\)",
    ),
    "no MADE": (
        lambda: MaskedAutoregressive(Affine(), nn.Linear(2, 4)),
        "Expected a net with.*got None.*MADE",
    ),
    "transform not called": (
        lambda: maf(dim=2, transform=RationalQuadratic),
        "Expected transform .*got the class RationalQuadratic",
    ),
    "transform of a coupling": (
        lambda: Coupling(halves(2), "affine", None),
        "Expected transform .*got 'affine'",
    ),
    "transform of a layer": (lambda: MaskedAutoregressive(None, MADE(2, 2)), "Expected transform .*got None"),
    "coefficient 1": (lambda: residual_flow(dim=2, coefficient=1.0), "Expected 0 < coefficient < 1; got 1.0"),
    "coefficient of many dimensions": (
        lambda: residual_flow(dim=20, coefficient=1.5),
        "Expected 0 < coefficient < 1; got 1.5",
    ),
    "coefficient 0": (lambda: Contraction(2, coefficient=0), "Expected 0 < coefficient < 1; got 0"),
    "coefficient NaN": (lambda: Contraction(2, coefficient=float("nan")), "Expected 0 < coefficient < 1"),
    "kernel even": (lambda: Contraction((1, 4, 4), kernel=2), "Expected an odd kernel.*got kernel=2"),
    "kernel of a vector": (
        lambda: Contraction(4, kernel=3),
        r"event of shape \(C, H, W\).*\(4,\).*kernel=None",
    ),
    "kernel 0": (lambda: Contraction((1, 4, 4), kernel=0), "Expected an odd kernel.*got kernel=0"),
    "roulette terms": (lambda: RussianRoulette(terms=0), "Expected terms to be a positive int; got 0"),
    "roulette ratio 1": (
        lambda: RussianRoulette(ratio=1.0),
        "Expected 0 < ratio < 1; got 1.0.*TruncatedSeries",
    ),
    "roulette ratio 0": (lambda: RussianRoulette(ratio=0.0), "Expected 0 < ratio < 1; got 0.0"),
    "truncated terms": (lambda: TruncatedSeries(0), "Expected terms to be a positive int; got 0"),
    "norm of a vector": (
        lambda: spectral_norm(x[0]),
        r"Expected a weight of shape \(outputs, inputs\).*got \(2,\)",
    ),
    "norm of a strip": (lambda: spectral_norm(torch.ones(1, 1, 3, 1)), r"inputs, k, k\); got \(1, 1, 3, 1\)"),
    "residual of no contraction": (
        lambda: Residual(anything(lambda x, c: 2 * x)).decode(x),
        "Expected the iteration.*converge; it did not in 4 of 4 rows.*learning rate.*use Contraction",
    ),
    "residual of too few iterations": (
        lambda: Residual(anything(lambda x, c: 0.9 * x), iterations=3).decode_and_logdet(x),
        "did not in 4 of 4 rows.*raise iterations",
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
        r"Expected net\(x, context\) to return .*shape \(4, 2\); got \(4, 1\)",
    ),
    "std 0": (
        lambda: Standardize(torch.zeros(2), torch.tensor([1.0, 0])),
        "Expected finite mean and finite std > 0",
    ),
    "std inf": (
        lambda: Standardize(torch.zeros(2), torch.ones(2) / 0),
        "Expected finite mean and finite std > 0",
    ),
    "mean NaN": (lambda: Standardize(bad[1], torch.ones(2)), "Expected finite mean"),
    "mean and std": (
        lambda: Standardize(torch.zeros(2), torch.ones(3)),
        r"mean and std of one.*\(2,\) and \(3,\)",
    ),
    "one coordinate": (
        lambda: realnvp(dim=1),
        r"size >= 2; got 1.*at least two coordinates.*ffjord\(dim=1\)",
    ),
    "glow of one coordinate": (
        lambda: glow(shape=(1, 1, 1)),
        r"Expected mask.*ffjord\(dim=1\)",
    ),
    "glow scales": (
        lambda: glow(shape=(1, 28, 28), scales=4),
        r"Expected sides that can be halved 3 times; got \(28, 28\).*at most scales=3, or pad",
    ),
    "glow context missing": (
        lambda: glow(shape=(1, 4, 4), context=3).log_prob(torch.randn(4, 1, 4, 4)),
        r"Expected a context of shape \(B, 3\); got None",
    ),
    "glow context undeclared": (
        lambda: glow(shape=(1, 4, 4)).log_prob(torch.randn(4, 1, 4, 4), c),
        "Expected no context.*this ConvNet.*context=0",
    ),
    "image scales": (lambda: realnvp(shape=(1, 6, 6), scales=3), "at most scales=2"),
    "ActNorm of one row": (
        lambda: ActNorm(2)(x[:1]),
        r"finite and not constant to set up an ActNorm; 2 of 2.*larger, or call \.eval\(\)",
    ),
    "ActNorm of none": (lambda: ActNorm(2)(x[:0]), "finite and not constant.*2 of 2"),
    "ActNorm of a constant": (
        lambda: ActNorm(2)(torch.ones(4, 2)),
        "finite and not constant.*2 of 2 are not, the first is 0.*Dequantize.*drop",
    ),
    "ActNorm of NaN": (lambda: ActNorm(2)(bad), "finite and not constant.*1 of 2 are not, the first is 0"),
    "ActNorm before a transform": (
        lambda: torch.func.vjp(lambda y: ActNorm(2)(y)[0], x),
        r"Expected an ActNorm that has seen data.*one batch.*torch.func, or call \.eval",
    ),
    "ActNorm of other channels": (lambda: ActNorm(3)(x), r"Expected x of shape \(B, 3\); got \(4, 2\)"),
    "ActNorm dtype": (
        lambda: ActNorm(2)(x.double()),
        "Expected x of dtype torch.float32, that of the ActNorm",
    ),
    "convolution of other channels": (
        lambda: InvertibleConv1x1(3)(torch.zeros(4, 2, 5, 5)),
        r"Expected x of shape \(B, 3, 5, 5\); got \(4, 2, 5, 5\)",
    ),
    "convolution dtype": (
        lambda: InvertibleConv1x1(2).double()(x),
        "Expected x of dtype torch.float64, that of the InvertibleConv1x1",
    ),
    "flatten": (lambda: Flatten((2, 3))(x), r"Expected x of shape \(B, 2, 3\); got \(4, 2\)"),
    "ConvNet of one layer": (lambda: ConvNet(1, 2, ()), r"Expected hidden.*at least 1; got \(\)"),
    "level too high": (
        lambda: Dequantize(4)(torch.tensor([[0.0, 4.0]])),
        r"Expected integers from 0 to 3; got 4 at 1 of 2 values.*levels=",
    ),
    "level too low": (lambda: Dequantize()(torch.tensor([[-1.0]])), "integers from 0 to 255; got -1"),
    "level of a half": (
        lambda: Dequantize()(torch.tensor([[0.5, 1.0]])),
        "got 0.5 at 1 of 2.*before they are scaled",
    ),
    "level NaN": (lambda: Dequantize()(bad), "Expected integers from 0 to 255"),
    "levels in an integer dtype": (
        lambda: Dequantize()(torch.zeros(2, 3, dtype=torch.uint8)),
        r"Expected x of a floating dtype; got torch.uint8.*x.float\(\)",
    ),
    "alpha 0": (lambda: Logit(0.0), "Expected 0 < alpha < 0.5; got 0.0"),
    "alpha 1/2": (lambda: Logit(0.5), "Expected 0 < alpha < 0.5; got 0.5"),
    "logit of 256 levels": (
        lambda: Logit()(torch.tensor([[0.0, 255.0]])),
        r"Expected x in \[0, 1\]; got values from 0 to 255\..*Dequantize",
    ),
    "logit below 0": (
        lambda: Logit()(torch.tensor([[-0.1]])),
        r"Expected x in \[0, 1\]; got values from -0.1",
    ),
    "logit of NaN": (lambda: Logit()(torch.tensor([[torch.nan]])), r"Expected x in \[0, 1\]"),
    "temperature 0": (
        lambda: tempered(flows["realnvp"], 0.0),
        r"Expected 0 < temperature < inf; got 0.0.*decode\(torch.zeros",
    ),
    "temperature NaN": (lambda: tempered(flows["realnvp"], float("nan")), "Expected 0 < temperature"),
    "planar of none": (lambda: Planar(0), "Expected shape to be a positive int; got 0"),
    "planar of ()": (lambda: Planar(()), r"Expected a shape of at least one axis; got \(\)"),
    "radial of ()": (lambda: Radial(()), r"Expected a shape of at least one axis; got \(\)"),
    "dim and shape": (
        lambda: ffjord(dim=2, shape=(2,)),
        r"Expected exactly one of dim and shape; got dim=2, shape=\(2,\)",
    ),
    "neither": (lambda: realnvp(), "Expected exactly one of dim and shape; got dim=None, shape=None"),
    "dim 0": (lambda: ffjord(dim=0), "Expected dim to be a positive int; got 0"),
    "shape of a half": (
        lambda: ffjord(shape=(2, 0.5)),
        "Expected each size in shape to be a positive int; got 0.5",
    ),
    "shape ()": (lambda: StandardNormal(()), r"Expected a shape of at least one axis; got \(\)"),
    "latent": (lambda: StandardNormal(3).log_prob(x), r"Expected x of shape \(B, 3\); got \(4, 2\)"),
    "ends of other dimension": (lambda: Linear()(0.5, x, c), r"Expected x1 of shape \(4, 2\).*got \(4, 3\)"),
    "ends of other batch": (
        lambda: Linear().rate(0.5, x, x[:3]),
        r"Expected x1 of shape \(4, 2\).*got \(3, 2\)",
    ),
    "ends of other dtype": (lambda: Linear()(0.5, x, x.double()), r"Expected x1 .*float32.*got .*float64"),
    "end without batch": (
        lambda: Linear()(0.5, x[0], x[0]),
        r"Expected x0 of shape \(B, \*event\); got \(2,\)",
    ),
    "t above 1": (lambda: Linear()(1.1, x, x), r"Expected t in \[0, 1\].*got 1.1"),
    "t below 0": (lambda: Linear().rate(-0.1, x, x), r"Expected t in \[0, 1\].*got -0.1"),
    "t of other batch": (
        lambda: Linear()(torch.rand(3), x, x),
        r"Expected t of shape \(\) or \(4,\).*got \(3,\)",
    ),
    "xi missing": (lambda: noisy(0.5, x, x), r"Expected noise xi of shape \(4, 2\).*got None"),
    "xi of other shape": (lambda: noisy.rate(0.5, x, x, x[:1]), r"Expected noise xi.*got \(1, 2\)"),
    "xi of other dtype": (
        lambda: noisy(0.5, x, x, x.double()),
        r"Expected noise xi .*float32.*got .*float64",
    ),
    "t of a row above 1": (
        lambda: Linear()(torch.tensor([0, 0, 0, 2.0]), x, x),
        r"Expected t in \[0, 1\].*0 to 2",
    ),
    "t of a row nan": (lambda: Linear()(torch.full((4,), math.nan), x, x), r"Expected t in \[0, 1\].*nan"),
    "schedule in numbers": (
        lambda: Interpolant(lambda t: math.cos(t), lambda t: t),
        "Expected alpha to be a function of a tensor t.*torch operations",
    ),
    "schedule detached": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: t.detach() ** 2),
        r"Expected beta to be differentiable.*detach\(\)",
    ),
    "schedule detached, small": (
        lambda: Linear(lambda t: (0.1 * t.detach() * (1 - t.detach())) ** 2),
        r"Expected gamma to be differentiable.*detach\(\)",
    ),
    "schedule with a step": (
        lambda: Interpolant(lambda t: (t < 0.4).float(), lambda t: t),
        "Expected alpha to be differentiable.*a step",
    ),
    "schedule with a step where it is looked at": (
        lambda: Interpolant(lambda t: (t < 0.5).float(), lambda t: t),
        "Expected alpha to be differentiable.*a step",
    ),
    "schedule rounded": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: (8 * t).round() / 8),
        "Expected beta to be differentiable.*rounding",
    ),
    "schedule of one number": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: torch.tensor(1.0)),
        r"Expected beta to act elementwise.*full_like",
    ),
    "schedule infinite": (
        lambda: Interpolant(lambda t: 1 / (t - t), lambda t: t),
        "Expected alpha to be finite",
    ),
    "schedule negative": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: t, lambda t: t - 1),
        "Expected gamma2 to be finite.*at least 0",
    ),
    "schedule of no noise": (
        lambda: Interpolant(lambda t: 1 - t, lambda t: t, lambda t: 0 * t),
        "Expected gamma2 .*more than 0 somewhere",
    ),
    "noise of no scale": (lambda: Bridge(0.0), "Expected a to be a positive number; got 0.0.*gamma=None"),
    "noise of infinite scale": (lambda: Constant(math.inf), "Expected sigma to be a positive number"),
    "noise of negative steepness": (lambda: Sigmoid(1.0, -1.0), "Expected steepness to be a positive number"),
    "mirror without noise": (lambda: Mirror(None), r"Expected gamma.*Bridge\(\)"),
    "loss ends": (lambda: velocity_loss(field, Linear(), x, c), r"Expected x1 of shape \(4, 2\)"),
    "loss field": (
        lambda: velocity_loss(lambda t, x, c: x[:, :1], Linear(), x, x),
        r"Expected field.*got \(4, 1\)",
    ),
    "loss tuple": (lambda: velocity_loss(lambda t, x, c: (x,), Linear(), x, x), "Expected field.*got tuple"),
    "loss context": (lambda: velocity_loss(field, Linear(), x, x, context=c), "Expected no context"),
    "loss context batch": (
        lambda: velocity_loss(field, Linear(), x, x, context=c[:2]),
        "Expected context.*B = 4",
    ),
    "pairing of other batch": (
        lambda: OptimalTransport()(x, x[:3]),
        r"Expected x1 of shape \(4, 2\).*got \(3, 2\)",
    ),
    "pairing of other dimension": (lambda: Sinkhorn()(x, c), r"Expected x1 of shape \(4, 2\).*got \(4, 3\)"),
    "pairing of other dtype": (
        lambda: IndependentPairing()(x, x.double()),
        r"Expected x1 .*float32.*got .*float64",
    ),
    "pairing NaN": (
        lambda: OptimalTransport()(bad, bad),
        "Expected finite x0; got NaN or inf in 1 of 4 rows",
    ),
    "transport NaN in data": (
        lambda: OptimalTransport()(x[:, :1], bad[:, :1]),
        "Expected finite x1; got NaN or inf in 1 of 4 rows",
    ),
    "plan of other batch": (lambda: sinkhorn_plan(x, x[:3]), r"Expected x1 of shape \(4, 2\).*got \(3, 2\)"),
    "labels that a pairing ignores": (
        lambda: OptimalTransport()(x, x, context=torch.arange(4)),
        r"Expected no context.*OptimalTransport\(\) ignores it.*ConditionalPairing\(OptimalTransport\(\)\)",
    ),
    "labels of other batch": (
        lambda: conditioned(OptimalTransport())(x, x, context=torch.arange(3)),
        r"Expected context with B = 4 rows.*got \(3,\)",
    ),
    "labels in a list": (
        lambda: conditioned(OptimalTransport())(x, x, context=[0, 1, 0, 1]),
        "Expected context with B = 4 rows.*got list",
    ),
    "conditional of a factory": (lambda: conditioned(Sinkhorn), "Expected pairing to be a RowPairing"),
    "conditional twice": (
        lambda: conditioned(conditioned(IndependentPairing())),
        "Expected pairing to be a RowPairing that takes no context",
    ),
    "conditional weight": (lambda: conditioned(IndependentPairing(), 0.0), "Expected .*weight > 0.*and 0.0"),
    "conditional weight NaN": (
        lambda: conditioned(IndependentPairing(), math.nan),
        "Expected .*weight > 0.*and nan",
    ),
    "too few iterations": (
        lambda: sinkhorn_plan(torch.eye(4), torch.arange(16.0).reshape(4, 4), 1e-3, 1, 1e-6),
        "Expected Sinkhorn's marginal error.*iterations=1; got.*OptimalTransport",
    ),
    "loss time of other batch": (
        lambda: velocity_loss(field, Linear(), x, x, torch.rand(3)),
        r"Expected t of shape \(\) or \(4,\).*got \(3,\)",
    ),
    "loss time above 1": (
        lambda: denoiser_loss(field, noisy, x, x, torch.full((4,), 2.0)),
        r"Expected t in \[0, 1\]",
    ),
    "loss noise of other shape": (
        lambda: score_loss(field, noisy, x, x, xi=x[:1]),
        r"Expected noise xi of shape \(4, 2\).*got \(1, 2\)",
    ),
    "loss where noise vanishes": (
        lambda: velocity_loss(field, noisy, x, x, torch.tensor([0.0, 0.5, 0.5, 1.0])),
        r"Expected times t .*gamma² is positive.*got 2 of 4 where it is 0.*open \(0, 1\)",
    ),
    "objective where noise vanishes": (
        lambda: velocity_objective(field, noisy, x, x, torch.zeros(4)),
        "got 4 of 4 where it is 0",
    ),
    "monitor context batch": (
        lambda: monitor(field, noisy, x, x, context=c[:2]),
        "Expected context with B = 4 rows",
    ),
    "score of no noise": (
        lambda: score_loss(field, Linear(), x, x),
        r"Expected an interpolant with noise, of which a score is learned.*Parabola\(\).*score_from_velocity",
    ),
    "denoiser of no noise": (
        lambda: denoiser_loss(field, Linear(), x, x),
        "Expected an interpolant with noise, of which a denoiser is learned",
    ),
    "denoiser context batch": (
        lambda: denoiser_loss(lambda t, x, c: x, noisy, x, x, context=c[:2]),
        "Expected context with B = 4 rows",
    ),
    "score of other shape": (
        lambda: score_loss(lambda t, x, c: x[:, :1], noisy, x, x),
        r"Expected score\(t, x, context\).*got \(4, 1\)",
    ),
    "energy context batch": (
        lambda: path_energy(lambda t, x, c: x, Linear(), x, x, context=c[:2]),
        "Expected context with B = 4 rows",
    ),
    "energy field": (lambda: path_energy(lambda t, x, c: x[0], Linear(), x, x), "Expected field.*got"),
    "false rate": (
        lambda: Interpolant(lambda t: 1 - t, Rated(torch.square, lambda t: t)),
        "Expected beta to be differentiable in t.*a false rate",
    ),
    "beta of 0": (lambda: BetaTimes(0.0, 1.0), "Expected a and b .*BetaTimes.0.0"),
    "beta of NaN": (lambda: BetaTimes(1.0, math.nan), "Expected a and b .*nan"),
    "beta of inf": (lambda: BetaTimes(math.inf, 1.0), "Expected a and b .*inf"),
    "more than uniform": (lambda: ImportanceTimes(uniform=1.5), "Expected 0 < uniform <= 1.*uniform=1.5"),
    "no end of memory": (
        lambda: ImportanceTimes(memory=math.inf),
        "Expected .*memory of at least 1.*memory=inf",
    ),
    "no uniform share": (lambda: ImportanceTimes(uniform=0.0), "Expected 0 < uniform <= 1.*uniform=0.0"),
    "no memory": (lambda: ImportanceTimes(memory=0.5), "Expected .*memory of at least 1.*memory=0.5"),
    "a mean recorded": (
        lambda: ImportanceTimes().record(torch.rand(4), torch.tensor(1.0)),
        r"Expected t and finite losses of the same shape \(n,\); got \(4,\) and \(\).*before the mean",
    ),
    "NaN recorded": (
        lambda: ImportanceTimes().record(torch.rand(1), torch.tensor([math.nan])),
        "Expected t and finite losses.*1 NaN",
    ),
    "path of no order": (lambda: LearnableInterpolant(0), "Expected order to be a positive int; got 0"),
    "base of no shape": (lambda: DiagonalNormal(0), "positive int; got 0"),
    "base at points of other shape": (
        lambda: DiagonalNormal(2).log_prob(x[:, :1]),
        r"Expected x of shape \(B, 2\); got \(4, 1\)",
    ),
    "covariance of a number": (
        lambda: gaussian_cost(x[0], torch.eye(2), x[1], torch.tensor(1.0)),
        r"Expected mean0, .*got \(2,\), \(2, 2\), \(2,\), \(\).*variance \* torch.eye\(D\)",
    ),
    "mean of a number": (
        lambda: gaussian_cost(torch.tensor(0.0), torch.eye(2), x[1], torch.eye(2)),
        r"Expected mean0, .*got \(\), ",
    ),
    "mean of another dimension": (
        lambda: gaussian_cost(x[0], torch.eye(2), c[0, :1], torch.eye(2)),
        r"Expected mean0, .*\(1,\), \(2, 2\)\.",
    ),
    "covariance of a variance": (
        lambda: gaussian_cost(x[0], torch.ones(2), x[1], torch.eye(2)),
        r"Expected mean0, .*got \(2,\), \(2,\), ",
    ),
    "sampling without batch": (
        lambda: sample_ode(field, x[0]),
        r"Expected x of shape \(B, \*event\); got \(2,\)",
    ),
    "sampling outside of time": (
        lambda: sample_ode(field, x, t0=1.0, t1=2.0),
        r"Expected times in \[0, 1\].*2.0",
    ),
    "sde without batch": (
        lambda: sample_sde(oracle.velocity, oracle.score, x[0], 1.0, TWO),
        r"Expected x0 of shape \(B, \*event\); got \(2,\)",
    ),
    "sde from outside of time": (lambda: sde(t0=-0.5), r"Expected t0 and t1 in \[0, 1\].*got -0.5 and 1.0"),
    "sde outside of time": (lambda: sde(t1=1.5), r"Expected t0 and t1 in \[0, 1\].*got 0.0 and 1.5"),
    "sde solver": (lambda: sde(solver=10), "Expected solver"),
    "sde eps negative": (
        lambda: sde(-1.0),
        r"Expected eps\(t\) >= 0 and finite.*got -1 to -1.*swap t0 and t1",
    ),
    "sde eps negative somewhere": (
        lambda: sde(lambda t: 0.5 - t),
        r"Expected eps\(t\) >= 0.*got -0.5 to 0.5",
    ),
    "sde eps NaN": (lambda: sde(math.nan), r"Expected eps\(t\) >= 0 and finite.*got nan"),
    "sde eps infinite": (lambda: sde(lambda t: 1 / t), r"Expected eps\(t\) >= 0 and finite"),
    "sde score shape": (lambda: sde(score=lambda t, x, c: x[:, :1]), r"Expected score.*got \(4, 1\)"),
    "sde context": (lambda: sde(context=c[:2]), "Expected context.*B = 4"),
    "sde dropout in the velocity": (
        lambda: sample_sde(DROPS, field, x, 1.0, TWO),
        "Expected field to be a function of each row alone.*Dropout",
    ),
    "sde dropout": (
        lambda: sde(score=DROPS),
        "Expected field to be a function of each row alone.*Dropout",
    ),
    "dropping too much": (lambda: drop_context(c, 1.5), r"Expected a probability p in \[0, 1\]; got 1.5"),
    "dropping less than nothing": (
        lambda: drop_context(c, -0.1),
        r"Expected a probability p in \[0, 1\]; got -0.1",
    ),
    "interpolant not called": (
        lambda: velocity_loss(field, Linear, x, x),
        "Expected interpolant.*got .*Linear",
    ),
    "interpolant inside": (
        lambda: score_loss(field, LearnableInterpolant(), x, x),
        r"Expected interpolant.*got LearnableInterpolant.*path\.interpolant",
    ),
    "noise not called": (lambda: Linear(Bridge), r"Expected gamma.*Bridge"),
    "times of a column": (
        lambda: Linear()(torch.zeros(4, 1), x, x),
        r"Expected t of shape \(\) or \(4,\).*got \(4, 1\).*t.flatten\(\)",
    ),
    "dropping labels": (
        lambda: drop_context(torch.arange(4)),
        r"Expected context of shape \(B, features\).*int64.*one_hot\(labels, classes\)",
    ),
    "score between two data sets": (
        lambda: score_from_velocity(field, Linear(Bridge()), gaussian_end=None),
        "Expected a path on which the ends never meet.*score_loss",
    ),
    "score without noise": (
        lambda: score_from_velocity(field, Linear(), gaussian_end=None),
        "Expected an interpolant with noise",
    ),
    "score of dependent ends": (
        lambda: score_from_velocity(
            field, Linear(), pairing=lambda x0, x1, context=None, generator=None: (x0, x0)
        ),
        "Expected an independent pairing.*score_loss",
    ),
    "velocity of dependent ends": (
        lambda: velocity_from_score(
            field, Linear(), pairing=lambda x0, x1, context=None, generator=None: (x0, x0)
        ),
        "Expected an independent pairing",
    ),
    "score where it does not exist": (
        lambda: score_from_velocity(field, EncodingDecoding(), gaussian_end=None)(1.0, x),
        "Expected times t at which the velocity fixes the score.*got t = 1",
    ),
    "score of a denoiser without noise": (
        lambda: score_from_denoiser(field, Linear()),
        "Expected an interpolant with noise.*score_from_velocity",
    ),
    "denoiser without noise": (
        lambda: denoiser_from_score(field, Linear()),
        "Expected an interpolant with noise",
    ),
    "score of a denoiser at an end": (
        lambda: score_from_denoiser(field, Linear(Bridge()))(0.0, x),
        "Expected times t at which gamma > 0.*got t = 0",
    ),
    "converted time": (lambda: score_from_velocity(field, Linear())(1.5, x), r"Expected t in \[0, 1\]"),
    "oracle of two dimensions": (
        lambda: Oracle(Linear(), StandardNormal(2), StandardNormal(3)),
        "Expected rho0 and rho1 in the same dimension; got 2 and 3",
    ),
    "oracle points": (lambda: oracle.score(0.5, torch.zeros(4, 3)), r"Expected x of shape \(B, 2\)"),
    "oracle time": (lambda: oracle.velocity(-0.1, x), r"Expected t in \[0, 1\]"),
    "residual without batch": (
        lambda: continuity_residual(field, square, 0.5, x[0]),
        r"Expected x of shape \(B, \*event\)",
    ),
    "residual time": (
        lambda: score_residual(field, field, 2.0, x),
        r"Expected t in \[0, 1\].*got 2 to 2",
    ),
    "residual of values": (
        lambda: continuity_residual(field, lambda t, x, c: x.square(), 0.5, x),
        r"Expected log_prob.*shape \(4,\).*got \(4, 2\)\. Sum over the event",
    ),
    "residual field": (
        lambda: continuity_residual(lambda t, x, c: x[:, :1], square, 0.5, x),
        r"Expected field.*got \(4, 1\)",
    ),
    "residual score": (
        lambda: score_residual(field, square, 0.5, x),
        r"Expected score.*got \(4,\)",
    ),
    "bound of a negative gap": (
        lambda: path_measure_bound(0.1, torch.tensor([0.1, -0.2]), 1.0),
        "Expected gap_s >= 0.*got -0.2.*subtract the least",
    ),
    "bound of a negative gap of the velocity": (
        lambda: path_measure_bound(-0.1, 0.1, 1.0),
        "Expected gap_b >= 0.*got -0.1",
    ),
    "bound of NaN": (lambda: path_measure_bound(math.nan, 0.1, 1.0), "Expected gap_b >= 0.*got nan"),
    "bound at NaN": (lambda: path_measure_bound(0.1, 0.1, math.nan), "Expected eps >= 0; got nan"),
    "diffusion of a negative gap": (lambda: best_diffusion(-1.0, 1.0), "Expected gap_b >= 0"),
    "diffusion of a negative gap of the score": (lambda: best_diffusion(1.0, -1.0), "Expected gap_s >= 0"),
    "sampling integers": (lambda: sample_ode(field, x.long()), "Expected x of a floating dtype"),
}


@pytest.mark.parametrize(("call", "match"), calls.values(), ids=calls)
def test_a_wrong_argument_is_named(call, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        call()


def test_an_error_says_how_far_a_solve_of_many_rows_is_from_finite():
    x = torch.zeros(5, 2, 2)
    x[1], x[3, 0, 0] = torch.inf, torch.nan
    with pytest.raises(ValueError, match=r"2 of 5 rows.*x\[torch.isfinite\(x\)"):
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
    for rest in (nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.BatchNorm1d(64).eval()):
        solution = CNF(MLP(2, activation=lambda: rest), solver=Fixed(1)).solve(x, 0.0, 1.0)
        assert solution.x.isfinite().all()


def test_a_field_that_does_not_change_with_x_is_no_mistake():
    for still in (lambda t, x, c: torch.ones_like(x), lambda t, x, c: torch.zeros_like(x)):
        solution = CNF(still).solve(x, 0.0, 1.0)
        assert not solution.logdet.any()


def test_fixed_steps_do_not_look_at_values():
    assert flows["ffjord"].log_prob(bad).isnan().tolist() == [False, True, False, False]


def test_a_chain_refuses_what_is_not_a_bijection():
    with pytest.raises(ValueError, match="Expected layer 0 to be a bijection"):
        Chain(nn.Identity(), lambda x: x)
