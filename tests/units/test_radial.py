"""Radial layers: the formulas of the paper, the inverse by its quadratic, and the centre."""

import math

import pytest
import torch
from fitting import assert_close, draw, perturbed
from registry import rng, seeded
from torch.func import hessian, jacfwd, jacrev

from cnflib.discrete import Radial

layer = lambda *args: perturbed(Radial, *args)


def of(alpha, q, shape=2):
    """A layer around the origin with given α and q = α + β̂."""
    g = Radial(shape).double()
    with torch.no_grad():
        g.m.zero_()
        for raw, value in ((g.alpha, alpha), (g.beta, q)):
            raw.fill_(value + math.log(-math.expm1(-value)))
    return g


def test_forward_is_the_formula_of_the_paper():
    g, (x, _) = layer((3,)), draw((3,))
    alpha, beta = (1 + g.alpha.exp()).log(), (1 + g.beta.exp()).log() - (1 + g.alpha.exp()).log()
    r = (x - g.m).norm(dim=1)
    h = 1 / (alpha + r)
    slope = -1 / (alpha + r) ** 2
    z, logdet = g(x)
    assert_close(z, x + (beta * h)[:, None] * (x - g.m))
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
            g.alpha.fill_(a), g.beta.fill_(beta)
        scale = torch.tensor([beta, a]).double().exp().log1p().log().diff().neg()
        assert_close(g(torch.zeros(1, 2).double())[1], 2 * scale, 1e-9)


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
        back, undone = g.decode_and_logdet(z)
    eps, a, b = (
        torch.finfo(dtype).eps,
        *(v.item() for v in map(torch.nn.functional.softplus, (g.alpha, g.beta))),
    )
    r = size.double()
    rho, slope = r * (r + b) / (r + a), (r * r + 2 * a * r + a * b) / (r + a) ** 2
    relative = (back - x).norm(dim=1, keepdim=True).double() / r
    assert (relative <= 16 * eps * (1 + rho / (r * slope))).all()
    loss = (logdet + undone).abs().double()  # of each logarithm by relative errors of r, q and α
    assert (loss <= 64 * eps * (2 + (rho / (r * slope))[:, 0])).all()


def test_the_centre_stays_and_has_the_right_jacobian_and_finite_gradients():
    g = layer((3,))
    x0 = g.m.detach()[None]
    for way in (g, g.decode_and_logdet):
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
        g.m.zero_()
    x = torch.tensor([[1e-15, 0.0]], dtype=dtype, requires_grad=True)
    for way in (g, g.decode_and_logdet):
        (score,) = torch.autograd.grad(way(x)[1].sum(), x)
        assert score[0, 0].abs() > 1e-2 and score[0, 1] == 0


def test_where_the_two_forms_of_the_root_meet_the_gradient_is_right():
    """At ρ = q exactly, where ρ - q changes sign."""
    g = of(1.0, 2.0)
    q = torch.nn.functional.softplus(g.beta).item()
    z = torch.tensor([[q, 0.0]], dtype=torch.float64)
    for way in (lambda z: g.decode_and_logdet(z)[0], lambda z: g.decode_and_logdet(z)[1][:, None]):
        slope = jacrev(way)(z)[0, 0, 0, 0].item()
        ends = [way(z + torch.tensor([[h, 0.0]]).double())[0, 0].item() for h in (1e-6, -1e-6)]
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_a_fresh_layer_is_near_the_identity_and_unlike_the_next():
    with seeded():
        layers = [Radial(5) for _ in range(20)]
    x = torch.randn(100, 5, generator=rng())
    for g in layers:
        z, logdet = g(x)
        assert 1e-4 < (z - x).abs().max() < 0.5 and logdet.abs().max() < 0.5
        grads = torch.autograd.grad(z.square().sum() - logdet.sum(), list(g.parameters()))
        assert all(grad.abs().max() > 1e-3 for grad in grads)
    assert torch.pdist(torch.stack([g.m for g in layers])).min() > 0.1
    assert len({g.beta.item() for g in layers}) == 20


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_parameters_far_below_zero_leave_all_finite_in_float32(name):
    layer = Radial(2)
    with torch.no_grad():
        getattr(layer, name).fill_(-200.0)
    x = torch.cat([layer.m.detach()[None], torch.randn(4, 2, generator=rng())])
    z, logdet = layer(x)
    (z.sum() + logdet.sum()).backward()
    assert z.isfinite().all() and logdet.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
