"""Laws that every target meets, and facts about the fixed splits."""

import copy
import hashlib
import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn import datasets

from cnflib import Flow, GaussianMixture, Standardize, StandardNormal
from cnflib.data import _pinwheel, digits, tables, toy
from cnflib.data._curves import boxed_curve, gaussian_curve
from cnflib.data._split import fixed_order
from cnflib.data._target import Draws
from cnflib.interpolants import Linear, Oracle

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FFJORD = [
    "swissroll",
    "circles",
    "rings",
    "moons",
    "eight_gaussians",
    "pinwheel",
    "two_spirals",
    "checkerboard",
]
SMOOTH = [name for name in toy.targets if name != "checkerboard"]

every = pytest.mark.parametrize("name", list(toy.targets))
smooth = pytest.mark.parametrize("name", SMOOTH)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    """Draws inside are of this dtype, as they are of torch's default one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def draw(law, n, seed, dtype=torch.float64, device="cpu"):
    with default(dtype):
        return law.sample(n, generator=generator(seed, device))


def midpoints(low, high, n):
    return low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n


@cache
def grid(name, n=240, scale=1.0):
    """Midpoints of n × n cells over the bounds times scale, log p there, and the area of a cell."""
    target, axes, area = toy.targets[name], [], 1.0
    for low, high in target.bounds:
        middle, half = (low + high) / 2, scale * (high - low) / 2
        axes.append(midpoints(middle - half, middle + half, n))
        area *= 2 * half / n
    x = torch.cartesian_prod(*axes)
    return x, target.log_prob(x), area


# The laws


def test_the_registry_holds_all_laws_under_their_names():
    assert sorted(toy.targets) == sorted([*FFJORD, "gaussian_mixture"])
    for name, target in toy.targets.items():
        assert name == target.name and target is getattr(toy, name) and isinstance(target, toy.Target)
        assert target.event_shape == (2,)


@every
def test_mass_is_one_within_the_bounds(name):
    _, log_prob, area = grid(name)
    assert log_prob.exp().sum().item() * area == pytest.approx(1, abs=2e-6)


@every
def test_entropy_is_that_of_the_density(name):
    _, log_prob, area = grid(name, n=250, scale=1.25)
    entropy = -(log_prob.exp() * log_prob.clamp_min(-1e4)).sum().item() * area
    assert toy.targets[name].entropy == pytest.approx(entropy, abs=3e-7)


@pytest.mark.parametrize(
    ("name", "entropy", "error"),
    [
        ("checkerboard", 3.4657, 1e-4),
        ("eight_gaussians", 2.835, 0.01),
        ("moons", 2.396, 0.01),
        ("circles", 3.267, 0.01),
        ("rings", 2.619, 0.01),
        ("swissroll", 2.670, 0.01),
        ("two_spirals", 2.653, 0.01),
        ("pinwheel", 2.32, 0.013),
    ],
)
def test_entropy_agrees_with_monte_carlo_values_found_elsewhere(name, entropy, error):
    assert toy.targets[name].entropy == pytest.approx(entropy, abs=error)


def test_entropy_of_the_pinwheel_along_a_blade():
    z = torch.cartesian_prod(*[torch.linspace(-7, 7, 200, dtype=torch.float64)] * 2)
    weight = (-z.square().sum(-1) / 2).softmax(0)
    f = torch.stack([1 + 0.3 * z[:, 0], 0.1 * z[:, 1]], dim=-1)
    x = 2 * _pinwheel.rotate(f, -_pinwheel.angle(f[:, 0]))
    assert toy.pinwheel.entropy == pytest.approx(-(weight * toy.pinwheel.log_prob(x)).sum().item(), abs=1e-8)


@every
@dtypes
@pytest.mark.parametrize("device", DEVICES)
def test_samples_have_the_entropy(name, dtype, device):
    target = toy.targets[name]
    x = draw(target, 20_000, 0, dtype, device)
    log_prob = target.log_prob(x)
    assert x.shape == (20_000, 2) and log_prob.shape == (20_000,)
    assert x.dtype == log_prob.dtype == dtype and x.device.type == log_prob.device.type == device
    error = log_prob.double().std().item() / math.sqrt(len(x))
    assert -log_prob.double().mean().item() == pytest.approx(target.entropy, abs=4 * error + 1e-5)


def cells(x, bounds, n):
    """The index of the cell of an n × n grid over the bounds that each point falls in."""
    limits = torch.as_tensor(bounds, dtype=torch.float64)
    index = ((x.double() - limits[:, 0]) / (limits[:, 1] - limits[:, 0]) * n).floor().long().clamp(0, n - 1)
    return index[:, 0] * n + index[:, 1]


@every
def test_samples_fill_the_cells_as_the_density_says(name):
    target, n, count = toy.targets[name], 12, 30_000
    points, log_prob, area = grid(name)
    expected = (
        count
        * area
        * torch.zeros(n * n).double().index_add(0, cells(points, target.bounds, n), log_prob.exp())
    )
    observed = (
        cells(draw(target, count, 1, torch.float32), target.bounds, n).bincount(minlength=n * n).double()
    )
    large = expected > 8
    pool = lambda cell: torch.cat([cell[large], cell[~large].sum()[None] + 1e-3])  # noqa: E731
    scale = pool(observed).sum() / pool(expected).sum()
    assert scipy.stats.chisquare(pool(observed).numpy(), (scale * pool(expected)).numpy()).pvalue > 1e-4


def ffjord(name, n, rng):
    """The generator of rtqichen/ffjord, lib/toy_data.py, typed again."""
    if name == "swissroll":
        return datasets.make_swiss_roll(n, noise=1.0, random_state=rng)[0][:, [0, 2]] / 5
    if name == "circles":
        return datasets.make_circles(n, factor=0.5, noise=0.08, random_state=rng)[0] * 3
    if name == "moons":
        return datasets.make_moons(n, noise=0.1, random_state=rng)[0] * 2 + np.array([-1, -0.2])
    if name == "rings":
        angle = np.linspace(0, 2 * np.pi, n // 4, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle)], 1)
        x = 3 * np.concatenate([ring, 0.75 * ring, 0.5 * ring, 0.25 * ring])
        return x + rng.normal(scale=0.08, size=x.shape)
    if name == "eight_gaussians":
        s = 1 / np.sqrt(2)
        centers = 4 * np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (s, s), (s, -s), (-s, s), (-s, -s)])
        return (rng.randn(n, 2) * 0.5 + centers[rng.randint(8, size=n)]) / 1.414
    if name == "pinwheel":
        rads = np.linspace(0, 2 * np.pi, 5, endpoint=False)
        features = rng.randn(n // 5 * 5, 2) * np.array([0.3, 0.1])
        features[:, 0] += 1.0
        angles = rads[np.repeat(np.arange(5), n // 5)] + 0.25 * np.exp(features[:, 0])
        rotations = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)])
        return 2 * np.einsum("ti,tij->tj", features, rotations.T.reshape(-1, 2, 2))
    if name == "two_spirals":
        turn = np.sqrt(rng.rand(n // 2, 1)) * 540 * (2 * np.pi) / 360
        d1x = -np.cos(turn) * turn + rng.rand(n // 2, 1) * 0.5
        d1y = np.sin(turn) * turn + rng.rand(n // 2, 1) * 0.5
        x = np.vstack((np.hstack((d1x, d1y)), np.hstack((-d1x, -d1y)))) / 3
        return x + rng.randn(*x.shape) * 0.1
    if name == "checkerboard":
        x1 = rng.rand(n) * 4 - 2
        x2 = rng.rand(n) - rng.randint(0, 2, n) * 2 + np.floor(x1) % 2
        return np.stack([x1, x2], 1) * 2
    raise AssertionError(name)


@pytest.mark.parametrize("name", FFJORD)
def test_samples_have_the_law_of_ffjord(name):
    target, n, count = toy.targets[name], 16, 30_000
    theirs = torch.from_numpy(ffjord(name, count, np.random.RandomState(2)))
    ours = draw(target, count, 2, torch.float32)
    table = torch.stack(
        [cells(x, target.bounds, n).bincount(minlength=n * n) for x in (ours, theirs)]
    ).numpy()
    large = table.sum(0) > 16
    table = np.concatenate([table[:, large], 1 + table[:, ~large].sum(1, keepdims=True)], 1)
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-4


# The numerics


@every
@pytest.mark.parametrize("device", DEVICES)
def test_single_precision_agrees_with_double(name, device):
    target = toy.targets[name]
    x = torch.cat([draw(target, 3000, 3, torch.float32), grid(name, n=40)[0].float()]).to(device)
    single, double = target.log_prob(x), target.log_prob(x.double())
    inside = double > -30
    torch.testing.assert_close(single[inside].double(), double[inside], rtol=1e-6, atol=3e-4)
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


@smooth
@dtypes
def test_log_prob_is_finite_far_out(name, dtype):
    x = torch.tensor([[0, 0], [12, 0], [0, -9], [7, 8], [50, -30], [-1000, 1000]], dtype=dtype)
    log_prob = toy.targets[name].log_prob(x)
    assert log_prob.isfinite().all() and log_prob[-1] < log_prob[-2] < log_prob[1] < -100


@smooth
def test_score_agrees_with_differences(name):
    target, h = toy.targets[name], 1e-5
    x = torch.cat([draw(target, 500, 4), grid(name, n=10)[0], torch.zeros(1, 2)])
    x = x.double().requires_grad_()
    (score,) = torch.autograd.grad(target.log_prob(x).sum(), x)
    with torch.no_grad():
        steps = h * torch.eye(2, dtype=torch.float64)
        slope = [(target.log_prob(x + step) - target.log_prob(x - step)) / (2 * h) for step in steps]
    torch.testing.assert_close(score, torch.stack(slope, -1), rtol=1e-4, atol=1e-4)


@every
def test_points_are_evaluated_one_by_one(name):
    target = toy.targets[name]
    x = draw(target, 600, 5)
    whole = target.log_prob(x)
    torch.testing.assert_close(
        whole, torch.cat([target.log_prob(part) for part in x.split(90)]), rtol=0, atol=1e-11
    )
    assert target.log_prob(x[:0]).shape == (0,)


@every
def test_nan_stays_nan(name):
    log_prob = toy.targets[name].log_prob(torch.tensor([[math.nan, 0.0], [0.5, 0.5]]))
    assert log_prob.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("name", "density", "nodes"),
    [
        ("moons", toy.moons_density, 96),
        ("swissroll", toy.swissroll_density, 256),
        ("two_spirals", toy.spirals_density, 288),
    ],
)
def test_quadrature_along_the_curve_has_converged(name, density, nodes):
    x, log_prob, _ = grid(name, n=60)
    exact = density(nodes=2 * nodes)(x)
    close = exact > -20
    torch.testing.assert_close(log_prob[close], exact[close], rtol=0, atol=1e-7)
    torch.testing.assert_close(log_prob, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("law", "radii", "sigma"), [(toy.circles, (3, 1.5), 0.24), (toy.rings, (3, 2.25, 1.5, 0.75), 0.08)]
)
def test_rings_agree_with_a_sum_around_them(law, radii, sigma):
    theta = 2 * math.pi * torch.arange(1000, dtype=torch.float64) / 1000
    points = torch.cat([radius * toy.circle(theta) for radius in radii])
    weights = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
    x = grid(law.name, n=30)[0]
    torch.testing.assert_close(
        law.log_prob(x), gaussian_curve(x, points, weights, sigma), rtol=1e-9, atol=1e-9
    )


def test_boxed_noise_agrees_with_an_integral_over_the_box():
    x = torch.tensor([[0.0, 0.0], [0.05, -0.08], [0.3, 0.1], [2.0, -1.0], [9.0, 5.0]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    law = boxed_curve(x, torch.zeros(1, 2, dtype=torch.float64), one, half=1 / 12, sigma=0.1)
    v, weights = toy.gauss_legendre(-1 / 12, 1 / 12, 80)
    points, weights = torch.cartesian_prod(v, v), torch.cartesian_prod(weights, weights).prod(-1) * 36
    torch.testing.assert_close(law, gaussian_curve(x, points, weights, 0.1), rtol=1e-10, atol=1e-10)


@dtypes
def test_checkerboard_draws_never_leave_the_squares(dtype):
    class Edge(Draws):
        def uniform(self, *shape):
            return torch.full(shape, 1 - torch.finfo(dtype).eps / 2, dtype=dtype)

    x = toy.draw_checkerboard(1000, Edge(generator(), dtype, torch.device("cpu")))
    assert (toy.checkerboard.log_prob(x) == -torch.tensor(32, dtype=dtype).log()).all()


def test_checkerboard_off_the_squares():
    off = torch.tensor([[-1.0, 1.0], [1.0, 5.0], [4.0, 4.0], [-4.1, -3.0], [9.0, 9.0]], requires_grad=True)
    assert (toy.checkerboard.log_prob(off) == -math.inf).all()
    on = torch.tensor([[1.0, 1.0], [-4.0, -4.0], [3.0, -1.0]], requires_grad=True)
    (score,) = torch.autograd.grad(toy.checkerboard.log_prob(on).sum(), on)
    assert (score == 0).all()


# Randomness and arguments


@every
def test_a_generator_fixes_the_draw_and_nothing_global_moves(name):
    target, torch_state, numpy_state = (
        toy.targets[name],
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
    )
    first, second, other = (target.sample(50, generator=generator(seed)) for seed in (6, 6, 7))
    target.log_prob(first)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()


@every
def test_none_is_the_default_generator_dtype_and_device(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        first = toy.targets[name].sample(5)
        torch.manual_seed(8)
        assert torch.equal(first, toy.targets[name].sample(5))
    assert first.dtype == torch.get_default_dtype() and first.device == torch.get_default_device()


@every
def test_targets_survive_copies(name):
    target, x = toy.targets[name], torch.full((1, 2), 0.5)
    for twin in (copy.deepcopy(target), pickle.loads(pickle.dumps(target))):
        assert torch.equal(twin.log_prob(x), target.log_prob(x)) and repr(twin) == repr(target)


@pytest.mark.parametrize("name", ["moons", "gaussian_mixture"])
@pytest.mark.parametrize("n", [0, -3, 2.0, True, None, (5,)])
def test_n_is_a_positive_int(name, n):
    with pytest.raises(ValueError, match="Expected n"):
        toy.targets[name].sample(n)


@every
@pytest.mark.parametrize("n", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_n_may_be_an_integer_of_numpy_or_torch(name, n):
    assert toy.targets[name].sample(n).shape == (3, 2)


@every
def test_a_target_is_a_density_that_ignores_a_context(name):
    target, context = toy.targets[name], torch.ones(3, 5)
    x = target.sample(3, context, generator(4))
    assert torch.equal(x, target.sample(3, generator=generator(4)))
    assert torch.equal(target.log_prob(x, context, generator(4)), target.log_prob(x))


@every
def test_a_generator_in_the_place_of_the_context_is_refused(name):
    with pytest.raises(ValueError, match="Expected context"):
        toy.targets[name].sample(3, generator())


@every
def test_a_target_is_the_base_of_a_flow(name):
    target, mean, std = toy.targets[name], torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    for dtype in (torch.float32, torch.float64):
        flow = Flow(Standardize(mean, std).to(dtype), target)
        x = flow.sample(200, generator=generator())
        assert flow.event_shape == (2,) and x.dtype == dtype
        wanted = target.log_prob((x - mean) / std) - std.log().sum()
        torch.testing.assert_close(flow.log_prob(x), wanted, rtol=1e-4, atol=1e-4)
        assert flow.log_prob(x).dtype == dtype


@pytest.mark.parametrize("name", ["eight_gaussians", "gaussian_mixture"])
def test_an_oracle_takes_the_two_mixtures(name):
    target = toy.targets[name]
    x = draw(target, 50, 7)
    oracle = Oracle(Linear(), StandardNormal(2), target)
    torch.testing.assert_close(oracle.log_prob(1.0, x), target.log_prob(x))
    parts = target.weights, target.means, target.covariances
    assert all(part.dtype == torch.float64 for part in parts)


@pytest.mark.parametrize("name", ["moons", "gaussian_mixture"])
def test_wrong_arguments_are_refused(name):
    target = toy.targets[name]
    with pytest.raises(ValueError, match="Expected x"):
        target.log_prob(torch.zeros(2))
    with pytest.raises(ValueError, match="Expected x"):
        target.log_prob(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="Expected x"):
        target.log_prob(torch.zeros(4, 2, dtype=torch.int64))


# Gaussian mixtures


def random_mixture(k=3, d=4):
    draw = lambda *shape: torch.randn(shape, generator=generator(9), dtype=torch.float64)  # noqa: E731
    a = draw(k, d, d)
    return GaussianMixture(draw(k).softmax(0), draw(k, d), a @ a.mT + torch.eye(d))


def test_mixture_agrees_with_torch_distributions():
    law = random_mixture()
    theirs = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(law.weights),
        torch.distributions.MultivariateNormal(law.means, law.covariances),
    )
    x = draw(law, 100_000, 10)
    torch.testing.assert_close(law.log_prob(x), theirs.log_prob(x))
    mean = law.weights @ law.means
    spread = law.covariances + torch.einsum("ki,kj->kij", law.means - mean, law.means - mean)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(x.T.cov(), torch.einsum("k,kij->ij", law.weights, spread), rtol=0, atol=0.3)
    assert len(law.bounds) == 4 and all(low < high for low, high in law.bounds)


def test_the_running_target_is_unequal_and_correlated():
    law = toy.gaussian_mixture
    assert len(set(law.weights.tolist())) == len(law.weights) == 3
    assert law.covariances[0, 0, 1] > 0.2 and law.covariances[1, 0, 1] < -0.2
    assert (draw(law, 10_000, 12).abs() < 4).all(-1).double().mean() > 0.999


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "message"),
    [
        ([1.0], [[0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], "Expected weights"),
        ([0.5, 0.5], [[0.0]], [[[1.0]]], r"got \(2,\), \(1, 1\), \(1, 1, 1\)"),
        ([0.5, 0.6], [[0.0], [1.0]], [[[1.0]], [[1.0]]], "Expected positive weights"),
        ([1.5, -0.5], [[0.0], [1.0]], [[[1.0]], [[1.0]]], "Expected positive weights"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.0, 1.0]]], "Expected symmetric positive definite"),
        ([1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]], "Expected symmetric positive definite"),
    ],
)
def test_no_mixture(weights, means, covariances, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(weights, means, covariances)


# Digits and tables


def rows(x):
    return sorted(map(tuple, x.flatten(1).tolist()))


def checksum(x):
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_the_order_of_rows_never_changes():
    assert fixed_order(569).sort().values.equal(torch.arange(569))
    assert checksum(fixed_order(569)) == "5cd389ed18a4952b"
    assert checksum(fixed_order(1797)) == "7f71e362ae545c77"


def test_digits_are_split_completely_and_for_good():
    state = np.random.get_state()[1].copy()
    train, test = digits.digits("train", dtype=torch.float64), digits.digits("test", dtype=torch.float64)
    images, labels = datasets.load_digits(return_X_y=True)
    assert rows(torch.cat([train.images, test.images])) == rows(torch.from_numpy(images))
    assert not set(rows(train.images)) & set(rows(test.images))
    assert torch.cat([train.labels, test.labels])[fixed_order(1797).argsort()].equal(
        torch.from_numpy(labels).long()
    )
    assert checksum(train.images.byte()) == "8dc700dcd0f18c4f"
    assert (state == np.random.get_state()[1]).all()


@dtypes
def test_digits_are_levels(dtype):
    images, labels, levels = digits.digits("test", dtype=dtype)
    assert images.shape == (360, 1, 8, 8) and labels.shape == (360,)
    assert images.dtype == dtype and labels.dtype == torch.int64 and levels == digits.LEVELS == 17
    assert images.unique().tolist() == list(range(levels)) and labels.unique().tolist() == list(range(10))
    assert digits.digits().images.shape == (1437, 1, 8, 8) and digits.digits().images.dtype == torch.float32


def test_a_split_of_the_digits_that_is_none_is_refused():
    with pytest.raises(ValueError, match="split.*'train'.*'valid'"):
        digits.digits("valid")


def test_the_power_plant_is_split_completely_and_for_good():
    table = tables.power_plant(dtype=torch.float64)
    rows = torch.cat(table[:3])
    assert [len(part) for part in table[:3]] == [6698, 1435, 1435]
    assert torch.equal(tables.power_plant(dtype=torch.float64).test, table.test)
    assert torch.allclose(table.mean, table.train.mean(0))
    # The ranges that the donors print.
    readings = (100 * rows).round() / 100
    assert readings.min(0).values.tolist() == [1.81, 25.36, 992.89, 25.56, 420.26]
    assert readings.max(0).values.tolist() == [37.11, 81.56, 1033.30, 100.16, 495.76]
    assert "power-plant.txt.gz" in (Path(tables.__file__).parent / "files" / "LICENCES.txt").read_text(
        "utf-8"
    )


def test_the_readings_of_the_power_plant_have_two_decimals_under_their_noise():
    """Each column has as many values as the donors' file, and the noise is uniform in half a digit."""
    rows = 100 * torch.cat(tables.power_plant(dtype=torch.float64)[:3])
    assert [len(column.round().unique()) for column in rows.T] == [2773, 634, 2517, 4546, 4836]
    assert len(rows.round().unique(dim=0)) == 9568 - 41
    noise = rows - rows.round()
    assert (noise.mean(0).abs() < 4 * math.sqrt(1 / 12 / 9568)).all()
    assert ((noise.square().mean(0) - 1 / 12).abs() < 4 * math.sqrt(1 / 180 / 9568)).all()


def test_breast_cancer_is_split_completely_and_for_good():
    table = tables.breast_cancer(dtype=torch.float64)
    data = datasets.load_breast_cancer()
    parts = table.train, table.validation, table.test
    assert [len(part) for part in parts] == [341, 114, 114]
    assert rows(torch.cat(parts)) == rows(torch.from_numpy(data.data[:, :10]))
    assert table.columns[0] == "mean radius" and len(table.columns) == 10
    assert all(type(name) is str and name.startswith("mean ") for name in table.columns)
    assert checksum(table.train) == "dcbaeb5afe0d12d0" and checksum(table.test) == "7bdd7d88b9cf2445"


def test_breast_cancer_is_standardised_by_its_train_rows():
    table = tables.breast_cancer()
    z = (table.train - table.mean) / table.std
    assert table.train.dtype == table.mean.dtype == torch.float32
    torch.testing.assert_close(z.mean(0), torch.zeros(10), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.square().mean(0), torch.ones(10), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="Expected a floating dtype"):
        tables.breast_cancer(dtype=torch.int64)
