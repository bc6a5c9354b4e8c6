"""The laws of a bijection, held against every member of the registry at perturbed weights."""

import copy
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from fitting import log_volumes
from registry import (
    Member,
    bijections,
    built,
    coupling,
    devices,
    far,
    field,
    points,
    rng,
    seeded,
    standardize,
)

from cnflib import Bijection, Chain, Flow, Inverse, Standardize, StandardNormal
from cnflib.continuous import CNF, Exact, Hutchinson
from cnflib.discrete import ActNorm, Affine
from cnflib.ode import Fixed, euler

every = pytest.mark.parametrize("name", bijections)
exactly = pytest.mark.parametrize("name", [n for n, m in bijections.items() if not m.noisy])
estimated = pytest.mark.parametrize("name", [n for n, m in bijections.items() if m.noisy])
maps = {"encode": lambda g: g.encode_and_logdet, "decode": lambda g: g.decode_and_logdet}
both_ways = pytest.mark.parametrize("way", maps)


def setup(name, n=3, dtype=torch.float64):
    member = bijections[name]
    return built(member, dtype), *points(member, n, dtype)


def assert_close(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def precision(g):
    """The error that float64 allows: a closed form is exact but for rounding, a solve has an error of its own."""
    return 1e-6 if any(isinstance(module, CNF) for module in g.modules()) else 1e-9


@every
def test_decoding_undoes_encoding_and_their_logdets_cancel(name):
    g, x, context = setup(name)
    z, there = g.encode_and_logdet(x, context, rng())
    back, again = g.decode_and_logdet(z, context, rng())
    assert_close(back, x, precision(g))
    assert_close(there + again, torch.zeros_like(there), precision(g))


@every
def test_encoding_undoes_decoding(name):
    g, x, context = setup(name)
    assert_close(g.encode(g.decode(x, context), context), x, precision(g))


@every
def test_a_call_is_encode_and_logdet(name):
    g, x, context = setup(name)
    assert_close(g(x, context, rng()), g.encode_and_logdet(x, context, rng()), 0)


@every
def test_inverse_swaps_all_four(name):
    g, x, context = setup(name)
    z, turned = g.encode(x, context), Inverse(g)
    assert_close(turned.encode_and_logdet(z, context, rng()), g.decode_and_logdet(z, context, rng()), 0)
    assert_close(turned.decode_and_logdet(x, context, rng()), g.encode_and_logdet(x, context, rng()), 0)
    assert_close(turned.encode(z, context), g.decode(z, context), 0)
    assert_close(turned.decode(x, context), g.encode(x, context), 0)


either_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@every
@either_dtype
def test_a_bijection_encodes_what_it_decoded_of_latents_far_out(name, dtype):
    """Up to the error of a solve by few steps; of Logit up to what rounding leaves of the latent."""
    g, (z, context) = built(bijections[name], dtype), far(bijections[name], (40.0, 1e4), dtype)
    with torch.no_grad():
        x = g.decode(z, context)
        back, logdet = g.encode_and_logdet(x, context, rng())
        again = g.decode(back, context)
    tolerance = 1e-2 if "CNF" in name or "hutchinson" in name else 1e-9 if dtype == torch.float64 else 1e-3
    for a, b in ((again, x), (back, z))[: 1 if name == "Logit" else 2]:
        assert ((a - b).flatten(1).norm(dim=1) <= tolerance * (1 + b.flatten(1).norm(dim=1))).all()
    assert back.isfinite().all() and logdet.isfinite().all()


@every
@either_dtype
def test_far_out_a_log_density_is_a_number_or_minus_infinity(name, dtype):
    member = bijections[name]
    g, (x, context) = built(member, dtype), far(member, (1e10, 1e20, 1e30), dtype)
    for bijection in (g, Inverse(g)):
        with torch.no_grad():
            log_prob = Flow(bijection, StandardNormal(member.shape).to(dtype)).log_prob(x, context, rng())
        assert (log_prob < torch.inf).all()  # NaN is not


@exactly
@both_ways
def test_logdet_is_that_of_the_jacobian(name, way):
    g, x, context = setup(name)
    there = maps[way](g)
    wanted = log_volumes(lambda y, c: there(y, c, rng()), x, context)
    assert_close(there(x, context)[1], wanted, precision(g))


@estimated
@both_ways
def test_estimated_logdet_is_unbiased(name, way):
    g, x, context = setup(name, n=2)
    draws = 1000
    many = [None if a is None else a.repeat(draws, *[1] * (a.ndim - 1)) for a in (x, context)]
    there = maps[way](g)
    samples = there(*many, rng())[1].reshape(draws, -1)
    error = samples.mean(0) - log_volumes(lambda y, c: there(y, c, rng()), x, context)
    assert samples.std(0).min() > 0
    assert (error.abs() < 4 * samples.std(0) / draws**0.5).all()


@every
def test_encode_and_decode_are_the_points_alone(name):
    g, x, context = setup(name)
    assert_close(g.encode(x, context), g.encode_and_logdet(x, context)[0])
    assert_close(g.decode(x, context), g.decode_and_logdet(x, context)[0])


@every
def test_the_event_shape_is_that_of_the_data_or_unknown(name):
    g = bijections[name].build()
    assert g.event_shape in (None, bijections[name].shape)
    assert g.channels in (None, bijections[name].shape[0])


@every
def test_a_call_checks_what_it_is_given(name):
    g, x, context = setup(name)
    for wrong in (x.flatten(), x.long(), x.float()):
        if any(True for _ in (*g.parameters(), *g.buffers())) or wrong.dtype != torch.float32:
            with pytest.raises(ValueError, match="Expected x"):
                g(wrong, context if len(wrong) == len(x) else None)
    with pytest.raises(ValueError, match="context"):
        g(x, torch.zeros(len(x) + 1, 3, dtype=x.dtype))


@every
@both_ways
def test_shapes_are_those_of_the_data_and_of_the_batch(name, way):
    g, x, context = setup(name)
    y, logdet = maps[way](g)(x, context)
    assert y.shape == x.shape
    assert logdet.shape == x.shape[:1]


@every
@both_ways
def test_gradient_reaches_every_parameter(name, way):
    g, x, context = setup(name)
    y, logdet = maps[way](g)(x, context, rng())
    parameters = list(g.parameters())
    if parameters:
        weights = torch.randn(
            y.shape, generator=rng(9), dtype=y.dtype
        )  # a loss that no rotation leaves as it is
        grads = torch.autograd.grad((weights * y).sum() - logdet.sum(), parameters)
        assert all(grad.isfinite().all() and grad.abs().max() > 1e-9 for grad in grads)
    else:
        assert not y.requires_grad


@every
def test_gradient_reaches_x_and_context(name):
    g, x, context = setup(name)
    leaves = [leaf.requires_grad_() for leaf in (x, context) if leaf is not None]
    z, logdet = g(x, context, rng())
    grads = torch.autograd.grad(z.square().sum() - logdet.sum(), leaves)
    assert all((grad.flatten(1) != 0).any(1).all() for grad in grads)


@every
def test_a_saved_or_copied_bijection_is_the_same_map_with_weights_of_its_own(name):
    g, x, context = setup(name)
    fresh = bijections[name].build().double()
    fresh.load_state_dict(g.state_dict())
    wanted = g(x, context, rng())
    for other in (fresh, copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert_close(other(x, context, rng()), wanted, 0)
        assert not {p.data_ptr() for p in g.parameters()} & {p.data_ptr() for p in other.parameters()}


@every
@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float32, d) for d in devices] + [(torch.float64, d) for d in devices[1:]]
)
def test_dtype_and_device_follow_the_input(name, dtype, device):
    g, x, context = setup(name)
    if "adaptive" in name and dtype == torch.float32:
        pytest.skip("its tolerance is below what float32 can hold")
    wanted = g(x, context)[0]
    there = [None if a is None else a.to(device, dtype) for a in (x, context)]
    z, logdet = g.to(device, dtype)(*there)
    assert (z.dtype, logdet.dtype, z.device.type, logdet.device.type) == (dtype, dtype, device, device)
    assert_close(z.cpu().double(), wanted, 1e-4 if dtype == torch.float32 else 1e-6)


@every
@both_ways
def test_an_empty_batch_stays_empty(name, way):
    g, x, context = setup(name, n=0)
    y, logdet = maps[way](g)(x, context)
    assert y.shape == x.shape and logdet.shape == (0,)
    assert g.decode(x, context).shape == x.shape


@every
def test_strides_do_not_matter(name):
    g, x, context = setup(name)
    z, logdet = g(x, context, rng())
    turned = x.movedim(0, -1).contiguous().movedim(-1, 0)
    assert_close(g(turned, context, rng()), (z, logdet))
    wide = None if context is None else context[:1].expand(len(x), -1)
    assert_close(g(x[:1].expand_as(x), wide)[0], z[:1].expand_as(z))


@exactly
def test_a_row_does_not_depend_on_its_batch_mates(name):
    g, x, context = setup(name)
    alone = [g(x[i : i + 1], None if context is None else context[i : i + 1]) for i in range(len(x))]
    assert_close(g(x, context), tuple(torch.cat(parts) for parts in zip(*alone, strict=True)))


@every
def test_a_generator_determines_the_draws_and_leaves_the_default_one_alone(name):
    g, x, context = setup(name)
    before = torch.random.get_rng_state()
    first, again, other = (g(x, context, rng(seed))[1] for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_close(first, again, 0)
    assert torch.equal(first, other) == (not bijections[name].noisy)


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson()], ids=["exact", "hutchinson"])
def test_a_fixed_step_flow_compiles_without_a_graph_break(divergence):
    def build():
        cnf = CNF(field(), divergence, Fixed(1, euler))
        return Flow(Chain(standardize(), coupling(Affine()), cnf), StandardNormal(2))

    flow = built(Member(build))
    x, _ = points(Member(None))
    with seeded():
        compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)(x)
    with seeded():
        assert_close(compiled, flow.log_prob(x))


def test_standardize_gives_zero_mean_and_unit_variance():
    x = torch.randn(100, 3, generator=rng(), dtype=torch.float64) * torch.tensor([1.0, 5, 0.1]) + 7
    z, logdet = Standardize(x.mean(0), x.std(0))(x)
    assert_close(z.mean(0), torch.zeros(3).double())
    assert_close(z.std(0), torch.ones(3).double())
    assert_close(logdet, -x.std(0).log().sum().expand(100))


TABLE = np.random.default_rng(0).normal(size=(20, 13))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["NumPy", "read-only", "list", "pandas", "integers"])
def test_standardize_fits_what_numpy_takes_for_a_table(kind):
    pandas = pytest.importorskip("pandas")
    table = (10 * TABLE).astype(int) if kind == "integers" else TABLE.copy()
    table.flags.writeable = kind != "read-only"
    made = {"list": np.ndarray.tolist, "pandas": pandas.DataFrame}.get(kind, np.asarray)(table)
    one, other = Standardize.fit(made), Standardize.fit(torch.tensor(table))
    assert torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)


def with_column(value, *columns):
    table = TABLE.copy()
    table[:, list(columns)] = value
    return table


NO_TABLE = {
    "NaN": (with_column(np.nan, 1, 4), r"of 20 rows and 13 columns 2 are not finite: number 1, 4,.*isfinite"),
    "inf": (with_column(np.inf, 3), "1 is not finite: number 3,"),
    "NaN beside a constant": (
        with_column(1.0, 2) * np.where(np.arange(13) == 5, np.nan, 1),
        "finite: number 5,",
    ),
    "constant": (with_column(7.0, 2), "1 is constant, up to rounding: number 2,"),
    "all constant": (with_column(1.0, *range(13)), "13 are constant.*: number 0, 1, 2, 3, 4, …,"),
    "one row": (TABLE[:1], r"N ≥ 2 rows; got \(1, 13\)"),
    "no row": (TABLE[:0], r"N ≥ 2 rows; got \(0, 13\)"),
    "one number": (3.0, r"N ≥ 2 rows; got \(\)"),
    "numbers": (TABLE[:, 0], r"x\[:, None\]"),
}


@pytest.mark.filterwarnings("ignore:var_mean")
@pytest.mark.parametrize("name", NO_TABLE)
def test_a_table_without_deviations_is_named_by_its_columns(name):
    table, message = NO_TABLE[name]
    with pytest.raises(ValueError, match=message) as error:
        Standardize.fit(table)
    assert "Standardize.fit(x)" not in str(error.value)


@pytest.mark.parametrize("constant", [1 / 3, 0.1, -1e6 / 3, 1e-12 / 3])
def test_a_column_that_is_constant_up_to_rounding_has_no_density(constant):
    """Single and double, and a table of singles as doubles; NumPy's deviation of equal numbers is not 0."""
    x = np.random.default_rng(0).normal(size=(1000, 2))
    x[:, 1] = constant
    single = x.astype(np.float32)
    jittered = single.copy()
    jittered[::2, 1] = np.nextafter(jittered[::2, 1], np.float32(2e6))
    for table in map(torch.from_numpy, (x, single, single.astype(float), jittered, jittered.astype(float))):
        with pytest.raises(ValueError, match="constant"):
            ActNorm(2).to(table)(table)
        for kept in (torch.float32, torch.float64):
            with default_dtype(kept), pytest.raises(ValueError, match="constant"):
                Standardize.fit(table)
    with pytest.raises(ValueError, match="constant"):
        Standardize(torch.from_numpy(x.mean(0)), torch.from_numpy(x.std(0)))


@pytest.mark.parametrize(
    ("mean", "std", "dtype"),
    [
        (1e-12, 1e-12, torch.float32),
        (1e-12, 1e-12, torch.float64),
        (1e6, 1.0, torch.float32),
        (1e6, 1.0, torch.float64),
        (1e9, 1.0, torch.float64),
        (0.0, 1e-12, torch.float32),
    ],
)
def test_a_column_of_small_scale_or_far_from_zero_is_no_constant(mean, std, dtype):
    x = (mean + std * torch.randn(1000, 1, generator=rng(), dtype=torch.float64)).to(dtype)
    with default_dtype(dtype):
        maps = [Standardize.fit(x), Standardize(x.mean(0), x.std(0)), ActNorm(1)]
    for g in maps:
        z = g(x)[0].double()
        assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_standardize_keeps_its_own_copy_of_the_statistics():
    mean, std = torch.zeros(2), torch.ones(2)
    g = Standardize(mean, std)
    std.fill_(5.0)
    assert g.std.tolist() == [1, 1] and not g.mean.requires_grad


def test_chain_runs_left_to_right():
    shift, scale = Standardize(torch.ones(1), torch.ones(1)), Standardize(torch.zeros(1), 2 * torch.ones(1))
    z, _ = Chain(shift, scale)(torch.tensor([[5.0]]))
    assert z.item() == 2  # (5 - 1) / 2, not 5 / 2 - 1


def test_inverse_of_inverse_is_the_bijection():
    g, x, _ = setup("Chain")
    assert_close(Inverse(Inverse(g))(x), g(x), 0)


def test_a_bijection_must_have_both_directions():
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Bijection,), {"encode_and_logdet": lambda self, x: x})()
