"""Fields with time in every layer, their own tangents and factors, and products with the Jacobian in both modes."""

import pytest
import torch
from registry import Member, built, points, rng, seeded
from torch import nn
from torch.func import functional_call, jacrev, jvp, vmap

from cnflib import Flow, StandardNormal
from cnflib._field import uniform
from cnflib.audit import audit_gradients
from cnflib.continuous import (
    CNF,
    Automatic,
    Bottleneck,
    EndTime,
    Exact,
    ForwardMode,
    ReverseMode,
    concat,
    concat_squash,
    convolutional,
    random_end,
)
from cnflib.continuous.products import factors, has_tangents
from cnflib.nets import MLP, push
from cnflib.ode import Adaptive, Fixed

t = torch.tensor(0.3, dtype=torch.float64)
smooth = {"tanh": nn.Tanh, "SiLU": nn.SiLU, "softplus": nn.Softplus, "sharp": lambda: nn.Softplus(beta=3.0)}
others = {"GELU": nn.GELU, "PReLU": nn.PReLU, "RMS norm": lambda: nn.RMSNorm(5)}
fields = {
    **{f"MLP {k}": Member(lambda a=a: MLP(3, (5, 5), activation=a), (3,)) for k, a in {**smooth, **others}.items()},
    "MLP context": Member(lambda: MLP((2, 3), (5,), context=2), (2, 3), 2),
    "MLP features": Member(lambda: MLP(2, (5,), 2, 2, 4, 0.3), (2,), 2),
    "MLP linear": Member(lambda: MLP(2, ())),
    "concat": Member(lambda: concat((2, 2), (5, 4)), (2, 2)),
    "concat context": Member(lambda: concat(3, (5, 4), context=2), (3,), 2),
    "concat-squash": Member(lambda: concat_squash(3, (5, 4), activation=nn.GELU), (3,)),
    "concat-squash context": Member(lambda: concat_squash((2, 2), (5, 4), context=2), (2, 2), 2),
    "concat-squash linear": Member(lambda: concat_squash(3, ()), (3,)),
    "convolutional": Member(lambda: convolutional((2, 4, 3), (3, 3)), (2, 4, 3)),
    "convolutional context": Member(lambda: convolutional((1, 2, 2), (3,), context=2, gated=False), (1, 2, 2), 2),
    "convolutional wide": Member(lambda: convolutional((1, 3, 3), (2,), kernel=5, activation=nn.Tanh), (1, 3, 3)),
    "end time": Member(lambda: EndTime(concat_squash(3, (5,)), 0.5), (3,)),
    "end time of another": Member(lambda: EndTime(Plain(), 2.0), (3,)),
}  # fmt: skip
every = pytest.mark.parametrize("name", fields)


class Plain(nn.Module):
    """A field that offers nothing but its value."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 3)

    def forward(self, t, x, context=None):
        return t * torch.sin(self.net(x))


def setup(name, n=4):
    return built(fields[name]), *points(fields[name], n)


def jacobian(field, x, context, time=t):
    """The Jacobian of each row alone, shape (B, D, D), by reverse mode through the value only."""
    rows = [jacrev(lambda y: field(time, y, c))(row[None]) for row, c in split(x, context)]
    return torch.stack([J.reshape(x[0].numel(), x[0].numel()) for J in rows])


def split(x, context):
    return [(x[i], None if context is None else context[i : i + 1]) for i in range(len(x))]


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every
@pytest.mark.parametrize("product", [ForwardMode(), ReverseMode(), Automatic()])
@pytest.mark.parametrize("kind", ["one", "many", "axes"])
def test_products_are_those_of_the_jacobian(name, product, kind):
    field, x, context = setup(name)
    J, dim = jacobian(field, x, context), x[0].numel()
    if kind == "axes":
        directions = torch.eye(dim, dtype=x.dtype).reshape(dim, 1, *x.shape[1:])
    else:
        directions = torch.randn(1 if kind == "one" else 3, *x.shape, generator=rng(5), dtype=x.dtype)
    velocity, products = product(field, t, x, context, directions)
    M = J if product == ForwardMode() or (product == Automatic() and has_tangents(field)) else J.mT
    wanted = torch.einsum("bij,kbj->kbi", M, directions.expand(-1, *x.shape).flatten(2))
    assert_close(velocity, field(t, x, context))
    assert_close(products.flatten(2), wanted)


@every
def test_tangents_have_the_gradient_of_the_jacobian(name):
    """Gradients of a trace by the two modes agree, in parameters, x, t and context."""
    field, x, context = setup(name)
    time = t.clone().requires_grad_()
    leaves = [
        *field.parameters(),
        x.requires_grad_(),
        time,
        *([] if context is None else [context.requires_grad_()]),
    ]
    v = torch.randn(2, *x.shape, generator=rng(6), dtype=x.dtype)
    grads = []
    for product in (ForwardMode(), ReverseMode()):
        velocity, products = product(field, time, x, context, v)
        loss = (v * products).sum() + velocity.square().sum()
        grads.append(torch.autograd.grad(loss, leaves, allow_unused=True))
    for a, b in zip(*grads, strict=True):
        assert_close(torch.zeros(()) if a is None else a, torch.zeros_like(a) if b is None else b, 1e-11)


@every
def test_one_time_for_all_rows_is_the_same_time_for_each(name):
    field, x, context = setup(name)
    if name == "end time of another":
        pytest.skip("it takes one time for all rows")
    times = torch.tensor([0.1, 0.5, 0.9, 0.2], dtype=torch.float64)
    assert_close(field(t, x, context), field(t.expand(4), x, context))
    rows = [field(times[i], row[None], c) for i, (row, c) in enumerate(split(x, context))]
    assert_close(field(times, x, context), torch.cat(rows))
    v = torch.randn(2, *x.shape, generator=rng(6), dtype=x.dtype)
    assert_close(ForwardMode()(field, t, x, context, v), ForwardMode()(field, t.expand(4), x, context, v))


@every
def test_gradient_reaches_every_parameter_and_time(name):
    field, x, context = setup(name)
    loss = (field(t, x, context) * torch.randn(x.shape, generator=rng(), dtype=x.dtype)).sum()
    assert all(g.any() for g in torch.autograd.grad(loss, list(field.parameters())))
    assert (field(t + 0.1, x, context) != field(t, x, context)).any()
    assert context is None or (field(t, x, context + 0.1) != field(t, x, context)).any()


@pytest.mark.parametrize("name", [n for n in fields if n not in ("end time of another",)])
def test_factors_compose_to_the_field(name):
    field, x, context = setup(name)
    h, g = factors(field, t, context)
    assert_close(g(h(x)), field(t, x, context))


@pytest.mark.parametrize(
    ("net", "width"),
    [
        (MLP(3, (9, 2, 7)), 2),
        (MLP(3, (9, 7)), 7),
        (concat_squash(3, (9, 2, 7)), 2),
        (concat(3, (2, 9)), 2),
    ],
)
def test_factors_meet_at_the_narrowest_layer(net, width):
    h, _ = factors(net, torch.tensor(0.3), None)
    assert h(torch.zeros(5, 3)).shape == (5, width)


def test_concat_squash_with_a_learnable_end_time_has_ffjords_number_of_parameters():
    """9,225 for 64-64-64 in two dimensions, the end time included."""
    field = EndTime(concat_squash(2, (64, 64, 64)), 0.5)
    assert sum(p.numel() for p in field.parameters()) == 9225


def test_concat_appends_time_to_the_input_of_every_layer():
    field = concat(2, (3,)).double()
    x = torch.randn(4, 2, generator=rng(), dtype=torch.float64)
    h = x
    for layer, last in zip(field.layers, (False, True), strict=True):
        joined = torch.cat([layer.affine.weight, layer.shift.weight], 1)
        h = torch.cat([h, t.expand(4, 1)], 1) @ joined.T + layer.affine.bias
        h = h if last else torch.tanh(h)
    assert_close(field(t, x), h)


def test_concat_squash_gates_and_shifts_every_layer():
    field = concat_squash(2, ()).double()
    (layer,) = field.layers
    x = torch.randn(4, 2, generator=rng(), dtype=torch.float64)
    gate = torch.sigmoid(layer.gate.weight[:, 0] * t + layer.gate.bias)
    assert_close(
        field(t, x), (x @ layer.affine.weight.T + layer.affine.bias) * gate + layer.shift.weight[:, 0] * t
    )


def test_a_convolutional_field_is_local():
    """Two layers of 3 × 3 kernels see two pixels far, and no farther."""
    field = convolutional((1, 9, 9), (2,)).double()
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    bump = x.clone()
    bump[0, 0, 4, 4] = 1
    reached = (field(t, bump) != field(t, x))[0, 0]
    assert reached[2:7, 2:7].all() and reached.sum() == 25


@pytest.mark.parametrize("end", [0.25, 1.0, 3.0])
def test_an_end_time_is_a_solve_to_that_time(end):
    """x' = x sin t run to T: log x grows by 1 - cos T."""
    field = EndTime(lambda t, x, c: x * torch.sin(t), end).double()
    x = torch.ones(2, 1, dtype=torch.float64)
    solution = CNF(field, solver=Fixed(40)).solve(x, 0.0, 1.0)
    growth = 1 - torch.cos(torch.tensor(end, dtype=torch.float64))
    assert_close(solution.x.log(), growth.expand(2, 1), 1e-7)
    (slope,) = torch.autograd.grad(solution.logdet[0], field.log_end)
    assert_close(slope, end * torch.sin(torch.tensor(end, dtype=torch.float64)), 1e-6)


@pytest.mark.parametrize("call", ["encode", "encode_and_logdet"])
def test_an_end_time_runs_a_field_of_two_arguments_or_three(call):
    x, context = torch.randn(3, 2, generator=rng(1)).double(), torch.randn(3, 1, generator=rng(2)).double()
    two = getattr(CNF(EndTime(lambda t, x: torch.sin(x), 0.5).double(), solver=Fixed(4)), call)
    three = getattr(CNF(EndTime(lambda t, x, c: c * torch.sin(x), 0.5).double(), solver=Fixed(4)), call)
    assert all(map(torch.equal, two(x), three(x, torch.ones_like(context))))
    assert not torch.equal(three(x, context)[0], two(x)[0])


def test_an_end_time_keeps_to_the_field_it_has_now():
    end = EndTime(lambda t, x: x, 2.0)
    end.field = lambda t, x: -x
    assert_close(end(torch.tensor(0.5), torch.ones(1, 1)), torch.tensor([[-2.0]]), 1e-6)


def test_an_end_time_is_learned():
    """The data have variance e², which the field x' = x reaches at T = 1."""
    x = torch.randn(4000, 1, generator=rng()) * 2.718281828
    field = EndTime(lambda t, x, c: x, 0.4)
    flow = Flow(CNF(field, solver=Fixed(4)), StandardNormal(1))
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    assert abs(field.log_end.exp().item() - x.std().log().item()) < 0.02


def test_a_random_end_is_uniform_around_one_and_trains_the_field_alone():
    net = MLP(2, (4,))
    generator = rng()
    ends = torch.stack([random_end(net, 0.5, generator).log_end.detach().exp() for _ in range(4000)])
    assert ends.min() > 0.5 and ends.max() < 1.5
    assert abs(ends.mean() - 1) < 4 * 0.5 / 3**0.5 / 4000**0.5
    assert abs(ends.std() - 0.5 / 3**0.5) < 0.01
    random = random_end(net, 0.5, generator)
    assert all(p.requires_grad for p in net.parameters()) and not random.log_end.requires_grad
    CNF(random, solver=Fixed(2)).solve(torch.randn(3, 2), 1.0, 0.0).logdet.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    with seeded():
        first = random_end(net, 0.5).log_end
    with seeded():
        assert torch.equal(first, random_end(net, 0.5).log_end)


inside = {
    "pre-hook": lambda f: f.net[0].register_forward_pre_hook(lambda m, args: (2 * args[0],)),
    "pre-hook of an activation": lambda f: f.net[1].register_forward_pre_hook(lambda m, args: (2 * args[0],)),
    "hook": lambda f: f.net.register_forward_hook(lambda m, args, out: 2 * out),
    "hook of the embedding": lambda f: f.embed.register_forward_hook(lambda m, args, out: 2 * out),
    "forward of its own": lambda f: setattr(
        f.net[0], "forward", lambda h: 2 * nn.functional.linear(h, f.net[0].weight)
    ),
}


@pytest.mark.parametrize("change", inside.values(), ids=inside)
def test_what_intercepts_a_layer_reaches_the_logdet(change):
    with seeded():
        net = MLP(2, (4,)).double()
    change(net)
    x = torch.randn(3, 2, generator=rng(), dtype=torch.float64)
    cnf = CNF(net, solver=Fixed(8))
    plain = CNF(lambda t, x, c: net(t, x, c), solver=Fixed(8))
    assert_close(cnf.solve(x, 0.0, 1.0)[:2], plain.solve(x, 0.0, 1.0)[:2])
    assert_close(cnf.decode(x), cnf.decode_and_logdet(x)[0])


class Renamed(MLP):
    """Changes the value and forgets the tangents it inherits."""

    def forward(self, t, x, context=None):
        return 2 * super().forward(t, x, context)


class Whole(Renamed):
    def jvp(self, t, x, context, directions):
        velocity, products = super().jvp(t, x, context, directions)
        return 2 * velocity, 2 * products


class Duck:
    """No module at all, but with tangents of its own."""

    def __call__(self, t, x, context=None):
        return torch.sin(x)

    def jvp(self, t, x, context, directions):
        return torch.sin(x), torch.cos(x) * directions


@pytest.mark.parametrize(
    ("field", "offered"),
    [(MLP(2), True), (Renamed(2), False), (Whole(2), True), (Plain(), False), (Duck(), True), (torch.sin, False),
     (EndTime(MLP(2)), True), (EndTime(Plain()), False), (EndTime(Duck()), True)],
)  # fmt: skip
def test_tangents_count_only_if_they_belong_to_the_value_in_use(field, offered):
    assert has_tangents(field) == has_tangents(uniform(field)) == offered


class Held(nn.Module):
    """A field with another in its attribute ``field``, whose tangents are not its own."""

    def __init__(self):
        super().__init__()
        self.field = MLP(3)

    def forward(self, t, x):
        return -self.field(t, x)


@pytest.mark.parametrize("product", [ForwardMode(), ReverseMode(), Automatic()])
def test_a_field_inside_of_another_does_not_stand_for_it(product):
    held, x = Held().double(), torch.randn(4, 3, generator=rng(), dtype=torch.float64)
    directions = torch.eye(3).double().reshape(3, 1, 3)
    for field in (held, uniform(held)):
        velocity, products = product(field, t, x, None, directions)
        inner, columns = product(held.field, t, x, None, directions)
        assert_close(velocity, -inner)
        assert_close(products.diagonal(dim1=0, dim2=2).sum(1), -columns.diagonal(dim1=0, dim2=2).sum(1))


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_on_the_field_is_not_passed_over(hook):
    net = MLP(2, (4,)).double()
    handle = getattr(net, hook)(lambda module, args, *out: tuple(3 * o for o in out)[0] if out else None)
    assert not has_tangents(net)
    x = torch.randn(3, 2, generator=rng(), dtype=torch.float64)
    velocity, _ = Automatic()(net, t, x, None, torch.ones(1, 3, 2).double())
    assert_close(velocity, net(t, x))
    handle.remove()
    assert has_tangents(net)


@pytest.mark.parametrize(
    "field", [Renamed(2, (4,)), Whole(2, (4,)), Duck()], ids=["renamed", "whole", "duck"]
)
def test_a_subclass_has_the_divergence_of_its_own_value(field):
    field = field.double() if isinstance(field, nn.Module) else field
    x = torch.randn(3, 2, generator=rng(), dtype=torch.float64)
    whole = CNF(field, solver=Fixed(8)).solve(x, 0.0, 1.0)
    plain = CNF(lambda t, x, c: field(t, x, c), solver=Fixed(8)).solve(x, 0.0, 1.0)
    assert_close(whole[:2], plain[:2])


def test_an_ensemble_of_fields_is_vmapped_over_its_parameters():
    net = MLP(2, (4,)).double()
    stacks = {k: torch.stack([v, 2 * v]) for k, v in net.named_parameters()}
    x, v = torch.randn(2, 3, 2, generator=rng(), dtype=torch.float64)

    def products(parameters):
        return functional_call(net, {k: p.detach() for k, p in parameters.items()}, (t, x))

    both = vmap(products)(stacks)
    assert_close(both[0], net(t, x))
    assert v.shape == (3, 2) and (both[1] != both[0]).any()


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.InstanceNorm1d])
def test_a_layer_whose_tangents_have_a_wrong_gradient_is_trained_in_reverse_mode(norm):
    net = MLP(3, (5, 5), activation=lambda: norm(5)).double()
    x = torch.randn(2, 3, generator=rng(), dtype=torch.float64)
    assert not has_tangents(net)
    for divergence in (Exact(ForwardMode()), Bottleneck()):
        with pytest.raises(ValueError, match=rf"contains {norm.__name__}.*product=ReverseMode"):
            CNF(net, divergence, Fixed(1)).solve(x, 0.0, 1.0)
    flow = Flow(CNF(MLP(3, (5, 5), activation=lambda: nn.LayerNorm(5)), solver=Fixed(1)), StandardNormal(3))
    audit_gradients(flow, x).raise_for_faults()


wrong = {
    "end 0": (lambda: EndTime(MLP(2), 0.0), "Expected end"),
    "end NaN": (lambda: EndTime(MLP(2), float("nan")), "Expected end"),
    "end of no field": (lambda: EndTime(MLP), "Expected field"),
    "labels": (
        lambda: concat(3, context=2)(t, torch.zeros(2, 3), torch.tensor([0, 1])),
        "Expected context",
    ),
    "context of other features": (
        lambda: concat(3, context=2)(t, torch.zeros(2, 3), torch.zeros(2, 1)),
        "Expected context",
    ),
    "context of other dtype": (
        lambda: concat_squash(3, context=2)(t, torch.zeros(2, 3), torch.zeros(2, 2).double()),
        "Expected context",
    ),
    "spread 1": (lambda: random_end(MLP(2), 1.0), "Expected spread"),
    "image of two axes": (lambda: convolutional((4, 4)), "Expected shape"),
    "no context": (lambda: concat(3, context=2)(t, torch.zeros(2, 3)), "Expected a context of"),
    "context": (lambda: concat_squash(3)(t, torch.zeros(2, 3), torch.zeros(2, 1)), "Expected no context"),
    "no factors": (lambda: factors(Plain(), t, None), r"factors\(t, context\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_a_wrong_argument_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def hooked():
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda module, args, out: out**2)
    return layer


layers = {
    "linear": (lambda: nn.Linear(3, 2), (3,)),
    "hooked linear": (hooked, (3,)),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)).eval(), (3,)),
    "convolution": (lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 5, 5)),
    "circular convolution": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 5)),
    "sharp softplus": (lambda: nn.Softplus(beta=2.0), (3,)),
    "ELU": (nn.ELU, (3,)),
    "identity": (nn.Identity, (3,)),
    "function": (lambda: torch.sin, (3,)),
}


@pytest.mark.parametrize(("build", "shape"), layers.values(), ids=layers)
@pytest.mark.parametrize("rows", [1, 4])
def test_a_layer_carries_tangents_as_forward_mode_does(build, shape, rows):
    with seeded():
        layer = build()
    layer = layer.double() if isinstance(layer, nn.Module) else layer
    h = torch.randn(4, *shape, generator=rng(), dtype=torch.float64)
    dh = torch.randn(3, rows, *shape, generator=rng(1), dtype=torch.float64)
    wanted = torch.stack([jvp(layer, (h,), (v.expand(4, *shape).contiguous(),))[1] for v in dh])
    value, tangents = push(layer, h, dh)
    assert_close(value, layer(h))
    assert_close(tangents.expand_as(wanted), wanted)


def test_a_tangent_of_wrong_shape_is_refused():
    class Short(Duck):
        def jvp(self, t, x, context, directions):
            return torch.sin(x), directions[..., :1]

    with pytest.raises(ValueError, match="Expected field"):
        CNF(Short(), solver=Adaptive()).solve(torch.zeros(3, 2), 0.0, 1.0)
