"""Multi-scale flows: what a squeeze permutes, what a split leaves alone, and the laws of the scales they make."""

from types import SimpleNamespace

import pytest
import torch
from fitting import log_volumes
from registry import Member, built, coupling, points, rng
from torch.nn import functional as F

from cnflib import Bijection, Chain, Flow, Inverse, StandardNormal
from cnflib.audit import audit_bijection, audit_gradients
from cnflib.bijection import METHODS
from cnflib.discrete import Affine, Split, Squeeze

maps = {"encode": lambda g: g, "decode": lambda g: g.decode_and_logdet}
both_ways = pytest.mark.parametrize("way", maps)
images = pytest.mark.parametrize("shape", [(1, 2, 2), (1, 4, 4), (2, 4, 8), (3, 8, 6)], ids=str)


def step(shape, context=0):
    """Two couplings that keep each other's half, so that all of the event is transformed."""
    return Chain(*[coupling(Affine(), shape, context, keep_first) for keep_first in (True, False)])


def scale(shape, context=0, depth=0):
    """A scale around ``depth`` more of them; the innermost splits off a step."""
    channels, height, width = shape
    squeezed, half = ((k * channels, height // 2, width // 2) for k in (4, 2))
    inner = scale(half, context, depth - 1) if depth else step(half, context)
    return Chain(Squeeze(), step(squeezed, context), Split(inner), Inverse(Squeeze()))


scales = {
    "one scale of (1, 4, 4)": Member(lambda: scale((1, 4, 4)), (1, 4, 4)),
    "one scale of (2, 4, 8)": Member(lambda: scale((2, 4, 8)), (2, 4, 8)),
    "one scale of (3, 4, 6)": Member(lambda: scale((3, 4, 6)), (3, 4, 6)),
    "nested": Member(lambda: scale((1, 4, 4), depth=1), (1, 4, 4)),
    "nested twice": Member(lambda: scale((1, 8, 8), depth=2), (1, 8, 8)),
    "nested with context": Member(lambda: scale((1, 4, 4), 3, depth=1), (1, 4, 4), 3),
    "inverse of nested": Member(lambda: Inverse(scale((1, 4, 4), depth=1)), (1, 4, 4)),
    "split of a squeezed": Member(lambda: Split(scale((1, 4, 4))), (2, 4, 4)),
    "split of a vector": Member(lambda: Split(coupling(Affine(), (3,))), (6,)),
}
every = pytest.mark.parametrize("name", scales)


class Spy(Bijection):
    """Doubles a point to encode it, halves it to decode it, and remembers every call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def encode_and_logdet(self, x, context=None, generator=None):
        self.calls.append(("encode", x, context, generator))
        return 2 * x, torch.full(x.shape[:1], 7.0)

    def decode_and_logdet(self, z, context=None, generator=None):
        self.calls.append(("decode", z, context, generator))
        return z / 2, torch.full(z.shape[:1], -7.0)

    def encode(self, x, context=None, generator=None):
        self.calls.append(("encode alone", x, context, generator))
        return 2 * x

    def decode(self, z, context=None, generator=None):
        self.calls.append(("decode alone", z, context, generator))
        return z / 2


def setup(name, n=3):
    return built(scales[name]), *points(scales[name], n)


def draw(*shape):
    return torch.randn(*shape, generator=rng(), dtype=torch.float64)


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@images
def test_a_squeeze_puts_pixel_i_j_of_a_block_into_channel_4c_2i_j(shape):
    x = draw(2, *shape)
    z, _ = Squeeze()(x)
    channels, height, width = shape
    assert z.shape == (2, 4 * channels, height // 2, width // 2)
    for c in range(channels):
        for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(2)).tolist():
            assert torch.equal(z[:, 4 * c + 2 * i + j], x[:, c, i::2, j::2])


@images
def test_a_squeeze_is_torchs_pixel_unshuffle(shape):
    x = draw(2, *shape)
    z = F.pixel_unshuffle(x, 2)
    assert torch.equal(Squeeze()(x)[0], z)
    assert torch.equal(Squeeze().decode_and_logdet(z)[0], F.pixel_shuffle(z, 2))


@images
def test_a_squeeze_is_undone_exactly_and_both_ways_keep_volume(shape):
    g, x = Squeeze(), draw(3, *shape)
    z, logdet = g(x)
    back, logdet_back = g.decode_and_logdet(z)
    assert torch.equal(back, x) and torch.equal(g.decode(z), x)
    assert torch.equal(g(back)[0], z)
    assert_close((logdet, logdet_back), (torch.zeros(3).double(),) * 2, 0)
    assert_close(log_volumes(g, x, None), logdet)
    assert_close(log_volumes(g.decode_and_logdet, z, None), logdet_back)


@both_ways
def test_a_squeeze_ignores_a_context(way):
    x, context = draw(2, 4, 2, 2), draw(2, 3)
    assert_close(maps[way](Squeeze())(x, context, rng()), maps[way](Squeeze())(x), 0)


@both_ways
def test_a_squeeze_in_single_precision_on_an_empty_batch_keeps_dtype_and_shape(way):
    x, wanted = torch.zeros(0, 8, 4, 6), {"encode": (0, 32, 2, 3), "decode": (0, 2, 8, 12)}
    y, logdet = maps[way](Squeeze())(x)
    assert y.shape == wanted[way] and logdet.shape == (0,)
    assert y.dtype == logdet.dtype == torch.float32


@both_ways
@pytest.mark.parametrize("shape", [(2,), (4, 3), (6, 2, 2)], ids=str)
def test_a_split_maps_the_first_half_and_leaves_the_second_untouched(way, shape):
    spy, x, context, generator = Spy(), draw(3, *shape), draw(3, 2), rng()
    y, logdet = maps[way](Split(spy))(x, context, generator)
    half, factor = shape[0] // 2, {"encode": 2, "decode": 0.5}[way]
    assert torch.equal(y[:, :half], factor * x[:, :half])
    assert torch.equal(y[:, half:], x[:, half:])
    assert logdet.tolist() == [{"encode": 7, "decode": -7}[way]] * 3
    [(called, seen, given, source)] = spy.calls
    assert called == way and torch.equal(seen, x[:, :half])
    assert given is context and source is generator


@pytest.mark.parametrize(("way", "factor"), [("encode", 2), ("decode", 0.5)])
def test_a_split_maps_a_point_alone_as_its_inner_does(way, factor):
    spy, x, context, generator = Spy(), draw(3, 4, 2, 2), draw(3, 2), rng()
    y = getattr(Split(spy), way)(x, context, generator)
    assert torch.equal(y, torch.cat([factor * x[:, :2], x[:, 2:]], 1))
    [(called, seen, given, source)] = spy.calls
    assert called == f"{way} alone" and torch.equal(seen, x[:, :2])
    assert given is context and source is generator


def test_a_split_takes_whatever_has_the_four_methods_and_knows_the_shape_where_that_does():
    spy = Spy()
    duck = SimpleNamespace(**{name: getattr(spy, name) for name in METHODS})
    assert (
        torch.equal(Split(duck)(draw(3, 4))[0], Split(spy)(draw(3, 4))[0]) and Split(duck).event_shape is None
    )
    assert Split(coupling(Affine(), (3, 2, 2))).event_shape == (6, 2, 2)


def test_a_split_of_the_identity_is_the_identity():
    x = draw(2, 4, 3, 3)
    assert torch.equal(Split(Chain())(x)[0], x)
    assert torch.equal(Split(Chain()).decode_and_logdet(x)[0], x)


@every
def test_a_scale_is_undone_and_its_logdets_cancel(name):
    g, x, context = setup(name)
    z, logdet = g(x, context)
    back, logdet_back = g.decode_and_logdet(z, context)
    assert z.shape == x.shape and logdet.shape == x.shape[:1]
    assert_close(back, x)
    assert_close(g(g.decode_and_logdet(x, context)[0], context)[0], x)
    assert_close(logdet + logdet_back, torch.zeros_like(logdet))
    assert_close(g.decode(z, context), back)


@every
@both_ways
def test_logdet_of_a_scale_is_that_of_the_jacobian(name, way):
    g, x, context = setup(name)
    y, logdet = maps[way](g)(x, context)
    assert (logdet != 0).all()
    assert_close(logdet, log_volumes(maps[way](g), x, context))


@every
@both_ways
def test_gradients_reach_x_and_context_and_every_parameter(name, way):
    g, x, context = setup(name)
    leaves = [a.requires_grad_() for a in (x, context) if a is not None]
    y, logdet = maps[way](g)(x, context)
    grads = torch.autograd.grad(y.square().sum() - logdet.sum(), [*leaves, *g.parameters()])
    assert all(grad.isfinite().all() and grad.any() for grad in grads)


@every
def test_a_scale_passes_the_audit(name):
    g, x, context = setup(name, n=2)
    audit_bijection(g, x, context=context).raise_for_faults()
    audit_gradients(Flow(g, StandardNormal(x.shape[1:])), x, context).raise_for_faults()


def test_a_squeeze_passes_the_audit_alone_and_undone():
    """It changes the shape of an event and keeps the number of its coordinates."""
    x = draw(2, 1, 4, 4)
    for g in (Squeeze(), Chain(Squeeze(), Inverse(Squeeze()))):
        audit_bijection(g, x).raise_for_faults()


def test_a_flow_of_scales_has_one_base_of_the_images_own_shape():
    flow = Flow(built(scales["nested twice"]), StandardNormal((1, 8, 8)).double())
    x, logp = flow.rsample_and_log_prob(2, generator=rng())
    assert x.shape == (2, 1, 8, 8)
    assert_close(flow.log_prob(x), logp)
    assert_close(flow.sample(2, generator=rng()), x)


@every
def test_strides_do_not_matter_to_a_scale(name):
    g, x, context = setup(name)
    wanted = g(x, context)
    for axis in range(1, x.ndim):
        assert_close(g(x.movedim(axis, 0).contiguous().movedim(0, axis), context), wanted)
    wide = None if context is None else context[:1].expand(3, -1)
    z, logdet = g(x[:1].expand_as(x), wide)
    assert_close((z, logdet), (wanted[0][:1].expand_as(z), wanted[1][:1].expand(3)))


@every
@both_ways
def test_an_empty_batch_of_a_scale_stays_empty(name, way):
    g, x, context = setup(name, n=0)
    y, logdet = maps[way](g)(x, context)
    assert y.shape == g.decode(x, context).shape == x.shape and logdet.shape == (0,)


@both_ways
def test_a_scale_compiles_without_a_graph_break(way):
    member = Member(lambda: scale((1, 2, 2), 3), (1, 2, 2), 3)
    g, (x, context) = built(member), points(member)
    compiled = torch.compile(maps[way](g), backend="eager", fullgraph=True)
    assert_close(compiled(x, context), maps[way](g)(x, context))


image = torch.zeros(2, 1, 4, 4)
wrong = {  # a call that must not pass: what the message says
    "squeeze of integers": (lambda: Squeeze()(image.long()), "Expected x"),
    "odd height": (
        lambda: Squeeze()(torch.zeros(2, 1, 3, 4)),
        "Expected even height",
    ),
    "odd width": (lambda: Squeeze()(torch.zeros(2, 1, 4, 5)), "Expected even height"),
    "split of 1 channel": (
        lambda: Split(Chain())(image),
        "Expected x",
    ),
    "split of 3 channels": (lambda: Split(Chain())(torch.zeros(2, 3)), r"even number of channels"),
    "split of no channel": (lambda: Split(Chain())(torch.zeros(2, 0)), r"at least 2; got shape \(2, 0\)"),
    "unsplit of 3 channels": (
        lambda: Split(Chain()).decode_and_logdet(torch.zeros(2, 3)),
        "Expected z",
    ),
    "decode of 3 channels": (lambda: Split(Chain()).decode(torch.zeros(2, 3)), "Expected z"),
    "split of no batch": (lambda: Split(Chain())(torch.zeros(4)), "Expected x"),
}


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_errors_name_what_was_expected_and_a_way_out(call, match):
    with pytest.raises(ValueError, match=match):
        call()
