"""Radial layers: the paper's formulas, the inverse by its quadratic, the centre, gradients, and both uses."""

import math

import pytest
import torch
from fitting import LOG_EVIDENCE, elbo, log_volumes, train
from registry import Member, built, points, rng, seeded
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, hessian, jacfwd, jacrev

from cnflib import Chain, Flow, Inverse, StandardNormal
from cnflib.audit import audit_bijection
from cnflib.discrete import Radial, radial
from cnflib.models import radial_flow

EPS = torch.finfo(torch.float64).eps
maps = {"forward": lambda g: g, "inverse": lambda g: g.inverse}
both_ways = pytest.mark.parametrize("way", maps)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def layer(shape=(2,), context=0, scale=0.5):
    return built(Member(lambda: Radial(shape, (8,), context), shape, context), scale=scale)


def draw(shape=(2,), context=0, n=3):
    return points(Member(None, shape, context), n)


def of(alpha, q, shape=2):
    """A layer around the origin with given α and q = α + β̂."""
    g = Radial(shape).double()
    with torch.no_grad():
        g.x0.zero_()
        for raw, value in ((g.a, alpha), (g.beta, q)):
            raw.fill_(value + math.log(-math.expm1(-value)))
    return g


def ring(n, generator):
    """A dense core in a wide halo."""
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    core = torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.5
    return torch.where(core, 0.2 * x + 0.5, 1.2 * x)


def ring_log_prob(x):
    core = torch.distributions.Normal(0.5, 0.2).log_prob(x).sum(1)
    halo = torch.distributions.Normal(0.0, 1.2).log_prob(x).sum(1)
    return torch.logaddexp(core, halo) - math.log(2)


@pytest.fixture(scope="module")
def trained():
    return train(
        lambda: radial_flow(dim=2, layers=6), lambda flow, g: -flow.log_prob(ring(256, g)).mean(), 250, 2e-2
    )


@pytest.fixture(scope="module")
def posterior():
    build = lambda: Flow(Inverse(radial_flow(dim=2, layers=8).bijection), StandardNormal(2))
    return train(build, lambda flow, generator: -elbo(flow, generator).mean(), 250, 2e-2)


def test_forward_is_the_formula_of_the_paper():
    g, (x, _) = layer((3,)), draw((3,))
    alpha, beta = (1 + g.a.exp()).log(), (1 + g.beta.exp()).log() - (1 + g.a.exp()).log()
    r = (x - g.x0).norm(dim=1)
    h = 1 / (alpha + r)
    slope = -1 / (alpha + r) ** 2
    z, logdet = g(x)
    assert_close(z, x + (beta * h)[:, None] * (x - g.x0))
    assert_close(logdet, 2 * (1 + beta * h).log() + (1 + beta * h + beta * slope * r).log())
    assert beta.abs() > 0.1


def test_in_one_dimension_only_the_slope_along_the_ray_counts():
    g = of(0.5, 3.0, 1)
    x = torch.linspace(-2, 2, 9).double()[:, None]
    beta, h = 2.5, 1 / (0.5 + x.abs()[:, 0])
    assert_close(g(x)[1], (1 + beta * h - beta * h**2 * x.abs()[:, 0]).log())


def test_the_constraint_holds_for_every_parameter():
    """At the centre the layer scales by (α + β̂) / α = q / α, which is positive for any raw parameters."""
    for a, beta in ((-20.0, 20.0), (20.0, -20.0), (0.0, -40.0), (-30.0, -30.0)):
        g = of(1.0, 1.0)
        with torch.no_grad():
            g.a.fill_(a), g.beta.fill_(beta)
        scale = torch.tensor([beta, a]).double().exp().log1p().log().diff().neg()
        assert_close(g(torch.zeros(1, 2).double())[1], 2 * scale, 1e-9)


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
    x = ring(100, rng(1))
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
    assert logdet.abs().min() > 1e-2
    row = None if c is None else c[:1]
    for way in (g, g.inverse):
        assert (way(x[:1], row)[1] - log_volumes(way, x[:1], row)).abs().max() < 1e-9


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("q", [1e-8, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_inverse_is_as_good_as_the_map_is_conditioned(alpha, q, dtype):
    g = of(alpha, q).to(dtype)
    size = torch.logspace(-12 if dtype == torch.float64 else -6, 6, 500)
    size = size.to(dtype)[:, None]
    x = size * torch.nn.functional.normalize(torch.randn(500, 2, generator=rng())).to(dtype)
    with torch.no_grad():
        z, logdet = g(x)
        back, undone = g.inverse(z)
    eps, a, b = torch.finfo(dtype).eps, *(v.item() for v in map(torch.nn.functional.softplus, (g.a, g.beta)))
    r = size.double()
    rho, slope = r * (r + b) / (r + a), (r * r + 2 * a * r + a * b) / (r + a) ** 2
    relative = (back - x).norm(dim=1, keepdim=True).double() / r
    assert (relative <= 16 * eps * (1 + rho / (r * slope))).all()
    loss = (logdet + undone).abs().double()  # of each logarithm by relative errors of r, q and α
    assert (loss <= 64 * eps * (2 + (rho / (r * slope))[:, 0])).all()


def test_the_centre_stays_and_has_the_right_jacobian_and_finite_gradients():
    g = layer((3,))
    x0 = g.x0.detach()[None]
    for way in (g, g.inverse):
        y, logdet = way(x0)
        assert_close(y, x0)
        J = jacrev(lambda y: way(y)[0])(x0).reshape(3, 3)
        assert_close(J, (logdet / 3).exp() * torch.eye(3).double())
        assert_close(J, jacfwd(lambda y: way(y)[0])(x0).reshape(3, 3))
        leaf = x0.clone().requires_grad_()
        y, logdet = way(leaf)
        (score,) = torch.autograd.grad(logdet.sum(), leaf, create_graph=True)
        assert not score.any()  # a kink: the mean of its one-sided slopes
        grads = torch.autograd.grad(y.square().sum() + logdet.sum(), [leaf, *g.parameters()])
        assert all(grad.isfinite().all() for grad in grads)
        assert hessian(lambda y: way(y)[1].sum() + way(y)[0].sum())(x0).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_beside_the_centre_the_gradient_is_not_lost(dtype):
    g = layer().to(dtype)
    with torch.no_grad():
        g.x0.zero_()
    x = torch.tensor([[1e-15, 0.0]], dtype=dtype, requires_grad=True)
    for way in (g, g.inverse):
        (score,) = torch.autograd.grad(way(x)[1].sum(), x)
        assert score[0, 0].abs() > 1e-2 and score[0, 1] == 0


def test_where_the_two_forms_of_the_root_meet_the_gradient_is_right():
    """At ρ = q exactly, where ρ - q changes sign."""
    g = of(1.0, 2.0)
    q = torch.nn.functional.softplus(g.beta).item()
    z = torch.tensor([[q, 0.0]], dtype=torch.float64)
    for way in (lambda z: g.inverse(z)[0], lambda z: g.inverse(z)[1][:, None]):
        slope = jacrev(way)(z)[0, 0, 0, 0].item()
        ends = [way(z + torch.tensor([[h, 0.0]]).double())[0, 0].item() for h in (1e-6, -1e-6)]
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


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
def test_it_compiles_without_a_graph_break(way):
    g, (x, c) = layer((2,), 2), draw((2,), 2)
    compiled = torch.compile(maps[way](g), backend="eager", fullgraph=True)
    assert_close(compiled(x, c), maps[way](g)(x, c))


def test_a_fresh_layer_is_near_the_identity_and_unlike_the_next():
    with seeded():
        layers = [Radial(5) for _ in range(20)]
    x = torch.randn(100, 5, generator=rng())
    for g in layers:
        z, logdet = g(x)
        assert 1e-4 < (z - x).abs().max() < 0.5 and logdet.abs().max() < 0.5
        grads = torch.autograd.grad(z.square().sum() - logdet.sum(), list(g.parameters()))
        assert all(grad.abs().max() > 1e-3 for grad in grads)
    assert torch.pdist(torch.stack([g.x0 for g in layers])).min() > 0.1
    assert len({g.beta.item() for g in layers}) == 20


def test_a_fresh_conditional_layer_is_the_same_for_every_context():
    g, (x, c) = Radial(2, context=3).double(), draw((2,), 3)
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
    audit_bijection(trained.bijection, ring(5, rng())).raise_for_faults()


def test_maximum_likelihood_fits_a_core_in_a_halo(trained):
    x = ring(4000, rng(5))
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    with torch.no_grad():
        gap, fresh = (-(p(x) - ring_log_prob(x)).mean() for p in (trained.log_prob, normal.log_prob))
        samples = trained.sample(4000, generator=rng(6))
    assert -0.02 < gap < 0.08 and fresh > 0.4
    share, wanted = (((y - 0.5).norm(dim=1) < 0.4).double().mean() for y in (samples, x))
    assert abs(share - wanted) < 0.12


def test_the_trained_density_integrates_to_one(trained, posterior):
    line = (torch.arange(600, dtype=torch.float64) + 0.5) / 600 * 24 - 12
    with torch.no_grad():
        for flow in (trained, posterior):
            mass = flow.log_prob(torch.cartesian_prod(line, line)).exp().sum() * 0.04**2
            assert abs(mass.item() - 1) < 1e-3


def test_as_a_variational_posterior_it_tightens_the_bound_on_a_known_evidence(posterior):
    with torch.no_grad():
        values = elbo(posterior, rng(7), 20_000)
        fresh = elbo(Flow(Chain(), StandardNormal(2).double()), rng(7), 20_000)
        weights = (values - LOG_EVIDENCE).exp()
    assert 0 < LOG_EVIDENCE - values.mean() < 0.2 < 1 < LOG_EVIDENCE - fresh.mean()
    assert abs(weights.mean() - 1) < 4 * weights.std() / len(weights) ** 0.5


def test_inverted_it_samples_without_the_quadratic(posterior, monkeypatch):
    monkeypatch.setattr(radial, "_radius", None)
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

    flow = train(lambda: radial_flow(dim=2, layers=6, hidden=(16,), context=1), loss, 250)
    with torch.no_grad():
        nll = torch.stack([loss(flow, rng(seed)) for seed in range(8)]).mean()
        means = [
            flow.sample(2000, torch.tensor([[c]]).double(), rng()).mean(0) - torch.tensor([c, -c])
            for c in (-1.2, 0.0, 1.2)
        ]
    entropy = 1 + math.log(2 * math.pi * 0.25)
    assert entropy - 0.05 < nll < entropy + 0.3
    assert torch.stack(means).abs().max() < 0.4


def test_a_deep_chain_keeps_its_digits():
    g = built(Member(lambda: Chain(*[Radial(3) for _ in range(64)])), scale=0.2)
    x = torch.randn(50, 3, generator=rng(), dtype=torch.float64)
    with torch.no_grad():
        z, logdet = g(x)
        back, undone = g.inverse(z)
    assert (back - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["a", "beta"])
def test_parameters_far_below_zero_leave_all_finite_in_float32(name):
    layer = Radial(2)
    with torch.no_grad():
        getattr(layer, name).fill_(-200.0)
    x = torch.cat([layer.x0.detach()[None], torch.randn(4, 2, generator=rng())])
    z, logdet = layer(x)
    (z.sum() + logdet.sum()).backward()
    assert z.isfinite().all() and logdet.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
