"""Planar layers: the paper's formulas, the inverse by root finding up to the constraint, gradients, and both uses."""

import math

import pytest
import torch
from fitting import LOG_EVIDENCE, elbo, likelihood, log_volumes, train, two_bumps
from registry import Member, built, points, rng, seeded
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, hessian, jacfwd, jacrev

from cnflib import Chain, Flow, Inverse, StandardNormal
from cnflib.audit import audit_bijection
from cnflib.discrete import Planar, planar
from cnflib.models import planar_flow

EPS = torch.finfo(torch.float64).eps
maps = {"forward": lambda g: g, "inverse": lambda g: g.inverse}
both_ways = pytest.mark.parametrize("way", maps)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def layer(shape=(2,), context=0, scale=0.5):
    return built(Member(lambda: Planar(shape, (8,), context), shape, context), scale=scale)


def draw(shape=(2,), context=0, n=3):
    return points(Member(None, shape, context), n)


@pytest.fixture(scope="module")
def trained():
    return train(lambda: planar_flow(dim=2, layers=8), likelihood, 250)


@pytest.fixture(scope="module")
def posterior():
    build = lambda: Flow(Inverse(planar_flow(dim=2, layers=8).bijection), StandardNormal(2))
    return train(build, lambda flow, generator: -elbo(flow, generator).mean(), 250)


def near_constraint(wu, w=(1.0, 0.5), b=0.2):
    """A layer of which w · u is given, so that its smallest slope is softplus(wu)."""
    g = Planar(2).double()
    with torch.no_grad():
        g.w.copy_(torch.tensor(w))
        g.u.copy_(torch.tensor([0.3, -0.4]))
        g.u += (wu - g.w @ g.u) / g.w.square().sum() * g.w
        g.b.fill_(b)
    return g


def test_forward_is_the_formula_of_the_paper():
    g, (x, _) = layer((3,)), draw((3,), n=30)
    with torch.no_grad():
        g.b.fill_(0.3)
    w, u, b = g.w, g.u, g.b
    m = -1 + torch.log(1 + torch.exp(w @ u))
    u_hat = u + (m - w @ u) * w / w.norm() ** 2
    h = torch.tanh(x @ w + b)
    z, logdet = g(x)
    assert_close(z, x + h[:, None] * u_hat)
    assert_close(logdet, (1 + (1 - h**2) * (w @ u_hat)).log())
    assert h.abs().min() < 0.5 and (u_hat - u).norm() > 0.05  # so neither is lost


@pytest.mark.parametrize("wu", [-30.0, -3.0, 0.0, 2.0, 20.5, 50.0])
def test_the_constraint_holds_for_every_w_and_u(wu):
    """The slope across the hyperplane itself is softplus(w · u) > 0, to its last digits."""
    g = near_constraint(wu)
    on_plane = -g.b * g.w / g.w.square().sum()
    slope = g(on_plane[None])[1].exp()
    assert slope.item() == pytest.approx(math.log1p(math.exp(-abs(wu))) + max(wu, 0), rel=1e-12)


@pytest.mark.parametrize("wu", [-300.0, -40.0])
def test_the_logdet_does_not_cancel_at_the_constraint(wu):
    """On the hyperplane it is log softplus(w · u) = w · u, where 1 + w · û would round to zero."""
    g = near_constraint(wu, w=(1.0, 0.0), b=0.0)
    assert_close(g(torch.zeros(1, 2).double())[1], torch.tensor([wu]).double())
    g.float()
    assert g(torch.zeros(1, 2))[1].item() == pytest.approx(max(wu, -87.4), rel=1e-2)


@both_ways
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_inverse_and_logdets_at_random_weights(way, context, scale):
    g, (x, c) = layer((4,), context, scale), draw((4,), context, 50)
    there, back = (g, g.inverse) if way == "forward" else (g.inverse, g)
    z, logdet = there(x, c)
    again, undone = back(z, c)
    assert (again - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9
    assert (logdet[:5] - log_volumes(there, x[:5], None if c is None else c[:5])).abs().max() < 1e-9


@both_ways
def test_inverse_and_logdets_at_trained_weights(trained, posterior, way):
    x = two_bumps(100, rng(1))
    for g in (trained.bijection, posterior.bijection):
        there, back = (g, g.inverse) if way == "forward" else (g.inverse, g)
        with torch.no_grad():
            z, logdet = there(x)
            again, undone = back(z)
        assert (again - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9
        assert (logdet[:20] - log_volumes(there, x[:20])).abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("context", [0, 2])
def test_images(shape, context):
    g, (x, c) = layer(shape, context, 0.1), draw(shape, context)
    z, logdet = g(x, c)
    assert (g.inverse(z, c)[0] - x).abs().max() < 1e-9
    assert (logdet + g.inverse(z, c)[1]).abs().max() < 1e-9
    assert logdet.abs().max() > 1e-4
    row = None if c is None else c[:1]
    for way in (g, g.inverse):
        assert (way(x[:1], row)[1] - log_volumes(way, x[:1], row)).abs().max() < 1e-9


roots = [
    1e-30,
    1e-16,
    1e-10,
    1e-6,
    1e-3,
    0.05,
    0.3,
    0.9,
    1 - 1e-12,
    1.0,
    1 + 1e-12,
    1.5,
    3.0,
    30.0,
    1e3,
    1e5,
    1e8,
]


@pytest.mark.parametrize("c", roots)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_root_is_found_to_rounding_times_the_condition_number(c, sign):
    """For every y, up to the constraint c -> 0 and far from it, also at the bend near y = c - 1."""
    c = torch.tensor(c, dtype=torch.float64)
    t = torch.cat([torch.logspace(-20, 3, 300), torch.linspace(0, 12, 300)]).double() * sign
    y = t - torch.tanh(t) + c * torch.tanh(t)
    root = planar._root(y, c)
    slope = torch.tanh(t) ** 2 + c / torch.cosh(t) ** 2
    assert ((root - t).abs() <= 16 * EPS * (t.abs() + (t.abs() + y.abs()) / slope)).all()
    assert ((root - y).abs() <= (c - 1).abs() * (1 + 8 * EPS) + 8 * EPS * y.abs()).all()  # |tanh| <= 1


@pytest.mark.parametrize("c", [1e-10, 1e-3, 2.0])
def test_a_root_near_zero_has_its_digits_too(c):
    """There tanh t = t, and the root is y / c: of c - 1 the digits of c would be lost."""
    t = torch.logspace(-20, -9, 50, dtype=torch.float64)
    torch.testing.assert_close(
        planar._root(c * t, torch.tensor(c, dtype=torch.float64)) / t, torch.ones_like(t), rtol=1e-8, atol=0
    )


def test_the_start_is_a_bound_on_the_side_from_which_newton_is_monotone():
    c = torch.tensor([c for c in roots if abs(c - 1) > 1e-9]).double()[:, None]
    t = torch.cat(
        [torch.logspace(-6, 0.9, 200), torch.linspace(0, 8, 100)]
    ).double()  # further out tanh rounds to 1
    start = planar._start(t - torch.tanh(t) + c * torch.tanh(t), c)
    assert torch.where(c < 1, start >= t * (1 - 1e-8), start <= t + 1e-8).all()
    assert torch.where(c < 1, start <= 1.6 * t, True).all()  # and not far from the root


@pytest.mark.parametrize("wu", [-2.0, -6.0, -12.0, -18.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_inverse_near_the_constraint_is_as_good_as_the_map_is_conditioned(wu, dtype):
    g = near_constraint(wu).to(dtype)
    x = torch.randn(2000, 2, generator=rng(), dtype=dtype)
    x[:1000] *= 10 ** torch.linspace(-9, 0, 1000, dtype=dtype)[:, None]  # many near the hyperplane
    x[:1000] -= g.b * g.w / g.w.square().sum()
    with torch.no_grad():
        z, logdet = g(x)
        back, undone = g.inverse(z)
    condition = (-logdet).exp()
    error = (back - x).norm(dim=1)
    assert condition.max() > 0.3 * math.exp(-wu)
    assert (error <= 16 * torch.finfo(dtype).eps * condition).all()
    slope_error = (logdet + undone).abs()  # the slope changes by t at most where t moves by 1
    assert (slope_error <= 64 * torch.finfo(dtype).eps * condition**2).all()


def test_the_gradient_of_the_inverse_near_the_constraint_is_the_inverse_jacobian():
    g = near_constraint(-8.0)
    x = torch.tensor([[-0.15, 0.01], [-0.1, -0.2], [1.0, 1.0]], dtype=torch.float64)
    for row in x[:, None]:
        J = jacrev(lambda y: g(y)[0])(row).reshape(2, 2)
        K = jacrev(lambda y: g.inverse(y)[0])(g(row)[0]).reshape(2, 2)
        assert_close(K @ J, torch.eye(2).double(), 1e-9)


class Way(torch.nn.Module):
    """One direction of a bijection as a function of its parameters too."""

    def __init__(self, g, way):
        super().__init__()
        self.g, self.way = g, way

    def forward(self, x, context):
        return maps[self.way](self.g)(x, context)


@both_ways
@pytest.mark.parametrize("context", [0, 1])
def test_first_and_second_derivatives_in_everything(way, context):
    g, (x, c) = layer((2,), context), draw((2,), context, 2)
    names = [f"g.{name}" for name, _ in g.named_parameters()]
    leaves = [leaf.requires_grad_() for leaf in (x, c) if leaf is not None] + list(g.parameters())

    def call(x, *rest):
        c, parameters = (rest[0], rest[1:]) if context else (None, rest)
        return functional_call(Way(g, way), dict(zip(names, parameters, strict=True)), (x, c))

    assert gradcheck(call, leaves, check_forward_ad=True)
    assert gradgradcheck(call, leaves)


@both_ways
def test_transforms_of_torch_func_agree_also_on_the_hyperplane(way):
    g = layer()
    f = lambda y: maps[way](g)(y[None])[1][0]
    for x in (draw()[0][0], torch.zeros(2).double(), -(g.b * g.w / g.w.square().sum()).detach()):
        assert_close(jacfwd(f)(x), jacrev(f)(x))
        assert_close(hessian(f)(x), jacfwd(jacfwd(f))(x))
        assert jacrev(jacrev(jacrev(f)))(x).isfinite().all()


@both_ways
def test_it_compiles_without_a_graph_break(way):
    g, (x, c) = layer((2,), 2), draw((2,), 2)
    compiled = torch.compile(maps[way](g), backend="eager", fullgraph=True)
    assert_close(compiled(x, c), maps[way](g)(x, c))


def test_where_w_vanishes_the_layer_is_a_shift():
    g, (x, _) = layer(), draw()
    with torch.no_grad():
        g.w.zero_()
    z, logdet = g(x)
    assert_close(z, x + g.u * torch.tanh(g.b))
    assert_close(logdet, torch.zeros(3).double())
    assert_close(g.inverse(z)[0], x)
    grads = torch.autograd.grad(g.inverse(z)[0].sum() + z.square().sum() + logdet.sum(), list(g.parameters()))
    assert all(grad.isfinite().all() for grad in grads) and grads[0].any()


@pytest.mark.parametrize("size", [1e-30, 1e-8])
def test_a_tiny_w_gives_finite_numbers(size):
    g, (x, _) = layer(), draw()
    with torch.no_grad():
        g.w.mul_(size)
        g.b.zero_()
    z, logdet = g(x)
    assert_close(logdet, torch.full((3,), math.log(math.log(2))).double(), 1e-6)  # the slope softplus(0)
    assert_close(g.inverse(z)[0], x, 1e-6)


def test_a_fresh_layer_is_near_the_identity_and_unlike_the_next():
    with seeded():
        layers = [Planar(5) for _ in range(20)]
    x = torch.randn(100, 5, generator=rng())
    for g in layers:
        z, logdet = g(x)
        assert 0.01 < (z - x).abs().max() < 1.2 and logdet.abs().max() < 0.9
        grads = torch.autograd.grad(z.square().sum() - logdet.sum(), list(g.parameters()))
        assert all(grad.abs().max() > 1e-2 for grad in grads)
    for name in "wub":
        values = torch.stack([getattr(g, name) for g in layers])
        assert torch.pdist(values).min() > 1e-3


def test_a_fresh_conditional_layer_is_the_same_for_every_context():
    g, (x, c) = Planar(2, context=3).double(), draw((2,), 3)
    assert_close(g(x, c), g(x, c + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e3, 1e15])
def test_extreme_points(dtype, size):
    g, (x, _) = layer().to(dtype), draw(n=1)
    x = (x * size).to(dtype)
    z, logdet = g(x)
    back, undone = g.inverse(z)
    assert_close(back, x, 50 * torch.finfo(dtype).eps)
    assert_close(logdet, -undone, 50 * torch.finfo(dtype).eps)


def test_an_audit_finds_no_fault(trained):
    audit_bijection(trained.bijection, two_bumps(5, rng())).raise_for_faults()


def test_maximum_likelihood_fits_two_bumps(trained):
    """Nearly to the entropy of the data, log 2 + 1.4 nats, where the best normal stays 0.3 nats behind."""
    x = two_bumps(4000, rng(5))
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    entropy = math.log(2) + math.log(0.3 * 0.8) + 1 + math.log(2 * math.pi)
    with torch.no_grad():
        nll, fresh = -trained.log_prob(x).mean(), -normal.log_prob(x).mean()
        samples = trained.sample(4000, generator=rng(6))
    assert entropy - 0.05 < nll < entropy + 0.15 < fresh - 0.3
    assert abs((samples[:, 0] > 0).double().mean() - 0.5) < 0.05
    assert (samples[:, 0].abs() < 0.3).double().mean() < 0.06
    assert_close(samples.std(0), x.std(0), 0.1)


def test_the_trained_density_integrates_to_one(trained, posterior):
    line = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 * 20 - 10
    with torch.no_grad():
        for flow in (trained, posterior):
            mass = flow.log_prob(torch.cartesian_prod(line, line)).exp().sum() * 0.05**2
            assert abs(mass.item() - 1) < 1e-3


def test_as_a_variational_posterior_it_tightens_the_bound_on_a_known_evidence(posterior):
    with torch.no_grad():
        values = elbo(posterior, rng(7), 20_000)
        gap = LOG_EVIDENCE - values.mean()
        weights = (values - LOG_EVIDENCE).exp()
    assert 0 < gap < 0.15  # the best normal leaves more than 0.2, as the next lines say
    assert abs(weights.mean() - 1) < 4 * weights.std() / len(weights) ** 0.5
    normal = train(Gaussian, lambda q, generator: -elbo(q, generator).mean(), 400, 2e-2)
    with torch.no_grad():
        assert LOG_EVIDENCE - elbo(normal, rng(7), 20_000).mean() > 0.2


class Gaussian(torch.nn.Module):
    """The full-covariance normal that flows have to beat."""

    def __init__(self):
        super().__init__()
        self.mean, self.root = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.eye(2))

    def sample_and_log_prob(self, n, generator):
        normal = torch.distributions.MultivariateNormal(self.mean, scale_tril=self.root.tril())
        x = self.mean + torch.randn(n, 2, generator=generator, dtype=self.mean.dtype) @ self.root.tril().T
        return x, normal.log_prob(x)


def test_inverted_it_samples_without_a_root_finding(posterior, monkeypatch):
    monkeypatch.setattr(planar, "_root", None)
    x, log_prob = posterior.sample_and_log_prob(5, generator=rng())
    assert x.isfinite().all() and log_prob.isfinite().all()
    with pytest.raises(TypeError):
        posterior.log_prob(x)


def test_a_conditional_flow_follows_its_context():
    """x | c ~ N((c, -c), 0.5²): at other contexts than those of the training, within their range."""

    def loss(flow, generator):
        c = 3 * torch.rand(256, 1, generator=generator, dtype=torch.float64) - 1.5
        x = torch.cat([c, -c], 1) + 0.5 * torch.randn(256, 2, generator=generator, dtype=torch.float64)
        return -flow.log_prob(x, c).mean()

    flow = train(lambda: planar_flow(dim=2, layers=6, hidden=(16,), context=1), loss, 250)
    with torch.no_grad():
        nll = torch.stack([loss(flow, rng(seed)) for seed in range(8)]).mean()
        means = [
            flow.sample(2000, torch.tensor([[c]]).double(), rng()).mean(0) - torch.tensor([c, -c])
            for c in (-1.2, 0.0, 1.2)
        ]
    entropy = 1 + math.log(2 * math.pi * 0.25)
    assert entropy - 0.05 < nll < entropy + 0.15
    assert torch.stack(means).abs().max() < 0.25


def test_a_deep_chain_keeps_its_digits():
    g = built(Member(lambda: Chain(*[Planar(3) for _ in range(64)])), scale=0.2)
    x = torch.randn(50, 3, generator=rng(), dtype=torch.float64)
    with torch.no_grad():
        z, logdet = g(x)
        back, undone = g.inverse(z)
    assert (back - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9
