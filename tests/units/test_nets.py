"""Nets: the vector field and the conditioner keep rows apart, see time, context and features, and start as said."""

import math

import pytest
import torch
from registry import Member, built, points, rng, seeded
from torch import nn

from cnflib.discrete import MADE, Contraction
from cnflib.nets import MLP, Conditioner, ConvNet, FourierFeatures, Tanh, TimeEmbedding, UNet, feedforward

fields = {
    "plain": Member(lambda: MLP(2, (8,))),
    "shape": Member(lambda: MLP((2, 3), (8,)), (2, 3)),
    "context": Member(lambda: MLP(2, (8,), context=3), (2,), 3),
    "time": Member(lambda: MLP(2, (8,), time_frequencies=2)),
    "fourier": Member(lambda: MLP((1, 2), (8,), fourier=3), (1, 2)),
    "everything": Member(lambda: MLP(2, (8, 8), 3, 2, 3, 0.2, nn.SiLU), (2,), 3),
}
every = pytest.mark.parametrize("member", fields.values(), ids=fields)
t = torch.tensor(0.3, dtype=torch.float64)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@every
def test_a_velocity_has_the_shape_of_x(member):
    x, context = points(member)
    assert built(member)(t, x, context).shape == x.shape


def test_a_point_of_as_many_numbers_keeps_its_shape_and_of_another_number_fails():
    """A velocity that broadcast against x would couple the rows of a solve."""
    f, x = built(fields["shape"]), torch.randn(3, 6, generator=rng(), dtype=torch.float64)
    v, dv = f.jvp(t, x, None, torch.ones(2, 1, 6).double())
    assert v.shape == x.shape and dv.shape == (2, *x.shape)
    assert torch.equal(f(t, x), f(t, x.unflatten(1, (2, 3))).flatten(1))
    assert_close(f(t, x), v)
    with pytest.raises(RuntimeError):
        f(t, x[:, :5])


@every
def test_a_field_acts_on_each_row_alone(member):
    f, (x, context) = built(member), points(member)
    for i in range(len(x)):
        alone = f(t, x[i : i + 1], None if context is None else context[i : i + 1])
        assert_close(f(t, x, context)[i : i + 1], alone)


@every
def test_one_time_for_all_rows_is_the_same_time_for_each(member):
    f, (x, context) = built(member), points(member)
    assert_close(f(t, x, context), f(t.expand(len(x)), x, context))
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    rows = [f(times[i], x, context)[i] for i in range(3)]
    assert_close(f(times, x, context), torch.stack(rows))


@every
def test_a_field_depends_on_time_and_x_and_context(member):
    f, (x, context) = built(member), points(member)
    v = f(t, x, context)
    assert (f(t + 0.1, x, context) != v).any()
    assert (f(t, x + 0.1, context) != v).any()
    assert context is None or (f(t, x, context + 0.1) != v).any()


@every
def test_gradient_reaches_every_parameter_of_a_field(member):
    f, (x, context) = built(member), points(member)
    assert all(g.any() for g in torch.autograd.grad(f(t, x, context).square().sum(), list(f.parameters())))


def test_feedforward_is_linear_layers_with_activations_between():
    net = feedforward(3, 2, (5, 4), nn.SiLU)
    assert [type(m) for m in net] == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert [(m.in_features, m.out_features) for m in net if isinstance(m, nn.Linear)] == [
        (3, 5),
        (5, 4),
        (4, 2),
    ]
    assert len(feedforward(3, 2, ())) == 1


@pytest.mark.parametrize("frequencies", [0, 1, 3])
def test_time_embedding_is_t_with_its_sines_and_cosines(frequencies):
    embed = TimeEmbedding(frequencies).double()
    k = torch.arange(1, frequencies + 1) * math.pi
    wanted = torch.cat([t[None], (k * t).sin(), (k * t).cos()])
    assert_close(embed(t, 4), wanted.expand(4, -1), 1e-6)
    assert embed(t, 4).shape == (4, embed.features)
    assert not embed.state_dict()


def test_fourier_features_are_periods_of_the_given_scale_and_saved():
    with seeded():
        embed = FourierFeatures(4, 5000, scale=0.5).double()
    x = torch.randn(3, 4, generator=rng(), dtype=torch.float64)
    phase = x @ embed.rates.T
    assert_close(embed(x), torch.cat([x, phase.sin(), phase.cos()], 1))
    assert embed.features == embed(x).shape[1] == 10_004
    assert embed.rates.std().item() == pytest.approx(math.pi, rel=0.03)  # 2 pi times 0.5 periods a unit
    assert list(embed.state_dict()) == ["rates"] and not list(embed.parameters())


def test_a_fresh_conditioner_returns_zeros():
    x = torch.randn(3, 2, 4, generator=rng())
    assert torch.equal(Conditioner((2, 4), (6, 4))(x), torch.zeros(3, 6, 4))


def test_a_conditioner_sees_its_context():
    member = Member(lambda: Conditioner(2, 3, (8,), context=3), (2,), 3)
    net, (x, context) = built(member), points(member)
    assert (net(x, context) != net(x, context + 1)).any(1).all()


conditional = {
    "MLP": (lambda k: MLP(2, (4,), context=k), lambda net, x, c: net(torch.tensor(0.5), x, c), (2,)),
    "UNet": (
        lambda k: UNet((1, 4, 4), 8, (1,), context=k),
        lambda net, x, c: net(torch.tensor(0.5), x, c),
        (1, 4, 4),
    ),
    "Conditioner": (lambda k: Conditioner(2, 3, (4,), k), lambda net, x, c: net(x, c), (2,)),
    "ConvNet": (lambda k: ConvNet(2, 3, (4,), k), lambda net, x, c: net(x, c), (2, 3, 3)),
    "MADE": (lambda k: MADE(2, 3, (4,), k), lambda net, x, c: net(x, c), (2,)),
    "Contraction": (lambda k: Contraction(2, (4,), k), lambda net, x, c: net(x, c), (2,)),
}


@pytest.mark.parametrize(("build", "call", "shape"), conditional.values(), ids=conditional)
def test_a_net_wants_rows_of_as_many_features_as_declared_and_says_so(build, call, shape):
    x, labels = torch.zeros(4, *shape), torch.tensor([0, 1, 2, 1])
    rows = nn.functional.one_hot(labels, 3).float()
    assert len(call(build(3), x, rows)) == 4
    for net, context, match in (
        (build(3), labels, "context"),
        (build(3), rows.double(), "context of dtype torch.float32"),
        (build(3), rows[:, :2], r"context of shape \(B, 3\)"),
        (build(3), rows[:, 0], r"context of shape \(B, 3\)"),
        (build(3), None, r"context of shape \(B, 3\)"),
        (build(0), rows, "context=0"),
    ):
        with pytest.raises(ValueError, match=match):
            call(net, x, context)


def test_a_context_of_one_feature_is_a_column():
    with pytest.raises(ValueError, match=r"context of shape \(B, 1\)"):
        Conditioner(2, 3, (4,), 1)(torch.zeros(4, 2), torch.ones(4))


def test_tanh_is_tanh():
    a = torch.linspace(-9, 9, 101, dtype=torch.float64)
    torch.testing.assert_close(Tanh()(a), torch.tanh(a), rtol=0, atol=1e-15)
