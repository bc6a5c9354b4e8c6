"""Time of minibatch optimal transport, cnflib beside torchcfm, POT and other exact solvers.

    python benchmarks/pairing.py

Pairs between N(0, I) and data, in 2 and in 64 dimensions, of 128 to 2,048 points, float32: a ring of eight Gaussians
of radius 5 and deviation 1/2 in the first two coordinates. A call takes two batches and gives two batches of pairs, as
in training; what only solves an assignment gets the float64 cost matrix computed in the same call. The rows:

- cnflib: OptimalTransport(), an assignment by SciPy after prices are subtracted
- torchcfm: OTPlanSampler("exact").sample_plan, which draws B pairs from POT's plan with replacement
- POT: ot.emd with enough iterations, pairs read off the plan
- SciPy: linear_sum_assignment without the prices
- lapx: its lapjvc, the fastest of its solvers here

Before any time the mean cost of each is compared with POT's exact solver. Pairs drawn with replacement have no exact
cost, and torchcfm stops POT after its default number of iterations, so of torchcfm the cost of the plan is compared.
Libraries take turns, round after round. A time is a median with its quartiles; a ratio below 1 is faster than torchcfm.

All is written to benchmarks/results/pairing.json. Peers that are not installed are left out, which is said.
"""

import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from harness import machine, measure, quartiles, record
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cnflib.interpolants import OptimalTransport

SIZES, DIMS = (128, 256, 512, 1024, 2048), (2, 64)
SECONDS, ROUNDS = 12.0, (5, 41)  # of a cell, after which rounds end; the fewest and the most of them
PEERS = {"torchcfm": "torchcfm", "ot": "POT", "lap": "lapx"}  # by module
ENOUGH = 10**9  # iterations of POT's solver
Row = dict[str, object]
Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def ends(n: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + dim)
    x0, x1 = torch.randn(2, n, dim, generator=generator)
    angle = torch.randint(8, (n,), generator=generator) * math.pi / 4
    x1 = x1 / 2
    x1[:, :2] += 5 * torch.stack([angle.cos(), angle.sin()], 1)
    return x0, x1


def squared_distance(x0: Tensor, x1: Tensor) -> Tensor:
    return torch.cdist(x0.double(), x1.double()).square()


def contestants() -> dict[str, Pair]:
    """cnflib, and the peers that can be imported here."""
    found: dict[str, Pair] = {"cnflib": OptimalTransport()}
    if importlib.util.find_spec("torchcfm"):
        from torchcfm.optimal_transport import OTPlanSampler

        found["torchcfm"] = OTPlanSampler("exact").sample_plan
    if importlib.util.find_spec("ot"):
        found["POT"] = lambda x0, x1: (x0, x1[emd(squared_distance(x0, x1)).argmax(1)])
    found["SciPy"] = lambda x0, x1: (x0, x1[linear_sum_assignment(squared_distance(x0, x1).numpy())[1]])
    if importlib.util.find_spec("lap"):
        from lap import lapjvc

        found["lapx"] = lambda x0, x1: (
            x0,
            x1[lapjvc(squared_distance(x0, x1).numpy(), return_cost=False)[1]],
        )
    return found


def emd(cost: Tensor) -> Tensor:
    import ot

    mass = ot.unif(len(cost))
    return torch.from_numpy(ot.emd(mass, mass, cost.numpy(), numItermax=ENOUGH))


# Whether a pairing is optimal


def check(n: int, dim: int) -> list[Row]:
    """The mean cost of each relative to POT's exact one, less 1."""
    x0, x1 = ends(n, dim)
    matrix = squared_distance(x0, x1)
    truth = (emd(matrix) * matrix).sum() if importlib.util.find_spec("ot") else None
    rows = []
    for name, pair in contestants().items():
        if name == "torchcfm":
            plan = torch.from_numpy(pair.__self__.get_map(x0, x1)).double()
            cost, mass = (plan * matrix).sum(), plan.sum().item()
        else:
            y0, y1 = (y.double() for y in pair(x0, x1))
            cost, mass = (y1 - y0).square().sum(1).mean(), 1.0
        truth = cost if truth is None else truth
        rows.append({"row": name, "excess": (cost / truth - 1).item(), "mass": mass})
        if name != "torchcfm" and abs(rows[-1]["excess"]) > 1e-6:
            raise SystemExit(f"{name} is not optimal at {n} points in {dim} dimensions: {rows[-1]}")
    return rows


# Time


def table(n: int, dim: int) -> list[Row]:
    """A row for each: ms with quartiles, the ratio to torchcfm, the excess of its cost."""
    x0, x1 = ends(n, dim)
    calls = {name: (lambda pair=pair: pair(x0, x1)) for name, pair in contestants().items()}
    times = measure(calls, rounds(calls))
    spreads = {name: quartiles(t) for name, t in times.items()}
    reference = spreads.get("torchcfm", spreads["cnflib"])[0]
    return [
        {
            **row,
            "ms": spreads[row["row"]],
            "ratio": spreads[row["row"]][0] / reference,
            "rounds": len(times["cnflib"]),
        }
        for row in check(n, dim)
    ]


def rounds(calls: dict[str, Callable[[], object]]) -> int:
    """As many as the seconds of a cell allow."""
    start = time.perf_counter()
    for call in calls.values():
        call()
    least, most = ROUNDS
    return min(max(int(SECONDS / (time.perf_counter() - start)), least), most)


def summary(cases: list[Row]) -> Row:
    """Geometric mean and worst of the ratios of cnflib to each of the others, and where it is slower than these."""
    found: Row = {}
    for peer in ("torchcfm", "POT", "SciPy", "lapx"):
        ratios = {}
        for case in cases:
            ms = {row["row"]: row["ms"][0] for row in case["rows"]}
            if peer in ms:
                ratios[case["title"]] = ms["cnflib"] / ms[peer]
        if ratios:
            found[peer] = {
                "mean": math.exp(sum(map(math.log, ratios.values())) / len(ratios)),
                "worst": max(ratios.values()),
                "losing": [[title, ratio] for title, ratio in ratios.items() if ratio > 1],
            }
    return found


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}: ms, median (quartiles), ratio to torchcfm, excess cost")
    for row in rows:
        middle, low, high = row["ms"]
        spread = f"{middle:.2f} ({low:.2f}-{high:.2f})"
        print(f"{row['row']:<12}{spread:>30}{row['ratio']:8.2f}{row['excess']:12.1e}", flush=True)


def main() -> None:
    warnings.filterwarnings("ignore", message="numItermax reached before optimality")
    here = machine()
    installed = {name: version(name) for module, name in PEERS.items() if importlib.util.find_spec(module)}
    installed["scipy"] = version("scipy")
    for name in set(PEERS.values()) - set(installed):
        print(f"{name} is left out: it is not installed. Install the extra 'bench'.")
    print(f"{here['cpu']}, {here['threads']} threads, torch {here['torch']}, {installed}, float32")
    cases = []
    for dim in DIMS:
        for n in SIZES:
            cases.append({"title": f"{n:,} points, D = {dim}", "rows": table(n, dim)})
            show(**cases[-1])
    found = summary(cases)
    print("\n", found)
    record("pairing", {"packages": installed, "cost": cases, "summary": found})


if __name__ == "__main__":
    main()
