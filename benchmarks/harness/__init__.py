"""What the benchmarks share: the net, the clock, the memory meter and the record of a machine."""

import datetime
import json
import pathlib
import platform
import time
import weakref
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnflib.nets import MLP

BATCH, TOLERANCE = 512, 1e-5
HIDDEN, COUPLINGS, MASKED = (64, 64), 8, 5  # of discrete flows: layers of RealNVP and MAF
SPLINES, BINS, BOX = 4, 8, 5.0


def field(dim: int, width: int = 64) -> MLP:
    """The net of every row, the same weights each time."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = MLP(dim, hidden=(width,) * 3)
        for p in net.parameters():
            p *= 2
    return net


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """One step of maximum likelihood at a learning rate of 0, so that every step meets the same weights."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()

    return step


def measure(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, Tensor]:
    """Milliseconds of each call in each round, after one round that does not count; each is first in its turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = deque(calls)
    for _ in range(rounds + 1):
        order.rotate()
        for name in order:
            start = time.perf_counter()
            calls[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: torch.tensor(t[1:]) for name, t in times.items()}


def quartiles(times: Tensor) -> list[float]:
    """Median, lower and upper quartile."""
    return times.quantile(torch.tensor([0.5, 0.25, 0.75])).tolist()


class Live(TorchDispatchMode):
    """Bytes alive of the tensors made inside the ``with``, and the most there were; ``known`` ones count nothing."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {t.untyped_storage()._cdata for t in known}
        self.alive: dict[int, weakref.ref] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None):
        out = func(*args, **(kwargs or {}))
        for tensor in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.see(tensor.untyped_storage())
        return out

    def see(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once; its weak reference tells when it dies."""
        key, size = storage._cdata, storage.nbytes()
        if key in self.known or key in self.alive:
            return

        def forget(ref: weakref.ref) -> None:
            del self.alive[key]
            self.now -= size

        self.alive[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


def machine() -> dict[str, object]:
    """What a number depends on."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def record(name: str, tables: dict[str, object]) -> None:
    """Write tables to benchmarks/results, numbers cut to six digits."""
    folder = pathlib.Path(__file__).parents[1] / "results"
    folder.mkdir(exist_ok=True)
    text = json.dumps(shorten({"machine": machine(), **tables}), indent=1)
    whole = folder / f"{name}.json"
    part = whole.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(whole)


def kept(name: str) -> list[dict[str, object]]:
    """The runs that a benchmark has written."""
    path = pathlib.Path(__file__).parents[1] / f"results/{name}.json"
    return json.loads(path.read_text())["runs"] if path.exists() else []


def keep(name: str, run: dict[str, object], same: tuple[str, ...], **tables: object) -> None:
    """Put one run in the place of the one that agrees with it in the keys ``same``, and write all, in their order."""
    others = [other for other in kept(name) if any(other[k] != run[k] for k in same)]
    record(name, {**tables, "runs": sorted([*others, run], key=lambda r: [str(r[k]) for k in same])})


def missing(name: str, wanted: list[tuple], same: tuple[str, ...], budget: dict[str, object]) -> list[tuple]:
    """What of the wanted runs is not there yet with this budget."""
    there = {tuple(run[k] for k in same) for run in kept(name) if run.items() >= budget.items()}
    return [run for run in wanted if run not in there]


def shorten(value: object) -> object:
    if isinstance(value, dict):
        return {k: shorten(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shorten(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
