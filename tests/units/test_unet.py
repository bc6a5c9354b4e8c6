"""The U-Net: a field on images that keeps rows apart, sees time, context and every pixel, and starts as said."""

import doctest

import pytest
import torch
from registry import Member, built, points, rng, seeded
from torch import nn

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, Exact, ForwardMode, Hutchinson, Rademacher, ReverseMode
from cnflib.nets import UNet
from cnflib.ode import Fixed, euler

small = {"channels": 4, "groups": 2, "blocks": 1, "time_frequencies": 1}
fields = {
    "one size": Member(lambda: UNet((1, 2, 3), multipliers=(1,), **small), (1, 2, 3)),
    "two sizes": Member(lambda: UNet((2, 2, 4), multipliers=(1, 2), **small), (2, 2, 4)),
    "no attention": Member(lambda: UNet((1, 4, 4), multipliers=(1, 2), attention=False, **small), (1, 4, 4)),
    "patches": Member(lambda: UNet((2, 4, 8), multipliers=(1, 2), patch=2, **small), (2, 4, 8)),
    "three sizes": Member(
        lambda: UNet((1, 4, 8), multipliers=(1, 3, 2), **{**small, "blocks": 2}), (1, 4, 8)
    ),
    "context": Member(lambda: UNet((1, 2, 4), multipliers=(1, 2), context=3, **small), (1, 2, 4), 3),
}
every = pytest.mark.parametrize("member", fields.values(), ids=fields)
few = pytest.mark.parametrize("member", [fields["two sizes"], fields["context"]], ids=["plain", "context"])
t = torch.tensor(0.3, dtype=torch.float64)


def assert_close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def jacobian(f, x, context):
    """Of one row, shape (D, D)."""
    D = x.numel()
    return torch.func.jacrev(lambda y: f(t, y[None], context)[0])(x[0]).reshape(D, D)


@every
def test_a_velocity_has_the_shape_and_dtype_of_x(member):
    x, context = points(member)
    assert built(member)(t, x, context).shape == x.shape
    single = None if context is None else context.float()
    v = built(member, torch.float32)(t.float(), x.float(), single)
    assert v.dtype == torch.float32


@every
def test_a_field_acts_on_each_row_alone(member):
    f, (x, context) = built(member), points(member)
    for i in range(len(x)):
        alone = f(t, x[i : i + 1], None if context is None else context[i : i + 1])
        assert_close(f(t, x, context)[i : i + 1], alone)


@every
def test_one_time_for_all_rows_is_the_same_time_for_each(member):
    f, (x, context) = built(member), points(member)
    assert_close(f(t, x, context), f(t.expand(len(x)), x, context))
    times = torch.linspace(0.1, 0.9, len(x), dtype=torch.float64)
    rows = [f(times[i], x, context)[i] for i in range(len(x))]
    assert_close(f(times, x, context), torch.stack(rows))


@every
def test_time_and_context_and_every_pixel_reach_every_pixel(member):
    f, (x, context) = built(member, scale=0.3), points(member)
    v = f(t, x, context)
    assert (f(t + 0.1, x, context) != v).all()
    for i in range(0 if context is None else context.shape[1]):
        moved = context.clone()
        moved[:, i] += 0.1
        assert (f(t, x, moved) != v).all()
    c = None if context is None else context[:1]
    assert (jacobian(f, x[:1], c) != 0).all()


@every
def test_gradient_reaches_every_row_of_every_parameter(member):
    """Of a bias as a whole: that of the keys in an attention moves nothing."""
    f, (x, context) = built(member), points(member)
    v = f(t, x, context)
    names = [name for name, _ in f.named_parameters()]
    gradients = torch.autograd.grad(v.pow(3).sum(), list(f.parameters()))
    reached = [g.flatten(1).any(1).all() if g.ndim > 1 else g.any() for g in gradients]
    assert [name for name, here in zip(names, reached, strict=True) if not here] == []


def test_a_field_whose_blocks_do_nothing_keeps_pixels_in_their_place():
    """The brightest pixel stays the brightest through patches and back."""
    f = UNet((1, 6, 8), 4, (1,), 1, attention=False, patch=2, groups=1).double()
    with torch.no_grad():
        for block in (*f.down[0], *f.up[0]):
            block.convolutions[1].weight.zero_()
            block.convolutions[1].bias.zero_()
        for convolution in (f.first, f.last):
            nn.init.dirac_(convolution.weight)
            convolution.bias.zero_()
    x = torch.zeros(48, 48, dtype=torch.float64).fill_diagonal_(1.0).reshape(48, 1, 6, 8)
    assert torch.equal(f(t, x).flatten(1).argmax(1), torch.arange(48))


def test_a_fresh_field_is_zero_and_not_after_a_step():
    f = UNet((1, 4, 4), channels=8, multipliers=(1, 2))
    x = torch.randn(3, 1, 4, 4, generator=rng())
    assert torch.equal(f(torch.tensor(0.5), x), torch.zeros_like(x))
    (f(torch.tensor(0.5), x) - x).square().sum().backward()
    torch.optim.SGD(f.parameters(), 0.1).step()
    assert f(torch.tensor(0.5), x).all()


def test_the_example_in_the_docstring_runs():
    (test,) = doctest.DocTestFinder(recurse=False).find(UNet, "UNet", globs={"UNet": UNet})
    assert test.examples and not doctest.DocTestRunner().run(test).failed


def test_the_default_has_a_few_million_parameters():
    with torch.device("meta"):
        assert 2e6 < sum(p.numel() for p in UNet((1, 28, 28)).parameters()) < 6e6


def test_attention_is_the_softmax_of_inner_products():
    f, h = (
        UNet((1, 2, 2), multipliers=(1,), **small).double(),
        torch.randn(2, 4, 2, 3, generator=rng()).double(),
    )
    a = f.middle
    q, k, v = a.inputs(a.norm(h)).flatten(2).mT.chunk(3, 2)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v).mT.unflatten(2, (2, 3))
    assert_close(a(h), h + a.outputs(mixed))


def test_attention_does_not_care_for_the_order_of_pixels():
    attend = UNet((1, 2, 2), multipliers=(1,), **small).double().middle
    h = torch.randn(2, 4, 2, 3, generator=rng()).double()
    order = torch.randperm(6, generator=rng())
    shuffled = h.flatten(2)[:, :, order].unflatten(2, (2, 3))
    assert_close(attend(shuffled).flatten(2), attend(h).flatten(2)[:, :, order])


# Divergences. GroupNorm is a normalisation that torch differentiates correctly, also in reverse over forward.


@few
@pytest.mark.parametrize("product", [ForwardMode(), ReverseMode()])
def test_hutchinson_is_unbiased_for_the_exact_divergence(member, product):
    f, (x, context) = built(member, scale=0.3), points(member)
    x, context = x[:1], None if context is None else context[:1]
    wanted = jacobian(f, x, context).trace()
    assert_close(Exact()(x)(f, t, x, context).divergence[0], wanted)
    n = 2000
    rows, c = x.expand(n, *x.shape[1:]), None if context is None else context.expand(n, -1)
    estimate = Hutchinson(product=product)(rows, rng())(f, t, rows.contiguous(), c).divergence
    assert abs(estimate.mean() - wanted) < 4 * estimate.std() / n**0.5
    assert estimate.std() > 0


@few
@pytest.mark.parametrize("product", [ForwardMode(), ReverseMode()])
def test_the_gradient_of_a_divergence_is_that_of_finite_differences(member, product):
    """In torch 2.13 that of LayerNorm and InstanceNorm is not, in reverse over forward."""
    f, (x, context) = built(member, scale=0.3), points(member)
    eta = Rademacher()((1, *x.shape), x, rng())

    def trace():
        _, products = product(f, t, x, context, eta)
        return (eta * products).sum()

    parameters = list(f.parameters())
    gradients = torch.autograd.grad(trace(), parameters, allow_unused=True)
    for seed in range(3):
        generator = rng(seed)
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
        move(parameters, directions, 1e-6)
        high = trace()
        move(parameters, directions, -2e-6)
        low = trace()
        move(parameters, directions, 1e-6)
        assert slope.item() == pytest.approx((high - low).item() / 2e-6, rel=1e-6)


@torch.no_grad()
def move(parameters, directions, step):
    for p, d in zip(parameters, directions, strict=True):
        p += step * d


@few
def test_the_log_determinant_is_that_of_the_map(member):
    f, (x, context) = built(member), points(member)
    x, context = x[:1], None if context is None else context[:1]
    cnf, D = CNF(f, Exact(), Fixed(8)), x.numel()
    z, logdet = cnf(x, context)
    whole = torch.autograd.functional.jacobian(lambda y: cnf.decode(y, context), z)
    assert abs(logdet[0]) > 0.01
    assert -logdet[0].item() == pytest.approx(whole.reshape(D, D).slogdet()[1].item(), abs=1e-4)
    assert_close(cnf.decode(z, context), x, 1e-4)


def test_a_likelihood_compiles_in_one_piece():
    member = fields["context"]
    f, (x, context) = built(member), points(member)
    flow = Flow(CNF(f, Hutchinson(), Fixed(1, euler)), StandardNormal(member.shape)).double()
    with seeded():
        compiled = torch.compile(flow.log_prob, backend="eager", fullgraph=True)(x, context)
    with seeded():
        assert_close(compiled, flow.log_prob(x, context))


def test_a_saved_field_is_the_same_field():
    member = fields["three sizes"]
    f, other, (x, _) = built(member), member.build().double(), points(member)
    assert (f(t, x) != other(t, x)).any()
    other.load_state_dict(f.state_dict())
    assert torch.equal(f(t, x), other(t, x))


def test_the_same_seed_makes_the_same_field():
    def first():
        with seeded(3):
            return UNet((1, 4, 4), multipliers=(1, 2), **small).first.weight

    assert torch.equal(first(), first())


wrong = {
    "a side that is odd": (
        lambda: UNet((1, 28, 30)),
        r"multiples of 4 = patch · 2\^\(sizes - 1\); got 28 × 30\. Pad",
    ),
    "a patch that does not fit": (lambda: UNet((1, 28, 28), patch=2), "multiples of 8"),
    "nothing left to normalise": (
        lambda: UNet((1, 4, 4), channels=8, multipliers=(1, 1, 1)),
        "Expected more than one",
    ),
    "not an image": (lambda: UNet(5), "Expected shape"),
    "a context not declared": (
        lambda: UNet((1, 4, 4))(torch.tensor(0.5), torch.zeros(2, 1, 4, 4), torch.zeros(2, 3)),
        "Expected no context",
    ),
    "a context missing": (
        lambda: UNet((1, 4, 4), context=3)(torch.tensor(0.5), torch.zeros(2, 1, 4, 4)),
        "Expected a context of",
    ),
}


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_an_error_says_what_is_wrong_and_the_way_out(call, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        call()


@torch.no_grad()
def test_bridges_carry_the_image_past_its_coarse_half():
    net = UNet((1, 8, 8), channels=8, multipliers=(1, 2))
    torch.nn.init.normal_(net.last.weight)
    for layer in net.grow:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    t, x = torch.tensor(0.5), torch.randn(2, 1, 8, 8, generator=rng())
    assert (net(t, x) - net(t, -x)).abs().max() > 0.1
