"""The ways to differentiate a solve agree with each other and with central differences; their counts and memory."""

import math
import pickle
import weakref
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import pytest
import torch
from registry import rng, seeded
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnflib import Flow, StandardNormal
from cnflib.audit import AuditError, audit_gradients
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
    concat,
    concat_squash,
    convolutional,
)
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, SolveError, Solver, Work, alternatives, bosh3, euler, midpoint
from cnflib.ode._backward import vjps

exact, tight = Exact(), {"rtol": 1e-9, "atol": 1e-9}
ways = {
    "fixed": Fixed(4),
    "checkpointed": Fixed(4, checkpoint=True),
    "adaptive": Adaptive(**tight),
    "adjoint": Adaptive(**tight, adjoint=True),
}
pairs = {"checkpointed": ("fixed", 1e-12), "adjoint": ("adaptive", 1e-6)}
saving = pytest.mark.parametrize("way", pairs)
x = torch.ones(3, 2, dtype=torch.float64)
directions = {"up": (0.1, 0.4, 0.8), "down": (0.9, 0.5, 0.2)}


class Penalty(nn.Module):
    """A cost with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, field, t, x, context, local):
        return (1 + t) * (self.weight * local.velocity.sin()).sum(1)


class Spare(nn.Module):
    """A field with one parameter that it does not use and one that wants no gradient."""

    def __init__(self):
        super().__init__()
        self.net = MLP(2, (6,))
        self.unused, self.frozen = (nn.Parameter(torch.ones(2), requires_grad=k == 0) for k in range(2))

    def forward(self, t, x, context=None):
        return self.frozen * self.net(t, x)


class Case(NamedTuple):
    """A field, its divergence and costs; and whether the gradient is that of the draw."""

    field: Callable[[], nn.Module]
    divergence: Callable = exact
    costs: Sequence[Callable] = ()
    shape: tuple[int, ...] = (2,)
    context: int = 0
    own: bool = True


mlp = partial(MLP, 2, (6,))
cases = {
    "MLP": Case(mlp),
    "MLP with features": Case(lambda: mlp(time_frequencies=1, fourier=2, fourier_scale=0.2)),
    "concat": Case(lambda: concat(2, (6,))),
    "concat_squash": Case(lambda: concat_squash(2, (6,), context=2), context=2),
    "convolutional": Case(lambda: convolutional((1, 2, 3), (3,)), Hutchinson(), shape=(1, 2, 3)),
    "EndTime": Case(lambda: EndTime(concat_squash(2, (6,)), 0.7)),
    "spare parameters": Case(Spare),
    "context": Case(lambda: mlp(context=3), context=3),
    "bottleneck": Case(lambda: MLP(3, (5, 2, 5)), Bottleneck(), shape=(3,)),
    "costs": Case(mlp, Exact(), (KineticEnergy(), JacobianFrobenius(), Penalty())),
    "everything": Case(
        lambda: EndTime(concat_squash(2, (6,), context=2), 0.7),
        Hutchinson(Gaussian(), 2),
        (JacobianFrobenius(), Penalty()),
        context=2,
    ),
    "Hutch++": Case(lambda: MLP(3, (6,)), HutchPP(), (JacobianFrobenius(),), (3,), own=False),
} | {
    f"{probe!r} {product!r}": Case(mlp, Hutchinson(probe, 1, product), (JacobianFrobenius(),))
    for probe in (Rademacher(), Gaussian())
    for product in (ForwardMode(), ReverseMode())
}
every = pytest.mark.parametrize("name", cases)


class Problem:
    """A loss that looks at everything along a path, and what it has a gradient for."""

    def __init__(self, case, times):
        with seeded(1):
            self.field, self.encoder = case.field().double(), nn.Linear(3, 2 * max(case.context, 1)).double()
        self.case, self.costs = case, [c.double() if isinstance(c, nn.Module) else c for c in case.costs]
        self.x = torch.randn(3, *case.shape, generator=rng(2), dtype=torch.float64, requires_grad=True)
        self.times = torch.tensor(times, dtype=torch.float64, requires_grad=True)
        self.label = torch.randn(3, 3, generator=rng(3), dtype=torch.float64)
        modules = [self.field, self.encoder, *(c for c in self.costs if isinstance(c, nn.Module))]
        weights = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.leaves = [*weights, self.x, *[self.times] * case.own]

    def values(self, solver):
        cnf = CNF(self.field, self.case.divergence, solver, self.costs)
        context, rest = self.encoder(self.label).chunk(2, 1)
        path = cnf.solve_along(self.x, self.times, context if self.case.context else None, rng(4))
        return path.x, path.logdet, *path.costs, rest

    def loss(self, solver):
        weights = lambda y: torch.linspace(1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
        return sum((y + weights(y) * y.square()).mean() for y in self.values(solver))


@cache
def gradients(name, way, direction):
    problem = Problem(cases[name], directions[direction])
    return pulled(problem.loss(ways[way]), problem.leaves)


def pulled(loss, leaves, **options):
    return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True, **options)


def gap(a, b):
    return max(((u - v).abs().max() / v.abs().max().clamp(min=1)).item() for u, v in zip(a, b, strict=True))


def slope(loss, leaves, h=1e-4):
    """The central difference of a loss along one direction in all leaves, and that direction."""
    steps = [torch.randn(p.shape, generator=rng(5), dtype=p.dtype) for p in leaves]
    ends = []
    with torch.no_grad():
        for shift in (h, -2 * h, h):
            for p, u in zip(leaves, steps, strict=True):
                p += shift * u
            ends.append(loss())
    return (ends[0] - ends[1]) / (2 * h), steps


def assert_slope(loss, leaves, grads, tolerance):
    truth, steps = slope(loss, leaves)
    along = sum((g * u).sum() for g, u in zip(grads, steps, strict=True))
    assert abs(along - truth) < tolerance * max(1, abs(truth))


@every
@saving
@pytest.mark.parametrize("direction", directions)
def test_saving_memory_does_not_change_the_gradient(name, way, direction):
    plain, tolerance = pairs[way]
    if way == "adjoint" and not cases[name].own:
        tolerance = 1e-4
    assert gap(gradients(name, way, direction), gradients(name, plain, direction)) < tolerance


@pytest.mark.parametrize("name", [name for name, case in cases.items() if case.own])
@saving
def test_the_gradient_is_the_central_difference(name, way):
    problem = Problem(cases[name], directions["up"])
    tolerance = 1e-6 if way == "checkpointed" else 1e-4
    assert_slope(lambda: problem.loss(ways[way]), problem.leaves, gradients(name, way, "up"), tolerance)


@every
@saving
def test_forward_values_are_the_same_bit_by_bit(name, way):
    problem = Problem(cases[name], directions["down"])
    values = problem.values(ways[way])
    assert all(map(torch.equal, values, problem.values(ways[pairs[way][0]])))
    with torch.no_grad():
        assert all(map(torch.equal, values, problem.values(ways[way])))


@saving
@pytest.mark.parametrize("context", [0, 2])
def test_decoding_has_the_same_gradient(way, context):
    problem = Problem(Case(lambda: concat_squash(2, (6,), context=context), context=context), (0, 1))

    def loss(way):
        code = problem.encoder(problem.label).chunk(2, 1)[1] if context else None
        return CNF(problem.field, solver=ways[way]).decode(problem.x, code).sin().sum()

    plain, tolerance = pairs[way]
    grads = pulled(loss(way), problem.leaves)
    assert gap(grads, pulled(loss(plain), problem.leaves)) < tolerance
    assert_slope(lambda: loss(way), problem.leaves, grads, 1e-5)


@pytest.mark.parametrize("way", ways)
@pytest.mark.parametrize(("start", "end"), [(0.1, 0.8), (0.9, 0.2)])
@pytest.mark.parametrize("learned", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("costs", [(), (KineticEnergy(),)], ids=["", "cost"])
def test_either_time_of_a_solve_can_be_learned(way, start, end, learned, costs):
    problem = Problem(Case(mlp), (0, 1))
    times = [torch.tensor(t, dtype=torch.float64, requires_grad=k) for t, k in zip((start, end), learned)]
    leaves = [t for t in times if t.requires_grad]

    def loss():
        solution = CNF(problem.field, Exact(), ways[way], costs).solve(problem.x, *times)
        return sum(y.square().sum() for y in (solution.x, solution.logdet, *solution.costs))

    assert_slope(loss, leaves, pulled(loss(), leaves), 1e-5)


def test_nothing_but_what_is_asked_for_needs_to_want_a_gradient():
    problem = Problem(cases["concat_squash"], directions["up"])
    whole = dict(zip(problem.leaves, gradients("concat_squash", "adjoint", "up"), strict=True))
    problem.field.requires_grad_(False)
    problem.times.requires_grad_(False)
    leaves = [problem.x, *problem.encoder.parameters()]
    assert gap(pulled(problem.loss(ways["adjoint"]), leaves), [whole[p] for p in leaves]) < 1e-6


@pytest.mark.parametrize("name", ["MLP", "costs"])
def test_the_adjoint_does_not_depend_on_the_size_of_the_loss(name):
    problem = Problem(cases[name], directions["up"])
    small, plain, large = (
        [g / size for g in pulled(size * problem.loss(ways["adjoint"]), problem.leaves)]
        for size in (1e-6, 1.0, 1e6)
    )
    assert gap(small, plain) < 1e-6 and gap(large, plain) < 1e-6


def swinging(t, x, context=None):
    return 60 * torch.cos(30 * t) * x


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1.0, 1e6])
def test_the_adjoint_s_tolerance_means_the_same_for_any_size_of_the_loss(size):
    """At 0 the state rests, and the adjoint alone, which is exp(2 sin 30), asks for steps."""
    z = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    (grad,) = pulled(size * CNF(swinging, solver=Adaptive(**tight, adjoint=True)).decode(z).sum(), [z])
    assert (grad / size - math.exp(2 * math.sin(30))).abs().max() < 1e-7


def test_a_loss_that_is_flat_has_no_gradient():
    problem = Problem(cases["MLP"], directions["up"])
    assert not any(g.any() for g in pulled(0 * problem.loss(ways["adjoint"]), problem.leaves))


class Counted(nn.Module):
    """A field that counts its calls; ``weight`` moves it at a rate that neither state nor adjoint has."""

    def __init__(self, rate=1.0, size=1.0):
        super().__init__()
        with seeded(1):
            self.net = nn.Linear(2, 2).double()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.rate, self.size, self.calls, self.dtypes = rate, size, 0, set()

    def forward(self, t, x, context=None):
        self.calls += 1
        y = self.net(x)
        self.dtypes.add(y.dtype)
        return (5 + torch.sin(20 * t)) * torch.tanh(y) + self.size * torch.cos(self.rate * t) * self.weight


class Price(NamedTuple):
    """Evaluations: one that looks for hidden tensors; in the backward pass for each step, and to start each stretch."""

    solver: Solver
    looks: int = 0
    step: int = 0
    start: int = 0


prices = {
    "fixed": Price(Fixed(5)),
    "midpoint": Price(Fixed(5, midpoint)),
    "adaptive": Price(Adaptive()),
    "bosh3": Price(Adaptive(bosh3, rtol=1e-3)),
    "checkpointed": Price(Fixed(5, checkpoint=True), 1, 4),
    "checkpointed midpoint": Price(Fixed(5, midpoint, checkpoint=True), 1, 2),
    "adjoint": Price(Adaptive(adjoint=True), 1, 6, 2),
    "adjoint bosh3": Price(Adaptive(bosh3, rtol=1e-3, atol=1e-3, adjoint=True), 1, 3, 2),
}


@pytest.mark.parametrize("price", prices.values(), ids=prices)
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.6, 0.1)])
@pytest.mark.parametrize("learned", [False, True])
def test_work_is_counted_call_by_call(price, times, learned):
    """The adjoint asks for one slope more at each time that is learned."""
    field = Counted()
    times = torch.tensor(times, dtype=torch.float64, requires_grad=learned)
    path = CNF(field, solver=price.solver).solve_along(x, times)
    assert field.calls == path.nfe + price.looks and path.backward == Work()
    field.calls = 0
    (path.x[1:].square().sum() + path.logdet.sum()).backward()
    back = path.backward
    starts = (len(times) - 1) * price.start + len(times) * learned * (price.start > 0)
    assert field.calls == back.nfe == price.step * (back.accepted + back.rejected) + starts
    assert back.accepted >= path.accepted // 3 if price.start else back.accepted in (0, path.accepted)


@pytest.mark.parametrize("price", prices.values(), ids=prices)
def test_without_gradients_nothing_more_is_called(price):
    field = Counted()
    with torch.no_grad():
        assert CNF(field, solver=price.solver).decode_and_logdet(x)[0].isfinite().all()
        calls, field.calls = field.calls, 0
        assert CNF(field, solver=price.solver).solve(x, 0.0, 1.0).nfe == field.calls == calls


def test_rejected_steps_of_the_backward_pass_are_counted():
    field = Counted()
    solution = CNF(field, solver=Adaptive(rtol=1e-3, atol=1e-3, adjoint=True)).solve(x, 0.0, 1.0)
    solution.x.sum().backward()
    accepted, rejected = solution.backward.accepted, solution.backward.rejected
    assert rejected > 0 and solution.backward.nfe == 2 + 6 * (accepted + rejected)


def test_a_report_prints_both_passes():
    def rows():
        return [line.split() for line in solution.report().splitlines()]

    solution = CNF(Counted(), solver=Adaptive(rtol=1e-3, atol=1e-3, adjoint=True)).solve(x, 0.0, 1.0)
    assert rows()[2] == ["backward", "0", "0", "0"]
    solution.x.sum().backward()
    assert rows()[0] == ["evaluations", "accepted", "rejected"] and solution.backward.rejected > 0
    for row, work in zip(rows()[1:], (solution, solution.backward), strict=True):
        assert row[1:] == [str(n) for n in (work.nfe, work.accepted, work.rejected)]


def test_steps_of_the_adjoint_are_chosen_by_state_and_adjoint_alone():
    work = []
    for wanted in (True, False):
        field = Counted(rate=300.0, size=1e6)
        field.weight.requires_grad_(wanted)
        solution = CNF(field, solver=Adaptive(adjoint=True)).solve(x, 0.0, 0.1)
        solution.x.sum().backward()
        work.append(solution.backward)
    assert work[0] == work[1]


def hide_a_net():
    net = mlp().double()
    return lambda t, x, c: net(t, x)


def hide_behind_a_method():
    net = mlp().double()
    return net.forward


def hide_a_weight_made_outside():
    weight = nn.Linear(2, 2).double()(torch.eye(2).double())
    return lambda t, x, c: torch.tanh(x @ weight)


class Half(nn.Module):
    """A field of its own net and another that it does not own."""

    def __init__(self):
        super().__init__()
        self.net, self.others = mlp().double(), [mlp().double()]

    def forward(self, t, x, context=None):
        return self.net(t, x) + self.others[0](t, x)


hidden = {
    "net": hide_a_net,
    "method": hide_behind_a_method,
    "weight": hide_a_weight_made_outside,
    "part": Half,
}
hides = pytest.mark.parametrize("hide", hidden.values(), ids=hidden)


@hides
@saving
@pytest.mark.parametrize("call", ["decode_and_logdet", "decode"])
def test_a_tensor_that_the_solver_would_not_see_is_refused(hide, way, call):
    with pytest.raises(ValueError, match="Expected every tensor"):
        getattr(CNF(hide(), solver=ways[way]), call)(x)


@hides
@pytest.mark.parametrize("way", ways)
def test_a_hidden_tensor_matters_only_where_it_wants_a_gradient(hide, way):
    cnf = CNF(hide(), solver=ways[way])
    with torch.no_grad():
        values = cnf.decode_and_logdet(x)
    assert all(y.isfinite().all() for y in values)
    if way not in pairs:
        assert all(map(torch.equal, cnf.decode_and_logdet(x), values))


@saving
def test_a_hidden_tensor_without_a_gradient_is_a_constant(way):
    net = mlp().double().requires_grad_(False)
    leaf = x.clone().requires_grad_()
    solve = lambda way: pulled(
        CNF(lambda t, x, c: net(t, x), solver=ways[way]).decode_and_logdet(leaf)[0].sum(), [leaf]
    )
    assert gap(solve(way), solve(pairs[way][0])) < pairs[way][1]


@saving
def test_a_sibling_of_the_context_is_refused_too(way):
    """Both halves come from one node of the graph; only one of them is the context."""
    context, other = nn.Linear(2, 4).double()(x).chunk(2, 1)
    with pytest.raises(ValueError, match="Expected every tensor"):
        CNF(lambda t, x, c: torch.tanh(other * x + c), solver=ways[way]).decode_and_logdet(x, context)


class Embedding(nn.Module):
    """A field that also holds what its context is made of."""

    def __init__(self):
        super().__init__()
        self.net, self.code = mlp(context=2).double(), nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, t, x, context):
        return self.net(t, x, context)


@saving
@pytest.mark.parametrize("make", [lambda c: c.expand(3, 2), lambda c: c * x], ids=["expanded", "multiplied"])
def test_a_context_made_of_the_field_s_own_parameters_is_counted_once_or_refused(way, make):
    field = Embedding()

    def gradient(way):
        return pulled(
            CNF(field, solver=ways[way]).decode_and_logdet(x, make(field.code))[0].sum(), [field.code]
        )

    try:
        grads = gradient(way)
    except ValueError as error:
        assert "context" in str(error)
    else:
        assert gap(grads, gradient(pairs[way][0])) < pairs[way][1]


@saving
def test_a_context_that_is_a_parameter_of_the_field_is_counted_once(way):
    field = Embedding()
    field.code = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    grads = [
        pulled(CNF(field, solver=solver).decode_and_logdet(x, field.code)[0].sum(), [field.code])
        for solver in (ways[way], ways[pairs[way][0]])
    ]
    assert gap(*grads) < pairs[way][1]


@saving
def test_parameters_swapped_for_the_forward_pass_alone_are_refused(way):
    cnf = CNF(mlp().double(), solver=ways[way])
    others = {name: p.detach().clone().requires_grad_() for name, p in cnf.named_parameters()}
    y, _ = torch.func.functional_call(cnf, others, (x,))
    with pytest.raises(ValueError, match="Expected every tensor"):
        y.sum().backward()


@saving
def test_hooks_on_parameters_are_refused_which_would_run_at_every_step(way):
    cnf = CNF(mlp().double(), solver=ways[way])
    handle = next(cnf.parameters()).register_hook(lambda g: 2 * g)
    with pytest.raises(ValueError, match="Expected no gradient hooks"):
        cnf.decode_and_logdet(x)
    handle.remove()

    def doubled(p):
        p.grad *= 2

    next(cnf.parameters()).register_post_accumulate_grad_hook(doubled)
    cnf.decode_and_logdet(x)[1].sum().backward()
    once = CNF(cnf.field, solver=ways[pairs[way][0]])
    (plain,) = pulled(once.decode_and_logdet(x)[1].sum(), [next(cnf.parameters())])
    assert gap([next(cnf.parameters()).grad / 2], [plain]) < pairs[way][1]


@saving
def test_parameters_swapped_over_frozen_ones_are_refused(way):
    cnf = CNF(mlp().double(), solver=ways[way]).requires_grad_(False)
    others = {name: p.detach().clone().requires_grad_() for name, p in cnf.named_parameters()}
    y, _ = torch.func.functional_call(cnf, others, (x,))
    with pytest.raises(ValueError, match="same parameters in the backward pass.*functional_call"):
        y.sum().backward()


@saving
def test_parameters_used_at_some_times_only_are_no_mistake(way):
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            with seeded():
                self.late, self.early = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()

        def forward(self, t, x, context=None):
            return torch.tanh(self.early(x)) if t < 0.5 else torch.sin(self.late(x))

    field = Halves()
    grads = [
        pulled(CNF(field, solver=solver).decode_and_logdet(x)[1].sum(), list(field.parameters()))
        for solver in (ways[way], ways[pairs[way][0]])
    ]
    assert gap(*grads) < (1e-12 if way == "checkpointed" else 1e-5)


@saving
def test_a_retained_gradient_of_the_context_is_refused(way):
    cnf, context = CNF(mlp(context=2).double(), solver=ways[way]), nn.Linear(2, 2).double()(x)
    context.retain_grad()
    with pytest.raises(ValueError, match=r"retain_grad\(\)"):
        cnf.decode_and_logdet(x, context)


@saving
def test_a_hook_set_between_the_passes_is_refused(way):
    cnf = CNF(mlp().double(), solver=ways[way])
    y, _ = cnf.decode_and_logdet(x)
    next(cnf.parameters()).register_hook(lambda g: 2 * g)
    with pytest.raises(ValueError, match="Expected no gradient hooks"):
        y.sum().backward()


def test_a_loss_that_is_not_finite_is_named_by_the_adjoint():
    y, _ = CNF(mlp().double(), solver=ways["adjoint"]).decode_and_logdet(x)
    with pytest.raises(SolveError, match="gradient with NaN or inf from the loss"):
        (y.sum() * torch.nan).backward()


losses = {"curved": lambda y: y.square().sum(), "straight": lambda y: y.sum()}


@saving
@pytest.mark.parametrize("loss", losses.values(), ids=losses)
def test_a_gradient_of_a_gradient_is_refused(way, loss):
    """A straight loss sends a constant back, and its gradient would pass for a constant too."""
    leaf = x.clone().requires_grad_()
    y = CNF(mlp().double(), solver=ways[way]).decode(leaf)
    with pytest.raises(RuntimeError, match="twice|create_graph"):
        (grad,) = pulled(loss(y), [leaf], create_graph=True)
        (grad.square().sum() + leaf.sum()).backward()


@pytest.mark.parametrize("solver", [Fixed(4), Adaptive(rtol=1e-7, atol=1e-7)], ids=["fixed", "adaptive"])
def test_backpropagation_has_a_second_derivative(solver):
    problem = Problem(cases["MLP"], (0, 1))
    cnf, leaves = CNF(problem.field, solver=solver), [problem.x, *problem.field.parameters()]

    def steepness(create_graph=False):
        with torch.enable_grad():
            y, logdet = cnf.decode_and_logdet(problem.x)
            (grad,) = pulled(y.sin().sum() + logdet.sum(), [problem.x], create_graph=create_graph)
        return grad.square().sum()

    assert_slope(steepness, leaves, pulled(steepness(True), leaves), 1e-4)


def test_a_backward_solve_that_gives_up_says_that_it_was_the_backward_pass():
    """At 0 nothing moves forward in time, and the adjoint swings."""
    z = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    y = CNF(swinging, solver=Adaptive(max_steps=20, adjoint=True)).decode(z)
    with pytest.raises(SolveError, match=r"(?s)backward pass.*stopped at t = .*max_steps.*tol"):
        y.sum().backward()


def test_a_nan_from_the_loss_is_an_error_of_the_backward_pass():
    field = mlp().double()
    y, _ = CNF(field, solver=Adaptive(adjoint=True)).decode_and_logdet(x)
    with pytest.raises(SolveError, match=r"(?s)backward pass.*NaN"):
        (torch.nan * y.sum()).backward()


class Memory(TorchDispatchMode):
    """Bytes of tensors made while it is in force: those alive, and the most that ever were."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.seen, self.calls = set(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append(func)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.watch(tensor.untyped_storage())
        return out

    def watch(self, storage):
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.drop, key, storage.nbytes())

    def drop(self, key, size):
        self.seen.discard(key)
        self.live -= size


class Taken(NamedTuple):
    """The most bytes beyond parameters and data, and the steps accepted forward and backward."""

    peak: int
    accepted: int
    back: int


@cache
def taken(solver):
    with seeded(1):
        field = EndTime(MLP(2, (64, 64, 64), time_frequencies=3), 4.0)
        points = torch.randn(256, 2)
    with Memory() as memory:
        solution = CNF(field, solver=solver).solve(points, 0.0, 1.0)
        loss = solution.x.square().mean() - solution.logdet.mean()
        before = len(memory.calls)
        loss.backward()
    assert torch.ops.aten.mm.default in memory.calls[before:]
    return Taken(memory.peak, solution.accepted, solution.backward.accepted)


def test_memory_is_seen_as_it_comes_and_goes():
    weight = torch.randn(1000, 1000, requires_grad=True)
    size = weight.untyped_storage().nbytes()
    with Memory() as memory:
        y = weight.exp()
        assert memory.live == memory.peak == size and y.view(-1).shape and memory.live == size
        del y
        assert memory.live == 0 and memory.peak == size
        loss = weight.exp().sin().sum()
        assert [memory.live, memory.peak] == pytest.approx([size, 2 * size], abs=100)
        loss.backward()
        assert memory.live == pytest.approx(size, abs=100) and 3 * size <= memory.peak < 5 * size
    weight.grad = None
    assert memory.live < 100


STATE = 256 * (2 + 1) * 4


def test_backpropagation_keeps_every_step():
    one, five, twenty = (taken(Fixed(n)).peak for n in (1, 5, 20))
    assert 4 < five / one < 6 and 3.6 < twenty / five < 4.4


def test_a_checkpoint_keeps_a_state_for_each_step_and_the_graph_of_one():
    graph = taken(Fixed(1)).peak
    for steps in (1, 10, 40):
        assert taken(Fixed(steps, checkpoint=True)).peak < steps * STATE + 1.2 * graph
    growth = (taken(Fixed(40, checkpoint=True)).peak - taken(Fixed(10, checkpoint=True)).peak) / 30
    assert STATE <= growth < 1.2 * STATE


def test_memory_of_the_adjoint_does_not_grow_with_the_steps():
    few, many = (taken(Adaptive(bosh3, tol, tol, adjoint=True)) for tol in (3e-3, 3e-5))
    assert few.accepted < 15 and many.accepted > 40 and many.back > 3 * few.back
    assert many.peak < 1.2 * few.peak
    assert taken(Adaptive(bosh3, 3e-3, 3e-3)).peak > 5 * few.peak


bfloat16 = partial(torch.autocast, "cpu", torch.bfloat16)


def half(solver, enabled=True, divergence=exact):
    with seeded(1):
        field, points = MLP(2, (8, 2, 8)), torch.randn(16, 2)
    cnf = CNF(field, divergence, solver)
    with bfloat16(enabled=enabled):
        solution = cnf.solve(points, 0.0, 1.0, generator=rng())
        loss = solution.x.square().mean() + solution.logdet.mean()
    return pulled(loss, list(field.parameters()))


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson(), HutchPP(), Bottleneck()])
def test_autocast_reaches_the_backward_pass(divergence):
    """Of a single step the graph computed again is the graph; over many, sums in bfloat16 round in another order."""
    run = partial(half, divergence=divergence)
    assert (
        gap(run(Fixed(1, euler, checkpoint=True)), run(Fixed(1, euler)))
        < 1e-6
        < gap(run(Fixed(1)), run(Fixed(1), False))
    )
    assert gap(run(Fixed(10, checkpoint=True)), run(Fixed(10))) < 0.02
    coarse = {"rtol": 1e-3, "atol": 1e-3}
    assert gap(run(Adaptive(**coarse, adjoint=True)), run(Adaptive(**coarse), False)) < 0.05
    assert all(g.isfinite().all() and g.any() for g in run(Adaptive(**coarse, adjoint=True)))


@saving
@pytest.mark.parametrize("cast", [True, False])
def test_the_backward_pass_computes_in_the_dtype_of_the_forward_pass(way, cast):
    field = Counted().float()
    with bfloat16(enabled=cast):
        solver = {"checkpointed": Fixed(3, checkpoint=True), "adjoint": Adaptive(adjoint=True)}[way]
        y, _ = CNF(field, solver=solver).decode_and_logdet(x.float())
    forward, field.dtypes = field.dtypes, set()
    with bfloat16(enabled=not cast):
        y.sum().backward()
    assert field.dtypes == forward == {torch.bfloat16 if cast else torch.float32}
    assert field.net.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("way", ways)
def test_every_solver_has_two_ways_and_can_be_pickled(way):
    solver = ways[way]
    others = alternatives(solver)
    assert list(others) == ["backprop", "adjoint" if way in ("adaptive", "adjoint") else "checkpoint"]
    assert pickle.loads(pickle.dumps(solver)) == solver and solver in others.values()
    assert others["backprop"] == ways[pairs.get(way, (way,))[0]]
    assert list(others.values())[1] in [ways[name] for name in pairs]
    for other in others.values():
        same = [CNF(mlp_of_one, solver=s).decode_and_logdet(x)[0] for s in (solver, other)]
        assert torch.equal(*same)


def mlp_of_one(t, x, context=None):
    return torch.tanh(x) * (1 + t)


@pytest.mark.parametrize("foreign", [lambda rhs, state, times, inputs=(): None, partial(print, end=""), None])
def test_a_foreign_solver_has_no_other_way(foreign):
    assert alternatives(foreign) == {}


def flow(solver, divergence=exact, field=None, **options):
    with seeded(1):
        return Flow(CNF(field or MLP(2, (4,)), divergence, solver, **options), StandardNormal(2))


@pytest.mark.parametrize(
    "solver", [Fixed(3), Fixed(3, checkpoint=True), Adaptive(), Adaptive(adjoint=True)], ids=ways
)
def test_the_audit_passes_every_way_to_differentiate_a_solve(solver):
    report = audit_gradients(flow(solver, costs=(KineticEnergy(),)), torch.eye(2))
    report.raise_for_faults()
    other = next(name for name in alternatives(solver) if name != "backprop")
    checks = [finding.check for finding in report.findings]
    assert checks[-1] == f"{other} = backprop" and len(checks) == 2 * (4 + 1) + 2
    assert all(f"gradient of x, by {way}" in checks for way in ("backprop", other))


def test_the_audit_passes_an_estimate_whose_gradient_is_right_in_expectation():
    report = audit_gradients(flow(Fixed(1, midpoint, checkpoint=True), HutchPP()), torch.eye(2))
    report.raise_for_faults()
    assert any("mean gradient" in finding.check for finding in report.findings)


def detached(x, generator=None):
    estimator = Exact()(x, generator)
    return lambda *args: (local := estimator(*args))._replace(divergence=local.divergence.detach())


@pytest.mark.parametrize(
    "solver",
    [Fixed(3), Fixed(3, checkpoint=True), Adaptive(adjoint=True)],
    ids=["fixed", "checkpointed", "adjoint"],
)
def test_the_audit_catches_a_divergence_that_detaches(solver):
    with pytest.raises(AuditError, match="gradient of bijection.field"):
        audit_gradients(flow(solver, detached), torch.eye(2)).raise_for_faults()


@saving
def test_the_audit_names_a_hidden_tensor(way):
    net = mlp().double()
    report = audit_gradients(flow(ways[way], field=lambda t, x, c: net(t, x)), torch.eye(2))
    (fault,) = report.faults
    assert fault.check in ("gradient by adjoint", "gradient by checkpoint") and "(6, 3)" in fault.hint


@saving
def test_the_audit_names_inputs_that_were_dropped(way, monkeypatch):
    monkeypatch.setattr("cnflib.continuous.cnf.inputs_of", lambda owner, context: ())
    (fault,) = audit_gradients(flow(ways[way]), torch.eye(2)).faults
    assert "gradient by" in fault.check and "Expected every tensor" in fault.hint


@saving
def test_the_audit_catches_two_ways_that_disagree(way, monkeypatch):
    module = {"checkpointed": "checkpoint", "adjoint": "adjoint"}[way]
    wrong = lambda *args: tuple(0.99 * g for g in vjps(*args))  # noqa: E731
    monkeypatch.setattr(f"cnflib.ode.{module}.vjps", wrong)
    faults = [fault.check for fault in audit_gradients(flow(ways[way]), torch.eye(2)).faults]
    assert any("= backprop" in check for check in faults)
    assert any(f"by {way.removesuffix('ed')}" in check for check in faults)
