"""FFJORD's experiments in small: eight toys, ablations on the checkerboard, digits by a multi-scale flow.

    python benchmarks/ffjord.py [part ...] [--seeds 0] [--jobs 1]

Toys and ablations: an MLP of three hidden layers of 64 with tanh on standardised points, batch 512, Adam with a
warm-up and a cosine decay, gradients clipped at norm 5, weights averaged, 1,500 steps through six compiled steps of
rk4 with the exact trace. An ablation differs from that in one thing: the layers of the field, how many steps of rk4 it
is trained through, or the trace. The plain training of the circles diverged; twelve steps stand beside it.

Whatever trained it, a density is judged by dopri5 at tolerance 1e-5 and the exact trace on 20,000 fresh points, the
same for all: negative log-likelihood, the paired gap to the truth, each with its standard error; what the training's
own solver, with the exact trace, says of the same points; by how much the gap changes at half the tolerance; and the
evaluations of the field. On the way the average is judged on 2,000 points. The tolerances are those of the plain field
after training.

Digits: images of 8 x 8 pixels and 17 levels, dequantised, their logit under `ffjord` on two scales, one probe a solve
in training and two steps of rk4 for each flow; judged on the test images by dopri5 at tolerance 1e-4, four draws of
probe and dequantisation each. A run that is in benchmarks/results/ffjord.json is not measured again.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import torch
from harness import keep, missing
from harness.training import paced
from one_target import TOLERANCE, likelihood, points, shades, solved
from torch import Tensor

from cnflib import Chain, Flow, Standardize, StandardNormal
from cnflib.continuous import (
    CNF,
    Divergence,
    Exact,
    Hutchinson,
    Rademacher,
    concat_squash,
)
from cnflib.data import digits, toy
from cnflib.discrete import Dequantize, Logit
from cnflib.metrics import bits_per_dim, nll
from cnflib.models import ffjord
from cnflib.nets import MLP
from cnflib.nets.field import VectorField
from cnflib.ode import Adaptive, Fixed
from cnflib.train import EMA

NAME, SAME = "ffjord", ("part", "target", "row", "seed")
BATCH, STEPS, RATE, MEMORY, FIRST = 512, 1500, 1e-2, 0.98, 0
FEW, MARKS = 2000, (0, 50, 100, 200, 300, 450, 600, 800, 1000, 1250, 1500)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
TOYS = {name: law for name, law in toy.targets.items() if name != "gaussian_mixture"}


class Row(NamedTuple):
    """What one flow is made of and trained through."""

    field: Callable[[], VectorField] = lambda: MLP(2)
    steps: int = 6
    divergence: Divergence = Exact()


ROWS = {
    "plain": Row(),
    "concat-squash": Row(lambda: concat_squash(2)),
    "Fourier features": Row(lambda: MLP(2, time_frequencies=2, fourier=16, fourier_scale=0.5)),
    "3 steps": Row(steps=3),
    "12 steps": Row(steps=12),
    "Rademacher probe": Row(divergence=Hutchinson(Rademacher())),
}
IMAGES = {"hidden": (32, 32), "scales": 2, "blocks": 1}
IMAGE_SOLVE, IMAGE_BATCH, IMAGE_STEPS, IMAGE_RATE = 2, 128, 900, 3e-3
PIXELS, LOOSE, DRAWS = 64, 1e-4, 4


@cache
def compiled(row: str) -> tuple[VectorField, Callable[[Tensor], Tensor]]:
    """A field and the log-density it is trained by: one compilation serves every target and every seed."""
    made = ROWS[row]
    field = made.field()
    flow = Flow(CNF(field, made.divergence, Fixed(made.steps)), StandardNormal(2))
    log_prob = torch.compile(flow.log_prob, fullgraph=True, dynamic=False)
    log_prob(torch.randn(BATCH, 2)).mean().backward()
    return field, log_prob


def evaluations(field: VectorField, x: Tensor, tolerance: float = TOLERANCE) -> int:
    """Evaluations of the field and its trace from data to latents."""
    return solved(field, tolerance).bijection.solve(x, 1.0, 0.0).nfe


def toy_run(part: str, target: str, row: str, seed: int) -> dict[str, object]:
    """Train one row on one target and judge it on the way and at the end."""
    data = TOYS[target]
    fresh, sample = points(data)
    units = Standardize.fit(sample)
    few = fresh[:FEW]
    field, log_prob = compiled(row)
    torch.manual_seed(seed)
    field.load_state_dict(ROWS[row].field().state_dict())
    ema = EMA(field, MEMORY)
    curve, seconds, start = [], 0.0, time.process_time()
    loss = lambda: -log_prob(units.encode(data.sample(BATCH))).mean()  # noqa: E731
    steps = paced(loss, field, ema, STEPS, RATE)
    for mark in MARKS:
        while ema.updates < mark:
            next(steps)
        seconds += time.process_time() - start
        with torch.no_grad():
            value = nll(solved(ema.module).after(units).log_prob(few)).value
            curve.append({"step": mark, "nll": value, "nfe": evaluations(ema.module, units.encode(few))})
        start = time.process_time()
    field = ema.module.eval()
    with torch.no_grad():
        judged = solved(field).after(units)
        at_end = judged.log_prob(fresh)
        claimed = solved(field, solver=Fixed(ROWS[row].steps)).after(units).log_prob(fresh)
        finer = solved(field, TOLERANCE / 2).after(units).log_prob(fresh)
        extra = {"picture": shades(data, judged)} if seed == FIRST else {}
        if (part, target) == ("toys", "checkerboard"):
            extra["tolerances"] = list(by_tolerance(field, units, fresh[:FEW]))
    return {
        "part": part,
        "target": target,
        "row": row,
        "seed": seed,
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        **likelihood(data, fresh, at_end),
        "nll by the training's solver": nll(claimed).value,
        "change at half the tolerance": (finer - at_end).mean().item(),
        "nfe": evaluations(field, units.encode(fresh)),
        "parameters": sum(p.numel() for p in field.parameters()),
        "cpu seconds": seconds,
        "curve": curve,
        **extra,
    }


def by_tolerance(field: VectorField, units: Standardize, x: Tensor) -> Iterator[dict[str, float]]:
    """What a tolerance costs, and by how much it moves log-densities: root mean square against 1e-9 in float64."""
    exact = solved(field.double(), 1e-9).after(units.double()).log_prob(x.double())
    field.float(), units.float()
    for tolerance in TOLERANCES:
        value = solved(field, tolerance).after(units).log_prob(x)
        error = (value - exact).square().mean().sqrt().item()
        nfe = evaluations(field, units.encode(x), tolerance)
        yield {
            "tolerance": tolerance,
            "nfe": nfe,
            "error": error,
            "mean error": (value - exact).mean().item(),
        }


def image_run(part: str, target: str, row: str, seed: int) -> dict[str, object]:
    """Train the multi-scale flow on digits and judge it in bits per dimension."""
    train, test = digits.digits("train"), digits.digits("test").images
    torch.manual_seed(seed)
    core = ffjord(shape=(1, 8, 8), solver=Fixed(IMAGE_SOLVE), **IMAGES)
    flow = core.after(Chain(Dequantize(train.levels), Logit()))
    ema, curve, seconds, start = EMA(flow, MEMORY), [], 0.0, time.process_time()
    loss = lambda: -flow.log_prob(train.images[torch.randint(len(train.images), (IMAGE_BATCH,))]).mean()  # noqa: E731
    steps = paced(loss, flow, ema, IMAGE_STEPS, IMAGE_RATE)
    for mark in range(0, IMAGE_STEPS + 1, IMAGE_STEPS // 6):
        while ema.updates < mark:
            next(steps)
        seconds += time.process_time() - start
        with torch.no_grad():
            curve.append({"step": mark, "bits": bits_per_dim(ema.module.log_prob(test), PIXELS).value})
        start = time.process_time()
    judged = ema.module.eval()
    parts = [module for module in judged.modules() if isinstance(module, CNF)]
    with torch.no_grad():
        by_training = torch.stack([judged.log_prob(test) for _ in range(DRAWS)]).mean(0)
        for cnf in parts:
            cnf.solver = Adaptive(rtol=LOOSE, atol=LOOSE)
        values = torch.stack([judged.log_prob(test) for _ in range(DRAWS)])
    return {
        "part": part,
        "target": target,
        "row": row,
        "seed": seed,
        "steps": IMAGE_STEPS,
        "threads": torch.get_num_threads(),
        "bits": list(bits_per_dim(values.mean(0), PIXELS)),
        "draws": DRAWS,
        "bits by the training's solver": bits_per_dim(by_training, PIXELS).value,
        "scatter of a draw": values.std(0).mean().item(),
        "parameters": sum(p.numel() for p in flow.parameters()),
        "cpu seconds": seconds,
        "curve": curve,
    }


WANTED = {  # by part: targets and rows
    "toys": [*((target, "plain") for target in TOYS), ("circles", "12 steps")],
    "ablations": [("checkerboard", row) for row in ROWS if row != "12 steps"],
    "digits": [("digits", "multi-scale")],
}


def measure(part: str, target: str, row: str, seed: int) -> dict[str, object]:
    return (image_run if part == "digits" else toy_run)(part, target, row, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help="toys, ablations, digits; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[FIRST], help="of the ablations")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each on one thread")
    asked = parser.parse_args()
    wanted = [
        (part, target, row, seed)
        for part in asked.parts or WANTED
        for seed in (asked.seeds if part == "ablations" else [FIRST])
        for target, row in WANTED[part]
    ]
    todo = [
        run
        for run in wanted
        if missing(NAME, [run], SAME, {"steps": IMAGE_STEPS if run[0] == "digits" else STEPS})
    ]
    entropies = {name: data.entropy for name, data in TOYS.items()}
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed({pool.submit(measure, *run): None for run in todo}):
            run = done.result()
            keep(NAME, run, SAME, entropy=entropies)
            print(*(run[k] for k in SAME), run.get("nll") or run["bits"], run.get("nfe"), flush=True)


if __name__ == "__main__":
    main()
