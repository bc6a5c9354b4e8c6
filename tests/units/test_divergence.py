"""Divergences: the exact trace, unbiased estimates of known variance, and probes that are held for a whole solve."""

import copy
import pickle

import pytest
import torch
from registry import rng

from cnflib import Flow, StandardNormal
from cnflib.continuous import (
    CNF,
    Automatic,
    Bottleneck,
    Exact,
    ForwardMode,
    Gaussian,
    Hutchinson,
    HutchPP,
    JacobianFrobenius,
    KineticEnergy,
    PathDerivative,
    Rademacher,
    ReverseMode,
    TrainEval,
)
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed

laws = pytest.mark.parametrize("probe", [Rademacher(), Gaussian()])
zero = torch.tensor(0.0, dtype=torch.float64)
D = 6
A = torch.randn(D, D, generator=rng(5), dtype=torch.float64) + 0.5 * torch.eye(D).double()


def linear(t, x, context=None):
    return x @ A.T


def cubic(t, x, context=None):
    return x**3 @ A.T + t * x


def estimates(probe, probes, rows):
    x = torch.zeros(rows, D, dtype=torch.float64)
    return Hutchinson(probe, probes)(x, rng(1))(linear, zero, x, None)


def counting(probe, calls):
    def draw(shape, like, generator=None):
        calls.append(shape)
        return probe(shape, like, generator)

    return draw


def test_exact_is_trace_and_frobenius_norm_of_the_jacobian():
    x = torch.randn(4, D, generator=rng(), dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    local = Exact()(x)(cubic, t, x, None)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: cubic(t, row[None])[0]))(x)
    torch.testing.assert_close(local.velocity, cubic(t, x))
    torch.testing.assert_close(local.divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(local.frobenius, jacobian.square().sum((1, 2)))


def test_exact_takes_events_of_any_shape():
    x = torch.randn(3, 1, 2, 3, generator=rng(), dtype=torch.float64)
    local = Exact()(x)(lambda t, x, context: linear(t, x.flatten(1)).reshape(x.shape), zero, x, None)
    assert local.velocity.shape == x.shape
    torch.testing.assert_close(local.divergence, A.trace().expand(3))


class Narrow:
    """x ↦ W V x through H numbers, with its two factors."""

    def __init__(self, V, W):
        self.V, self.W = V, W

    def __call__(self, t, x, context=None):
        return x @ self.V.T @ self.W.T

    def factors(self, t, context):
        return (lambda x: x @ self.V.T), (lambda h: h @ self.W.T)


def narrow(H=3, D=D, skewed=False):
    """Random factors; skewed ones have large products W V and small products V W."""
    V, W = (torch.randn(*s, generator=rng(H), dtype=torch.float64) for s in ((H, D), (D, H)))
    return Narrow(V, W - 0.97 * torch.linalg.pinv(V) @ (V @ W)) if skewed else Narrow(V, W)


estimators = {
    "rademacher": Hutchinson(),
    "gaussian": Hutchinson(Gaussian(), 3),
    "rademacher forward": Hutchinson(Rademacher(), 1, ForwardMode()),
    "gaussian reverse": Hutchinson(Gaussian(), 1, ReverseMode()),
    "hutch++": HutchPP(),
    "hutch++ wide": HutchPP(3, 2, ForwardMode()),
    "hutch++ reverse": HutchPP(2, 1, ReverseMode()),
    "bottleneck": Bottleneck(),
    "bottleneck rademacher": Bottleneck(Rademacher(), 2),
}


@pytest.mark.parametrize("divergence", estimators.values(), ids=estimators)
def test_estimates_of_trace_and_frobenius_norm_are_unbiased(divergence):
    field, x = narrow(), torch.zeros(20_000, D, dtype=torch.float64)
    local = divergence(x, rng(1))(field, zero, x, None)
    J = field.W @ field.V
    for estimate, truth in ((local.divergence, J.trace()), (local.frobenius, J.square().sum())):
        assert abs(estimate.mean() - truth) < 4 * estimate.std() / len(estimate) ** 0.5 + 1e-9
    assert torch.equal(local.velocity, field(zero, x))


@pytest.mark.parametrize("divergence", estimators.values(), ids=estimators)
def test_gradients_of_estimates_are_unbiased(divergence):
    """The derivative of tr(W V) in W is Vᵀ, entry by entry, though one draw's gradient need not be that draw's."""
    field, x = narrow(), torch.zeros(20_000, D, dtype=torch.float64)
    rows = field.W.repeat(len(x), 1, 1).requires_grad_()
    each = Narrow(field.V, field.W)
    each.__class__ = type(
        "Rows",
        (Narrow,),
        {
            "__call__": lambda self, t, x, c=None: torch.einsum("bdh,bh->bd", rows, x @ self.V.T),
            "factors": lambda self, t, c: (
                (lambda x: x @ self.V.T),
                (lambda h: torch.einsum("bdh,bh->bd", rows, h)),
            ),
        },
    )
    local = divergence(x, rng(1))(each, zero, x, None)
    (grads,) = torch.autograd.grad(local.divergence.sum(), rows)
    error = (grads.mean(0) - field.V.T).abs() / (grads.std(0) / len(x) ** 0.5 + 1e-9)
    assert error.max() < 4.5


def sd(divergence, field, D, rows=20_000):
    x = torch.zeros(rows, D, dtype=torch.float64)
    return divergence(x, rng(2))(field, zero, x, None).divergence.std().item()


def symmetric_norm(M):
    return ((M + M.T) / 2).norm().item()


@pytest.mark.parametrize("skewed", [False, True])
def test_the_bottleneck_has_the_variance_of_the_exchanged_product(skewed):
    field = narrow(H=4, D=16, skewed=skewed)
    there, here = field.V @ field.W, field.W @ field.V
    assert sd(Bottleneck(), field, 16) == pytest.approx(2**0.5 * symmetric_norm(there), rel=0.03)
    assert sd(Hutchinson(Gaussian()), field, 16) == pytest.approx(2**0.5 * symmetric_norm(here), rel=0.03)
    if skewed:
        assert there.norm() < 0.1 * here.norm() and sd(Bottleneck(), field, 16) < 0.2 * sd(
            Hutchinson(Gaussian()), field, 16
        )


def test_the_bottleneck_refuses_what_is_no_bottleneck():
    x = torch.zeros(3, D).double()
    with pytest.raises(ValueError, match="at most 6 numbers"):
        Bottleneck()(x, rng())(narrow(H=8), zero, x, None)
    with pytest.raises(ValueError, match=r"factors\(t, context\)"):
        Bottleneck()(x, rng())(linear, zero, x, None)


@pytest.mark.parametrize("kind", ["decaying", "flat random", "diagonal"])
def test_hutchpp_wins_at_equal_products_where_the_spectrum_decays_and_loses_elsewhere(kind):
    n = 32
    Q = torch.linalg.qr(torch.randn(n, n, generator=rng(3), dtype=torch.float64)).Q
    k = torch.arange(1, n + 1, dtype=torch.float64)
    M = {
        "decaying": Q @ torch.diag(k**-2) @ Q.T,
        "flat random": torch.randn(n, n, generator=rng(4), dtype=torch.float64) / n**0.5,
        "diagonal": torch.diag(torch.randn(n, generator=rng(4), dtype=torch.float64)),
    }[kind]
    ratio = sd(HutchPP(4, 4), lambda t, x, c=None: x @ M.T, n, 4000) / max(
        sd(Hutchinson(Rademacher(), 12), lambda t, x, c=None: x @ M.T, n, 4000), 1e-9
    )
    assert ratio < 0.3 if kind == "decaying" else ratio > 1


@pytest.mark.parametrize("product", [ForwardMode(), ReverseMode()])
@pytest.mark.parametrize("sketch", [D, D + 2])
def test_a_full_sketch_makes_hutchpp_exact(sketch, product):
    x = torch.randn(5, D, generator=rng(), dtype=torch.float64)
    local = HutchPP(sketch, 1, product)(x, rng())(cubic, zero, x, None)
    wanted = Exact()(x)(cubic, zero, x, None)
    torch.testing.assert_close(local, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_hutchpp_is_exact_for_a_rank_within_its_sketch_and_finite_below(rank):
    u, v = torch.randn(2, rank, D, generator=rng(), dtype=torch.float64)
    M = (u.T @ v).requires_grad_()
    x = torch.zeros(50, D, dtype=torch.float64)
    local = HutchPP(3)(x, rng())(lambda t, x, c=None: x @ M.T, zero, x, None)
    torch.testing.assert_close(local.divergence, M.trace().expand(50), rtol=1e-9, atol=1e-9)
    assert torch.autograd.grad(local.divergence.sum(), M)[0].isfinite().all()


def test_hutchpp_holds_its_projector_smooth_along_a_solve():
    """The sketch is drawn once: the adaptive solver takes about as many evaluations as for the exact trace."""
    x = 0.1 * torch.randn(20, D, generator=rng(), dtype=torch.float64)
    nfe = {d: CNF(cubic, d, Adaptive()).solve(x, 0.0, 1.0, generator=rng()).nfe for d in (Exact(), HutchPP())}
    assert max(nfe.values()) < 2 * min(nfe.values())


@laws
@pytest.mark.parametrize("probes", [1, 3])
def test_hutchinson_is_unbiased(probe, probes):
    local = estimates(probe, probes, 20_000)
    for estimate, truth in ((local.divergence, A.trace()), (local.frobenius, A.square().sum())):
        assert abs(estimate.mean() - truth) < 3 * estimate.std() / len(estimate) ** 0.5


@pytest.mark.parametrize("probes", [1, 4])
@pytest.mark.parametrize(("probe", "counts_diagonal"), [(Rademacher(), False), (Gaussian(), True)])
def test_variance_of_hutchinson_is_that_of_the_symmetric_part(probe, counts_diagonal, probes):
    samples = estimates(probe, probes, 40_000).divergence
    S = (A + A.T) / 2
    variance = 2 * (S.square().sum() - (not counts_diagonal) * S.diagonal().square().sum()) / probes
    squares = (samples - samples.mean()).square()
    assert abs(squares.mean() - variance) < 4 * squares.std() / len(samples) ** 0.5


def test_rademacher_is_exact_for_a_diagonal_jacobian():
    x = torch.randn(5, D, generator=rng(), dtype=torch.float64)
    wanted = Exact()(x)(lambda t, x, c: x.sin(), zero, x, None)
    local = Hutchinson()(x, rng())(lambda t, x, c: x.sin(), zero, x, None)
    torch.testing.assert_close(local, wanted)


@laws
def test_probes_have_mean_zero_and_unit_covariance(probe):
    like = torch.zeros(1, dtype=torch.float64)
    eta = probe((20_000, 3), like, rng())
    assert eta.dtype == like.dtype and eta.shape == (20_000, 3)
    assert (eta.mean(0).abs() < 4 / len(eta) ** 0.5).all()
    assert ((eta.T @ eta / len(eta) - torch.eye(3)).abs() < 4 * 2**0.5 / len(eta) ** 0.5).all()
    assert probe == Gaussian() or set(eta.unique().tolist()) == {-1, 1}


@laws
def test_every_row_has_a_probe_of_its_own(probe):
    samples = estimates(probe, 1, 8).divergence
    assert len(samples.unique()) > 4


@pytest.mark.parametrize("solver", [Fixed(5), Adaptive()], ids=["fixed", "adaptive"])
def test_a_probe_is_drawn_once_a_solve_and_anew_in_the_next(solver):
    calls = []
    cnf = CNF(cubic, Hutchinson(counting(Rademacher(), calls), 2), solver)
    x = 0.1 * torch.randn(3, D, generator=rng(), dtype=torch.float64)
    generator = rng(7)
    first, second = (cnf.solve(x, 0.0, 1.0, generator=generator) for _ in range(2))
    assert calls == [(2, 3, D)] * 2 and first.nfe > 2
    assert not torch.equal(first.logdet, second.logdet)
    assert torch.equal(first.logdet, cnf.solve(x, 0.0, 1.0, generator=rng(7)).logdet)


def test_a_path_holds_its_probe_from_end_to_end():
    calls = []
    cnf = CNF(linear, Hutchinson(counting(Gaussian(), calls)), Fixed(4))
    x = torch.randn(3, D, generator=rng(), dtype=torch.float64)
    logdet = cnf.solve_along(x, [0.0, 0.25, 0.5, 1.0], generator=rng()).logdet
    assert len(calls) == 1
    # with one probe and a constant Jacobian the estimate grows in proportion to time
    torch.testing.assert_close(
        logdet / logdet[-1], torch.tensor([0, 0.25, 0.5, 1]).double()[:, None].expand(4, 3)
    )


def test_an_estimate_within_a_solve_is_as_smooth_as_the_trace():
    """The adaptive solver does not see the noise: it takes about as many evaluations as for the exact trace."""
    x = 0.1 * torch.randn(20, D, generator=rng(), dtype=torch.float64)
    nfe = {
        d: CNF(cubic, d, Adaptive()).solve(x, 0.0, 1.0, generator=rng()).nfe for d in (Exact(), Hutchinson())
    }
    assert max(nfe.values()) < 2 * min(nfe.values())


def test_the_estimate_depends_on_the_whole_path_and_not_only_on_its_start():
    x = 0.1 * torch.ones(1, D, dtype=torch.float64)
    estimator = Hutchinson(Gaussian())(x, rng())
    assert not torch.equal(
        estimator(cubic, zero, x, None).divergence, estimator(cubic, zero, 2 * x, None).divergence
    )
    assert torch.equal(
        *(estimator(linear, zero, x * k, None).divergence for k in (1, 2))
    )  # same J, same probe


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson(), Hutchinson(Gaussian(), 2), HutchPP()])
def test_without_a_generator_draws_come_from_the_default_one(divergence):
    x = torch.zeros(4, D, dtype=torch.float64)
    with torch.random.fork_rng():
        results = [
            (torch.manual_seed(0), divergence(x, None)(linear, zero, x, None).divergence)[1] for _ in range(2)
        ]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "divergence",
    [Exact(), Hutchinson(), Hutchinson(probes=3), HutchPP()],
    ids=["exact", "one", "three", "hutch++"],
)
def test_a_field_that_does_not_depend_on_x_has_none(divergence):
    x = torch.randn(4, 3, dtype=torch.float64)
    local = divergence(x, None)(
        lambda t, x, c: torch.full_like(x, 2.0) * t, torch.tensor(0.5).double(), x, None
    )
    assert torch.equal(local.velocity, torch.ones_like(x))
    assert torch.equal(local.divergence, torch.zeros(4).double()) and torch.equal(
        local.frobenius, local.divergence
    )


settings = [
    Automatic(), ForwardMode(), ReverseMode(), Rademacher(), Gaussian(), Exact(), Exact(ReverseMode()), Hutchinson(),
    Hutchinson(Gaussian()), Hutchinson(probes=3), Hutchinson(Gaussian(), 2, ForwardMode()), HutchPP(), HutchPP(2, 3),
    HutchPP(product=ReverseMode()), Bottleneck(), Bottleneck(Rademacher(), 2), KineticEnergy(), JacobianFrobenius(),
    PathDerivative(), PathDerivative(3),
]  # fmt: skip


@pytest.mark.parametrize("setting", settings, ids=repr)
def test_a_setting_is_what_it_prints(setting):
    twins = eval(repr(setting)), copy.deepcopy(setting), pickle.loads(pickle.dumps(setting))
    assert all(twin == setting and hash(twin) == hash(setting) for twin in twins)
    assert sum(setting == other for other in settings) == 1
    with pytest.raises(AttributeError):
        setting.probes = 2


def test_what_is_at_its_default_is_not_printed():
    assert repr(Hutchinson()) == "Hutchinson()" and repr(Hutchinson(probes=3)) == "Hutchinson(probes=3)"
    assert repr(Exact(ReverseMode())) == "Exact(product=ReverseMode())"
    assert repr(TrainEval()) == "TrainEval()"
    assert repr(TrainEval(HutchPP(), Exact(ReverseMode()))) == (
        "TrainEval(train=HutchPP(), eval=Exact(product=ReverseMode()))"
    )


def test_settings_are_built_inside_of_what_is_compiled():
    net = MLP(3, (4, 2))

    def logdets(x):
        divergences = (
            Exact(),
            Exact(ReverseMode()),
            Hutchinson(),
            Hutchinson(Gaussian(), 2, ForwardMode()),
            HutchPP(2, 1, ReverseMode()),
            Bottleneck(Rademacher(), 2),
        )
        t = x.new_zeros(())
        return [divergence(x, None)(net, t, x, None).divergence for divergence in divergences]

    x = torch.randn(4, 3, generator=rng())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        once = torch.compile(logdets, fullgraph=True, backend="eager")(x)
        torch.manual_seed(0)
        torch.testing.assert_close(once, logdets(x))


def test_a_divergence_for_training_and_one_for_evaluation():
    flow = Flow(CNF(MLP(3), TrainEval(), Fixed(2)), StandardNormal(3))
    x = torch.randn(20, 3, generator=rng())
    exact, estimate = (
        Flow(CNF(flow.bijection.field, d, Fixed(2)), flow.base) for d in (Exact(), Hutchinson())
    )
    assert flow.training and torch.equal(flow.log_prob(x, None, rng(1)), estimate.log_prob(x, None, rng(1)))
    assert not torch.equal(flow.log_prob(x, None, rng(1)), flow.log_prob(x, None, rng(2)))
    assert torch.equal(flow.eval().log_prob(x), exact.log_prob(x))
    assert torch.equal(flow.train().log_prob(x, None, rng(1)), estimate.log_prob(x, None, rng(1)))
    assert set(flow.state_dict()) == set(exact.state_dict())


wrong = {
    "number": (
        lambda: Hutchinson(16),
        "Expected probe",
    ),
    "name": (lambda: Hutchinson("gaussian"), "Expected probe"),
    "class": (lambda: Hutchinson(Rademacher), "Expected probe"),
    "bottleneck of a number": (lambda: Bottleneck(3), "Expected probe"),
    "bottleneck of a class": (lambda: Bottleneck(Gaussian), "Expected probe"),
    "probes": (lambda: Hutchinson(probes=0), "Expected probes"),
    "probes of a float": (lambda: Bottleneck(probes=1.5), "Expected probes"),
    "sketch": (lambda: HutchPP(0), "Expected sketch"),
    "sketch of a name": (lambda: HutchPP("gaussian"), "Expected sketch"),
    "product": (
        lambda: Exact("reverse"),
        "Expected product",
    ),
    "class of a product": (
        lambda: HutchPP(product=ForwardMode),
        "Expected product",
    ),
    "train": (lambda: TrainEval(Hutchinson), "Expected train"),
    "eval": (lambda: TrainEval(eval=16), "Expected eval"),
}


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_a_wrong_setting_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson(), HutchPP(), Exact(ForwardMode())])
def test_a_field_of_two_arguments_has_the_same_divergence(divergence):
    x = torch.randn(4, D, generator=rng(), dtype=torch.float64)
    two, three = (divergence(x, rng(1))(f, zero, x, None) for f in (lambda t, x: cubic(t, x), cubic))
    assert all(map(torch.equal, two, three))
