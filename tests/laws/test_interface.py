"""The interface that everything else stands on, line by line: what is printed here stays callable as printed."""

import copy
import dataclasses
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import cnflib
from cnflib import (
    Bijection,
    Chain,
    Density,
    DiagonalNormal,
    Flow,
    GaussianMixture,
    Inverse,
    Standardize,
    StandardNormal,
    adapters,
    as_density,
    audit,
    continuous,
    data,
    discrete,
    interpolants,
    metrics,
    models,
    nets,
    ode,
    plot,
)

x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))


def parameters(function):
    return list(inspect.signature(function).parameters)


def small_flow():
    return models.realnvp(dim=2, layers=2, hidden=(8,))


class TestBijection:
    def test_abstract_are_two_methods_alone_and_the_others_default_to_their_points(self):
        assert Bijection.__abstractmethods__ == {"encode_and_logdet", "decode_and_logdet"}

        class Double(Bijection):
            def encode_and_logdet(self, x, context=None, generator=None):
                return 2 * x, x.new_full((len(x),), 0.693147 * x[0].numel())

            def decode_and_logdet(self, z, context=None, generator=None):
                return z / 2, z.new_full((len(z),), -0.693147 * z[0].numel())

        double = Double()
        assert double.event_shape is None
        assert torch.equal(double.encode(x), 2 * x) and torch.equal(double.decode(x), x / 2)
        assert torch.equal(double(x)[0], double.encode_and_logdet(x)[0])
        with pytest.raises(ValueError, match="x"):
            double(x[0])

    @pytest.mark.parametrize("method", ["encode", "decode", "encode_and_logdet", "decode_and_logdet"])
    def test_the_four_methods_take_the_same_arguments_in_every_class(self, method):
        for package in (cnflib, discrete, continuous):
            for name in package.__all__:
                kind = getattr(package, name)
                if isinstance(kind, type) and issubclass(kind, Bijection):
                    assert parameters(getattr(kind, method))[2:] == ["context", "generator"], (name, method)

    def test_anything_with_the_four_methods_serves(self):
        class Shift:
            def encode_and_logdet(self, x, context=None, generator=None):
                return x + 1, x.new_zeros(len(x))

            def decode_and_logdet(self, z, context=None, generator=None):
                return z - 1, z.new_zeros(len(z))

            def encode(self, x, context=None, generator=None):
                return x + 1

            def decode(self, z, context=None, generator=None):
                return z - 1

        compiled = torch.compile(small_flow().bijection, backend="eager")
        for bijection in (Shift(), compiled):
            for g in (bijection, Chain(bijection), Inverse(bijection), Chain(Inverse(bijection), bijection)):
                flow = Flow(g, StandardNormal(2))
                assert flow.log_prob(x).shape == (8,) and flow.sample(3).shape == (3, 2)
                torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=1e-4, atol=1e-4)

    def test_standardize_fits_a_tensor_and_a_numpy_table(self):
        table = 1e4 + 3 * np.random.default_rng(0).normal(size=(500, 2))
        g = Standardize.fit(table)
        assert g.mean.dtype == torch.get_default_dtype() == g.std.dtype
        z = g.encode(torch.as_tensor(table, dtype=torch.float32))
        assert z.mean(0).abs().max() < 1e-2 and (z.std(0) - 1).abs().max() < 1e-2
        assert torch.equal(Standardize.fit(torch.as_tensor(table)).std, g.std)
        assert Standardize.fit(torch.tensor([[0.0], [2.0]])).std.item() == 1  # 1/N, also for few rows
        for constant in (0.1, 0.0, 1e9):
            with pytest.raises(ValueError, match="constant"):
                Standardize.fit(np.stack([table[:, 0], np.full(500, constant)], 1))
        for wrong in (table[:1], table[:, 0], np.full((5, 2), np.nan)):
            with pytest.raises(ValueError, match="Expected"):
                Standardize.fit(wrong)


class TestDensities:
    def test_bases(self):
        mixture = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [torch.eye(2).tolist()] * 2)
        for base in (StandardNormal(2), StandardNormal((2,)), DiagonalNormal(2), mixture):
            assert isinstance(base, Density) and base.event_shape == (2,)
            assert base.log_prob(base.sample(3)).shape == (3,)
            assert Flow(small_flow().bijection, base).log_prob(x).shape == (8,)

    def test_as_density_takes_whatever_a_flow_takes(self):
        normal = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        for d in (data.toy.moons, normal, small_flow(), StandardNormal(2)):
            assert as_density(d).log_prob(x).shape == (8,)
        with pytest.raises(ValueError, match="Independent"):
            as_density(torch.distributions.Normal(torch.zeros(2), torch.ones(2)))

    def test_flow(self):
        flow = small_flow()
        assert torch.equal(flow(x), flow.log_prob(x))
        for name in ("log_prob", "rsample", "rsample_and_log_prob", "encode", "decode"):
            assert parameters(getattr(flow, name))[1:] == ["context", "generator"], name
        assert parameters(flow.sample) == ["n", "context", "generator", "chunk"]
        assert not hasattr(flow, "sample_and_log_prob")
        assert not flow.sample(4, chunk=3).requires_grad and flow.rsample(4).requires_grad
        z, log_prob = flow.rsample_and_log_prob(4)
        assert z.requires_grad and log_prob.requires_grad and log_prob.shape == (4,)
        assert flow.encode(x).shape == flow.decode(x).shape == x.shape and flow.event_shape == (2,)
        far = models.realnvp(dim=2).after(Standardize.fit(1000 + x))
        assert far.log_prob(1000 + x).isfinite().all()
        assert torch.compile(flow.log_prob, backend="eager")(x).shape == (8,)

    def test_what_is_handed_over_in_the_wrong_place_is_refused_by_name(self):
        flow, std, field = small_flow(), Standardize.fit(x), nets.MLP(2)
        wrong = {
            "flow": lambda: Chain(std, flow),
            r"Flow\(bijection, base\)": lambda: Flow(flow.base, flow.bijection),
            "CNF": lambda: Flow(field, flow.base),
            "encode": lambda: Flow(nn.Sequential(nn.Linear(2, 2)), flow.base),
            r"Chain\(\*layers\)": lambda: Chain([std, flow.bijection]),
            "bijection": lambda: audit.audit_bijection(flow, x),
            "StandardNormal": lambda: Flow(flow.bijection, StandardNormal),
            "called": lambda: Flow(Standardize, flow.base),
        }
        for message, call in wrong.items():
            with pytest.raises(ValueError, match=message):
                call()

    @pytest.mark.parametrize("rows", [1, 2])
    def test_a_layer_that_forgets_to_sum_its_logdet_is_refused(self, rows):
        class Forgetful(Bijection):
            def encode_and_logdet(self, x, context=None, generator=None):
                return 2 * x, torch.full_like(x, 0.69)

            def decode_and_logdet(self, z, context=None, generator=None):
                return z / 2, torch.full_like(z, -0.69)

        flow = Flow(Forgetful(), StandardNormal(rows))
        with pytest.raises(ValueError, match="log-determinant"):
            flow.log_prob(torch.randn(rows, rows))
        with pytest.raises(ValueError, match="log-determinant"):
            flow.rsample_and_log_prob(rows)


class TestODE:
    def test_solve(self):
        times = torch.linspace(1900.0, 1920.0, 5, dtype=torch.float64)
        y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
        turn = lambda t, y: torch.stack([y[1], -y[0]])
        for solver in (
            ode.Adaptive(rtol=1e-9, atol=1e-9),
            ode.Fixed(400),
            ode.TorchDiffEq(),
            ode.TorchDiffEq("rk4", step_size=0.01),
        ):
            result = ode.solve(turn, y0, times, solver)
            assert isinstance(result, ode.Result) and result.y.shape == (5, 2)
            assert {"y", "nfe", "accepted", "rejected", "backward"} <= set(dir(result))
            exact = torch.stack([(times - 1900).cos(), -(times - 1900).sin()], 1)
            torch.testing.assert_close(result.y, exact, rtol=1e-5, atol=1e-5)
        assert ode.solve(turn, y0, [0.0, 1.0]).y.shape == (2, 2)
        assert parameters(ode.solve) == ["f", "y0", "times", "solver", "params"]

    def test_solvers(self):
        assert parameters(ode.Adaptive) == [
            *("tableau", "rtol", "atol", "max_steps", "per_row", "compiled", "adjoint")
        ]
        assert parameters(ode.Fixed) == ["steps", "tableau", "checkpoint", "project"]
        assert parameters(ode.TorchDiffEq) == ["method", "rtol", "atol", "adjoint", "options"]
        for method in ("euler", "midpoint", "heun2", "heun3", "rk4"):
            with pytest.raises(ValueError, match="step_size"):
                ode.TorchDiffEq(method)
        assert (
            repr(ode.Adaptive()) == "Adaptive()"
            and repr(ode.Fixed(4, ode.euler)) == "Fixed(4, tableau=euler)"
        )

    def test_a_torchdiffeq_solver_serves_in_a_cnf(self):
        net = nets.MLP(2, (8,))
        flow = Flow(continuous.CNF(net, solver=ode.TorchDiffEq()), StandardNormal(2))
        other = Flow(continuous.CNF(net), StandardNormal(2))
        torch.testing.assert_close(flow.log_prob(x), other.log_prob(x), rtol=1e-3, atol=1e-3)
        flow.log_prob(x).sum().backward()
        assert all(p.grad is not None for p in net.parameters())


class TestCNF:
    def test_parts(self):
        assert parameters(continuous.CNF) == ["field", "divergence", "solver", "costs"]
        assert parameters(continuous.Hutchinson)[:2] == ["probe", "probes"]
        assert parameters(continuous.HutchPP)[:2] == ["sketch", "probes"]
        for wrong in (16, "gaussian", continuous.Rademacher):
            with pytest.raises(ValueError, match="prob"):
                continuous.Hutchinson(wrong)

    @pytest.mark.parametrize("field", [nets.MLP(2, (8,)), lambda t, x: t * x, lambda t, x, context: -x])
    def test_methods(self, field):
        cost = continuous.KineticEnergy()
        cnf = continuous.CNF(field, continuous.Exact(), ode.Adaptive(), costs=(cost,))
        solution = cnf.solve(x, 0.0, 1.0, None, None)
        for name in ("x", "logdet", "costs", "nfe", "accepted", "rejected", "backward"):
            assert hasattr(solution, name)
        assert (
            parameters(cnf.trajectory)
            == parameters(cnf.solve_along)
            == ["x", "times", "context", "generator"]
        )
        path = cnf.trajectory(x, [0.0, 0.5, 1.0])
        assert isinstance(path, torch.Tensor) and path.shape == (3, 8, 2)
        along = cnf.solve_along(x, torch.tensor([0.0, 0.5, 1.0]))
        assert along.x.shape == (3, 8, 2) and along.logdet.shape == (3, 8)
        logp, costs = continuous.log_prob_and_costs(Flow(cnf, StandardNormal(2)), x)
        assert logp.shape == (8,) and len(costs) == 1 and costs[0].shape == (8,)

    def test_points_alone_take_no_products_with_the_jacobian(self):
        class Counted(nn.Module):
            calls = products = 0

            def forward(self, t, x):
                self.calls += 1
                return -x

            def jvp(self, t, x, context, directions):
                self.products += 1
                return -x, -directions

        field = Counted()
        cnf = continuous.CNF(field, solver=ode.Fixed(2))
        for call in (
            lambda: cnf.encode(x),
            lambda: cnf.decode(x),
            lambda: cnf.trajectory(x, [0.0, 1.0]),
            lambda: Inverse(cnf).decode(x),
            lambda: Inverse(cnf).encode(x),
            lambda: Chain(cnf).encode(x),
            lambda: Flow(cnf, StandardNormal(2)).sample(8),
        ):
            field.calls = field.products = 0
            call()
            assert (field.calls, field.products) == (8, 0)

    def test_costs_have_the_field_first(self):
        local = continuous.Local(x, x.sum(1), x.sum(1))
        for cost in (
            continuous.KineticEnergy(),
            continuous.JacobianFrobenius(),
            continuous.PathDerivative(2),
        ):
            assert cost(lambda t, x, context=None: -x, torch.tensor(0.5), x, None, local).shape == (8,)

    def test_printing_a_flow_shows_its_settings(self):
        text = str(models.ffjord(dim=2, solver=ode.Fixed(7), divergence=continuous.Hutchinson(probes=3)))
        assert "Fixed(7)" in text and "Hutchinson(probes=3)" in text
        assert "RationalQuadratic(bins=5)" in str(models.spline_flow(dim=2, bins=5))
        assert "Affine()" in str(small_flow()) and "Affine()" in str(models.maf(dim=2))


class TestDiscrete:
    @pytest.mark.parametrize(
        "transform",
        [discrete.Additive(), discrete.Affine(bound=3.0), discrete.RationalQuadratic(bins=8, bound=5.0)],
    )
    def test_transforms(self, transform):
        params = torch.randn(8, transform.parameters, 2)
        z, logslope = transform.encode(x, params)
        back, minus = transform.decode(z, params)
        torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(minus, -logslope, rtol=1e-3, atol=1e-3)
        mask, count = torch.tensor([True, False]), transform.parameters
        coupling = discrete.Coupling(mask, transform, nets.Conditioner(1, count))
        auto = discrete.MaskedAutoregressive(transform, discrete.MADE(2, count))
        for layer in (coupling, auto):
            assert layer(x)[0].shape == x.shape and repr(transform) in str(layer)

    @pytest.mark.parametrize(
        "name",
        ["gaussian", "planar_flow", "radial_flow", "nice", "realnvp", "glow", "maf", "iaf", "spline_flow"],
    )
    def test_builders(self, name):
        build = getattr(models, name)
        assert parameters(build)[:2] == ["dim", "shape"]
        for flow in (build(dim=2), build(2), build(shape=(2,)), build((2,))):
            assert flow.event_shape == (2,) and flow.sample(3).shape == (3, 2)
        assert build((1, 4, 4)).event_shape == (1, 4, 4)

    def test_ffjord_and_residual_flow(self):
        assert parameters(models.ffjord) == [
            *("dim", "shape", "hidden", "context", "divergence", "solver", "scales", "blocks")
        ]
        for flow in (models.ffjord(2), models.ffjord((2,)), models.residual_flow(2), models.ffjord(dim=64)):
            assert flow.sample(3).shape == (3, *flow.event_shape)
        assert parameters(nets.MLP)[:6] == [
            *("shape", "hidden", "context", "time_frequencies", "fourier", "fourier_scale")
        ]


PATHS = {
    "Linear()": interpolants.Linear(),
    "Linear(gamma=Bridge(2.0))": interpolants.Linear(gamma=interpolants.Bridge(2.0)),
    "Trigonometric(gamma=Parabola())": interpolants.Trigonometric(gamma=interpolants.Parabola()),
    "VariancePreserving()": interpolants.VariancePreserving(),
    "OneSided(gamma=Constant(0.1))": interpolants.OneSided(gamma=interpolants.Constant(0.1)),
    "EncodingDecoding()": interpolants.EncodingDecoding(),
    "Mirror()": interpolants.Mirror(),
    "own": interpolants.Interpolant(lambda t: 1 - t, lambda t: t**2),
    "own with noise": interpolants.Interpolant(lambda t: 1 - t, lambda t: t, gamma2=lambda t: t * (1 - t)),
}


class TestInterpolants:
    @pytest.mark.parametrize("name", PATHS)
    def test_paths(self, name):
        path, t, x1, xi = PATHS[name], torch.full((8,), 0.3), x + 1, torch.randn(8, 2)
        assert isinstance(path, interpolants.Interpolant)
        assert callable(path.alpha) and callable(path.beta) and (path.gamma2 is None or callable(path.gamma2))
        assert path(0.3, x, x1, xi).shape == path.rate(t, x, x1, xi).shape == x.shape
        point = path.draw(x, x1, generator=torch.Generator().manual_seed(0))
        assert point.t.shape == (8,) and (point.xi is None) == (path.gamma2 is None)
        torch.testing.assert_close(point.x, path(point.t, x, x1, point.xi))
        torch.testing.assert_close(point.rate, path.rate(point.t, x, x1, point.xi))
        field = nets.MLP(2, (8,))
        by_hand = (field(point.t, point.x) - point.rate).square().sum(1)
        loss = interpolants.velocity_loss(field, path, x, x1, point.t, point.xi)
        torch.testing.assert_close(loss, by_hand)
        assert parameters(path.draw) == ["x0", "x1", "t", "xi", "generator"]

    def test_noise_given_to_a_path_without_any_is_ignored(self):
        path, xi = interpolants.Linear(), torch.randn(8, 2)
        assert path.gamma2 is None
        assert torch.equal(path(0.5, x, x, xi), path(0.5, x, x))
        assert path.draw(x, x, xi=xi).xi is None
        interpolants.velocity_loss(nets.MLP(2), path, x, x, xi=xi)

    def test_pairings_and_times(self):
        for pairing in (
            interpolants.IndependentPairing(),
            interpolants.Paired(),
            interpolants.OptimalTransport(),
            interpolants.Sinkhorn(0.5),
            interpolants.ConditionalPairing(interpolants.OptimalTransport()),
        ):
            conditional = isinstance(pairing, interpolants.ConditionalPairing)
            labels = torch.tensor([0, 1] * 4) if conditional else None
            x0, x1 = pairing(x, x + 1, labels, torch.Generator().manual_seed(0))
            assert x0.shape == x.shape and torch.equal(x1, x + 1)
            assert parameters(pairing.__call__) == ["x0", "x1", "context", "generator"]
        for times in (
            interpolants.UniformTimes(),
            interpolants.BetaTimes(1.0, 0.5),
            interpolants.ImportanceTimes(),
        ):
            t, weight = times(5, generator=torch.Generator().manual_seed(0))
            assert t.shape == weight.shape == (5,)

    def test_losses_and_samplers(self):
        field, path = nets.MLP(2, (8,)), interpolants.Linear(interpolants.Parabola())
        for name in ("velocity_loss", "score_loss", "denoiser_loss"):
            loss = getattr(interpolants, name)
            assert parameters(loss)[1:] == ["interpolant", "x0", "x1", "t", "xi", "context", "generator"]
            assert loss(field, path, x, x + 1).shape == (8,)
        x1 = interpolants.sample_ode(field, x, ode.Adaptive(), None)
        score = interpolants.score_from_velocity(field, interpolants.Linear())
        x2 = interpolants.sample_sde(field, score, x, 0.0, context=None, generator=None)
        assert not x1.requires_grad and not x2.requires_grad
        torch.testing.assert_close(x1, x2, rtol=1e-3, atol=1e-3)
        t = torch.tensor(0.5)
        assert torch.equal(score(t, x), score(t, x, None))

    def test_labels_reach_a_net_of_one_s_own_untouched(self):
        class Classes(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.net = nn.Embedding(10, 4), nn.Linear(7, 2)

            def forward(self, t, x, context):
                time = t.reshape(-1, 1).expand(len(x), 1)
                return self.net(torch.cat([x, time, self.table(context)], 1))

        field, labels = Classes(), torch.arange(8)
        interpolants.velocity_loss(field, interpolants.Linear(), x, x + 1, context=labels).mean().backward()
        assert field.table.weight.grad.any()
        flow = Flow(continuous.CNF(field), StandardNormal(2))
        assert flow.log_prob(x, labels).shape == (8,)
        assert flow.sample(8, labels).shape == flow.sample(8, labels[:1]).shape == (8, 2)
        assert interpolants.sample_ode(field, x, context=labels).shape == (8, 2)
        given = adapters.given(flow, labels)
        assert given.batch_shape == (8,) and given.sample((3,)).shape == (3, 8, 2)
        with pytest.raises(ValueError, match="one_hot"):
            Flow(continuous.CNF(nets.MLP(2, context=10)), StandardNormal(2)).log_prob(x, labels)


class TestTools:
    def test_audits(self):
        assert parameters(audit.audit_bijection)[:4] == ["bijection", "x", "z", "context"]
        flow = small_flow()
        for report in (audit.audit_bijection(flow.bijection, x), audit.audit_gradients(flow, x)):
            report.raise_for_faults()
            assert "check" in str(report)

    def test_targets(self):
        board = data.toy.checkerboard
        assert parameters(board.sample) == ["n", "context", "generator"]
        assert board.log_prob(board.sample(5)).shape == (5,) and board.entropy == pytest.approx(
            3.4657, abs=1e-4
        )
        assert set(data.toy.targets) >= {"eight_gaussians", "two_spirals", "moons"}

    def test_plots(self):
        assert parameters(plot.slider)[:4] == ["fig", "draw", "values", "alt"]
        assert parameters(plot.animation)[:4] == ["fig", "draw", "frames", "alt"]
        assert parameters(plot.field)[:4] == ["ax", "f", "t", "box"]
        assert parameters(plot.images)[:2] == ["ax", "x"]


SETTINGS = [
    ode.Adaptive(),
    ode.Adaptive(ode.dopri8, rtol=1e-7, adjoint=True),
    ode.Fixed(4),
    ode.Fixed(4, ode.heun, checkpoint=True),
    ode.TorchDiffEq(),
    ode.TorchDiffEq("rk4", step_size=0.1, adjoint=True),
    continuous.Exact(),
    continuous.Exact(continuous.ForwardMode()),
    continuous.Hutchinson(),
    continuous.Hutchinson(probes=16),
    continuous.Hutchinson(continuous.Gaussian(), 2, continuous.ReverseMode()),
    continuous.HutchPP(2, 3),
    continuous.Bottleneck(),
    continuous.KineticEnergy(),
    continuous.JacobianFrobenius(),
    continuous.PathDerivative(3),
    continuous.Rademacher(),
    discrete.Additive(),
    discrete.Affine(),
    discrete.Affine(bound=2.0),
    discrete.RationalQuadratic(),
    discrete.RationalQuadratic(4, bound=3.0),
    discrete.ExactLogDet(),
    discrete.RussianRoulette(2, 0.8),
    discrete.TruncatedSeries(),
    *[path for name, path in PATHS.items() if not name.startswith("own")],
    interpolants.Bridge(),
    interpolants.Bridge(0.5),
    interpolants.SineSquared(),
    interpolants.Sigmoid(1.0, 5.0),
    interpolants.Constant(0.1),
    interpolants.IndependentPairing(),
    interpolants.Paired(),
    interpolants.OptimalTransport(),
    interpolants.Sinkhorn(0.1),
    interpolants.ConditionalPairing(interpolants.OptimalTransport(), weight=2.0),
    interpolants.UniformTimes(),
    interpolants.BetaTimes(1.0, 0.5),
    interpolants.Masked(3),
    interpolants.UniformNoise(17),
    metrics.EnergyDistance(),
    metrics.MMD((0.5, 1.0)),
    metrics.SlicedWasserstein(20),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=repr)
def test_settings_print_as_what_makes_them_compare_hash_pickle_and_copy(settings):
    scope = {
        name: getattr(package, name)
        for package in (cnflib, ode, continuous, discrete, interpolants, metrics)
        for name in package.__all__
    }
    assert len(repr(settings)) < 100
    for other in (eval(repr(settings), scope), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert other == settings and hash(other) == hash(settings) and repr(other) == repr(settings)
    assert dataclasses.is_dataclass(settings)
    name = (
        next(field.name for field in dataclasses.fields(settings))
        if dataclasses.fields(settings)
        else "steps"
    )
    with pytest.raises((AttributeError, TypeError)):
        setattr(settings, name, 3)


PACKAGES = [
    cnflib,
    ode,
    nets,
    discrete,
    continuous,
    interpolants,
    models,
    audit,
    data,
    plot,
    metrics,
    cnflib.train,
    adapters,
]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_context_and_generator_stand_last_and_in_this_order(package):
    for name in package.__all__:
        value = getattr(package, name)
        calls = [value] if inspect.isfunction(value) else []
        if isinstance(value, type):
            calls = [
                f
                for key, f in vars(value).items()
                if inspect.isfunction(f) and (key[0] != "_" or key == "__call__")
            ]
        for call in calls:
            kinds = inspect.signature(call).parameters.values()
            names = [p.name for p in kinds if p.kind is p.POSITIONAL_OR_KEYWORD]
            tail = [n for n in names if n in ("context", "generator")]
            if "generator" in tail and names[0] != "context":
                names = [n for n in names if n != "chunk"]
                assert names[-len(tail) :] == [n for n in ("context", "generator") if n in tail], (name, call)


def test_public_names_have_one_home_and_one_meaning_and_dir_shows_them_alone():
    homes = {}
    for package in (cnflib, ode, nets, discrete, continuous, interpolants, models, audit, adapters):
        for name in package.__all__:
            homes.setdefault(name, []).append(package.__name__)
        listed = {name for name in dir(package) if not name.startswith("__")}
        if package is not cnflib and package is not adapters:
            assert listed == set(package.__all__), package.__name__
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}
