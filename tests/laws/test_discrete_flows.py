"""Flows by couplings and autoregressive layers, at random and trained weights: bijections, densities, samples."""

import copy

import pytest
import torch
from fitting import check_both_ways, log_volume
from registry import Member, built, points, rng, seeded

from cnflib.discrete import Coupling, RationalQuadratic, Scale
from cnflib.models import iaf, maf, nice, realnvp, spline_flow

builders = {
    "nice": nice,
    "realnvp": realnvp,
    "spline_flow": lambda **options: spline_flow(bins=4, **options),
    "maf": maf,
    "iaf": iaf,
    "maf of splines": lambda **options: maf(transform=RationalQuadratic(4), **options),
}
every = pytest.mark.parametrize("name", builders)
images = {(1, 8, 8): (6,), (3, 4, 4): (6,), (1, 11, 13): (3,)}  # event: widths


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def trained(flow, data, steps):
    optimizer = torch.optim.Adam(flow.parameters(), 0.01)
    for step in range(steps):
        optimizer.zero_grad()
        (-flow.log_prob(*data(step)).mean()).backward()
        optimizer.step()
    return flow


def setup(name, event, context=0, training=0, **options):
    """A flow at random weights, or from there on trained on correlated data, and fresh points."""
    build = lambda: builders[name](shape=event, layers=2, context=context, **{"hidden": (8, 7)} | options)
    flow = built(Member(build), scale=0.2 if len(event) == 1 else 0.05)
    member = Member(None, event, context)

    def data(step):
        x, c = points(member, 32, seed=step + 5)
        return x.cumsum(-1) / 2, c

    return trained(flow, data, training), *points(member)


def bow(n, generator):
    """Points about a parabola: far from normal, and within reach of every family here."""
    a, noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
    return torch.stack([a, (a.square() - 1) / 2 + 0.3 * noise], 1)


@pytest.mark.parametrize("training", [0, 20], ids=["random", "trained"])
@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("event", [(2,), (5,), (2, 3)], ids=str)
@every
def test_inverse_and_log_determinant_to_rounding_on_vectors(name, event, context, training):
    flow, x, c = setup(name, event, context, training)
    check_both_ways(flow.bijection, x, c, len(x))


@pytest.mark.parametrize("training", [0, 3], ids=["random", "trained"])
@pytest.mark.parametrize(("event", "context"), [((1, 8, 8), 2), ((3, 4, 4), 0), ((1, 11, 13), 0)], ids=str)
@pytest.mark.parametrize("name", [name for name in builders if name != "realnvp"])  # of images: test_glow
def test_inverse_and_log_determinant_to_rounding_on_images(name, event, context, training):
    """The Jacobian is taken of the way that costs one pass; the other way's log-determinant is its negative."""
    flow, x, c = setup(name, event, context, training, hidden=images[event])
    check_both_ways(flow.bijection, x[:2], None if c is None else c[:2], 0)
    z = flow.bijection(x[:1], None if c is None else c[:1])[0].detach()
    way, start = (flow.bijection.decode_and_logdet, z) if name == "iaf" else (flow.bijection, x)
    c = None if c is None else c[:1]
    assert_close(log_volume(way, start[0], c), way(start[:1], c)[1][0])


@pytest.fixture(scope="module")
def fitted():
    """Each flow after a short training on the bow, made once."""
    flows = {}

    def get(name):
        if name not in flows:
            generator = rng()
            with seeded():
                flow = builders[name](dim=2, layers=4, hidden=(16, 16)).double()
            flows[name] = trained(flow, lambda step: (bow(256, generator),), 120).requires_grad_(False)
        return flows[name]

    return get


def cells(half=8.0, steps=200):
    """Midpoints of the cells of a square, and their side."""
    side = 2 * half / steps
    line = (torch.arange(steps, dtype=torch.float64) + 0.5) * side - half
    return torch.cartesian_prod(line, line), side


@every
def test_a_fitted_flow_has_learned_and_its_density_has_mass_one(fitted, name):
    flow = fitted(name)
    with seeded():
        fresh = builders[name](dim=2, layers=4, hidden=(16, 16)).double()
    points = bow(2000, rng(9))
    assert (flow.log_prob(points) - fresh.log_prob(points)).mean() > 0.4
    x, side = cells()
    assert abs(flow.log_prob(x).exp().sum().item() * side**2 - 1) < 1e-3


@every
def test_a_conditional_density_has_mass_one_for_every_context(name):
    flow = setup(name, (2,), 3, 20)[0].requires_grad_(False)
    x, side = cells(12.0)
    for c in torch.randn(2, 3, generator=rng(), dtype=torch.float64):
        log_prob = flow.log_prob(x, c.expand(len(x), -1))
        assert abs(log_prob.exp().sum().item() * side**2 - 1) < 1e-3
    z = torch.zeros(1, 3).double()
    assert (flow.log_prob(x[:3] * 0, z.expand(3, -1)) != flow.log_prob(x[:3] * 0, z.expand(3, -1) + 1)).all()


def drawn_from(log_prob, n, generator):
    """Points with a given density, by no flow: cells of a fine grid by their mass, a uniform point in each."""
    x, side = cells()
    chosen = torch.multinomial(log_prob(x).exp(), n, replacement=True, generator=generator)
    return x[chosen] + side * (torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5)


def energy_test(x, y, generator, permutations=400):
    """The p-value of the hypothesis that two sets of equal size are from one law, by the energy distance permuted."""
    both = torch.cat([x, y])
    sign = torch.cat([torch.ones(len(x)), -torch.ones(len(y))]).double()
    signs = [sign] + [sign[torch.randperm(len(both), generator=generator)] for _ in range(permutations)]
    signs = torch.stack(signs)
    energy = -((signs @ torch.cdist(both, both)) * signs).sum(1)
    return (energy >= energy[0]).double().mean().item()


@every
def test_samples_have_the_density_by_a_two_sample_test(fitted, name):
    flow, generator = fitted(name), rng(7)
    samples = flow.sample(800, generator=generator)
    p = energy_test(samples, drawn_from(flow.log_prob, 800, generator), generator)
    assert p > 0.01
    with seeded():
        other = builders[name](dim=2, layers=4, hidden=(16, 16)).double().requires_grad_(False)
    assert energy_test(samples, drawn_from(other.log_prob, 800, generator), generator) < 0.01  # it can tell


@every
def test_float32_is_as_good_as_its_rounding(fitted, name):
    flow = fitted(name)
    x = bow(500, rng(3))
    wanted = flow.log_prob(x)
    low = copy.deepcopy(flow).float()
    z, logdet = low.bijection(x.float())
    assert (low.log_prob(x.float()) - wanted).abs().max() < 1e-3
    assert (low.bijection.decode(z) - x).abs().max() < 1e-3
    assert (low.bijection.decode_and_logdet(z)[1] + logdet).abs().max() < 1e-3


@every
def test_points_far_from_the_data_have_finite_densities_and_gradients(fitted, name):
    x = torch.tensor([[0.0, 0.0], [5.0, -5.0], [30.0, 2.0], [-1e4, 1e4]]).double().requires_grad_()
    log_prob = fitted(name).log_prob(x)
    assert log_prob.isfinite().all() and log_prob[0] > log_prob[1] > log_prob[2] > log_prob[3]
    assert torch.autograd.grad(log_prob.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(("name", "parameters"), [("nice", 1), ("realnvp", 2), ("spline_flow", 11)])
def test_flows_by_couplings_have_the_parts_of_their_names(name, parameters):
    flow = builders[name](dim=5, layers=3, hidden=(7, 6), context=2)
    layers = list(flow.bijection.layers)
    assert (type(layers.pop()) is Scale) if name == "nice" else True
    assert [type(part) for part in layers] == [Coupling] * 3
    assert [part.transform.parameters for part in layers] == [parameters] * 3
    assert [part.mask.int().tolist() for part in layers] == [
        [1, 1, 1, 0, 0],
        [0, 0, 0, 1, 1],
        [1, 1, 1, 0, 0],
    ]
    for part in layers:
        kept = int(part.mask.sum())
        assert [tuple(p.shape) for p in part.net.parameters() if p.ndim == 2] == [
            (7, kept + 2),
            (6, 7),
            (parameters * (5 - kept), 6),
        ]


def test_nice_changes_volume_by_its_scaling_alone():
    flow, x, _ = setup("nice", (5,))
    _, logdet = flow.bijection(x)
    assert torch.equal(logdet, flow.bijection.layers[-1].log_scale.sum().expand(3))
    assert logdet.any()


def test_splines_have_the_bins_and_the_box_that_are_asked_for():
    flow = spline_flow(dim=2, bins=5, bound=2.0)
    assert {part.transform.parameters for part in flow.bijection.layers} == {14}
    flow = built(Member(lambda: spline_flow(dim=2, layers=2, bins=5, bound=2.0)), scale=0.5)
    x = torch.tensor([[0.5, 0.5], [2.5, -2.5], [0.5, 2.5]]).double()
    moved = flow.bijection(x)[0] != x
    assert moved.tolist() == [[True, True], [False, False], [True, False]]


@every
def test_every_flow_starts_as_the_identity(name):
    flow = builders[name](dim=4, context=2).double()
    x, c = points(Member(None, (4,), 2))
    for way in (flow.bijection, flow.bijection.decode_and_logdet):
        z, logdet = way(x, c)
        assert_close(z, x, 1e-12)
        assert_close(logdet, torch.zeros(3).double(), 1e-12)
