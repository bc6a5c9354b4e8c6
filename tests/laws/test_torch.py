"""What torch does with functions and modules it also does with ours: compile, transform, distribute."""

import os
import subprocess
import sys

import pytest
import torch
from registry import built, flows, points, rng
from torch import nn
from torch.export import Dim

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, Exact, Hutchinson, HutchPP, KineticEnergy, TrainEval
from cnflib.discrete import Affine, RationalQuadratic
from cnflib.interpolants import (
    BetaTimes,
    Bridge,
    IndependentPairing,
    Linear,
    Parabola,
    Trigonometric,
    sample_ode,
    sample_sde,
    score_from_velocity,
    velocity_loss,
)
from cnflib.models import ffjord, realnvp
from cnflib.nets import MLP
from cnflib.ode import Fixed, euler, heun

x0, x1 = torch.randn(2, 6, 2, generator=rng(), dtype=torch.float64)
t = torch.tensor(0.4, dtype=torch.float64)
field = MLP(2, (8,)).double()
theta = {
    transform: torch.randn(6, transform.parameters, 2, generator=rng())
    for transform in (Affine(2.0), RationalQuadratic(4, 3.0))
}


def solved_by_heun(x):
    solver, times = Fixed(2, heun), torch.tensor([0.0, 1.0]).double()
    return solver(lambda t, state: (field(t, state[0]),), (x,), times)[0][0]


inside = {  # settings built inside of what is compiled
    "Exact": lambda x: Exact()(x, None)(field, t, x, None).divergence,
    "Hutchinson": lambda x: Hutchinson(probes=2)(x, None)(field, t, x, None).velocity,
    "HutchPP": lambda x: HutchPP(1, 2)(x, None)(field, t, x, None).velocity,
    "Fixed": solved_by_heun,
    "Fixed, checkpoint is a setting too": lambda x: x * Fixed(2, checkpoint=True).steps,
    "Affine": lambda x: Affine(2.0).encode(x, theta[Affine(2.0)].double())[0],
    "RationalQuadratic": lambda x: RationalQuadratic(4, 3.0).encode(
        x, theta[RationalQuadratic(4, 3.0)].double()
    )[0],
    "Linear": lambda x: velocity_loss(field, Linear(), x, x1, t.expand(6)),
    "Linear with noise": lambda x: velocity_loss(field, Linear(gamma=Parabola()), x, x1, t.expand(6), x0),
    "Trigonometric drawn": lambda x: Trigonometric(gamma=Bridge(0.5)).draw(x, x1, t.expand(6), x0).rate,
    "pairing": lambda x: IndependentPairing()(x, x1)[0],
    "times": lambda x: BetaTimes(1.0, 0.5).density(x.abs() / 9),
    "sample_ode": lambda x: sample_ode(field, x, Fixed(2, euler)),
    "sample_sde": lambda x: sample_sde(
        field, score_from_velocity(field, Linear()), x, 0.0, Fixed(2, heun), t0=0.1, t1=0.9
    ),
}


@pytest.mark.parametrize("name", inside)
def test_settings_may_be_built_inside_of_what_is_compiled(name):
    call = inside[name]
    torch.testing.assert_close(torch.compile(call, fullgraph=True, backend="eager")(x0), call(x0))


outside = {
    "realnvp": realnvp(dim=2, layers=2, hidden=(8,)),
    "CNF, exact": Flow(CNF(field, Exact(), Fixed(1, euler)), StandardNormal(2)),
    "CNF with costs": Flow(CNF(field, Exact(), Fixed(1, euler), (KineticEnergy(),)), StandardNormal(2)),
    "ffjord": ffjord(dim=2, hidden=(8,), solver=Fixed(1, euler)),
    "exact in eval": ffjord(dim=12, hidden=(8,), solver=Fixed(1, euler), divergence=TrainEval()).eval(),
}


@pytest.mark.parametrize("name", outside)
def test_a_density_compiles_in_one_piece(name):
    flow = outside[name].double()
    x = torch.randn(5, *flow.event_shape, generator=rng(), dtype=torch.float64)
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), flow.log_prob(x))


@pytest.mark.parametrize("name", ["realnvp", "CNF, exact"])
def test_a_training_step_compiles_in_one_piece(name):
    flow = outside[name].double()
    x = torch.randn(5, *flow.event_shape, generator=rng(), dtype=torch.float64)
    loss, grads = lambda x: -flow.log_prob(x).mean(), []
    for step in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        flow.zero_grad()
        step(x).backward()
        grads.append([p.grad.clone() for p in flow.parameters()])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", outside)
def test_torch_func_goes_through(name):
    flow = outside[name].double()
    x = torch.randn(3, *flow.event_shape, generator=rng(), dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    wanted = torch.autograd.grad(flow.log_prob(leaf).sum(), leaf)[0]
    one = lambda y: flow.log_prob(y[None])[0]
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(one))(x), wanted)
    weights = {name: 1.1 * p.detach() for name, p in flow.named_parameters()}
    moved = torch.func.functional_call(flow, weights, (x,))
    with torch.no_grad():
        for p in flow.parameters():
            p *= 1.1
        torch.testing.assert_close(moved, flow.log_prob(x))
        for p in flow.parameters():
            p /= 1.1


class LogProb(nn.Module):
    """What torch.export takes: a module, whose forward is called by place."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x, context):
        return self.flow.log_prob(x, context)


EXPORTED = (  # of each builder one; no adaptive solve or roulette, which look at values
    "gaussian",
    "nice dim",
    "maf dim",
    "iaf context",
    "spline_flow dim",
    "realnvp context",
    "planar dim",
    "radial context",
    "glow image",
    "residual_flow context",
    "ffjord context",
)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_density_is_exported_for_a_batch_of_any_size(name):
    flow = built(flows[name]).eval()
    (x, context), (y, other) = (points(flows[name], n) for n in (4, 7))
    sizes = (None if part is None else {0: Dim.DYNAMIC} for part in (x, context))
    program = torch.export.export(LogProb(flow), (x, context), dynamic_shapes=tuple(sizes))
    torch.testing.assert_close(program.module()(y, other), flow.log_prob(y, other))


@pytest.mark.parametrize("name", [name for name in flows if name != "Chain"])  # whose masks are made by hand
def test_a_flow_built_on_meta_is_what_its_state_dict_makes_of_it(name):
    flow = built(flows[name], torch.float32).eval()
    x, context = points(flows[name], 4, torch.float32)
    with torch.device("meta"):
        empty = flows[name].build()
    assert not any(p.device.type != "meta" for p in empty.parameters())
    empty.eval().load_state_dict(flow.state_dict(), assign=True)
    for call in (lambda f: f.log_prob(x, context, rng()), lambda f: f.sample(4, context, rng())):
        torch.testing.assert_close(call(empty), call(flow))


PROCESS = """
import os, sys, torch, torch.distributed as dist
from cnflib.models import ffjord
from cnflib.ode import Fixed
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
flow = ffjord(dim=2, hidden=(8,), solver=Fixed(2)).double()
x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
parallel = torch.nn.parallel.DistributedDataParallel(flow)  # held: its hooks go with it
(-parallel(x[4 * rank : 4 * rank + 4]).mean()).backward()
shared = [p.grad.clone() for p in flow.parameters()]
flow.zero_grad()
(-flow.log_prob(x).mean()).backward()
gap = max((p.grad - g).abs().max().item() for p, g in zip(flow.parameters(), shared))
print("gap", gap, flush=True)
dist.barrier()
os._exit(0)  # taking down the threads of gloo, one process before the other, can wait for ever
"""


def in_two_processes(program, store):
    """What each of two processes prints, with its rank and a file to meet by as arguments."""
    env = {"GLOO_SOCKET_IFNAME": "lo", **os.environ}  # the name of the machine need not lead to an address
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), str(store)],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [process.communicate(timeout=300)[0] for process in processes]


@pytest.mark.timeout(400)
def test_two_processes_give_the_gradient_of_the_whole_batch(tmp_path):
    shown = in_two_processes(PROCESS, tmp_path / "store")
    assert all(float(text.split()[-1]) < 1e-12 for text in shown), shown


SET_UP = """
import os, sys, torch, torch.distributed as dist
from cnflib.models import glow
rank, store = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
flow, alone = (glow(dim=2, layers=2, hidden=(4,)).double() for _ in range(2))
alone.load_state_dict(flow.state_dict())
x = 3 + torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor([5.0, 0.1])
alone.log_prob(x)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
parallel = torch.nn.parallel.DistributedDataParallel(flow)
parallel(x[:6] if rank == 0 else x[6:])
values = zip(flow.state_dict().values(), alone.state_dict().values())
print("gap", max((a.double() - b.double()).abs().max().item() for a, b in values), flush=True)
dist.barrier()
os._exit(0)
"""


@pytest.mark.timeout(400)
def test_two_processes_set_up_a_glow_as_one_does_on_the_whole_batch(tmp_path):
    shown = in_two_processes(SET_UP, tmp_path / "store")
    assert all(float(text.split()[-1]) < 1e-12 for text in shown), shown


def test_a_flow_is_a_module_like_any_other():
    flow = realnvp(dim=2, layers=2, hidden=(8,))
    assert isinstance(flow, nn.Module) and all(p.requires_grad for p in flow.parameters())
    assert flow.to(torch.float64).log_prob(x0).dtype == torch.float64
