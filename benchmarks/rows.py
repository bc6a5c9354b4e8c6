"""The rows of benchmarks/versions.py for this version: calls without arguments by name, small and medium, in float32.

A training step here is the gradient of the mean loss for all weights. One point at a time shows what a call costs
beside its arithmetic, 256 points what the arithmetic costs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from cnflib import Flow, GaussianMixture, StandardNormal, models
from cnflib.continuous import CNF, Exact, Hutchinson, JacobianFrobenius, KineticEnergy
from cnflib.data import toy
from cnflib.interpolants import (
    BetaTimes,
    Bridge,
    Linear,
    OptimalTransport,
    Oracle,
    Parabola,
    Sinkhorn,
    sample_ode,
    sample_sde,
    score_from_velocity,
    score_loss,
    velocity_loss,
    velocity_objective,
)
from cnflib.nets import MLP, UNet
from cnflib.ode import Adaptive, Fixed, heun

Call = Callable[[], object]
DIMS = {1: 2, 256: 16}  # by batch
IMAGE = (1, 8, 8)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(len(shape) + sum(shape)))


@torch.no_grad()
def moved(make: Callable[..., nn.Module], *args: object, **options: object) -> nn.Module:
    """What is made, with the same weights each time and none of them zero."""
    torch.manual_seed(0)
    module = make(*args, **options)
    for p in module.parameters():
        p += 0.05 * torch.randn_like(p)
    return module


@torch.no_grad()
def bent(dim: int, context: int = 0) -> nn.Module:
    """A field that bends about as much as a trained one."""
    net = moved(MLP, dim, context=context)
    for p in net.parameters():
        p *= 2
    return net


@torch.no_grad()
def met(flow: Flow, event: Sequence[int]) -> Flow:
    """The flow after a first batch, by which some layers set themselves up."""
    flow(noise(64, *event))
    return flow


def gradient(module: nn.Module, loss: Callable[[], Tensor]) -> Call:
    def step() -> None:
        module.zero_grad()
        loss().mean().backward()

    return step


def of_flow(flow: Flow, event: Sequence[int], n: int, context: Tensor | None = None) -> dict[str, Call]:
    """log_prob, a training step, a sample."""
    x = noise(n, *event)
    return {
        f"log_prob, {n}": torch.no_grad()(lambda: flow.log_prob(x, context)),
        f"training, {n}": gradient(flow, lambda: -flow.log_prob(x, context)),
        f"sample, {n}": lambda: flow.sample(n, context),
    }


def discrete() -> dict[str, Call]:
    vectors = {
        "realnvp": models.realnvp,
        "nice": models.nice,
        "maf": models.maf,
        "iaf": models.iaf,
        "spline_flow": models.spline_flow,
        "glow": models.glow,
        "planar_flow": models.planar_flow,
        "radial_flow": models.radial_flow,
        "residual_flow": lambda dim: models.residual_flow(dim, layers=4),
    }
    found = {
        (name, n): of_flow(met(moved(make, dim), (dim,)), (dim,), n)
        for n, dim in DIMS.items()
        for name, make in vectors.items()
    }
    for n in DIMS:
        images = met(moved(models.glow, shape=IMAGE, layers=2), IMAGE)
        found["glow on images", n] = of_flow(images, IMAGE, n)
        given = moved(models.realnvp, 2, context=3)
        found["realnvp, context", n] = of_flow(given, (2,), n, noise(n, 3))
    return flat(found)


def continuous() -> dict[str, Call]:
    found = {}
    for n in DIMS:
        solves = {
            "CNF, adaptive": (Exact(), Adaptive()),
            "CNF, fixed rk4": (Exact(), Fixed(8)),
            "CNF, steps of its own": (Exact(), Adaptive(per_row=True)),
        }
        for name, parts in solves.items():
            found[name, n] = of_flow(Flow(CNF(bent(2), *parts), StandardNormal(2)), (2,), n)
        given = Flow(CNF(bent(2, context=3)), StandardNormal(2))
        found["CNF, context", n] = of_flow(given, (2,), n, noise(n, 3))
        wide = Flow(CNF(bent(64), Hutchinson()), StandardNormal(64))
        found["CNF, D = 64, Hutchinson", n] = of_flow(wide, (64,), n)
        found["ffjord", n] = of_flow(moved(models.ffjord, 2, divergence=Exact()), (2,), n)
    image = {"shape": IMAGE, "hidden": (16, 16), "divergence": Hutchinson(), "solver": Fixed(2), "blocks": 1}
    found["ffjord on images", 8] = of_flow(moved(models.ffjord, **image), IMAGE, 8)
    acts = flat(found)
    x = noise(256, 2)
    for name, solver in {"adjoint": Adaptive(adjoint=True), "checkpoints": Fixed(8, checkpoint=True)}.items():
        flow = Flow(CNF(bent(2), solver=solver), StandardNormal(2))
        acts[f"CNF, {name}, training, 256"] = gradient(flow, lambda flow=flow: -flow.log_prob(x))
    cnf = CNF(bent(2), costs=(KineticEnergy(), JacobianFrobenius()))
    acts["CNF, two costs, training, 256"] = gradient(cnf, lambda: sum(cnf.solve(x, 1.0, 0.0).costs))
    return acts


def interpolants() -> dict[str, Call]:
    losses = {
        "velocity_loss, Linear": (velocity_loss, Linear()),
        "velocity_loss, Parabola": (velocity_loss, Linear(Parabola())),
        "velocity_objective, Bridge": (velocity_objective, Linear(Bridge())),
        "score_loss, Bridge": (score_loss, Linear(Bridge())),
    }
    net, score, found = bent(2), moved(MLP, 2), {}
    for n in DIMS:
        x0, x1 = noise(n, 2), 2 + noise(n, 2)
        for name, (loss, path) in losses.items():
            found[f"{name}, training, {n}"] = gradient(
                net, lambda loss=loss, path=path, x0=x0, x1=x1: loss(net, path, x0, x1)
            )
        found[f"sample_ode, adaptive, {n}"] = lambda x0=x0: sample_ode(net, x0)
        found[f"sample_ode, fixed rk4, {n}"] = lambda x0=x0: sample_ode(net, x0, Fixed(8))
        found[f"sample_sde, {n}"] = lambda x0=x0: sample_sde(net, score, x0, 0.1, Fixed(20, heun))
    image, x0 = moved(UNet, IMAGE, channels=8, multipliers=(1, 2)), noise(16, *IMAGE)
    found["sample_ode, UNet, 16"] = lambda: sample_ode(image, x0, Fixed(2))
    y0, y1, x = noise(512, 2), 2 * noise(512, 2).flip(0), noise(256, 2)
    two = GaussianMixture([0.5, 0.5], [[-2.0, 0.0], [2.0, 0.0]], 0.25 * torch.eye(2).repeat(2, 1, 1))
    oracle = Oracle(Linear(), StandardNormal(2), two)
    derived, t = score_from_velocity(net, Linear()), torch.tensor(0.5)
    pair, smooth, times = OptimalTransport(), Sinkhorn(), BetaTimes(1.0, 0.5)
    return found | {
        "score_from_velocity, 256": torch.no_grad()(lambda: derived(t, x, None)),
        "Oracle, velocity, 256": lambda: oracle.velocity(t, x),
        "OptimalTransport, 512": lambda: pair(y0, y1),
        "Sinkhorn, 256": lambda: smooth(y0[:256], y1[:256]),
        "BetaTimes, 512": lambda: times(512),
    }


def targets() -> dict[str, Call]:
    found = {}
    for name in ("checkerboard", "eight_gaussians", "moons", "pinwheel"):
        target = getattr(toy, name)
        x = target.sample(256, generator=Generator().manual_seed(0))
        found[f"{name}, log_prob, 256"] = lambda target=target, x=x: target.log_prob(x)
        found[f"{name}, sample, 256"] = lambda target=target: target.sample(256)
    return found


def building() -> dict[str, Call]:
    net = bent(2)
    return {
        "building realnvp": lambda: models.realnvp(2),
        "building glow on images": lambda: models.glow(shape=IMAGE, layers=2),
        "building ffjord": lambda: models.ffjord(2),
        "building a flow of parts": lambda: Flow(CNF(net, Hutchinson(), Fixed(8)), StandardNormal(2)),
    }


def flat(found: dict[tuple[str, int], dict[str, Call]]) -> dict[str, Call]:
    return {f"{name}, {act}": call for (name, _), acts in found.items() for act, call in acts.items()}


rows = discrete() | continuous() | interpolants() | targets() | building()
