"""Autoregressive layers: who sees whom, the inverse against D plain passes, and maf and iaf as built from them."""

import copy
import math
import pickle

import pytest
import torch
from registry import Member, autoregressive, built, devices, points, rng, seeded
from torch import nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.autograd.functional import jacobian
from torch.func import functional_call, jacfwd, jacrev, vmap

from cnflib import Flow, Inverse, StandardNormal
from cnflib.audit import audit_bijection
from cnflib.discrete import MADE, Additive, Affine, MaskedAutoregressive, RationalQuadratic
from cnflib.models import iaf, maf

transforms = {"additive": Additive(), "affine": Affine(), "spline": RationalQuadratic(4, 3.0)}
families = pytest.mark.parametrize("transform", transforms.values(), ids=transforms)
orders = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
contexts = pytest.mark.parametrize("context", [0, 2])
wide = [(5,), (6, 9), (20, 5, 8)]
narrow = [(1,), (2,), (3, 20), (20, 2), (4, 1, 3)]


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def smooth(shape, parameters, hidden=(7, 9), context=0, reverse=False):
    """A net without zeros of its own: no weight is 0 and the activation rises everywhere."""
    build = lambda: MADE(shape, parameters, hidden, context, reverse, nn.Tanh)
    return built(Member(build), scale=0.5)


def layer(transform, shape=(4,), hidden=(7, 9), context=0, reverse=False):
    return MaskedAutoregressive(transform, smooth(shape, transform.parameters, hidden, context, reverse))


def draw(shape=(4,), context=0, n=5):
    return points(Member(None, shape, context), n)


def naive(g, z, context=None):
    """The inverse by as many passes as there are coordinates: each pass gets one more of them right."""
    x = torch.zeros_like(z)
    for _ in range(z[0].numel()):
        x, log_slope = g.transform.decode(z, g.net(x, context))
    return x, log_slope.flatten(1).sum(1)


def influence(net, dim, context=0):
    """Which outputs, (P, D), move with which inputs (D) and which features (context), in at least one of some rows."""
    x, c = draw((dim,), context)
    by_x = jacobian(lambda x: net(x, c).sum(0), x)
    by_c = jacobian(lambda c: net(x, c).sum(0), c) if context else None
    return (by_x != 0).any(-2), None if by_c is None else (by_c != 0).any(-2)


@orders
@contexts
@pytest.mark.parametrize("hidden", wide, ids=str)
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_every_output_depends_on_all_coordinates_before_it_and_on_no_other(dim, hidden, context, reverse):
    seen, told = influence(smooth(dim, 3, hidden, context, reverse), dim, context)
    before = torch.ones(dim, dim).tril(-1).bool()
    assert torch.equal(seen, (before.T if reverse else before).expand(3, -1, -1))
    assert told is None or told.all()


@orders
@contexts
@pytest.mark.parametrize("hidden", narrow, ids=str)
@pytest.mark.parametrize("dim", [2, 4, 9])
def test_a_narrow_net_leaves_dependences_out_and_adds_none(dim, hidden, context, reverse):
    seen, told = influence(smooth(dim, 2, hidden, context, reverse), dim, context)
    before = torch.ones(dim, dim).tril(-1).bool()
    assert not seen[:, ~(before.T if reverse else before)].any()
    if min(hidden) > 1:
        assert seen[:, 0 if reverse else -1].sum() == 2 * (dim - 1)  # the last one still sees all others
    assert told is None or told.all()


@orders
def test_the_coordinates_of_an_image_are_taken_in_the_order_of_memory(reverse):
    net = smooth((2, 1, 3), 2, (8,), 0, reverse)
    x, _ = draw((2, 1, 3), n=3)
    assert net(x).shape == (3, 2, 2, 1, 3)
    seen = (jacobian(lambda x: net(x).sum(0), x).reshape(2, 6, 3, 6) != 0).any(2)
    before = torch.ones(6, 6).tril(-1).bool()
    assert torch.equal(seen, (before.T if reverse else before).expand(2, -1, -1))


def test_backwards_is_forwards_on_the_coordinates_turned_round():
    there, back = (smooth(4, 3, reverse=reverse) for reverse in (False, True))
    with torch.no_grad():
        back.load_state_dict(there.state_dict())
        back.layers[0].weight.copy_(there.layers[0].weight.flip(1))
        back.last.weight.copy_(there.last.weight.unflatten(0, (3, 4)).flip(1).flatten(0, 1))
        back.last.bias.copy_(there.last.bias.unflatten(0, (3, 4)).flip(1).flatten())
    x, _ = draw()
    assert_close(back(x), there(x.flip(1)).flip(2))


def test_the_first_coordinate_has_parameters_of_its_own():
    net = smooth(3, 2)
    x, _ = draw((3,))
    assert torch.equal(net(x)[:, :, 0], net.last.bias.reshape(2, 3)[:, 0].expand(5, 2))


@orders
@contexts
@families
def test_weights_behind_the_masks_count_nowhere(transform, context, reverse):
    g = layer(transform, context=context, reverse=reverse)
    x, c = draw(context=context)
    wanted, wanted_back = g(x, c), g.decode_and_logdet(x, c)
    masked = [part for part in g.modules() if hasattr(part, "mask")]
    assert len(masked) == 3
    with torch.no_grad():
        for part in masked:
            part.weight[part.mask == 0] = 1e3
    assert_close(g(x, c), wanted, 0)
    assert_close(g.decode_and_logdet(x, c), wanted_back)
    for way in (g, g.decode_and_logdet):
        grads = grad(sum(a.sum() for a in way(x, c)), [part.weight for part in masked])
        assert all(not slope[part.mask == 0].any() for part, slope in zip(masked, grads, strict=True))


@orders
@contexts
@families
@pytest.mark.parametrize(
    ("shape", "hidden"),
    [((1,), (3,)), ((2,), (4, 4)), ((6,), (7, 9)), ((5,), (2,)), ((5,), (1, 9, 2)), ((2, 1, 3), (9,))],
    ids=str,
)
def test_the_inverse_is_that_of_d_passes_with_its_gradients(transform, shape, hidden, context, reverse):
    g = layer(transform, shape, hidden, context, reverse)
    z, c = draw(shape, context)
    leaves = [a.requires_grad_() for a in (z, c) if a is not None] + list(g.parameters())
    x, logdet = g.decode_and_logdet(z, c)
    plain = naive(g, z, c)
    assert_close((x, logdet), plain)
    assert_close(g.decode(z, c), x, 0)
    assert_close(g(x, c)[0], z)
    assert_close(g(x, c)[1], -logdet)
    weights = torch.randn(x.shape, generator=rng(), dtype=torch.float64)
    grads = [
        grad((weights * x).sum() + logdet.square().sum(), leaves, materialize_grads=True)
        for x, logdet in ((x, logdet), plain)
    ]
    assert_close(*grads, 1e-9)


class Counting(nn.Module):
    """tanh that counts the units it is applied to, per row."""

    def __init__(self):
        super().__init__()
        self.units = 0

    def forward(self, a):
        self.units += a.numel() // 5
        return a.tanh()


@orders
@contexts
@pytest.mark.parametrize("hidden", [(8, 6), (30, 1, 4), (2,)], ids=str)
def test_the_inverse_computes_each_unit_at_most_once(hidden, context, reverse):
    g = MaskedAutoregressive(Affine(), MADE(6, 2, hidden, context, reverse, Counting))
    x, c = (None if a is None else a.float() for a in draw((6,), context))
    g(x, c)
    assert g.net.activation.units == sum(hidden)
    g.decode_and_logdet(x, c)
    assert g.net.activation.units == 2 * sum(hidden)


@orders
def test_solve_asks_for_each_coordinate_once_in_order_and_returns_them_in_place(reverse):
    net, asked = smooth(4, 2, reverse=reverse), []

    def pick(i, theta):
        assert theta.shape == (5, 2)
        asked.append(i)
        return torch.full((5,), 1.0 + i).double(), torch.full((5,), -1.0 - i).double()

    points, numbers = net.solve(pick, 5)
    assert asked == ([3, 2, 1, 0] if reverse else [0, 1, 2, 3])
    assert torch.equal(points, torch.arange(1.0, 5).double().expand(5, 4))
    assert torch.equal(numbers, -points)


@families
@contexts
def test_forward_is_the_family_with_the_parameters_of_those_before(transform, context):
    """One coordinate at a time, the rest replaced by noise: they do not matter."""
    g = layer(transform, context=context)
    x, c = draw(context=context)
    z, logdet = g(x, c)
    total = 0
    for i in range(4):
        noise = torch.randn(5, 4, generator=rng(i), dtype=torch.float64)
        theta = g.net(torch.cat([x[:, :i], noise[:, i:]], 1), c)[:, :, i]
        z_i, log_slope = transform.encode(x[:, i], theta)
        assert_close(z[:, i], z_i)
        total = total + log_slope
    assert_close(logdet, total)


@contexts
def test_on_the_line_it_is_a_map_of_the_line(context):
    """Without a context its parameters are constants: an affine layer makes a normal of any mean and deviation."""
    flow = Flow(layer(Affine(), (1,), (4,), context), StandardNormal(1)).double()
    with torch.no_grad():
        flow.bijection.net.last.weight.zero_()
        flow.bijection.net.last.bias.copy_(
            torch.tensor([-1.5, 3 * math.atanh(math.log(2) / 3)], dtype=torch.float64)
        )
    x, c = draw((1,), context)
    normal = torch.distributions.Normal(*torch.tensor([0.75, 0.5]).double())  # z = 2 x - 1.5
    assert_close(flow.log_prob(x, c), normal.log_prob(x[:, 0]))
    assert_close(flow.bijection.decode_and_logdet(flow.bijection(x, c)[0], c)[0], x)


@orders
@families
def test_derivatives_of_the_inverse_are_those_of_differences_once_and_twice(transform, reverse):
    g = layer(transform, (3,), (4,), 1, reverse)
    z, c = (a.requires_grad_() for a in draw((3,), 1, 2))
    names, parameters = zip(*g.net.named_parameters(), strict=True)

    def solve(z, c, *parameters):
        return functional_call(
            Inverse(g), {f"bijection.net.{n}": p for n, p in zip(names, parameters)}, (z, c)
        )

    assert gradcheck(solve, (z, c, *parameters))
    assert gradgradcheck(lambda z, c: solve(z, c, *parameters), (z, c))
    assert gradgradcheck(lambda x, c: g(x, c), (z, c))


@orders
@families
def test_it_passes_through_transforms(transform, reverse):
    g = layer(transform, (3,), context=2, reverse=reverse)
    x, c = draw((3,), 2)
    for way in (g, g.decode_and_logdet):
        alone = lambda x, c: way(x[None], c[None])[0][0]
        assert_close(vmap(alone)(x, c), way(x, c)[0])
        reverse_mode, forward_mode = (vmap(d(alone))(x, c) for d in (jacrev, jacfwd))
        assert_close(reverse_mode, forward_mode)
        assert_close(torch.linalg.slogdet(reverse_mode).logabsdet, way(x, c)[1], 1e-10)


@pytest.mark.parametrize(("family", "reverse"), [("affine", True), ("spline", False)])
def test_both_directions_compile_in_one_graph(family, reverse):
    g = layer(transforms[family], (2,), (4,), 2, reverse)
    x, c = draw((2,), 2)
    for way in (g.encode_and_logdet, g.decode_and_logdet):
        torch.compiler.reset()
        compiled = torch.compile(way, fullgraph=True, backend="aot_eager")
        assert_close(compiled(x, c), way(x, c))
        leaves = list(g.parameters())
        assert_close(*(grad(sum(a.sum() for a in f(x, c)), leaves) for f in (compiled, way)))
    torch.compiler.reset()


@orders
@families
def test_under_autocast_the_log_determinant_is_that_of_the_map_it_computes(transform, reverse):
    g = layer(transform, reverse=reverse).float()
    x = draw(n=64)[0].float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z, logdet = g(x)
        back, logdet_back = g.decode_and_logdet(z)
    assert {a.dtype for a in (z, logdet, back, logdet_back)} == {torch.float32}
    slopes = [grad(z[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(4)]
    assert_close(logdet, torch.stack(slopes, 1).log().sum(1), 1e-4)
    assert (back - x).abs().median() < 1e-5  # a rounding of the net here or there may fall the other way
    assert_close(back, x, 0.2)
    assert_close(logdet_back, -logdet, 0.2)


@orders
@pytest.mark.parametrize("device", devices)
def test_copies_and_moves_take_the_masks_with_them_and_the_state_is_the_weights_alone(device, reverse):
    g = layer(Affine(), context=2, reverse=reverse)
    x, c = draw(context=2)
    assert set(g.state_dict()) == {name for name, _ in g.named_parameters()}
    fresh = MaskedAutoregressive(Affine(), MADE(4, 2, (7, 9), 2, reverse, nn.Tanh)).double()
    fresh.load_state_dict(g.state_dict())
    for other in (fresh, copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert_close(other(x, c), g(x, c), 0)
        assert_close(other.decode_and_logdet(x, c), g.decode_and_logdet(x, c), 0)
    there = copy.deepcopy(g).to(device)
    for way, moved in ((g, there), (g.decode_and_logdet, there.decode_and_logdet)):
        assert_close([a.cpu() for a in moved(x.to(device), c.to(device))], list(way(x, c)))
    shapes = [a.shape for a in copy.deepcopy(g).to("meta").decode_and_logdet(x.to("meta"), c.to("meta"))]
    assert shapes == [(5, 4), (5,)]  # no number is read, so none is waited for on a GPU


@orders
@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_none_and_of_one(n, reverse):
    g = layer(Affine(), (2, 3), context=2, reverse=reverse)
    x, c = draw((2, 3), 2, 5)
    for way in (g, g.decode_and_logdet):
        y, logdet = way(x[:n], c[:n])
        assert_close((y, logdet), tuple(a[:n] for a in way(x, c)))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.SiLU, nn.PReLU, lambda: nn.LeakyReLU(0.2)])
def test_any_activation_of_single_units_serves(activation):
    g = built(
        Member(lambda: MaskedAutoregressive(Affine(), MADE(5, 2, (6, 7), 0, False, activation))), scale=0.5
    )
    z, _ = draw((5,))
    assert_close(g.decode_and_logdet(z), naive(g, z))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@families
def test_both_directions_undo_each_other_in_high_dimension(transform, dtype, tolerance):
    g = built(Member(lambda: autoregressive(transform, (40,))), dtype)
    x = draw((40,), n=50)[0].to(dtype)
    with torch.no_grad():
        z, logdet = g(x)
        back, logdet_back = g.decode_and_logdet(z)
    assert_close(back, x, tolerance)
    assert_close(logdet_back, -logdet, 10 * tolerance)


def test_the_audit_finds_no_fault():
    for g, k in ((layer(Affine(), context=2), 2), (Inverse(layer(transforms["spline"], reverse=True)), 0)):
        x, c = draw(context=k, n=16)
        audit_bijection(g, x, context=c).raise_for_faults()


@pytest.mark.parametrize("build", [maf, iaf])
def test_maf_and_iaf_take_the_coordinates_forwards_and_backwards_in_turn(build):
    spline = RationalQuadratic(3)
    flow = build(shape=(2, 3), layers=3, hidden=(5, 4), context=2, transform=spline, activation=nn.SiLU)
    chain = flow.bijection.bijection if build is iaf else flow.bijection
    assert [type(part) for part in chain.layers] == [MaskedAutoregressive] * 3
    assert [list(part.net.order) for part in chain.layers] == [[*range(6)], [*range(6)][::-1], [*range(6)]]
    for part in chain.layers:
        assert part.transform == spline and (part.net.shape, part.net.context) == ((2, 3), 2)
        assert [inner.weight.shape for inner in part.net.layers] == [(5, 6), (4, 5)]
        assert isinstance(part.net.activation, nn.SiLU)
    default = build(dim=2)
    chain = default.bijection.bijection if build is iaf else default.bijection
    assert len(chain.layers) == 5 and {part.transform.parameters for part in chain.layers} == {2}


@pytest.mark.parametrize("transform", [Affine(), RationalQuadratic()], ids=["affine", "spline"])
@pytest.mark.parametrize("build", [maf, iaf])
def test_they_start_as_the_identity(build, transform):
    flow = build(dim=3, context=1, transform=transform).double()
    x, c = draw((3,), 1)
    for way in (flow.bijection, flow.bijection.decode_and_logdet):
        z, logdet = way(x, c)
        assert_close(z, x)
        assert_close(logdet, torch.zeros(5).double())


def test_iaf_is_the_inverse_of_maf():
    with seeded():
        flow = maf(dim=3)
    with seeded():
        other = iaf(dim=3)
    for a, b in zip(flow.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    x, _ = points(Member(None, (3,)), dtype=torch.float32)
    assert_close(other.bijection(x), flow.bijection.decode_and_logdet(x), 0)
    assert_close(other.bijection.decode_and_logdet(x), flow.bijection(x), 0)


@pytest.mark.parametrize(("build", "density", "sample"), [(maf, 1, 6), (iaf, 6, 1)])
def test_maf_has_densities_and_iaf_samples_by_one_pass(build, density, sample):
    """Counted by the activations: a pass calls that of a layer once, the way back for each coordinate but the first."""
    flow = build(dim=7, layers=1, hidden=(8,))
    calls = []
    net = next(module for module in flow.modules() if isinstance(module, MADE))
    net.activation.register_forward_hook(lambda *_: calls.append(1))
    x, _ = flow.rsample_and_log_prob(3)
    assert len(calls) == sample
    flow.log_prob(x.detach())
    assert len(calls) == sample + density
