"""The laws of a flow: its density is normalised, is that of its samples, and is reached by gradients."""

import copy
import math
import pickle

import pytest
import torch
from fitting import log_volumes
from registry import built, devices, far, flows, points, rng, standardize

from cnflib import Bijection, Chain, Flow, Inverse, Standardize, StandardNormal, as_density, tempered
from cnflib.adapters import ignore_context
from cnflib.audit import audit_bijection, audit_gradients
from cnflib.continuous import CNF, Exact
from cnflib.discrete import ActNorm, ExactLogDet, Flatten, Logit, Planar, Residual, Scale, Squeeze
from cnflib.models import gaussian, realnvp
from cnflib.nets import MLP
from cnflib.ode import Fixed, euler

every = pytest.mark.parametrize("name", flows)
exactly = pytest.mark.parametrize("name", [n for n, m in flows.items() if not m.noisy])
in_the_plane = pytest.mark.parametrize(
    "name", [n for n, m in flows.items() if m.shape == (2,) and not m.noisy]
)
conditional = pytest.mark.parametrize("name", [n for n, m in flows.items() if m.context])


def setup(name, n=3, dtype=torch.float64):
    member = flows[name]
    return built(member, dtype), *points(member, n, dtype)


def assert_close(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def grid(half=15.0, steps=150):
    """Midpoints of a square's cells, and the area of one; the widest member, Standardize, has deviation 3."""
    line = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps * 2 * half - half
    return torch.cartesian_prod(line, line), (2 * half / steps) ** 2


@in_the_plane
def test_density_integrates_to_one_and_gives_the_mass_of_sets_of_samples(name):
    flow, _, context = setup(name)
    x, area = grid()
    context = None if context is None else context[:1]
    with torch.no_grad():
        p = flow.log_prob(x, None if context is None else context.expand(len(x), -1)).exp() * area
        samples = flow.sample(4000, context, rng())
    assert abs(p.sum().item() - 1) < 1e-3
    for axis in range(2):
        mean = (p * x[:, axis]).sum()
        edge = (mean / area**0.5).round() * area**0.5  # of cells, so that none is cut
        share = (samples[:, axis] > edge).double().mean()
        assert abs(share - p[x[:, axis] > edge].sum()) < 4 * (0.25 / len(samples)) ** 0.5


@exactly
def test_samples_have_the_density_that_log_prob_gives(name):
    flow, _, context = setup(name)
    with torch.no_grad():
        x, log_prob = flow.rsample_and_log_prob(4000, None if context is None else context[:1], rng())
    width = 1 - 0.3 * min(1, 2 / x[0].numel() ** 0.5)  # the scatter of r / p grows with the dimension
    narrow = torch.distributions.Normal(x.mean(0), width * x.std(0))
    ratio = (narrow.log_prob(x).flatten(1).sum(1) - log_prob).exp()  # E_p[r / p] = 1 for every density r
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / len(x) ** 0.5
    assert ratio.std() / len(x) ** 0.5 < 0.05


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out_a_log_density_is_a_number_or_minus_infinity(name, dtype):
    flow, (x, context) = built(flows[name], dtype), far(flows[name], (1e10, 1e20, 1e30), dtype)
    with torch.no_grad():
        assert (flow.log_prob(x, context, rng()) < torch.inf).all()  # NaN is not


@exactly
def test_rsample_and_log_prob_agrees_with_sample_rsample_and_log_prob(name):
    flow, _, context = setup(name)
    x, log_prob = flow.rsample_and_log_prob(3, context, rng())
    assert_close(flow.sample(3, context, rng()), x)
    assert_close(flow.rsample(3, context, rng()), x)
    assert_close(flow.log_prob(x, context), log_prob)


@exactly
def test_samples_do_not_depend_on_how_many_are_decoded_at_once(name):
    flow, _, context = setup(name, n=5)
    assert_close(flow.sample(5, context, rng(), chunk=2), flow.sample(5, context, rng()))


@exactly
def test_encode_and_decode_are_the_bijection_s(name):
    flow, x, context = setup(name)
    z = flow.encode(x, context)
    assert_close(z, flow.bijection.encode_and_logdet(x, context)[0])
    assert_close(flow.decode(z, context), x, 1e-5)


@exactly
def test_a_flow_after_a_bijection_is_the_same_flow_in_other_units(name):
    flow, x, context = setup(name)
    mean, std = torch.full(flow.event_shape, 2.0).double(), torch.full(flow.event_shape, 3.0).double()
    other = flow.after(Standardize(mean, std))
    volume = std.numel() * math.log(3)
    assert_close(other.log_prob(2 + 3 * x, context), flow.log_prob(x, context) - volume)
    assert_close(other.encode(2 + 3 * x, context), flow.encode(x, context))
    assert_close(other.sample(3, context, rng()), 2 + 3 * flow.sample(3, context, rng()))
    assert {id(p) for p in other.parameters()} == {id(p) for p in flow.parameters()}


@conditional
def test_a_context_in_other_units_is_the_context_encoded_by_hand(name):
    flow, x, context = setup(name)
    moved, units = units_of(context)
    other = flow.after(Standardize(torch.full_like(x[0], 2), torch.full_like(x[0], 3)), context=units)
    raw, volume = 2 + 3 * x, x[0].numel() * math.log(3)
    assert_close(other.log_prob(raw, moved, rng()), flow.log_prob(x, context, rng()) - volume)
    assert_close(other.encode(raw, moved, rng()), flow.encode(x, context, rng()))
    assert_close(other.decode(x, moved, rng()), 2 + 3 * flow.decode(x, context, rng()))
    assert_close(other.sample(3, moved, rng()), 2 + 3 * flow.sample(3, context, rng()))
    assert_close(other.sample(2, moved[:1], rng()), 2 + 3 * flow.sample(2, context[:1], rng()))
    y, log_prob = other.rsample_and_log_prob(3, moved, rng())
    z, wanted = flow.rsample_and_log_prob(3, context, rng())
    assert_close(y, 2 + 3 * z)
    assert_close(log_prob, wanted - volume)
    assert {id(p) for p in other.parameters()} == {id(p) for p in flow.parameters()}


def units_of(context):
    """A context in other units, and the map that brings it back."""
    units = Standardize(torch.full_like(context[0], -7.0), torch.full_like(context[0], 0.2))
    return units.decode(context), units


class Regression(torch.nn.Module):
    """A base whose mean is learned from the context."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]).double())

    def log_prob(self, x, context=None, generator=None):
        return -((x - context @ self.weight) ** 2).sum(1) / 2

    def sample(self, n, context=None, generator=None):
        return self.rsample(n, context, generator).detach()

    def rsample(self, n, context=None, generator=None):
        return context @ self.weight + torch.randn(n, 2, generator=generator).double()


def test_a_base_gets_its_context_in_the_same_units():
    flow, x, context = setup("after Standardize, context too")
    inner = Flow(flow.bijection, Regression())
    moved, units = units_of(context)
    other = inner.after(standardize().double(), context=units)
    assert_close(other.base.log_prob(x, moved), inner.base.log_prob(x, context))
    cool = 0.7 * inner.base.sample(3, context, rng())
    assert_close(tempered(other, 0.7).sample(3, moved, rng()), other.decode(cool, moved))
    other.rsample(3, moved).sum().backward()
    assert inner.base.weight.grad.abs().min() > 0


def test_units_of_a_context_are_put_one_before_the_other():
    flow, x, context = setup("realnvp context")
    moved, units = units_of(context)
    again, more = units_of(moved)
    nothing = Chain()
    twice = flow.after(nothing, context=units).after(nothing, context=more)
    assert_close(twice.log_prob(x, again), flow.log_prob(x, context))


def test_units_of_a_context_are_part_of_the_flow():
    flow, x, context = setup("after Standardize, context too")
    units = flow.bijection.layers[1].units
    assert flow.base.units is units and set(units.state_dict()) == {"mean", "std"}
    weights = {k: v + 1 for k, v in [*flow.named_parameters(), *flow.named_buffers()]}
    other = copy.deepcopy(flow)
    other.load_state_dict({k: v + 1 for k, v in flow.state_dict().items()})
    called = torch.func.functional_call(flow, weights, (x, context))
    assert_close(called, other.log_prob(x, context))
    assert (called != flow.log_prob(x, context)).all() and units.mean.dtype == torch.float64
    compiled = torch.compile(flow.log_prob, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, context), flow.log_prob(x, context))


def test_a_flow_of_raw_contexts_passes_the_audits():
    flow, x, context = setup("after Standardize, context too", 8)
    audit_bijection(flow.bijection, x, context=context).raise_for_faults()
    audit_gradients(flow, x, context=context).raise_for_faults()


def test_a_context_of_another_shape_or_kind_than_its_units_is_refused():
    flow, x, context = setup("after Standardize, context too")
    for wrong in (context[:, :1], context[0], context.float(), context.long()):
        for call in (flow.log_prob, flow.encode, flow.decode):
            with pytest.raises(ValueError, match="context"):
                call(x, wrong)
        with pytest.raises(ValueError, match="context"):
            flow.sample(3, wrong)
    with pytest.raises(ValueError, match="context"):
        flow.log_prob(x)
    with pytest.raises(ValueError, match="context"):
        flow.after(standardize(), context=context)


@pytest.mark.parametrize("name", ["gaussian", "realnvp", "CNF"])
def test_a_base_may_have_a_context_over_a_bijection_that_ignores_it(name):
    parts = {
        "gaussian": lambda: gaussian(dim=2).bijection,
        "realnvp": lambda: realnvp(dim=2, layers=2, hidden=(8,)).bijection,
        "CNF": lambda: CNF(MLP(2, hidden=(8,)), solver=Fixed(4)),
    }
    bijection, base = parts[name]().double(), Regression()
    x, context = torch.randn(2, 5, 2, generator=rng(), dtype=torch.float64)
    flow = Flow(ignore_context(bijection), base)
    z, logdet = bijection.encode_and_logdet(x)
    assert_close(flow.log_prob(x, context), base.log_prob(z, context) + logdet)
    assert_close(flow.sample(5, context, rng()), bijection.decode(base.sample(5, context, rng())))
    assert_close(flow.decode(flow.encode(x, context), context), x, 1e-4)
    y, log_prob = flow.rsample_and_log_prob(5, context, rng())
    assert_close(log_prob, flow.log_prob(y, context), 1e-4)
    assert {id(p) for p in bijection.parameters()} < {id(p) for p in flow.parameters()}
    assert flow.event_shape == (2,)


def test_a_bijection_may_have_a_context_over_a_base_that_ignores_it():
    flow, x, context = setup("realnvp context")
    base = gaussian(dim=2).double()
    both = Flow(flow.bijection, ignore_context(base))
    z, logdet = flow.bijection.encode_and_logdet(x, context)
    assert_close(both.log_prob(x, context), base.log_prob(z) + logdet)
    assert_close(both.sample(3, context, rng()), flow.decode(base.sample(3, generator=rng()), context))
    both.rsample(3, context).sum().backward()
    assert all(p.grad is not None for p in base.parameters())
    with pytest.raises(ValueError, match="ignore_context"):
        Flow(flow.bijection, base).log_prob(x, context)
    with pytest.raises(ValueError, match="part"):
        ignore_context(MLP(2))


@every
def test_a_flow_is_a_density_and_may_be_a_base(name):
    flow, x, context = setup(name)
    assert as_density(flow) is flow and flow.event_shape == flows[name].shape
    above = Flow(Standardize(torch.zeros_like(x[0]), torch.ones_like(x[0])), flow)
    assert_close(above.log_prob(x, context, rng()), flow.log_prob(x, context, rng()))
    assert_close(above.sample(3, context, rng()), flow.sample(3, context, rng()))


@exactly
def test_a_trained_flow_is_a_bijection_with_the_log_determinant_of_its_jacobian(name):
    flow, x, context = setup(name, n=4)
    closed = not any(isinstance(module, CNF) for module in flow.modules())
    many, contexts = points(flows[name], 64, seed=3)
    parameters = list(flow.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-2) if parameters else None
    for _ in range(8 if optimizer and closed else 2 * bool(optimizer)):
        optimizer.zero_grad()
        (-flow.log_prob(many.tanh() + many[:1] ** 2, contexts).mean()).backward()
        optimizer.step()
    z, logdet = flow.bijection.encode_and_logdet(x, context)
    back, logdet_back = flow.bijection.decode_and_logdet(z, context)
    precision = 1e-9 if closed else 1e-6
    assert_close(back, x, precision)
    assert_close(logdet, log_volumes(flow.bijection.encode_and_logdet, x, context), precision)
    assert_close(logdet_back, -logdet, precision)


@pytest.mark.parametrize("name", [n for n, m in flows.items() if m.noisy])
def test_an_estimated_log_prob_is_unbiased(name):
    flow, x, context = setup(name)
    draws = 1000
    many, contexts = (None if a is None else a.repeat(draws, *[1] * (a.ndim - 1)) for a in (x, context))
    samples = flow.log_prob(many, contexts, rng()).reshape(draws, -1)
    for module in flow.modules():
        if isinstance(module, CNF):
            module.divergence = Exact()
        if isinstance(module, Residual):
            module.logdet = ExactLogDet()
    error = samples.mean(0) - flow.log_prob(x, context)
    assert (error.abs() < 4 * samples.std(0) / draws**0.5 + 1e-6).all()


@every
def test_gradient_is_that_of_log_prob(name):
    flow, x, context = setup(name)
    report = audit_gradients(flow, x, context=context)
    report.raise_for_faults()
    judged = {finding.check for finding in report.findings}
    assert all(any(name in check for check in judged) for name, _ in [*flow.named_parameters(), ("of x", x)])


@exactly
def test_calling_a_flow_is_its_log_prob(name):
    flow, x, context = setup(name)
    assert torch.equal(flow(x, context), flow.log_prob(x, context))


@exactly
def test_gradient_flows_through_rsample_and_not_through_sample(name):
    flow, _, context = setup(name)
    parameters = list(flow.parameters())
    assert not flow.sample(3, context, rng()).requires_grad
    x = flow.rsample(3, context, rng())
    if parameters:
        assert all(g.any() for g in torch.autograd.grad(x.square().sum(), parameters))
    else:
        assert not x.requires_grad


@pytest.mark.parametrize("name", [n for n in flows if n != "ffjord dim"])  # too precise for float32
def test_shapes_and_dtypes(name):
    flow, x, context = setup(name, dtype=torch.float32)
    draws = flow.rsample_and_log_prob(3, context, rng())
    assert flow.log_prob(x, context).shape == draws[1].shape == (3,)
    assert draws[0].shape == flow.sample(3, context).shape == x.shape
    assert {flow.log_prob(x, context).dtype, *(d.dtype for d in draws)} == {torch.float32}


@every
@pytest.mark.parametrize("device", devices)
def test_samples_lie_on_the_flow_s_device(name, device):
    flow, x, context = setup(name)
    context = None if context is None else context.to(device)
    samples = flow.to(device).sample(3, context, rng(device=device))
    assert samples.device.type == device
    assert flow.log_prob(samples, context).device.type == device


@every
def test_an_empty_batch_has_no_densities(name):
    flow, x, context = setup(name, n=0)
    assert flow.log_prob(x, context).shape == (0,)


@every
def test_a_saved_flow_is_the_same_flow(name):
    flow, x, context = setup(name)
    fresh = flows[name].build().double()
    fresh.load_state_dict(flow.state_dict())
    wanted = flow.log_prob(x, context, rng())
    for other in (fresh, copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert_close(other.log_prob(x, context, rng()), wanted, 0)


@every
def test_draws_follow_the_generator_and_leave_the_default_one_alone(name):
    flow, _, context = setup(name)
    before = torch.random.get_rng_state()
    first, again, other = (flow.sample(3, context, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_one_row_of_context_serves_all_samples():
    flow, _, context = setup("realnvp context")
    assert_close(flow.sample(3, context[:1], rng()), flow.sample(3, context[:1].repeat(3, 1), rng()), 0)


def test_context_changes_the_density():
    for name in ("realnvp context", "ffjord context"):
        flow, x, context = setup(name)
        assert (flow.log_prob(x, context) != flow.log_prob(x, context + 1)).all()


class Returning(Bijection):
    """What it returns is its own affair."""

    event_shape = (2,)

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def encode_and_logdet(self, x, context=None, generator=None):
        return self.returned(x)

    decode_and_logdet = encode_and_logdet


RETURNED = {
    "nothing": (lambda x: None, "a point and a log-determinant.*got None"),
    "the point alone": (lambda x: x, "a point and a log-determinant"),
    "a column": (lambda x: (x[:, :1], x.sum(1)), r"points of shape \(2, 2\); got \(2, 1\)"),
    "a log-det of each number": (lambda x: (x, x), r"a log-determinant of shape \(2,\)"),
    "a column of log-dets": (lambda x: (x, x[:, :1]), r"a log-determinant of shape \(2,\)"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_what_a_bijection_returned_is_looked_at_before_it_would_broadcast(name):
    returned, message = RETURNED[name]
    flow = Flow(Returning(returned), StandardNormal(2))
    for call in (lambda: flow.log_prob(torch.zeros(2, 2)), lambda: flow.rsample_and_log_prob(2)):
        with pytest.raises(ValueError, match=f"Expected Returning to return {message}"):
            call()


@pytest.mark.parametrize("shape", [1, 3, (2,), (2, 4, 4)])
def test_standard_normal_is_the_normal_density(shape):
    base = StandardNormal(shape).double()
    z = base.sample(5, generator=rng())
    assert z.shape == (5, *((shape,) if isinstance(shape, int) else shape))
    assert_close(base.log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1), 1e-12)


def test_standard_normal_samples_have_zero_mean_and_unit_variance():
    z = StandardNormal(2).double().sample(20_000, generator=rng())
    assert (z.mean(0).abs() < 4 / len(z) ** 0.5).all()
    assert ((z.T.cov() - torch.eye(2)).abs() < 4 * 2**0.5 / len(z) ** 0.5).all()


def test_an_affine_flow_is_the_normal_of_its_mean_and_deviation():
    mean, std = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    flow = Flow(Standardize(mean, std), StandardNormal(2))
    x = flow.sample(5, generator=rng())
    assert_close(flow.log_prob(x), torch.distributions.Normal(mean, std).log_prob(x).sum(1), 1e-12)


def test_draws_take_the_dtype_of_the_bijection_and_the_base_is_left_alone():
    base = StandardNormal(2)
    flow = Flow(Standardize(torch.zeros(2).double(), torch.ones(2).double()), base)
    assert flow.sample(3).dtype == torch.float64
    assert flow.base is base and base.origin.dtype == torch.float32


def test_log_prob_is_in_nats_of_the_data_s_own_units():
    flow = Flow(Chain(Standardize(torch.zeros(1), torch.full((1,), 0.01))), StandardNormal(1))
    assert flow.log_prob(torch.zeros(1, 1)).item() == pytest.approx(
        math.log(100) - 0.5 * math.log(2 * math.pi)
    )


def test_coarse_steps_fake_likelihood():
    """N(0, 1/16) by its exact field -ln 4 x: four Euler steps gain log-likelihood by a mass above 1."""
    rate = math.log(4)
    flow = Flow(CNF(lambda t, x, context: -rate * x, solver=Fixed(4, euler)), StandardNormal(1)).double()
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)[:, None]
    mass = flow.log_prob(x).exp().sum() * 0.01
    assert mass.item() == pytest.approx(4 / (1 + rate / 4) ** 4, rel=1e-6)


rearranging = {
    "squeeze": (lambda: Chain(Squeeze(), ActNorm(4).eval()), (4, 4, 4), (1, 8, 8)),
    "squeeze behind channels": (lambda: Chain(ActNorm(1).eval(), Squeeze()), (4, 4, 4), (1, 8, 8)),
    "flatten": (lambda: Chain(Logit(), Flatten((2, 2)), Planar(4)), (4,), (2, 2)),
    "unflatten": (lambda: Inverse(Flatten((2, 2))), (2, 2), (4,)),
    "there and back": (lambda: Chain(Flatten((2, 2)), Inverse(Flatten((2, 2)))), (2, 2), (2, 2)),
}


@pytest.mark.parametrize(("build", "latent", "event"), rearranging.values(), ids=rearranging)
def test_a_flow_takes_its_own_samples_where_the_bijection_rearranges_an_event(build, latent, event):
    flow = Flow(build(), StandardNormal(latent))
    assert flow.event_shape == event
    x = flow.sample(3, generator=rng())
    assert x.shape == (3, *event) and flow.log_prob(x).isfinite().all()
    assert flow.bijection.latent_shape(event) == latent == tuple(flow.encode(x).shape[1:])


mismatched = {
    "layers": lambda: Chain(Scale(2), Standardize(torch.zeros(1), torch.ones(1))),
    "layers behind one that takes any": lambda: Chain(Scale((1, 4, 4)), Squeeze(), Scale((1, 4, 4))),
    "an inverse": lambda: Chain(Inverse(Scale(2)), Inverse(Scale(1))),
    "base of an inverse": lambda: Flow(
        Inverse(Standardize(torch.zeros(1), torch.ones(1))), StandardNormal(2)
    ),
}


@pytest.mark.parametrize("build", mismatched.values(), ids=mismatched)
def test_events_of_another_shape_are_refused_where_they_would_broadcast(build):
    """Each of these would give a density that counts a scale once for many coordinates."""
    with pytest.raises(ValueError, match="Expected (layer|a base)"):
        build()


def test_points_that_a_bijection_broadcast_are_refused():
    """Latents (3,) and a scale of shape (3, 1): with n = 3 coordinates would mix with rows."""
    flow = Flow(Scale((3, 1)), StandardNormal(3))
    for draw in (flow.sample, flow.rsample):
        with pytest.raises(ValueError, match="points"):
            draw(3)
    with pytest.raises(ValueError, match="points"):
        flow.decode(torch.zeros(3, 3))


def test_an_inverse_is_for_the_latents_of_its_bijection():
    assert Inverse(Scale((2, 3))).event_shape == (2, 3) and Inverse(Squeeze()).event_shape is None
    assert Inverse(Flatten((2, 3))).event_shape == (6,)
    assert Inverse(Chain(Scale((1, 4, 4)), Squeeze())).event_shape == (4, 2, 2)
