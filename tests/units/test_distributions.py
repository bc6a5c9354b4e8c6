"""The laws of a density, held against every kind of thing that may be the base of a flow."""

import copy
import functools
import math
import pickle

import pytest
import torch
from registry import rng
from torch import nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Exponential,
    Gumbel,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    StudentT,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import AffineTransform, ComposeTransform, SigmoidTransform

from cnflib import (
    Chain,
    Density,
    DiagonalNormal,
    Flow,
    GaussianMixture,
    Inverse,
    Standardize,
    StandardNormal,
    as_density,
    tempered,
)
from cnflib.continuous import CNF
from cnflib.data import toy
from cnflib.models import realnvp
from cnflib.nets import MLP


class Own:
    """A density of one's own, no module: uniform on a disc of radius r."""

    event_shape = (2,)

    def __init__(self):
        self.r = torch.tensor(2.0)

    def log_prob(self, x, context=None, generator=None):
        inside = x.square().sum(1) < self.r.to(x) ** 2
        return torch.where(inside, -math.log(math.pi) - 2 * self.r.to(x).log(), -torch.inf)

    def sample(self, n, context=None, generator=None):
        u = torch.rand(n, 2, generator=generator)
        angle, r = 2 * math.pi * u[:, 0], self.r * u[:, 1].sqrt()
        return torch.stack([r * angle.cos(), r * angle.sin()], 1)


class OwnModule(nn.Module):
    """A module that takes neither context nor generator, with something to learn."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.ones(2))

    def log_prob(self, x):
        return Normal(self.loc, 1.0).log_prob(x).sum(1)

    def sample(self, n):
        return self.loc.detach() + torch.randn(n, 2)

    def rsample(self, n):
        return self.loc + torch.randn(n, 2)


class Regression(nn.Module):
    """A module that takes what our own take, in another order, and a setting of its own."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 2))

    def mean(self, context):
        return torch.zeros(2) if context is None else context @ self.weight

    def log_prob(self, x, generator=None, context=None, *, scale=1.0):
        return Normal(self.mean(context), scale).log_prob(x).sum(1)

    def sample(self, n, generator=None, context=None):
        return self.rsample(n, generator, context).detach()

    def rsample(self, n, generator=None, context=None):
        return self.mean(context) + torch.randn(n, 2, generator=generator)


def logistic():
    """Whose transforms hold inverses, one inside of another."""
    base = Independent(Uniform(torch.zeros(2), torch.ones(2)), 1)
    mirror = AffineTransform(torch.ones(2), -1.0)
    return TransformedDistribution(base, [ComposeTransform([SigmoidTransform(), mirror.inv]).inv])


def mixture():
    return GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 2.0]], [[[0.5, 0.2], [0.2, 0.4]]] * 2)


densities = {
    "StandardNormal": lambda: StandardNormal(2),
    "DiagonalNormal": lambda: DiagonalNormal(2),
    "GaussianMixture": mixture,
    "flow": lambda: realnvp(dim=2, layers=2, hidden=(8,)),
    "tempered flow": lambda: tempered(realnvp(dim=2, layers=2, hidden=(8,)), 0.7),
    "own": Own,
    "own module": OwnModule,
    "MultivariateNormal": lambda: MultivariateNormal(torch.ones(2), 2 * torch.eye(2)),
    "Independent Laplace": lambda: Independent(Laplace(torch.zeros(2), torch.ones(2)), 1),
    "Independent Uniform": lambda: Independent(Uniform(-torch.ones(2), torch.ones(2)), 1),
    "Independent Beta": lambda: Independent(Beta(2 * torch.ones(2), 3 * torch.ones(2)), 1),
    "MixtureSameFamily": lambda: MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(3) / 3), Independent(Normal(torch.randn(3, 2), 1.0), 1)
    ),
    "TransformedDistribution": lambda: TransformedDistribution(
        Independent(Normal(torch.zeros(2), torch.ones(2)), 1),
        [AffineTransform(torch.ones(2), 2.0, event_dim=1)],
    ),
    "Independent StudentT": lambda: Independent(StudentT(torch.full((2,), 5.0)), 1),
    "Independent Gumbel": lambda: Independent(Gumbel(torch.zeros(2), torch.ones(2)), 1),
    "logistic": logistic,
    **{f"toy {name}": lambda target=target: target for name, target in toy.targets.items()},
}
every = pytest.mark.parametrize("name", densities)
NO_GENERATOR = {n for n in densities if isinstance(densities[n](), torch.distributions.Distribution)} | {
    "own module"
}


def shifted(base, dtype=torch.float32):
    return Flow(Standardize(torch.ones(2, dtype=dtype), torch.full((2,), 2.0, dtype=dtype)), base)


@every
def test_a_density_has_an_event_shape_log_densities_and_samples_without_gradients(name):
    density = as_density(densities[name]())
    assert isinstance(density, nn.Module) and isinstance(density, Density) and density.event_shape == (2,)
    x = density.sample(7)
    assert x.shape == (7, 2) and not x.requires_grad
    assert density.log_prob(x).shape == (7,) and density.log_prob(x).isfinite().all()


@every
def test_a_density_integrates_to_one_and_is_that_of_its_samples(name):
    density = as_density(densities[name]())
    line = (torch.arange(240, dtype=torch.float64) + 0.5) / 10 - 12
    x = torch.cartesian_prod(line, line)
    with torch.no_grad():
        p = density.double().log_prob(x).exp() / 100
        samples = density.sample(4000)
    assert abs(p.sum().item() - 1) < 0.02
    mean = (p[:, None] * x).sum(0)
    deviation = ((p[:, None] * (x - mean) ** 2).sum(0)).sqrt()
    assert ((samples.mean(0) - mean).abs() < 4.5 * deviation / 4000**0.5 + 0.01).all()


@every
def test_an_empty_batch_has_no_densities(name):
    assert as_density(densities[name]()).log_prob(torch.zeros(0, 2)).shape == (0,)


@every
def test_a_flow_takes_it_as_its_base(name):
    base = densities[name]()
    flow = shifted(base)
    x = flow.sample(5)
    wanted = as_density(base).log_prob((x - 1) / 2) - 2 * math.log(2)
    torch.testing.assert_close(flow.log_prob(x), wanted.to(x.dtype), rtol=1e-4, atol=1e-4)
    assert flow.event_shape == (2,) and flow.sample(6, chunk=4).shape == (6, 2)


@every
def test_a_flow_learns_through_its_draws_in_its_own_dtype(name):
    base = densities[name]()
    flow = Flow(Chain(CNF(MLP(2, (8,)))), base).double()
    assert flow.sample(3).dtype == torch.float64
    assert flow.rsample(3).requires_grad
    x, log_prob = flow.rsample_and_log_prob(3)
    (x.square().sum() + log_prob[log_prob.isfinite()].sum()).backward()
    learned = [p for p in flow.base.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in (*flow.bijection.parameters(), *learned))


@every
def test_what_is_handed_over_stays_as_it_is(name):
    base = densities[name]()
    x = as_density(base).sample(3)
    before = as_density(base).log_prob(x)
    flow = shifted(base, torch.float64)
    assert flow.sample(2).dtype == torch.float64
    if isinstance(base, nn.Module):
        assert base is flow.base or base is flow.base.density
        assert all(p.dtype == torch.float32 for p in base.parameters())
    else:
        flow.double()
        assert torch.equal(as_density(base).log_prob(x), before)
        assert as_density(base).sample(2).dtype == torch.float32


@every
def test_it_can_be_copied_pickled_and_its_tensors_follow_to(name):
    flow = shifted(densities[name]())
    x = flow.sample(4)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.testing.assert_close(other.log_prob(x), flow.log_prob(x))
    flow.double()
    assert flow.log_prob(x.double()).dtype == flow.sample(2).dtype == torch.float64


@every
def test_a_generator_determines_the_draws_or_is_refused_by_name(name):
    flow = shifted(densities[name]())
    if name in NO_GENERATOR:
        with pytest.raises(ValueError, match="generator"):
            flow.sample(3, generator=rng())
    else:
        assert torch.equal(flow.sample(3, generator=rng(1)), flow.sample(3, generator=rng(1)))


@pytest.mark.parametrize(
    ("base", "outside"),
    [
        (Independent(Uniform(torch.zeros(2), torch.ones(2)), 1), [[0.5, 1.5]]),
        (Independent(Exponential(torch.ones(2)), 1), [[0.5, -0.1]]),
        (Independent(Beta(torch.full((2,), 2.0), torch.full((2,), 3.0)), 1), [[0.5, -0.1]]),
        (toy.checkerboard, [[9.0, 0.0]]),
        (Own(), [[2.0, 2.0]]),
    ],
    ids=["uniform", "exponential", "beta", "checkerboard", "own"],
)
def test_outside_of_the_support_the_log_density_is_minus_infinity(base, outside):
    assert as_density(base).log_prob(torch.tensor(outside)).tolist() == [-math.inf]


def test_a_mixture_takes_no_tensors_that_would_not_learn():
    m = torch.zeros(2, requires_grad=True)
    for means in (m[None], [m], [[m[0], m[1]]]):
        with pytest.raises(ValueError, match="gradient"):
            GaussianMixture([1.0], means, [torch.eye(2).tolist()])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_mixture_that_is_not_finite_is_refused(wrong):
    for means, covariances in (([[wrong]], [[[1.0]]]), ([[0.0]], [[[wrong]]])):
        with pytest.raises(ValueError, match="finite means.*with NaN or inf"):
            GaussianMixture([1.0], means, covariances)


def test_a_mixture_of_tensors_in_lists_is_that_of_whole_tensors():
    whole = mixture()
    parts = GaussianMixture(whole.weights.tolist(), list(whole.means), list(whole.covariances))
    assert all(torch.equal(a, b) for a, b in zip(parts.buffers(), whole.buffers(), strict=True))


def test_a_mixture_is_torch_s_mixture():
    ours = mixture()
    parts = MultivariateNormal(ours.means, ours.covariances)
    theirs = MixtureSameFamily(torch.distributions.Categorical(ours.weights), parts)
    x = theirs.sample((50,))
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=1e-12, atol=1e-12)
    fresh = GaussianMixture([0.5, 0.5], [[0.0, 0.0]] * 2, [torch.eye(2).tolist()] * 2)
    fresh.load_state_dict(ours.state_dict())
    torch.testing.assert_close(fresh.log_prob(x), ours.log_prob(x), rtol=1e-12, atol=1e-12)


def test_a_diagonal_normal_is_torch_s_normal_and_learns_by_its_samples():
    base = DiagonalNormal(3).double()
    with torch.no_grad():
        base.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        base.log_scale.copy_(torch.tensor([-1.0, 0.0, 2.0]))  # of a sum that is not 0
    x = base.sample(50, generator=rng())
    wanted = Normal(base.mean, base.log_scale.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(base.log_prob(x), wanted, rtol=1e-12, atol=1e-12)
    base.rsample(20_000, generator=rng()).square().mean(0).sum().backward()  # E x² = m² + σ²
    torch.testing.assert_close(base.mean.grad, 2 * base.mean.detach(), rtol=0.05, atol=0.05)
    torch.testing.assert_close(
        base.log_scale.grad, 2 * (2 * base.log_scale.detach()).exp(), rtol=0.05, atol=0.05
    )


def test_a_base_of_one_s_own_prints_by_the_name_of_its_class():
    assert repr(as_density(Own())) == "Own()"
    assert repr(as_density(toy.moons)) == repr(toy.moons)
    assert "(base): Own()" in repr(shifted(Own()))


def test_what_a_base_of_one_s_own_has_besides_is_reached_through_the_flow():
    own = OwnModule()
    for flow in (shifted(own), pickle.loads(pickle.dumps(shifted(own))), copy.deepcopy(shifted(own))):
        assert torch.equal(flow.base.loc, own.loc) and flow.base.loc is flow.base.density.loc
        assert not hasattr(flow.base, "scale")
    assert shifted(Own()).base.r == 2.0 and not hasattr(shifted(Own()).base, "rsample")


def test_a_wrapped_base_compiles():
    flow, x = shifted(OwnModule()), torch.randn(4, 2)
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), flow.log_prob(x))


def test_messages_name_a_base_by_its_own_class():
    base = OwnModule()
    base.log_prob = lambda x: x
    base.sample = lambda n: torch.zeros(n)
    with pytest.raises(ValueError, match="OwnModule"):
        shifted(base).log_prob(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="OwnModule"):
        shifted(base).sample(3)


def test_context_and_generator_reach_a_base_by_their_names():
    base, x, context = Regression(), torch.randn(5, 2), torch.randn(5, 1)
    flow = Flow(Chain(), base)
    torch.testing.assert_close(flow.log_prob(x, context), base.log_prob(x, context=context))
    wanted = base.sample(5, context=context, generator=rng())
    assert torch.equal(flow.sample(5, context, rng()), wanted)


class Own2:
    """A density whose methods a test replaces."""

    event_shape = (2,)

    def log_prob(self, x, context=None, generator=None):
        return x.sum(1)

    def sample(self, n, context=None, generator=None):
        return torch.zeros(n, 2)


signatures = {
    "a context by another name": ({"log_prob": lambda self, x, cond=None: x}, "cond"),
    "a label before the generator": ({"sample": lambda self, n, y=None, generator=None: n}, "y"),
    "a required argument": ({"log_prob": lambda self, x, context, scale: x}, "scale"),
    "a required keyword": ({"log_prob": lambda self, x, context=None, *, scale: x}, "scale"),
    "a shape": ({"sample": lambda self, sample_shape, context=None: sample_shape}, "n, an int"),
    "a context for points alone": ({"sample": lambda self, n, generator=None: n}, "context"),
    "a context for draws alone": ({"log_prob": lambda self, x: x}, "context"),
    "rsample without a context": ({"rsample": lambda self, n: n}, "context"),
    "a number for a shape": ({"event_shape": 2}, "event_shape = 2"),
    "a list for a shape": ({"event_shape": [2]}, r"event_shape = \[2\]"),
    "no axis": ({"event_shape": ()}, "event_shape"),
}


@pytest.mark.parametrize(("members", "message"), signatures.values(), ids=signatures)
@pytest.mark.parametrize("module", [False, True])
def test_a_base_that_would_lose_its_context_is_refused(module, members, message):
    bases = (Own2, nn.Module) if module else (Own2,)
    with pytest.raises(ValueError, match=message):
        as_density(type("Mine", bases, members)())


def test_a_setting_of_one_s_own_stands_behind_a_star_or_the_context():
    behind = lambda self, x, context=None, *, scale=2.0: scale * x.sum(1)
    after = lambda self, n, context=None, generator=None, chunk=None: torch.zeros(n, 2)
    base = as_density(type("Mine", (Own2,), {"log_prob": behind, "sample": after})())
    assert base.log_prob(torch.ones(1, 2)).item() == 4.0 and base.sample(3).shape == (3, 2)


def test_tensors_in_several_partial_functions_are_seen_each():
    base = Own()
    base.parts = [functools.partial(torch.add, torch.zeros(2, requires_grad=k == 3)) for k in range(4)]
    with pytest.raises(ValueError, match="gradient"):
        as_density(base)


class NoReparametrisation(nn.Module):
    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))

    def log_prob(self, x, context=None, generator=None):
        return Normal(self.loc, 1.0).log_prob(x).sum(1)

    def sample(self, n, context=None, generator=None):
        return torch.randn(n, 2, generator=generator)


def test_rsample_refuses_a_base_that_would_get_no_gradient():
    base = NoReparametrisation()
    for flow in (shifted(base), tempered(shifted(base), 0.5)):
        with pytest.raises(ValueError, match="rsample"):
            flow.rsample(3)
        with pytest.raises(ValueError, match="rsample"):
            flow.rsample_and_log_prob(3)
    base.requires_grad_(False)
    assert shifted(base).rsample(3).shape == (3, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Normal(0.0, 1.0), "Independent"),
        (Normal(torch.zeros(2), torch.ones(2)), "Independent"),
        (MultivariateNormal(torch.zeros(3, 2), torch.eye(2)), "Independent"),
        (StudentT(3.0), "expand"),
        (MultivariateNormal(torch.zeros(3, 2), torch.eye(2)), "one row"),
        (Independent(Poisson(torch.ones(2)), 1), "discrete"),
        (Independent(Bernoulli(torch.full((2,), 0.5)), 1), "discrete"),
        (OneHotCategorical(torch.ones(2)), "discrete"),
        (StandardNormal, "called"),
        (nn.Linear(2, 2), "log_prob"),
        ("normal", "log_prob"),
        (MultivariateNormal(torch.zeros(2, requires_grad=True), torch.eye(2)), "gradient"),
        (type("Shapeless", (), {"log_prob": lambda s, x: x, "sample": lambda s, n: n})(), "event_shape"),
    ],
)
def test_what_is_no_density_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        as_density(wrong)
    with pytest.raises(ValueError, match=message):
        shifted(wrong)


def test_the_base_of_an_inverse_flow_is_reached_both_ways():
    flow = Flow(Inverse(realnvp(dim=2).bijection), toy.moons)
    x = flow.sample(4)
    torch.testing.assert_close(flow.log_prob(x), toy.moons.log_prob(flow.encode(x)))
