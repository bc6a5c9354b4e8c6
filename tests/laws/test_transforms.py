"""A fixed-step flow under torch's transforms: compiled without a break, differentiated, vmapped, autocast."""

import pytest
import torch
from registry import built, devices, flows, points, rng
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from cnflib import Flow, StandardNormal
from cnflib.continuous import (
    CNF,
    Bottleneck,
    EndTime,
    Exact,
    ForwardMode,
    Gaussian,
    Hutchinson,
    HutchPP,
    JacobianFrobenius,
    KineticEnergy,
    Rademacher,
    ReverseMode,
    concat_squash,
    convolutional,
)
from cnflib.models import ffjord
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, TorchDiffEq, euler, midpoint


def steady(shape, like, generator=None):
    """Signs that do not change from draw to draw."""
    return torch.ones(shape, dtype=like.dtype, device=like.device).cumsum(-1) % 2 * 2 - 1


divergences = {
    "exact": Exact(),
    "exact reverse": Exact(product=ReverseMode()),
    "hutchinson": Hutchinson(steady),
    "hutchinson forward": Hutchinson(steady, 2, ForwardMode()),
    "hutchinson reverse": Hutchinson(steady, 2, ReverseMode()),
    "bottleneck": Bottleneck(steady),
}
nets = {
    "MLP": lambda: MLP(2, (8, 2)),
    "features": lambda: MLP(2, (8, 2), time_frequencies=2, fourier=3),
    "concat-squash": lambda: EndTime(concat_squash(2, (8, 2))),
}
each = pytest.mark.parametrize("divergence", divergences.values(), ids=divergences)


EXACT = Exact()


def flow_of(divergence=EXACT, net="MLP", solver=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cnf = CNF(nets[net](), divergence, solver or Fixed(2, midpoint))
    return Flow(cnf, StandardNormal(2)).double()


def draw(n=5):
    return torch.randn(n, 2, generator=rng(), dtype=torch.float64)


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("divergence", "net"),
    [(d, "MLP") for d in divergences.values()] + [(Exact(), net) for net in nets if net != "MLP"],
)
def test_log_prob_and_its_training_step_compile_without_a_graph_break(divergence, net):
    flow, x = flow_of(divergence, net, Fixed(1, euler)), draw()
    values = torch.compile(flow.log_prob, backend="aot_eager", fullgraph=True)(x), flow.log_prob(x)
    assert_close(*values)
    assert_close(*(torch.autograd.grad(value.mean(), list(flow.parameters())) for value in values))


@pytest.mark.parametrize("noise", [Rademacher(), Gaussian()])
def test_a_probe_is_drawn_for_batches_of_any_size_without_compiling_anew(noise):
    flow = flow_of(Hutchinson(noise), solver=Fixed(1, euler))
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True, dynamic=True)
    assert [compiled(draw(n)).shape for n in (3, 5, 9)] == [(3,), (5,), (9,)]


def test_hutchpp_compiles_too():
    flow, x = flow_of(HutchPP(), solver=Fixed(1, euler)), draw()
    compiled = torch.compile(lambda x: flow.log_prob(x).mean(), backend="aot_eager", fullgraph=True)
    assert torch.autograd.grad(compiled(x), next(flow.parameters()))[0].isfinite().all()


def test_a_training_step_compiles_to_machine_code():
    flow, x = flow_of(solver=Fixed(1, midpoint)), draw(64).float()
    flow.float()
    compiled = torch.compile(flow.log_prob, fullgraph=True)
    leaves = list(flow.parameters())
    grads = [torch.autograd.grad(f(x).mean(), leaves) for f in (compiled, flow.log_prob)]
    assert_close(*grads, tolerance=1e-5)


def test_a_flow_with_adaptive_steps_can_stand_in_compiled_code():
    flow, x = flow_of(solver=Adaptive()), draw()
    leaves = list(flow.parameters())
    compiled = torch.compile(lambda x: -flow.log_prob(x).mean(), backend="aot_eager")
    assert_close(*(torch.autograd.grad(f(x), leaves) for f in (compiled, lambda x: -flow.log_prob(x).mean())))


@pytest.mark.parametrize(
    "solver",
    [Adaptive(), Adaptive(adjoint=True), Fixed(2, checkpoint=True)],
    ids=["adaptive", "adjoint", "checkpointed"],
)
def test_solvers_that_transforms_do_not_pass_through_say_so(solver):
    flow, x = flow_of(solver=solver), draw()
    with pytest.raises(ValueError, match="outside of torch.func transforms"):
        grad(lambda y: flow.log_prob(y).sum())(x)


def test_costs_context_and_a_given_time_compile():
    cnf = CNF(MLP(2, (8,), 3), Exact(), Fixed(1, midpoint), (KineticEnergy(), JacobianFrobenius())).double()
    x, context = draw(), torch.randn(5, 3, generator=rng(1), dtype=torch.float64)
    end = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def solve(x, context, end):
        solution = cnf.solve(x, 0.0, end, context)
        return solution.x, solution.logdet, *solution.costs

    compiled = torch.compile(solve, backend="aot_eager", fullgraph=True)
    assert_close(compiled(x, context, end), solve(x, context, end))
    slopes = [torch.autograd.grad(f(x, context, end)[1].sum(), end)[0] for f in (compiled, solve)]
    assert_close(*slopes)


def test_samples_and_images_compile():
    one = Fixed(1, euler)
    flow = ffjord(shape=(1, 2, 2), hidden=(3,), divergence=Hutchinson(steady), solver=one, blocks=1)
    x = torch.randn(2, 1, 2, 2, generator=rng())
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    assert_close(compiled(x), flow.log_prob(x), 1e-5)
    decode = torch.compile(flow.bijection.decode, backend="eager", fullgraph=True)
    assert_close(decode(x), flow.bijection.decode(x), 1e-5)


@each
def test_score_by_grad_and_by_both_jacobians_is_that_of_autograd(divergence):
    flow, x = flow_of(divergence), draw()
    leaf = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(leaf).sum(), leaf)
    assert_close(grad(lambda y: flow.log_prob(y).sum())(x), score)
    assert_close(jacrev(flow.log_prob)(x).diagonal(dim1=0, dim2=1).T, score)
    assert_close(jacfwd(flow.log_prob)(x).diagonal(dim1=0, dim2=1).T, score)
    v = draw().flip(0)
    assert_close(jvp(flow.log_prob, (x,), (v,))[1], (score * v).sum(1))


@each
def test_vmap_over_batches_is_each_batch_alone(divergence):
    flow, x = flow_of(divergence), torch.stack([draw(), 2 * draw(), draw().flip(0)])
    assert_close(vmap(flow.log_prob)(x), torch.stack([flow.log_prob(batch) for batch in x]))


def test_vmap_draws_a_probe_for_every_batch():
    flow = flow_of(Hutchinson())
    values = vmap(flow.log_prob, randomness="different")(draw().expand(8, -1, -1))
    assert len(values[:, 0].unique()) > 1


def test_gradients_of_each_row_and_of_an_ensemble():
    flow, x = flow_of(), draw()
    parameters = dict(flow.named_parameters())

    def nll(parameters, row):
        return -functional_call(Scored(flow), {f"flow.{k}": p for k, p in parameters.items()}, (row[None],))[
            0
        ]

    rows = vmap(grad(nll), (None, 0))(parameters, x)
    whole = torch.autograd.grad(-flow.log_prob(x).sum(), list(parameters.values()))
    for name, total in zip(parameters, whole, strict=True):
        assert_close(rows[name].sum(0), total)
    ensemble = {k: torch.stack([p, 1.1 * p]) for k, p in parameters.items()}
    assert_close(vmap(nll, (0, None))(ensemble, x[0])[0], -flow.log_prob(x[:1])[0])


def of_ensemble(solver, call):
    """What three flows of random weights say, by vmap over the weights and one after the other."""
    flows = [ffjord(dim=2, hidden=(4,), solver=solver).double() for _ in range(3)]
    weights, x = torch.func.stack_module_state(flows)[0], draw()
    whole = {f"flow.{name}": value for name, value in weights.items()}
    return vmap(lambda w: functional_call(Scored(flows[0], call), w, (x,)))(whole), [
        getattr(flow, call)(x) for flow in flows
    ]


@pytest.mark.parametrize("call", ["log_prob", "encode", "decode"])
def test_an_ensemble_over_weights_passes_through_fixed_steps(call):
    vmapped, each = of_ensemble(Fixed(3), call)
    assert_close(vmapped, torch.stack(each))


@pytest.mark.parametrize("grads", [True, False])
@pytest.mark.parametrize("call", ["log_prob", "decode"])
@pytest.mark.parametrize(
    "solver",
    [
        Adaptive(),
        Adaptive(per_row=True),
        Adaptive(adjoint=True),
        Fixed(2, checkpoint=True),
        TorchDiffEq(),
        TorchDiffEq(adjoint=True),
    ],
    ids=repr,
)
def test_an_ensemble_over_weights_is_told_to_take_fixed_steps(solver, call, grads):
    with torch.set_grad_enabled(grads), pytest.raises(ValueError, match=r"Use Fixed\(steps\)"):
        of_ensemble(solver, call)


def test_a_solve_that_a_transform_does_not_touch_is_left_alone():
    flow, x = flow_of(solver=Adaptive()), draw()
    assert_close(vmap(lambda s: s + flow.encode(x))(torch.zeros(2)), flow.encode(x).expand(2, -1, -1))
    with pytest.raises(
        ValueError, match=r"Use Fixed\(steps\)"
    ):  # torch.func.grad wraps all that is made inside
        grad(lambda s: s * flow.encode(x).sum())(torch.tensor(2.0))


class Scored(torch.nn.Module):
    def __init__(self, flow, call="log_prob"):
        super().__init__()
        self.flow, self.call = flow, call

    def forward(self, x):
        return getattr(self.flow, self.call)(x)


def test_curvature_of_log_prob_is_that_of_differences():
    flow, x, h = flow_of(), draw(1), 1e-5
    hessian = torch.func.hessian(lambda y: flow.log_prob(y[None])[0])(x[0])
    score = grad(lambda y: flow.log_prob(y[None])[0])
    columns = [(score(x[0] + h * e) - score(x[0] - h * e)) / (2 * h) for e in torch.eye(2).double()]
    assert_close(hessian, torch.stack(columns, 1), 1e-6)


@pytest.mark.parametrize("name", [name for name, m in flows.items() if not m.noisy and name != "ffjord dim"])
def test_second_derivatives_of_a_density_agree_in_every_mode(name):
    """In torch 2.13 those of slogdet and of solve are wrong where two are taken in forward mode, or under vmap."""
    member = flows[name]
    flow, (x, context) = built(member), points(member, 2)

    def log_prob(row, c):
        return flow.log_prob(row[None], None if c is None else c[None])[0]

    def curvature(outer, inner):
        by_row = vmap(outer(inner(log_prob)), (0, None if context is None else 0))
        return by_row(x, context)

    wanted = curvature(jacrev, jacrev)
    for outer, inner in ((jacfwd, jacrev), (jacfwd, jacfwd), (jacrev, jacfwd)):
        assert_close(curvature(outer, inner), wanted, 1e-8)


@pytest.mark.parametrize("device", devices)
@each
def test_under_autocast_the_state_keeps_its_dtype(divergence, device):
    flow = flow_of(divergence).float().to(device)
    x = draw(64).float().to(device)
    with torch.autocast(device, torch.bfloat16):
        low = flow.log_prob(x)
        z = flow.bijection.decode(x)
    assert low.dtype == z.dtype == torch.float32
    assert 0 < (low - flow.log_prob(x)).abs().max() < 0.2
    grads = torch.autograd.grad(low.mean(), list(flow.parameters()))
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)


@pytest.mark.parametrize("name", ["ffjord fixed", "ffjord context", "ffjord image", "ffjord matrix"])
def test_expanded_and_strided_input_just_works(name):
    flow, (x, context) = built(flows[name]), points(flows[name], 4)
    pair = x[:1].expand(4, *x.shape[1:]), None if context is None else context[:1].expand(4, -1)
    assert_close(flow.log_prob(*pair), flow.log_prob(*(None if a is None else a.contiguous() for a in pair)))
    wide = torch.stack([x, -x], -1)[..., 0]
    assert not wide.is_contiguous()
    assert_close(flow.log_prob(wide, context), flow.log_prob(x, context))
    assert_close(flow.bijection.decode(wide, context), flow.bijection.decode(x, context))


@pytest.mark.parametrize("product", [ForwardMode(), ReverseMode()])
def test_expanded_input_of_a_field_without_tangents_just_works(product):
    cnf = CNF(lambda t, x, c: torch.sin(x), Hutchinson(steady, 2, product), Fixed(2))
    x = draw(1).expand(3, -1)
    assert_close(cnf.solve(x, 0.0, 1.0)[:2], cnf.solve(x.contiguous(), 0.0, 1.0)[:2])


@pytest.mark.parametrize("device", devices)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_flow_has_dtype_and_device_of_its_input(device, dtype):
    field = convolutional((1, 4, 4), (3,)).to(device, dtype)
    flow = Flow(CNF(field, Hutchinson(), Fixed(2)), StandardNormal((1, 4, 4)))
    x = flow.sample(3, generator=rng(0, device))
    log_prob = flow.log_prob(x, generator=rng(0, device))
    assert (x.dtype, log_prob.dtype, log_prob.device.type) == (dtype, dtype, device)
