"""Divergences: the exact trace, unbiased estimates of known variance, and probes that are held for a whole solve."""

import pytest
import torch
from registry import rng

from cnflib.continuous import CNF, adaptive, exact, fixed, gaussian, hutchinson, rademacher

noises = pytest.mark.parametrize("noise", [rademacher, gaussian])
zero = torch.tensor(0.0, dtype=torch.float64)
D = 6
A = torch.randn(D, D, generator=rng(5), dtype=torch.float64) + 0.5 * torch.eye(D).double()


def linear(t, x, context=None):
    return x @ A.T


def cubic(t, x, context=None):
    return x**3 @ A.T + t * x


def estimates(noise, probes, rows):
    x = torch.zeros(rows, D, dtype=torch.float64)
    return hutchinson(noise, probes)(x, rng(1))(linear, zero, x, None)


def counting(noise, calls):
    def draw(shape, like, generator=None):
        calls.append(shape)
        return noise(shape, like, generator)

    return draw


def test_exact_is_trace_and_frobenius_norm_of_the_jacobian():
    x = torch.randn(4, D, generator=rng(), dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    local = exact(x)(cubic, t, x, None)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: cubic(t, row[None])[0]))(x)
    torch.testing.assert_close(local.velocity, cubic(t, x))
    torch.testing.assert_close(local.divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(local.frobenius, jacobian.square().sum((1, 2)))


def test_exact_takes_events_of_any_shape():
    x = torch.randn(3, 1, 2, 3, generator=rng(), dtype=torch.float64)
    local = exact(x)(lambda t, x, context: linear(t, x.flatten(1)).reshape(x.shape), zero, x, None)
    assert local.velocity.shape == x.shape
    torch.testing.assert_close(local.divergence, A.trace().expand(3))


@noises
@pytest.mark.parametrize("probes", [1, 3])
def test_hutchinson_is_unbiased(noise, probes):
    local = estimates(noise, probes, 20_000)
    for estimate, truth in ((local.divergence, A.trace()), (local.frobenius, A.square().sum())):
        assert abs(estimate.mean() - truth) < 3 * estimate.std() / len(estimate) ** 0.5


@pytest.mark.parametrize("probes", [1, 4])
@pytest.mark.parametrize(("noise", "counts_diagonal"), [(rademacher, False), (gaussian, True)])
def test_variance_of_hutchinson_is_that_of_the_symmetric_part(noise, counts_diagonal, probes):
    samples = estimates(noise, probes, 40_000).divergence
    S = (A + A.T) / 2
    variance = 2 * (S.square().sum() - (not counts_diagonal) * S.diagonal().square().sum()) / probes
    squares = (samples - samples.mean()).square()
    assert abs(squares.mean() - variance) < 4 * squares.std() / len(samples) ** 0.5


def test_rademacher_is_exact_for_a_diagonal_jacobian():
    x = torch.randn(5, D, generator=rng(), dtype=torch.float64)
    wanted = exact(x)(lambda t, x, c: x.sin(), zero, x, None)
    local = hutchinson()(x, rng())(lambda t, x, c: x.sin(), zero, x, None)
    torch.testing.assert_close(local, wanted)


@noises
def test_probes_have_mean_zero_and_unit_covariance(noise):
    like = torch.zeros(1, dtype=torch.float64)
    eta = noise((20_000, 3), like, rng())
    assert eta.dtype == like.dtype and eta.shape == (20_000, 3)
    assert (eta.mean(0).abs() < 4 / len(eta) ** 0.5).all()
    assert ((eta.T @ eta / len(eta) - torch.eye(3)).abs() < 4 * 2**0.5 / len(eta) ** 0.5).all()
    assert noise is gaussian or set(eta.unique().tolist()) == {-1, 1}


@noises
def test_every_row_has_a_probe_of_its_own(noise):
    samples = estimates(noise, 1, 8).divergence
    assert len(samples.unique()) > 4


@pytest.mark.parametrize("solver", [fixed(5), adaptive()], ids=["fixed", "adaptive"])
def test_a_probe_is_drawn_once_a_solve_and_anew_in_the_next(solver):
    calls = []
    cnf = CNF(cubic, hutchinson(counting(rademacher, calls), 2), solver)
    x = 0.1 * torch.randn(3, D, generator=rng(), dtype=torch.float64)
    generator = rng(7)
    first, second = (cnf.solve(x, 0.0, 1.0, generator=generator) for _ in range(2))
    assert calls == [(2, 3, D)] * 2 and first.nfe > 2
    assert not torch.equal(first.logdet, second.logdet)
    assert torch.equal(first.logdet, cnf.solve(x, 0.0, 1.0, generator=rng(7)).logdet)


def test_a_path_holds_its_probe_from_end_to_end():
    calls = []
    cnf = CNF(linear, hutchinson(counting(gaussian, calls)), fixed(4))
    x = torch.randn(3, D, generator=rng(), dtype=torch.float64)
    logdet = cnf.path(x, [0.0, 0.25, 0.5, 1.0], generator=rng()).logdet
    assert len(calls) == 1
    # with one probe and a constant Jacobian the estimate grows in proportion to time
    torch.testing.assert_close(
        logdet / logdet[-1], torch.tensor([0, 0.25, 0.5, 1]).double()[:, None].expand(4, 3)
    )


def test_an_estimate_within_a_solve_is_as_smooth_as_the_trace():
    """The adaptive solver does not see the noise: it takes about as many evaluations as for the exact trace."""
    x = 0.1 * torch.randn(20, D, generator=rng(), dtype=torch.float64)
    nfe = {
        d: CNF(cubic, d, adaptive()).solve(x, 0.0, 1.0, generator=rng()).nfe for d in (exact, hutchinson())
    }
    assert max(nfe.values()) < 1.5 * min(nfe.values())


def test_the_estimate_depends_on_the_whole_path_and_not_only_on_its_start():
    x = 0.1 * torch.ones(1, D, dtype=torch.float64)
    estimator = hutchinson(gaussian)(x, rng())
    assert not torch.equal(
        estimator(cubic, zero, x, None).divergence, estimator(cubic, zero, 2 * x, None).divergence
    )
    assert torch.equal(
        *(estimator(linear, zero, x * k, None).divergence for k in (1, 2))
    )  # same J, same probe


@pytest.mark.parametrize("divergence", [exact, hutchinson(), hutchinson(gaussian, 2)])
def test_without_a_generator_draws_come_from_the_default_one(divergence):
    x = torch.zeros(4, D, dtype=torch.float64)
    with torch.random.fork_rng():
        results = [
            (torch.manual_seed(0), divergence(x, None)(linear, zero, x, None).divergence)[1] for _ in range(2)
        ]
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "divergence", [exact, hutchinson(), hutchinson(probes=3)], ids=["exact", "one", "three"]
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
