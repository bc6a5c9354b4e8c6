"""Likelihoods with error bars, at any time, in chunks: what they promise holds."""

import pytest
import torch
from registry import built, field, flows, points, rng, seeded, standardize

from cnflib import Chain, Flow, StandardNormal
from cnflib.continuous import (
    CNF,
    adaptive,
    adjoint,
    checkpointed,
    euler,
    exact,
    fixed,
    hutchinson,
    in_chunks,
    log_prob_at,
    log_prob_with_error,
)
from cnflib.continuous.likelihood import refined
from cnflib.models import realnvp

A = torch.randn(3, 3, generator=rng(), dtype=torch.float64)


def linear(divergence=exact, solver=None):
    return Flow(CNF(lambda t, x, c: x @ A.T, divergence, solver or fixed(8)), StandardNormal(3).double())


def draw(n=4):
    return torch.randn(n, 3, generator=rng(1), dtype=torch.float64)


def test_the_standard_error_is_that_of_the_probes():
    """Along a linear field every probe is one draw of Hutchinson's estimate of tr A."""
    S = (A + A.T) / 2
    variance = 2 * (S.square().sum() - S.diagonal().square().sum())
    likelihood = log_prob_with_error(linear(hutchinson()), draw(200), probes=64, generator=rng())
    squares = 64 * likelihood.standard_error.square()
    assert abs(squares.mean() - variance) < 4 * squares.std() / 200**0.5


def test_the_mean_over_probes_lies_within_its_error_of_the_exact_value():
    x = draw(400)
    mean, error, _ = log_prob_with_error(linear(hutchinson()), x, probes=32, generator=rng())
    z = (mean - linear().log_prob(x)) / error
    assert (z.abs() < 5).all() and abs(z.square().mean() - 1) < 0.3


def test_without_draws_there_is_no_standard_error():
    mean, error, discretisation = log_prob_with_error(linear(), draw(), probes=3)
    assert torch.equal(error, torch.zeros(4).double())
    torch.testing.assert_close(mean, linear().log_prob(draw()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [4, 8])
def test_the_discretisation_error_is_seen(steps):
    """For a first-order method the difference to half the step is half the error."""
    x = draw()
    likelihood = log_prob_with_error(linear(solver=fixed(200 * steps, euler)), x, probes=2)
    error = (
        linear(solver=fixed(200 * steps, euler)).log_prob(x) - linear(solver=fixed(64)).log_prob(x)
    ).abs()
    torch.testing.assert_close(likelihood.discretisation, error / 2, rtol=0.02, atol=1e-9)


@pytest.mark.parametrize("solver", [adaptive(rtol=1e-3, atol=1e-3), adjoint(rtol=1e-3, atol=1e-3)])
def test_half_the_step_of_an_adaptive_solve_uses_the_same_probe(solver):
    x = draw()
    likelihood = log_prob_with_error(linear(hutchinson(), solver), x, probes=4, generator=rng())
    assert (likelihood.discretisation < 0.02).all() and (likelihood.discretisation > 0).any()
    assert (likelihood.standard_error > 0.1).any()


@pytest.mark.parametrize("generator", [None, 5])
def test_the_same_seed_gives_the_same_numbers_and_draws_go_on(generator):
    def once():
        if generator is None:
            return log_prob_with_error(linear(hutchinson()), draw(), probes=3)
        return log_prob_with_error(linear(hutchinson()), draw(), probes=3, generator=rng(generator))

    with seeded():
        first, second = once(), once()
    with seeded():
        again = once()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first.mean, second.mean) == (generator is not None)


def test_the_generator_moves_on_by_one_draw_for_each_probe():
    flow, x, one, other = linear(hutchinson()), draw(), rng(5), rng(5)
    log_prob_with_error(flow, x, probes=3, generator=one)
    for _ in range(3):
        flow.log_prob(x, None, other)
    assert torch.equal(one.get_state(), other.get_state())


def test_the_finer_flow_shares_its_weights_and_leaves_the_other_alone():
    with seeded():
        flow = Flow(Chain(standardize(), CNF(field(), solver=fixed(3)), CNF(field())), StandardNormal(2))
    finer = refined(flow)
    assert all(p is q for p, q in zip(flow.parameters(), finer.parameters(), strict=True))
    assert flow.bijection.layers[1].solver.keywords["steps"] == 3
    assert finer.bijection.layers[1].solver.keywords["steps"] == 6


@pytest.mark.parametrize(
    ("solver", "least", "most"),
    [
        (fixed(5), 2, 2),
        (checkpointed(5), 2, 2),
        (adaptive(rtol=1e-9, atol=1e-9), 1.8, 2.1),
        (adaptive("bosh3", rtol=1e-6, atol=1e-6), 1.8, 2.1),
        (adjoint(rtol=1e-9, atol=1e-9), 1.8, 2.1),
    ],
    ids=["fixed", "checkpointed", "dopri5", "bosh3", "adjoint"],
)
def test_steps_of_half_the_length_are_twice_as_many(solver, least, most):
    """Exactly for fixed steps; for adaptive ones, where there are many, but for the first and for rejected ones."""
    flow = Flow(CNF(lambda t, x, c: torch.tanh(3 * x @ A.T), solver=solver), StandardNormal(3).double())
    steps, finer = (f.bijection.solve(draw(), 1.0, 0.0).accepted for f in (flow, refined(flow)))
    assert steps == 5 or steps > 30
    assert least * steps <= finer <= most * steps


@pytest.mark.parametrize("name", ["ffjord fixed", "ffjord context", "ffjord image", "realnvp context"])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_chunks_give_what_the_whole_batch_gives(name, size):
    flow, (x, context) = built(flows[name]), points(flows[name], 7)
    whole = flow.log_prob(x, context)
    torch.testing.assert_close(in_chunks(flow.log_prob, x, size, context), whole, rtol=1e-12, atol=1e-12)


def test_chunks_are_of_the_size_asked_for_and_pass_options_on():
    sizes, generator = [], rng()

    def rows(x, context, generator=None):
        sizes.append((len(x), generator))
        return x.sum(1)

    assert in_chunks(rows, draw(7), 3, generator=generator).shape == (7,)
    assert sizes == [(3, generator), (3, generator), (1, generator)]
    assert in_chunks(rows, draw(0), 3).shape == (0,)


def test_the_density_at_any_time_integrates_to_one():
    flow = built(flows["ffjord fixed"])
    line = torch.linspace(-12, 12, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    for t in (0.0, 0.4, 1.0):
        mass = log_prob_at(flow, grid, t).exp().sum() * (line[1] - line[0]) ** 2
        assert abs(mass - 1) < 1e-3
    torch.testing.assert_close(log_prob_at(flow, grid, 0.0), flow.base.log_prob(grid))
    assert torch.equal(log_prob_at(flow, grid, 1.0), flow.log_prob(grid))


wrong = {
    "no CNF": (
        lambda: log_prob_with_error(realnvp(dim=3).double(), draw()),
        "Expected a flow with a CNF in it",
    ),
    "one probe": (lambda: log_prob_with_error(linear(), draw(), probes=1), "Expected probes >= 2.*got 1"),
    "foreign solver": (
        lambda: log_prob_with_error(linear(solver=lambda *a: fixed(2)(*a)), draw()),
        "Expected a solver of this library",
    ),
    "chain": (
        lambda: log_prob_at(built(flows["Chain"]), draw()[:, :2], 0.5),
        r"Expected a flow of a single CNF; got Chain.*log_prob_at\(Flow\(cnf, flow.base\), x, t\)",
    ),
    "time": (lambda: log_prob_at(linear(), draw(), 1.5), r"Expected times in \[0, 1\]"),
    "shape": (lambda: log_prob_at(linear(), draw()[:, :2], 0.5), r"Expected x of shape \(B, 3\)"),
    "size": (lambda: in_chunks(linear().log_prob, draw(), 0), "Expected size to be a positive int; got 0"),
    "no batch": (lambda: in_chunks(linear().log_prob, draw()[0], 2), r"Expected x of shape \(B, \*event\)"),
}


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_a_wrong_argument_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("solver", [checkpointed(2), fixed(2)])
def test_halving_a_fixed_solver_keeps_its_kind(solver):
    assert refined(linear(solver=solver)).bijection.solver.func is solver.func
