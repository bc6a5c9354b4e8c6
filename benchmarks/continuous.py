"""Time of one continuous flow, cnflib beside the other libraries that solve one.

    python benchmarks/continuous.py

Every row takes the same MLP of three hidden layers of 64 with tanh, x and t in, the same weights and the same 512
points (4,096 for sampling), dopri5 at tolerance 1e-5. Initial weights are doubled, so that the field bends about as
much as a trained one; the learning rate is 0, so that every step meets the same field. Rows take turns, round after
round. A time is a median with its quartiles, a ratio below 1 is faster than the fastest eager peer. A time without its
error says nothing: the last column is the largest error of log p against float64 at tolerance 1e-10, with the same
probe where the trace is estimated. Equal tolerances are not equal errors; the second part goes through tolerances.

Then: a training step of ffjord(dim=64) as it comes, with no other argument, beside FFJORD by hand; peak memory of a
training step; what steps of its own for every row cost; how times grow with dimension, batch, evaluations and width.
The share of the machine's rate is that of the matrix products alone, by a count of their floating-point operations,
over the rate of one product of 1,024 x 1,024 matrices measured in the same run.

All is written to benchmarks/results/continuous.json. Peers that are not installed are left out, which is said.
"""

import importlib
import math
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version

import numpy as np
import torch
from harness import BATCH, TOLERANCE, Live, field, machine, measure, quartiles, record, training_step
from peers import ByHand, ByHandAdjoint, FlowMatching, Peer, Probe, Torchdyn, Zuko
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, Exact, Hutchinson
from cnflib.models import ffjord, realnvp
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, Solver, dopri5

SAMPLES, ROUNDS, SEED = 4096, 15, 5
CASES = ((2, "D = 2, exact trace"), (64, "D = 64, Hutchinson's estimate"))
PACKAGES = ("torchdiffeq", "zuko", "torchdyn", "flow_matching", "diffrax", "jax")
Row = dict[str, object]


class Ours(Peer):
    """cnflib with one of its solvers."""

    def __init__(self, mlp: MLP, probe: Probe, solver: Solver) -> None:
        super().__init__(mlp, probe)
        noise = lambda shape, like, generator: probe(like[: shape[1]]).reshape(shape)  # noqa: E731
        self.net = mlp
        self.flow = Flow(
            CNF(mlp, Hutchinson(noise) if probe else Exact(), solver), StandardNormal(mlp.shape[0])
        )

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    @torch.no_grad()
    def sample(self, z: Tensor) -> Tensor:
        return self.flow.bijection.decode(z)

    def evaluations(self, x: Tensor) -> int:
        with torch.no_grad():
            return self.flow.bijection.solve(x, 1.0, 0.0).nfe


class Compiled(Ours):
    """cnflib with fixed steps, the whole of log_prob compiled."""

    def __init__(self, mlp: MLP, probe: Probe, solver: Solver) -> None:
        super().__init__(mlp, probe, solver)
        self.log_prob = torch.compile(self.flow.log_prob, fullgraph=True, dynamic=False)


class Coupling(Peer):
    """A RealNVP of cnflib, for scale: no solve at all."""

    def __init__(self, mlp: MLP, probe: Probe) -> None:
        super().__init__(mlp, None)
        self.flow = realnvp(dim=mlp.shape[0])
        self.net = self.flow

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    @torch.no_grad()
    def sample(self, z: Tensor) -> Tensor:
        return self.flow.bijection.decode(z)

    def evaluations(self, x: Tensor) -> None:
        return None


def signs(x: Tensor) -> Tensor:
    """A Rademacher probe, drawn as flow_matching draws its own, so that one seed gives all rows the same."""
    return ((torch.randn_like(x) < 0) * 2.0 - 1.0).to(x)


def seeded(x: Tensor, draw: Callable[[Tensor], Tensor] = signs) -> Tensor:
    """The same probe each time, also in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return draw(x.float()).to(x)


def ours(tolerance: float = TOLERANCE) -> dict[str, Callable[..., Peer]]:
    tolerances = {"rtol": tolerance, "atol": tolerance}
    return {
        "cnflib": lambda mlp, probe: Ours(mlp, probe, Adaptive(**tolerances)),
        "cnflib, compiled steps": lambda mlp, probe: Ours(mlp, probe, Adaptive(**tolerances, compiled=True)),
    }


def peers() -> dict[str, Callable[..., Peer]]:
    """The rows of other libraries that can be imported here."""
    rows = {
        "torchdiffeq by hand": (ByHand, "torchdiffeq"),
        "torchdiffeq by hand, adjoint": (ByHandAdjoint, "torchdiffeq"),
        "zuko": (Zuko, "zuko.transforms"),
        "torchdyn": (Torchdyn, "torchdyn.core"),
        "flow_matching": (FlowMatching, "flow_matching.solver"),
        "diffrax, jitted": (None, "peers.in_jax"),
    }
    found = {}
    for name, (row, module) in rows.items():
        try:
            found[name] = row or importlib.import_module(module).Diffrax
            importlib.import_module(module)
        except (ImportError, RuntimeError) as error:
            found.pop(name, None)
            print(f"{name} is left out: {error}. Install the extra 'bench'.")
    return found


def contestants() -> dict[str, Callable[..., Peer]]:
    return {
        **ours(),
        "cnflib, compiled whole, 3 fixed steps": lambda mlp, probe: Compiled(mlp, probe, Fixed(3, dopri5)),
        **peers(),
    }


EAGER = ("torchdiffeq by hand", "torchdiffeq by hand, adjoint", "zuko", "torchdyn", "flow_matching")


# Time and error at one tolerance


def evaluation(row: Peer, x: Tensor) -> Callable[[], None]:
    def evaluate() -> None:
        with torch.no_grad():
            row.log_prob(x)

    return evaluate


@cache
@torch.no_grad()
def reference(dim: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """log p of the points of the table in float64 at tolerance 1e-10."""
    probe = None if dim == 2 else partial(seeded, draw=draw)
    return ByHand(field(dim), probe, 1e-10).double().log_prob(points(dim).double())


@torch.no_grad()
def error(row: Peer, dim: int) -> float:
    """The largest error of log p, with the probe that the row draws."""
    x = points(dim)
    torch.manual_seed(SEED)
    if isinstance(row, Compiled):  # compiled code draws other numbers from the same seed
        value = row.flow.log_prob(x)
    elif isinstance(row, Peer):
        value = row.log_prob(x)
    else:
        value = row.log_prob(x, seeded(x))
    truth = reference(dim, torch.randn_like if isinstance(row, Zuko) else signs)
    return (value.double() - truth).abs().max().item()


def points(dim: int) -> Tensor:
    return torch.randn(BATCH, dim, generator=torch.Generator().manual_seed(0))


def table(dim: int) -> list[Row]:
    """A row for each library: training step, log_prob and sampling in ms, evaluations, error, compile time."""
    x, z = points(dim), torch.randn(SAMPLES, dim, generator=torch.Generator().manual_seed(1))
    models = {name: make(field(dim), None if dim == 2 else signs) for name, make in contestants().items()}
    models["RealNVP of cnflib, 8 layers"] = Coupling(field(dim), None)
    calls = {
        "training": {name: m.training_step(x) for name, m in models.items() if m.training_step},
        "log_prob": {name: evaluation(m, x) for name, m in models.items()},
        "sampling": {name: (lambda m=m: m.sample(z)) for name, m in models.items()},
    }
    rows = {name: {"row": name} for name in models}
    for name, row in rows.items():
        start = time.perf_counter()
        for kind in calls.values():
            kind.get(name, lambda: None)()
        row["first call, s"] = time.perf_counter() - start
    for kind, some in calls.items():
        times = measure(some, ROUNDS)
        best = min(times[name].median() for name in EAGER if name in times)
        for name, t in times.items():
            rows[name][kind] = {"ms": quartiles(t), "ratio": (t.median() / best).item()}
    peak = matmul_rate()
    for name, model in models.items():
        rows[name]["nfe"] = model.evaluations(x)
        rows[name]["error"] = 0.0 if isinstance(model, Coupling) else error(model, dim)
        if isinstance(model, Ours) and not isinstance(model, Compiled) and "compiled" not in name:
            share(rows, model, x, peak)
    return list(rows.values())


def share(rows: dict[str, Row], model: Ours, x: Tensor, peak: float) -> None:
    """The rate of matrix products as a share of the machine's, for both rows that take these steps."""
    for kind, call in (("training", model.training_step(x)), ("log_prob", evaluation(model, x))):
        with FlopCounterMode(display=False) as counter:
            call()
        for name in ours():
            rows[name][kind]["GFLOP/s"] = counter.get_total_flops() / rows[name][kind]["ms"][0] * 1e-6
            rows[name][kind]["share"] = rows[name][kind]["GFLOP/s"] / peak


def matmul_rate(size: int = 1024) -> float:
    """GFLOP/s of one product of two large matrices."""
    A, B = torch.randn(size, size), torch.randn(size, size)
    times = measure({"product": lambda: A @ B}, 20)["product"]
    return 2 * size**3 / times.median().item() * 1e-6


# Error against time


def precision(dim: int) -> list[Row]:
    """log_prob at several tolerances: time and error of every row."""
    x, probe, models = points(dim), None if dim == 2 else signs, {}
    for tolerance in (1e-3, 1e-4, 1e-5, 1e-6):
        for name, make in {**ours(tolerance), **peers()}.items():
            if name != "torchdiffeq by hand, adjoint":  # the same without a gradient
                row = make(field(dim), probe, tolerance) if name in EAGER or "diffrax" in name else None
                models[name, tolerance] = row or make(field(dim), probe)
    times = measure({key: evaluation(model, x) for key, model in models.items()}, ROUNDS)
    return [
        {
            "row": name,
            "tolerance": tolerance,
            "ms": times[name, tolerance].median().item(),
            "error": error(model, dim),
        }
        for (name, tolerance), model in models.items()
    ]


# As it comes


def as_it_comes(dim: int = 64) -> Row:
    """A training step of ffjord(dim) with no other argument, beside FFJORD by hand with the same weights."""
    x, mlp, flow = points(dim), field(dim), ffjord(dim=dim)
    flow.bijection.field.load_state_dict(mlp.state_dict())
    steps = {"cnflib": training_step(flow, x), "by hand": ByHand(mlp, signs).training_step(x)}
    ms = {name: quartiles(t) for name, t in measure(steps, ROUNDS).items()}
    return {"dim": dim, **ms, "ratio": ms["cnflib"][0] / ms["by hand"][0]}


# Memory, and steps of their own


def memory(dim: int) -> list[Row]:
    """MiB of live tensors at the peak of a training step, above weights and batch."""
    x = points(dim)
    found = {name: make for name, make in peers().items() if name in EAGER and name != "flow_matching"}
    found = {"cnflib": ours()["cnflib"], **found}
    found["cnflib, checkpointed, 3 fixed steps"] = lambda mlp, probe: Ours(
        mlp, probe, Fixed(3, dopri5, checkpoint=True)
    )
    rows = []
    for name, make in found.items():
        model = make(field(dim), None if dim == 2 else signs)
        with Live([x, *model.parameters(), *model.buffers()]) as live:
            (-model.log_prob(x).mean()).backward()
        rows.append({"row": name, "MiB": live.peak / 2**20})
    return rows


def own_steps(dim: int) -> Row:
    """Steps common to the batch against steps of its own for each row: time, evaluations, errors of all and alone."""
    x, probe = points(dim), None if dim == 2 else signs
    models = {
        name: Ours(field(dim), probe, Adaptive(per_row=own))
        for name, own in (("common steps", False), ("steps of its own", True))
    }
    times = measure({name: evaluation(model, x) for name, model in models.items()}, ROUNDS)
    training = measure({name: model.training_step(x) for name, model in models.items()}, ROUNDS)
    rows = {}
    for name, model in models.items():
        with torch.no_grad():
            z = model.flow.bijection.solve(x, 1.0, 0.0).x
            apart = torch.cat([model.flow.bijection.solve(x[k : k + 1], 1.0, 0.0).x for k in range(32)])
        rows[name] = {
            "log_prob": quartiles(times[name]),
            "training": quartiles(training[name]),
            "nfe": model.evaluations(x),
            "error": error(model, dim),
            "change with its batch": None if probe else (apart - z[:32]).abs().max().item(),
        }
    return rows


# Growth


class Swinging(nn.Module):
    """The field cos(w t) f(t, x): the larger w, the more evaluations."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        super().__init__()
        self.net, self.rate, self.shape = net, rate, getattr(net, "shape", None)
        self.calls = 0

    def forward(self, t: Tensor, x: Tensor, *context: object) -> Tensor:
        return torch.cos(self.rate * t) * self.net(t, x, *context)

    def jvp(self, t: Tensor, x: Tensor, context: object, directions: Tensor) -> tuple[Tensor, Tensor]:
        velocity, products = self.net.jvp(t, x, context, directions)
        return torch.cos(self.rate * t) * velocity, torch.cos(self.rate * t) * products


def growth() -> dict[str, list[Row]]:
    """Training steps with one probe: by dimension, batch, width and evaluations, ours beside the plain torchdiffeq."""
    sweeps = {
        "dimension": [(dim, BATCH, 64, None) for dim in (2, 8, 32, 128, 784)],
        "batch": [(2, batch, 64, None) for batch in (64, 512, 4096, 65536)],
        "width": [(2, BATCH, width, None) for width in (32, 64, 128, 256, 512)],
        "evaluations": [(2, BATCH, 64, rate) for rate in (0.0, 10.0, 30.0, 100.0)],
    }
    return {name: [grown(name, *sizes) for sizes in some] for name, some in sweeps.items()}


def grown(name: str, dim: int, batch: int, width: int, rate: float | None) -> Row:
    x = torch.randn(batch, dim, generator=torch.Generator().manual_seed(0))
    models = {
        "cnflib": Ours(field(dim, width), signs, Adaptive()),
        "by hand": ByHand(field(dim, width), signs),
    }
    if rate is not None:
        models["cnflib"].flow.bijection.field = Swinging(models["cnflib"].net, rate)
        models["by hand"].net = Swinging(models["by hand"].net, rate)
    rounds = 3 if batch > 10_000 else 7
    times = measure({key: model.training_step(x) for key, model in models.items()}, rounds)
    nfe = models["cnflib"].evaluations(x)
    at = {"dimension": dim, "batch": batch, "width": width, "evaluations": nfe}[name]
    return {"at": at, "nfe": nfe, **{key: quartiles(t) for key, t in times.items()}}


# Tables


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title}, tolerance {TOLERANCE:g}: ms, median (quartiles), ratio to the fastest eager peer")
    kinds = ("training", "log_prob", "sampling")
    print(
        f"{'':<40}" + "".join(f"{kind:>27}" for kind in kinds) + f"{'NFE':>6}{'error':>10}{'first call':>12}"
    )
    for row in rows:
        cells = "".join(cell(row[kind]) if kind in row else f"{'-':>27}" for kind in kinds)
        nfe = row["nfe"] or "-"
        print(f"{row['row']:<40}{cells}{nfe:>6}{row['error']:10.1e}{row['first call, s']:10.1f} s")
    for kind in kinds[:2]:
        shares = (
            f"{row['row']}: {row[kind]['GFLOP/s']:.0f} GFLOP/s, {100 * row[kind]['share']:.0f} %"
            for row in rows[:2]
        )
        print(f"matrix products, {kind}: " + "; ".join(shares))


def cell(measured: Row) -> str:
    middle, low, high = measured["ms"]
    return f"{middle:.1f} ({low:.1f}-{high:.1f})  {measured['ratio']:.2f}".rjust(27)


def at_equal_error(rows: list[Row]) -> Row:
    """log_prob of every row at the error that the jitted diffrax has at the tolerance of the table, in ms.

    Points are sorted by error; between neighbours the logarithm of the time is taken as linear in that of the error.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        curves.setdefault(row["row"], []).append((math.log(row["error"]), math.log(row["ms"])))
    wanted = next(
        (math.log(r["error"]) for r in rows if "diffrax" in r["row"] and r["tolerance"] == TOLERANCE), None
    )
    found = {}
    for name, curve in curves.items():
        errors, times = zip(*sorted(curve), strict=True)
        if wanted is not None and errors[0] <= wanted <= errors[-1]:
            found[name] = math.exp(np.interp(wanted, errors, times))
    return found


def summary(cases: list[Row]) -> Row:
    """Geometric means and worst cases of the ratios of our rows."""
    found = {}
    for name in ours():
        ratios = [
            row[kind]["ratio"]
            for case in cases
            for row in case["rows"]
            if row["row"] == name
            for kind in ("training", "log_prob", "sampling")
        ]
        found[name] = {
            "mean": math.exp(sum(map(math.log, ratios)) / len(ratios)),
            "worst": max(ratios),
        }
        print(
            f"{name}: geometric mean of the ratios {found[name]['mean']:.2f}, worst {found[name]['worst']:.2f}"
        )
    return found


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    here = machine()
    installed = {name: version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    print(f"{here['cpu']}, {here['threads']} threads, torch {here['torch']}, {installed}, float32")
    cases = []
    for dim, title in CASES:
        cases.append({"title": title, "rows": table(dim)})
        show(title, cases[-1]["rows"])
    tables = {"packages": installed, "cost": cases, "summary": summary(cases), "GFLOP/s": matmul_rate()}
    tables["precision"] = [{"title": title, "rows": precision(dim)} for dim, title in CASES]
    tables["equal error"] = [
        {"title": case["title"], "ms": at_equal_error(case["rows"])} for case in tables["precision"]
    ]
    print("\nlog_prob at the error of diffrax", tables["equal error"])
    tables["as it comes"] = as_it_comes()
    print("\na training step of ffjord as it comes, ms", tables["as it comes"])
    tables["memory"] = [{"title": title, "rows": memory(dim)} for dim, title in CASES]
    tables["own steps"] = [{"title": title, "rows": own_steps(dim)} for dim, title in CASES]
    tables["growth"] = growth()
    for name in ("precision", "memory", "own steps"):
        for case in tables[name]:
            print(f"\n{name}, {case['title']}")
            for row in case["rows"] if isinstance(case["rows"], list) else case["rows"].items():
                print("  ", row)
    for name, rows in tables["growth"].items():
        print(f"\ntraining step by {name}")
        for row in rows:
            mine, other = row["cnflib"][0], row["by hand"][0]
            print(f"  {row['at']:>6}  cnflib {mine:9.1f} ms  by hand {other:9.1f} ms  NFE {row['nfe']}")
    record("continuous", tables)


if __name__ == "__main__":
    main()
