"""Velocity, score and denoiser of one another, against their closed forms, and where they do not hold."""

import copy
import pickle
from itertools import product

import pytest
import torch
from registry import interpolants, rng
from test_oracle import assert_close, draw, rho0, rho1
from torch import nn

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF
from cnflib.interpolants import (
    Bridge,
    Constant,
    EncodingDecoding,
    IndependentPairing,
    LearnableInterpolant,
    Linear,
    Mirror,
    OptimalTransport,
    Oracle,
    Paired,
    Parabola,
    SineSquared,
    Trigonometric,
    VariancePreserving,
    denoiser_from_score,
    denoiser_loss,
    drop_context,
    guided,
    sample_sde,
    score_from_denoiser,
    score_from_velocity,
    score_loss,
    velocity_from_score,
    velocity_loss,
    velocity_objective,
)
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, heun

normal = StandardNormal(2)
apart = [name for name in interpolants if "mirror" in name or "decoding" in name]
cases = {
    **{f"{name}, x0 normal": (name, 0, (normal, rho1)) for name in interpolants if "mirror" not in name},
    **{f"{name}, x1 normal": (name, 1, (rho1, normal)) for name in interpolants},
    **{f"{name}, x0 absent": (name, 0, (rho1, rho1)) for name in interpolants if "mirror" in name},
    **{f"{name}, none normal": (name, None, (rho1 if "mirror" in name else rho0, rho1)) for name in apart},
}
every = pytest.mark.parametrize("case", cases)
near = [0.0, 0.01, 0.2, 0.49, 0.5, 0.5 + 1e-3, 0.8, 0.99, 1.0]
unfixed = {  # times at which the velocity says nothing of the score
    "mirror, sine, x0 absent": (0.0, 1.0),
    "mirror, sine, none normal": (0.0, 1.0),
    "mirror, constant, x0 absent": near,
    "mirror, constant, none normal": near,
    "encoding-decoding, x0 normal": (1.0,),
    "encoding-decoding, x1 normal": (0.0,),
    "encoding-decoding, none normal": (0.0, 1.0),
    "one-sided, x1 normal": (0.0,),
    "variance-preserving, x0 normal": (1.0,),
    "variance-preserving, x1 normal": (0.0,),
    "variance-preserving, of a diffusion, x0 normal": (1.0,),
    "variance-preserving, of a diffusion, x1 normal": (1.0,),
}


def exact(case):
    name, end, ends = cases[case]
    return interpolants[name], end, Oracle(interpolants[name], *ends)


@every
def test_score_follows_from_velocity_where_it_does(case):
    interpolant, end, oracle = exact(case)
    score, x = score_from_velocity(oracle.velocity, interpolant, gaussian_end=end), draw()
    lost = unfixed.get(case, ())
    for t in {*lost, 0.0, 0.49, 1.0}:
        if t in lost:
            with pytest.raises(ValueError, match="Expected times t"):
                score(t, x)
        else:
            assert_close(score(t, x), oracle.score(t, x), 1e-9)
    times = torch.tensor([t for t in near if t not in lost] or [0.3], dtype=torch.float64)
    if set(lost) != set(near):
        y = draw(len(times))
        assert_close(score(times, y), oracle.score(times, y), 1e-9)


@every
def test_velocity_follows_from_score(case):
    interpolant, end, oracle = exact(case)
    velocity, x = velocity_from_score(oracle.score, interpolant, gaussian_end=end), draw()
    times = torch.tensor(near[:-1] if "of a diffusion" in case else near, dtype=torch.float64)
    for t in times[::4]:
        assert_close(velocity(t, x), oracle.velocity(t, x), 1e-9)
    y = draw(len(times))
    assert_close(velocity(times, y), oracle.velocity(times, y), 1e-9)


@pytest.mark.parametrize("name", [name for name, path in interpolants.items() if path.gamma2 is not None])
def test_denoiser_and_score_are_the_same_thing(name):
    interpolant, oracle, x = interpolants[name], Oracle(interpolants[name], rho0, rho1), draw()
    denoiser = denoiser_from_score(oracle.score, interpolant)
    score = score_from_denoiser(oracle.denoiser, interpolant)
    for t in (0.01, 0.3, torch.linspace(0.1, 0.9, 5, dtype=torch.float64)):
        assert_close(denoiser(t, x), oracle.denoiser(t, x))
        assert_close(score(t, x), oracle.score(t, x), 1e-9)
    assert_close(denoiser(0.0, x), oracle.denoiser(0.0, x), 1e-9)
    if "constant" not in name:
        with pytest.raises(ValueError, match="Expected times t"):
            score(torch.linspace(0, 1, 5, dtype=torch.float64), x)


@pytest.mark.parametrize(
    ("convert", "power"), [(denoiser_from_score, 1), (score_from_denoiser, -1)], ids=["denoiser", "score"]
)
def test_denoiser_and_score_pass_images_context_and_parameters_through(convert, power):
    torch._dynamo.reset()  # all compile one line of the library
    net, context = nn.Linear(3, 1).double(), torch.randn(4, 3, generator=rng(1), dtype=torch.float64)
    x, t = torch.randn(4, 1, 2, 2, generator=rng(), dtype=torch.float64), torch.linspace(0.1, 0.7, 4).double()
    field = convert(Held(net), Linear(Bridge()))
    assert list(field.parameters()) == list(net.parameters())
    wanted = -((t * (1 - t)) ** (power / 2)).reshape(4, 1, 1, 1) * Held(net)(t, x, context)
    assert_close(field(t, x, context), wanted)
    assert_close(torch.compile(field, fullgraph=True, backend="eager")(t, x, context), wanted)
    gradients = [torch.autograd.grad(f.sum(), net.weight)[0] for f in (field(t, x, context), wanted)]
    assert_close(*gradients)


def test_a_noise_that_vanishes_up_to_rounding_gives_no_score():
    path = Linear(lambda t: torch.sin(torch.pi * t) ** 2)
    assert path.gamma2(torch.ones((), dtype=torch.float64)) > 0
    with pytest.raises(ValueError, match="Expected times t"):
        score_from_denoiser(lambda t, x: x, path)(1.0, draw())


@pytest.mark.parametrize("distance", [1e-10, 1e-8, 1e-6, 1e-4])
def test_no_digits_are_lost_on_the_way_to_a_limit(distance):
    oracle, x = Oracle(Trigonometric(Parabola()), normal, rho1), draw()
    for path in (Linear(), Trigonometric(Parabola()), Linear(Bridge())):
        oracle = Oracle(path, normal, rho1)
        score, velocity = score_from_velocity(oracle.velocity, path), velocity_from_score(oracle.score, path)
        assert_close(score(1 - distance, x), oracle.score(1 - distance, x), 1e-7)
        assert_close(velocity(distance, x), oracle.velocity(distance, x), 1e-7)
        single = score_from_velocity(oracle.velocity, path)(1 - distance, x.float())
        assert_close(single.double(), oracle.score(1 - distance, x), 2e-2)


def test_the_sign_is_that_of_the_closed_form_of_the_trigonometric_path():
    oracle, x = Oracle(Trigonometric(), normal, rho1), draw()
    score = score_from_velocity(oracle.velocity, Trigonometric())
    for t in (0.1, 0.5, 0.9):
        tangent = torch.tan(torch.tensor(torch.pi * t / 2, dtype=torch.float64))
        assert_close(score(t, x), -x + 2 / torch.pi * tangent * oracle.velocity(t, x))
    one = torch.ones((), dtype=torch.float64)
    rate = torch.func.jvp(lambda t: oracle.velocity(t, x), (one,), (one,))[1]
    assert_close(score(1.0, x), -x - 4 / torch.pi**2 * rate)


def test_a_dependent_pairing_breaks_the_conversion_and_is_refused():
    """N(0, 1) to N(0, 4) by x1 = 2 x0: x_t = (1 + t) x0, so b = x / (1 + t) and s = -x / (1 + t)²."""
    velocity = lambda t, x: x / (1 + t)
    false = score_from_velocity(velocity, Linear())(0.5, torch.ones(1, 1).double())
    assert_close(false, torch.tensor([[-4 / 3]], dtype=torch.float64))
    assert abs(false.item() + 1 / 1.5**2) > 0.8
    refused = {"doubled": doubled, "OptimalTransport": OptimalTransport(), "Paired": Paired()}
    for (name, pairing), convert in product(refused.items(), (score_from_velocity, velocity_from_score)):
        with pytest.raises(
            ValueError, match=f"(?s)Expected an independent pairing.*got .*{name}.*score_loss"
        ):
            convert(velocity, Linear(), pairing=pairing)


def doubled(x0, x1, context=None, generator=None):
    return x0, 2 * x0


def test_a_pairing_that_says_it_is_independent_is_accepted():
    def shuffled(x0, x1, context=None, generator=None):
        return x0, x1[torch.randperm(len(x1), generator=generator)]

    shuffled.independent = True
    field, x, half = lambda t, x: 3 * x, draw(), 0.5
    for pairing in (IndependentPairing(), shuffled, None):
        score = score_from_velocity(field, Linear(), pairing=pairing)
        assert_close(score(half, x), (half * 3 - 1) * x / half)
    apart = score_from_velocity(field, Mirror(), gaussian_end=None, pairing=doubled)
    assert_close(apart(0.25, x), -3 * x / 0.25)  # s = -b / (γ γ'), and γ γ' = (1 - 2t) / 2


def test_the_half_time_of_encoding_decoding_is_standard_normal():
    score = score_from_velocity(lambda t, x: t * x, EncodingDecoding(), gaussian_end=None)
    assert_close(score(0.5, draw()), -draw(), 1e-12)


def test_images_context_and_parameters_pass_through():
    """A conversion is a module that holds the field, so that an adjoint solve reaches its weights."""
    net = nn.Linear(3, 1).double()
    field = Held(net)
    x, context = torch.randn(4, 1, 2, 2, generator=rng(), dtype=torch.float64), torch.ones(4, 3).double()
    score = score_from_velocity(field, Linear())
    half = (0.5 * (net(context)[:, :, None, None] * x) - x) / 0.5
    assert_close(score(0.5, x, context), half)
    assert list(score.parameters()) == list(net.parameters())
    end = velocity_from_score(field, Linear())
    flow = CNF(end, solver=Adaptive(rtol=1e-3, atol=1e-3, adjoint=True))
    flow.decode(x, context).sum().backward()
    assert net.weight.grad.any()


class Held(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, x, context=None):
        return self.net(context)[:, :, None, None] * x


def test_conversions_compile_and_transform():
    torch._dynamo.reset()
    oracle, x = Oracle(Trigonometric(), normal, rho1), draw()
    score = score_from_velocity(lambda t, x: (1 + t) * x.sin(), Trigonometric())
    compiled = torch.compile(score, fullgraph=True, backend="eager")
    velocity = torch.compile(velocity_from_score(oracle.score, Linear()), backend="eager")
    for t in (0.3, 1.0):
        t = torch.tensor(t, dtype=torch.float64)
        assert_close(compiled(t, x), score(t, x))
        assert velocity(t, x).isfinite().all()
    exact = score_from_velocity(oracle.velocity, Trigonometric())
    times = torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
    each = torch.func.vmap(lambda t: exact(t, x))(times)
    assert_close(each, torch.stack([oracle.score(t, x) for t in times]), 1e-9)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: exact(0.7, y[None])[0]))(x)
    assert_close(jacobian, jacobian.mT, 1e-9)


def test_an_sde_with_a_converted_score_compiles():
    """Its times are views, which forward mode in a compiled function does not take."""
    torch._dynamo.reset()
    v = lambda t, x, c=None: (1 + t) * x.sin()
    for s in (score_from_velocity(v, Linear()), velocity_from_score(v, Linear())):
        run = lambda x, s=s: sample_sde(v, s, x, lambda t: 1 - t, Fixed(1, heun), t0=0.2)
        compiled = torch.compile(run, fullgraph=True, backend="eager")
        torch.manual_seed(0)
        wanted = run(draw())
        torch.manual_seed(0)
        assert_close(compiled(draw()), wanted)


def test_a_velocity_is_refused_where_a_schedule_has_no_rate():
    velocity = velocity_from_score(lambda t, x: -x, VariancePreserving(torch.asin))
    with pytest.raises(ValueError, match="Expected times t"):
        velocity(1.0, draw())
    assert velocity(0.99, draw()).isfinite().all()


def test_the_score_of_a_path_at_rest_serves_a_diffusion_that_vanishes_there():
    path = VariancePreserving()
    score = score_from_velocity(lambda t, x: x * (t + 1), path)
    for dtype in (torch.float32, torch.float64):
        eps, solver = lambda t: path.alpha(t) ** 2, Fixed(20, heun)
        x = sample_sde(lambda t, x: -x, score, draw().to(dtype), eps, solver, generator=rng())
        assert x.isfinite().all()


@pytest.mark.parametrize("steps", [1000, 4000])
def test_a_small_noise_is_no_missing_noise_in_single_precision(steps):
    path = Linear(SineSquared())
    score, t = score_from_denoiser(lambda t, x: x, path), torch.tensor(1 / steps)
    assert_close(score(t, draw().float()), -draw().float() / path.gamma2(t).sqrt(), 1e-2)
    faint = score_from_denoiser(lambda t, x: x, Linear(Constant(1e-6)))
    assert faint(0.5, draw().float()).isfinite().all()


def test_conversions_can_be_pickled_and_copied_with_a_learned_path():
    path = LearnableInterpolant(order=2)
    net = MLP(2)
    held = nn.ModuleList([path, velocity_from_score(net, path.interpolant), guided(net, 1.0)])
    copied, loaded = copy.deepcopy(held), pickle.loads(pickle.dumps(held))
    with torch.no_grad():
        path.alpha.coefficients += 0.1
    for other in (copied, loaded):
        other[0].load_state_dict(path.state_dict())
        x = torch.randn(3, 2, generator=rng())
        torch.testing.assert_close(other[1](0.3, x), held[1](0.3, x))


def learned(loss, path, start, steps=500):
    """A small net after so many steps on a loss."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MLP(2, hidden=(48, 48))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-2, total_steps=steps)
    source = rng(1)
    for _ in range(steps):
        x0, x1 = start.sample(512, generator=source), rho1.sample(512, generator=source)
        optimiser.zero_grad()
        loss(net, path, x0, x1, generator=source).mean().backward()
        optimiser.step()
        schedule.step()
    return net


def test_what_is_learned_is_what_is_known():
    """A velocity, the score that follows from it and its likelihood, against the closed forms."""
    net, source = learned(velocity_loss, Linear(), normal), rng(2)
    oracle, score = Oracle(Linear(), normal, rho1), score_from_velocity(net, Linear())
    with torch.no_grad():
        for t in (0.1, 0.5, 0.9):
            x = oracle.sample(t, 4000, source)
            assert _error(net(torch.tensor(t), x), oracle.velocity(t, x)) < 0.02
            if t < 0.9:  # the error of the velocity comes in times t / (1 - t), squared
                assert _error(score(t, x), oracle.score(t, x)) < 0.02
        x = rho1.sample(4000, generator=source)
        gap = rho1.log_prob(x) - Flow(CNF(net, solver=Adaptive(rtol=1e-4, atol=1e-4)), normal).log_prob(x)
        assert -4 * gap.std() / 4000**0.5 < gap.mean() < 0.06 and gap.abs().mean() < 0.3


@pytest.mark.parametrize(
    ("loss", "known", "steps", "error"),
    [
        (velocity_objective, "velocity", 500, 0.02),
        (score_loss, "score", 1000, 0.08),
        (denoiser_loss, "denoiser", 500, 0.08),
    ],
)
def test_each_loss_between_two_mixtures_learns_what_it_names(loss, known, steps, error):
    """With the noise of a bridge, of which velocity and score have no bound at the ends."""
    net, source = learned(loss, Linear(Bridge()), rho0, steps), rng(2)
    oracle = Oracle(Linear(Bridge()), rho0, rho1)
    with torch.no_grad():
        for t in (0.2, 0.5, 0.8):
            x = oracle.sample(t, 4000, source)
            assert _error(net(torch.tensor(t), x), getattr(oracle, known)(t, x)) < error


def _error(a, b):
    """The mean squared error in parts of the mean square."""
    return ((a - b).square().mean() / b.square().mean()).item()


conversions = {
    "score_from_velocity": score_from_velocity,
    "velocity_from_score": velocity_from_score,
    "denoiser_from_score": denoiser_from_score,
    "score_from_denoiser": score_from_denoiser,
    "guided": lambda field, path: guided(field, 1.5),
}


@pytest.mark.parametrize("convert", conversions.values(), ids=conversions)
def test_a_conversion_takes_a_field_of_two_or_three_arguments_and_none_for_a_context(convert):
    x, context = draw(), torch.full((5, 2), 2.0, dtype=torch.float64)
    seen = []

    def required(t, x, context):
        seen.append(context)
        return x if context is None else context * x

    of_two = lambda t, x: x
    of_three = lambda t, x, context=None: x if context is None else context * x
    path = Linear(Bridge())
    guides = convert is conversions["guided"]  # only a field that takes a context can be guided
    fields = [convert(field, path) for field in (of_two, of_three, required)[guides:]]
    if not guides:
        for field in fields:
            assert_close(field(0.3, x), fields[0](0.3, x), 0)
            assert_close(field(0.3, x, None), fields[0](0.3, x), 0)
        assert seen and all(c is None for c in seen)
    assert_close(fields[-2](0.3, x, context), fields[-1](0.3, x, context), 0)
    with pytest.raises(ValueError, match="Expected (no context|a field f.t, x, context.)"):
        convert(of_two, path)(0.3, x, context)


@pytest.mark.parametrize("convert", list(conversions.values())[:4], ids=list(conversions)[:4])
def test_a_conversion_says_so_where_field_and_path_are_exchanged(convert):
    with pytest.raises(ValueError, match="Expected interpolant"):
        convert(Linear(Bridge()), lambda t, x: x)
    with pytest.raises(ValueError, match="Expected field"):
        convert(MLP, Linear(Bridge()))


def test_a_conversion_keeps_the_names_of_the_weights_and_follows_the_field():
    net = MLP(2)
    score = score_from_velocity(net, Linear())
    denoiser = denoiser_from_score(score_from_velocity(net, Linear(Bridge())), Linear(Bridge()))
    assert list(score.state_dict()) == [f"field.{key}" for key in net.state_dict()]
    assert list(denoiser.state_dict()) == [f"field.field.{key}" for key in net.state_dict()]
    score.double()
    assert score(0.3, draw()).dtype == torch.float64
    score.field = score_from_velocity(lambda t, x: x, Linear())  # whatever it is a score of
    assert_close(score(0.5, draw()), (0.5 * score.field(0.5, draw()) - draw()) / 0.5)


def test_a_conversion_on_a_learned_path_holds_its_schedules_too():
    net, path = MLP(2, hidden=(8,)), LearnableInterpolant(order=2)
    velocity = velocity_from_score(net, path.interpolant)
    assert {*velocity.parameters()} == {*net.parameters(), *path.parameters()}
    with torch.no_grad():
        path.beta.coefficients += 0.1
    x = torch.randn(3, 2, generator=rng())
    gradients = []
    for solver in (Fixed(4), Adaptive(rtol=1e-5, atol=1e-5, adjoint=True), Adaptive(rtol=1e-5, atol=1e-5)):
        path.zero_grad()
        CNF(velocity, solver=solver).solve(x, 0.1, 0.9).x.sum().backward()
        gradients.append(path.beta.coefficients.grad)
    assert gradients[0].all()
    torch.testing.assert_close(gradients[1], gradients[2], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weight", [None, "2", float("nan"), float("inf"), torch.ones(2)], ids=str)
def test_a_weight_of_guidance_is_a_finite_number(weight):
    with pytest.raises(ValueError, match="finite weight; got MLP .*weight="):
        guided(MLP(2, context=2), weight)


def test_guidance_wants_a_context_and_a_dropped_one_has_rows():
    with pytest.raises(ValueError, match="Expected context"):
        guided(lambda t, x, context=None: x, 1.0)(0.5, torch.zeros(3, 2))
    for context in (torch.ones(6), torch.tensor(1.0), None, [1.0]):
        with pytest.raises(ValueError, match="Expected context"):
            drop_context(context, 0.5)


def test_labels_are_refused_where_zeros_mean_that_nothing_is_known():
    labels = torch.tensor([0, 1, 2])
    for call in (
        lambda: drop_context(labels),
        lambda: guided(lambda t, x, context: x, 1.0)(0.5, torch.zeros(3, 2), labels),
    ):
        with pytest.raises(ValueError, match="Expected context"):
            call()
