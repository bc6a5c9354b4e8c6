"""One target, every model: what a minute of training makes of the same data, for all discrete flows of the library.

    python benchmarks/one_target.py [row ...] [--targets checkerboard ...] [--seeds 0 1 2]

Checkerboard, eight Gaussians and moons, standardised; batch 512, Adam with a warm-up and a cosine decay over a minute
of one thread, weights averaged. Each density is then judged on 20,000 fresh points: negative log-likelihood, and the
paired gap to the truth, each with its standard error, and the mass on a grid. Two runs go side by side, each on a core
of its own; a run that is measured again takes the place of the old one.

All is written to benchmarks/results/one_target.json.
"""

import argparse
import base64
import json
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from harness import record
from harness.training import mean_nll, train

from cnflib import Flow, Standardize
from cnflib.data import toy
from cnflib.data.toy import Target
from cnflib.discrete import RationalQuadratic
from cnflib.metrics import mass, midpoints, nll, paired_gap
from cnflib.models import (
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

BATCH, SECONDS, POINTS, SEEDS = 512, 60.0, 20_000, (0, 1, 2)
BOX, CELLS, PIXELS = 10.0, 1000, 72
TARGETS = {"checkerboard": toy.checkerboard, "eight_gaussians": toy.eight_gaussians, "moons": toy.moons}
RESULT = Path(__file__).parent / "results/one_target.json"


class Row(NamedTuple):
    """How a flow is made, and the learning rate it was given."""

    make: Callable[[], Flow]
    rate: float


ROWS = {
    "planar_flow": Row(lambda: planar_flow(dim=2, layers=32), 1e-2),
    "radial_flow": Row(lambda: radial_flow(dim=2, layers=32), 1e-2),
    "nice": Row(lambda: nice(dim=2), 3e-3),
    "realnvp": Row(lambda: realnvp(dim=2), 3e-3),
    "glow": Row(lambda: glow(dim=2, layers=8), 3e-3),
    "maf": Row(lambda: maf(dim=2, layers=8), 3e-3),
    "iaf": Row(lambda: iaf(dim=2, layers=8), 3e-3),
    "spline_flow": Row(lambda: spline_flow(dim=2, bound=3.0), 3e-3),
    "maf of splines": Row(lambda: maf(dim=2, layers=3, transform=RationalQuadratic(bound=3.0)), 3e-3),
    "residual_flow": Row(lambda: residual_flow(dim=2), 1e-2),
}


def measure(name: str, target: str, seed: int) -> dict[str, object]:
    """Train one row on one target and judge it."""
    data, row = TARGETS[target], ROWS[name]
    generator = torch.Generator().manual_seed(1234)
    fresh, sample = (data.sample(POINTS, generator=generator) for _ in range(2))
    torch.manual_seed(seed)
    made = row.make()
    flow = made.after(Standardize.fit(sample))
    flow(sample[:BATCH])  # what a layer takes from its first batch is taken before the clock starts
    (kept,) = train(
        mean_nll(flow.log_prob), flow, lambda: data.sample(BATCH), SECONDS, SECONDS, row.rate, fused=True
    )
    judged = kept.module.eval()
    with torch.no_grad():
        log_prob = judged.log_prob(fresh)
        start = time.perf_counter()
        judged.sample(POINTS)
        sampling = time.perf_counter() - start
        total = mass(judged.log_prob, ((-BOX, BOX), (-BOX, BOX)), CELLS)
        picture = shades(data, judged) if seed == SEEDS[0] else None
    return {
        "target": target,
        "row": name,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "nll": list(nll(log_prob)),
        "gap": list(paired_gap(data.log_prob(fresh), log_prob)),
        "mass": total,
        "parameters": sum(p.numel() for p in made.parameters()),
        "seconds": kept.seconds,
        "steps": kept.steps,
        "sampling": sampling,
        **({"picture": picture} if picture else {}),
    }


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
    runs = [
        (name, target, seed)
        for name in asked.rows or ROWS
        for target in asked.targets
        for seed in asked.seeds
    ]
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed({pool.submit(measure, *run): None for run in runs}):
            keep(done.result())


def keep(run: dict[str, object]) -> None:
    """Put one run in the place of the same one among those that are there."""
    same = ("target", "row", "seed")
    old = json.loads(RESULT.read_text())["runs"] if RESULT.exists() else []
    others = [other for other in old if any(other[k] != run[k] for k in same)]
    order = [list(TARGETS), list(ROWS), list(SEEDS)]
    runs = sorted([*others, run], key=lambda r: [names.index(r[k]) for names, k in zip(order, same)])
    record("one_target", {"entropy": {name: data.entropy for name, data in TARGETS.items()}, "runs": runs})
    shown = [run[k] for k in (*same, "nll", "gap", "mass", "steps", "sampling")]
    print(*(f"{v:.4f}" if isinstance(v, float) else v for v in shown), flush=True)


if __name__ == "__main__":
    main()
