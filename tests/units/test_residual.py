"""Residual layers: nets contract, the fixed point is the inverse, the series is unbiased, gradients are exact."""

import copy
import math
import pickle

import pytest
import torch
from registry import Member, built, points, rng, seeded
from torch import nn
from torch.autograd import gradcheck
from torch.func import jacrev, vmap

from cnflib import Flow, StandardNormal
from cnflib.data.toy import moons
from cnflib.discrete import (
    Contraction,
    ExactLogDet,
    Residual,
    RussianRoulette,
    Scale,
    TruncatedSeries,
    lipschitz,
    lipswish,
    sine,
    spectral_norm,
)
from cnflib.models import residual_flow

nets = {
    "vector": (lambda **o: Contraction(3, (16, 16), **o), (3,), 0),
    "lipswish": (lambda **o: Contraction((2, 2), (16,), activation=lipswish, **o), (2, 2), 0),
    "context": (lambda **o: Contraction(3, (16, 16), 2, **o), (3,), 2),
    "grey image": (lambda **o: Contraction((1, 8, 8), (6, 6), kernel=3, **o), (1, 8, 8), 0),
    "colour image": (lambda **o: Contraction((3, 8, 8), (6,), 2, kernel=3, **o), (3, 8, 8), 2),
}
every = pytest.mark.parametrize("name", nets)


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def net(name, scale=1.0, n=4, **options):
    """A net with weights times a scale, points and a context."""
    build, shape, context = nets[name]
    member = Member(lambda: build(**options), shape, context)
    g = built(member)
    with torch.no_grad():
        for p in g.parameters():
            p *= scale
    return g, *points(member, n)


def jacobian(f, x):
    """The Jacobian of a map of rows, shape (B, D, D)."""
    rows = torch.stack([torch.autograd.functional.jacobian(lambda y: f(y[None])[0], row) for row in x])
    return rows.reshape(len(x), x[0].numel(), x[0].numel())


def rowwise(f, x, context):
    """Jacobians of ``f(x, context)`` row by row."""
    contexts = [None] * len(x) if context is None else context.split(1)
    return torch.cat([jacobian(lambda y: f(y, c), row) for row, c in zip(x.split(1), contexts, strict=True)])


@pytest.fixture(scope="module")
def trained():
    """A flow after a short training, in float64, and its data."""
    with seeded():
        flow = residual_flow(dim=2, layers=4, hidden=(16, 16), coefficient=0.97).double()
        x = moons.sample(256, generator=rng()).double()
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    start = -flow.log_prob(x).mean()
    for _ in range(60):
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < start - 0.2
    return flow, x[:64]


# The contraction


def operator(kernel, side):
    """The matrix of a convolution with zero padding on images of a given side."""
    f = lambda x: nn.functional.conv2d(x, kernel, padding=kernel.shape[2] // 2)
    axes = torch.eye(kernel.shape[1] * side**2, dtype=kernel.dtype).reshape(-1, kernel.shape[1], side, side)
    return f(axes).flatten(1).T


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (1, 3, 3, 3), (2, 2, 5, 5), (3, 2, 1, 1)])
def test_norm_of_a_convolution_is_that_of_its_matrix_or_a_little_more(shape):
    for seed in range(8):
        kernel = torch.randn(shape, generator=rng(seed), dtype=torch.float64)
        norms = [torch.linalg.matrix_norm(operator(kernel, side), 2) for side in (2, 5, 12)]
        fine = torch.fft.fft2(kernel, (128, 128)).flatten(2).movedim(2, 0)
        supremum = torch.linalg.matrix_norm(fine, 2).max()
        assert max(norms) <= supremum * (1 + 1e-12) <= spectral_norm(kernel) * (1 + 2e-12)
        assert spectral_norm(kernel) <= 1.0396 * supremum


def test_the_reshaped_kernel_has_a_norm_that_bounds_nothing():
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    true = torch.linalg.matrix_norm(operator(kernel, 12), 2)
    assert torch.linalg.matrix_norm(kernel.flatten(1), 2) < 0.4 * true <= 0.4 * spectral_norm(kernel)
    assert 9 <= spectral_norm(kernel).item() <= 9 * 1.0396


def test_norm_of_a_matrix_is_its_largest_singular_value():
    W = torch.randn(5, 3, generator=rng(), dtype=torch.float64)
    assert_close(spectral_norm(W), torch.linalg.svdvals(W)[0])


@pytest.mark.parametrize("shape", [(5, 3), (2, 6), (3, 2, 3, 3), (2, 2, 1, 1)])
def test_norm_has_the_right_gradient(shape):
    W = torch.randn(shape, generator=rng(), dtype=torch.float64, requires_grad=True)
    assert gradcheck(spectral_norm, W)


@every
@pytest.mark.parametrize("coefficient", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_a_contraction_is_one_at_any_weights(name, coefficient, scale):
    g, x, context = net(name, scale, 2, coefficient=coefficient)
    J = rowwise(g, x, None if context is None else 10 * context)
    assert torch.linalg.matrix_norm(J, 2).max() <= coefficient
    near, far = x + 1e-3 * points(Member(None, x.shape[1:]), 2, seed=5)[0], x + 10 * x.flip(0)
    for y in (near, far):
        moved = (g(x, context) - g(y, context)).flatten(1).norm(dim=1)
        assert (moved <= coefficient * (x - y).flatten(1).norm(dim=1) * (1 + 1e-9)).all()


def test_the_bound_is_reached():
    g = Contraction(3, (), coefficient=0.8).double()
    nn.init.normal_(g.weights[0], std=10.0, generator=rng())
    J = g.at().weights[0]
    assert torch.linalg.matrix_norm(J, 2).item() == pytest.approx(0.8, rel=1e-12)


def test_layers_share_the_bound_and_smaller_weights_are_left_alone():
    g = Contraction(2, (8, 8), coefficient=0.8).double()
    with torch.no_grad():
        for k, scale in enumerate((100.0, 1e-3, 100.0)):
            g.weights[k] *= scale
    norms = [torch.linalg.matrix_norm(W, 2).item() for W in g.at().weights]
    assert norms[0] == pytest.approx(0.8 ** (1 / 3)) and norms[2] == pytest.approx(0.8 ** (1 / 3))
    assert torch.equal(g.at().weights[1], g.weights[1])


def test_zero_weights_have_finite_gradients():
    g = Contraction(2, (8,)).double()
    x, _ = points(Member(None))
    nn.init.zeros_(g.weights[-1])
    z, logdet = Residual(g)(x)
    grads = torch.autograd.grad(z.square().sum() - logdet.sum(), list(g.parameters()))
    assert_close(z, x)
    assert all(grad.isfinite().all() for grad in grads) and grads[1].any()


@every
def test_products_are_those_with_the_jacobian_in_all_rows_and_in_some(name):
    g, x, context = net(name)
    value, product = g.at(context).linearize(x)
    J = rowwise(g, x, context)
    v = torch.randn(2, *x.shape, generator=rng(), dtype=x.dtype)
    wanted = torch.einsum("bij,kbj->kbi", J, v.flatten(2)).reshape(v.shape)
    rows = torch.tensor([3, 0])
    assert_close(value, g(x, context))
    assert_close(product(v), wanted)
    assert_close(product(v[:, rows], rows), wanted[:, rows])


@pytest.mark.parametrize("activation", [lipswish, sine])
def test_an_activation_gives_its_slope_and_has_none_above_one(activation):
    a = torch.linspace(-20, 20, 100_001, dtype=torch.float64, requires_grad=True)
    y, slope = activation(a)
    assert_close(slope, torch.autograd.grad(y.sum(), a, retain_graph=True)[0])
    assert 0.999 < slope.abs().max() <= 1
    assert torch.autograd.grad(slope.sum(), a)[0].isfinite().all()


# The layer


@every
@pytest.mark.parametrize("coefficient", [0.9, 0.99])
def test_inverse_and_logdet_are_exact(name, coefficient):
    net_, x, context = net(name, 3.0, coefficient=coefficient)
    g = Residual(net_)
    z, logdet = g(x, context)
    back, logdet_back = g.decode_and_logdet(z, context)
    assert (back - x).abs().max() < 1e-9 and torch.equal(g.encode(x, context), z)
    assert (g(g.decode(x, context), context)[0] - x).abs().max() < 1e-9
    wanted = torch.linalg.slogdet(rowwise(lambda y, c: g(y, c)[0], x, context))
    assert (wanted.sign == 1).all()
    assert_close(logdet, wanted.logabsdet)
    assert_close(logdet_back, -wanted.logabsdet)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28)])
def test_images_invert_and_their_exact_logdet_is_that_of_the_jacobian(shape):
    member = Member(lambda: Residual(Contraction(shape, (4,), kernel=3, coefficient=0.95)), shape)
    g, (x, _) = built(member, scale=1.0), points(member, 1)
    z, logdet = g(x)
    assert (g.decode(z) - x).abs().max() < 1e-9
    assert_close(logdet, torch.linalg.slogdet(jacobian(g.net, x) + torch.eye(x.numel())).logabsdet)


def test_a_trained_flow_inverts_and_integrates_to_one(trained):
    flow, x = trained
    z, logdet = flow.bijection(x)
    back, logdet_back = flow.bijection.decode_and_logdet(z)
    assert (back - x).abs().max() < 1e-9 and (logdet + logdet_back).abs().max() < 1e-9
    J = jacobian(lambda y: flow.bijection(y)[0], x)
    assert_close(logdet, torch.linalg.slogdet(J).logabsdet)
    line = (torch.arange(200, dtype=torch.float64) + 0.5) / 200 * 12 - 6
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(line, line)).exp().sum() * (12 / 200) ** 2
    assert abs(mass.item() - 1) < 1e-3


def test_a_trained_net_is_a_contraction(trained):
    flow, x = trained
    norms = [
        torch.linalg.matrix_norm(jacobian(layer.net, x), 2).max() for layer in flow.bijection.layers[::2]
    ]
    assert max(norms) <= 0.97 and max(norms) > 0.3  # the bound is in use


def test_the_slowest_contraction_converges():
    """g(x) = ±0.99 x: some 3600 iterations; at -0.99 a digit of z is worth a hundred of x."""
    for slope, tolerance in ((0.99, 1e-12), (-0.99, 1e-10)):
        net_ = Contraction(2, (), coefficient=0.99).double()
        with torch.no_grad():
            net_.weights[0].copy_(1e3 * slope * torch.eye(2))
        x, _ = points(Member(None))
        assert (Residual(net_).decode((1 + slope) * x) - x).abs().max() < tolerance


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e8])
def test_extreme_points_invert(size):
    g = Residual(net("vector", 3.0)[0])
    x = size * points(Member(None, (3,)))[0]
    assert ((g.decode(g(x)[0]) - x).abs() <= 1e-9 * (1 + size)).all()


@pytest.mark.parametrize("logdet", [ExactLogDet(), RussianRoulette()], ids=str)
@pytest.mark.parametrize("given", ["contraction", "net of one's own"])
def test_under_autocast_both_directions_and_their_gradients_keep_the_dtype_of_x(given, logdet):
    """In bfloat16 the iteration would end far from what was encoded, or not at all."""
    with seeded():
        net = Contraction(3, (8,), context=2) if given == "contraction" else OfContext()
    layer = Residual(net, logdet)
    x, c = torch.randn(20, 3, generator=rng()), torch.randn(20, 2, generator=rng(1))

    def results(c):
        z, there = layer(x, c, rng())
        back, again = layer.decode_and_logdet(z, c, rng())
        values = z, there, back, again, layer.encode(x, c), layer.decode(z, c)
        return values

    wanted = results(c.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        found = results(c.bfloat16())
    assert {v.dtype for v in found} == {torch.float32}
    assert_close(found, wanted, 0)
    total = [sum(v.square().sum() for v in values) for values in (found, wanted)]
    assert_close(*(torch.autograd.grad(value, list(layer.parameters())) for value in total), 0)
    assert_close(found[2], x, 1e-5)


class OfContext(torch.nn.Module):
    """A contraction that is no Contraction."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(5, 3)
        torch.nn.init.normal_(self.inner.weight, std=0.1)

    def forward(self, x, context):
        return torch.tanh(self.inner(torch.cat([x, context], 1)))


def test_float32_inverts_to_its_rounding(trained):
    flow, x = trained
    with seeded():
        single = residual_flow(dim=2, layers=4, hidden=(16, 16), coefficient=0.97)
    single.load_state_dict({k: v.float() for k, v in flow.state_dict().items()})
    x = x.float()
    z, logdet = single.bijection(x)
    assert z.dtype == logdet.dtype == torch.float32
    assert (single.bijection.decode(z) - x).abs().max() < 1e-4
    assert (logdet - flow.bijection(x.double())[1]).abs().max() < 1e-4


def test_rows_converge_on_their_own():
    """The origin is its own image, so that row is done at once and must not end the others."""
    layer = Residual(Wave(0.95))
    x = torch.tensor([[0.0, 0.0], [0.1, 0.2], [3.0, 0.0], [1e4, 2.0]], dtype=torch.float64)
    z = layer(x)[0]
    assert_close(layer.decode(z), x, 1e-13)
    assert_close(layer.decode(z), torch.cat([layer.decode(row) for row in z.split(1)]), 1e-13)


def test_a_map_that_does_not_contract_is_refused():
    x, _ = points(Member(None))
    for a in (1.5, math.nan):
        with pytest.raises(ValueError, match="iteration"):
            Residual(Wave(a)).decode(40 * x)


def test_weights_are_bounded_once_a_call(monkeypatch):
    calls = []
    monkeypatch.setattr(lipschitz, "spectral_norm", lambda W: calls.append(1) or spectral_norm(W))
    g, x, _ = net("vector", 3.0)
    layer = Residual(g)
    for call in (layer, layer.encode, layer.decode, layer.decode_and_logdet):
        calls.clear()
        call(x)
        assert len(calls) == 3


class Wave(nn.Module):
    """g(x, c) = a sin(x + c): a net without any of our methods."""

    def __init__(self, a=0.5):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x, context=None):
        return self.a * torch.sin(x if context is None else x + context)


@pytest.mark.parametrize("given", [False, True])
def test_a_net_of_any_kind_serves(given):
    x, context = points(Member(None, (3,), 3), 5)
    context = context if given else None
    phase = x if context is None else x + context
    terms = torch.log1p(0.5 * torch.cos(phase)).sum(1)
    g = Residual(Wave())
    z, logdet = g(x, context)
    assert_close(z, x + 0.5 * torch.sin(phase))
    assert_close(logdet, terms)
    assert_close(g.decode(z, context), x)
    many = [None if a is None else a.repeat(4000, 1) for a in (x, context)]
    draws = Residual(Wave(), RussianRoulette(2, 0.5))(*many, rng())[1].reshape(4000, 5)
    assert ((draws.mean(0) - terms).abs() < 3.5 * draws.std(0) / 4000**0.5).all()


# Gradients


@every
@pytest.mark.parametrize("call", ["decode", "decode_and_logdet"])
def test_gradients_of_the_inverse_are_exact(name, call):
    g, z, context = net(name, 3.0, n=2, coefficient=0.9)
    if call == "decode_and_logdet" and len(g.shape) == 3:
        g, z, context = net(name, 3.0, n=1)
    layer = Residual(g)
    leaves = [leaf.requires_grad_() for leaf in (z, context) if leaf is not None] + list(layer.parameters())
    weights = torch.randn(z.shape, generator=rng(9), dtype=z.dtype)

    def value():
        out = getattr(layer, call)(z, context)
        return (weights * out).sum() if call == "decode" else (weights * out[0]).sum() + 0.3 * out[1].sum()

    grads = torch.autograd.grad(value(), leaves)
    for leaf, grad in zip(leaves, grads, strict=True):
        direction = torch.randn(leaf.shape, generator=rng(4), dtype=leaf.dtype)
        ends = []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                leaf += h * direction
                ends.append(value().item())
                leaf -= h * direction
        slope = (ends[0] - ends[1]) / 2e-5
        assert (grad * direction).sum().item() == pytest.approx(slope, abs=1e-6, rel=1e-6)


def test_gradient_of_the_inverse_is_the_inverse_of_the_gradient():
    g, x, _ = net("vector", 3.0, coefficient=0.99)
    layer = Residual(g)
    z = layer(x)[0]
    assert_close(
        jacobian(layer.decode, z.detach()), torch.linalg.inv(jacobian(lambda y: layer(y)[0], x)), 1e-8
    )


def test_gradients_may_be_taken_twice_over_but_not_of_each_other():
    g, z, _ = net("vector", 3.0)
    z.requires_grad_()
    x = Residual(g).decode(z)
    first, again = (torch.autograd.grad(x.square().sum(), z, retain_graph=True)[0] for _ in range(2))
    assert_close(first, again, 1e-15)
    (slope,) = torch.autograd.grad(x.square().sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_nothing_wants_a_gradient_where_no_leaf_does():
    g, z, _ = net("vector", 3.0)
    layer = Residual(g)
    with torch.no_grad():
        assert not layer.decode(z).requires_grad
    assert layer.decode(z).requires_grad
    layer.requires_grad_(False)
    assert not layer.decode(z).requires_grad
    assert layer.decode(z.requires_grad_()).requires_grad


def test_a_training_step_on_samples_lowers_a_cost():
    """The gradient reaches parameters through samples: a flow is drawn to the point (1, 1)."""
    with seeded():
        flow = residual_flow(dim=2, layers=2, hidden=(8,)).double()
    optimizer = torch.optim.Adam(flow.parameters(), 0.05)
    costs = []
    for _ in range(20):
        cost = (flow.rsample(64, generator=rng()) - 1).square().mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    assert costs[-1] < 0.7 * costs[0]


# The series


def linear(slope, dim=1):
    """Products with J = slope I."""
    return lambda v, rows=None: slope * v


@pytest.mark.parametrize("slope", [-0.85, 0.5, 0.85])
@pytest.mark.parametrize(("terms", "ratio"), [(1, 0.8), (4, 0.8), (2, 0.9)])
def test_roulette_has_the_mean_and_the_variance_that_its_formula_gives(slope, terms, ratio):
    """In one dimension the probe's square is 1, so all the noise is that of the number of terms."""
    draws = RussianRoulette(terms, ratio)(linear(slope), torch.zeros(100_000, 1).double(), rng())
    survive = lambda k: ratio ** max(k - terms, 0)
    a = [(-1) ** (k + 1) * slope**k / k for k in range(1, 300)]
    tails = [sum(a[k:]) for k in range(1, len(a) + 1)]
    second = sum(
        (a[k] ** 2 + 2 * a[k] * tail) / survive(k + 1) for k, tail in zip(range(len(a)), tails, strict=True)
    )
    mean, variance = math.log1p(slope), second - math.log1p(slope) ** 2
    assert abs(draws.mean().item() - mean) < 3 * (variance / len(draws)) ** 0.5
    assert draws.var().item() == pytest.approx(variance, rel=0.25)


@every
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_roulette_is_unbiased_and_the_truncated_series_is_not(name, way):
    g, x, context = net(name, 3.0, n=1, coefficient=0.9)
    with torch.no_grad():
        exact = getattr(Residual(g), f"{way}_and_logdet")(x, context)[1]
        draws = 2000 if x.numel() > 20 else 10_000
        start = getattr(Residual(g), f"{way}_and_logdet")(x, context)[0] if way == "decode" else x
        sign = -1 if way == "decode" else 1
        product = g.at(None if context is None else context.expand(draws, -1)).linearize(
            start.expand(draws, *x.shape[1:])
        )[1]
        many = x.expand(draws, *x.shape[1:])
        roulette = sign * RussianRoulette(3, 0.85)(product, many, rng())
        short = sign * TruncatedSeries(2)(product, many, rng())
    assert abs(roulette.mean() - exact) < 3 * roulette.std() / draws**0.5
    J = jacobian(lambda y: g(y, context), start)[0]
    kept = sign * (torch.trace(J) - torch.trace(J @ J) / 2)
    assert abs(short.mean() - kept) < 3 * short.std() / draws**0.5


def test_the_truncated_series_is_biased_and_within_its_bound():
    x, D, kappa = torch.zeros(2000, 3).double(), 3, 0.9
    for slope in (-0.9, 0.9):
        truth = D * math.log1p(slope)
        for terms in (1, 2, 5, 20):
            error = TruncatedSeries(terms)(linear(slope), x, rng()).mean().item() - truth
            assert 1e-3 < abs(error) <= D / (terms + 1) * kappa ** (terms + 1) / (1 - kappa)
    assert abs(TruncatedSeries(200)(linear(0.9), x, rng()).mean().item() - D * math.log1p(0.9)) < 1e-9


def test_the_gradient_of_roulette_is_unbiased():
    g = Contraction(3, ()).double()
    with torch.no_grad():
        g.weights[0].copy_(torch.tensor([[0.7, 0.1, 0.0], [-0.2, -0.5, 0.1], [0.0, 0.1, 0.3]]))
    x = torch.zeros(200, 3, dtype=torch.float64)

    def slope(logdet, seed=0):
        return torch.autograd.grad(Residual(g, logdet)(x, None, rng(seed))[1].mean(), g.weights[0])[0]

    draws = torch.stack([slope(RussianRoulette(1, 0.8), seed) for seed in range(100)])
    off = (draws.mean(0) - slope(ExactLogDet())) / (draws.std(0) / 10)
    assert off.abs().max() < 3.5 and off.square().mean() < 2.5


def test_more_terms_and_more_probes_lower_the_variance():
    g, x, _ = net("lipswish", 3.0, n=1)
    x = x.repeat(4000, *[1] * (x.ndim - 1))
    with torch.no_grad():
        spread = lambda logdet: Residual(g, logdet)(x, None, rng())[1].var()
        assert spread(RussianRoulette(8, 0.9)) < 1.05 * spread(RussianRoulette(1, 0.5))
        assert spread(RussianRoulette(4, 0.9, probes=4)) < 0.4 * spread(RussianRoulette(4, 0.9))


def test_rows_of_a_roulette_end_on_their_own():
    """Every row draws its own number of terms, and the work shrinks with the rows that are left."""
    seen = []
    product = lambda v, rows=None: seen.append(len(rows)) or 0.5 * v
    estimates = RussianRoulette(2, 0.5)(product, torch.zeros(4000, 1).double(), rng())
    assert seen[:2] == [4000, 4000] and len(seen) > 6
    assert all(
        abs(count - 4000 * 0.5**k) < 4 * (4000 * 0.5**k) ** 0.5 for k, count in enumerate(seen[2:7], 1)
    )
    assert len(estimates.unique()) == len(seen) - 1


def test_an_estimate_of_an_image_has_the_dtype_of_its_input():
    flow = residual_flow(shape=(1, 28, 28), layers=1, hidden=(4,))
    x = torch.randn(2, 1, 28, 28, generator=rng())
    log_prob = flow.log_prob(x, generator=rng(1))
    assert log_prob.dtype == torch.float32 and log_prob.isfinite().all()


settings = {
    ExactLogDet(): "ExactLogDet()",
    RussianRoulette(): "RussianRoulette()",
    RussianRoulette(2, 0.8): "RussianRoulette(terms=2, ratio=0.8)",
    RussianRoulette(probes=3): "RussianRoulette(probes=3)",
    TruncatedSeries(7): "TruncatedSeries(terms=7)",
}


@pytest.mark.parametrize(("logdet", "shown"), settings.items(), ids=settings.values())
def test_a_log_determinant_is_a_value_that_prints_as_the_call_that_makes_it(logdet, shown):
    assert repr(logdet) == shown and eval(shown) == logdet
    for other in (copy.deepcopy(logdet), pickle.loads(pickle.dumps(logdet))):
        assert other == logdet and hash(other) == hash(logdet)
    assert [other for other in settings if other == logdet] == [logdet]
    assert f"logdet={shown}" in repr(residual_flow(dim=2, layers=1, logdet=logdet))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: RussianRoulette(0), "terms"),
        (lambda: RussianRoulette("exact"), "terms"),
        (lambda: RussianRoulette(ratio=1), "ratio"),
        (lambda: TruncatedSeries(1.5), "terms"),
        (lambda: Residual(Contraction(2), ExactLogDet), "logdet"),
        (lambda: residual_flow(dim=2, logdet=RussianRoulette), "logdet"),
    ],
)
def test_a_log_determinant_is_checked_when_it_is_built(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_a_log_determinant_may_be_built_inside_of_compiled_code():
    torch.compiler.reset()
    g, x = Contraction(2, (4,)), torch.randn(3, 2, generator=rng())
    exact = lambda x: ExactLogDet()(g.at().linearize(x)[1], x)
    assert_close(torch.compile(exact, backend="eager", fullgraph=True)(x), exact(x), 1e-6)
    torch.compiler.reset()


# The builder


def test_residual_flow_is_exact_in_low_dimension_and_an_estimate_of_finite_variance_beyond():
    def logdets(**options):
        layers = residual_flow(layers=2, hidden=(4,), **options).bijection.layers
        assert [type(layer) for layer in layers] == [Residual, Scale] * 2
        return layers[0].logdet

    assert logdets(dim=16) == ExactLogDet() == logdets(shape=(1, 4, 4))
    assert logdets(dim=17, coefficient=0.7) == RussianRoulette(ratio=0.7)  # of finite variance: 0.7 > 0.7²
    assert logdets(dim=17, logdet=ExactLogDet()) == ExactLogDet()


def test_residual_flow_convolves_images_and_flattens_other_events():
    image, matrix = (residual_flow(shape=s, layers=1, hidden=(5, 4), context=3) for s in ((2, 4, 6), (2, 4)))
    shapes = [[tuple(W.shape) for W in flow.bijection.layers[0].net.weights] for flow in (image, matrix)]
    assert shapes[0] == [(5, 2, 3, 3), (4, 5, 1, 1), (2, 4, 3, 3)]
    assert shapes[1] == [(5, 8), (4, 5), (8, 4)]
    assert {flow.bijection.layers[0].net.context for flow in (image, matrix)} == {3}


def test_the_first_step_trains_every_layer():
    with seeded():
        flow = residual_flow(dim=2)
    loss = -flow.log_prob(torch.randn(64, 2, generator=rng()) + 1).mean()
    assert all(g.any() for g in torch.autograd.grad(loss, list(flow.parameters())))


def test_a_conditional_flow_learns_what_its_context_says():
    """x | c ~ N(c, 0.25): a shift by the context, which no bound on x may hinder."""
    with seeded():
        flow = residual_flow(dim=1, layers=3, hidden=(8,), context=1).double()
    c = torch.randn(256, 1, generator=rng(), dtype=torch.float64)
    x = 3 * c + 0.5 * torch.randn(256, 1, generator=rng(1), dtype=torch.float64)
    optimizer = torch.optim.Adam(flow.parameters(), 2e-2)
    for _ in range(100):
        loss = -flow.log_prob(x, c).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5 * math.log(2 * math.pi * math.e * 0.25) + 0.15


# torch's transforms


def test_forward_of_an_image_compiles():
    layer = Residual(Contraction((2, 4, 4), (4,), context=1, kernel=3))
    x, c = torch.randn(3, 2, 4, 4, generator=rng()), torch.randn(3, 1, generator=rng(1))
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for found, expected in zip(compiled(x, c), layer(x, c)):
        assert_close(found, expected, 1e-6)
    torch.compiler.reset()


def test_forward_compiles_and_is_differentiated_by_torch_func():
    flow = Flow(Residual(Contraction(2, (4,))), StandardNormal(2)).double()
    x, _ = points(Member(None))
    torch.compiler.reset()
    compiled = torch.compile(flow.log_prob, backend="aot_eager", fullgraph=True)
    leaves = list(flow.parameters())
    assert_close(compiled(x), flow.log_prob(x))
    grads = [torch.autograd.grad(f(x).mean(), leaves, allow_unused=True) for f in (compiled, flow.log_prob)]
    assert_close(*grads)
    leaf = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(leaf).sum(), leaf)
    rows = vmap(jacrev(lambda row: flow.log_prob(row[None])[0]))(x)
    assert_close(rows, score)
    torch.compiler.reset()
