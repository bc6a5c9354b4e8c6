"""Flow matching in other libraries, behind one interface: ``loss``, ``training_step`` and ``sample``.

Every row gets the weights of one MLP that takes x and t, its own copy, in plain torch layers, and is written as the
library's own examples write it. All of them learn the velocity of the linear path without noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnflib.nets import MLP


class Plain(nn.Module):
    """The layers of an MLP of cnflib in a net of plain torch, a field of x and t."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(part if isinstance(part, nn.Linear) else nn.Tanh() for part in mlp.net))

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1))


class Row(ABC):
    """A row of the table; a subclass says how its library does it."""

    package: str | None = None

    def __init__(self, mlp: MLP) -> None:
        self.net = Plain(mlp)

    @abstractmethod
    def loss(self, x1: Tensor, x0: Tensor, t: Tensor | None = None) -> Tensor:
        """The mean over all entries of the squared error at times t, drawn by default."""

    def objective(self, x1: Tensor, x0: Tensor, t: Tensor | None = None) -> Tensor:
        """What a training step differentiates: the loss, up to a factor."""
        return self.loss(x1, x0, t)

    @abstractmethod
    def sample(self, x0: Tensor, solver: str) -> Tensor:
        """Carry base points to t = 1 by a solver of the benchmark's ``SOLVERS``."""

    def training_step(self, x1: Tensor) -> Callable[[], None]:
        """One step at a learning rate of 0, base and times drawn anew."""
        optimizer = torch.optim.Adam(self.net.parameters(), lr=0.0)

        def step() -> None:
            optimizer.zero_grad()
            self.objective(x1, torch.randn_like(x1)).backward()
            optimizer.step()

        return step


class FlowMatching(Row):
    """flow_matching: a CondOTProbPath and its ODESolver."""

    package = "flow_matching"

    def __init__(self, mlp: MLP) -> None:
        super().__init__(mlp)
        from flow_matching.path import CondOTProbPath
        from flow_matching.solver import ODESolver
        from flow_matching.utils import ModelWrapper

        class Wrapped(ModelWrapper):
            def forward(self, x: Tensor, t: Tensor, **extras: object) -> Tensor:
                return self.model(t, x)

        self.path, self.solver = CondOTProbPath(), ODESolver(Wrapped(self.net))

    def loss(self, x1: Tensor, x0: Tensor, t: Tensor | None = None) -> Tensor:
        t = torch.rand(len(x1)) if t is None else t
        sample = self.path.sample(t=t, x_0=x0, x_1=x1)
        return torch.pow(self.net(sample.t, sample.x_t) - sample.dx_t, 2).mean()

    def sample(self, x0: Tensor, solver: str) -> Tensor:
        method, steps, tolerance = solver.split(", ")[0], *options(solver)
        step = None if steps is None else 1 / steps
        return self.solver.sample(x0, step, method, atol=tolerance, rtol=tolerance)


class TorchCFM(Row):
    """torchcfm: a ConditionalFlowMatcher without noise, and the NeuralODE of torchdyn that its examples sample with."""

    package = "torchcfm"

    def __init__(self, mlp: MLP) -> None:
        super().__init__(mlp)
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        self.matcher, self.nodes = ConditionalFlowMatcher(sigma=0.0), {}

    def loss(self, x1: Tensor, x0: Tensor, t: Tensor | None = None) -> Tensor:
        t, x_t, u_t = self.matcher.sample_location_and_conditional_flow(x0, x1, t)
        return torch.mean((self.net(t, x_t) - u_t) ** 2)

    @torch.no_grad()
    def sample(self, x0: Tensor, solver: str) -> Tensor:
        steps, tolerance = options(solver)
        times = torch.linspace(0, 1, 2 if steps is None else steps + 1)
        return self.node(solver, tolerance).trajectory(x0, times)[-1]

    def node(self, solver: str, tolerance: float) -> nn.Module:
        from torchdyn.core import NeuralODE

        class Wrapped(nn.Module):
            def __init__(self, net: nn.Module) -> None:
                super().__init__()
                self.net = net

            def forward(self, t: Tensor, x: Tensor, args: object = None) -> Tensor:
                return self.net(t, x)

        if solver not in self.nodes:
            kind = {"solver": solver.split(", ")[0], "sensitivity": "adjoint"}
            self.nodes[solver] = NeuralODE(Wrapped(self.net), **kind, atol=tolerance, rtol=tolerance)
        return self.nodes[solver]


def options(solver: str) -> tuple[int | None, float]:
    """Steps and tolerance of "midpoint, 20 steps" or "dopri5, 1e-5"."""
    _, rest = solver.split(", ")
    return (int(rest.split()[0]), 1e-5) if "steps" in rest else (None, float(rest))
