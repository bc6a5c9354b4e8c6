"""What it costs to make a continuous flow cheap: evaluations of the field against nats, regularised and not.

    python benchmarks/regularised.py [data ...] [--steps 700] [--seeds 0 1 2] [--batch 96] [--quick]

Two sets of data: the power plant, cnflib.data.tables.power_plant in standardised units, and eight Gaussians on a ring,
scaled to variance 1. Each row is a net of two hidden layers of 64 tanh units, with these changes in how it is trained:

    start                factor on the first weights of the linear layers, as PyTorch draws them; 3 is a wild start
    kinetic, jacobian    weights of the two costs of Finlay et al. (2020, arXiv:2002.02798)
    decay                weight decay apart from the gradient (AdamW)
    spread               a random end time in 1 ± spread, Ghosh et al. (2020, arXiv:2006.10711)
    width                fewer hidden units

They come in two sweeps, over prices with several rivals and over weight decay. One row more of the first is the first
row's net after a third of its steps.

The nets of one sweep and seed are trained side by side, as one batched net: a product of batches of matrices takes
hardly longer than one of them. Nothing is shared but the data and the first weights: each has its own loss and its own
gradient (the clipping of a long gradient looks at all of them together). Six steps of rk4, Adam with a warm-up and a
cosine decay, weights averaged. Judged on fresh or held-out points with the exact trace: nats by dopri5 at tolerance
1e-7, and its evaluations at 1e-3, 1e-5 and 1e-7 for a log-density and, points alone, for drawing samples.

Runs that are in benchmarks/results/regularised.json with the same budget are not measured again.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from harness import keep, machine, missing
from harness.training import pace, paced
from torch import Tensor, nn

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, JacobianFrobenius, KineticEnergy, log_prob_and_costs
from cnflib.data.tables import power_plant
from cnflib.data.toy import eight_gaussians
from cnflib.metrics import nll, paired_gap
from cnflib.ode import Adaptive, Fixed, solve
from cnflib.train import EMA

NAME, SAME = "regularised", ("data", "seed", "sweep")
WIDTH, RK4, RATE, TOLERANCES = 64, 6, 5e-3, (1e-3, 1e-5, 1e-7)


class Row(NamedTuple):
    """How one net is trained."""

    start: float = 3.0
    kinetic: float = 0.0
    jacobian: float = 0.0
    decay: float = 0.0
    spread: float = 0.0
    width: int = WIDTH


PRICES = {
    "plain": Row(),
    **{f"kinetic {price}": Row(kinetic=price) for price in (0.01, 0.03, 0.1, 0.3)},
    "both 0.01": Row(kinetic=0.01, jacobian=0.01),
    "decay 1": Row(decay=1.0),
    "random end 0.5": Row(spread=0.5),
    "half the width": Row(width=WIDTH // 2),
    "calm start": Row(start=1.0),
    "calm start, kinetic 0.03": Row(start=1.0, kinetic=0.03),
}
DECAY = {name: PRICES[name] for name in ("plain", "kinetic 0.03")} | {
    f"decay {decay}": Row(decay=decay) for decay in (0.1, 0.3, 0.5)
}
SWEEPS = {"prices": PRICES, "decay": DECAY}
EARLY = "a third of the steps"  # a row more of the first sweep


class SideBySide(nn.Module):
    """Fields trained together: rows k B to (k + 1) B of the points belong to net k."""

    def __init__(self, rows: list[Row], dim: int) -> None:
        super().__init__()
        sizes = [dim + 1, WIDTH, WIDTH, dim]
        layers = [nn.Linear(n, m) for n, m in zip(sizes, sizes[1:], strict=False)]
        copies = lambda p: p.detach().repeat(len(rows), 1, 1)  # noqa: E731
        start = torch.tensor([row.start for row in rows])[:, None, None]
        self.W = nn.ParameterList(start * copies(layer.weight.T) for layer in layers)
        self.b = nn.ParameterList(copies(layer.bias) for layer in layers)
        on = [[float(unit < row.width) for unit in range(WIDTH)] for row in rows]
        self.register_buffer("on", torch.tensor(on)[:, None])
        self.end = torch.ones(len(rows), 1, 1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.jvp(t, x, None, x.new_zeros(0, *x.shape))[0]

    def jvp(self, t: Tensor, x: Tensor, context: None, directions: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity and J v for directions v of shape (K, rows, dim), or with 1 in the place of the rows."""
        nets, k = self.W[0].shape[0], directions.shape[0]
        h = x.unflatten(0, (nets, -1))
        dh = directions.expand(k, *x.shape).unflatten(1, (nets, -1))
        first = self.W[0][:, :-1]
        h, dh = h @ first + (self.b[0] + self.end * t * self.W[0][:, -1:]), dh @ first
        for W, b in zip(self.W[1:], self.b[1:], strict=True):
            h = h.tanh()
            h, dh = self.on * h, self.on * (1 - h.square()) * dh
            h, dh = h @ W + b, dh @ W
        return (self.end * h).flatten(0, 1), (self.end * dh).flatten(1, 2)

    def one(self, k: int) -> "SideBySide":
        """Net k alone."""
        alone = SideBySide([Row()], self.W[0].shape[1] - 1)
        for name in ("W", "b"):
            for there, here in zip(getattr(alone, name), getattr(self, name), strict=True):
                there.data = here.data[k : k + 1].clone()
        alone.on = self.on[k : k + 1]
        return alone


class Data(NamedTuple):
    """What is drawn to train on, and what a net is judged on; the log-density there, where it is known."""

    dim: int
    draw: Callable[[int], Tensor]
    test: Tensor
    log_prob: Tensor | None = None


def ring() -> Data:
    scale = eight_gaussians.sample(100_000, generator=torch.Generator().manual_seed(0)).std().item()
    test = eight_gaussians.sample(4000, generator=torch.Generator().manual_seed(1234))
    log_prob = eight_gaussians.log_prob(test) + 2 * math.log(scale)
    return Data(2, lambda n: eight_gaussians.sample(n) / scale, test / scale, log_prob)


def plant() -> Data:
    table = power_plant(dtype=torch.float32)
    train, test = ((part - table.mean) / table.std for part in (table.train, table.test))
    return Data(5, lambda n: train[torch.randint(len(train), (n,))], test)


DATA = {"power plant": plant, "eight Gaussians": ring}


def trained(data: Data, rows: list[Row], seed: int, steps: int, batch: int) -> list[SideBySide]:
    """One net a row, and that of the first row as it was early on."""
    torch.manual_seed(seed)
    net = SideBySide(rows, data.dim)
    part = lambda key: torch.tensor([getattr(row, key) for row in rows])  # noqa: E731
    flow = Flow(
        CNF(net, solver=Fixed(RK4), costs=(KineticEnergy(), JacobianFrobenius())), StandardNormal(data.dim)
    )
    kinetic, jacobian = (part(key).repeat_interleave(batch) for key in ("kinetic", "jacobian"))
    decay, spread = part("decay")[:, None, None], part("spread")[:, None, None]

    def loss() -> Tensor:
        net.end = 1 + spread * (2 * torch.rand(len(rows), 1, 1) - 1)
        log_prob, (energy, frobenius) = log_prob_and_costs(flow, data.draw(batch).repeat(len(rows), 1))
        return (-log_prob + kinetic * energy + jacobian * frobenius).mean() * len(rows)

    ema, early = EMA(net, 0.98), None
    for step in paced(loss, net, ema, steps, RATE):
        with torch.no_grad():
            for p in net.W:
                p *= 1 - RATE * pace(step - 1, step / steps) * decay
        if step >= steps / 3 and early is None:
            early = ema.module.one(0)
    return [*(ema.module.one(k) for k in range(len(rows))), early]


@torch.no_grad()
def judge(net: SideBySide, data: Data) -> dict[str, object]:
    """Nats, evaluations, and the three parts of the kinetic energy."""
    z = torch.randn(len(data.test), data.dim, generator=torch.Generator().manual_seed(5))
    base, costs = StandardNormal(data.dim), (KineticEnergy(), JacobianFrobenius())
    solves = {tol: CNF(net, solver=Adaptive(rtol=tol, atol=tol)) for tol in TOLERANCES}
    ways = {tol: cnf.solve(data.test, 1.0, 0.0) for tol, cnf in solves.items()}
    logs = {tol: base.log_prob(way.x) + way.logdet for tol, way in ways.items()}
    exact = logs[1e-7]
    full = CNF(net, solver=Adaptive(rtol=1e-6, atol=1e-6), costs=costs).solve(data.test, 1.0, 0.0)
    samples = [solve(net, z, (0.0, 1.0), cnf.solver).nfe for cnf in solves.values()]
    return {
        "nll": list(nll(exact)),
        "gap": None if data.log_prob is None else (data.log_prob - exact).mean().item(),
        "nfe": [ways[tol].nfe for tol in TOLERANCES],
        "nfe of samples": samples,
        "error in nats": [(logs[tol] - exact).abs().mean().item() for tol in TOLERANCES[:2]],
        "energy": full.costs[0].mean().item(),
        "displacement": (full.x - data.test).square().sum(1).mean().item(),
        "jacobian": full.costs[1].mean().item(),
        "log-densities": exact.tolist(),
    }


def measure(name: str, seed: int, sweep: str, steps: int, batch: int) -> dict[str, object]:
    data, start = DATA[name](), time.perf_counter()
    rows = SWEEPS[sweep]
    names = [*rows, EARLY] if sweep == "prices" else list(rows)
    nets = trained(data, list(rows.values()), seed, steps, batch)
    seconds = time.perf_counter() - start
    rows = [{"row": row, **judge(net, data)} for row, net in zip(names, nets, strict=False)]
    logs = torch.tensor([row.pop("log-densities") for row in rows])
    for row, log_prob in zip(rows, logs, strict=True):
        row["lost"] = list(paired_gap(logs[0], log_prob))  # to the first row, the plain one
    budget = {"steps": steps, "batch": batch, "threads": torch.get_num_threads()}
    return {"data": name, "seed": seed, "sweep": sweep, **budget, "seconds": seconds, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", default=[], help="names of data; all by default")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20 steps of 16 points: does it run")
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.batch = 20, 16
    torch.set_num_threads(asked.threads)
    print(machine())
    budget = {"steps": asked.steps, "batch": asked.batch, "threads": asked.threads}
    wanted = [(name, seed, sweep) for seed in asked.seeds for name in asked.data or DATA for sweep in SWEEPS]
    for name, seed, sweep in missing(NAME, wanted, SAME, budget):
        run = measure(name, seed, sweep, asked.steps, asked.batch)
        keep(NAME, run, SAME)
        print(name, seed, sweep, f"{run['seconds']:.0f} s", flush=True)
        for row in run["rows"]:
            print(
                *(f"{v:.4f}" if isinstance(v, float) else v for v in row.values() if v is not None),
                flush=True,
            )


if __name__ == "__main__":
    main()
