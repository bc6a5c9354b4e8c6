"""A tensor is made where the input is: on torch's meta device, where an operation of mixed devices is refused.

Nor is anything made there in float64, which Apple's GPUs do not have: what is to be precise goes to the CPU before.

It stands in for a GPU, and is stricter: CUDA takes a tensor of shape () from the CPU, and the copy that this costs at
every step is not seen. A number of Python, which torch hands on as it is, is no tensor.
"""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from registry import bijections, field, flows, interpolants, points, precise
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, StudentT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnflib import (
    DiagonalNormal,
    Flow,
    GaussianMixture,
    StandardNormal,
    _tensors,
    adapters,
    as_density,
    tempered,
)
from cnflib.continuous import (
    CNF,
    KineticEnergy,
    PathDerivative,
    TrainEval,
    log_prob_and_costs,
    log_prob_at,
    log_prob_with_error,
)
from cnflib.data import toy
from cnflib.discrete import Dequantize, mean_log_prob
from cnflib.interpolants import (
    AverageVelocity,
    Bridge,
    ConditionalPairing,
    FlowMap,
    ImportanceTimes,
    IndependentPairing,
    LearnableInterpolant,
    Linear,
    Masked,
    Mirror,
    OptimalTransport,
    Oracle,
    Paired,
    Sinkhorn,
    UniformNoise,
    UniformTimes,
    consistency_loss,
    continuity_residual,
    denoiser_from_score,
    denoiser_loss,
    drop_context,
    elbo,
    eulerian_loss,
    gaussian_cost,
    guided,
    lagrangian_loss,
    map_residuals,
    mean_flow_loss,
    mean_rate,
    monitor,
    path_energy,
    posterior_loss,
    reflow,
    sample_first_hitting,
    sample_jumps,
    sample_map,
    sample_ode,
    sample_sde,
    score_from_denoiser,
    score_from_velocity,
    score_loss,
    score_residual,
    semigroup_loss,
    velocity_from_score,
    velocity_loss,
    velocity_objective,
)
from cnflib.metrics import EnergyDistance, SlicedWasserstein, central_level, latent_pit, pit
from cnflib.nets import UNet
from cnflib.ode import Fixed, euler, heun, midpoint, solve

Calls = dict[str, Callable[[], object]]


class OneDevice(TorchDispatchMode):
    """Refuse every operation on tensors of more than one device, or to float64, in the backward pass too."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        given = tree_leaves((arguments, options or {}))
        devices = {str(a.device) for a in given if isinstance(a, Tensor)}
        assert len(devices) < 2, f"{operation} on {' and '.join(sorted(devices))}"
        made = operation(*arguments, **options or {})
        if operation is torch.ops.aten.to.dtype_layout and given[0].ndim == 0 and given[0].is_cpu:
            return made  # a number of Python, on its way through torch.func
        wide = [a for a in tree_leaves(made) if isinstance(a, Tensor) and a.dtype == torch.float64]
        assert all(a.is_cpu for a in wide), f"{operation} in float64, which not every device has"
        return made


def run(call: Callable[[], object]) -> None:
    """The call, and a backward pass through all that it returns, which must lie on the device of its arguments."""
    with OneDevice():
        returned = [y for y in tree_leaves(call()) if isinstance(y, Tensor)]
        assert returned and all(y.is_meta for y in returned)
        learned = [y for y in returned if y.requires_grad]
        if learned:
            torch.autograd.backward(learned, [torch.ones_like(y) for y in learned])


@pytest.fixture(autouse=True)
def this_device_has_no_float64(monkeypatch):
    monkeypatch.setattr(_tensors, "NARROW", {"mps", "meta"})


@pytest.fixture(autouse=True)
def autocast_is_off(monkeypatch):
    """On this device there is none, and torch fails at the question."""
    autocast, enabled, dtype = torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype
    off = {"meta": nullcontext()}
    monkeypatch.setattr(torch, "autocast", lambda kind, **how: off.get(kind) or autocast(kind, **how))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind not in off and enabled(kind))
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: dtype("cpu" if kind in off else kind))


def meta(*shape: int) -> Tensor:
    return torch.zeros(shape, device="meta")


def moved(member) -> tuple[nn.Module, Tensor, Tensor | None]:
    x, context = points(member, dtype=torch.float32)
    return (
        member.build().to("meta"),
        x.to("meta").requires_grad_(),
        None if context is None else context.to("meta"),
    )


def of_bijection(name: str) -> Calls:
    g, x, context = moved(bijections[name])
    return {"encode": lambda: g(x, context), "decode": lambda: g.decode_and_logdet(x, context)}


def of_flow(name: str) -> Calls:
    flow, x, context = moved(flows[name])
    flow, x = flow.requires_grad_(False), x.detach()  # a gradient is that of its bijections
    return {
        "log_prob": lambda: flow.log_prob(x, context),
        "encode": lambda: flow.encode(x, context),
        "sample": lambda: flow.sample(3, context, chunk=2),
        "rsample_and_log_prob": lambda: flow.rsample_and_log_prob(3, context),
    }


x, x0, x1, xi, context = meta(4, 2).requires_grad_(), meta(4, 2), meta(4, 2), meta(4, 2), meta(4, 3)
t, time = meta(4), meta()
net, conditional = field().to("meta"), field(context=3).to("meta")
images = UNet((2, 4, 4), channels=4, multipliers=(1, 2), context=3, groups=1).to("meta")
FOUR = Fixed(4, heun)


def of_path(path) -> Calls:
    calls: Calls = {
        "x_t": lambda: path(0.3, x, x1, xi),
        "rate": lambda: path.rate(t, x, x1, xi),
        "draw": lambda: path.draw(x, x1),
        "draw at a time": lambda: path.draw(x, x1, 0.3, xi),
    }
    losses = [velocity_loss, velocity_objective, monitor, path_energy]
    if path.gamma2 is not None:
        losses += [denoiser_loss, score_loss]
        calls["denoiser_from_score"] = lambda: denoiser_from_score(net, path)(0.3, x)
        calls["score_from_denoiser"] = lambda: score_from_denoiser(net, path)(t, x)
    for loss in losses:
        calls[loss.__name__] = lambda loss=loss: loss(conditional, path, x, x1, context=context)
        calls[f"{loss.__name__} at times"] = lambda loss=loss: loss(net, path, x, x1, t, xi)
    end = None if isinstance(path, Mirror) else 0
    calls["score_from_velocity"] = lambda: score_from_velocity(net, path, gaussian_end=end)(t, x)
    calls["velocity_from_score"] = lambda: velocity_from_score(net, path, gaussian_end=end)(0.3, x)
    return calls


def of_density(density) -> Calls:
    density = as_density(density).to("meta")
    calls: Calls = {"log_prob": lambda: density.log_prob(x)}
    if any(True for _ in density.buffers()) or any(True for _ in density.parameters()):
        calls["sample"] = lambda: density.sample(3)  # of formulas alone it draws where the generator is
    return calls


def mixture() -> GaussianMixture:
    return GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.0]], [torch.eye(2).tolist()] * 2)


densities = {
    "standard": lambda: StandardNormal(2),
    "diagonal": lambda: DiagonalNormal(2),
    "mixture": mixture,
    "of torch": lambda: MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "of torch, heavy": lambda: Independent(StudentT(5.0, torch.zeros(2), torch.ones(2)), 1),
    "a flow as a base": lambda: tempered(flows["realnvp dim"].build(), 0.7),
    **{name: lambda target=target: target for name, target in toy.targets.items()},
}


def of_maps() -> Calls:
    u = FlowMap(AverageVelocity(field(context=1).to("meta")))
    given = FlowMap(AverageVelocity(field(context=1 + 3).to("meta")))
    losses = (lagrangian_loss, eulerian_loss, mean_flow_loss, semigroup_loss, consistency_loss)
    taught = (lagrangian_loss, eulerian_loss, consistency_loss)
    return {
        "sample_map": lambda: sample_map(given, x0, 2, context[:1]),
        "map_residuals": lambda: tuple(map_residuals(u, net, 0.2, t, x)),
        **{loss.__name__: lambda loss=loss: loss(given, Linear(), x, x1, context=context) for loss in losses},
        **{
            f"{loss.__name__} at times": lambda loss=loss: loss(u, Linear(), x, x1, (t, t)) for loss in losses
        },
        **{
            f"{loss.__name__}, taught": lambda loss=loss: loss(u, Linear(), x, x1, teacher=net)
            for loss in taught
        },
    }


def of_tokens(path) -> Calls:
    tokens, table = meta(4, 2).long(), nn.Embedding(path.states, 3, device="meta")
    posterior = lambda t, x: table(x)  # noqa: E731
    return {
        "draw": lambda: path.draw(tokens),
        "rate": lambda: path.rate(0.3, tokens, tokens),
        "mean_rate": lambda: mean_rate(posterior, path, t, tokens),
        "posterior_loss": lambda: posterior_loss(posterior, path, tokens),
        "elbo": lambda: elbo(posterior, path, tokens),
        "elbo at a time": lambda: elbo(posterior, path, tokens, 0.3),
        "sample_jumps": lambda: sample_jumps(posterior, path, path.noise((4, 2), device="meta"), 2),
        **(
            {"sample_first_hitting": lambda: sample_first_hitting(posterior, path, tokens)}
            if isinstance(path, Masked)
            else {}
        ),
    }


def of_samplers() -> Calls:
    score = score_from_velocity(net, Linear())
    return {
        "sample_ode": lambda: sample_ode(net, x, precise),
        "sample_ode of images": lambda: sample_ode(images, meta(4, 2, 4, 4), FOUR, context),
        "sample_ode, guided": lambda: sample_ode(guided(conditional, 2.0), x, Fixed(3, midpoint), context),
        "reflow": lambda: reflow(net, x, FOUR),
        "sample_sde of Heun": lambda: sample_sde(net, score, x, 0.1, FOUR, t0=0.1, t1=0.9),
        "sample_sde of Euler": lambda: sample_sde(net, net, x, lambda t: 1 - t, Fixed(4, euler)),
        "sample_sde with a context": lambda: sample_sde(
            conditional, conditional, x, 0.1, FOUR, context=context[:1]
        ),
        "UNet": lambda: images(time, meta(4, 2, 4, 4), context),
        "drop_context": lambda: drop_context(context, 0.5),
        "continuity_residual": lambda: continuity_residual(net, lambda t, x: -t * x.square().sum(1), 0.3, x),
        "score_residual": lambda: score_residual(net, net, time, x),
        "gaussian_cost": lambda: gaussian_cost(meta(2), meta(2, 2), meta(2), meta(2, 2)),
    }


def of_times() -> Calls:
    importance = ImportanceTimes(4).to("meta")
    laws = {"uniform": UniformTimes(), "importance": importance}
    return {
        **{name: lambda law=law: law(5, x) for name, law in laws.items()},
        "record": lambda: [importance.record(t, t), importance.squares][1],
    }


def of_pairings() -> Calls:
    pairings = {
        "independent": IndependentPairing(),
        "paired": Paired(),
        "assigned": OptimalTransport(),
        "entropic": Sinkhorn(0.5),
        "conditional": ConditionalPairing(OptimalTransport()),
    }
    return {
        name: lambda pairing=pairing: pairing(x, x1, context if pairing.conditions else None)
        for name, pairing in pairings.items()
    }


def of_continuous() -> Calls:
    cnf = CNF(net, costs=(KineticEnergy(), PathDerivative(2)), solver=FOUR)
    flow = Flow(cnf, DiagonalNormal(2)).to("meta")
    switching = CNF(conditional, TrainEval(), FOUR).to("meta")
    return {
        "solve": lambda: solve(lambda t, y: -t * y, x, torch.tensor([0.0, 0.5, 1.0]), FOUR).y,
        "solve at a learned time": lambda: solve(net, x, meta(3).requires_grad_(), FOUR).y,
        "solve_along": lambda: cnf.solve_along(x, [0.0, 0.5, 1.0]),
        "trajectory": lambda: cnf.trajectory(x, meta(3)),
        "log_prob_at": lambda: log_prob_at(flow, x, 0.5),
        "log_prob_and_costs": lambda: log_prob_and_costs(flow, x),
        "log_prob_with_error": lambda: log_prob_with_error(flow, x, probes=2),
        "in training": lambda: switching.train()(x, context),
        "in evaluation": lambda: switching.eval()(x, context),
        "given": lambda: adapters.given(flow).rsample((3, 2)),
        "time as a feature": lambda: adapters.time_as_feature(nn.Linear(3, 2, device="meta"))(time, x),
        "data first": lambda: adapters.data_first(net)(time, x),
        "time second": lambda: adapters.time_second(lambda x, t: net(t, x))(time, x),
    }


def of_oracle() -> Calls:
    oracles = [Oracle(path, StandardNormal(2), mixture()) for path in (Linear(), Linear(Bridge()))]
    calls = ("velocity", "score", "denoiser", "ends", "log_prob")
    return {name: lambda name=name: [getattr(oracle, name)(t, x) for oracle in oracles] for name in calls}


def of_pixels() -> Calls:
    flow, levels = flows["realnvp image"].build().to("meta"), Dequantize(4)
    return {
        "Dequantize": lambda: levels(meta(2, 1, 4, 4)),
        "mean_log_prob": lambda: mean_log_prob(flow, meta(2, 1, 4, 4), 2, meta(2, 2)),
    }


def of_metrics() -> Calls:
    z, draws, member = meta(3, 2), meta(5, 3, 2), torch.zeros(4, 6, dtype=torch.bool, device="meta")
    return {
        "latent_pit": lambda: central_level(latent_pit(z)),
        "pit": lambda: pit(z, draws),
        **{
            repr(s): lambda s=s: s.splits(meta(6, 2), member) for s in (EnergyDistance(), SlicedWasserstein())
        },
    }


learned = LearnableInterpolant(3).to("meta").interpolant
families: dict[str, Callable[[], Calls]] = {
    **{f"bijection, {name}": lambda name=name: of_bijection(name) for name in bijections},
    **{f"flow, {name}": lambda name=name: of_flow(name) for name in flows},
    **{f"path, {name}": lambda path=path: of_path(path) for name, path in interpolants.items()},
    "path, learned": lambda: of_path(learned),
    **{f"density, {name}": lambda build=build: of_density(build()) for name, build in densities.items()},
    "flow maps": of_maps,
    "tokens, masked": lambda: of_tokens(Masked(3)),
    "tokens, uniform": lambda: of_tokens(UniformNoise(3, lambda t: t**2)),
    "samplers": of_samplers,
    "times": of_times,
    "pairings": of_pairings,
    "continuous": of_continuous,
    "oracle": of_oracle,
    "pixels": of_pixels,
    "metrics": of_metrics,
}
LEFT_OUT = {
    "adaptive steps look at the error of each": [
        "bijection, CNF adaptive",
        "bijection, CNF hutchinson adaptive",
        "bijection, CNF adjoint",
        "flow, ffjord dim",
    ],
    "a fixed point is iterated until it is met": [
        *(f"bijection, {name}: decode" for name in bijections if name.startswith("Residual")),
        *(
            f"flow, {name}: {call}"
            for name in flows
            for call in ("sample", "rsample_and_log_prob")
            if name.startswith("residual_flow")
        ),
    ],
    "a series goes on for the rows that are left": [
        *(f"bijection, {name}: encode" for name in bijections if "by roulette" in name),
        "flow, residual_flow by roulette: log_prob",
    ],
    "a density sums over the nodes, or the roots, that are near": [
        "density, two_spirals: log_prob",
        "density, pinwheel: log_prob",
    ],
    "costs are looked at to assign, rows to be grouped": [
        "pairings: assigned",
        "pairings: entropic",
        "pairings: conditional",
    ],
    "a factor is asked whether it exists": ["samplers: gaussian_cost"],
    "losses are asked whether they are finite": ["times: record"],
    "draws are asked for NaN": ["metrics: pit"],
    "the first sample is counted": ["metrics: EnergyDistance()", "metrics: SlicedWasserstein()"],
}
"""What reads values, of which this device has none, by the reason: a family, or one of its calls."""

left_out = {name for names in LEFT_OUT.values() for name in names}


def calls_of(name: str, reads_values: bool) -> list[Callable[[], object]]:
    return [
        call
        for what, call in families[name]().items()
        if (name in left_out or f"{name}: {what}" in left_out) == reads_values
    ]


@pytest.mark.parametrize("name", [name for name in families if name not in left_out])
def test_no_tensor_is_made_on_another_device(name):
    for call in calls_of(name, reads_values=False):
        run(call)


@pytest.mark.parametrize("name", sorted({name.partition(": ")[0] for name in left_out}))
def test_what_is_left_out_reads_values(name):
    calls = calls_of(name, reads_values=True)
    assert calls
    for call in calls:
        with pytest.raises(RuntimeError, match="[Mm]eta"):
            run(call)


def test_float64_is_refused():
    with pytest.raises(AssertionError, match="float64"):
        run(lambda: x * x.double())


def test_a_number_left_on_the_cpu_is_refused():
    for wrong in (torch.tensor(0.5), torch.ones(2)):
        with pytest.raises((AssertionError, RuntimeError), match="cpu"):
            run(lambda wrong=wrong: x * wrong)
    run(lambda: x * 0.5)
