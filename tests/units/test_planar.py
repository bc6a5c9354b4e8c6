"""Planar layers: the formulas of the paper, and the inverse by root finding up to the constraint."""

import math

import pytest
import torch
from fitting import assert_close, draw, perturbed
from registry import rng, seeded
from torch.func import hessian, jacfwd, jacrev

from cnflib.discrete import Planar, planar

EPS = torch.finfo(torch.float64).eps
maps = {"encode": lambda g: g, "decode": lambda g: g.decode_and_logdet}
both_ways = pytest.mark.parametrize("way", maps)
layer = lambda *args: perturbed(Planar, *args)


def near_constraint(wu, w=(1.0, 0.5), b=0.2):
    """A layer of which w · u is given, so that its smallest slope is softplus(wu)."""
    g = Planar(2).double()
    with torch.no_grad():
        g.w.copy_(torch.tensor(w))
        g.u.copy_(torch.tensor([0.3, -0.4]))
        g.u += (wu - g.w @ g.u) / g.w.square().sum() * g.w
        g.d.fill_(b)
    return g


def test_forward_is_the_formula_of_the_paper():
    g, (x, _) = layer((3,)), draw((3,), n=30)
    with torch.no_grad():
        g.d.fill_(0.3)
    w, u, d = g.w, g.u, g.d
    m = -1 + torch.log(1 + torch.exp(w @ u))
    u_hat = u + (m - w @ u) * w / w.norm() ** 2
    h = torch.tanh(x @ w + d)
    z, logdet = g(x)
    assert_close(z, x + h[:, None] * u_hat)
    assert_close(logdet, (1 + (1 - h**2) * (w @ u_hat)).log())
    assert h.abs().min() < 0.5 and (u_hat - u).norm() > 0.05  # so neither is lost


@pytest.mark.parametrize("wu", [-30.0, -3.0, 0.0, 2.0, 20.5, 50.0])
def test_the_constraint_holds_for_every_w_and_u(wu):
    """The slope across the hyperplane itself is softplus(w · u) > 0, to its last digits."""
    g = near_constraint(wu)
    on_plane = -g.d * g.w / g.w.square().sum()
    slope = g(on_plane[None])[1].exp()
    assert slope.item() == pytest.approx(math.log1p(math.exp(-abs(wu))) + max(wu, 0), rel=1e-12)


@pytest.mark.parametrize("wu", [-300.0, -40.0])
def test_the_logdet_does_not_cancel_at_the_constraint(wu):
    """On the hyperplane it is log softplus(w · u) = w · u, where 1 + w · û would round to zero."""
    g = near_constraint(wu, w=(1.0, 0.0), b=0.0)
    assert_close(g(torch.zeros(1, 2).double())[1], torch.tensor([wu]).double())
    g.float()
    assert g(torch.zeros(1, 2))[1].item() == pytest.approx(max(wu, -87.4), rel=1e-2)


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
    root = planar._tanh_root(y, c)
    slope = torch.tanh(t) ** 2 + c / torch.cosh(t) ** 2
    assert ((root - t).abs() <= 16 * EPS * (t.abs() + (t.abs() + y.abs()) / slope)).all()
    assert ((root - y).abs() <= (c - 1).abs() * (1 + 8 * EPS) + 8 * EPS * y.abs()).all()  # |tanh| <= 1


@pytest.mark.parametrize("c", [1e-10, 1e-3, 2.0])
def test_a_root_near_zero_has_its_digits_too(c):
    """There tanh t = t, and the root is y / c: of c - 1 the digits of c would be lost."""
    t = torch.logspace(-20, -9, 50, dtype=torch.float64)
    torch.testing.assert_close(
        planar._tanh_root(c * t, torch.tensor(c, dtype=torch.float64)) / t,
        torch.ones_like(t),
        rtol=1e-8,
        atol=0,
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
    x[:1000] -= g.d * g.w / g.w.square().sum()
    with torch.no_grad():
        z, logdet = g(x)
        back, undone = g.decode_and_logdet(z)
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
        K = jacrev(lambda y: g.decode_and_logdet(y)[0])(g(row)[0]).reshape(2, 2)
        assert_close(K @ J, torch.eye(2).double(), 1e-9)


@both_ways
def test_transforms_of_torch_func_agree_also_on_the_hyperplane(way):
    g = layer()
    f = lambda y: maps[way](g)(y[None])[1][0]
    for x in (draw()[0][0], torch.zeros(2).double(), -(g.d * g.w / g.w.square().sum()).detach()):
        assert_close(jacfwd(f)(x), jacrev(f)(x))
        assert_close(hessian(f)(x), jacfwd(jacfwd(f))(x))
        assert jacrev(jacrev(jacrev(f)))(x).isfinite().all()


def test_where_w_vanishes_the_layer_is_a_shift():
    g, (x, _) = layer(), draw()
    with torch.no_grad():
        g.w.zero_()
    z, logdet = g(x)
    assert_close(z, x + g.u * torch.tanh(g.d))
    assert_close(logdet, torch.zeros(3).double())
    assert_close(g.decode_and_logdet(z)[0], x)
    grads = torch.autograd.grad(
        g.decode_and_logdet(z)[0].sum() + z.square().sum() + logdet.sum(), list(g.parameters())
    )
    assert all(grad.isfinite().all() for grad in grads) and grads[0].any()


@pytest.mark.parametrize("size", [1e-30, 1e-8])
def test_a_tiny_w_gives_finite_numbers(size):
    g, (x, _) = layer(), draw()
    with torch.no_grad():
        g.w.mul_(size)
        g.d.zero_()
    z, logdet = g(x)
    assert_close(logdet, torch.full((3,), math.log(math.log(2))).double(), 1e-6)  # the slope softplus(0)
    assert_close(g.decode_and_logdet(z)[0], x, 1e-6)


def test_a_fresh_layer_is_near_the_identity_and_unlike_the_next():
    with seeded():
        layers = [Planar(5) for _ in range(20)]
    x = torch.randn(100, 5, generator=rng())
    for g in layers:
        z, logdet = g(x)
        assert 0.01 < (z - x).abs().max() < 1.2 and logdet.abs().max() < 0.9
        grads = torch.autograd.grad(z.square().sum() - logdet.sum(), list(g.parameters()))
        assert all(grad.abs().max() > 1e-2 for grad in grads)
    for name in "wud":
        values = torch.stack([getattr(g, name) for g in layers])
        assert torch.pdist(values).min() > 1e-3
