"""Time of one continuous flow, four ways: cnflib beside a plain FFJORD written by hand on torchdiffeq.

    python benchmarks/continuous.py

Every row but RealNVP's evaluates the same net, an MLP of three hidden layers of 64 with tanh, on the same 512 points.
Its initial weights are doubled, so that the field bends about as much as a trained one, and the learning rate is 0,
so that every step meets the same field. Rows take turns, round after round, so that a slow moment of the machine
falls on all of them. A time is a median with its quartiles; a ratio below 1 is faster than the row written by hand.
A time without its error says nothing: the last column is the largest error of log p against float64 at tolerance
1e-10, with the same probe where the trace is estimated.
"""

import copy
import math
import platform
import time
from collections.abc import Callable

import torch
import torchdiffeq
from torch import Tensor, nn
from torchdiffeq import odeint

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, adaptive, exact, fixed, hutchinson, rademacher
from cnflib.models import realnvp
from cnflib.nets import MLP

BATCH, ROUNDS, TOLERANCE = 512, 11, 1e-5
LogProb = Callable[[Tensor], Tensor]


class ByHand(nn.Module):
    """FFJORD as it is usually written: dopri5 by torchdiffeq, the trace by reverse mode, backpropagation through it."""

    def __init__(self, field: nn.Module, draw: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.field = field
        self.draw = draw  # of a Hutchinson probe; None for the exact trace

    def log_prob(self, x: Tensor, tolerance: float = TOLERANCE) -> Tensor:
        self.nfe, self.training_step = 0, torch.is_grad_enabled()
        self.eta = None if self.draw is None else self.draw(x)
        times = torch.tensor([1.0, 0.0], dtype=x.dtype)
        zero = x.new_zeros(len(x))
        z, logdet = odeint(self, (x, zero), times, rtol=tolerance, atol=tolerance, method="dopri5")
        return -0.5 * (z[-1].square().sum(1) + z.shape[-1] * math.log(2 * math.pi)) + logdet[-1]

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        with torch.enable_grad():
            x = state[0] if state[0].requires_grad else state[0].detach().requires_grad_()
            v = self.field(t, x, None)
            trace = self.exact(v, x) if self.eta is None else self.estimate(v, x)
        return (v, trace) if self.training_step else (v.detach(), trace.detach())

    def exact(self, v: Tensor, x: Tensor) -> Tensor:
        return sum(
            torch.autograd.grad(v[:, i].sum(), x, create_graph=self.training_step, retain_graph=True)[0][:, i]
            for i in range(x.shape[1])
        )

    def estimate(self, v: Tensor, x: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(v, x, self.eta, create_graph=self.training_step)
        return (product * self.eta).sum(1)


def field(dim: int) -> MLP:
    """The net of every row, the same weights each time."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = MLP(dim, hidden=(64, 64, 64))
        for p in net.parameters():
            p *= 2
    return net


def rows(dim: int, estimated: bool, eta: Tensor | None = None) -> dict[str, nn.Module]:
    """The competitors; with ``eta`` every estimate uses that probe instead of drawing its own."""

    def noise(shape: tuple[int, ...], like: Tensor, generator: object = None) -> Tensor:
        return rademacher(shape, like) if eta is None else eta.to(like).reshape(shape)

    divergence = hutchinson(noise) if estimated else exact
    draw = (lambda x: noise(x.shape, x)) if estimated else None
    solvers = {
        "cnflib adaptive dopri5": adaptive(rtol=TOLERANCE, atol=TOLERANCE),
        "cnflib fixed rk4, 4 steps": fixed(4),
        "cnflib fixed rk4, 8 steps": fixed(8),
    }
    flows = {name: Flow(CNF(field(dim), divergence, s), StandardNormal(dim)) for name, s in solvers.items()}
    return {
        "by hand, dopri5": ByHand(field(dim), draw),
        **flows,
        "RealNVP, 8 layers of 64-64": realnvp(dim=dim),
    }


def training_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        optimizer.step()

    return step


def evaluation(model: nn.Module, x: Tensor) -> Callable[[], None]:
    def evaluate() -> None:
        with torch.no_grad():
            model.log_prob(x)

    return evaluate


def measure(calls: dict[str, Callable[[], None]]) -> dict[str, Tensor]:
    """Milliseconds of each call in each round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: torch.tensor(t[1:]) for name, t in times.items()}


@torch.no_grad()
def errors(dim: int, estimated: bool, x: Tensor) -> dict[str, str]:
    """The largest error of log p against float64 at tolerance 1e-10, and the evaluations of a solve."""
    eta = rademacher(tuple(x.shape), x, torch.Generator().manual_seed(1))
    models = rows(dim, estimated, eta)
    reference = copy.deepcopy(models["by hand, dopri5"]).double().log_prob(x.double(), 1e-10)
    shown = {}
    for name, model in models.items():
        error = (model.log_prob(x).double() - reference).abs().max().item()
        nfe = model.nfe if isinstance(model, ByHand) else evaluations(model, x)
        shown[name] = f"{nfe:>5}  {error:9.1e}" if nfe else f"{'-':>5}  {'exact':>9}"
    return shown


def evaluations(flow: Flow, x: Tensor) -> int:
    return flow.bijection.solve(x, 1.0, 0.0).nfe if isinstance(flow.bijection, CNF) else 0


def show(title: str, dim: int, estimated: bool) -> None:
    x = torch.randn(BATCH, dim, generator=torch.Generator().manual_seed(0))
    models = rows(dim, estimated)
    accuracy = errors(dim, estimated, x)
    train = measure({name: training_step(model, x) for name, model in models.items()})
    evaluate = measure({name: evaluation(model, x) for name, model in models.items()})
    print(f"\n{title}")
    print(
        f"{'':<28}{'training step, ms':>22} {'ratio':>6}{'log_prob, ms':>22} {'ratio':>6}  {'NFE':>5}  {'max error':>9}"
    )
    for name in models:
        columns = "".join(column(times[name], times["by hand, dopri5"]) for times in (train, evaluate))
        print(f"{name:<28}{columns}  {accuracy[name]}")


def column(times: Tensor, reference: Tensor) -> str:
    low, middle, high = times.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    spread = f"{middle:.1f} ({low:.1f}-{high:.1f})"
    return f"{spread:>22} {middle / reference.median().item():6.2f}"


def main() -> None:
    torch.set_num_threads(1)  # nets this small gain nothing from more, and one is easier to compare
    versions = f"torch {torch.__version__}, torchdiffeq {torchdiffeq.__version__}, Python {platform.python_version()}"
    print(f"{versions}, one thread, float32, batch {BATCH}, median of {ROUNDS} rounds (quartiles)")
    show("D = 2, exact trace", 2, estimated=False)
    show("D = 64, Hutchinson's estimate, one Rademacher probe", 64, estimated=True)


if __name__ == "__main__":
    main()
