"""From pixels to the real line: dequantisation, logit, and bits per dimension that come out right."""

import math

import pytest
import torch
from registry import rng, started
from torch import nn

from cnflib import Bijection, Chain, Flow, StandardNormal
from cnflib.continuous import Hutchinson
from cnflib.discrete import Dequantize, Logit, mean_log_prob
from cnflib.metrics import bits_per_dim
from cnflib.models import ffjord, glow, realnvp
from cnflib.ode import Fixed

every_level = pytest.mark.parametrize("levels", [2, 5, 7, 100, 256])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def integers(levels, *shape, dtype=torch.float64):
    return torch.randint(levels, shape, generator=rng()).to(dtype)


class Cube:
    """The uniform density on the unit cube."""

    event_shape = (1, 4, 4)

    def log_prob(self, z, context=None, generator=None):
        inside = ((z >= 0) & (z <= 1)).flatten(1).all(1)
        return torch.zeros(len(z), dtype=z.dtype).masked_fill(~inside, -torch.inf)

    def sample(self, n, context=None, generator=None):
        return torch.rand(n, 1, 4, 4, generator=generator)


# ---- Dequantize


@every_level
@every_dtype
def test_every_integer_comes_back(levels, dtype):
    y = integers(levels, 1000, 100, dtype=dtype)
    x, _ = Dequantize(levels)(y, generator=rng())
    assert 0 < x.min() and x.max() < 1
    assert torch.equal(Dequantize(levels).decode(x), y)


@every_level
@every_dtype
@pytest.mark.parametrize("noise", ["least", "most"])
def test_integers_come_back_at_the_edges_of_their_cells(levels, dtype, noise, monkeypatch):
    u = 0.0 if noise == "least" else 1 - 2.0**-24
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, u, dtype=dtype))
    y = torch.arange(levels, dtype=dtype)[None]
    x, _ = Dequantize(levels)(y)
    assert torch.equal(Dequantize(levels).decode(x), y)
    assert ((x - (y + u) / levels).abs() < 1e-3 / levels).all()


@every_level
def test_the_noise_is_uniform_on_the_cell(levels):
    y = integers(levels, 1, 20_000)
    x, _ = Dequantize(levels)(y, generator=rng(1))
    u = (levels * x - y)[0]
    assert u.min() > 0 and u.max() < 1
    share = torch.histc(u, 10, 0, 1) / len(u)
    assert (share - 0.1).abs().max() < 4 * (0.09 / len(u)) ** 0.5
    assert abs(torch.corrcoef(torch.stack([u, y[0]]))[0, 1]) < 4 / len(u) ** 0.5


def test_the_noise_follows_the_generator_and_is_new_in_each_call():
    y, g = integers(256, 5, 3), Dequantize()
    before = torch.random.get_rng_state()
    first, again, other = (g(y, generator=rng(seed))[0] for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again) and (first != other).all()
    generator = rng()
    assert (g(y, generator=generator)[0] != g(y, generator=generator)[0]).all()


@every_level
def test_logdet_is_that_of_the_division(levels):
    y = integers(levels, 5, 2, 3)
    x, logdet = Dequantize(levels)(y)
    assert_close(logdet, torch.full((5,), -6 * math.log(levels), dtype=torch.float64))
    assert_close(Dequantize(levels).decode_and_logdet(x)[1], -logdet)
    slope = torch.autograd.functional.jacobian(lambda a: Dequantize(levels)(a, generator=rng())[0], y[:1])
    assert_close(torch.linalg.slogdet(slope.reshape(6, 6)).logabsdet, logdet[0])


def test_points_outside_the_cube_go_to_the_nearest_level():
    x = torch.tensor([[-3.0, -1e-9, 0.0, 0.999, 1.0, 7.0]])
    assert Dequantize(4).decode(x).tolist() == [[0, 0, 0, 3, 3, 3]]


@pytest.mark.parametrize(("dtype", "event"), [(torch.float32, (3,)), (torch.float64, (1, 2, 2))])
def test_shapes_and_dtypes_follow_the_input(dtype, event):
    for n in (0, 1, 4):
        y = integers(8, n, *event, dtype=dtype)
        for g in (Dequantize(8), Chain(Dequantize(8), Logit())):
            z, logdet = g(y)
            x, back = g.decode_and_logdet(z)
            assert z.shape == x.shape == y.shape and logdet.shape == back.shape == (n,)
            assert {z.dtype, logdet.dtype, x.dtype, back.dtype} == {dtype}


def test_values_are_not_looked_at_under_a_transform():
    y = torch.full((2, 3), 0.5)
    flow = Flow(Chain(Dequantize(4), Logit()), StandardNormal(3))
    torch.func.grad(lambda a: flow.log_prob(a).sum())(torch.zeros(2, 3))
    torch.compiler.reset()
    compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)
    assert compiled(y).isfinite().all()
    with pytest.raises(ValueError, match="Expected integers"):
        flow.log_prob(y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_dtype_too_coarse_for_the_levels_is_refused(dtype):
    with pytest.raises(ValueError, match="Expected x"):
        Dequantize(256)(torch.zeros(2, 3, dtype=dtype))
    assert Dequantize(4)(torch.zeros(2, 3, dtype=torch.float16))[0].dtype == torch.float16


# ---- Logit


def test_logdet_of_the_inverse_is_exact_far_out():
    z = torch.tensor([[20.5], [-22.0], [38.0], [-45.0]], dtype=torch.float64)
    size = z[:, 0].abs()
    expected = -(math.log1p(-2e-6) + size + 2 * torch.log1p((-size).exp()))
    assert_close(Logit(1e-6).decode_and_logdet(z)[1], expected, 1e-13)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1e-6])
def test_logit_is_the_formula(alpha):
    x = torch.rand(5, 2, 3, generator=rng(), dtype=torch.float64)
    z, logdet = Logit(alpha)(x)
    assert_close(z, torch.logit(alpha + (1 - 2 * alpha) * x))
    slope = torch.autograd.functional.jvp(lambda a: Logit(alpha)(a)[0], x, torch.ones_like(x))[1]
    assert_close(logdet, slope.log().flatten(1).sum(1))
    back, logdet_back = Logit(alpha).decode_and_logdet(z)
    assert_close(back, x)
    assert_close(logdet + logdet_back, torch.zeros(5).double())
    slope = torch.autograd.functional.jvp(
        lambda a: Logit(alpha).decode_and_logdet(a)[0], z, torch.ones_like(z)
    )[1]
    assert_close(logdet_back, slope.log().flatten(1).sum(1))


@every_dtype
@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_both_ends_are_finite_and_alike(alpha, dtype):
    z, logdet = Logit(alpha)(torch.tensor([[0.0], [1.0]], dtype=dtype))
    assert_close(z[0], -z[1], 1e-6)
    assert_close(logdet[0], logdet[1], 1e-6)
    assert_close(z[1].double(), torch.tensor([math.log((1 - alpha) / alpha)]).double(), 1e-6)


def test_float32_keeps_its_digits_near_one():
    x = (256 - torch.linspace(0.01, 1, 100)) / 256
    z, logdet = Logit(1e-6)(x[:, None])
    wanted = Logit(1e-6)(x[:, None].double())
    assert_close((z.double(), logdet.double()), wanted, 1e-5)


@every_dtype
def test_extreme_latents_have_a_finite_logdet(dtype):
    z = torch.tensor([[-200.0], [-40.0], [40.0], [200.0]], dtype=dtype)
    x, logdet = Logit(0.05).decode_and_logdet(z)
    assert_close(logdet, -z.abs()[:, 0] - math.log(0.9), 1e-6)
    assert (x >= -0.05 / 0.9 - 1e-6).all() and (x <= 1 + 0.05 / 0.9 + 1e-6).all()


@every_dtype
@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.45, 1e-3, 1e-6])
def test_whatever_is_decoded_is_encoded_to_what_rounding_leaves_of_it(alpha, dtype):
    g, eps = Logit(alpha), torch.finfo(dtype).eps
    z = torch.cat([torch.linspace(-60, 60, 4001), torch.tensor([-1e30, -1e4, 1e4, 1e30])]).to(dtype)[:, None]
    x = g.decode(z)
    back, logdet = g(x)
    assert logdet.isfinite().all() and back.isfinite().all()
    near = z.abs() < -math.log(16 * eps)
    assert ((back - z).abs() / z.abs().exp())[near].max() < 8 * eps
    beyond = z.abs() > -math.log(4 * eps)
    assert ((back - z).sign() == -z.sign())[beyond].all()  # held off from the border
    assert_close(g.decode(back), x, 8 * eps)


@every_dtype
def test_outside_of_what_is_decoded_the_density_is_zero_row_by_row(dtype):
    """Its mass is 1 on what it decodes; one row outside leaves the others as they are."""
    edge = 0.05 / 0.9
    x = torch.tensor([[0.5], [-1.0], [1 + 1.01 * edge], [255.0], [-0.99 * edge], [torch.nan]], dtype=dtype)
    flow = Flow(Logit(), StandardNormal(1)).to(dtype)
    x.requires_grad_()
    log_prob = flow.log_prob(x)
    assert log_prob.isfinite().tolist() == [True, False, False, False, True, False]
    assert (log_prob[1:4] == -torch.inf).all() and log_prob[5].isnan()
    assert torch.autograd.grad(log_prob[:5].sum(), x)[0][:5].isfinite().all()
    line = (torch.arange(20_000, dtype=dtype)[:, None] + 0.5) / 20_000 * 3 - 1
    assert abs(flow.log_prob(line).exp().sum().item() * 3 / 20_000 - 1) < 1e-3
    assert flow.log_prob(flow.sample(20_000, generator=rng())).isfinite().all()


def test_logit_has_right_gradients():
    x = torch.rand(2, 3, generator=rng(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: Logit()(a), x, check_forward_ad=True)
    z = torch.randn(2, 3, generator=rng(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: Logit().decode_and_logdet(a), z, check_forward_ad=True)


# ---- bits per dimension


@every_level
@every_dtype
def test_a_uniform_density_takes_exactly_log2_of_the_levels(levels, dtype):
    flow = Flow(Dequantize(levels), Cube())
    y = integers(levels, 20, 1, 4, 4, dtype=dtype)
    bits = bits_per_dim(mean_log_prob(flow, y, draws=3), dims=16, levels=1)
    assert bits.value == pytest.approx(math.log2(levels), rel=1e-6)
    assert bits.standard_error < 1e-6


def test_bits_are_those_of_pixels_in_the_unit_cube():
    """The log-determinants inside the flow do what ``levels`` does for a density of x in [0, 1)."""
    inner = started(glow(shape=(1, 4, 4), layers=1, hidden=(4,)), (1, 4, 4)).double()
    y = integers(8, 6, 1, 4, 4)
    whole = inner.after(Chain(Dequantize(8), Logit()))
    x = Dequantize(8)(y, generator=rng())[0]
    of_cube = inner.after(Logit()).log_prob(x)
    ours = bits_per_dim(whole.log_prob(y, generator=rng()), dims=16, levels=1)
    assert ours.value == pytest.approx(bits_per_dim(of_cube, dims=16, levels=8).value, rel=1e-12)


def test_cells_share_the_mass_of_the_cube():
    """In one dimension the mean density over a cell is the probability of its integer; all add up to the cube's."""
    flow = Flow(Chain(Dequantize(4), Logit()), StandardNormal(1)).double()
    y = torch.arange(4.0, dtype=torch.float64).repeat_interleave(50_000)[:, None]
    p = flow.log_prob(y, generator=rng()).exp().reshape(4, -1)
    edge = math.log(19)  # the logit of 1 - alpha
    cube = math.erf(edge / 2**0.5)
    assert abs(p.mean(1).sum() - cube) < 4 * (p.var(1) / 50_000).sum() ** 0.5
    bound = flow.log_prob(y, generator=rng()).reshape(4, -1).mean(1)
    assert (bound < p.mean(1).log()).all()  # Jensen


class Uneven(Bijection):
    """Noise of one's own, of a density that is not uniform in a cell."""

    def encode_and_logdet(self, x, context=None, generator=None):
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype).clamp(1e-6)
        return (x + u**2) / 4, (2 * u / 4).log().flatten(1).sum(1)

    def decode_and_logdet(self, z, context=None, generator=None):
        return (4 * z).floor(), z.new_zeros(z.shape[0])


@pytest.mark.parametrize("draws", [1, 3])
def test_a_flow_without_noise_gets_no_number_of_bits(draws):
    """Pixels divided by hand, whose density has no bound; noise of one's own is as good as Dequantize."""
    y, context = integers(4, 5, 2, dtype=torch.float32), torch.randn(5, 3, generator=rng())
    bare = ffjord(dim=2, hidden=(4,), divergence=Hutchinson(), solver=Fixed(2))
    for flow, x, c in ((bare, y / 4, None), (realnvp(dim=2, context=3), y / 4, context)):
        with pytest.raises(ValueError, match=r"Expected flow to add noise.*after\(Chain\(Dequantize"):
            mean_log_prob(flow, x, draws, c, rng())
    for noise in (Dequantize(4), Uneven()):
        assert mean_log_prob(bare.after(noise), y, draws, None, rng()).isfinite().all()


def test_integers_of_an_integer_dtype_are_refused_by_encode_alone_too():
    for y in (torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"Expected x of a dtype.*x\.float\(\)"):
            Dequantize(17).encode(y)


def test_draws_are_averaged_row_by_row():
    flow, y = Flow(Chain(Dequantize(4), Logit()), StandardNormal(3)), integers(4, 5, 3)
    generator = rng()
    each = torch.stack([flow.log_prob(y, generator=generator) for _ in range(6)])
    assert_close(mean_log_prob(flow, y, 6, generator=rng()), each.mean(0))
    assert_close(mean_log_prob(flow, y, generator=rng()), each[0])


def test_more_draws_take_scatter_away_and_do_not_flatter():
    flow, y = Flow(Chain(Dequantize(4), Logit()), StandardNormal(3)), integers(4, 1, 3).repeat(4000, 1)
    one, many = (mean_log_prob(flow, y, k, generator=rng(k)) for k in (1, 16))
    assert 3 < one.std() / many.std() < 5
    assert abs(one.mean() - many.mean()) < 4 * one.std() / 4000**0.5


def test_the_context_arrives():
    inner = realnvp(dim=2, hidden=(4,), context=3, activation=nn.Tanh).double()
    nn.init.normal_(inner.bijection.layers[0].net.net[-1].weight, generator=rng())
    flow = Flow(Chain(Dequantize(4), Logit(), inner.bijection), inner.base)
    y, context = integers(4, 5, 2), torch.randn(5, 3, generator=rng(), dtype=torch.float64)
    a, b = (mean_log_prob(flow, y, 2, c, rng()) for c in (context, context + 1))
    assert (a != b).all()


def test_samples_are_integers_of_the_levels():
    inner = glow(shape=(1, 4, 4), layers=1, hidden=(4,))
    flow = Flow(Chain(Dequantize(8), Logit(), inner.bijection), inner.base)
    y = flow.sample(200, generator=rng())
    assert torch.equal(y, y.round()) and y.min() == 0 and y.max() == 7
    assert flow.log_prob(y).isfinite().all()
