"""How straight the paths of a learned flow are: independent pairs beside minibatch optimal transport.

    python benchmarks/path_energy.py [--steps 5000] [--seeds 0 1 2 3 4] [--points 4096] [--threads 1] [--quick]

Three pairs of ends: a standard normal to eight Gaussians, moons to eight Gaussians, a standard normal to moons. The
net, its training and the two numbers are those of Tong et al. (2023, arXiv:2302.00482), with the laws of their package:
an MLP of three hidden layers of 64 with SELU, AdamW at 1e-3, batches of 512 out of 10,000 points of each end, the
linear path with constant noise 0.1. They train 1,000 epochs, which are about 20,000 steps.

The normalised path energy is |E - W| / W, with E the mean of the integral of |v|^2 along the paths that start at fresh
points of the first end, and W the squared 2-Wasserstein distance of the two ends. The other number is the same squared
distance between the ends of these paths and fresh points of the second end. Both distances are those of samples, by an
exact assignment of as many points as --points says; it is not 0 between two samples of one law, and how much that is,
is written too.

A run that is in benchmarks/results/path_energy.json with the same budget is not measured again.
"""

import argparse
import math
import time
from functools import cache

import torch
from harness import keep, machine, missing
from torch import Generator, Tensor, nn

from cnflib.continuous import CNF, KineticEnergy
from cnflib.interpolants import Constant, IndependentPairing, Linear, OptimalTransport, velocity_loss
from cnflib.nets import MLP
from cnflib.ode import Adaptive

NAME, SAME = "path_energy", ("problem", "pairing", "seed")
BATCH, DATA, RATE, SIGMA, TOLERANCE = 512, 10_000, 1e-3, 0.1, 1e-5
PAIRINGS = {"independent": IndependentPairing(), "optimal transport": OptimalTransport()}


def normal(n: int, generator: Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def eight_gaussians(n: int, generator: Generator) -> Tensor:
    """Centres on a circle of radius 5; their covariance is sqrt(0.1) I, not 0.1 I, as in the package."""
    angle = math.pi / 4 * torch.randint(8, (n,), generator=generator)
    centre = 5 * torch.stack([angle.cos(), angle.sin()], 1)
    return centre + 0.1**0.25 * torch.randn(n, 2, generator=generator)


def moons(n: int, generator: Generator) -> Tensor:
    """3 x - 1 of two half circles, moved along the diagonal by a uniform number below 0.2, as in the package."""
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.rand(n, generator=generator) < 0.5
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.where(upper[:, None], arc, torch.tensor([1.0, 0.5]) - arc)
    return 3 * (x + 0.2 * torch.rand(n, 1, generator=generator)) - 1


PROBLEMS = {
    "N to eight_gaussians": (normal, eight_gaussians),
    "moons to eight_gaussians": (moons, eight_gaussians),
    "N to moons": (normal, moons),
}


def squared_distance(x: Tensor, y: Tensor) -> float:
    """The squared 2-Wasserstein distance of two samples of one size."""
    x, y = OptimalTransport()(x.double(), y.double())
    return (y - x).square().sum(1).mean().item()


@cache
def distances(problem: str, points: int) -> tuple[float, float]:
    """That of the ends, and that of two samples of the second end."""
    generator = torch.Generator().manual_seed(1234)
    x0, x1, other = (draw(points, generator) for draw in (*PROBLEMS[problem], PROBLEMS[problem][1]))
    return squared_distance(x0, x1), squared_distance(x1, other)


def trained(problem: str, pairing: str, seed: int, steps: int) -> MLP:
    """The field after so many steps."""
    torch.manual_seed(seed)
    ends = [draw(DATA, torch.default_generator) for draw in PROBLEMS[problem]]
    field = MLP(2, (64, 64, 64), activation=nn.SELU)
    optimizer = torch.optim.AdamW(field.parameters(), lr=RATE, fused=True)
    path = Linear(Constant(SIGMA))
    for _ in range(steps):
        pairs = PAIRINGS[pairing](*(end[torch.randint(DATA, (BATCH,))] for end in ends))
        optimizer.zero_grad()
        velocity_loss(field, path, *pairs).mean().backward()
        optimizer.step()
    return field.eval()


@torch.no_grad()
def judge(field: MLP, problem: str, points: int) -> dict[str, float]:
    """Path energy from fresh points of the first end, and how far its ends are from the second."""
    x0, x1 = (draw(points, torch.Generator().manual_seed(k)) for k, draw in enumerate(PROBLEMS[problem]))
    solver = Adaptive(rtol=TOLERANCE, atol=TOLERANCE)
    solution = CNF(field, solver=solver, costs=(KineticEnergy(),)).solve(x0, 0.0, 1.0)
    between, within = distances(problem, points)
    energy = solution.costs[0].mean().item()
    return {
        "energy": energy,
        "W2^2 of the ends": between,
        "W2^2 of two samples": within,
        "NPE": abs(energy - between) / between,
        "W2^2": squared_distance(solution.x, x1),
        "nfe": solution.nfe,
    }


def measure(problem: str, pairing: str, seed: int, steps: int, points: int) -> dict[str, object]:
    start = time.perf_counter()
    field = trained(problem, pairing, seed, steps)
    seconds = time.perf_counter() - start
    budget = {"steps": steps, "points": points, "threads": torch.get_num_threads()}
    key = {"problem": problem, "pairing": pairing, "seed": seed}
    return {**key, **budget, "seconds": seconds, **judge(field, problem, points)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5_000, help="theirs are about 20,000")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--points", type=int, default=4096, help="of each end, for the distances")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="20 steps, 256 points: does it run")
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.points = 20, 256
    torch.set_num_threads(asked.threads)
    print(machine())
    wanted = [
        (problem, pairing, seed) for seed in asked.seeds for problem in PROBLEMS for pairing in PAIRINGS
    ]
    budget = {"steps": asked.steps, "points": asked.points, "threads": asked.threads}
    for key in missing(NAME, wanted, SAME, budget):
        run = measure(*key, asked.steps, asked.points)
        keep(NAME, run, SAME)
        print(*(f"{v:.4f}" if isinstance(v, float) else v for v in run.values()), flush=True)


if __name__ == "__main__":
    main()
