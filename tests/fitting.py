"""Perturbed layers, short trainings and exact references that tests of several layers share."""

import math

import torch
from registry import Member, built, points, rng, seeded
from torch.autograd.functional import jacobian

from cnflib import Flow


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def perturbed(kind, shape=(2,), context=0, scale=0.5):
    """A layer of a kind with a small net of its context, its weights moved at random."""
    return built(Member(lambda: kind(shape, (8,), context), shape, context), scale=scale)


def draw(shape=(2,), context=0, n=3):
    return points(Member(None, shape, context), n)


def log_volume(g, row, context=None):
    """log |det| of the Jacobian at one point, of a map that need not pass through torch.func."""
    full = jacobian(lambda y: g(y[None], context)[0][0], row, vectorize=True)
    return torch.linalg.slogdet(full.reshape(row.numel(), -1)).logabsdet


def log_volumes(g, x, context=None):
    """log |det| at each row, by the one Jacobian of the sum over rows: of a map that keeps rows apart."""
    total = jacobian(lambda y: g(y, context)[0].sum(0), x)
    rows = total.reshape(x[0].numel(), len(x), x[0].numel()).movedim(1, 0)
    return torch.linalg.slogdet(rows).logabsdet


def check_both_ways(g, x, context, rows):
    """Points come back, the log-determinants cancel and are those of autograd's Jacobians, in some rows."""
    with torch.no_grad():
        z, logdet = g(x, context)
        back, logdet_back = g.decode_and_logdet(z, context)
        assert_close(back, x, 1e-9)
        assert_close(g.encode(x, context), z, 1e-9)
        assert_close(g.decode(z, context), x, 1e-9)
    assert_close(logdet_back, -logdet, 1e-9)
    assert z[0].numel() < 2 or (z - x).abs().max() > 1e-3  # not the identity, of which all this is true
    for i in range(rows):
        c = None if context is None else context[i : i + 1]
        assert_close(log_volume(g, x[i], c), logdet[i], 1e-9)
        assert_close(log_volume(g.decode_and_logdet, z[i], c), logdet_back[i], 1e-9)


def train(build, loss, steps=150, lr=1e-2):
    """The float64 module that ``build`` makes, after steps of Adam on ``loss(module, generator)``."""
    with seeded():
        module = build().double()
    optimizer, generator = torch.optim.Adam(module.parameters(), lr), rng()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(module, generator).backward()
        optimizer.step()
    return module


def two_bumps(n, generator):
    """Points of two narrow Gaussians side by side."""
    side = torch.randint(2, (n, 1), generator=generator).double() * 2 - 1
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return torch.cat([side + 0.3 * noise[:, :1], 0.8 * noise[:, 1:]], 1)


def ring(n, generator):
    """A dense core in a wide halo."""
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    core = torch.rand(n, 1, generator=generator, dtype=torch.float64) < 0.5
    return torch.where(core, 0.2 * x + 0.5, 1.2 * x)


def ring_log_prob(x):
    core = torch.distributions.Normal(0.5, 0.2).log_prob(x).sum(1)
    halo = torch.distributions.Normal(0.0, 1.2).log_prob(x).sum(1)
    return torch.logaddexp(core, halo) - math.log(2)


LOG_EVIDENCE = 3.0


def log_joint(x):
    """A curved posterior of known evidence: x1 ~ N(0, 1), x2 | x1 ~ N(x1² / 2 - 1, 0.6²), times e³."""
    first = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])
    second = torch.distributions.Normal(x[:, 0].square() / 2 - 1, 0.6).log_prob(x[:, 1])
    return first + second + LOG_EVIDENCE


def elbo(flow: Flow, generator, n=256):
    """The evidence lower bound, one value for each of n samples; its mean is the bound."""
    x, log_prob = flow.rsample_and_log_prob(n, generator=generator)
    return log_joint(x) - log_prob
