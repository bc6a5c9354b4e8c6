"""Samplers: with exact fields every one of them has the marginal laws of the path, whatever its noise."""

import math

import pytest
import torch
from registry import interpolants, rng, seeded
from test_oracle import assert_close, draw, rho0, rho1

from cnflib import StandardNormal
from cnflib.continuous import adaptive, fixed, heun
from cnflib.data.mixture import GaussianMixture
from cnflib.interpolants import (
    Oracle,
    bridge,
    drop_context,
    encoding_decoding,
    guided,
    linear,
    parabola,
    reflow,
    sample_ode,
    sample_sde,
    score_from_denoiser,
    score_from_velocity,
    trigonometric,
    zero,
)
from cnflib.nets import MLP

normal = StandardNormal(2)
bend = lambda t, x, context=None: torch.sin(x) + t
pull = lambda t, x, context=None: -x.tanh() - t
noises = {
    "weak": 0.3,
    "strong": 2.0,
    "falling": lambda t: 2 * (1 - t),
}
settings = {
    "from a normal": Oracle(linear(), normal, rho1),
    "from a normal, trigonometric": Oracle(trigonometric(), normal, rho1),
    "between two data sets": Oracle(linear(bridge(1.0)), rho0, rho1),
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
    start = oracle.sample(t0, 2000, rng(1), torch.float64)
    end = sample_sde(oracle.velocity, oracle.score, start, eps, 30, rng(2), t0=t0, t1=t1)
    assert_same_law(end, oracle.sample(t1, 50_000, rng(3), torch.float64))
    ode = sample_ode(oracle.velocity, start, fixed(10, heun), t0=t0, t1=t1)
    assert (end - ode).square().mean() > 0.05


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.2, 0.7)], ids=str)
def test_without_noise_it_is_heun_and_the_score_is_not_asked(ends):
    t0, t1 = ends
    ode = sample_ode(bend, draw(), fixed(7, heun), t0=t0, t1=t1)
    for eps in (0, 0.0, zero):
        assert_close(sample_sde(bend, _never, draw(), eps, 7, t0=t0, t1=t1), ode, 1e-12)


def _never(t, x, context=None):
    raise AssertionError("asked for the score")


def test_where_the_noise_vanishes_the_score_is_not_asked():
    """A denoiser gives no score at t = 0 and t = 1; eps = gamma² does not want any there."""
    path = linear(parabola(3.0))
    oracle = Oracle(path, rho0, rho1)
    score = score_from_denoiser(path, oracle.denoiser)
    x0 = rho0.sample(2000, rng(1), torch.float64)
    x1 = sample_sde(oracle.velocity, score, x0, path.gamma2, 40, rng(2))
    assert_same_law(x1, rho1.sample(50_000, rng(3), torch.float64))
    with pytest.raises(ValueError, match="gamma > 0; got gamma = 0 at t = 0"):
        sample_sde(oracle.velocity, score, x0, 1.0, 40, rng(2))
    infinite = lambda t, x, context=None: -x / (t * (1 - t))
    compiled = torch.compile(
        lambda x: sample_sde(bend, infinite, x, path.gamma2, 4), fullgraph=True, backend="eager"
    )
    assert compiled(x0[:3]).isfinite().all()


@pytest.mark.parametrize(("back", "dtype"), [(False, torch.float32), (True, torch.float64)], ids=str)
def test_encoding_and_decoding_joins_two_data_sets_by_an_sde(dtype, back):
    """The score follows from the velocity, but at the ends, where eps = gamma² is 0 in every precision."""
    path = encoding_decoding()
    oracle = Oracle(path, rho0, rho1)
    score = score_from_velocity(path, oracle.velocity, gaussian_end=None)
    start, end = (rho1, rho0) if back else (rho0, rho1)
    t0, t1 = (1.0, 0.0) if back else (0.0, 1.0)
    x = start.sample(1000, rng(1), dtype)
    x = sample_sde(oracle.velocity, score, x, path.gamma2, 60, rng(2), t0=t0, t1=t1)
    assert_same_law(x.double(), end.sample(50_000, rng(3), torch.float64))


def test_a_score_by_conversion_serves_up_to_both_ends():
    path = trigonometric()
    oracle = Oracle(path, normal, rho1)
    x1 = sample_sde(oracle.velocity, score_from_velocity(path, oracle.velocity), draw(), 0.5, 20, rng(2))
    assert_close(x1, sample_sde(oracle.velocity, oracle.score, draw(), 0.5, 20, rng(2)), 1e-8)


def moments(path, eps, steps, monkeypatch, back=False):
    """The exact mean and variance after a solve between Gaussians: x is affine in its start and in every draw."""
    target = GaussianMixture([1.0], [[1.5]], [[[0.25]]])
    oracle = Oracle(path, StandardNormal(1), target)
    draws = iter(torch.eye(steps + 2, dtype=torch.float64)[2:])
    monkeypatch.setattr(torch, "randn", lambda *a, **k: next(draws)[:, None])
    start = torch.eye(steps + 2, dtype=torch.float64)[1][:, None]
    t0, t1, mean, std = (1.0, 0.0, 1.5, 0.5) if back else (0.0, 1.0, 0.0, 1.0)
    x = sample_sde(oracle.velocity, oracle.score, mean + std * start, eps, steps, t0=t0, t1=t1)[:, 0]
    monkeypatch.undo()
    end = (0.0, 1.0) if back else (1.5, 0.25)
    return abs(x[0].item() - end[0]), abs((x[1:] - x[0]).square().sum().item() - end[1])


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
@pytest.mark.parametrize("eps", [0.7, lambda t: 1.5 * (1 - t) ** 2 + 0.2 * t], ids=["constant", "varying"])
@pytest.mark.parametrize("path", [trigonometric(), linear(bridge(0.5))], ids=["trigonometric", "bridge"])
def test_the_weak_order_is_two(path, eps, back, monkeypatch):
    errors = [moments(path, eps, steps, monkeypatch, back) for steps in (32, 64)]
    for coarse, fine in zip(*errors):
        if coarse > 1e-12:  # a mean on a straight line is carried exactly
            assert fine < 2e-3 and math.log2(coarse / fine) > 1.8


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
        assert_close(
            sample_sde(bend, pull, x, eps, 1, t0=t0, t1=t1), x + noise + h / 2 * (first + second), 1e-12
        )


def test_the_noise_is_drawn_from_the_generator_in_the_dtype_of_the_points():
    still, source = lambda t, x, context: torch.zeros_like(x), rng(3)
    z = sum(torch.randn(5, 2, generator=source, dtype=torch.float64) for _ in range(2))
    assert_close(sample_sde(still, still, draw(), 0.25, 2, rng(3)), draw() + 0.5 * z, 1e-14)


def test_gradients_reach_start_velocity_and_score_through_every_step():
    """Against differences: a gradient of the last step alone is not 0 either."""

    def end(x, a, b):
        return sample_sde(lambda t, x, c: a * bend(t, x), lambda t, x, c: b * pull(t, x), x, 0.3, 3, rng())

    parts = [draw(3), torch.tensor(0.7, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64)]
    assert torch.autograd.gradcheck(end, [a.requires_grad_() for a in parts])


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
        out = sample_sde(spy, spy, x.to(dtype), 0.1, 3, rng(), context.to(dtype))
        assert out.shape == x.shape and out.dtype == dtype
        back = sample_ode(spy, x.to(dtype), fixed(3), context.to(dtype), t0=1.0, t1=0.25)
        assert_close(back, torch.exp(-0.75 * context.reshape(-1, *[1] * len(shape)).to(dtype)) * x, 5e-2)
    assert min(seen) == 0 and max(seen) == 1
    draws = [sample_sde(spy, spy, x, 0.1, 3, rng(seed), context) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_the_flow_runs_between_any_two_times_and_back():
    solver = adaptive("dopri8", rtol=1e-9, atol=1e-9)
    there = sample_ode(bend, draw(), solver, t0=0.2, t1=0.6)
    whole = sample_ode(bend, sample_ode(bend, there, solver, t0=0.6, t1=1.0), solver, t0=1.0, t1=0.0)
    assert_close(sample_ode(bend, there, solver, t0=0.6, t1=0.2), draw(), 1e-7)
    assert_close(sample_ode(bend, whole, solver, t0=0.0, t1=0.2), draw(), 1e-7)
    assert torch.equal(sample_ode(bend, draw(), solver, t0=0.6, t1=0.6), draw())


def test_an_sde_compiles_into_one_graph_and_passes_gradients():
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    sample = lambda x: sample_sde(lambda t, x, c: weight * bend(t, x), pull, x, lambda t: t, 4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eager = sample(draw())
        torch.manual_seed(0)
        assert_close(torch.compile(sample, fullgraph=True, backend="eager")(draw()), eager)
    eager.sum().backward()
    assert weight.grad != 0


def test_guidance_is_a_mixture_of_two_fields():
    f = lambda t, x, c: c * x + t
    x, c, t = draw(), draw(5, 4), torch.tensor(0.3, dtype=torch.float64)
    for weight in (-1.0, 0.0, 2.5):
        assert_close(guided(f, weight)(t, x, c), (1 + weight) * (c * x + t) - weight * t * torch.ones_like(x))
    assert torch.equal(guided(f, 0.0)(t, x, c), f(t, x, c))
    assert_close(sample_ode(guided(lambda t, x, c: c, 1.0), x, fixed(1), c), x + 2 * c)


def test_guidance_of_the_exact_scores_sharpens_the_class():
    """For two Gaussian classes of one variance the guided score of p(x) p(c|x)^(1+w) is that of the guided field."""
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    both = Oracle(
        linear(), StandardNormal(1), GaussianMixture([0.5, 0.5], means[:, None], 0.2 * torch.ones(2, 1, 1))
    )
    one = [
        Oracle(linear(), StandardNormal(1), GaussianMixture([1.0], [[m.item()]], [[[0.2]]])) for m in means
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
    run = lambda x: sample_ode(bend, x, fixed(3), t0=0.5, t1=t1)
    assert_close(torch.compile(run, fullgraph=True, backend="eager")(draw()), run(draw()), 1e-12)


def test_dropped_is_zero_whatever_was_there():
    assert drop_context(torch.tensor([[math.nan, math.inf]]), 1.0).tolist() == [[0.0, 0.0]]


def test_reflow_costs_less_and_is_straight():
    n, path = 20_000, linear()
    oracle = Oracle(path, normal, rho1)
    x0, x1 = torch.randn(n, 2, generator=rng(), dtype=torch.float64), rho1.sample(n, rng(1), torch.float64)
    z0, z1 = reflow(oracle.velocity, x0, fixed(20))
    assert torch.equal(z0, x0) and not z1.requires_grad
    assert not reflow(bend, draw(3).requires_grad_(), fixed(1))[0].requires_grad
    assert_same_law(z1, x1)
    for cost in (lambda d: d.square().sum(1), lambda d: d.norm(dim=1), lambda d: (d / 2).pow(4).sum(1)):
        assert cost(z1 - z0).mean() < cost(x1 - x0).mean() - 4 * cost(x1 - x0).std() / n**0.5
    weight = torch.ones((), requires_grad=True)
    assert not reflow(lambda t, x, c: weight * x, x0.float(), fixed(1))[1].requires_grad


def test_reflow_takes_solver_and_context():
    field, c = lambda t, x, c: c * x, draw(5, 4)
    z1 = reflow(field, draw(), fixed(1, heun), c)[1]
    assert_close(z1, (1 + c + c**2 / 2) * draw())


def test_reflowed_pairs_of_gaussians_have_straight_paths():
    """The rate is then a function of the point on the way: least squares leaves nothing of it."""
    target = GaussianMixture([1.0], [[1.0, -1.0]], [[[0.5, 0.3], [0.3, 0.8]]])
    oracle = Oracle(linear(), normal, target)
    x0, x1 = (
        torch.randn(500, 2, generator=rng(), dtype=torch.float64),
        target.sample(500, rng(1), torch.float64),
    )

    def left(x0, x1, t=0.4):
        design = torch.cat([linear()(t, x0, x1), torch.ones(500, 1).double()], 1)
        solution = torch.linalg.lstsq(design, x1 - x0).solution
        return (x1 - x0 - design @ solution).square().mean() / (x1 - x0).square().mean()

    assert left(*reflow(oracle.velocity, x0, fixed(40))) < 1e-10 and left(x0, x1) > 0.3
