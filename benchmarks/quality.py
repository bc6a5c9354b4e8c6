"""How good a density a minute of maximum likelihood buys: negative log-likelihood against training seconds.

    python benchmarks/quality.py

Checkerboard and eight Gaussians, the same net for all: an MLP of three hidden layers of 64 with Fourier features of x
and of time, batch 512, Adam with a warm-up and a cosine decay over the minute, weights averaged. Only the solver
differs: cnflib, zuko, and torchdiffeq written by hand, each with the exact trace and dopri5 at tolerance 1e-3 in
training; and six fixed steps of cnflib's rk4, compiled before the clock starts. The clock runs in training steps alone.
Every twenty seconds the averaged weights are kept, and judged when all is done: by cnflib, dopri5 at tolerance 1e-6, on
20,000 fresh points, with standard error, and the mass on a grid of the last.

All is written to benchmarks/results/quality.json.
"""

import math
from collections.abc import Callable

import torch
from harness import machine, record
from harness.training import mean_nll, train
from peers import ByHand, Zuko
from torch import Tensor, nn

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF
from cnflib.data import toy
from cnflib.data.toy import Target
from cnflib.metrics import mass
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed

BATCH, LEARNING_RATE, TOLERANCE, POINTS = 512, 4e-3, 1e-3, 20_000
SECONDS, EVERY, SEEDS, STEPS = 60, 20, 1, 6
COMPILED = f"cnflib, {STEPS} fixed steps, compiled"
TARGETS = {"checkerboard": toy.checkerboard, "eight_gaussians": toy.eight_gaussians}
SCALE = 2.5  # of both targets; the flows see x / SCALE


def net() -> MLP:
    return MLP(2, (64, 64, 64), time_frequencies=2, fourier=16, fourier_scale=0.5)


class InTime(nn.Module):
    """The net with the call of plain libraries, field(t, x)."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.mlp(t, x)


def ours(mlp: MLP) -> Callable[[Tensor], Tensor]:
    return flow(mlp, TOLERANCE).log_prob


def theirs(kind: type) -> Callable[[MLP], Callable[[Tensor], Tensor]]:
    def make(mlp: MLP) -> Callable[[Tensor], Tensor]:
        peer = kind(mlp, None, TOLERANCE)
        peer.net = InTime(mlp)
        return peer.log_prob

    return make


def compiled(mlp: MLP) -> Callable[[Tensor], Tensor]:
    model = Flow(CNF(mlp, solver=Fixed(STEPS)), StandardNormal(2))
    log_prob = torch.compile(model.log_prob, fullgraph=True, dynamic=False)
    log_prob(torch.randn(BATCH, 2)).mean().backward()
    return log_prob


ROWS = {"cnflib": ours, COMPILED: compiled, "zuko": theirs(Zuko), "torchdiffeq by hand": theirs(ByHand)}


def flow(mlp: MLP, tolerance: float) -> Flow:
    return Flow(CNF(mlp, solver=Adaptive(rtol=tolerance, atol=tolerance)), StandardNormal(2))


def batches(data: Target) -> Callable[[], Tensor]:
    return lambda: data.sample(BATCH) / SCALE


@torch.no_grad()
def judge(mlp: MLP, x: Tensor) -> tuple[float, float]:
    """Negative log-likelihood in nats of the data as they are, and its standard error."""
    values = flow(mlp, 1e-6).log_prob(x / SCALE) - 2 * math.log(SCALE)
    return -values.mean().item(), (values.std() / len(values) ** 0.5).item()


@torch.no_grad()
def total(mlp: MLP) -> float:
    density = flow(mlp, 1e-6)
    return mass(lambda x: density.log_prob(x / SCALE) - 2 * math.log(SCALE), ((-7, 7), (-7, 7)))


def main() -> None:
    print(machine())
    curves = []
    for target, data in TARGETS.items():
        torch.manual_seed(1234)
        fresh = data.sample(POINTS)
        for name, make in ROWS.items():
            for seed in range(SEEDS):
                torch.manual_seed(seed)
                mlp = net()
                loss = mean_nll(make(mlp))
                kept = train(loss, mlp, batches(data), SECONDS, EVERY, LEARNING_RATE)
                points = [
                    {"seconds": k.seconds, "steps": k.steps, "nll": judge(k.module, fresh)} for k in kept
                ]
                curve = {
                    "target": target,
                    "row": name,
                    "seed": seed,
                    "mass": total(kept[-1].module),
                    "curve": points,
                }
                curves.append(curve)
                values = "  ".join(f"{p['nll'][0]:.3f}" for p in points)
                print(
                    f"{target:<14}{name:<32}{seed}  {values}  steps {points[-1]['steps']}  mass {curve['mass']:.4f}",
                    flush=True,
                )
    record("quality", {"entropy": {name: data.entropy for name, data in TARGETS.items()}, "curves": curves})


if __name__ == "__main__":
    main()
