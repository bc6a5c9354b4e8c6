"""Interpolants between Gaussians, where velocity, map, density and the least loss are known in closed form."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from registry import interpolants, noises, rng
from torch import nn

from cnflib import Chain, Flow, Standardize, StandardNormal
from cnflib.continuous import CNF
from cnflib.interpolants import (
    Bridge,
    Constant,
    EncodingDecoding,
    IndependentPairing,
    Interpolant,
    Linear,
    Mirror,
    OneSided,
    Parabola,
    PathPoint,
    Rated,
    Sigmoid,
    SineSquared,
    Trigonometric,
    VariancePreserving,
    denoiser_loss,
    monitor,
    sample_ode,
    sample_sde,
    velocity_loss,
    velocity_objective,
)
from cnflib.ode import Adaptive, Fixed, dopri8, heun

S0, S1, D = 1.5, 0.4, 3
precise = Adaptive(dopri8, rtol=1e-8, atol=1e-8)
paths = {"linear": Linear(), "trigonometric": Trigonometric()}
noisy = interpolants["of a user"]
silent = pytest.mark.parametrize("path", paths.values(), ids=paths)
every = pytest.mark.parametrize("path", [*paths.values(), noisy], ids=[*paths, "noisy"])
ready = pytest.mark.parametrize("name", interpolants)
times = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


def pull(t, x, context=None):
    return -x.tanh() - t.reshape(-1, 1)


def assert_close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def draw(n=3, dim=D, seed=0):
    return torch.randn(n, dim, generator=rng(seed), dtype=torch.float64)


def ends(n=3, dim=D):
    return S0 * draw(n, dim, 1), S1 * draw(n, dim, 2)


def noise(path, t):
    """gamma² of any path, which is 0 where it has no noise."""
    return torch.zeros_like(t) if path.gamma2 is None else path.gamma2(t)


def scale(path):
    """The variance of x_t between N(0, S0²) and N(0, S1²), drawn independently, and its rate by autograd."""

    def variance(t):
        return path.alpha(t) ** 2 * S0**2 + path.beta(t) ** 2 * S1**2 + noise(path, t)

    def rate(t):
        return torch.func.jvp(variance, (t,), (torch.ones_like(t),))[1]

    return variance, rate


def velocity(path):
    """b(t, x) = E[rate | x_t = x] = v'(t) / 2 v(t) x."""
    variance, rate = scale(path)
    return lambda t, x, context=None: (rate(t) / (2 * variance(t))).reshape(-1, 1) * x


@silent
def test_a_path_leads_from_base_to_data(path):
    x0, x1 = ends()
    assert_close(path(0.0, x0, x1), x0)
    assert_close(path(1.0, x0, x1), x1)


@ready
def test_every_path_has_the_ends_it_says(name):
    (x0, x1), xi, path = ends(), draw(), interpolants[name]
    noise = 0.4 * xi if "constant" in name else 0
    assert_close(path(0.0, x0, x1, xi), (x1 if "mirror" in name else x0) + noise, 1e-8)
    assert_close(path(1.0, x0, x1, xi), x1 + noise, 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@ready
def test_what_vanishes_at_an_end_is_exactly_zero_there(name, dtype):
    """A sampler asks for no score where eps = gamma² is 0: rounding must not leave a rest."""
    path, end = interpolants[name], torch.tensor([0.0, 1.0], dtype=dtype)
    if "constant" not in name:
        assert not noise(path, end).any()
    if "mirror" not in name and "of a diffusion" not in name:
        assert path.alpha(end).tolist() == [1, 0] and path.beta(end).tolist() == [0, 1]


@pytest.mark.parametrize("name", [name for name in interpolants if name not in ("of a user", "one-sided")])
def test_a_path_can_be_pickled(name):
    path = pickle.loads(pickle.dumps(interpolants[name]))
    assert all(
        torch.equal(a, b) for a, b in zip(path.coefficients(times), interpolants[name].coefficients(times))
    )


class Curved(nn.Module):
    """A schedule by a net, from 1 to 0."""

    def __init__(self, dtype):
        super().__init__()
        self.line = nn.Linear(1, 1, dtype=dtype)

    def forward(self, t):
        return (1 - t) * (1 + t * self.line(t[..., None])[..., 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_schedule_may_be_a_net_of_either_precision(dtype):
    net = Curved(dtype)
    for schedule in (net, lambda t: net(t)):
        path = Interpolant(schedule, lambda t: t)
        assert path(0.5, *torch.ones(2, 3, 2, dtype=dtype)).dtype == dtype
    with pytest.raises(ValueError, match="Expected alpha to be a function of a tensor t"):
        Interpolant(nn.Linear(3, 3), lambda t: t)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_paths_are_built_under_any_default(dtype):
    old = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        assert Trigonometric(Sigmoid())(0.5, *torch.zeros(3, 1, 2)).dtype == dtype
    finally:
        torch.set_default_dtype(old)
    with torch.device("meta"):
        assert Linear(Bridge())(0.5, *torch.zeros(3, 1, 2)).is_meta


@pytest.mark.parametrize(
    "build",
    [
        lambda: Linear(Sigmoid(1.0, 150)),
        lambda: Linear(Sigmoid(1.0, 1000)),
        lambda: Interpolant(lambda t: 1 - t, lambda t: t + 0.01 * torch.sin(300 * t) * (1 - t)),
        lambda: Interpolant(
            Rated(lambda t: 1 - t.double(), lambda t: -torch.ones_like(t.float())), lambda t: t
        ),
    ],
    ids=["steep", "steeper", "wavy", "of two precisions"],
)
def test_what_is_differentiable_is_accepted(build):
    assert build()(0.5, *torch.zeros(3, 1, 2)).shape == (1, 2)


flat = lambda t: 100 * torch.relu(t - 0.3) ** 2 * torch.relu(0.7 - t) ** 2


@pytest.mark.parametrize("loss", [velocity_loss, velocity_objective, monitor], ids=lambda loss: loss.__name__)
def test_where_there_is_no_noise_for_a_while_there_is_none(loss):
    """Of times that are drawn, those without noise have the loss of the path without it."""
    (x0, x1), path = ends(400), Linear(flat)
    found = loss(pull, path, x0, x1, generator=rng(3))
    t = torch.rand(400, generator=rng(3), dtype=torch.float64)
    still = path.gamma2(t) == 0
    assert found.isfinite().all() and 100 < still.sum() < 300
    assert_close(found[still], loss(pull, Linear(), x0, x1, t=t)[still])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_noise_that_rounding_leaves_below_zero_is_none(dtype):
    path, (x0, x1) = Linear(lambda t: torch.sin(math.pi * t)), ends()
    x0, x1 = x0.to(dtype), x1.to(dtype)
    assert_close(path(1.0, x0, x1, torch.ones_like(x0)), x1, 1e-7)
    assert denoiser_loss(pull, path, x0, x1, t=torch.ones(3, dtype=dtype)).isfinite().all()
    x = sample_sde(pull, pull, x0, path.gamma2, Fixed(4, heun), generator=rng())
    assert x.isfinite().all() and not torch.equal(x, sample_sde(pull, pull, x0, 0.0, Fixed(4, heun)))


closed = {  # gamma itself
    "bridge": lambda t: 0.8 * (t * (1 - t)).sqrt(),
    "parabola": lambda t: 2 * t * (1 - t),
    "sine": lambda t: 0.7 * (1 - torch.cos(2 * math.pi * t)) / 2,
    "sigmoid": lambda t: (
        1.5
        * (
            (torch.tanh(5 * t - 2) - torch.tanh(5 * t - 3)) / 2
            - 1 / (1 + math.exp(-6))
            + 1 / (1 + math.exp(-4))
        )
    ),
    "constant": lambda t: 0.4 + 0 * t,
}


@pytest.mark.parametrize("name", closed)
def test_every_noise_is_that_of_its_formula(name):
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert_close(noises[name](t).sqrt(), closed[name](t), 1e-9)


def test_encoding_forgets_one_end_and_decoding_forms_the_other():
    t = torch.tensor([0.1, 0.5, 0.6], dtype=torch.float64)
    c = EncodingDecoding().coefficients(t)
    assert_close(c.alpha, torch.tensor([math.cos(math.pi / 10) ** 2, 0, 0]).double(), 1e-7)
    assert_close(c.beta, torch.tensor([0, 0, math.cos(0.6 * math.pi) ** 2]).double(), 1e-7)
    assert_close(c.gamma2.sqrt(), torch.sin(math.pi * t) ** 2)
    assert c.alpha[1] == 0 and c.beta[1] == 0


def test_variance_preserving_preserves_variance_at_any_speed():
    for path in (VariancePreserving(), VariancePreserving(torch.asin)):
        c = path.coefficients(times)
        assert_close(c.alpha**2 + c.beta**2, torch.ones_like(times))
        assert_close(c.alpha * c.alpha_rate + c.beta * c.beta_rate, torch.zeros_like(times))
    assert_close(c.alpha, (1 - times**2).sqrt())


def test_the_two_paths_are_those_of_their_formulas():
    x0, x1 = ends()
    a = math.pi / 2 * times[:, None]
    assert_close(Linear()(times, x0, x1), (1 - times[:, None]) * x0 + times[:, None] * x1)
    assert_close(Linear().rate(times, x0, x1), x1 - x0)
    assert_close(Trigonometric()(times, x0, x1), a.cos() * x0 + a.sin() * x1)
    assert_close(Trigonometric().rate(times, x0, x1), math.pi / 2 * (a.cos() * x1 - a.sin() * x0))


@ready
def test_rate_is_the_derivative_of_the_point(name):
    path, (x0, x1), xi, h = interpolants[name], ends(), draw(), 1e-5
    times = torch.tensor([0.2, 0.47, 0.9], dtype=torch.float64)
    rate = path.rate(times, x0, x1, xi)
    difference = (path(times + h, x0, x1, xi) - path(times - h, x0, x1, xi)) / (2 * h)
    assert_close(rate, difference, 1e-7)
    for i, t in enumerate(times):
        point = torch.autograd.functional.jacobian(lambda t: path(t, x0, x1, xi), t)  # noqa: B023
        assert_close(rate[i], point[i])


@every
def test_one_time_for_all_is_the_same_time_for_each(path):
    (x0, x1), xi = ends(), draw()
    for call in (path, path.rate):
        each = call(torch.full((3,), 0.3, dtype=torch.float64), x0, x1, xi)
        assert_close(call(0.3, x0, x1, xi), each)
        assert_close(call(torch.tensor(0.3, dtype=torch.float64), x0, x1, xi), each)
        assert_close(call(torch.tensor(0.3, dtype=torch.float64).expand(3), x0, x1, xi), each)


@every
def test_images_are_carried_like_vectors(path):
    (x0, x1), xi, image = ends(3, 8), draw(3, 8), (3, 2, 2, 2)
    for call in (path, path.rate):
        carried = call(times, x0.reshape(image), x1.reshape(image), xi.reshape(image))
        assert_close(carried, call(times, x0, x1, xi).reshape(image))


@ready
def test_coefficients_are_those_of_point_and_rate(name):
    path, one, none = interpolants[name], torch.ones(3, 1).double(), torch.zeros(3, 1).double()
    c, out = path.coefficients(times), lambda call, *ends: call(times, *ends)[:, 0]
    assert_close(c.alpha, out(path, one, none, none))
    assert_close(c.beta, out(path, none, one, none))
    assert_close(c.alpha_rate, out(path.rate, one, none, none))
    assert_close(c.beta_rate, out(path.rate, none, one, none))
    assert_close(c.gamma2_rate, 2 * out(path, none, none, one) * out(path.rate, none, none, one))


@every
def test_variance_of_the_point_is_that_of_independent_terms(path):
    n = 20_000
    x_t = path(0.3, *ends(n, 1), draw(n, 1, 3))
    assert abs(x_t.var() / scale(path)[0](torch.tensor(0.3)) - 1) < 4 * (2 / n) ** 0.5


def test_noise_is_ignored_where_there_is_none_and_required_where_there_is():
    x0, x1 = ends()
    assert_close(Linear()(0.3, x0, x1, draw()), Linear()(0.3, x0, x1), 0)
    assert Linear().gamma2 is None and not Linear().coefficients(times).gamma2.any()
    for t, xi in ((None, None), (times, None), (times, torch.ones(1))):
        assert Linear().draw(x0, x1, t, xi).xi is None
        assert torch.isfinite(velocity_loss(pull, Linear(), x0, x1, t, xi)).all()
    for call in (noisy, noisy.rate):
        with pytest.raises(ValueError, match=r"xi of shape \(3, 3\)"):
            call(0.3, x0, x1)


@silent
def test_the_exact_velocity_carries_base_to_data(path):
    x0, _ = ends()
    x1 = sample_ode(velocity(path), x0, precise)
    assert_close(x1, S1 / S0 * x0, 1e-6)
    assert_close(x1, CNF(velocity(path), solver=precise).decode(x0), 0)


@silent
def test_the_exact_velocity_has_the_exact_likelihood(path):
    base = Standardize(torch.zeros(D).double(), torch.full((D,), S0).double())
    flow = Flow(Chain(CNF(velocity(path), solver=precise), base), StandardNormal(D))
    x = ends()[1]
    assert_close(flow.log_prob(x), torch.distributions.Normal(0, S1).log_prob(x).sum(1), 1e-6)


def test_sample_ode_hands_its_context_to_the_field():
    x0, context = draw(), draw(3, 1, 4)
    assert_close(sample_ode(lambda t, x, c: c * x, x0, precise, context), x0 * context.exp(), 1e-6)
    assert_close(sample_ode(lambda t, x: x, x0), x0 * math.e, 1e-3)


least = {"linear": math.pi * S0 * S1 / 2, "trigonometric": math.pi**2 * S0 * S1 / 4}


@pytest.mark.parametrize(("name", "variance"), least.items())
def test_the_least_loss_is_the_conditional_variance_of_the_rate(name, variance):
    """E Var(rate | x_t) = ∫ S0² S1² (α' β - α β')² / v dt, closed for both paths; D of them in D dimensions."""
    path, n = paths[name], 20_000
    loss = velocity_loss(velocity(path), path, *ends(n), generator=rng())
    error = 4 * loss.std() / n**0.5
    assert loss.shape == (n,) and abs(loss.mean() - D * variance) < error < 0.05 * loss.mean()


@every
@pytest.mark.parametrize("t", times.tolist())
def test_the_loss_is_least_at_the_velocity_among_linear_fields(path, t):
    """The loss of f(x) = k x is quadratic in k: it is least where its mean slope in k vanishes."""
    n = 20_000
    (x0, x1), t = ends(n, 1), torch.full((n,), t, dtype=torch.float64)
    best = velocity(path)(t[:1], torch.ones(1, 1).double()).squeeze()

    def slope(k):
        loss = lambda k: velocity_loss(lambda t, x, c: k * x, path, x0, x1, t, generator=rng())
        return torch.func.jvp(loss, (k,), (torch.ones_like(k),))[1]

    error = 4 * slope(best).std() / n**0.5
    assert slope(best).mean().abs() < error
    assert slope(best - 0.5).mean() < -error and slope(best + 0.5).mean() > error


@every
def test_the_loss_is_the_squared_error_summed_over_the_event(path):
    (x0, x1), xi, image = ends(3, 4), draw(3, 4), (3, 1, 2, 2)
    error = path(times, x0, x1, xi).sin() - path.rate(times, x0, x1, xi)
    parts = (a.reshape(image) for a in (x0, x1))
    loss = velocity_loss(lambda t, x, c: x.sin(), path, *parts, times, xi.reshape(image))
    assert_close(loss, error.square().sum(1))


@ready
def test_a_draw_is_what_one_step_of_regression_needs(name):
    path, (x0, x1), xi = interpolants[name], ends(), draw()
    p = path.draw(x0, x1, generator=rng(3))
    assert isinstance(p, PathPoint) and p.t.shape == (3,) and ((p.t > 0) & (p.t < 1)).all()
    assert_close(p.x, path(p.t, x0, x1, p.xi), 0)
    assert_close(p.rate, path.rate(p.t, x0, x1, p.xi), 1e-12)
    assert (p.xi is None) == (path.gamma2 is None)
    loss = (pull(p.t, p.x) - p.rate).square().sum(1)
    assert_close(velocity_loss(pull, path, x0, x1, generator=rng(3)), loss, 0)
    given = path.draw(x0, x1, times, xi)
    assert_close(given.t, times, 0)
    assert_close(given.x, path(times, x0, x1, xi), 0)
    for t in (0.3, torch.tensor(0.3)):
        assert_close(path.draw(x0, x1, t, xi).x, path(0.3, x0, x1, xi), 1e-7)


def test_a_draw_checks_what_it_is_given():
    x0, x1 = ends()
    for arguments, message in {
        (x0, x1[:2]): "Expected x1",
        (x0, x1, torch.tensor([0.1, 0.2])): "Expected t",
        (x0, x1, times, x0[:2]): "Expected noise xi of shape",
        (x0, x1, torch.tensor([0.0, 0.5, 1.0])): "Expected times t",
    }.items():
        with pytest.raises(ValueError, match=message):
            noisy.draw(*arguments)


def test_the_loss_draws_a_time_for_each_pair_and_noise_where_there_is_some():
    seen = []

    def field(t, x, context):
        seen.append((t, x))
        return torch.zeros_like(x)

    x0, x1 = torch.zeros(2, 5000, D, dtype=torch.float64)
    losses = [velocity_loss(field, noisy, x0, x1, generator=rng(seed)) for seed in (0, 0, 1)]
    t, noise = seen[0]
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])
    assert t.shape == (5000,) and 0 <= t.min() < 0.01 and 0.99 < t.max() <= 1
    assert abs(t.mean() - 0.5) < 4 / (12 * 5000) ** 0.5
    assert abs((noise / (t * (1 - t)).sqrt()[:, None]).var() - 1) < 4 * (2 / noise.numel()) ** 0.5


def test_the_loss_hands_time_point_and_context_to_the_field():
    (x0, x1), context = ends(), draw(3, 2, 5)

    def field(t, x, c):
        assert torch.equal(t, times) and torch.equal(c, context)
        assert torch.equal(x, Linear()(times, x0, x1))
        return x1 - x0

    assert not velocity_loss(field, Linear(), x0, x1, times, context=context).any()


def test_gradient_of_the_loss_reaches_the_field():
    net = nn.Linear(D, D).double()
    loss = velocity_loss(lambda t, x, c: net(x), Linear(), *ends(), generator=rng())
    assert all(g.any() for g in torch.autograd.grad(loss.mean(), list(net.parameters())))


def test_independent_pairs_rows_as_they_come():
    x0, x1 = ends()
    pair = IndependentPairing()(x0, x1, generator=rng())
    assert pair[0] is x0 and pair[1] is x1


settings = {
    **{
        f"{path.__name__}, {gamma}": path(gamma)
        for path in (Linear, Trigonometric, Mirror)
        for gamma in [Bridge(2.0)]
    },
    "linear": Linear(),
    "linear, steep": Linear(Sigmoid(steepness=20.0)),
    "trigonometric": Trigonometric(),
    "mirror": Mirror(),
    "encoding-decoding": EncodingDecoding(),
    "one-sided": OneSided(),
    "one-sided, of two ready schedules": OneSided(Trigonometric().alpha, gamma=Constant(0.1)),
    "variance-preserving": VariancePreserving(),
    "variance-preserving, noisy": VariancePreserving(gamma=SineSquared(0.5)),
    "of ready schedules": Interpolant(VariancePreserving().alpha, EncodingDecoding().beta, Parabola()),
    "of constants": Interpolant(Mirror().alpha, Mirror().beta),
}
built = pytest.mark.parametrize("path", settings.values(), ids=settings)


@built
def test_a_path_prints_as_the_call_that_makes_it_and_compares_by_what_it_is(path):
    twins = [eval(repr(path)), copy.deepcopy(path), pickle.loads(pickle.dumps(path))]
    for twin in twins:
        assert twin == path and hash(twin) == hash(path) and isinstance(path, Interpolant)
        for a, b in zip(twin.coefficients(times), path.coefficients(times)):
            assert torch.equal(a, b)
    with pytest.raises(dataclasses.FrozenInstanceError):
        path.gamma = None
    assert sum(path == other for other in settings.values()) == 1


def test_what_stands_at_its_default_is_not_printed():
    for path, text in {
        Linear(): "Linear()",
        Linear(Bridge()): "Linear(gamma=Bridge())",
        Linear(Bridge(2.0)): "Linear(gamma=Bridge(a=2.0))",
        Mirror(): "Mirror()",
        OneSided(): "OneSided()",
        VariancePreserving(): "VariancePreserving()",
        VariancePreserving(gamma=Constant(0.5)): "VariancePreserving(gamma=Constant(0.5))",
    }.items():
        assert repr(path) == text


@pytest.mark.parametrize("name", [name for name, noise in noises.items() if noise is not None])
def test_a_noise_prints_as_the_call_that_makes_it_and_compares_by_what_it_is(name):
    noise = noises[name]
    for twin in (eval(repr(noise)), copy.deepcopy(noise), pickle.loads(pickle.dumps(noise))):
        assert twin == noise and hash(twin) == hash(noise)
    assert sum(noise == other for other in noises.values()) == 1


builders = {
    "linear": lambda: Linear(),
    "linear, bridge": lambda: Linear(Bridge(0.5)),
    "trigonometric": lambda: Trigonometric(Sigmoid(steepness=8.0)),
    "variance-preserving": lambda: VariancePreserving(gamma=SineSquared()),
    "one-sided": lambda: OneSided(gamma=Constant(0.2)),
    "encoding-decoding": lambda: EncodingDecoding(),
    "mirror": lambda: Mirror(),
    "mirror, parabola": lambda: Mirror(Parabola()),
    "of a user": lambda: Interpolant(lambda t: 1 - t, lambda t: t**2, lambda t: t * (1 - t)),
}


@pytest.mark.parametrize("name", builders)
def test_a_path_is_built_inside_a_compiled_function(name):
    torch._dynamo.reset()

    def point(x0, x1, xi):
        path = builders[name]()
        return path(0.3, x0, x1, xi) + path.rate(0.3, x0, x1, xi)

    arguments = (*ends(), draw())
    assert_close(torch.compile(point, fullgraph=True, backend="eager")(*arguments), point(*arguments))


def test_ready_schedules_are_not_tried_and_those_of_a_user_are():
    calls = []

    def counted(t):
        calls.append(t)
        return t * (1 - t)

    Linear(counted)
    assert calls
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bridge, "__call__", None)
        Linear(Bridge()), Mirror(), Interpolant(Linear().alpha, Linear().beta, Bridge())


def test_what_is_no_schedule_is_refused_by_the_name_of_the_argument():
    one = torch.ones(3, 2)
    for build, message in {
        lambda: Linear(0.1): "Expected gamma",
        lambda: Linear(Bridge): "Expected gamma",
        lambda: Linear(one): "Expected settings of Linear",
        lambda: Linear(lambda t: -t): "Expected gamma",
        lambda: Linear(lambda t: 0 * t): "Expected gamma",
        lambda: Mirror(None): "Expected gamma",
        lambda: VariancePreserving(angle=1.0): "Expected angle ",
        lambda: VariancePreserving(torch.round): "Expected angle to be differentiable",
        lambda: OneSided(alpha=None): "Expected alpha ",
        lambda: Interpolant(lambda t: 1 - t, lambda t: t, 0.0): "Expected gamma2",
        lambda: Bridge(one): "Expected a to be",
        lambda: Sigmoid(1.0, -1.0): "Expected steepness",
    }.items():
        with pytest.raises(ValueError, match=f"(?s){message}"):
            build()
