"""One target, every model: the same data and about a minute of training, for all flows of the library.

    python benchmarks/one_target.py [row ...] [--targets checkerboard ...] [--seeds 0 1 2] [--jobs 2]

Checkerboard, eight Gaussians and moons, standardised; batch 512, Adam with a warm-up and a cosine decay, gradients
clipped at norm 5, weights averaged. A row has a number of steps that takes about a minute of one thread, so what it
reaches does not depend on the load of the machine; its times are CPU times. Each density is then judged on 20,000 fresh
points: negative log-likelihood, and the paired gap to the truth, each with its standard error, and the mass on a grid.

FFJORD is trained through six compiled steps of rk4, and the interpolant by regression. The densities of both are then
those of dopri5 at tolerance 1e-5 and the exact trace. Recorded are by how much the gap changes at half the tolerance,
and what FFJORD's own six steps say of the same points.

A run that is in benchmarks/results/one_target.json with the same number of steps is not measured again.
"""

import argparse
import base64
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import NamedTuple

import torch
from harness import keep, missing
from harness.training import mean_nll, paced
from one_table import interpolant, regression
from torch import Tensor

from cnflib import Flow, Standardize, StandardNormal
from cnflib.continuous import CNF
from cnflib.data import toy
from cnflib.data.toy import Target
from cnflib.discrete import RationalQuadratic
from cnflib.metrics import mass, midpoints, nll, paired_gap
from cnflib.models import (
    ffjord,
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
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Fixed, Solver
from cnflib.train import EMA

BATCH, POINTS, MEMORY, SEEDS = 512, 20_000, 0.98, (0, 1, 2)
BOX, CELLS, PIXELS = 10.0, 1000, 72
CONTINUOUS, SOLVED = ("ffjord", "interpolant"), 400  # smooth densities: fewer cells, each of a solve
TRAINED, TOLERANCE = Fixed(6), 1e-5  # FFJORD's training, compiled, and how both are judged
TARGETS = {"checkerboard": toy.checkerboard, "eight_gaussians": toy.eight_gaussians, "moons": toy.moons}
NAME, SAME = "one_target", ("target", "row", "seed")


class Row(NamedTuple):
    """How a flow is made, its learning rate, and the steps of about a minute."""

    make: Callable[[], Flow]
    rate: float
    steps: int


ROWS = {
    "planar_flow": Row(lambda: planar_flow(dim=2, layers=32), 1e-2, 2000),
    "radial_flow": Row(lambda: radial_flow(dim=2, layers=32), 1e-2, 2000),
    "nice": Row(lambda: nice(dim=2), 3e-3, 6000),
    "realnvp": Row(lambda: realnvp(dim=2), 3e-3, 4500),
    "glow": Row(lambda: glow(dim=2, layers=8), 3e-3, 2500),
    "maf": Row(lambda: maf(dim=2, layers=8), 3e-3, 4500),
    "iaf": Row(lambda: iaf(dim=2, layers=8), 3e-3, 3500),
    "spline_flow": Row(lambda: spline_flow(dim=2, bound=3.0), 3e-3, 4000),
    "maf of splines": Row(lambda: maf(dim=2, layers=3, transform=RationalQuadratic(bound=3.0)), 3e-3, 4500),
    "residual_flow": Row(lambda: residual_flow(dim=2), 1e-2, 900),
    "ffjord": Row(lambda: ffjord(dim=2), 1e-2, 1500),
    "interpolant": Row(lambda: interpolant(2), 3e-3, 30_000),
}


def measure(target: str, name: str, seed: int) -> dict[str, object]:
    """Train one row on one target and judge it."""
    data, row = TARGETS[target], ROWS[name]
    fresh, sample = points(data)
    torch.manual_seed(seed)
    made = row.make()
    units = Standardize.fit(sample)
    made(units.encode(sample[:BATCH]))  # what a layer takes from its first batch
    loss = loss_of(name, made, units)
    ema, start = EMA(made, MEMORY), time.process_time()
    for _ in paced(lambda: loss(data.sample(BATCH)), made, ema, row.steps, row.rate):
        pass
    seconds = time.process_time() - start
    judged = ema.module.eval().after(units)
    with torch.no_grad():
        log_prob = judged.log_prob(fresh)
        start = time.process_time()
        judged.sample(POINTS)
        sampling = time.process_time() - start
        cells = SOLVED if name in CONTINUOUS else CELLS
        total = mass(judged.log_prob, ((-BOX, BOX), (-BOX, BOX)), cells)
        extra = {"picture": shades(data, judged)} if seed == SEEDS[0] else {}
        if name in CONTINUOUS:
            field = ema.module.bijection.field
            finer = solved(field, TOLERANCE / 2).after(units).log_prob(fresh)
            extra["change at half the tolerance"] = (finer - log_prob).mean().item()
        if name == "ffjord":
            claimed = solved(field, solver=TRAINED).after(units).log_prob(fresh)
            extra["nll by the training's solver"] = nll(claimed).value
    return {
        "target": target,
        "row": name,
        "seed": seed,
        "threads": torch.get_num_threads(),
        **likelihood(data, fresh, log_prob),
        "mass": total,
        "parameters": sum(p.numel() for p in made.parameters()),
        "steps": row.steps,
        "cpu seconds": seconds,
        "sampling": sampling,
        **extra,
    }


def points(data: Target) -> tuple[Tensor, Tensor]:
    """What every row is judged on, and what gives it its units."""
    generator = torch.Generator().manual_seed(1234)
    return data.sample(POINTS, generator=generator), data.sample(POINTS, generator=generator)


def likelihood(data: Target, x: Tensor, log_prob: Tensor) -> dict[str, list[float]]:
    """The negative log-likelihood of points, and the paired gap to the truth, each with its standard error."""
    return {"nll": list(nll(log_prob)), "gap": list(paired_gap(data.log_prob(x), log_prob))}


def solved(field: VectorField, tolerance: float = TOLERANCE, solver: Solver | None = None) -> Flow:
    """The flow of a field as it is judged: by adaptive steps at a tolerance, or by another solver."""
    solver = solver or Adaptive(rtol=tolerance, atol=tolerance)
    return Flow(CNF(field, solver=solver), StandardNormal(2))


def loss_of(name: str, made: Flow, units: Standardize) -> Callable[[Tensor], Tensor]:
    """The mean loss of a batch in the units of the data."""
    if name not in CONTINUOUS:
        return mean_nll(made.after(units).log_prob)
    field = made.bijection.field
    if name == "interpolant":
        loss = regression(field)
        return lambda x: loss(units.encode(x))
    fast = torch.compile(solved(field, solver=TRAINED).log_prob, fullgraph=True, dynamic=False)
    fast(made.base.sample(BATCH)).mean().backward()  # compiled before the clock starts
    return lambda x: -fast(units.encode(x)).mean()


def shades(data: Target, flow: Flow) -> str:
    """The density on a grid over the target's rectangle, 255 for the truth's largest, zipped, as text."""
    x = midpoints(data.bounds, PIXELS)
    shade = 255 * (flow.log_prob(x) - data.log_prob(x).max()).exp().clamp(max=1)
    return base64.b64encode(zlib.compress(shade.round().byte().numpy().tobytes(), 9)).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=[], help="names of rows; all by default")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on one thread")
    asked = parser.parse_args()
    names = asked.rows or ROWS
    wanted = [(target, name, seed) for seed in asked.seeds for name in names for target in asked.targets]
    todo = [run for run in wanted if missing(NAME, [run], SAME, {"steps": ROWS[run[1]].steps})]
    entropies = {name: data.entropy for name, data in TARGETS.items()}
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed({pool.submit(measure, *run): None for run in todo}):
            run = done.result()
            keep(NAME, run, SAME, entropy=entropies)
            shown = [run[k] for k in (*SAME, "nll", "gap", "mass", "cpu seconds")]
            print(*(f"{v:.4f}" if isinstance(v, float) else v for v in shown), flush=True)


if __name__ == "__main__":
    main()
