"""Samplers: with exact fields every one of them has the marginal laws of the path, whatever its noise."""

import math

import pytest
import torch
from registry import interpolants, rng, seeded
from test_oracle import assert_close, draw, rho0, rho1

from cnflib import GaussianMixture, StandardNormal
from cnflib.continuous import CNF
from cnflib.interpolants import (
    Bridge,
    EncodingDecoding,
    Linear,
    Oracle,
    Parabola,
    Trigonometric,
    drop_context,
    guided,
    reflow,
    sample_ode,
    sample_sde,
    score_from_denoiser,
    score_from_velocity,
)
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, dopri5, dopri8, euler, heun, midpoint, rk4

normal = StandardNormal(2)
bend = lambda t, x, context=None: torch.sin(x) + t
pull = lambda t, x, context=None: -x.tanh() - t
methods = pytest.mark.parametrize("method", [heun, euler], ids=["heun", "euler"])
noises = {
    "weak": 0.3,
    "strong": 2.0,
    "falling": lambda t: 2 * (1 - t),
}
settings = {
    "from a normal": Oracle(Linear(), normal, rho1),
    "from a normal, trigonometric": Oracle(Trigonometric(), normal, rho1),
    "between two data sets": Oracle(Linear(Bridge(1.0)), rho0, rho1),
    "between smoothed ends": Oracle(interpolants["trigonometric, constant"], rho0, rho1),
}


def assert_same_law(x, y):
    """Means of several features within four standard errors of each other."""
    features = [
        torch.cat([f(a) for f in (lambda a: a, torch.square, lambda a: (2 * a).sin(), torch.tanh)], 1)
        for a in (x, y)
    ]
    features = [
        torch.cat([f, (a.sum(1) + 0.3).cos()[:, None], a.prod(1, True)], 1) for f, a in zip(features, (x, y))
    ]
    gap = features[0].mean(0) - features[1].mean(0)
    error = sum(f.var(0) / len(f) for f in features).sqrt()
    assert (gap.abs() < 4 * error).all(), (gap / error).tolist()


@pytest.mark.parametrize("eps", noises.values(), ids=noises)
@pytest.mark.parametrize("oracle", settings.values(), ids=settings)
@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
def test_the_marginal_laws_do_not_depend_on_the_noise(oracle, eps, back):
    t0, t1 = (0.9, 0.1) if back else (0.1, 1.0)
    start = oracle.sample(t0, 1000, rng(1)).double()
    end = sample_sde(
        oracle.velocity, oracle.score, start, eps, Fixed(20, heun), generator=rng(2), t0=t0, t1=t1
    )
    assert_same_law(end, oracle.sample(t1, 10_000, rng(3)).double())
    ode = sample_ode(oracle.velocity, start, Fixed(10, heun), t0=t0, t1=t1)
    assert (end - ode).square().mean() > 0.05


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.2, 0.7)], ids=str)
@methods
def test_without_noise_it_is_the_method_of_the_ode_and_the_score_is_not_asked(ends, method):
    t0, t1 = ends
    ode = sample_ode(bend, draw(), Fixed(7, method), t0=t0, t1=t1)
    for eps in (0, 0.0, torch.zeros_like):
        assert_close(sample_sde(bend, _never, draw(), eps, Fixed(7, method), t0=t0, t1=t1), ode, 1e-12)


def test_the_default_of_an_sde_is_a_hundred_steps_of_heun():
    found = sample_sde(bend, pull, draw(), 0.3, generator=rng(2))
    assert torch.equal(found, sample_sde(bend, pull, draw(), 0.3, Fixed(100, heun), generator=rng(2)))


@pytest.mark.parametrize(
    "solver",
    [Adaptive(), Fixed(3), Fixed(3, midpoint), Fixed(3, rk4), Fixed(3, dopri5), Fixed, 50, None],
    ids=repr,
)
def test_methods_that_lose_their_order_with_noise_are_refused(solver):
    with pytest.raises(ValueError, match="Expected solver"):
        sample_sde(bend, pull, draw(), 0.3, solver)


def test_a_projection_is_refused_with_noise():
    with pytest.raises(ValueError, match="Expected solver"):
        sample_sde(bend, pull, draw(), 0.3, Fixed(3, heun, project=lambda t, y: y))


def _never(t, x, context=None):
    raise AssertionError("asked for the score")


def test_where_the_noise_vanishes_the_score_is_not_asked():
    """A denoiser gives no score at t = 0 and t = 1; eps = gamma² does not want any there."""
    path = Linear(Parabola(3.0))
    oracle = Oracle(path, rho0, rho1)
    score = score_from_denoiser(oracle.denoiser, path)
    x0 = rho0.sample(2000, generator=rng(1)).double()
    x1 = sample_sde(oracle.velocity, score, x0, path.gamma2, Fixed(40, heun), generator=rng(2))
    assert_same_law(x1, rho1.sample(50_000, generator=rng(3)).double())
    with pytest.raises(ValueError, match="Expected times t"):
        sample_sde(oracle.velocity, score, x0, 1.0, Fixed(40, heun), generator=rng(2))
    infinite = lambda t, x, context=None: -x / (t * (1 - t))
    compiled = torch.compile(
        lambda x: sample_sde(bend, infinite, x, path.gamma2, Fixed(4, heun)), fullgraph=True, backend="eager"
    )
    assert compiled(x0[:3]).isfinite().all()


@pytest.mark.parametrize(("back", "dtype"), [(False, torch.float32), (True, torch.float64)], ids=str)
def test_encoding_and_decoding_joins_two_data_sets_by_an_sde(dtype, back):
    """The score follows from the velocity, but at the ends, where eps = gamma² is 0 in every precision."""
    path = EncodingDecoding()
    oracle = Oracle(path, rho0, rho1)
    score = score_from_velocity(oracle.velocity, path, gaussian_end=None)
    start, end = (rho1, rho0) if back else (rho0, rho1)
    t0, t1 = (1.0, 0.0) if back else (0.0, 1.0)
    x = start.sample(500, generator=rng(1)).to(dtype)
    x = sample_sde(oracle.velocity, score, x, path.gamma2, Fixed(30, heun), generator=rng(2), t0=t0, t1=t1)
    assert_same_law(x.double(), end.sample(50_000, generator=rng(3)).double())


def test_a_score_by_conversion_serves_up_to_both_ends():
    path = Trigonometric()
    oracle = Oracle(path, normal, rho1)
    by = lambda score: sample_sde(oracle.velocity, score, draw(), 0.5, Fixed(20, heun), generator=rng(2))
    assert_close(by(score_from_velocity(oracle.velocity, path)), by(oracle.score), 1e-8)


def moments(path, eps, solver, monkeypatch, back=False):
    """The exact mean and variance after a solve between Gaussians: x is affine in its start and in every draw."""
    target = GaussianMixture([1.0], [[1.5]], [[[0.25]]])
    oracle, steps = Oracle(path, StandardNormal(1), target), solver.steps
    draws = iter(torch.eye(steps + 2, dtype=torch.float64)[2:])
    monkeypatch.setattr(torch, "randn", lambda *a, **k: next(draws)[:, None])
    start = torch.eye(steps + 2, dtype=torch.float64)[1][:, None]
    t0, t1, mean, std = (1.0, 0.0, 1.5, 0.5) if back else (0.0, 1.0, 0.0, 1.0)
    x = sample_sde(oracle.velocity, oracle.score, mean + std * start, eps, solver, t0=t0, t1=t1)[:, 0]
    monkeypatch.undo()
    end = (0.0, 1.0) if back else (1.5, 0.25)
    return abs(x[0].item() - end[0]), abs((x[1:] - x[0]).square().sum().item() - end[1])


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
@pytest.mark.parametrize("eps", [0.7, lambda t: 1.5 * (1 - t) ** 2 + 0.2 * t], ids=["constant", "varying"])
@pytest.mark.parametrize("path", [Trigonometric(), Linear(Bridge(0.5))], ids=["trigonometric", "bridge"])
@pytest.mark.parametrize(("method", "order"), [(heun, 2), (euler, 1)], ids=["heun", "euler"])
def test_the_weak_order_is_two_with_heun_and_one_with_euler(path, eps, back, method, order, monkeypatch):
    errors = [moments(path, eps, Fixed(steps, method), monkeypatch, back) for steps in (32, 64)]
    for coarse, fine in zip(*errors):
        if coarse > 1e-12:  # a mean on a straight line is carried exactly
            assert fine < 2e-3 * 32 ** (2 - order) and math.log2(coarse / fine) > order - 0.2


def test_one_step_is_that_of_its_formula(monkeypatch):
    x, z = draw(3), draw(3, 1)
    monkeypatch.setattr(torch, "randn", lambda *a, **k: z)
    eps = lambda t: 0.3 + t
    for t0, t1 in ((0.2, 0.7), (0.7, 0.2)):
        h, sign = t1 - t0, 1 if t1 > t0 else -1
        noise = math.sqrt((0.3 + t0 + 0.3 + t1) * abs(h)) * z
        first = bend(t0, x) + sign * (0.3 + t0) * pull(t0, x)
        guess = x + h * first + noise
        second = bend(t1, guess) + sign * (0.3 + t1) * pull(t1, guess)
        found = sample_sde(bend, pull, x, eps, Fixed(1, heun), t0=t0, t1=t1)
        assert_close(found, x + noise + h / 2 * (first + second), 1e-12)
        found = sample_sde(bend, pull, x, eps, Fixed(1, euler), t0=t0, t1=t1)
        assert_close(found, x + h * first + math.sqrt(2 * (0.3 + t0) * abs(h)) * z, 1e-12)


@methods
def test_the_noise_is_drawn_from_the_generator_in_the_dtype_of_the_points(method):
    still, source = lambda t, x: torch.zeros_like(x), rng(3)
    z = sum(torch.randn(5, 2, generator=source, dtype=torch.float64) for _ in range(2))
    found = sample_sde(still, still, draw(), 0.25, Fixed(2, method), generator=rng(3))
    assert_close(found, draw() + 0.5 * z, 1e-14)


def test_samples_carry_no_gradient_and_a_flow_of_the_field_does():
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    scaled, x0 = lambda t, x: weight * bend(t, x), draw(3).requires_grad_()
    samples = [
        sample_ode(scaled, x0, Fixed(3)),
        sample_ode(scaled, x0, Fixed(3, checkpoint=True)),
        sample_ode(scaled, x0, Adaptive(adjoint=True)),
        sample_sde(scaled, scaled, x0, 0.3, Fixed(3, heun)),
        sample_sde(scaled, scaled, x0, 0.3, Fixed(3, euler)),
        *reflow(scaled, x0, Fixed(3)),
    ]
    assert not any(x.requires_grad for x in samples)
    decoded = CNF(scaled, solver=Fixed(3)).decode(x0)
    assert torch.equal(decoded, samples[0])
    assert all(g.any() for g in torch.autograd.grad(decoded.sum(), [weight, x0]))


@pytest.mark.parametrize("shape", [(3,), (1, 2, 2)], ids=str)
def test_samplers_pass_shapes_context_and_dtypes_through(shape):
    x = torch.randn(4, *shape, generator=rng())
    context = torch.arange(4.0)[:, None]
    seen = []

    def spy(t, x, c):
        assert t.shape == () and t.dtype == x.dtype and torch.equal(c, context.to(x))
        seen.append(t.item())
        return c.reshape(-1, *[1] * len(shape)) * x

    for dtype in (torch.float32, torch.float64):
        out = sample_sde(spy, spy, x.to(dtype), 0.1, Fixed(3, heun), context.to(dtype), rng())
        assert out.shape == x.shape and out.dtype == dtype
        back = sample_ode(spy, x.to(dtype), Fixed(3), context.to(dtype), t0=1.0, t1=0.25)
        assert_close(back, torch.exp(-0.75 * context.reshape(-1, *[1] * len(shape)).to(dtype)) * x, 5e-2)
    assert min(seen) == 0 and max(seen) == 1
    draws = [sample_sde(spy, spy, x, 0.1, Fixed(3, euler), context, rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_the_flow_runs_between_any_two_times_and_back():
    solver = Adaptive(dopri8, rtol=1e-9, atol=1e-9)
    there = sample_ode(bend, draw(), solver, t0=0.2, t1=0.6)
    whole = sample_ode(bend, sample_ode(bend, there, solver, t0=0.6, t1=1.0), solver, t0=1.0, t1=0.0)
    assert_close(sample_ode(bend, there, solver, t0=0.6, t1=0.2), draw(), 1e-7)
    assert_close(sample_ode(bend, whole, solver, t0=0.0, t1=0.2), draw(), 1e-7)
    assert torch.equal(sample_ode(bend, draw(), solver, t0=0.6, t1=0.6), draw())


@methods
def test_an_sde_compiles_into_one_graph(method):
    torch._dynamo.reset()
    sample = lambda x: sample_sde(bend, pull, x, lambda t: t, Fixed(4, method))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eager = sample(draw())
        torch.manual_seed(0)
        assert_close(torch.compile(sample, fullgraph=True, backend="eager")(draw()), eager)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_point_at_all_gives_none_whatever_the_context(rows):
    x, context = torch.zeros(0, 2), torch.zeros(rows, 3)
    pull_by = lambda t, x, context: -x * context[:, :1]
    assert sample_ode(pull_by, x, Fixed(2), context).shape == (0, 2)
    assert sample_sde(pull_by, pull_by, x, 0.1, Fixed(2, euler), context, rng()).shape == (0, 2)


def test_samplers_take_fields_of_two_arguments_and_labels_as_context():
    two, labels = lambda t, x: torch.sin(x) + t, torch.arange(5) % 2

    def three(t, x, context):
        assert context is None or context.dtype == torch.long
        return torch.sin(x) + t + (0 if context is None else context[:, None])

    for run in (
        lambda f, c=None: sample_ode(f, draw(), Fixed(3), c),
        lambda f, c=None: sample_sde(f, f, draw(), 0.2, Fixed(3, heun), c, rng()),
        lambda f, c=None: reflow(f, draw(), Fixed(3), c)[1],
    ):
        assert torch.equal(run(two), run(bend)) and torch.equal(run(two), run(three))
        assert not torch.equal(run(three, labels), run(three))
        with pytest.raises(ValueError, match="Expected no context"):
            run(two, labels)


def test_guidance_is_a_mixture_of_two_fields():
    f = lambda t, x, c: c * x + t
    x, c, t = draw(), draw(5, 4), torch.tensor(0.3, dtype=torch.float64)
    for weight in (-1.0, 0.0, 2.5):
        assert_close(guided(f, weight)(t, x, c), (1 + weight) * (c * x + t) - weight * t * torch.ones_like(x))
    assert torch.equal(guided(f, 0.0)(t, x, c), f(t, x, c))
    assert_close(sample_ode(guided(lambda t, x, c: c, 1.0), x, Fixed(1), c), x + 2 * c)


def test_guidance_of_the_exact_scores_sharpens_the_class():
    """For two Gaussian classes of one variance the guided score of p(x) p(c|x)^(1+w) is that of the guided field."""
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    both = Oracle(
        Linear(), StandardNormal(1), GaussianMixture([0.5, 0.5], means[:, None], 0.2 * torch.ones(2, 1, 1))
    )
    one = [
        Oracle(Linear(), StandardNormal(1), GaussianMixture([1.0], [[m.item()]], [[[0.2]]])) for m in means
    ]

    def field(t, x, c):
        given = torch.where(c[:, 1:] > 0, one[1].score(t, x), one[0].score(t, x))
        return torch.where(c.any(1, keepdim=True), given, both.score(t, x))

    x, c = draw()[:, :1], torch.eye(2).double()[torch.tensor([0, 1, 1, 0, 1])]
    weighed = lambda x: both.log_prob(0.5, x) + 4 * (one[1].log_prob(0.5, x) - both.log_prob(0.5, x))
    score = torch.func.grad(lambda x: weighed(x).sum())(x)
    assert_close(guided(field, 3.0)(0.5, x, c)[c[:, 1] > 0], score[c[:, 1] > 0])


def test_guidance_holds_the_field_and_passes_the_gradients_of_both_terms():
    with seeded():
        net = MLP(2, (4,), context=3).double()
    field, weights = guided(net, 2.0), list(net.parameters())
    assert list(field.parameters()) == weights
    t, x, c = torch.tensor(0.3, dtype=torch.float64), draw(), draw(5, 3)[:, :1].expand(5, 3)
    total = 3 * net(t, x, c) - 2 * net(t, x, torch.zeros_like(c))
    found, wanted = (torch.autograd.grad(f.sum(), weights) for f in (field(t, x, c), total))
    for a, b in zip(found, wanted):
        assert_close(a, b)


def test_dropping_at_probability_zero_spares_even_the_smallest_random_number(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, **kw: torch.zeros(n))
    assert drop_context(torch.ones(3, 2), 0.0).all() and not drop_context(torch.ones(3, 2), 1e-3).any()


def test_a_context_of_more_axes_is_dropped_by_whole_rows():
    kept = drop_context(torch.ones(8, 8, 2), 0.5, rng()).flatten(1).mean(1)
    assert sorted(set(kept.tolist())) == [0, 1]


def test_dropped_rows_are_zero_and_as_many_as_asked():
    context = torch.randn(20_000, 3, generator=rng()) + 5
    dropped = drop_context(context, 0.2, rng(1))
    gone = (dropped == 0).all(1)
    assert torch.equal(dropped[~gone], context[~gone])
    assert abs(gone.double().mean() - 0.2) < 4 * (0.16 / 20_000) ** 0.5
    assert torch.equal(drop_context(context, 0.0), context) and not drop_context(context, 1.0).any()
    assert torch.equal(drop_context(context, 0.2, rng(1)), dropped)


@pytest.mark.parametrize("t1", [0.0, 1.0])
def test_sampling_by_an_ode_compiles_whole(t1):
    torch._dynamo.reset()
    run = lambda x: sample_ode(bend, x, Fixed(3), t0=0.5, t1=t1)
    assert_close(torch.compile(run, fullgraph=True, backend="eager")(draw()), run(draw()), 1e-12)


def test_dropped_is_zero_whatever_was_there():
    assert drop_context(torch.tensor([[math.nan, math.inf]]), 1.0).tolist() == [[0.0, 0.0]]


def test_reflow_costs_less_and_is_straight():
    n, path = 20_000, Linear()
    oracle = Oracle(path, normal, rho1)
    x0, x1 = (
        torch.randn(n, 2, generator=rng(), dtype=torch.float64),
        rho1.sample(n, generator=rng(1)).double(),
    )
    z0, z1 = reflow(oracle.velocity, x0, Fixed(20))
    assert torch.equal(z0, x0) and not z1.requires_grad
    assert not reflow(bend, draw(3).requires_grad_(), Fixed(1))[0].requires_grad
    assert_same_law(z1, x1)
    for cost in (lambda d: d.square().sum(1), lambda d: d.norm(dim=1), lambda d: (d / 2).pow(4).sum(1)):
        assert cost(z1 - z0).mean() < cost(x1 - x0).mean() - 4 * cost(x1 - x0).std() / n**0.5
    weight = torch.ones((), requires_grad=True)
    assert not reflow(lambda t, x, c: weight * x, x0.float(), Fixed(1))[1].requires_grad


def test_reflow_takes_solver_and_context():
    field, c = lambda t, x, c: c * x, draw(5, 4)
    z1 = reflow(field, draw(), Fixed(1, heun), c)[1]
    assert_close(z1, (1 + c + c**2 / 2) * draw())


def test_reflowed_pairs_of_gaussians_have_straight_paths():
    """The rate is then a function of the point on the way: least squares leaves nothing of it."""
    target = GaussianMixture([1.0], [[1.0, -1.0]], [[[0.5, 0.3], [0.3, 0.8]]])
    oracle = Oracle(Linear(), normal, target)
    x0, x1 = (
        torch.randn(500, 2, generator=rng(), dtype=torch.float64),
        target.sample(500, generator=rng(1)).double(),
    )

    def left(x0, x1, t=0.4):
        design = torch.cat([Linear()(t, x0, x1), torch.ones(500, 1).double()], 1)
        solution = torch.linalg.lstsq(design, x1 - x0).solution
        return (x1 - x0 - design @ solution).square().mean() / (x1 - x0).square().mean()

    assert left(*reflow(oracle.velocity, x0, Fixed(40))) < 1e-10 and left(x0, x1) > 0.3
