"""Time of flow matching: cnflib beside flow_matching and torchcfm.

    python benchmarks/interpolants.py [--rounds 61] [--dims 2 64] [--threads 1] [--again] [--quick]

Every row takes the same MLP of three hidden layers of 64 with tanh, x and t in, the same weights, and learns the
velocity of the linear path without noise. A training step draws base and times, takes 512 data points and steps Adam
at a learning rate of 0, so that every step meets the same weights. Sampling carries 4,096 points from t = 0 to 1: by
twenty steps of the midpoint rule, and by dopri5 at tolerance 1e-5, whose error is written beside; torchcfm samples by
torchdyn, as its examples do. Rows take turns, round after round. A time is a median with its quartiles; a ratio below
1 is faster than the fastest peer in the same column.

A training step is what a user of each library writes: the peers take the mean over all entries, cnflib that over rows.
Before any clock starts, all rows are checked against each other: loss and gradient at the same points and times, and
the ends of the midpoint rule, must agree to 1e-4; the largest deviations are written with the times. One more row is
cnflib with the net of plain layers that the peers have: its own net has a cheaper tanh and treats time apart.

Cases that are in benchmarks/results/interpolants.json are not measured again unless asked to.
"""

import argparse
import importlib
import math
from collections.abc import Callable
from importlib.metadata import version

import torch
from harness import BATCH, field, keep, kept, machine, measure, quartiles
from peers.interpolants import FlowMatching, Plain, Row, TorchCFM, options
from torch import Tensor, nn

from cnflib.interpolants import Linear, sample_ode, velocity_loss
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, dopri8, midpoint

NAME, SAMPLES, DIMS, AGREE = "interpolants", 4096, (2, 64), 1e-4
SOLVERS = ("midpoint, 20 steps", "dopri5, 1e-5")
ACTS = ("training", *SOLVERS)


class Ours(Row):
    """cnflib."""

    def __init__(self, mlp: MLP) -> None:
        self.net, self.path, self.solvers = self.made(mlp), Linear(), {}
        for solver in SOLVERS:
            steps, tolerance = options(solver)
            self.solvers[solver] = (
                Fixed(steps, midpoint) if steps else Adaptive(rtol=tolerance, atol=tolerance)
            )

    def made(self, mlp: MLP) -> nn.Module:
        return mlp

    def objective(self, x1: Tensor, x0: Tensor, t: Tensor | None = None) -> Tensor:
        return velocity_loss(self.net, self.path, x0, x1, t).mean()

    def loss(self, x1: Tensor, x0: Tensor, t: Tensor | None = None) -> Tensor:
        return self.objective(x1, x0, t) / x1.shape[1]

    def sample(self, x0: Tensor, solver: str) -> Tensor:
        return sample_ode(self.net, x0, self.solvers[solver])


class OursPlain(Ours):
    """cnflib with the net of the peers."""

    def made(self, mlp: MLP) -> nn.Module:
        return Plain(mlp)


OURS = {"cnflib": Ours, "cnflib, net of plain layers": OursPlain}
PEERS = {"flow_matching": FlowMatching, "torchcfm": TorchCFM}


def contestants() -> dict[str, type[Row]]:
    """The rows whose library can be imported here."""
    found = dict(OURS)
    for name, row in PEERS.items():
        try:
            importlib.import_module(row.package)
            found[name] = row
        except ImportError as error:
            print(f"{name} is left out: {error}. Install the extra 'bench'.")
    return found


def deviations(rows: dict[str, Row], dim: int) -> dict[str, float]:
    """The largest relative deviation of loss, gradient and ends from those of the first row."""
    generator = torch.Generator().manual_seed(1)
    x0, x1 = (torch.randn(BATCH, dim, generator=generator) for _ in range(2))
    t = torch.rand(BATCH, generator=generator)
    values = {"loss": [], "gradient": [], "ends": [], "ends by dopri5": []}
    for row in rows.values():
        loss = row.loss(x1, x0, t)
        gradient = torch.autograd.grad(loss, list(row.net.parameters()))
        values["loss"].append(loss.detach())
        values["gradient"].append(torch.cat([g.flatten() for g in gradient]))
        for name, solver in zip(("ends", "ends by dopri5"), SOLVERS, strict=True):
            values[name].append(row.sample(x0, solver))
    off = {k: max((v - v0[0]).norm() / v0[0].norm() for v in v0).item() for k, v0 in values.items()}
    if max(off[k] for k in ("loss", "gradient", "ends")) > AGREE:
        raise SystemExit(f"The rows do not compute the same at D = {dim}: {off}.")
    return off


def errors(rows: dict[str, Row], dim: int) -> dict[str, float]:
    """The largest error of the ends by dopri5, against float64 at tolerance 1e-11."""
    x0 = torch.randn(SAMPLES, dim, generator=torch.Generator().manual_seed(0))
    precise = Adaptive(dopri8, rtol=1e-11, atol=1e-11)
    exact = sample_ode(field(dim).double(), x0.double(), precise)
    return {name: (row.sample(x0, SOLVERS[1]) - exact).abs().max().item() for name, row in rows.items()}


def calls(row: Row, dim: int) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    x1, x0 = torch.randn(BATCH, dim, generator=generator), torch.randn(SAMPLES, dim, generator=generator)
    sampling = {s: lambda s=s: row.sample(x0, s) for s in SOLVERS}
    return {"training": row.training_step(x1), **sampling}


def case(dim: int, rounds: int) -> dict[str, object]:
    """Times of all rows in one dimension."""
    rows = {name: made(field(dim)) for name, made in contestants().items()}
    off = deviations(rows, dim)
    todo = {name: calls(row, dim) for name, row in rows.items()}
    found = {name: {"row": name, "error": error} for name, error in errors(rows, dim).items()}
    for act in ACTS:
        times = measure(
            {name: todo[name][act] for name in rows}, rounds if act == "training" else rounds // 3
        )
        ms = {name: quartiles(times[name]) for name in rows}
        best = min((ms[name][0] for name in rows if name in PEERS), default=math.nan)
        for name in rows:
            found[name][act] = {"ms": ms[name], "ratio": ms[name][0] / best}
    return {
        "dim": dim,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "deviation": off,
        "rows": [*found.values()],
    }


def summary(runs: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Geometric mean and worst of the ratios of our rows."""
    found = {}
    for name in OURS:
        ratios = [
            row[act]["ratio"] for run in runs for row in run["rows"] if row["row"] == name for act in ACTS
        ]
        found[name] = {"mean": math.exp(sum(map(math.log, ratios)) / len(ratios)), "worst": max(ratios)}
    return found


def show(run: dict[str, object]) -> None:
    print(f"\nD = {run['dim']}, deviations " + ", ".join(f"{k} {v:.1e}" for k, v in run["deviation"].items()))
    for row in run["rows"]:
        cells = (
            f"{row[a]['ms'][0]:9.3f} ({row[a]['ms'][1]:.3f}-{row[a]['ms'][2]:.3f}) {row[a]['ratio']:5.2f}"
            for a in ACTS
        )
        print(f"{row['row']:<30}" + "".join(f"{cell:>32}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=61, help="of training steps; a third of it of samplings"
    )
    parser.add_argument("--dims", nargs="+", type=int, default=list(DIMS))
    parser.add_argument("--threads", type=int, default=1, help="nets this small gain nothing from more")
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--quick", action="store_true", help="six rounds: does it run")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(machine())
    there = () if asked.again else {run["dim"] for run in kept(NAME)}
    packages = {name: version(name) for name in ("flow_matching", "torchcfm", "torchdyn")}
    for dim in asked.dims:
        if dim not in there:
            run = case(dim, 6 if asked.quick else asked.rounds)
            show(run)
            others = [old for old in kept(NAME) if old["dim"] != dim]
            keep(NAME, run, ("dim",), packages=packages, summary=summary([*others, run]))


if __name__ == "__main__":
    main()
