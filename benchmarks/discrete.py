"""Time and memory of discrete flows, cnflib beside zuko, nflows and normflows.

    python benchmarks/discrete.py

RealNVP of 8 affine couplings, MAF of 5 affine layers, and a spline flow of 4 rational-quadratic couplings with 8 bins
on [-5, 5]; couplings by halves, all nets of two hidden layers of 64 with ReLU, in 2, 16 and 64 dimensions. Such flows
have the same number of parameters in every library, and get the same random numbers for their weights. They are no
identical maps: each library bounds the scale of an affine layer in its own way, and orders its parameters in its own
way. So every flow is checked first: its inverse, its log p against autograd's Jacobian, in two dimensions its mass.

Training step (a step of Adam at a learning rate of 0, so that every step meets the same flow) and log_prob take 512
points, sampling draws 4,096. Libraries take turns, round after round. A time is a median with its quartiles, a ratio
below 1 is faster than the fastest peer. Memory is the peak of live tensors in a training step.

All is written to benchmarks/results/discrete.json. Peers that are not installed are left out, which is said.
"""

import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import torch
from harness import (
    BATCH,
    BINS,
    BOX,
    COUPLINGS,
    HIDDEN,
    MASKED,
    SPLINES,
    Live,
    machine,
    measure,
    quartiles,
    record,
    training_step,
)
from peers import log_normal
from peers.discrete import Discrete, Nflows, Normflows, Zuko
from torch import Tensor, nn

from cnflib.metrics import mass
from cnflib.models import maf, realnvp, spline_flow

SAMPLES, SECONDS, ROUNDS = (
    4096,
    8.0,
    (7, 61),
)  # of a cell, after which rounds end; the fewest and the most of them
KINDS = {"realnvp": "RealNVP", "maf": "MAF", "spline": "spline flow"}
DIMS = (2, 16, 64)
ACTS = ("training", "log_prob", "sampling")
PEERS = {"zuko": Zuko, "nflows": Nflows, "normflows": Normflows}
Row = dict[str, object]


class Ours(Discrete):
    """cnflib."""

    def realnvp(self, dim: int) -> nn.Module:
        return realnvp(dim, layers=COUPLINGS, hidden=HIDDEN)

    def maf(self, dim: int) -> nn.Module:
        return maf(dim, layers=MASKED, hidden=HIDDEN)

    def spline(self, dim: int) -> nn.Module:
        return spline_flow(dim, layers=SPLINES, hidden=HIDDEN, bins=BINS, bound=BOX)

    def encode(self, x: Tensor) -> Tensor:
        return self.flow.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.flow.decode(z)


def contestants() -> dict[str, type[Discrete]]:
    """cnflib, and the peers that can be imported here."""
    found = {name: peer for name, peer in PEERS.items() if importlib.util.find_spec(name)}
    for name in set(PEERS) - set(found):
        print(f"{name} is left out: it is not installed. Install the extra 'bench'.")
    return {"cnflib": Ours, **found}


def flows(kind: str, dim: int) -> dict[str, Discrete]:
    return {name: perturbed(make(kind, dim)) for name, make in contestants().items()}


@torch.no_grad()
def perturbed(model: Discrete) -> Discrete:
    """The same random weights for all, somewhat smaller than usual initial ones, none of them zero."""
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.normal_(0, 0.5 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.1, generator=generator)
    return model


def points(dim: int, n: int = BATCH) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(1))


# Whether a flow is right


def check(kind: str, dim: int) -> list[Row]:
    """In float64: the largest error of the inverse and of log p against autograd's Jacobian, and the mass in 2-D."""
    x, rows = points(dim, 4).double(), []
    for name, model in flows(kind, dim).items():
        model = model.double()
        with torch.no_grad():
            inverse = (model.decode(model.encode(x)) - x).abs().max().item()
            log_prob = model.log_prob(x)
        truth = log_normal(model.encode(x)) + log_det(model, x)
        row = {"row": name, "inverse": inverse, "log_prob": (log_prob - truth).abs().max().item()}
        if dim == 2:
            with torch.no_grad():
                side = 6 * model.decode(points(2, SAMPLES).double()).std().item()
                row["mass"] = mass(model.log_prob, ((-side, side),) * 2, dtype=torch.float64)
        if max(inverse, row["log_prob"]) > 1e-6 or abs(row.get("mass", 1) - 1) > 1e-3:
            raise SystemExit(f"{kind} of {name} in {dim} dimensions is wrong, nothing was measured: {row}")
        rows.append(row)
    return rows


def log_det(model: Discrete, x: Tensor) -> Tensor:
    """log|det| of the map from data to base, by autograd's Jacobian."""
    jacobian = torch.autograd.functional.jacobian
    rows = [jacobian(lambda point: model.encode(point[None])[0], point) for point in x]
    return torch.linalg.slogdet(torch.stack(rows))[1]


# Time and memory


def table(kind: str, dim: int) -> list[Row]:
    """A row for each library: parameters, ms of each act with its ratio to the fastest peer, MiB."""
    x, models = points(dim), flows(kind, dim)
    calls = {
        "training": {name: training_step(model, x) for name, model in models.items()},
        "log_prob": {name: evaluation(model, x) for name, model in models.items()},
        "sampling": {name: (lambda m=model: m.sample(SAMPLES)) for name, model in models.items()},
    }
    rows = {name: {"row": name, "parameters": count(model)} for name, model in models.items()}
    for act, some in calls.items():
        times = measure(some, rounds(some))
        spreads = {name: quartiles(t) for name, t in times.items()}
        best = min(spread[0] for name, spread in spreads.items() if name != "cnflib")
        for name, spread in spreads.items():
            rows[name][act] = {"ms": spread, "ratio": spread[0] / best, "rounds": len(times[name])}
    for name, model in models.items():
        rows[name]["MiB"] = memory(model, x)
    return list(rows.values())


def evaluation(model: Discrete, x: Tensor) -> Callable[[], None]:
    def evaluate() -> None:
        with torch.no_grad():
            model.log_prob(x)

    return evaluate


def rounds(calls: dict[str, Callable[[], None]]) -> int:
    """As many as the seconds of a cell allow."""
    for call in calls.values():
        call()
    start = time.perf_counter()
    for call in calls.values():
        call()
    least, most = ROUNDS
    return min(max(int(SECONDS / (time.perf_counter() - start)), least), most)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def memory(model: Discrete, x: Tensor) -> float:
    """MiB of live tensors at the peak of a training step, above weights and batch."""
    model.zero_grad()
    with Live([x, *model.parameters(), *model.buffers()]) as live:
        (-model.log_prob(x).mean()).backward()
    return live.peak / 2**20


# What it comes to


def summary(cases: list[Row]) -> Row:
    """Geometric means of the ratios of cnflib to the fastest peer, the worst, and where it is slower."""
    ratios = {
        (case["title"], act): row[act]["ratio"]
        for case in cases
        for row in case["rows"]
        for act in ACTS
        if row["row"] == "cnflib"
    }
    held = []
    for case in cases:
        size = {row["row"]: row["MiB"] for row in case["rows"]}
        held.append(size.pop("cnflib") / min(size.values()))
    return {
        "mean": geometric(ratios.values()),
        **{act: geometric(r for (_, a), r in ratios.items() if a == act) for act in ACTS},
        "worst": max(ratios.values()),
        "losing": [[*where, ratio] for where, ratio in ratios.items() if ratio > 1],
        "memory": {"mean": geometric(held), "worst": max(held)},
    }


def geometric(ratios: object) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}: ms, median (quartiles), ratio to the fastest peer")
    print(f"{'':<12}{'parameters':>10}" + "".join(f"{act:>32}" for act in ACTS) + f"{'MiB':>8}")
    for row in rows:
        cells = "".join(cell(row[act]) for act in ACTS)
        print(f"{row['row']:<12}{row['parameters']:>10}{cells}{row['MiB']:8.2f}", flush=True)


def cell(found: Row) -> str:
    middle, low, high = found["ms"]
    return f"{f'{middle:.2f} ({low:.2f}-{high:.2f})':>26}{found['ratio']:6.2f}"


def main() -> None:
    warnings.filterwarnings("ignore", message="Inputs to the softmax are not scaled down")
    here = machine()
    installed = {name: version(name) for name in PEERS if importlib.util.find_spec(name)}
    print(f"{here['cpu']}, {here['threads']} threads, torch {here['torch']}, {installed}, float32")
    checks, cases = [], []
    for kind, name in KINDS.items():
        for dim in DIMS:
            checks.append({"title": f"{name}, D = {dim}", "rows": check(kind, dim)})
    for case in checks:
        print(case["title"], *case["rows"], sep="\n   ")
    for kind, name in KINDS.items():
        for dim in DIMS:
            cases.append({"title": f"{name}, D = {dim}", "rows": table(kind, dim)})
            show(**cases[-1])
    found = summary(cases)
    print("\n", found)
    record("discrete", {"packages": installed, "check": checks, "cost": cases, "summary": found})


if __name__ == "__main__":
    main()
