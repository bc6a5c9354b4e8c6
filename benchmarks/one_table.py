"""One table, every model: what about a minute of training makes of the power plant's five columns.

    python benchmarks/one_table.py [row ...] [--seeds 0 1 2] [--jobs 2]

The fixed split of cnflib.data.tables.power_plant: 6,698 rows to train on, 1,435 to choose by, 1,435 to report. All
flows are trained alike on standardised rows: batch 512, Adam with a warm-up and a cosine decay, gradients clipped at
norm 5, weights averaged; ten times on the way the average is judged on the validation rows, and the best of the ten is
kept. A row has a number of steps that takes about a minute of one thread, so what it reaches does not depend on the
load of the machine.
The interpolant regresses the velocity of the trigonometric path with an MLP; its density is that of its ODE, by dopri5
at tolerance 1e-5 and the exact trace, and so is FFJORD's. The Gaussian has the mean and the covariance of the training
rows, the kernel density estimate the bandwidth that serves the validation rows best.

Reported are the test rows: negative log-likelihood in nats of the plant's units, and differences on the same rows to
the Gaussian and to the kernel density estimate, each with its standard error. A run that is in
benchmarks/results/one_table.json with the same budget is not measured again.
"""

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import NamedTuple

import torch
from checkerboard import late
from harness import keep, missing
from harness.training import mean_nll, paced
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from cnflib import Flow, Standardize, StandardNormal
from cnflib.continuous import CNF
from cnflib.data.tables import Table, power_plant
from cnflib.discrete import RationalQuadratic
from cnflib.interpolants import Trigonometric, velocity_loss
from cnflib.metrics import nll, paired_gap
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
from cnflib.nets import MLP
from cnflib.train import EMA, EarlyStopping

NAME, SAME = "one_table", ("row", "seed")
BATCH, CHECKS, MEMORY, SEEDS = 512, 10, 0.98, (0, 1, 2)
BANDWIDTHS = (0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.4)
SIMPLE = ("Gaussian", "kernel density")


class Row(NamedTuple):
    """How a flow is made, its learning rate, and the steps of about a minute."""

    make: Callable[[], Flow]
    rate: float
    steps: int


def interpolant(dim: int) -> Flow:
    field = MLP(dim, (64, 64, 64), activation=nn.SiLU, time_frequencies=4)
    return Flow(CNF(field), StandardNormal(dim))


ROWS = {
    "planar_flow": Row(lambda: planar_flow(dim=5, layers=32), 1e-2, 2000),
    "radial_flow": Row(lambda: radial_flow(dim=5, layers=32), 1e-2, 2000),
    "nice": Row(lambda: nice(dim=5), 3e-3, 5000),
    "realnvp": Row(lambda: realnvp(dim=5), 3e-3, 5000),
    "glow": Row(lambda: glow(dim=5), 3e-3, 2500),
    "maf": Row(lambda: maf(dim=5), 3e-3, 6000),
    "iaf": Row(lambda: iaf(dim=5), 3e-3, 1500),
    "spline_flow": Row(lambda: spline_flow(dim=5), 3e-3, 2500),
    "maf of splines": Row(lambda: maf(dim=5, layers=3, transform=RationalQuadratic()), 3e-3, 3000),
    "residual_flow": Row(lambda: residual_flow(dim=5), 1e-2, 600),
    "ffjord": Row(lambda: ffjord(dim=5), 3e-3, 800),
    "interpolant": Row(lambda: interpolant(5), 3e-3, 15_000),
}


def table() -> Table:
    return power_plant(dtype=torch.float32)


def gaussian(rows: Tensor) -> MultivariateNormal:
    rows = rows.double()
    return MultivariateNormal(rows.mean(0), rows.T.cov())


def kernel_density(plant: Table) -> tuple[Tensor, float]:
    """The log-density of the test rows in the plant's units, and the bandwidth in units of the standard deviation."""
    train, validation, test = ((part.double() - plant.mean) / plant.std for part in plant[:3])
    n, D = train.shape

    def log_prob(x: Tensor, h: float) -> Tensor:
        squares = torch.cdist(x, train).square()
        constant = math.log(n) + D * math.log(h * math.sqrt(2 * math.pi)) + plant.std.double().log().sum()
        return (-squares / (2 * h**2)).logsumexp(1) - constant

    best = max(BANDWIDTHS, key=lambda h: log_prob(validation, h).mean())
    return log_prob(test, best), best


def loss_of(name: str, flow: Flow, draw: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The loss of a fresh batch: a velocity loss for the interpolant, the likelihood for all others."""
    loss = regression(flow.bijection.field) if name == "interpolant" else mean_nll(flow.log_prob)
    return lambda: loss(draw())


def regression(field: MLP) -> Callable[[Tensor], Tensor]:
    """The mean velocity loss of a batch of data along the trigonometric path, times late."""
    path = Trigonometric()
    return lambda x1: velocity_loss(field, path, torch.randn_like(x1), x1, late(len(x1))).mean()


def train(name: str, plant: Table, total: int) -> tuple[Flow, float]:
    """The flow in the plant's units, with the averaged weights that served validation best, and its CPU time."""
    made, rate = ROWS[name].make(), ROWS[name].rate
    units = Standardize.fit(plant.train)
    rows, validation = units.encode(plant.train), units.encode(plant.validation)
    made(rows[:BATCH])  # what a layer takes from its first batch
    draw = lambda: rows[torch.randint(len(rows), (BATCH,))]  # noqa: E731
    ema = EMA(made, MEMORY)
    best, seconds, start = EarlyStopping(ema.module, CHECKS), 0.0, time.process_time()
    for step in paced(loss_of(name, made, draw), made, ema, total, rate):
        if (step + 1) % (total // CHECKS) == 0:
            seconds += time.process_time() - start
            ema.module.eval()
            with torch.no_grad():
                best.update(-ema.module.log_prob(validation).mean())
            ema.module.train()
            start = time.process_time()
    best.restore()
    return ema.module.eval().after(units), seconds


def measure(name: str, seed: int) -> dict[str, object]:
    """Train one row with one seed and judge it on the test rows."""
    plant = table()
    normal, (kernel, bandwidth) = gaussian(plant.train).log_prob(plant.test.double()), kernel_density(plant)
    extra = {"bandwidth": bandwidth} if name == "kernel density" else {}
    torch.manual_seed(seed)
    if name in SIMPLE:
        log_prob = normal if name == "Gaussian" else kernel
        parameters, taken, seconds, training = 0, 0, 0.0, None
    else:
        taken = ROWS[name].steps
        flow, seconds = train(name, plant, taken)
        with torch.no_grad():
            log_prob = flow.log_prob(plant.test).double()
            training = list(nll(flow.log_prob(plant.train)))
        parameters = sum(p.numel() for p in flow.parameters())
    return {
        "row": name,
        "seed": seed,
        "steps": taken,
        "threads": torch.get_num_threads(),
        "nll": list(nll(log_prob)),
        "training nll": training,
        "over the Gaussian": list(paired_gap(log_prob, normal)),
        "over the kernel density": list(paired_gap(log_prob, kernel)),
        "parameters": parameters,
        "cpu seconds": seconds,
        **extra,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=[], help="names of rows; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each on one thread")
    asked = parser.parse_args()
    names = asked.rows or [*SIMPLE, *ROWS]
    wanted = [(name, seed) for name in names for seed in (asked.seeds if name in ROWS else [0])]
    todo = [run for run in wanted if missing(NAME, [run], SAME, {"steps": steps_of(run[0])})]
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed({pool.submit(measure, *run): None for run in todo}):
            run = done.result()
            keep(NAME, run, SAME)
            shown = [run[k] for k in (*SAME, "nll", "over the Gaussian", "over the kernel density")]
            print(*shown, f"{run['cpu seconds']:.0f} s", flush=True)


def steps_of(name: str) -> int:
    return ROWS[name].steps if name in ROWS else 0


if __name__ == "__main__":
    main()
