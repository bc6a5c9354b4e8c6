"""The same continuous flow in other libraries, behind one interface: ``log_prob``, ``sample`` and ``training_step``.

Every row gets the weights of one MLP that takes x and t, its own copy, in plain torch layers as a user of the library
would write them, and a probe: None for the exact trace, else a function that draws one for a batch. All of them solve
from t = 1, the data, to t = 0, a standard normal.
"""

import math
from collections.abc import Callable

import torch
from harness import TOLERANCE, training_step
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from cnflib.nets import MLP

Probe = Callable[[Tensor], Tensor] | None


class Net(nn.Module):
    """The layers of an MLP of cnflib in a net of plain torch; it counts its calls."""

    def __init__(self, mlp: MLP) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(part if isinstance(part, nn.Linear) else nn.Tanh() for part in mlp.net))
        self.calls = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(torch.cat([x, t.expand(len(x), 1)], 1))


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


class Peer(nn.Module):
    """A row of the table; a subclass says how its library solves."""

    def __init__(self, mlp: MLP, probe: Probe, tolerance: float = TOLERANCE) -> None:
        super().__init__()
        self.net, self.probe, self.tolerance = Net(mlp), probe, tolerance

    def training_step(self, x: Tensor) -> Callable[[], None]:
        """One step of maximum likelihood."""
        return training_step(self, x)

    def evaluations(self, x: Tensor) -> int:
        self.net.calls = 0
        with torch.no_grad():
            self.log_prob(x)
        return self.net.calls


class ByHand(Peer):
    """FFJORD as it is usually written: dopri5 by torchdiffeq, the trace by reverse mode."""

    solve = staticmethod(odeint)

    def log_prob(self, x: Tensor) -> Tensor:
        self.eta = None if self.probe is None else self.probe(x)
        times = torch.tensor([1.0, 0.0], dtype=x.dtype)
        z, logdet = self.solve(self, (x, x.new_zeros(len(x))), times, **self.options())
        return log_normal(z[-1]) + logdet[-1]

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        training, x = torch.is_grad_enabled(), state[0]
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            v = self.net(t, x)
            if self.eta is None:
                trace = sum(
                    torch.autograd.grad(v[:, i].sum(), x, create_graph=training, retain_graph=True)[0][:, i]
                    for i in range(x.shape[1])
                )
            else:
                (product,) = torch.autograd.grad(v, x, self.eta, create_graph=training)
                trace = (product * self.eta).sum(1)
        return (v, trace) if training else (v.detach(), trace.detach())

    @torch.no_grad()
    def sample(self, z: Tensor) -> Tensor:
        return odeint(self.net, z, torch.tensor([0.0, 1.0], dtype=z.dtype), **self.options())[-1]

    def options(self) -> dict[str, object]:
        return {"rtol": self.tolerance, "atol": self.tolerance, "method": "dopri5"}


class ByHandAdjoint(ByHand):
    """The same with the adjoint of torchdiffeq."""

    solve = staticmethod(odeint_adjoint)


class Zuko(Peer):
    """zuko's CNF transform with this net for its own; its own has cosines and sines of time for t."""

    def log_prob(self, x: Tensor) -> Tensor:
        z, logdet = self.transform(1.0, 0.0).call_and_ladj(x)
        return log_normal(z) + logdet

    @torch.no_grad()
    def sample(self, z: Tensor) -> Tensor:
        return self.transform(0.0, 1.0)(z)

    def transform(self, start: float, end: float) -> Callable:
        from zuko.transforms import FreeFormJacobianTransform

        return FreeFormJacobianTransform(
            self.net,
            *(start, end),
            phi=self.net.parameters(),
            atol=self.tolerance,
            rtol=self.tolerance,
            exact=self.probe is None,
        )


class InTorchdyn(nn.Module):
    """The net with the call of torchdyn."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Tensor, x: Tensor, args: object = None) -> Tensor:
        return self.net(t, x)


class Torchdyn(Peer):
    """torchdyn's NeuralODE with its CNF and trace estimators; its CNF calls the net without a time, this one with."""

    def __init__(self, mlp: MLP, probe: Probe, tolerance: float = TOLERANCE) -> None:
        super().__init__(mlp, probe, tolerance)
        from torchdyn.core import NeuralODE
        from torchdyn.models import CNF
        from torchdyn.models.cnf import autograd_trace, hutch_trace

        peer = self

        class Noise:
            def sample(self, shape: tuple[int, ...]) -> Tensor:
                return probe(peer.x)

        class InTime(CNF):
            def forward(self, t: Tensor, x: Tensor, args: object = None) -> Tensor:
                with torch.enable_grad():
                    x_in = x[:, 1:].requires_grad_(True)
                    x_out = self.net(t, x_in)
                    trace = self.trace_estimator(x_out, x_in, noise=self.noise)
                return torch.cat([-trace[:, None], x_out], 1) + 0 * x

        options = {
            "solver": "dopri5",
            "atol": tolerance,
            "rtol": tolerance,
            "return_t_eval": False,
            "sensitivity": "autograd",
        }
        cnf = InTime(self.net, hutch_trace if probe else autograd_trace, Noise() if probe else None)
        self.likelihood = NeuralODE(cnf, **options)
        self.sampler = NeuralODE(InTorchdyn(self.net), **options)

    def log_prob(self, x: Tensor) -> Tensor:
        self.x = x
        state = torch.cat([x.new_zeros(len(x), 1), x], 1)
        end = self.likelihood(state, torch.tensor([1.0, 0.0], dtype=x.dtype))[-1]
        return log_normal(end[:, 1:]) - end[:, 0]

    @torch.no_grad()
    def sample(self, z: Tensor) -> Tensor:
        return self.sampler(z, torch.tensor([0.0, 1.0], dtype=z.dtype))[-1]


class FlowMatching(Peer):
    """flow_matching's ODESolver. It draws its own probe and detaches the likelihood: it cannot train by it."""

    training_step = None

    def log_prob(self, x: Tensor) -> Tensor:
        return self.solver.compute_likelihood(
            x, log_normal, None, "dopri5", self.tolerance, self.tolerance, exact_divergence=self.probe is None
        )[1].detach()

    def sample(self, z: Tensor) -> Tensor:
        return self.solver.sample(z, None, "dopri5", self.tolerance, self.tolerance)

    @property
    def solver(self) -> object:
        from flow_matching.solver import ODESolver

        return ODESolver(lambda x, t: self.net(t, x))
