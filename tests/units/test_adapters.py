"""The laws of adapters: another library's net is called as it wants to be, and a flow is a torch distribution."""

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import pytest
import torch
from registry import devices, rng, seeded
from torch import Size, Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    ExpTransform,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
)
from torch.func import jacfwd, jacrev, jvp, vmap

from cnflib import Bijection, DiagonalNormal, Flow, Standardize, StandardNormal
from cnflib.adapters import (
    Adapted,
    FlowDistribution,
    data_first,
    given,
    time_as_feature,
    time_first,
    time_second,
)
from cnflib.audit import audit_gradients
from cnflib.continuous import CNF, Exact, Hutchinson
from cnflib.metrics import mass
from cnflib.nets import feedforward
from cnflib.ode import Fixed, euler


class CFM(nn.Module):
    """As torchcfm's MLP: time, and here a context, are columns of its only argument."""

    def __init__(self, context=0):
        super().__init__()
        self.net = feedforward(3 + context, 2, (8,), nn.SELU)

    def forward(self, x):
        return self.net(x)


class Wrapper(nn.Module):
    """As torchcfm's torch_wrapper."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, t, x, *args, **kwargs):
        return self.model(torch.cat([x, t.repeat(x.shape[0])[:, None]], 1))


class Dyn(CFM):
    """As torchdyn's vector fields."""

    def forward(self, t, x, args={}):  # noqa: B006
        given = [args] if isinstance(args, Tensor) else []
        return self.net(torch.cat([t.expand(len(x))[:, None], x, *given], 1))


class Matching(CFM):
    """As flow_matching's models: one time for each row, conditions by keyword."""

    def forward(self, x, t, **extras):
        return self.net(torch.cat([x, t.reshape(-1, 1), *extras.values()], 1))


class Diffuser(CFM):
    """As image models: one time for each row, a condition in third place."""

    def forward(self, sample, timestep, condition=None):
        given = [] if condition is None else [condition]
        return self.net(torch.cat([sample, timestep.reshape(-1, 1).sin(), *given], 1))


def labelled(net, t, x, context):
    return net(x, t.expand(len(x)), label=context)


def columns(net, t, x, context):
    return net(torch.cat([x, t[:, None], *([] if context is None else [context])], 1))


def in_order(net, *arguments):
    return net(*(a for a in arguments if a is not None))


class Member(NamedTuple):
    """A net, its adapter, its call by hand at rows of times, its context features, and if it takes rows of times."""

    build: Callable[[], nn.Module]
    adapt: Callable[[nn.Module], Adapted]
    by_hand: Callable[..., Tensor]
    context: int = 0
    rows: bool = True


members = {
    "torchcfm": Member(CFM, time_as_feature, columns),
    "torchcfm context": Member(partial(CFM, 3), time_as_feature, columns, 3),
    "torch_wrapper": Member(
        lambda: Wrapper(CFM()), time_first, lambda net, t, x, c: columns(net.model, t, x, c), rows=False
    ),
    "torchdyn": Member(Dyn, time_first, lambda net, t, x, c: in_order(net, t, x, c)),
    "torchdyn context": Member(partial(Dyn, 3), time_first, lambda net, t, x, c: in_order(net, t, x, c), 3),
    "flow_matching": Member(Matching, time_second, lambda net, t, x, c: in_order(net, x, t, c)),
    "flow_matching label": Member(
        partial(Matching, 3),
        lambda net: Adapted(net, labelled),
        lambda net, t, x, c: net(x, t, label=c),
        3,
    ),
    "diffusers": Member(Diffuser, time_second, lambda net, t, x, c: in_order(net, x, t, c)),
    "diffusers context": Member(
        partial(Diffuser, 3), time_second, lambda net, t, x, c: in_order(net, x, t, c), 3
    ),
    "rectified flow": Member(
        Diffuser,
        lambda net: data_first(time_second(net)),
        lambda net, t, x, c: -in_order(net, x, 1 - t, c),
    ),
    "rectified flow context": Member(
        partial(Diffuser, 3),
        lambda net: data_first(time_second(net)),
        lambda net, t, x, c: -in_order(net, x, 1 - t, c),
        3,
    ),
}
every = pytest.mark.parametrize("name", members)
whole = torch.tensor(0.3).double()
rows = torch.tensor([0.0, 0.1, 0.5, 0.8]).double()


def setup(name, dtype=torch.float64):
    """The net, its field, four points and, where the net wants one, their contexts."""
    member = members[name]
    with seeded(1):
        net = member.build().to(dtype)
    x, context = (torch.randn(4, n, generator=rng(), dtype=dtype) for n in (2, 3))
    return net, member.adapt(net), x, context if member.context else None


EXACT = Exact()


def flow_of(field, divergence=EXACT, steps=8):
    return Flow(CNF(field, divergence, Fixed(steps)), StandardNormal(2))


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every
def test_a_field_is_the_net_called_by_hand(name):
    net, field, x, context = setup(name)
    for t in (whole, rows) if members[name].rows else (whole,):
        assert_close(field(t, x, context), members[name].by_hand(net, t.expand(4), x, context), 0)


@every
def test_the_net_is_asked_at_a_time_of_the_points_dtype(name):
    _, field, x, context = setup(name)
    assert field(whole.float(), x, context).dtype == torch.float64
    assert_close(field(whole.float(), x, context), field(whole.float().double(), x, context), 0)


@pytest.mark.parametrize("t", [whole, rows], ids=["one time", "a time for each row"])
def test_time_reaches_the_net_in_the_shape_it_wants(t):
    x = torch.zeros(4, 2).double()
    seen = []

    def note(t, x):
        seen.append(t.shape)
        return x

    time_first(note)(t, x)
    time_second(lambda x, t: note(t, x))(t, x)
    time_as_feature(lambda h: note(h[:, -1:], h[:, :2]))(t, x)
    assert seen == [t.shape, (4,), (4, 1)]


@every
def test_parameters_of_the_net_are_the_flow_s_and_get_its_gradient(name):
    net, field, x, context = setup(name)
    flow = flow_of(field, steps=2)
    assert [id(p) for p in flow.parameters()] == [id(p) for p in net.parameters()]
    report = audit_gradients(flow, x, context)
    report.raise_for_faults()
    gradient = torch.autograd.grad(flow.log_prob(x, context).sum(), list(net.parameters())[:-1])
    assert all(g.any() for g in gradient)


@every
def test_the_flow_of_an_adapted_net_is_normalised_and_samples(name):
    _, field, _, context = setup(name)
    flow = flow_of(field)
    row = None if context is None else context[:1]
    with torch.no_grad():
        total = mass(
            lambda x: flow.log_prob(x, None if row is None else row.expand(len(x), -1)),
            ((-9, 9), (-9, 9)),
            points=90,
            dtype=torch.float64,
        )
        x, log_prob = flow.rsample_and_log_prob(5, row, rng())
    assert total == pytest.approx(1, abs=1e-3)
    assert_close(flow.log_prob(x, None if row is None else row.expand(5, -1)), log_prob, 1e-3)


@every
def test_forward_mode_reverse_mode_and_vmap_agree(name):
    _, field, x, context = setup(name)
    for argument, point in ((0, whole), (1, x)):
        assert_close(
            jacfwd(field, argument)(whole, x, context), jacrev(field, argument)(whole, x, context), 1e-12
        )
        assert jacrev(field, argument)(whole, x, context).shape == (4, 2, *point.shape)
    times = torch.stack([whole, 1 - whole])
    each = torch.stack([field(t, x, context) for t in times])
    assert_close(vmap(field, (0, None, None))(times, x, context), each, 1e-12)


@pytest.mark.parametrize(
    "name", ["torchcfm context", "torchdyn", "flow_matching label", "rectified flow context"]
)
def test_a_flow_of_an_adapted_net_compiles_without_a_break(name):
    _, field, x, context = setup(name)
    flow = Flow(CNF(field, solver=Fixed(1, euler)), StandardNormal(2))
    torch.compiler.reset()  # other members' programs count towards a limit of recompilations
    with torch.no_grad():
        compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)(x, context)
        assert_close(compiled, flow.log_prob(x, context))


@every
def test_a_saved_field_is_the_same_field(name):
    _, field, x, context = setup(name)
    wanted = field(whole, x, context)
    with seeded(5):
        fresh = members[name].adapt(members[name].build().double())
    assert not torch.equal(fresh(whole, x, context), wanted)
    fresh.load_state_dict(field.state_dict())
    for other in (fresh, copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
        assert_close(other(whole, x, context), wanted, 0)


@every
def test_dtype_moves_with_the_field(name):
    _, field, x, context = setup(name)
    context = None if context is None else context.float()
    assert field.float()(whole, x.float(), context).dtype == torch.float32


def test_the_wrapper_of_a_torchcfm_net_may_stay_or_go():
    net, field, x, _ = setup("torchcfm")
    assert_close(time_first(Wrapper(net))(whole, x), field(whole, x), 0)


@pytest.mark.parametrize("name", ["torchdyn", "diffusers", "diffusers context"])
def test_data_first_carries_base_to_data_as_its_net_does_from_one_to_zero(name):
    _, field, x, context = setup(name)
    backward, turned = CNF(field, solver=Fixed(8)), CNF(data_first(field), solver=Fixed(8))
    wanted = backward.solve(x, 1.0, 0.0, context)
    assert (wanted.x - backward.solve(x, 0.0, 1.0, context).x).abs().max() > 1e-2
    data, logdet = turned.decode_and_logdet(x, context)
    assert_close(data, wanted.x)
    assert_close(logdet, wanted.logdet)
    half = turned.solve(x, 0.0, 0.25, context)
    assert_close(half.x, backward.solve(x, 1.0, 0.75, context).x)


def test_turning_a_field_twice_changes_nothing():
    _, field, x, _ = setup("torchdyn")
    assert_close(data_first(data_first(field))(whole, x), field(whole, x))


A = torch.tensor([[0.3, -0.8], [0.5, -0.4]]).double()
b = torch.tensor([0.7, -0.2]).double()


def affine(t, x):
    return (1 + t.reshape(-1, 1)) * (x @ A.T + b)


def conditional_only(t, x, context):
    """A net that requires its third argument, and takes None for none."""
    return affine(t, x) if context is None else affine(t, x) + context


@pytest.mark.parametrize(
    "adapt", [time_first, data_first, lambda net: time_second(lambda x, t, c: net(t, x, c))]
)
def test_a_required_context_is_none_where_there_is_none(adapt):
    field, x, context = adapt(conditional_only), torch.zeros(4, 2).double(), torch.ones(4, 2).double()
    plain = field(whole, x)
    assert_close((field(whole, x, context) - plain).abs(), context)
    assert_close(field(whole, x, None), plain, 0)


def test_a_field_of_two_arguments_is_turned_round():
    x = torch.randn(4, 2, generator=rng()).double()
    assert_close(data_first(affine)(whole, x), -affine(1 - whole, x))


def test_the_signature_is_read_when_a_net_is_adapted_and_not_when_it_is_called(monkeypatch):
    fields, x = (
        (time_first(Dyn()), time_second(Diffuser()), data_first(time_second(Diffuser()))),
        torch.zeros(4, 2),
    )
    monkeypatch.setattr("inspect.signature", None)
    assert all(field(whole.float(), x).shape == (4, 2) for field in fields)


linear = {
    "time_first": time_first(affine),
    "time_second": time_second(lambda x, t: affine(t, x)),
    "time_as_feature": time_as_feature(lambda h: affine(h[:, 2], h[:, :2])),
    "data_first": data_first(lambda t, x: -affine(1 - t, x)),
}


@pytest.mark.parametrize("field", linear.values(), ids=linear)
def test_a_plain_function_linear_in_x_carries_the_normal_to_its_closed_form(field):
    generator = torch.zeros(3, 3).double()
    generator[:2, :2], generator[:2, 2] = A, b
    M = torch.linalg.matrix_exp(1.5 * generator)  # ∫ (1 + t) dt = 3/2
    wanted = MultivariateNormal(M[:2, 2], M[:2, :2] @ M[:2, :2].T)
    flow = flow_of(field, steps=32).double()
    x = 2 * torch.randn(5, 2, generator=rng(), dtype=torch.float64)
    assert_close(flow.log_prob(x), wanted.log_prob(x), 1e-6)
    assert list(flow.parameters()) == []


def test_a_field_keeps_the_shape_of_images():
    x = torch.randn(4, 1, 3, 3, generator=rng())
    net = nn.Conv2d(1, 1, 3, padding=1)
    field = data_first(time_second(lambda x, t, c: net(x) * t[:, None, None, None] + c[:, :, None, None]))
    context = torch.randn(4, 1, generator=rng())
    wanted = -(net(x) * 0.75 + context[:, :, None, None])
    assert_close(field(torch.tensor(0.25), x, context), wanted, 1e-6)


class Shift(nn.Module):
    """The field c, which carries N(0, I) to N(c, I); its parameter scales the context."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x, t, context):
        return self.scale * context


def standardize():
    return Flow(
        Standardize(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()), StandardNormal(2)
    )


def images():
    shape = (2, 1, 2)
    mean, std = torch.arange(4.0).double().reshape(shape), torch.arange(1.0, 5).double().reshape(shape)
    return Flow(Standardize(mean, std), StandardNormal(shape))


def adapted():
    return flow_of(setup("torchcfm")[1], steps=2)


def shifted():
    return flow_of(time_second(Shift().double()), steps=1)


def conditional():
    return flow_of(setup("diffusers context")[1], steps=2)


def contexts(batch, features=3):
    return torch.randn(batch, features, generator=rng(3), dtype=torch.float64)


views = {
    "Standardize": lambda: given(standardize()),
    "images": lambda: given(images()),
    "CNF": lambda: given(adapted()),
    "expanded": lambda: given(standardize()).expand((3, 2)),
    "images expanded": lambda: given(images()).expand((3,)),
    "expanded twice": lambda: given(standardize()).expand((1, 2)).expand((4, 3, 2)),
    "expanded to none": lambda: given(standardize()).expand((0,)),
    "context": lambda: given(conditional(), contexts(4)),
    "one context": lambda: given(conditional(), contexts(1)),
    "context expanded": lambda: given(conditional(), contexts(4)).expand((3, 4)),
    "one context expanded": lambda: given(conditional(), contexts(1)).expand((2, 4)),
    "no context": lambda: given(conditional(), contexts(0)),
}
each = pytest.mark.parametrize("name", views)
sample_shapes = pytest.mark.parametrize("sample_shape", [(), (1,), (5,), (2, 3), (0,), (2, 0)], ids=str)


def values(view, sample_shape):
    shape = (*sample_shape, *view.batch_shape, *view.event_shape)
    return torch.randn(shape, generator=rng(4), dtype=torch.float64)


@each
@sample_shapes
def test_log_prob_is_the_flow_s_at_each_sample_and_member_of_the_batch(name, sample_shape):
    view = views[name]()
    x = values(view, sample_shape)
    log_prob = view.log_prob(x)
    assert log_prob.shape == Size(sample_shape) + view.batch_shape
    for index in product(*map(range, log_prob.shape)):
        row = None if view.context is None else view.context[index[len(sample_shape) :]][None]
        assert_close(log_prob[index], view.flow.log_prob(x[index][None], row)[0])


@each
@sample_shapes
def test_draws_have_the_shape_and_dtype_of_the_distribution(name, sample_shape):
    view = views[name]()
    wanted = Size(sample_shape) + view.batch_shape + view.event_shape
    for draw in (view.sample, view.rsample):
        for argument in (sample_shape, Size(sample_shape)):
            assert draw(argument).shape == wanted
            assert draw(argument).dtype == torch.float64
    assert view.sample().shape == view.batch_shape + view.event_shape


@each
def test_draws_follow_the_seed(name):
    view = views[name]()
    drawn = []
    for seed in (1, 1, 2):
        with seeded(seed):
            drawn.append(view.sample((6,)))
    assert torch.equal(drawn[0], drawn[1])
    assert drawn[0].numel() == 0 or not torch.equal(drawn[0], drawn[2])


@each
def test_a_smaller_value_broadcasts_over_the_batch(name):
    view = views[name]()
    x = torch.randn(view.event_shape, generator=rng(4), dtype=torch.float64)
    assert_close(view.log_prob(x), view.log_prob(x.expand(view.batch_shape + view.event_shape)), 0)
    some = torch.randn((3, *[1] * len(view.batch_shape), *view.event_shape), generator=rng(4)).double()
    wanted = view.log_prob(some.expand((3, *view.batch_shape, *view.event_shape)))
    assert_close(view.log_prob(some), wanted, 0)


@each
def test_the_support_is_all_real_events(name):
    view = views[name]()
    assert view.support.event_dim == len(view.event_shape)
    assert view.arg_constraints == {} and view.has_rsample
    x = torch.randn((3, *view.event_shape), generator=rng())
    assert view.support.check(x).tolist() == [True] * 3


@each
def test_a_view_survives_copies(name):
    view = views[name]()
    x = values(view, (2,))
    for other in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert_close(other.log_prob(x), view.log_prob(x), 0)
        assert other.batch_shape == view.batch_shape


@pytest.mark.parametrize("name", ["Standardize", "CNF"])
def test_a_view_integrates_to_one(name):
    view = views[name]()
    with torch.no_grad():
        total = mass(view.log_prob, ((-20, 20), (-20, 20)), points=200, dtype=torch.float64)
    assert total == pytest.approx(1, abs=1e-4)


def test_an_affine_flow_is_torch_s_normal():
    view = given(standardize())
    normal = MultivariateNormal(
        torch.tensor([1.0, -2.0]).double(), torch.diag(torch.tensor([0.25, 9.0])).double()
    )
    assert (view.batch_shape, view.event_shape) == (normal.batch_shape, normal.event_shape)
    x = normal.sample((3, 4))
    assert_close(view.log_prob(x), normal.log_prob(x))
    wide, normals = view.expand((4,)), normal.expand((4,))
    assert_close(wide.log_prob(x), normals.log_prob(x))
    with seeded():
        draws = view.sample((10_000,))
    assert ((draws.mean(0) - normal.mean).abs() < 4 * normal.stddev / 100).all()
    error = (draws.T.cov() - normal.covariance_matrix).abs() / torch.outer(normal.stddev, normal.stddev)
    assert (error < 4 * 2**0.5 / 100).all()


def test_every_row_of_context_has_a_distribution_of_its_own():
    c = 20 * torch.arange(6.0).double().reshape(3, 2)
    view = given(shifted(), c)
    normal = Independent(Normal(c, 1.0), 1)
    x = c + values(view, (5,))
    assert_close(view.log_prob(x), normal.log_prob(x))
    for draws in (view.sample((7,)), view.expand((2, 3)).sample((7,)), view.sample((7, 2))):
        assert (draws - c).abs().max() < 6


def test_gradients_flow_through_rsample_and_log_prob_and_not_through_sample():
    c = contexts(3, 2).requires_grad_()
    flow = shifted()
    view = given(flow, c).expand((4, 3))
    x = view.rsample((5,))
    assert_close(torch.autograd.grad(x.sum(), c, retain_graph=True)[0], torch.full_like(c, 20.0))
    scale = flow.bijection.field.net.scale
    assert_close(torch.autograd.grad(x.sum(), scale)[0], 20 * c.detach().sum())
    y = values(view, ())
    assert_close(torch.autograd.grad(view.log_prob(y).sum(), c)[0], (y - c.detach()).sum(0))
    assert not view.sample((5,)).requires_grad


class Labelled(nn.Module):
    """A field of one number for each of three labels, added to both coordinates."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Embedding(3, 1)

    def forward(self, t, x, context):
        return self.shift(context).expand_as(x)


def test_labels_are_a_context_of_a_distribution_each():
    flow, labels = flow_of(Labelled().double(), steps=1), torch.tensor([2, 0, 1, 1])
    view = given(flow, labels)
    assert (view.batch_shape, view.event_shape) == ((4,), (2,))
    shift = flow.bijection.field.shift.weight.detach()[labels].expand(4, 2)
    x = values(view, (5,))
    assert_close(view.log_prob(x), Independent(Normal(shift, 1.0), 1).log_prob(x))
    assert view.sample((7,)).shape == (7, 4, 2) and view.expand((3, 4)).sample((2,)).shape == (2, 3, 4, 2)


def test_rsample_takes_the_gradients_of_the_base_and_sample_none():
    base = DiagonalNormal(2).double()
    view = given(Flow(standardize().bijection, base))
    view.rsample((5,)).sum().backward()
    assert_close(base.mean.grad, 5 * torch.tensor([0.5, 3.0]).double())
    assert not view.sample((5,)).requires_grad


def test_a_base_that_learns_and_has_no_rsample_is_sampled_and_not_rsampled():
    class Learned(nn.Module):
        event_shape = (2,)

        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(2).double())

        def log_prob(self, x, context=None, generator=None):
            return Normal(self.mean, 1.0).log_prob(x).sum(1)

        def sample(self, n, context=None, generator=None):
            return self.mean.detach() + torch.randn(n, 2, generator=generator).double()

    view = given(Flow(standardize().bijection, Learned()))
    assert view.sample((3,)).shape == (3, 2)
    with pytest.raises(ValueError, match="rsample"):
        view.rsample((3,))


def test_a_view_follows_the_training_of_its_flow():
    flow, c = shifted(), contexts(3, 2)
    view = given(flow, c)
    with torch.no_grad():
        flow.bijection.field.net.scale.mul_(2)
    x = values(view, ())
    assert_close(view.log_prob(x), Independent(Normal(2 * c, 1.0), 1).log_prob(x))


class Doubling(Bijection):
    """Twice x, by forward mode: it refuses a tensor of which several entries share a place in memory."""

    def encode_and_logdet(self, x, context=None, generator=None):
        z, tangent = jvp(lambda y: 2 * y, (x,), (torch.ones(x.shape).to(x),))
        return z, tangent.log().sum(1)

    def decode_and_logdet(self, z, context=None, generator=None):
        return z / 2, torch.full_like(z, 0.5).log().sum(1)


def test_a_value_that_was_broadcast_may_be_differentiated_in_forward_mode():
    view = given(Flow(Doubling(), StandardNormal(2))).expand((3,))
    x = torch.randn(1, 2, generator=rng())
    assert_close(view.log_prob(x), Normal(0.0, 0.5).log_prob(x).sum(1).expand(3), 1e-6)


def test_divergence_between_views_and_torch_s_own_by_monte_carlo():
    q, p = (
        given(standardize()),
        MultivariateNormal(torch.zeros(2).double(), 9 * torch.eye(2).double()),
    )
    normal = MultivariateNormal(
        torch.tensor([1.0, -2.0]).double(), torch.diag(torch.tensor([0.25, 9.0])).double()
    )
    with seeded():
        x = q.sample((4000,))
    gap = q.log_prob(x) - p.log_prob(x)
    assert abs(gap.mean() - kl_divergence(normal, p)) < 4 * gap.std() / len(gap) ** 0.5


def test_independent_sums_over_rows_of_context():
    view = given(conditional(), contexts(4))
    joint = Independent(view, 1)
    x = values(view, (3,))
    assert (joint.batch_shape, joint.event_shape) == ((), (4, 2))
    assert_close(joint.log_prob(x), view.log_prob(x).sum(-1))
    assert joint.rsample((3,)).shape == (3, 4, 2) and joint.support.check(x).all()
    assert_close(joint.expand((2,)).log_prob(x[:2]), joint.log_prob(x[:2]))


def test_rows_of_context_are_the_components_of_a_mixture():
    c = contexts(3, 2)
    weights = torch.tensor([0.2, 0.3, 0.5]).double()
    mixture = MixtureSameFamily(Categorical(weights), given(shifted(), c))
    wanted = MixtureSameFamily(Categorical(weights), Independent(Normal(c, 1.0), 1))
    x = torch.randn(5, 4, 2, generator=rng(), dtype=torch.float64)
    assert_close(mixture.log_prob(x), wanted.log_prob(x))
    assert_close(mixture.expand((4,)).log_prob(x), wanted.log_prob(x))
    assert mixture.sample((7,)).shape == (7, 2)
    with torch.no_grad():
        assert mass(mixture.log_prob, ((-9, 9), (-9, 9)), 60, dtype=torch.float64) == pytest.approx(
            1, abs=1e-6
        )


def test_a_transform_of_torch_s_acts_on_a_view():
    mean, std = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    view = TransformedDistribution(given(standardize()), ExpTransform())
    x = view.sample((5,))
    wanted = TransformedDistribution(Independent(Normal(mean, std), 1), ExpTransform())
    assert_close(view.log_prob(x), wanted.log_prob(x))


def test_a_view_of_an_estimated_density_draws_from_the_default_generator():
    view = given(flow_of(setup("torchcfm")[1], Hutchinson()))
    x = values(view, (20,))
    found = []
    for draw, seed in ((view.log_prob, 1), (view.flow.log_prob, 1), (view.log_prob, 2)):
        with seeded(seed):
            found.append(draw(x))
    assert_close(found[0], found[1], 0)
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("validate", [True, False])
def test_nothing_global_is_set_and_nothing_warned_of(validate, monkeypatch):
    monkeypatch.setattr(Distribution, "_validate_args", validate)  # torch.compile sets it too
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for build in views.values():
            view = build()
            with torch.no_grad():
                view.log_prob(values(view, (2,)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert Distribution._validate_args is validate and isinstance(Distribution.arg_constraints, property)


@pytest.mark.parametrize("device", devices)
def test_draws_lie_on_the_flow_s_device(device):
    view = given(conditional().to(device), contexts(4).to(device))
    for n in (0, 3):
        assert view.sample((n,)).device.type == device
        assert view.log_prob(view.sample((n,))).device.type == device


def test_a_base_without_tensors_draws_none_of_torch_s_default_dtype():
    class Logistic:
        event_shape = (2,)

        def log_prob(self, x, context=None, generator=None):
            return (x.sigmoid() * (-x).sigmoid()).log().sum(1)

        def sample(self, n, context=None, generator=None):
            return torch.rand(n, 2, generator=generator).logit()

    view = given(Flow(CNF(lambda t, x, context: -x, solver=Fixed(1)), Logistic()))
    assert view.sample((0,)).dtype == view.sample((3,)).dtype == torch.get_default_dtype()


x = torch.zeros(4, 2).double()
errors = {
    "a net of another shape": (
        lambda: flow_of(time_second(lambda x, t: x[:, :1])).log_prob(x),
        "Expected field",
    ),
    "a net that is none": (lambda: time_first(torch.zeros(3)), "Expected field"),
    "a class for a net": (lambda: time_second(CFM), "Expected field"),
    "a net of one argument": (lambda: time_second(CFM()), "got CFM"),
    "a context for a net that takes none": (
        lambda: time_second(lambda x, t: x)(whole, torch.zeros(4, 2).double(), torch.zeros(4, 3)),
        "Expected no context",
    ),
    "a bijection": (
        lambda: given(CNF(time_first(affine))),
        "Expected flow",
    ),
    "a class of flows": (lambda: given(Flow), "Expected flow"),
    "a number for a shape of samples": (
        lambda: given(standardize()).sample(99),
        r"Expected sample_shape .*sample\(\(99,\)\)",
    ),
    "a number for a shape of samples with gradients": (
        lambda: given(standardize()).rsample(99),
        "Expected sample_shape",
    ),
    "a quantile": (
        lambda: given(standardize()).icdf(torch.tensor(0.5)),
        "icdf.*quantile",
    ),
    "a distribution function": (lambda: given(standardize()).cdf(x), "cdf.*sample"),
    "a mean": (lambda: given(standardize()).mean, "mean.*sample"),
    "a deviation": (lambda: given(standardize()).stddev, "variance.*sample"),
    "an entropy": (lambda: given(standardize()).entropy(), "entropy.*log_prob"),
    "value of another event": (
        lambda: given(standardize()).log_prob(torch.zeros(4, 3).double()),
        "Expected value",
    ),
    "value of one number": (
        lambda: given(standardize()).log_prob(torch.zeros(4, 1).double()),
        "Expected value",
    ),
    "value of too few axes": (
        lambda: given(images()).log_prob(torch.zeros(1, 2).double()),
        "Expected value",
    ),
    "value of integers": (
        lambda: given(standardize()).log_prob(torch.zeros(4, 2, dtype=torch.int64)),
        "Expected x",
    ),
    "value of other dtype": (
        lambda: given(standardize()).log_prob(x.float()),
        "Expected x",
    ),
}


@pytest.mark.parametrize(("call", "match"), errors.values(), ids=errors)
def test_an_error_names_what_was_expected(call, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        call()


def test_a_view_is_a_distribution_of_the_base_s_events():
    view = given(images())
    assert isinstance(view, Distribution) and isinstance(view, FlowDistribution)
    assert (view.batch_shape, view.event_shape) == (Size(), Size((2, 1, 2)))
