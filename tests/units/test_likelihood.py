"""Likelihoods with error bars, at any time, in chunks: what they promise holds."""

import math

import pytest
import torch
from registry import built, field, flows, points, rng, seeded, standardize
from torch import nn

from cnflib import Chain, Flow, Inverse, Standardize, StandardNormal
from cnflib.continuous import (
    CNF,
    Exact,
    Hutchinson,
    JacobianFrobenius,
    KineticEnergy,
    TrainEval,
    in_chunks,
    log_prob_and_costs,
    log_prob_at,
    log_prob_with_error,
)
from cnflib.continuous.likelihood import Likelihood, refined
from cnflib.metrics import nll
from cnflib.models import ffjord, realnvp
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, bosh3, euler

A = torch.randn(3, 3, generator=rng(), dtype=torch.float64)


exact, few, several = Exact(), Fixed(4), Fixed(8)


def linear(divergence=exact, solver=several):
    return Flow(CNF(lambda t, x, c: x @ A.T, divergence, solver), StandardNormal(3).double())


def draw(n=4):
    return torch.randn(n, 3, generator=rng(1), dtype=torch.float64)


def test_the_standard_error_is_that_of_the_probes():
    """Along a linear field every probe is one draw of Hutchinson's estimate of tr A."""
    S = (A + A.T) / 2
    variance = 2 * (S.square().sum() - S.diagonal().square().sum())
    likelihood = log_prob_with_error(
        linear(Hutchinson(), Fixed(1, euler)), draw(200), probes=64, generator=rng()
    )
    squares = 64 * likelihood.standard_error.square()
    assert abs(squares.mean() - variance) < 4 * squares.std() / 200**0.5


def test_the_mean_over_probes_lies_within_its_error_of_the_exact_value():
    x = draw(400)
    mean, error, _ = log_prob_with_error(linear(Hutchinson()), x, probes=32, generator=rng())
    z = (mean - linear().log_prob(x)) / error
    assert (z.abs() < 5).all() and abs(z.square().mean() - 1) < 0.3


def test_without_draws_there_is_no_standard_error():
    mean, error, discretisation = log_prob_with_error(linear(), draw(), probes=3)
    assert torch.equal(error, torch.zeros(4).double())
    torch.testing.assert_close(mean, linear().log_prob(draw()), rtol=0, atol=1e-14)


def test_the_discretisation_error_is_seen():
    """For a first-order method the difference to half the step is half the error."""
    x, flow = draw(), linear(solver=Fixed(200, euler))
    likelihood = log_prob_with_error(flow, x, probes=2)
    error = (flow.log_prob(x) - linear(solver=Fixed(64)).log_prob(x)).abs()
    torch.testing.assert_close(likelihood.discretisation, error / 2, rtol=0.1, atol=1e-9)


@pytest.mark.parametrize(
    "solver", [Adaptive(rtol=1e-3, atol=1e-3), Adaptive(rtol=1e-3, atol=1e-3, adjoint=True)]
)
def test_half_the_step_of_an_adaptive_solve_uses_the_same_probe(solver):
    x = draw()
    likelihood = log_prob_with_error(linear(Hutchinson(), solver), x, probes=4, generator=rng())
    assert (likelihood.discretisation < 0.02).all() and (likelihood.discretisation > 0).any()
    assert (likelihood.standard_error > 0.1).any()


@pytest.mark.parametrize("generator", [None, 5])
def test_the_same_seed_gives_the_same_numbers_and_draws_go_on(generator):
    def once():
        if generator is None:
            return log_prob_with_error(linear(Hutchinson()), draw(), probes=3)
        return log_prob_with_error(linear(Hutchinson()), draw(), probes=3, generator=rng(generator))

    with seeded():
        first, second = once(), once()
    with seeded():
        again = once()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first.mean, second.mean) == (generator is not None)


def test_the_generator_moves_on_by_one_draw_for_each_probe():
    flow, x, one, other = linear(Hutchinson()), draw(), rng(5), rng(5)
    log_prob_with_error(flow, x, probes=3, generator=one)
    for _ in range(3):
        flow.log_prob(x, None, other)
    assert torch.equal(one.get_state(), other.get_state())


def test_the_finer_flow_shares_its_weights_and_leaves_the_other_alone():
    with seeded():
        flow = Flow(Chain(standardize(), CNF(field(), solver=Fixed(3)), CNF(field())), StandardNormal(2))
    finer = refined(flow)
    assert all(p is q for p, q in zip(flow.parameters(), finer.parameters(), strict=True))
    assert flow.bijection.layers[1].solver == Fixed(3)
    assert finer.bijection.layers[1].solver == Fixed(6)


@pytest.mark.parametrize(
    ("solver", "least", "most"),
    [
        (Fixed(5), 2, 2),
        (Fixed(5, checkpoint=True), 2, 2),
        (Adaptive(rtol=1e-8, atol=1e-8), 1.8, 2.1),
        (Adaptive(bosh3, rtol=1e-5, atol=1e-5), 1.8, 2.1),
        (Adaptive(rtol=1e-8, atol=1e-8, adjoint=True), 1.8, 2.1),
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


def test_chunks_are_of_the_size_asked_for_and_pass_the_generator_on():
    sizes, generator = [], rng()

    def rows(x, context, generator=None):
        sizes.append((len(x), generator))
        return x.sum(1)

    assert in_chunks(rows, draw(7), 3, generator=generator).shape == (7,)
    assert sizes == [(3, generator), (3, generator), (1, generator)]
    assert in_chunks(rows, draw(0), 3).shape == (0,)
    assert in_chunks(lambda x, labels: x[:, 0] * labels, draw(7), 3, torch.arange(7)).shape == (7,)


def test_chunks_of_tuples_are_joined_part_by_part():
    flow, x = linear(Hutchinson()), draw(7)
    whole, parts = flow.bijection.solve(x, 1.0, 0.0, None, rng()), []

    def solved(x, context=None, generator=None):
        return flow.bijection.solve(x, 1.0, 0.0, context, generator)[:3]

    points, logdet, costs = in_chunks(solved, x, 3, generator=rng())
    torch.testing.assert_close(points, whole.x)
    assert logdet.shape == (7,) and costs == ()
    exactly = in_chunks(linear().bijection.encode_and_logdet, x, 3)
    torch.testing.assert_close(exactly, linear().bijection.encode_and_logdet(x))
    parts = [log_prob_with_error(flow, rows, 4, generator=g) for g in [rng()] for rows in x.split(3)]
    joined = in_chunks(
        lambda x, *, generator: log_prob_with_error(flow, x, 4, None, generator), x, 3, None, rng()
    )
    assert isinstance(joined, Likelihood)
    torch.testing.assert_close(tuple(joined), tuple(map(torch.cat, zip(*parts, strict=True))))


def test_chunks_of_a_function_of_rows_alone():
    x = draw(7)
    assert torch.equal(in_chunks(lambda x: x.sin(), x, 3), x.sin())
    assert torch.equal(in_chunks(lambda x: x.long(), x, 3), x.long())
    labels = torch.arange(7)
    assert torch.equal(in_chunks(lambda k, c: k * c, labels, 3, labels), labels**2)


def test_chunks_leave_what_is_no_context_as_it_is():
    x = draw(7)
    assert torch.equal(in_chunks(lambda x, scale=2.0: scale * x, x, 3), 2 * x)
    assert torch.equal(in_chunks(lambda x, c: x if c is None else c, x, 3), x)
    drawn = in_chunks(lambda x, generator: torch.rand(x.shape[0], generator=generator), x, 3, generator=rng())
    assert torch.equal(drawn, torch.cat([torch.rand(n, generator=g) for g in [rng()] for n in (3, 3, 1)]))


def test_where_nothing_is_drawn_one_probe_is_enough():
    counts = []
    for divergence, probes in ((exact, 16), (exact, 2), (Hutchinson(), 2)):
        calls = []
        counted = lambda t, x, calls=calls: (calls.append(1), x @ A.T)[1]
        found = log_prob_with_error(
            Flow(CNF(counted, divergence, Fixed(2)), StandardNormal(3).double()), draw(), probes
        )
        counts.append(len(calls))
        assert bool(found.standard_error.any()) == (divergence is not exact)
    assert counts[0] == counts[1] < counts[2]


def test_the_nll_of_many_rows_has_one_error_for_data_and_probes():
    """Along a linear field log p is known; the means over groups of rows scatter around it as their errors say."""
    x = draw(200 * 50)
    S = torch.linalg.matrix_exp(A)
    truth = torch.distributions.MultivariateNormal(torch.zeros(3).double(), S @ S.T)
    expected = (truth.covariance_matrix.logdet() + truth.precision_matrix.trace()) / 2 + 1.5 * math.log(
        2 * math.pi
    )
    likelihood = log_prob_with_error(linear(Hutchinson()), x, 4, generator=rng())
    found = [Likelihood(*(part[k::200] for part in likelihood)).nll for k in range(200)]
    z = torch.tensor([(value - expected) / error for value, error in found])
    assert abs(z.mean()) < 4 / 200**0.5 and abs(z.square().mean() - 1) < 0.4
    probes = likelihood.standard_error.square().mean()
    data = linear().log_prob(x).var() / 50
    assert abs(torch.tensor([e for _, e in found]).square().mean() / (data + probes / 50) - 1) < 0.1


def test_the_nll_counts_the_error_of_the_solver_as_if_all_rows_erred_one_way():
    x = draw(40)
    coarse = log_prob_with_error(linear(solver=Fixed(1, euler)), x, 2)
    apart = nll(coarse.mean)
    assert coarse.nll.value == apart.value == -coarse.mean.mean()
    assert coarse.nll.standard_error == pytest.approx(
        math.hypot(apart.standard_error, coarse.discretisation.mean())
    )
    assert coarse.nll.standard_error > coarse.discretisation.mean() > 0.05


def test_the_density_at_any_time_integrates_to_one():
    flow = built(flows["ffjord fixed"])
    line = torch.linspace(-12, 12, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    for t in (0.0, 0.4, 1.0):
        mass = log_prob_at(flow, grid, t).exp().sum() * (line[1] - line[0]) ** 2
        assert abs(mass - 1) < 1e-3
    torch.testing.assert_close(log_prob_at(flow, grid, 0.0), flow.base.log_prob(grid))
    assert torch.equal(log_prob_at(flow, grid, 1.0), flow.log_prob(grid))


def costly(*costs, net=None, solver=few, divergence=exact):
    return CNF(
        net or MLP(3, (6,)).double(), divergence, solver, costs or (KineticEnergy(), JacobianFrobenius())
    )


def units():
    mean, std = torch.tensor([1.0, -2.0, 5.0]), torch.tensor([0.5, 3.0, 2.0])
    return Standardize(mean.double(), std.double())


def assert_close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


normal = StandardNormal(3).double()


def test_costs_of_a_flow_with_units_are_those_of_its_solve():
    cnf, scale, x = costly(), units(), draw()
    log_prob, costs = log_prob_and_costs(Flow(cnf, normal).after(scale), x)
    z, logdet = scale.encode_and_logdet(x)
    solution = cnf.solve(z, 1.0, 0.0)
    assert_close(log_prob, normal.log_prob(solution.x) + solution.logdet + logdet)
    assert_close(costs, solution.costs)


def test_costs_of_several_solves_are_added_one_by_one():
    first, second, x = costly(), costly(), draw()
    flow = Flow(Chain(units(), first, Chain(Inverse(second), units())), normal)
    log_prob, costs = log_prob_and_costs(flow, x)
    there = first.solve(units().encode(x), 1.0, 0.0)
    back = second.solve(there.x, 0.0, 1.0)
    assert_close(log_prob, flow.log_prob(x))
    assert_close(costs, tuple(a + b for a, b in zip(there.costs, back.costs, strict=True)))
    twice, both = log_prob_and_costs(Flow(Chain(first, first), normal), x)
    there = first.solve(x, 1.0, 0.0)
    again = first.solve(there.x, 1.0, 0.0)
    assert_close(both, tuple(a + b for a, b in zip(there.costs, again.costs, strict=True)))
    assert_close(twice, normal.log_prob(again.x) + there.logdet + again.logdet)


def test_costs_come_with_the_one_solve_and_leave_the_flow_as_it_was():
    calls = []

    def swirl(t, x):
        calls.append(t)
        return torch.tanh(x @ A.T)

    flow = Flow(Chain(units(), costly(net=swirl)), normal)
    before = {name: dict(vars(module)) for name, module in flow.named_modules()}
    log_prob_and_costs(flow, draw())
    assert len(calls) == 16
    assert {name: vars(module) for name, module in flow.named_modules()} == before


@pytest.mark.parametrize("solver", [Fixed(4), Fixed(4, checkpoint=True), Adaptive(), Adaptive(adjoint=True)])
def test_gradients_of_costs_reach_the_field_and_are_those_of_the_solve(solver):
    cnf, x = costly(solver=solver), draw()
    flow = Flow(cnf, normal).after(units())

    def gradient(log_prob, costs):
        loss = (-log_prob + 0.3 * costs[0] + 0.1 * costs[1]).mean()
        return torch.autograd.grad(loss, list(flow.parameters()))

    z, logdet = units().encode_and_logdet(x)
    solution = cnf.solve(z, 1.0, 0.0)
    by_hand = gradient(normal.log_prob(solution.x) + solution.logdet + logdet, solution.costs)
    found = gradient(*log_prob_and_costs(flow, x))
    assert all(g.any() for g in found)
    assert_close(found, by_hand)


def test_costs_of_an_image_flow_are_summed_over_its_scales():
    with seeded():
        flow = ffjord(shape=(1, 4, 4), hidden=(3,), context=2, solver=Fixed(2), blocks=1).double()
    cnfs = [module for module in flow.modules() if isinstance(module, CNF)]
    for cnf in cnfs:
        cnf.costs, cnf.divergence = (KineticEnergy(), JacobianFrobenius()), Hutchinson()
    x, context = (
        torch.randn(3, 1, 4, 4, generator=rng()).double(),
        torch.randn(3, 2, generator=rng()).double(),
    )
    log_prob, costs = log_prob_and_costs(flow, x, context, rng(1))
    assert len(cnfs) > 1 and [cost.shape for cost in costs] == [(3,), (3,)]
    assert_close(log_prob, flow.log_prob(x, context, rng(1)))
    for cnf in cnfs:
        cnf.costs = (lambda field, t, x, context, local: torch.ones_like(local.divergence),)
    assert_close(log_prob_and_costs(flow, x, context)[1][0], torch.full((3,), float(len(cnfs))).double())


def test_costs_of_the_mode_the_flow_is_in():
    flow, x = Flow(costly(divergence=TrainEval()), normal), draw()
    energies = [log_prob_and_costs(flow, x, None, rng(k))[1][1] for k in (1, 2)]
    assert not torch.equal(*energies)
    flow.eval()
    assert torch.equal(log_prob_and_costs(flow, x)[1][1], flow.bijection.solve(x, 1.0, 0.0).costs[1])


def test_costs_of_a_compiled_part_and_of_a_compiled_flow():
    cnf, x = costly(), draw()
    wanted = log_prob_and_costs(Flow(Chain(units(), cnf), normal), x)
    part = Flow(Chain(units(), torch.compile(cnf, backend="eager")), normal)
    whole = torch.compile(Flow(Chain(units(), cnf), normal), backend="eager")
    for flow in (part, whole):
        assert_close(log_prob_and_costs(flow, x), wanted)


def test_costs_are_taken_in_one_compiled_piece():
    flow, x = Flow(costly(solver=Fixed(1, euler)), normal).after(units()), draw()
    compiled = torch.compile(lambda x: log_prob_and_costs(flow, x), fullgraph=True, backend="eager")
    assert_close(compiled(x), log_prob_and_costs(flow, x))


class Skips(nn.Module):
    """A density that holds a CNF and does not ask it."""

    def __init__(self, cnf):
        super().__init__()
        self.event_shape, self.cnf = (3,), cnf

    def log_prob(self, x, context=None, generator=None):
        return normal.log_prob(x)

    def sample(self, n, context=None, generator=None):
        return normal.sample(n, context, generator)


wrong = {
    "costs of no CNF": (
        lambda: log_prob_and_costs(realnvp(dim=3).double(), draw()),
        "Expected a flow with",
    ),
    "no costs": (
        lambda: log_prob_and_costs(linear(), draw()),
        r"at least one; got 0\.",
    ),
    "costs of two kinds": (
        lambda: log_prob_and_costs(Flow(Chain(costly(), costly(KineticEnergy())), normal), draw()),
        "same number of costs",
    ),
    "CNF passed by": (
        lambda: log_prob_and_costs(Flow(Chain(costly()), Skips(costly())), draw()),
        "Expected log_prob",
    ),
    "costs of another shape": (
        lambda: log_prob_and_costs(Flow(costly(), normal), draw()[:, :2]),
        "Expected x",
    ),
    "no CNF": (
        lambda: log_prob_with_error(realnvp(dim=3).double(), draw()),
        "Expected a flow with",
    ),
    "one probe": (lambda: log_prob_with_error(linear(), draw(), probes=1), "Expected probes"),
    "foreign solver": (
        lambda: log_prob_with_error(linear(solver=lambda *a: Fixed(2)(*a)), draw()),
        "Expected a solver that",
    ),
    "chain": (
        lambda: log_prob_at(built(flows["Chain"]), draw()[:, :2], 0.5),
        "Expected flow to be a Flow of",
    ),
    "time": (lambda: log_prob_at(linear(), draw(), 1.5), "Expected times"),
    "shape": (lambda: log_prob_at(linear(), draw()[:, :2], 0.5), "Expected x"),
    "size": (lambda: in_chunks(linear().log_prob, draw(), 0), "Expected size"),
    "no batch": (lambda: in_chunks(linear().log_prob, draw()[0], 2), "Expected x"),
}


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_a_wrong_argument_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("solver", [Fixed(2, checkpoint=True), Fixed(2)])
def test_halving_a_fixed_solver_keeps_its_kind(solver):
    assert refined(linear(solver=solver)).bijection.solver == Fixed(4, checkpoint=solver.checkpoint)
