"""What planar and radial layers share: both are closed maps of few numbers, and serve densities and posteriors."""

import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from fitting import (
    LOG_EVIDENCE,
    assert_close,
    draw,
    elbo,
    log_volume,
    perturbed,
    ring,
    ring_log_prob,
    train,
    two_bumps,
)
from registry import Member, built, rng
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from cnflib import Chain, Flow, Inverse, StandardNormal
from cnflib.audit import audit_bijection
from cnflib.discrete import Planar, Radial, planar, radial
from cnflib.models import planar_flow, radial_flow


class Family(NamedTuple):
    """A layer, its builder, the data that it is fitted to and how, and how near it comes to what is known."""

    layer: type
    flow: Callable
    data: Callable
    layers: int
    rate: float
    root: tuple[ModuleType, str]  # what the inverse of a layer solves by
    evidence: float  # within so many nats
    conditional: tuple[float, float]  # nats above the entropy, error of a mean


families = {
    "planar": Family(Planar, planar_flow, two_bumps, 8, 1e-2, (planar, "_tanh_root"), 0.15, (0.15, 0.25)),
    "radial": Family(Radial, radial_flow, ring, 6, 2e-2, (radial, "_radius"), 0.2, (0.3, 0.4)),
}
every = pytest.mark.parametrize("name", families)
maps = {"encode": lambda g: g, "decode": lambda g: g.decode_and_logdet}
both_ways = pytest.mark.parametrize("way", maps)


def layer(name, *args):
    return perturbed(families[name].layer, *args)


@cache
@torch.enable_grad()  # whoever asks first
def trained(name):
    """A density of the family's data."""
    family = families[name]
    loss = lambda flow, generator: -flow.log_prob(family.data(256, generator)).mean()
    return train(lambda: family.flow(dim=2, layers=family.layers), loss, 150, family.rate)


@cache
@torch.enable_grad()  # whoever asks first
def posterior(name):
    family = families[name]
    build = lambda: Flow(Inverse(family.flow(dim=2, layers=6).bijection), StandardNormal(2))
    return train(build, lambda flow, generator: -elbo(flow, generator).mean(), 150, family.rate)


@every
@both_ways
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_inverse_and_logdets_at_random_weights(name, way, context, scale):
    g, (x, c) = layer(name, (4,), context, scale), draw((4,), context, 50)
    there, back = (g, g.decode_and_logdet) if way == "encode" else (g.decode_and_logdet, g)
    z, logdet = there(x, c)
    again, undone = back(z, c)
    assert (again - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9
    for i in range(5):
        volume = log_volume(there, x[i], None if c is None else c[i : i + 1])
        assert (logdet[i] - volume).abs() < 1e-9


@every
@both_ways
def test_inverse_and_logdets_at_trained_weights(name, way):
    x = families[name].data(100, rng(1))
    for g in (trained(name).bijection, posterior(name).bijection):
        there, back = (g, g.decode_and_logdet) if way == "encode" else (g.decode_and_logdet, g)
        with torch.no_grad():
            z, logdet = there(x)
            again, undone = back(z)
        assert (again - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9
        for i in range(4):
            assert (logdet[i] - log_volume(there, x[i])).abs() < 1e-9


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 28)], ids=str)
@pytest.mark.parametrize("context", [0, 2])
@every
def test_images(name, shape, context):
    g, (x, c) = layer(name, shape, context, 0.1), draw(shape, context)
    z, logdet = g(x, c)
    assert (g.decode_and_logdet(z, c)[0] - x).abs().max() < 1e-9
    assert (logdet + g.decode_and_logdet(z, c)[1]).abs().max() < 1e-9
    if name == "planar":
        assert logdet.abs().max() > 1e-4  # a row far from the hyperplane is but shifted
    else:
        assert logdet.abs().min() > 1e-2
    row = None if c is None else c[:1]
    for way in (g, g.decode_and_logdet):
        assert (way(x[:1], row)[1][0] - log_volume(way, x[0], row)).abs() < 1e-9


class Way(torch.nn.Module):
    """One direction of a bijection as a function of its parameters too."""

    def __init__(self, g, way):
        super().__init__()
        self.g, self.way = g, way

    def forward(self, x, context):
        return maps[self.way](self.g)(x, context)


@every
@both_ways
@pytest.mark.parametrize("context", [0, 1])
def test_first_and_second_derivatives_in_everything(name, way, context):
    g = built(Member(lambda: families[name].layer((2,), (2,), context)), scale=0.5)
    x, c = draw((2,), context, 2)
    names = [f"g.{name}" for name, _ in g.named_parameters()]
    leaves = [leaf.requires_grad_() for leaf in (x, c) if leaf is not None] + list(g.parameters())

    def call(x, *rest):
        c, parameters = (rest[0], rest[1:]) if context else (None, rest)
        return functional_call(Way(g, way), dict(zip(names, parameters, strict=True)), (x, c))

    assert gradcheck(call, leaves, check_forward_ad=True)
    assert gradgradcheck(call, leaves)


@every
@both_ways
def test_it_compiles_without_a_graph_break(name, way):
    g, (x, c) = layer(name, (2,), 2), draw((2,), 2)
    compiled = torch.compile(maps[way](g), backend="eager", fullgraph=True)
    assert_close(compiled(x, c), maps[way](g)(x, c))


@every
def test_a_fresh_conditional_layer_is_the_same_for_every_context(name):
    g, (x, c) = families[name].layer(2, context=3).double(), draw((2,), 3)
    assert_close(g(x, c), g(x, c + 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e3, 1e15])
@every
def test_extreme_points(name, dtype, size):
    g, (x, _) = layer(name).to(dtype), draw(n=1)
    x = (x * size).to(dtype)
    z, logdet = g(x)
    back, undone = g.decode_and_logdet(z)
    assert_close(back, x, 50 * torch.finfo(dtype).eps)
    assert_close(logdet, -undone, 50 * torch.finfo(dtype).eps)


@every
def test_a_deep_chain_keeps_its_digits(name):
    g = built(Member(lambda: Chain(*[families[name].layer(3) for _ in range(64)])), scale=0.2)
    x = torch.randn(50, 3, generator=rng(), dtype=torch.float64)
    with torch.no_grad():
        z, logdet = g(x)
        back, undone = g.decode_and_logdet(z)
    assert (back - x).abs().max() < 1e-9 and (logdet + undone).abs().max() < 1e-9


@every
def test_an_audit_finds_no_fault(name):
    audit_bijection(trained(name).bijection, families[name].data(5, rng())).raise_for_faults()


def test_maximum_likelihood_fits_two_bumps_by_planes():
    """Nearly to the entropy of the data, log 2 + 1.4 nats, where the best normal stays 0.3 nats behind."""
    x = two_bumps(4000, rng(5))
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    entropy = math.log(2) + math.log(0.3 * 0.8) + 1 + math.log(2 * math.pi)
    with torch.no_grad():
        nll, fresh = -trained("planar").log_prob(x).mean(), -normal.log_prob(x).mean()
        samples = trained("planar").sample(4000, generator=rng(6))
    assert entropy - 0.05 < nll < entropy + 0.15 < fresh - 0.3
    assert abs((samples[:, 0] > 0).double().mean() - 0.5) < 0.05
    assert (samples[:, 0].abs() < 0.3).double().mean() < 0.06
    assert_close(samples.std(0), x.std(0), 0.1)


def test_maximum_likelihood_fits_a_core_in_a_halo():
    x = ring(4000, rng(5))
    normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    with torch.no_grad():
        gap, fresh = (
            -(p(x) - ring_log_prob(x)).mean() for p in (trained("radial").log_prob, normal.log_prob)
        )
        samples = trained("radial").sample(4000, generator=rng(6))
    assert -0.02 < gap < 0.08 and fresh > 0.4
    share, wanted = (((y - 0.5).norm(dim=1) < 0.4).double().mean() for y in (samples, x))
    assert abs(share - wanted) < 0.12


@every
def test_the_trained_density_integrates_to_one(name):
    line = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 * 24 - 12
    with torch.no_grad():
        for flow in (trained(name), posterior(name)):
            mass = flow.log_prob(torch.cartesian_prod(line, line)).exp().sum() * 0.06**2
            assert abs(mass.item() - 1) < 1e-3


@every
def test_as_a_variational_posterior_it_tightens_the_bound_on_a_known_evidence(name):
    with torch.no_grad():
        values = elbo(posterior(name), rng(7), 20_000)
        weights = (values - LOG_EVIDENCE).exp()
    assert 0 < LOG_EVIDENCE - values.mean() < families[name].evidence
    assert abs(weights.mean() - 1) < 4 * weights.std() / len(weights) ** 0.5


def test_the_base_alone_and_the_best_normal_leave_a_wider_gap():
    normal = train(Gaussian, lambda q, generator: -elbo(q, generator).mean(), 400, 2e-2)
    base = Flow(Chain(), StandardNormal(2).double())
    with torch.no_grad():
        assert LOG_EVIDENCE - elbo(normal, rng(7), 20_000).mean() > 0.2
        assert LOG_EVIDENCE - elbo(base, rng(7), 20_000).mean() > 1


class Gaussian(torch.nn.Module):
    """The full-covariance normal that flows have to beat."""

    def __init__(self):
        super().__init__()
        self.mean, self.root = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.eye(2))

    def rsample_and_log_prob(self, n, generator):
        normal = torch.distributions.MultivariateNormal(self.mean, scale_tril=self.root.tril())
        x = self.mean + torch.randn(n, 2, generator=generator, dtype=self.mean.dtype) @ self.root.tril().T
        return x, normal.log_prob(x)


@every
def test_inverted_it_samples_without_solving_for_a_root(name, monkeypatch):
    flow = posterior(name)
    monkeypatch.setattr(*families[name].root, None)
    x, log_prob = flow.rsample_and_log_prob(5, generator=rng())
    assert x.isfinite().all() and log_prob.isfinite().all()
    with pytest.raises(TypeError):
        flow.log_prob(x)


@every
def test_a_conditional_flow_follows_its_context(name):
    """x | c ~ N((c, -c), 0.5²): at other contexts than those of the training, within their range."""

    def loss(flow, generator):
        c = 3 * torch.rand(256, 1, generator=generator, dtype=torch.float64) - 1.5
        x = torch.cat([c, -c], 1) + 0.5 * torch.randn(256, 2, generator=generator, dtype=torch.float64)
        return -flow.log_prob(x, c).mean()

    flow = train(lambda: families[name].flow(dim=2, layers=4, hidden=(8,), context=1), loss, 200, 2e-2)
    with torch.no_grad():
        nll = torch.stack([loss(flow, rng(seed)) for seed in range(8)]).mean()
        means = [
            flow.sample(2000, torch.tensor([[c]]).double(), rng()).mean(0) - torch.tensor([c, -c])
            for c in (-1.2, 0.0, 1.2)
        ]
    entropy = 1 + math.log(2 * math.pi * 0.25)
    above, off = families[name].conditional
    assert entropy - 0.05 < nll < entropy + above
    assert torch.stack(means).abs().max() < off
