"""ActNorm, the invertible 1 × 1 convolution, the triangular map: closed forms, the first batch, every derivative."""

import copy
import math
import pickle

import pytest
import torch
from registry import Member, built, points, rng, seeded, started
from torch.autograd.functional import jacobian

from cnflib import Chain, Inverse
from cnflib.discrete import ActNorm, Flatten, InvertibleConv1x1, LowerTriangular
from cnflib.models import gaussian
from cnflib.train import EMA

shapes = pytest.mark.parametrize("event", [(3,), (3, 2), (3, 2, 4)])


def draws(n, event, seed=0, dtype=torch.float64):
    """Data whose channels have means and deviations of their own."""
    x = torch.randn(n, *event, generator=rng(seed), dtype=dtype)
    per_channel = [1] * (len(event) - 1)
    return x * torch.tensor([0.1, 1, 20], dtype=dtype).view(3, *per_channel) + torch.tensor(
        [5, 0, -100], dtype=dtype
    ).view(3, *per_channel)


def norm():
    return ActNorm(3).double()


def mix(scale=0.3, seed=0):
    """A convolution at random weights."""
    g = InvertibleConv1x1(3, rng(seed)).double()
    with torch.no_grad():
        g.lu += scale * torch.randn(3, 3, generator=rng(seed + 1), dtype=torch.float64)
    return g


def trained(g, event=(3, 2, 2), steps=30):
    """After some steps of maximum likelihood on data with correlated channels."""
    x = draws(64, event)
    x = x + 2 * x[:, :1]
    optimizer = torch.optim.Adam(g.parameters(), 0.05)
    for _ in range(steps):
        z, logdet = g(x)
        optimizer.zero_grad()
        (0.5 * z.square().flatten(1).sum(1) - logdet).mean().backward()
        optimizer.step()
    return g


def assert_close(a, b, tolerance=1e-9):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def log_volume(g, x):
    """log |det| of the Jacobian of each row."""
    return torch.stack(
        [
            torch.linalg.slogdet(jacobian(lambda y: g(y[None])[0][0], row).reshape(row.numel(), -1)).logabsdet
            for row in x
        ]
    )


@shapes
@pytest.mark.parametrize("weights", ["random", "trained"])
@pytest.mark.parametrize("kind", ["ActNorm", "InvertibleConv1x1"])
def test_inverse_and_logdet_to_rounding_both_ways(kind, weights, event):
    g = started(ActNorm(3), (3,)).double() if kind == "ActNorm" else mix()
    if weights == "trained":
        g = trained(g, event)
    x = draws(4, event, 1)
    z, logdet = g(x)
    back, logdet_back = g.decode_and_logdet(z)
    assert_close(back, x)
    assert_close(g.decode(z), x)
    assert_close(logdet + logdet_back, torch.zeros(4).double())
    assert_close(logdet, log_volume(g, x))
    assert_close(logdet_back, log_volume(g.decode_and_logdet, z))


@pytest.mark.parametrize("kind", [ActNorm, InvertibleConv1x1])
def test_logdet_of_an_mnist_image_counts_every_pixel(kind):
    """784 pixels of one channel: the Jacobian is diagonal."""
    g = started(kind(1), (1, 3, 3)).double()
    with torch.no_grad():
        for p in g.parameters():
            p += 0.3
    x = torch.randn(2, 1, 28, 28, generator=rng(), dtype=torch.float64)
    z, logdet = g(x)
    slope = torch.autograd.functional.jvp(lambda y: g(y)[0], x, torch.ones_like(x))[1]
    assert_close(logdet, slope.abs().log().flatten(1).sum(1))
    assert_close(g.decode_and_logdet(z)[0], x)


# ---- ActNorm


@shapes
def test_the_first_batch_gets_zero_mean_and_unit_variance_per_channel(event):
    x = draws(20, event)
    g = norm()
    z, logdet = g(x)
    channels = z.transpose(0, 1).flatten(1)
    assert_close(channels.mean(1), torch.zeros(3).double())
    assert_close(channels.var(1, correction=0), torch.ones(3).double())
    spread = x.transpose(0, 1).flatten(1).std(1, correction=0).log().sum()
    assert_close(logdet, -x[0, 0].numel() * spread.expand(20))


def test_only_the_first_batch_counts():
    g = norm()
    g(draws(20, (3,)))
    loc, log_scale = g.loc.clone(), g.log_scale.clone()
    g(draws(20, (3,), 1) + 7)
    assert torch.equal(g.loc, loc) and torch.equal(g.log_scale, log_scale)


def test_no_batch_counts_in_eval_mode_or_in_the_inverse():
    g, x = norm(), draws(20, (3,))
    assert torch.equal(g.decode_and_logdet(x)[0], x) and torch.equal(g.decode(x), x)
    z, logdet = g.eval()(x)
    assert torch.equal(z, x) and not logdet.any() and not g.initialized
    g.train()(x)
    assert g.initialized


@shapes
def test_one_image_is_a_batch_where_it_has_pixels(event):
    if event == (3,):
        with pytest.raises(ValueError, match="not constant"):
            norm()(draws(1, event))
    else:
        assert norm()(draws(1, event))[0].isfinite().all()


def test_the_first_batch_reaches_every_actnorm_of_a_chain_in_turn():
    chain = Chain(ActNorm(3), InvertibleConv1x1(3), ActNorm(3)).double()
    z, _ = chain(draws(50, (3, 2, 2)))
    channels = z.transpose(0, 1).flatten(1)
    assert_close(channels.mean(1), torch.zeros(3).double())
    assert_close(channels.var(1, correction=0), torch.ones(3).double())


def test_the_first_call_already_has_gradients():
    g = norm()
    z, logdet = g(draws(20, (3, 2, 2)))
    (z.square().sum() - logdet.sum()).backward()
    assert g.log_scale.grad.all() and g.loc.grad.isfinite().all()
    assert g.loc.is_leaf and g.loc.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_first_batch_counts_without_gradients_too(mode):
    g, x = norm(), draws(20, (3,))
    with mode():
        g(x)
    z, _ = g(x)
    assert_close(z.mean(0), torch.zeros(3).double())
    z.sum().backward()


def test_large_means_do_not_spoil_the_variance_in_float32():
    x = torch.randn(1000, 3, 4, 4, generator=rng()) + 1000
    z, _ = ActNorm(3)(x)
    assert_close(z.std((0, 2, 3)), torch.ones(3), 1e-3)


def test_the_state_dict_knows_whether_there_was_a_first_batch():
    x, other = draws(20, (3,)), draws(20, (3,), 1) * 3
    done, fresh = norm(), norm()
    untouched = norm().state_dict()
    z, _ = done(x)
    fresh.load_state_dict(done.state_dict())
    fresh(other)
    assert torch.equal(fresh(x)[0], z)  # the second batch did not set it up anew
    done.load_state_dict(untouched)
    assert_close(done(other)[0].mean(0), torch.zeros(3).double())  # and this one did


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda g: pickle.loads(pickle.dumps(g))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("before", [True, False])
def test_a_copy_has_a_first_batch_of_its_own(copied, before):
    x, other = draws(20, (3,)), draws(20, (3,), 1) + 3
    g = norm()
    if before:
        twin = copied(g)
    z, _ = g(x)
    if not before:
        twin = copied(g)
    centred = twin(other)[0].mean(0).abs().max() < 1e-9
    assert centred == before
    assert torch.equal(g(x)[0], z)


@pytest.mark.parametrize("early", [True, False])
def test_an_average_of_weights_follows(early):
    g, x = norm(), draws(20, (3,))
    if not early:
        g(x)
    ema = EMA(g, decay=0.0)
    g(x)
    ema.update()
    assert torch.equal(ema.module(x)[0], g(x)[0])
    ema.module.train()
    other = draws(20, (3,), 1) + 3
    assert torch.equal(ema.module(other)[0], g(other)[0])  # copied buffers count: no new first batch


@pytest.mark.parametrize("loaded", [True, False])
def test_it_compiles_without_a_graph_break_after_the_first_batch(loaded):
    g, x = norm(), draws(20, (3, 2, 2))
    z, logdet = g(x)
    if loaded:
        state, g = g.state_dict(), norm()
        g.load_state_dict(state)
    torch.compiler.reset()
    compiled = torch.compile(g, backend="eager", fullgraph=True)
    assert_close(compiled(x), (z, logdet), 1e-12)


def test_before_the_first_batch_a_transform_is_told_to_wait():
    g, x = norm(), draws(20, (3,))
    with pytest.raises(ValueError, match="seen data"):
        torch.func.vjp(lambda y: g(y)[0], x)
    torch.func.vjp(lambda y: g.eval()(y)[0], x)
    g.train()(x)
    torch.func.vjp(lambda y: g(y)[0], x)


def test_a_failed_first_batch_leaves_it_as_it_was():
    g = norm()
    x = draws(20, (3,))
    x[:, 1] = 4
    with pytest.raises(ValueError, match="not constant"):
        g(x)
    assert not g.initialized and not g.loc.any() and not g.log_scale.any()
    x[0, 1] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        g(x)
    assert_close(g(draws(20, (3,)))[0].mean(0), torch.zeros(3).double())


# ---- InvertibleConv1x1


@pytest.mark.parametrize("channels", [1, 2, 5, 48])
def test_it_starts_as_a_rotation(channels):
    W = InvertibleConv1x1(channels, rng()).double().weight()
    assert_close(W @ W.T, torch.eye(channels).double(), 2e-6)  # its weights were drawn in float32
    assert InvertibleConv1x1(channels, rng()).lu.diagonal().sum().abs() < 1e-5


def test_rotations_differ_and_mix_every_channel():
    a, b, again = (InvertibleConv1x1(6, rng(seed)).weight() for seed in (0, 1, 0))
    assert torch.equal(a, again) and not torch.equal(a, b)
    assert (a.abs() > 1e-3).all() and (a.abs() < 0.999).all()


def test_its_generator_leaves_the_default_one_alone():
    before = torch.random.get_rng_state()
    InvertibleConv1x1(3, rng())
    assert torch.equal(torch.random.get_rng_state(), before)
    with seeded():
        InvertibleConv1x1(3)
        assert not torch.equal(torch.random.get_rng_state(), before)


@shapes
def test_it_is_the_same_matrix_at_every_pixel(event):
    g, x = mix(), draws(4, event)
    wanted = torch.einsum("ij,bj...->bi...", g.weight(), x)
    assert_close(g(x)[0], wanted)


def test_the_matrix_is_that_of_the_docstring():
    g = mix(1.0)
    P = torch.eye(3).double()[g.permutation]
    assert sorted(g.permutation.tolist()) == [0, 1, 2] and set(g.sign.tolist()) <= {1.0, -1.0}
    L, U = g.lu.tril(-1) + torch.eye(3), g.lu.triu(1) + torch.diag(g.sign * g.lu.diagonal().exp())
    assert_close(g.weight(), P @ L @ U)
    assert_close(g(draws(1, (3,)))[1][0], torch.linalg.slogdet(g.weight()).logabsdet)


def test_sign_and_order_of_the_start_are_kept():
    """A determinant of -1 is as good a start: the sign stays what it was, whatever is learned."""
    signs = {InvertibleConv1x1(3, rng(s)).weight().det().sign().item() for s in range(8)}
    assert signs == {1.0, -1.0}
    g = InvertibleConv1x1(3, rng(1)).double()
    assert trained(g).weight().det().sign() == InvertibleConv1x1(3, rng(1)).weight().det().sign()


def test_every_number_of_the_matrix_is_learned():
    g, x = mix(), draws(5, (3, 2))
    z, logdet = g(x)
    (z.square().sum() - logdet.sum()).backward()
    assert g.lu.grad.all()
    assert sum(p.numel() for p in g.parameters()) == 9


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_gradients_are_those_of_differences(way):
    g, x = mix(), torch.randn(2, 3, 2, generator=rng(), dtype=torch.float64, requires_grad=True)

    def outputs(lu, x):
        return torch.func.functional_call(g, {"lu": lu}, (x,)) if way == "encode" else _inverse(g, lu, x)

    lu = g.lu.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(outputs, (lu, x), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(outputs, (lu, x), check_fwd_over_rev=True)


def _inverse(g, lu, x):
    return torch.func.functional_call(Inverse(g), {"bijection.lu": lu}, (x,))


def test_tangents_and_gradients_of_gradients_agree_in_the_inverse():
    """Reverse over forward: for torch.linalg.solve it is wrong, for triangular solves it must be right."""
    g = mix()
    x, v = (torch.randn(2, 3, 2, generator=rng(s), dtype=torch.float64) for s in (1, 2))
    function = lambda lu, y: _inverse(g, lu, y)[0].pow(3).sum()  # noqa: E731
    along = lambda lu: torch.func.jvp(lambda y: function(lu, y), (x,), (v,))[1]  # noqa: E731
    lu = g.lu.detach()
    ours = torch.func.grad(along)(lu)
    h, wanted = 1e-6, torch.zeros(3, 3).double()
    for i in range(3):
        for j in range(3):
            e = torch.zeros(3, 3).double()
            e[i, j] = h
            wanted[i, j] = (along(lu + e) - along(lu - e)) / (2 * h)
    assert_close(ours, wanted, 1e-6)


@pytest.mark.parametrize("function", [torch.func.jacrev, torch.func.jacfwd])
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_func_transforms_pass_through(function, way):
    g, x = mix(), draws(2, (3, 2))
    call = g if way == "encode" else g.decode_and_logdet
    full = torch.func.vmap(function(lambda row: call(row[None])[0][0]))(x)
    assert_close(torch.linalg.slogdet(full.reshape(2, 6, 6)).logabsdet, call(x)[1])


def test_it_compiles_without_a_graph_break():
    g, x = mix(), draws(4, (3, 2, 2))
    for call in (g, g.decode_and_logdet):
        torch.compiler.reset()
        assert_close(torch.compile(call, backend="eager", fullgraph=True)(x), call(x), 1e-12)


def test_in_float32_many_channels_invert_to_its_precision():
    g = InvertibleConv1x1(48, rng())
    x = torch.randn(4, 48, 7, 7, generator=rng())
    assert_close(g.decode(g(x)[0]), x, 1e-4)


def test_a_context_is_ignored():
    x, context = draws(4, (3, 2)), torch.ones(4, 5).double()
    for g in (started(ActNorm(3), (3, 2)).double(), mix(), Flatten((3, 2))):
        assert torch.equal(g(x, context)[0], g(x)[0])


def test_under_autocast_the_matrix_is_applied_in_the_dtype_of_x():
    for shape in ((4,), (4, 3, 3)):
        mix = InvertibleConv1x1(4)
        x = torch.randn(5, *shape, generator=rng())
        with torch.autocast("cpu", torch.bfloat16):
            z, _ = mix(x)
            back = mix.decode(z)
        assert z.dtype == torch.float32
        torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)


# ---- LowerTriangular


triangular = pytest.mark.parametrize(
    ("shape", "context"), [((1,), 0), ((3,), 0), ((2, 2), 0), ((1,), 2), ((3,), 2), ((2, 1, 2), 1)]
)


def triangle(shape, context=0):
    """A map at random weights."""
    return built(Member(lambda: LowerTriangular(shape, (5,), context)), scale=0.3)


@triangular
def test_it_starts_as_the_identity(shape, context):
    x, c = points(Member(None, shape, context))
    g = LowerTriangular(shape, (5,), context).double()
    z, logdet = g(x, c)
    assert torch.equal(z, x) and torch.equal(g.decode(x, c), x) and not logdet.any()


@triangular
def test_it_is_the_formula_both_ways_with_its_log_determinants(shape, context):
    g, (x, c) = triangle(shape, context), points(Member(None, shape, context))
    z, logdet = g(x, c)
    back, logdet_back = g.decode_and_logdet(z, c)
    assert_close(back, x, 1e-12)
    assert_close(logdet_back, -logdet, 1e-12)
    assert torch.equal(g.encode(x, c), z) and torch.equal(g.decode(z, c), back)
    L = g.factor(c)
    dim = math.prod(shape)
    assert L.shape == (len(x) if context else 1, dim, dim) and torch.equal(L, L.tril())
    assert (L.diagonal(dim1=1, dim2=2) > 0).all()
    mean = g.decode(torch.zeros_like(x), c).flatten(1)
    assert_close(back.flatten(1), mean + torch.einsum("bij,bj->bi", L.expand(3, -1, -1), z.flatten(1)), 1e-12)
    for way, y, value in ((g, x, logdet), (g.decode_and_logdet, z, logdet_back)):
        full = jacobian(lambda y: way(y, c)[0].sum(0), y).reshape(dim, len(y), dim).movedim(1, 0)
        assert_close(torch.linalg.slogdet(full).logabsdet, value, 1e-12)


@triangular
def test_every_number_of_the_factor_is_learned_and_none_above_its_diagonal(shape, context):
    g, (x, c) = triangle(shape, context), points(Member(None, shape, context))
    z, logdet = g(x, c)
    (z.square().sum() - logdet.sum()).backward()
    assert g.mean.grad.all() and g.lower.grad[torch.ones_like(g.lower).tril() == 1].all()
    assert not g.lower.grad.triu(1).any()
    assert all(p.grad.any() for p in g.parameters())


@pytest.mark.parametrize("way", ["encode_and_logdet", "decode_and_logdet"])
@pytest.mark.parametrize("context", [0, 1])
def test_its_gradients_are_those_of_differences(way, context):
    g, (x, c) = triangle((2,), context), points(Member(None, (2,), context), 2)
    leaves = [a.requires_grad_() for a in (x, c, *g.parameters()) if a is not None]
    names = [name for name, _ in g.named_parameters()]

    def outputs(x, *rest):
        c, parameters = (rest[0], rest[1:]) if context else (None, rest)
        module = g if way == "encode_and_logdet" else Inverse(g)
        prefix = "" if module is g else "bijection."
        return torch.func.functional_call(
            module, {prefix + name: p for name, p in zip(names, parameters)}, (x, c)
        )

    assert torch.autograd.gradcheck(outputs, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(outputs, leaves)


@pytest.mark.parametrize("context", [0, 2])
def test_the_triangular_map_passes_through_transforms_and_compiles(context):
    g, (x, c) = triangle((3,), context), points(Member(None, (3,), context))
    for call in (g, g.decode_and_logdet):
        alone = lambda x, c: call(x[None], None if c is None else c[None])[0][0]
        axes = (0, None if c is None else 0)
        full, forward = (
            torch.func.vmap(d(alone), axes)(x, c) for d in (torch.func.jacrev, torch.func.jacfwd)
        )
        assert_close(full, forward)
        assert_close(torch.linalg.slogdet(full).logabsdet, call(x, c)[1])
        torch.compiler.reset()
        assert_close(torch.compile(call, backend="eager", fullgraph=True)(x, c), call(x, c), 1e-12)


@pytest.mark.parametrize("context", [0, 2])
def test_under_autocast_the_factor_is_applied_in_the_dtype_of_x(context):
    g, (x, c) = triangle((40,), context).float(), points(Member(None, (40,), context), dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z, logdet = g(x, c)
        back = g.decode(z, c)
    assert {z.dtype, logdet.dtype, back.dtype} == {torch.float32}
    if context == 0:  # else the nets of the two directions round alike, but not the condition number
        torch.testing.assert_close(back, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [0, 1])
def test_the_triangular_map_takes_batches_of_none_and_of_one(n):
    for context in (0, 2):
        g, (x, c) = triangle((2, 2), context), points(Member(None, (2, 2), context))
        row = None if c is None else c[:n]
        for way in (g, g.decode_and_logdet):
            assert_close(way(x[:n], row), tuple(a[:n] for a in way(x, c)), 1e-12)


def correlated(n=500):
    return torch.randn(n, 3, generator=rng(), dtype=torch.float64) @ torch.tensor(
        [[1.0, 2.0, 0.0], [0.0, 0.5, -3.0], [0.0, 0.0, 0.2]], dtype=torch.float64
    ) + torch.tensor([5.0, -7.0, 0.1], dtype=torch.float64)


def test_at_mean_and_covariance_of_the_data_the_likelihood_of_a_gaussian_is_stationary_and_that_of_torch():
    x = correlated()
    flow, covariance = gaussian(dim=3).double(), x.T.cov(correction=0)
    L = torch.linalg.cholesky(covariance)
    with torch.no_grad():
        flow.bijection.mean.copy_(x.mean(0))
        flow.bijection.lower.copy_(L.tril(-1) + L.diagonal().log().diag())
    assert_close(flow.bijection.factor()[0], L, 1e-12)
    normal = torch.distributions.MultivariateNormal(x.mean(0), covariance)
    assert_close(flow.log_prob(x), normal.log_prob(x), 1e-9)
    nll = -flow.log_prob(x).mean()
    assert nll.item() == pytest.approx(normal.entropy().item(), abs=1e-10)
    grads = torch.autograd.grad(nll, [flow.bijection.mean, flow.bijection.lower])
    assert max(grad.abs().max() for grad in grads) < 1e-11
    moved = gaussian(dim=3).double()
    assert all(
        grad.any() for grad in torch.autograd.grad(-moved.log_prob(x).mean(), list(moved.parameters()))
    )


def test_maximum_likelihood_by_gradient_reaches_mean_and_covariance_of_the_data():
    x = correlated()
    flow = gaussian(dim=3).double()
    optimizer = torch.optim.LBFGS(flow.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -flow.log_prob(x).mean()
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(loss)
    L = flow.bijection.factor()[0]
    assert_close(flow.bijection.mean, x.mean(0), 1e-4)
    assert_close(L @ L.T, x.T.cov(correction=0), 1e-3)


def test_samples_of_a_gaussian_have_its_mean_and_covariance():
    flow = built(Member(lambda: gaussian(shape=(1, 2))), scale=0.7)
    x = flow.sample(200_000, generator=rng()).flatten(1)
    L = flow.bijection.factor()[0].detach()
    assert_close(x.mean(0), flow.bijection.mean.detach(), 2e-2)
    assert_close(x.T.cov(), L @ L.T, 5e-2)


def test_a_conditional_gaussian_is_a_regression_that_knows_its_errors():
    """x | c ~ N((c, -c), diag(e^c, 1)²): a mean and a scale that follow the context."""
    with seeded():
        flow = gaussian(dim=2, hidden=(16,), context=1).double()
    generator = rng()
    optimizer = torch.optim.Adam(flow.parameters(), 2e-2)
    for _ in range(300):
        c = 2 * torch.rand(256, 1, generator=generator, dtype=torch.float64) - 1
        noise = torch.randn(256, 2, generator=generator, dtype=torch.float64)
        x = torch.cat([c + c.exp() * noise[:, :1], -c + noise[:, 1:]], 1)
        optimizer.zero_grad()
        (-flow.log_prob(x, c).mean()).backward()
        optimizer.step()
    c = torch.tensor([[-0.8], [0.0], [0.8]], dtype=torch.float64)
    with torch.no_grad():
        mean, L = flow.decode(torch.zeros(3, 2).double(), c), flow.bijection.factor(c)
    assert_close(mean, torch.cat([c, -c], 1), 0.25)
    assert_close(L.diagonal(dim1=1, dim2=2).log(), torch.cat([c, 0 * c], 1), 0.2)
