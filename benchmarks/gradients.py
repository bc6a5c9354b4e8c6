"""What the gradient of a solve costs: backpropagation through the steps, a checkpoint at each step, or the adjoint.

    python benchmarks/gradients.py

The net is that of benchmarks/continuous.py on 512 points, with the exact trace in D = 2 and one Rademacher probe, the
same for every row, in D = 64; the learning rate is 0. First table: time of a training step (median with quartiles,
rows taking turns, ratio to backpropagation through the same steps), evaluations forward and backward, and the
relative error |g - g*| / |g*| of the gradient of all weights against g* by float64 at tolerance 1e-10. Fixed steps
and adaptive ones are different solves: compare errors before times.

Second table: peak memory of one training step, above weights and batch, when the solve takes about 10, 30 and 100
steps. So many steps are asked of Fixed(); for the adaptive solves the net is multiplied by cos(w t) and w is chosen.
Memory is counted at each operation, as the bytes of all tensors alive; what a kernel needs inside is not in it.

The tables are also written to benchmarks/results/gradients.json.
"""

import copy
import math
from collections.abc import Callable

import torch
from harness import BATCH, TOLERANCE, Live, field, machine, measure, quartiles, record
from torch import Tensor, nn

from cnflib.continuous import CNF, Divergence, Exact, Hutchinson, Rademacher, Solution
from cnflib.ode import Adaptive, Fixed, Solver, dopri8

ROUNDS, STEPS, LENGTHS = 11, 8, (10, 30, 100)
BACKPROP = {"fixed rk4, checkpointed": "fixed rk4, backprop", "dopri5, adjoint": "dopri5, backprop"}


class Swinging(nn.Module):
    """The field cos(w t) f(t, x): the larger w, the more steps an adaptive solver takes."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        super().__init__()
        self.net, self.rate = net, rate

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.cos(self.rate * t) * self.net(t, x, context)

    def jvp(self, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        velocity, products = self.net.jvp(t, x, context, directions)
        return torch.cos(self.rate * t) * velocity, torch.cos(self.rate * t) * products


def problem(dim: int) -> tuple[Tensor, Divergence]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, dim, generator=generator)
    if dim == 2:
        return x, Exact()
    eta = Rademacher()((1, *x.shape), x, generator)
    return x, Hutchinson(lambda shape, like, generator: eta.to(like))


def solvers(steps: int) -> dict[str, Solver]:
    return {
        "fixed rk4, backprop": Fixed(steps),
        "fixed rk4, checkpointed": Fixed(steps, checkpoint=True),
        "dopri5, backprop": Adaptive(rtol=TOLERANCE, atol=TOLERANCE),
        "dopri5, adjoint": Adaptive(rtol=TOLERANCE, atol=TOLERANCE, adjoint=True),
    }


def backward(flow: CNF, x: Tensor) -> Solution:
    """The gradient of the mean negative log-likelihood, left in the weights."""
    solution = flow.solve(x, 1.0, 0.0)
    log_base = -0.5 * (solution.x.square().sum(1) + x.shape[1] * math.log(2 * math.pi))
    (-(log_base + solution.logdet).mean()).backward()
    return solution


def training_step(flow: CNF, x: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        backward(flow, x)
        optimizer.step()

    return step


# Time, evaluations, error


def gradient(flow: CNF, x: Tensor) -> tuple[Tensor, Solution]:
    flow.zero_grad()
    solution = backward(flow, x)
    return torch.cat([p.grad.flatten() for p in flow.parameters()]).double(), solution


def exact_gradient(dim: int, x: Tensor, divergence: Divergence, adjoint: bool) -> Tensor:
    """Float64, tolerance 1e-10."""
    solver = Adaptive(dopri8, rtol=1e-10, atol=1e-10, adjoint=adjoint)
    flow = CNF(field(dim).double(), divergence, solver)
    return gradient(flow, x.double())[0]


def costs(dim: int) -> tuple[list[dict[str, object]], float]:
    """A row for each solver, and how far backpropagation and the adjoint are apart in float64 at tolerance 1e-10."""
    x, divergence = problem(dim)
    flows = {name: CNF(field(dim), divergence, solver) for name, solver in solvers(STEPS).items()}
    truth, other = (exact_gradient(dim, x, divergence, adjoint) for adjoint in (False, True))
    times = measure({name: training_step(flow, x) for name, flow in flows.items()}, ROUNDS)
    rows = []
    for name, flow in flows.items():
        g, solution = gradient(flow, x)
        reference = times[BACKPROP.get(name, name)].median()
        row = {
            "gradient": name,
            "ms": quartiles(times[name]),
            "ratio": (times[name].median() / reference).item(),
            "nfe": [solution.nfe, solution.backward.nfe],
            "accepted": [solution.accepted, solution.backward.accepted],
            "error": ((g - truth).norm() / truth.norm()).item(),
        }
        rows.append(row)
    return rows, ((other - truth).norm() / truth.norm()).item()


# Memory


def swinging(dim: int, steps: int, x: Tensor, divergence: Divergence) -> Swinging:
    """A field on which the adaptive solve takes about as many steps."""
    rate = float(steps)
    for _ in range(3):
        swung = Swinging(field(dim), rate)
        with torch.no_grad():
            taken = (
                CNF(swung, divergence, Adaptive(rtol=TOLERANCE, atol=TOLERANCE)).solve(x, 1.0, 0.0).accepted
            )
        rate *= steps / taken
    return swung


def peak(flow: CNF, x: Tensor) -> tuple[float, int]:
    """Peak memory in MiB of one training step from empty gradients, and the steps forward."""
    flow = copy.deepcopy(flow)
    with Live([x, *flow.parameters(), *flow.buffers()]) as memory:
        solution = backward(flow, x)
    return memory.peak / 2**20, solution.accepted


def memory(dim: int) -> list[dict[str, object]]:
    x, divergence = problem(dim)
    rows: dict[str, dict[str, object]] = {}
    for steps in LENGTHS:
        swung = swinging(dim, steps, x, divergence)
        for name, solver in solvers(steps).items():
            mib, taken = peak(CNF(swung, divergence, solver), x)
            row = rows.setdefault(name, {"gradient": name, "steps": [], "MiB": []})
            row["steps"].append(taken)
            row["MiB"].append(mib)
    return list(rows.values())


# Tables


def show_costs(title: str, rows: list[dict[str, object]], apart: float) -> None:
    print(f"\n{title}: one training step ({STEPS} fixed steps, tolerance {TOLERANCE:g})")
    print(
        f"{'':<26}{'ms':>24}{'ratio':>7}{'NFE':>6}{'backward':>10}{'steps':>7}{'backward':>10}{'error of gradient':>19}"
    )
    for row in rows:
        middle, low, high = row["ms"]
        spread = f"{middle:.0f} ({low:.0f}-{high:.0f})"
        (nfe, nfe_back), (steps, steps_back) = row["nfe"], row["accepted"]
        work = f"{nfe:>6}{nfe_back:>10}{steps:>7}{steps_back:>10}"
        print(f"{row['gradient']:<26}{spread:>24}{row['ratio']:7.2f}{work}{row['error']:19.1e}")
    print(f"In float64 at tolerance 1e-10 the adjoint is {apart:.1e} from backpropagation.")


def show_memory(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}: peak memory of a training step, MiB (steps forward)")
    for row in rows:
        cells = (f"{mib:.1f} ({steps})" for mib, steps in zip(row["MiB"], row["steps"], strict=True))
        print(f"{row['gradient']:<26}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    torch.set_num_threads(1)  # nets this small gain nothing from more, and one is easier to compare
    here = machine()
    print(f"{here['cpu']}, one thread, torch {here['torch']}, float32, MLP 3 x 64, batch {BATCH}")
    tables: dict[str, list[object]] = {"cost": [], "memory": []}
    for dim, title in ((2, "D = 2, exact trace"), (64, "D = 64, Hutchinson's estimate")):
        rows, apart = costs(dim)
        show_costs(title, rows, apart)
        held = memory(dim)
        show_memory(title, held)
        tables["cost"].append({"title": title, "rows": rows, "float64 adjoint from backprop": apart})
        tables["memory"].append({"title": title, "rows": held})
    record("gradients", tables)


if __name__ == "__main__":
    main()
