"""Rational-quadratic splines against their formulas, at their knots, at extremes, and under torch's transforms."""

import math
from itertools import accumulate

import pytest
import torch
from registry import Member, built, coupling, rng
from torch.autograd import gradcheck, gradgradcheck
from torch.func import jacfwd, jacrev, vmap

from cnflib.audit import audit_bijection
from cnflib.discrete import Affine, RationalQuadratic

SMALLEST = 1e-3
settings = pytest.mark.parametrize(
    ("bins", "box", "scale"),
    [
        (1, 5.0, 2.0),
        (2, 5.0, 2.0),
        (3, 0.5, 2.0),
        (8, 5.0, 0.5),
        (8, 20.0, 3.0),
        (32, 5.0, 2.0),
        (5, 3.0, 10.0),
    ],
)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
ways = pytest.mark.parametrize("way", ["encode", "decode"])


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def draw(n, bins, scale=2.0, box=5.0, dtype=torch.float64, seed=0):
    """Points inside and outside of the box, and as many sets of parameters."""
    generator = rng(seed)
    x = 1.2 * box * (2 * torch.rand(n, generator=generator, dtype=dtype) - 1)
    return x, scale * torch.randn(n, 3 * bins - 1, generator=generator, dtype=dtype)


def parts(theta, bins, box):
    """Knots in x and in y, and the slopes there, of one set of parameters, by plain numbers."""

    def knots(logits):
        weights = [math.exp(a - max(logits)) for a in logits]
        sizes = [2 * box * (SMALLEST + (1 - bins * SMALLEST) * a / sum(weights)) for a in weights]
        return list(accumulate(sizes, initial=-box))

    def slope(a):
        a += math.log(math.expm1(1 - SMALLEST))
        return SMALLEST + max(a, 0) + math.log1p(math.exp(-abs(a)))

    theta = theta.tolist()
    return knots(theta[:bins]), knots(theta[bins : 2 * bins]), [1.0, *map(slope, theta[2 * bins :]), 1.0]


def formula(x, theta, bins, box):
    """T(x) and T'(x) of one number as the module writes them, bin after bin."""
    if abs(x) >= box:
        return x, 1.0
    xs, ys, d = parts(theta, bins, box)
    k = next(k for k in range(bins) if x <= xs[k + 1] or k == bins - 1)
    w, h = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
    s, xi = h / w, (x - xs[k]) / w
    q = s + (d[k] + d[k + 1] - 2 * s) * xi * (1 - xi)
    y = ys[k] + h * (s * xi**2 + d[k] * xi * (1 - xi)) / q
    return y, s**2 * (d[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + d[k] * (1 - xi) ** 2) / q**2


def by_formula(x, theta, bins, box):
    rows = [formula(a, b, bins, box) for a, b in zip(x.tolist(), theta, strict=True)]
    y, slope = torch.tensor(rows, dtype=torch.float64).T
    return y, slope.log()


def bisected(z, theta, bins, box):
    low, high = -2 * box, 2 * box
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if formula(middle, theta, bins, box)[0] > z else (middle, high)
    return (low + high) / 2


@settings
def test_forward_is_the_formula(bins, box, scale):
    x, theta = draw(200, bins, scale, box)
    assert_close(RationalQuadratic(bins, box).encode(x, theta), by_formula(x, theta, bins, box), 1e-10)


@settings
def test_inverse_solves_the_formula(bins, box, scale):
    z, theta = draw(50, bins, scale, box)
    x, log_slope = RationalQuadratic(bins, box).decode(z, theta)
    wanted = torch.tensor([bisected(a, b, bins, box) for a, b in zip(z.tolist(), theta)], dtype=torch.float64)
    slope = by_formula(wanted, theta, bins, box)[1]
    assert ((x - wanted).abs() < 1e-13 * box * (10 + (-slope).exp())).all()
    assert_close(log_slope, -slope, 1e-7)


def test_its_parameters_are_logits_of_widths_and_of_heights_and_slopes():
    """A theta that says one thing at a time moves the knots, or the slopes, that it says."""
    bins, box = 4, 2.0
    spline, free = RationalQuadratic(bins, box), 1 - 4 * SMALLEST
    theta = torch.zeros(1, 3 * bins - 1, dtype=torch.float64)
    theta[0, 0], theta[0, bins + 3], theta[0, -1] = math.log(3), math.log(5), 2.0
    edges = -box + 2 * box * torch.tensor([SMALLEST * k + free * (2 + k) / 6 for k in (1, 2, 3)])
    heights = -box + 2 * box * torch.tensor([SMALLEST * k + free * k / 8 for k in (1, 2, 3)])
    y, log_slope = spline.encode(edges.double(), theta.expand(3, -1))
    assert_close(y, heights.double(), 1e-6)
    steepest = SMALLEST + math.log1p((math.e**2) * math.expm1(1 - SMALLEST))
    assert log_slope.exp().tolist() == pytest.approx([1, 1, steepest], rel=1e-5)


@settings
def test_it_is_once_differentiable_at_its_knots_where_its_slope_is_the_parameter(bins, box, scale):
    theta, spline = draw(20, bins, scale, box)[1], RationalQuadratic(bins, box)
    for row in theta:
        xs, ys, slopes = (torch.tensor(a, dtype=torch.float64) for a in parts(row, bins, box))
        rows = row.expand(bins + 1, -1)
        tiny = 1e-14 * box
        for side in (-tiny, 0.0, tiny):
            y, log_slope = spline.encode(xs + side, rows)
            assert ((y - ys).abs() <= 4 * tiny * (1 + slopes)).all()
            assert_close(log_slope, slopes.log(), 1e-2)  # beside a knot a steep bin has curved already
            x, log_slope = spline.decode(ys + side, rows)
            assert ((x - xs).abs() <= 4 * tiny * (1 + 1 / slopes)).all()
            assert_close(log_slope, -slopes.log(), 1e-2)


@dtypes
@ways
def test_outside_of_the_box_it_is_the_identity_to_the_bit(dtype, way):
    beyond = torch.tensor([3.0, math.nextafter(3.0, 9.0), 3.5, 1e3, 1e30, math.inf], dtype=dtype)
    x = torch.cat([beyond, -beyond]).requires_grad_()
    theta = (30 * torch.randn(12, 23, generator=rng(), dtype=dtype)).requires_grad_()
    y, log_slope = getattr(RationalQuadratic(bound=3), way)(x, theta)
    assert torch.equal(y, x) and not log_slope.any()
    slope, nothing = torch.autograd.grad((y + log_slope).sum(), [x, theta])
    assert torch.equal(slope, torch.ones_like(x)) and not nothing.any()


@dtypes
@ways
@pytest.mark.parametrize("bins", [1, 8, 200])
def test_it_meets_the_border_of_the_box_with_value_and_slope(dtype, way, bins):
    _, theta = draw(500, bins, 3.0, dtype=dtype)
    eps = torch.finfo(dtype).eps
    last = torch.full((500,), 5 * (1 - eps), dtype=dtype)
    for x in (last, -last):
        y, log_slope = getattr(RationalQuadratic(bins), way)(x, theta)
        assert ((y - x).abs() <= 5 * 5 * eps).all()
        assert (
            dtype == torch.float32 or log_slope.abs().max() < 1e-8
        )  # a steep bin is curved: eps counts 1e6-fold


@dtypes
@pytest.mark.parametrize("bins", [1, 2, 7, 100])
def test_parameters_of_zero_and_a_single_bin_are_the_identity(dtype, bins):
    x, theta = draw(300, bins, 2.0 if bins == 1 else 0.0, dtype=dtype)
    for way in ("encode", "decode"):
        y, log_slope = getattr(RationalQuadratic(bins), way)(x, theta)
        assert_close(y, x, 8 * torch.finfo(dtype).eps)
        assert_close(log_slope, torch.zeros_like(x), 64 * torch.finfo(dtype).eps * bins)


@dtypes
@pytest.mark.parametrize("scale", [1.0, 10.0, 1e3])
def test_it_increases_and_its_slope_is_positive_and_finite(dtype, scale):
    for row in draw(20, 8, scale, dtype=dtype)[1]:
        x = torch.linspace(-5.5, 5.5, 1001, dtype=dtype)
        y, log_slope = RationalQuadratic().encode(x, row.expand(1001, -1))
        assert (y.diff() >= -4e1 * torch.finfo(dtype).eps).all() and log_slope.isfinite().all()
        back, log_slope = RationalQuadratic().decode(x, row.expand(1001, -1))
        assert (back.diff() >= -4e1 * torch.finfo(dtype).eps).all() and log_slope.isfinite().all()
        assert y.abs().max() <= 5.5 and back.abs().max() <= 5.5


@dtypes
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 30.0, 1e3])
@pytest.mark.parametrize("bins", [2, 8, 32])
def test_the_inverse_is_right_to_rounding_however_steep_or_flat(dtype, scale, bins):
    """T(T⁻¹(z)) is z up to the rounding of z and of T⁻¹(z): in units of eps, box (1 + T')."""
    z, theta = draw(5000, bins, scale, dtype=dtype)
    spline, eps = RationalQuadratic(bins), torch.finfo(dtype).eps
    x, log_slope = spline.decode(z, theta)
    error = (spline.encode(x, theta)[0] - z).abs()
    assert (error <= 8 * eps * 5 * (1 + (-log_slope).exp())).all()
    assert (x.abs() <= x.new_tensor(5.0).maximum(z.abs())).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float64, 1e-10)])
def test_both_directions_undo_each_other_at_usual_weights(dtype, tolerance):
    x, theta = draw(5000, 8, 1.0, dtype=dtype)
    spline = RationalQuadratic()
    y, log_slope = spline.encode(x, theta)
    back, log_slope_back = spline.decode(y, theta)
    assert_close(back, x, tolerance)
    assert_close(log_slope_back, -log_slope, 10 * tolerance)


@ways
def test_turning_the_parameters_round_turns_the_curve_round(way):
    """-T(-x) has widths, heights and slopes in the opposite order; so a symmetric theta gives an odd map."""
    x, theta = draw(200, 6)
    spline = RationalQuadratic(6)
    turned = torch.cat([theta[:, :6].flip(1), theta[:, 6:12].flip(1), theta[:, 12:].flip(1)], 1)
    y, log_slope = getattr(spline, way)(x, theta)
    mirrored, mirrored_slope = getattr(spline, way)(-x, turned)
    assert_close(mirrored, -y)
    assert_close(mirrored_slope, log_slope, 1e-9)
    odd = (theta + turned) / 2
    assert_close(getattr(spline, way)(-x, odd)[0], -getattr(spline, way)(x, odd)[0])


def test_every_coordinate_has_a_spline_of_its_own():
    x, theta = draw(3 * 2 * 4, 5)
    x, theta = x.reshape(3, 2, 4), theta.reshape(3, 2, 4, 14).movedim(-1, 1)
    for way in ("encode", "decode"):
        both = getattr(RationalQuadratic(5), way)
        y, log_slope = both(x, theta)
        for i in range(2):
            for j in range(4):
                assert_close((y[:, i, j], log_slope[:, i, j]), both(x[:, i, j], theta[:, :, i, j]))


@ways
@pytest.mark.parametrize("shape", [(0,), (0, 3), (1, 1, 2, 2)])
def test_batches_of_none_and_of_one(way, shape):
    x = torch.zeros(shape)
    theta = torch.zeros(shape[0], 11, *shape[1:])
    y, log_slope = getattr(RationalQuadratic(4), way)(x, theta)
    assert y.shape == log_slope.shape == shape


@ways
def test_nan_stays_nan_and_spoils_nothing_else(way):
    x, theta = draw(3, 8)
    y, _ = getattr(RationalQuadratic(), way)(x.index_fill(0, torch.tensor(1), math.nan), theta)
    assert y.isnan().tolist() == [False, True, False]


@ways
@pytest.mark.parametrize("bins", [2, 3])
def test_derivatives_are_those_of_differences_once_and_twice(way, bins):
    x, theta = (a.requires_grad_() for a in draw(6, bins, 0.7))
    both = getattr(RationalQuadratic(bins), way)
    assert gradcheck(both, (x, theta)) and gradgradcheck(both, (x, theta))
    x, theta = draw(200, bins)
    grads = torch.autograd.grad(sum(a.sum() for a in both(x, theta.requires_grad_())), theta)[0]
    assert grads.any(0).all()  # each parameter counts somewhere


@pytest.mark.parametrize(("bins", "scale"), [(1, 0.0), (3, 0.0), (3, 1.0)])
def test_gradients_of_the_inverse_are_those_of_the_implicit_function(bins, scale):
    """In the middle of a bin of equal slopes both branches of the root meet: its gradient is right there too."""
    _, theta = draw(8, bins, scale)
    z = torch.tensor([0.0, 10 / 3, -10 / 3, 1.0, -1.0, 4.9, -4.9, 5.1], dtype=torch.float64)
    theta.requires_grad_(), z.requires_grad_()
    spline = RationalQuadratic(bins)
    x = spline.decode(z, theta)[0]
    at_z, at_theta = torch.autograd.grad(x.sum(), [z, theta])
    x = x.detach().requires_grad_()
    slope, of_theta = torch.autograd.grad(spline.encode(x, theta)[0].sum(), [x, theta])
    assert_close(at_z, 1 / slope, 1e-10)
    assert_close(at_theta, -of_theta / slope[:, None], 1e-10)
    log_slope = spline.decode(z, theta)[1]
    total = torch.autograd.grad(log_slope.sum(), [z, theta])
    curvature, of_theta = torch.autograd.grad(-spline.encode(x, theta)[1].sum(), [x, theta])
    assert_close(total[0], curvature * at_z, 1e-9)
    assert_close(total[1], of_theta + curvature[:, None] * at_theta, 1e-9)


@dtypes
@ways
@pytest.mark.parametrize("bins", [1, 2, 8, 150])
def test_gradients_are_finite_at_knots_borders_and_extremes(dtype, way, bins):
    borders = torch.tensor([-1e30, -5.0, 5.0, 1e30, 0.0], dtype=dtype)
    for seed, scale in enumerate([0.0, 1.0, 30.0, 1e3]):
        _, theta = draw(60, bins, scale, dtype=dtype, seed=seed)
        theta[1::3, [0, 2 * bins - 1]] = theta[2::3, [bins - 1, bins]] = (
            1e3  # steep at one border, flat at the other
        )
        ends = [parts(row, bins, 5.0)[way == "decode"] for row in theta[:, : 3 * bins - 1]]
        knots = torch.tensor([row[k % (bins + 1)] for k, row in enumerate(ends)], dtype=dtype)
        for x in (knots, *(border.expand(60) for border in borders)):
            leaves = [x.clone().requires_grad_(), theta.clone().requires_grad_()]
            y, log_slope = getattr(RationalQuadratic(bins), way)(*leaves)
            grads = torch.autograd.grad(y.sum() + log_slope.sum(), leaves)
            assert all(a.isfinite().all() for a in (y, log_slope, *grads))


@ways
def test_it_passes_through_transforms(way):
    x, theta = draw(6, 4)
    both = getattr(RationalQuadratic(4), way)
    alone = lambda x, theta: both(x[None], theta[None])[0][0]
    assert_close(vmap(alone)(x, theta), both(x, theta)[0])
    for argument in (0, 1):
        reverse, forward = (vmap(d(alone, argument))(x, theta) for d in (jacrev, jacfwd))
        assert_close(reverse, forward)
    assert_close(vmap(jacrev(alone))(x, theta).abs().log(), both(x, theta)[1], 1e-9)


@ways
def test_it_compiles_in_one_graph(way):
    torch.compiler.reset()
    x, theta = (a.requires_grad_() for a in draw(6, 4))
    both = getattr(RationalQuadratic(4), way)
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x, theta), both(x, theta))
    grads = [torch.autograd.grad(sum(a.sum() for a in f(x, theta)), [x, theta]) for f in (compiled, both)]
    assert_close(*grads)
    torch.compiler.reset()


@pytest.mark.parametrize("transform", [Affine(), RationalQuadratic()], ids=["affine", "spline"])
def test_under_autocast_a_coupling_has_the_log_determinant_of_the_map_it_computes(transform):
    g = built(Member(lambda: coupling(transform, (2,))), torch.float32, 0.5)
    x = torch.randn(64, 2, generator=rng()).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z, logdet = g(x)
        back, logdet_back = g.decode_and_logdet(z)
    assert {a.dtype for a in (z, logdet, back, logdet_back)} == {torch.float32}
    assert_close(logdet, torch.autograd.grad(z[:, 1].sum(), x)[0][:, 1].log(), 1e-4)
    assert_close(back, x, 1e-3)
    assert_close(logdet_back, -logdet, 1e-2)


def test_the_audit_finds_no_fault_in_a_coupling_by_splines():
    g = built(Member(lambda: coupling(RationalQuadratic(), (3,), 2)), scale=0.5)
    x, c = (torch.randn(16, k, generator=rng(), dtype=torch.float64) for k in (3, 2))
    audit_bijection(g, x, context=c).raise_for_faults()
