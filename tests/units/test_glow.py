"""Glow, RealNVP of images, the learned prior of a split, temperature."""

import math

import pytest
import torch
import torch.nn.functional as F
from fitting import check_both_ways
from registry import Member, built, points, rng, seeded, started
from torch.autograd.functional import jacobian

from cnflib import Chain, Flow, Inverse, Standardize, StandardNormal
from cnflib.audit import audit_bijection
from cnflib.discrete import (
    ActNorm,
    Affine,
    Coupling,
    Flatten,
    InvertibleConv1x1,
    Split,
    Squeeze,
    checkerboard_mask,
    halves,
)
from cnflib.flow import tempered
from cnflib.metrics import mass
from cnflib.models import glow, nice, realnvp
from cnflib.models.images import convolutional_coupling
from cnflib.nets import ConvNet

events = [(3,), (2, 3), (1, 8, 8), (3, 4, 4), (1, 12, 12), (1, 7, 7), (3, 5, 5), (1, 2, 2)]


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def setup(build, event, context=0, training=0):
    """A flow at random weights, or after some steps on correlated data, and fresh points."""
    hidden = (3,) if event == (1, 12, 12) else (5, 4)
    with seeded(), torch.no_grad():
        flow = started(build(shape=event, layers=1, hidden=hidden, context=context), event, context).double()
        for p in flow.parameters():
            p += 0.1 * torch.randn_like(p)
    member = Member(None, event, context)
    optimizer = torch.optim.Adam(flow.parameters(), 0.01)
    for step in range(training):
        x, c = points(member, 16, seed=step)
        optimizer.zero_grad()
        (-flow.log_prob(x.cumsum(-1), c).mean()).backward()
        optimizer.step()
    return flow, *points(member, 2)


@pytest.mark.parametrize("training", [0, 10], ids=["random", "trained"])
@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("event", events, ids=str)
@pytest.mark.parametrize("build", [glow, realnvp])
def test_inverse_and_logdet_to_rounding_both_ways(build, event, context, training):
    flow, x, c = setup(build, event, context, training)
    check_both_ways(flow.bijection, x, c, 1)


@pytest.mark.parametrize("context", [0, 2])
def test_an_audit_finds_no_fault(context):
    flow, x, c = setup(glow, (1, 4, 4), context)
    audit_bijection(flow.bijection, x, context=c, tolerance=1e-8).raise_for_faults()


@pytest.mark.parametrize("event", [(3,), (2, 4, 4)], ids=str)
def test_gradients_are_those_of_differences(event):
    flow, x, c = setup(glow, event, 2)
    leaves = tuple(a.requires_grad_() for a in (x, c))
    assert torch.autograd.gradcheck(lambda a, b: flow.log_prob(a, b), leaves)
    assert torch.autograd.gradcheck(lambda a, b: flow.bijection.decode_and_logdet(a, b), leaves)


# ---- what Glow is made of


def test_glow_on_vectors_is_normalise_mix_couple():
    kinds = [type(layer) for layer in glow(dim=5, layers=2).bijection.layers]
    assert kinds == [Flatten, *[ActNorm, InvertibleConv1x1, Coupling] * 2, Inverse]
    couplings = [m for m in glow(dim=5, layers=2).modules() if isinstance(m, Coupling)]
    assert all(m.mask.tolist() == [True] * 3 + [False] * 2 and m.transform.parameters == 2 for m in couplings)


def test_glow_on_images_squeezes_and_splits_under_a_learned_prior():
    top = glow(shape=(1, 28, 28), layers=2, hidden=(4,), context=3).bijection.layers
    step = [ActNorm, InvertibleConv1x1, Coupling]
    assert [type(layer) for layer in top] == [Squeeze, *step * 2, Coupling, Split, Inverse]
    assert torch.equal(top[-3].mask, halves(4))  # the prior keeps what goes on
    below = top[-2].inner.layers
    assert [type(layer) for layer in below] == [Squeeze, *step * 2, Inverse]
    assert [m.loc.numel() for m in glow(shape=(3, 28, 28), layers=1).modules() if isinstance(m, ActNorm)] == [
        12,
        24,
    ]
    nets = [m for layer in top for m in layer.modules() if isinstance(m, ConvNet)]
    assert all(net.context == 3 for net in nets) and len(nets) == 5


@pytest.mark.parametrize(
    ("event", "scales", "squeezes"),
    [
        ((1, 28, 28), 3, 2),
        ((3, 32, 32), 3, 2),
        ((1, 6, 6), 2, 1),
        ((1, 7, 7), 1, 0),
        ((2, 4, 8), 3, 2),
        ((1, 5, 8), 1, 0),
    ],
)
def test_glow_halves_an_image_as_often_as_it_can_up_to_twice(event, scales, squeezes):
    count = lambda **more: len(glow(shape=event, layers=1, hidden=(2,), **more).state_dict())  # noqa: E731
    assert count() == count(scales=scales)
    flow = glow(shape=event, layers=1, hidden=(2,))
    assert sum(isinstance(m, ActNorm) for m in flow.modules()) == max(1, squeezes)
    assert sum(isinstance(m, Split) for m in flow.modules()) == max(0, squeezes - 1)
    assert sum(isinstance(m, ActNorm) for m in glow(shape=event, layers=1, scales=1).modules()) == 1


def test_a_single_channel_that_is_not_squeezed_is_masked_as_a_checkerboard_in_turn():
    couplings = [m for m in glow(shape=(1, 7, 7), layers=3).modules() if isinstance(m, Coupling)]
    even = checkerboard_mask((1, 7, 7))
    assert [torch.equal(m.mask, even) for m in couplings] == [True, False, True]
    assert torch.equal(couplings[1].mask, ~even)


@pytest.mark.parametrize("event", [(1, 8, 8), (1, 7, 7), (3, 5, 5), (4,), (2, 3)], ids=str)
def test_two_steps_move_every_coordinate_and_let_each_depend_on_others(event):
    with seeded(), torch.no_grad():
        flow = started(glow(shape=event, layers=2, hidden=(8,)), event).double()
        for p in flow.parameters():
            p += 0.1 * torch.randn_like(p)
    x, _ = points(Member(None, event), 1)
    full = jacobian(lambda y: flow.bijection(y)[0], x).reshape(x.numel(), x.numel())
    others = full - full.diag().diag()
    assert (others != 0).any(0).all() and (others != 0).any(1).all()


def test_the_first_batch_sets_every_actnorm():
    flow = glow(shape=(1, 8, 8), layers=2, hidden=(4,)).double()
    x = 7 + 3 * torch.randn(32, 1, 8, 8, generator=rng(), dtype=torch.float64)
    flow.log_prob(x)
    norms = [m for m in flow.modules() if isinstance(m, ActNorm)]
    assert len(norms) == 4 and all(m.initialized for m in norms)
    z, _ = flow.bijection(x)
    assert abs(z.mean()) < 1e-6 and abs(z.var() - 1) < 0.05  # every coupling is still the identity


def test_sampling_before_any_data_is_a_rotation_of_the_base():
    flow = glow(dim=4, layers=3)
    z = flow.base.sample(5, generator=rng())
    assert_close(flow.sample(5, generator=rng()).norm(dim=1), z.norm(dim=1), 1e-5)


# ---- the prior of a split


def test_a_coupling_before_a_split_is_a_normal_density_given_the_half_that_goes_on():
    """log p(x) = log N(x_a) + log N(x_b; m(x_a), sigma(x_a)²), with m and sigma read off the coupling at two points."""
    with seeded():
        prior = built(Member(lambda: convolutional_coupling(halves(4), 4, Affine(), (6,))))
    flow = Flow(Chain(prior, Split(Chain())), StandardNormal((4, 2, 2))).double()
    x, _ = points(Member(None, (4, 2, 2)))
    a, b = x.chunk(2, 1)
    shift, other = (prior(torch.cat([a, torch.full_like(b, v)], 1))[0][:, 2:] for v in (0.0, 1.0))
    sigma = 1 / (other - shift)
    density = torch.distributions.Normal(-shift * sigma, sigma)
    wanted = density.log_prob(b).flatten(1).sum(1) + StandardNormal((2, 2, 2)).double().log_prob(a)
    assert_close(flow.log_prob(x), wanted)


def test_the_prior_learns_how_one_half_follows_the_other():
    """Two halves with x_b = x_a + noise of 0.1: the identity leaves 64 nats that a linear prior takes away."""
    torch.manual_seed(0)
    flow = Flow(
        Chain(convolutional_coupling(halves(2), 2, Affine(), (8,)), Split(Chain())), StandardNormal((2, 4, 4))
    )
    optimizer = torch.optim.Adam(flow.parameters(), 0.02)
    generator = rng()

    def draw():
        a = torch.randn(128, 1, 4, 4, generator=generator)
        return torch.cat([a, a + 0.1 * torch.randn(a.shape, generator=generator)], 1)

    for _ in range(300):
        optimizer.zero_grad()
        (-flow.log_prob(draw()).mean()).backward()
        optimizer.step()
    entropy = 16 * (math.log(2 * math.pi * math.e) + math.log(0.1))
    assert -flow.log_prob(draw()).mean().item() - entropy < 3


# ---- context


def test_a_class_conditional_glow_knows_which_class_it_sees():
    torch.manual_seed(0)
    generator = rng()
    flow = glow(shape=(1, 4, 4), layers=2, hidden=(16,), context=2)
    optimizer = torch.optim.Adam(flow.parameters(), 0.01)

    def draw(n):
        labels = torch.randint(2, (n,), generator=generator)
        stripes = torch.where(
            labels[:, None] == 0, torch.tensor([1.0, 0, 1, 0]), torch.tensor([0.0, 1, 0, 1])
        )
        x = stripes[:, None, None, :] + 0.3 * torch.randn(n, 1, 4, 4, generator=generator)
        return x, F.one_hot(labels, 2).float()

    for _ in range(80):
        x, c = draw(64)
        optimizer.zero_grad()
        (-flow.log_prob(x, c).mean()).backward()
        optimizer.step()
    x, c = draw(200)
    assert (flow.log_prob(x, c) > flow.log_prob(x, 1 - c) + 3).float().mean() > 0.95
    ones = flow.sample(100, torch.tensor([[0.0, 1.0]]), rng())
    assert (ones.mean((0, 1, 2)) > 0.5).tolist() == [False, True, False, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_convnet_is_a_net_of_its_image_and_context_alone(channels):
    with seeded():
        net = ConvNet(channels, 4, (6, 5), context=2).double()
        torch.nn.init.normal_(net.last.weight)
    assert [tuple(layer.kernel_size) for layer in (*net.layers, net.last)] == [(3, 3), (1, 1), (3, 3)]
    x, c = (
        torch.randn(3, channels, 7, 5, generator=rng()).double(),
        torch.randn(3, 2, generator=rng()).double(),
    )
    y = net(x, c)
    assert y.shape == (3, 4, 7, 5)
    assert_close(torch.cat([net(x[i : i + 1], c[i : i + 1]) for i in range(3)]), y)
    assert (net(x, c + 1) != y).any((1, 2, 3)).all()
    assert (net(x, c) + net(-x, c) - 2 * net(0 * x, c)).abs().amax((1, 2, 3)).min() > 1e-3  # it bends
    assert net(x[:0], c[:0]).shape == (0, 4, 7, 5)
    assert all(torch.autograd.grad(y.sum(), p, retain_graph=True)[0].any() for p in net.parameters())


def test_a_fresh_convnet_is_zero():
    x = torch.randn(2, 1, 4, 4, generator=rng())
    assert not ConvNet(1, 2)(x).any()


# ---- RealNVP of images


def test_realnvp_on_images_masks_pixels_then_channels():
    top = realnvp(shape=(1, 28, 28), hidden=(4,)).bijection.layers
    assert [type(layer) for layer in top] == [*[Coupling] * 3, Squeeze, *[Coupling] * 3, Split, Inverse]
    even = checkerboard_mask((1, 28, 28))
    assert [torch.equal(layer.mask, even) for layer in top[:3]] == [True, False, True]
    assert [layer.mask.tolist() for layer in top[4:7]] == [
        [True, True, False, False],
        [False, False, True, True],
        [True, True, False, False],
    ]
    inner = top[7].inner.layers
    assert inner[0].mask.shape == (2, 14, 14)
    assert all(
        isinstance(m.net, ConvNet) for m in realnvp(shape=(1, 4, 4)).modules() if isinstance(m, Coupling)
    )


def test_realnvp_on_images_of_odd_sides_has_checkerboards_alone():
    layers = realnvp(shape=(3, 5, 5), layers=2, hidden=(4,)).bijection.layers
    assert [layer.mask.shape for layer in layers] == [(3, 5, 5)] * 2


def test_realnvp_on_images_starts_as_the_identity():
    x, _ = points(Member(None, (1, 8, 8)), dtype=torch.float32)
    z, logdet = realnvp(shape=(1, 8, 8), hidden=(4,)).bijection(x)
    assert torch.equal(z, x) and not logdet.any()


def test_realnvp_on_images_takes_as_many_scales_as_asked():
    assert not [m for m in realnvp(shape=(1, 8, 8), hidden=(2,), scales=1).modules() if isinstance(m, Split)]
    with pytest.raises(ValueError, match=r"halved 3 times; got \(28, 28\)"):
        realnvp(shape=(1, 28, 28), scales=4)


# ---- temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tempered_has_mass_one_and_shares_the_weights(temperature):
    flow = built(Member(lambda: realnvp(dim=2, layers=4, hidden=(8,))))
    warm = tempered(flow, temperature)
    assert warm.bijection is flow.bijection
    assert mass(warm.log_prob, ((-15, 15), (-15, 15)), dtype=torch.float64) == pytest.approx(1, abs=1e-3)
    z = flow.base.sample(5, generator=rng())
    assert_close(warm.sample(5, generator=rng()), flow.bijection.decode(temperature * z))
    x, log_prob = warm.rsample_and_log_prob(5, generator=rng())
    assert_close(warm.log_prob(x), log_prob)
    assert torch.equal(flow.sample(5, generator=rng()), flow.bijection.decode(z))


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_where_volume_changes_alike_everywhere_it_is_the_power_of_the_density(temperature):
    x, _ = points(Member(None, (3,)), 20)

    def spread(flow):
        with seeded(), torch.no_grad():
            for p in flow.parameters():
                p += 0.05 * torch.randn_like(p)
        power = flow.log_prob(x) / temperature**2
        return ((tempered(flow, temperature).log_prob(x) - power).std() / power.abs().max()).item()

    assert spread(nice(dim=3).double()) < 1e-10
    assert spread(Flow(InvertibleConv1x1(3), StandardNormal(3)).double()) < 1e-10
    assert spread(realnvp(dim=3).double()) > 1e-3


def test_a_tempered_normal_is_a_normal():
    flow = Flow(Standardize(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])), StandardNormal(2)).double()
    normal = torch.distributions.Normal(
        torch.tensor([1.0, -2]).double(), 0.7 * torch.tensor([0.5, 3]).double()
    )
    x, _ = points(Member(None))
    assert_close(tempered(flow, 0.7).log_prob(x), normal.log_prob(x).sum(1))


def test_temperatures_multiply_and_any_base_serves():
    class Laplace:
        event_shape = (2,)

        def log_prob(self, z, context=None, generator=None):
            return (-z.abs() - math.log(2)).sum(1)

        def sample(self, n, context=None, generator=None):
            u = torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5
            return -u.sign() * torch.log1p(-2 * u.abs())

    x, _ = points(Member(None))
    flow = Flow(Standardize(torch.zeros(2), torch.ones(2)).double(), Laplace())
    twice = tempered(tempered(flow, 0.5), 0.5)
    assert_close(twice.log_prob(x), tempered(flow, 0.25).log_prob(x))
    assert_close(twice.log_prob(x), (-x.abs() / 0.25 - math.log(0.5)).sum(1))
    assert_close(twice.sample(3, generator=rng()), 0.25 * flow.sample(3, generator=rng()))


# ---- float32


def test_in_float32_a_deep_glow_inverts_to_its_precision():
    flow = glow(shape=(1, 28, 28), layers=4, hidden=(8, 8))
    with seeded(), torch.no_grad():
        flow.log_prob(torch.randn(32, 1, 28, 28))
        for p in flow.parameters():
            p += 0.02 * torch.randn_like(p)
    x = torch.randn(4, 1, 28, 28, generator=rng())
    z, logdet = flow.bijection(x)
    back, logdet_back = flow.bijection.decode_and_logdet(z)
    assert_close(back, x, 1e-3)
    assert_close(logdet + logdet_back, torch.zeros(4), 0.05)


def test_a_started_glow_compiles_without_a_graph_break():
    flow = started(glow(shape=(1, 4, 4), layers=1, hidden=(4,)), (1, 4, 4))
    x = torch.randn(3, 1, 4, 4, generator=rng())
    torch.compiler.reset()
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    assert_close(compiled(x), flow.log_prob(x), 1e-6)
