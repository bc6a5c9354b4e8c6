"""Solvers: order, cost, direction and gradient of fixed and adaptive steps, and what they say when they give up."""

import math
import pickle

import pytest
import torch
from registry import rng, seeded
from torchdiffeq import odeint

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF, Exact, Hutchinson, TrainEval
from cnflib.continuous.likelihood import refined
from cnflib.models import ffjord
from cnflib.nets import MLP
from cnflib.ode import (
    Adaptive,
    Fixed,
    SolveError,
    Tableau,
    adaptive_heun,
    bosh3,
    dopri5,
    dopri8,
    euler,
    heun,
    midpoint,
    rk4,
)

embedded = {
    "adaptive_heun": (adaptive_heun, 2),
    "bosh3": (bosh3, 3),
    "dopri5": (dopri5, 5),
    "dopri8": (dopri8, 8),
}
orders = {"euler": (euler, 1), "midpoint": (midpoint, 2), "heun": (heun, 2), "rk4": (rk4, 4), **embedded}
methods = {dopri5: 10, dopri8: 10, bosh3: 20, adaptive_heun: 20}  # error in tolerances
tableau = pytest.mark.parametrize(("tableau", "order"), orders.values(), ids=orders)
solvers = pytest.mark.parametrize(
    "solver", [Fixed(20), Adaptive(rtol=1e-8, atol=1e-8)], ids=["fixed", "adaptive"]
)
one = torch.ones(1, dtype=torch.float64)


def growth(t, state):
    """y' = 4 t y (1 - y) through y(0) = 1/5, solved by the sigmoid of 2 t² - ln 4."""
    return (4 * t * state[0] * (1 - state[0]),)


def truth(t):
    return torch.sigmoid((2 * t**2 - math.log(4)) * one)


def solve(solver, *times, rhs=growth, state=None):
    times = torch.tensor(times, dtype=torch.float64)
    return solver(rhs, (truth(times[0]),) if state is None else state, times)


def error(solver, *times):
    return (solve(solver, *times)[0][0][-1] - truth(times[-1])).abs().item()


@tableau
def test_a_tableau_is_consistent(tableau, order):
    assert [sum(row) for row in tableau.a] == pytest.approx(list(tableau.c))
    assert [len(row) for row in tableau.a] == list(range(len(tableau.b)))
    moments = [sum(b * c**k for b, c in zip(tableau.b, tableau.c, strict=True)) for k in range(order)]
    assert moments == pytest.approx([1 / (k + 1) for k in range(order)])


@tableau
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
def test_measured_order_is_the_method_s(tableau, order, times):
    steps = torch.tensor([64, 128, 256] if order < 5 else [32, 64, 128] if order < 8 else [8, 16, 24])
    errors = torch.tensor([error(Fixed(int(n), tableau), *times) for n in steps])
    slopes = -errors.log2().diff() / steps.log2().diff()
    assert (slopes - order).abs().max() < (0.15 if order < 5 else 0.5)


@pytest.mark.parametrize(("tableau", "order"), embedded.values(), ids=embedded)
def test_the_weights_of_the_error_vanish_to_the_order_of_the_solution_they_compare_with(tableau, order):
    moments = [sum(e * c**k for e, c in zip(tableau.e, tableau.c, strict=True)) for k in range(order)]
    assert moments[:-1] == pytest.approx([0] * (order - 1), abs=1e-15) and abs(moments[-1]) > 1e-5
    assert tableau.order == order


def test_a_tableau_of_one_s_own_is_enough_for_a_new_method():
    ralston = Tableau(c=(0, 2 / 3), a=((), (2 / 3,)), b=(1 / 4, 3 / 4))
    assert math.log2(error(Fixed(64, ralston), 0, 1) / error(Fixed(128, ralston), 0, 1)) == pytest.approx(
        2, abs=0.15
    )


@tableau
def test_fixed_steps_have_a_known_cost(tableau, order):
    calls = []
    _, stats = solve(Fixed(5, tableau), 0.0, 0.4, 1.0, rhs=lambda t, y: (calls.append(t), growth(t, y))[1])
    assert stats[:3] == (2 * 5 * len(tableau.b), 10, 0) and len(calls) == stats.nfe


def test_fixed_steps_are_equal_between_times():
    calls = []
    solve(Fixed(2, euler), 0.0, 0.5, 1.0, rhs=lambda t, y: (calls.append(t.item()), growth(t, y))[1])
    assert calls == pytest.approx([0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(("method", "times_tolerance"), methods.items(), ids=map(repr, methods))
def test_adaptive_error_keeps_to_the_tolerance_and_falls_with_it(method, times_tolerance):
    tolerances = (1e-3, 1e-5, 1e-6)
    errors = [error(Adaptive(method, tol, tol), 0, 1) for tol in tolerances]
    nfe = [solve(Adaptive(method, tol, tol), 0, 1)[1].nfe for tol in tolerances]
    assert errors[-1] < errors[0] / 100 and nfe == sorted(nfe)
    assert all(e < times_tolerance * tol for e, tol in zip(errors, tolerances, strict=True))


@pytest.mark.parametrize("times", [(0.0, 0.13, 0.37, 0.61, 1.0), (1.0, 0.77, 0.24, 0.0)], ids=["up", "down"])
def test_adaptive_is_as_accurate_between_the_ends_as_at_the_end(times):
    (y,), _ = solve(Adaptive(rtol=1e-8, atol=1e-8), *times)
    exact = torch.stack([truth(torch.tensor(t, dtype=torch.float64)) for t in times])
    assert (y - exact).abs().max() < 2e-8


@pytest.mark.parametrize(("rtol", "atol"), [(1e-9, 1e-3), (1e-3, 1e-9)])
def test_relative_tolerance_counts_for_large_states_and_absolute_for_small(rtol, atol):
    def work(size):
        return solve(Adaptive(rtol=rtol, atol=atol), 0, 1, rhs=lambda t, y: (9 * y[0],), state=(size * one,))[
            1
        ].nfe

    assert work(1e5) > 2 * work(1e-7) if rtol < atol else work(1e5) == work(1.0) < 200


def test_adaptive_counts_evaluations_and_steps():
    calls = []
    _, stats = solve(
        Adaptive(), 0, 1, rhs=lambda t, y: (calls.append(t), (20 * torch.cos(20 * t) * y[0],))[1]
    )
    assert (
        stats.nfe == len(calls) == 2 + 6 * (stats.accepted + stats.rejected)
    )  # dopri5 reuses its last slope
    assert stats.accepted > 3 and stats.rejected > 0


@pytest.mark.parametrize("speed", [0.0, 3.0], ids=["no motion", "constant speed"])
def test_a_straight_path_takes_one_step(speed):
    (y,), stats = solve(Adaptive(rtol=1e-9, atol=1e-9), 0, 1, rhs=lambda t, y: (speed + 0 * y[0],))
    assert stats[:3] == (8, 1, 0) and y[-1].item() == pytest.approx(0.2 + speed)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0])
def test_the_first_step_is_of_the_right_size(rate, tolerance):
    """Within five times the mean of those that were accepted, whatever the time scale and the tolerance."""
    ends = []
    _, stats = solve(
        Adaptive(rtol=tolerance, atol=tolerance),
        *(0, 1),
        rhs=lambda t, y: (ends.append(t.item()), rate * torch.sin(rate * t + 1) * torch.ones_like(y[0]))[1:],
    )
    assert 1 / 5 < ends[7] * stats.accepted < 5


def test_the_last_steps_are_equal_and_no_sliver_is_left():
    ends = []
    solve(Adaptive(rtol=1e-7, atol=1e-7), 0, 1, rhs=lambda t, y: (ends.append(t.item()), -5 * y[0])[1:])
    steps = torch.tensor(sorted(set(ends[7::6]) | {0.0})).diff()
    assert steps[-1] > 0.5 * steps.max()


@pytest.mark.parametrize("method", methods, ids=repr)
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.3, 0.0)], ids=["up", "down"])
def test_states_and_gradients_are_those_of_torchdiffeq(method, times):
    """At tolerances where both have converged; the gradient is for the weights, the state and the times."""
    torch.manual_seed(0)
    net, x = MLP(3, (8,)).double(), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    times = torch.tensor(times, dtype=torch.float64, requires_grad=True)
    rhs = lambda t, y: (net(t, 3 * y[0], None), y[0].sin().sum(1))  # noqa: E731
    tolerance = {"rtol": 1e-8, "atol": 1e-8} if method in (dopri5, dopri8) else {"rtol": 1e-6, "atol": 1e-6}
    state = (x, x.new_zeros(5))
    ours, _ = Adaptive(method, **tolerance)(rhs, state, times)
    theirs = odeint(rhs, state, times, rtol=1e-10, atol=1e-10, method="dopri5")
    inputs = [*net.parameters(), x, times]
    pulled = [torch.autograd.grad((y[0].cos().sum() + y[1].square().sum()), inputs) for y in (ours, theirs)]
    for a, b in zip((*ours, *pulled[0]), (*theirs, *pulled[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# Steps of its own for every row.


def bent(size):
    torch.manual_seed(0)
    net = MLP(2).double()
    with torch.no_grad():
        for p in net.parameters():
            p *= size
    return net


@pytest.mark.parametrize("divergence", [Exact(), Hutchinson()], ids=["exact", "hutchinson"])
@pytest.mark.parametrize("direction", [(0.0, 1.0), (1.0, 0.5, 0.0)], ids=["up", "down"])
def test_with_steps_of_its_own_a_row_does_not_depend_on_its_batch(divergence, direction):
    cnf, x = CNF(bent(3), divergence, Adaptive(per_row=True)), torch.randn(4, 2, generator=rng()).double()
    probes = torch.randint(0, 2, (1, 4, 2), generator=rng()).double() * 2 - 1

    def path(rows):
        cnf.divergence = (
            divergence
            if isinstance(divergence, Exact)
            else Hutchinson(lambda shape, like, generator: probes[:, rows])
        )
        solution = cnf.solve_along(x[rows], direction)
        return solution.x, solution.logdet

    together, apart = path(slice(None)), [path(slice(k, k + 1)) for k in range(4)]
    for part, whole in enumerate(together):
        torch.testing.assert_close(torch.cat([a[part] for a in apart], 1), whole, rtol=1e-12, atol=1e-12)
    with_mates = CNF(bent(3), solver=Adaptive())
    alone, among = with_mates.decode_and_logdet(x[:1])[0], with_mates.decode_and_logdet(x)[0][:1]
    assert (alone - among).abs().max() > 1e-9


def test_the_steps_counted_are_those_of_the_row_with_most():
    cnf, x = CNF(bent(3), solver=Adaptive(per_row=True)), torch.randn(9, 2, generator=rng()).double()
    apart = [cnf.solve(row[None], 1.0, 0.0) for row in x]
    together = cnf.solve(x, 1.0, 0.0)
    assert together.accepted == max(a.accepted for a in apart)
    assert together.accepted + together.rejected == max(a.accepted + a.rejected for a in apart)
    assert together.rejected > 0


def test_with_steps_of_its_own_every_row_keeps_to_the_tolerance():
    """One row among a thousand moves fast: the mean over the batch hides its error."""
    speed = torch.full((1000, 1), 0.01, dtype=torch.float64)
    speed[0] = 50
    x = torch.zeros_like(speed)

    def field(t, x, context):
        return torch.cos(speed * t.reshape(-1, 1)) * speed * torch.ones_like(x)

    errors, work = {}, {}
    for per_row in (False, True):
        solution = CNF(field, solver=Adaptive(rtol=1e-6, atol=1e-6, per_row=per_row)).solve(x, 0.0, 1.0)
        errors[per_row], work[per_row] = (solution.x - torch.sin(speed)).abs(), solution.accepted
    assert errors[True].max() < errors[False].max() / 5 and work[True] > work[False]


def test_with_steps_of_its_own_a_row_has_the_gradient_of_its_steps():
    x = torch.randn(6, 2, generator=rng()).double()

    def gradient(solver):
        net = bent(2)
        z, logdet = CNF(net, solver=solver).decode_and_logdet(x)
        return torch.autograd.grad(z.square().sum() + logdet.sum(), list(net.parameters()))

    pairs = zip(gradient(Adaptive(per_row=True, rtol=1e-8, atol=1e-8)), gradient(Fixed(60)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_row_that_gives_up_is_said_with_its_own_time():
    """x' = x² blows up at 1 / x(0): at 1/2 in the first row, never in the second."""
    x = torch.tensor([[2.0], [0.1]], dtype=torch.float64)
    with pytest.raises(SolveError, match=r"t = 0\.(5|49)"):
        CNF(lambda t, x: x**2, solver=Adaptive(per_row=True)).decode_and_logdet(x)


@pytest.mark.parametrize("per_row", [False, True])
def test_half_the_steps_length_cuts_every_step_in_two(per_row):
    flow = Flow(CNF(bent(2), solver=Adaptive(rtol=1e-4, atol=1e-4, per_row=per_row)), StandardNormal(2))
    x = torch.randn(6, 2, generator=rng()).double()
    truth = Flow(CNF(bent(2), solver=Fixed(20, dopri8)), StandardNormal(2)).log_prob(x)
    coarse, fine = (f.bijection.solve(x, 1.0, 0.0).accepted for f in (flow, refined(flow)))
    assert 2 * coarse <= fine <= 2 * coarse + 2
    errors = [(f.log_prob(x) - truth).abs().max().item() for f in (flow, refined(flow))]
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize(("method", "per_row"), [(dopri5, False), (adaptive_heun, True)], ids=repr)
def test_a_compiled_step_is_the_same_step_and_is_compiled_once(monkeypatch, method, per_row):
    """With a backend that runs the captured graph as it is: the graph is what could be wrong here.

    There are three graphs: the beginning, a step from a state without gradient, and one from a state with.
    """
    torch.compiler.reset()
    graphs, compiling = [], torch.compile
    backend = lambda graph, inputs: graphs.append(graph) or graph  # noqa: E731
    monkeypatch.setattr(torch, "compile", lambda f, options, **rest: compiling(f, backend=backend, **rest))
    x = torch.randn(6, 2, generator=rng()).double()

    def values(**options):
        net = bent(2)
        cnf = pickle.loads(
            pickle.dumps(CNF(net, solver=Adaptive(method, 1e-3, 1e-3, per_row=per_row, **options)))
        )
        net, runs = cnf.field, []
        for rows in (x, 2 * x):
            solution = cnf.solve(rows, 1.0, 0.0)
            loss = solution.x.square().sum() + solution.logdet.sum()
            runs += [solution.x, solution.logdet, *torch.autograd.grad(loss, list(net.parameters()))]
        return runs

    for a, b in zip(values(compiled=True), values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert len(graphs) == 3


@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=["vectors", "images"])
def test_a_compiled_step_serves_batches_of_any_size_in_training_and_evaluation(monkeypatch, shape):
    """Beginning and step are compiled for the first size, once more for any other, and anew in evaluation."""
    torch.compiler.reset()
    graphs, compiling = [], torch.compile
    backend = lambda graph, inputs: graphs.append(graph) or graph  # noqa: E731
    monkeypatch.setattr(torch, "compile", lambda f, options, **rest: compiling(f, backend=backend, **rest))

    def built(compiled):
        with seeded():
            solver = Adaptive(adaptive_heun, 1e-2, 1e-2, compiled=compiled)
            return ffjord(shape=shape, hidden=(3,), solver=solver, divergence=TrainEval(), **one).double()

    one = {"scales": 1, "blocks": 1} if len(shape) == 3 else {}
    flows, counts = (built(True), built(False)), []
    for n in (3, 5, 7, 11, 13, 17, 19):
        x = torch.randn(n, *shape, generator=rng(n)).double()
        losses = [flow.train().log_prob(x, generator=rng()).mean() for flow in flows]
        grads = [
            torch.autograd.grad(loss, list(flow.parameters()))
            for loss, flow in zip(losses, flows, strict=True)
        ]
        torch.testing.assert_close(*grads)
        counts.append(len(graphs))
        with torch.no_grad():
            torch.testing.assert_close(*[flow.eval().log_prob(x) for flow in flows])
    assert len(graphs) <= 10 and counts[2:] == counts[2:3] * 5


@solvers
def test_a_solve_goes_backward_in_time(solver):
    assert error(solver, 1.0, 0.0) < 1e-4 and error(solver, 0.7, 0.2) < 1e-4


@solvers
@pytest.mark.parametrize("times", [(0.0, 0.3, 0.4, 1.0), (1.0, 0.6, 0.0)], ids=["up", "down"])
def test_several_times_are_solved_one_after_the_other(solver, times):
    (y,), _ = solve(solver, *times)
    assert y.shape == (len(times), 1) and torch.equal(y[0], truth(times[0]))
    for k, (start, end) in enumerate(zip(times[:-1], times[1:], strict=True)):
        (pair,), _ = solve(solver, start, end, state=(y[k],))
        torch.testing.assert_close(y[k + 1], pair[-1], rtol=1e-6, atol=1e-6)


@solvers
@pytest.mark.parametrize("times", [(0.0, 1.0), (0.9, 0.2)])
@pytest.mark.parametrize("speed", [1e-6, 1.0, 30.0])
def test_the_right_hand_side_is_never_asked_outside_the_times(solver, times, speed):
    seen = []
    solve(solver, *times, rhs=lambda t, y: (seen.append(t.item()), (-speed * y[0],))[1])
    assert min(times) <= min(seen) and max(seen) <= max(times)
    assert seen[0] == pytest.approx(times[0])


@solvers
def test_gradient_reaches_both_times(solver):
    times = torch.tensor([0.2, 0.9], dtype=torch.float64, requires_grad=True)
    (y,), _ = solver(growth, (one / 5,), times)
    grad = torch.autograd.grad(y[-1].sum(), times)[0]
    wanted = torch.tensor([-0.2, 0.9], dtype=torch.float64) * 4 * y[-1] * (1 - y[-1])
    torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-4)


@solvers
def test_a_state_of_several_parts_is_solved_part_by_part(solver):
    a, b = torch.ones(2, 3).double(), torch.ones(2).double()
    (x, y), _ = solve(solver, 0, 1, rhs=lambda t, s: (s[0], t * s[1]), state=(a, b))
    assert (x[-1] - math.e).abs().max() < 1e-4 and (y[-1] - math.exp(0.5)).abs().max() < 1e-4
    assert x.shape == (2, 2, 3) and y.shape == (2, 2)


@solvers
def test_a_solver_can_be_pickled(solver):
    assert torch.equal(solve(pickle.loads(pickle.dumps(solver)), 0, 1)[0][0], solve(solver, 0, 1)[0][0])


def nan_late(t, x):
    return torch.where(t < 0.4, x, torch.nan)


gives_up = {
    "blow-up": (lambda t, x: x**2, {}, "blows up|step size underflowed"),
    "stiff": (lambda t, x: -1e9 * x, {"max_steps": 20}, "max_steps was reached.*tol"),
    "NaN": (nan_late, {}, "NaN or inf.*weights"),
    "kink": (lambda t, x: 1e6 * torch.sign(torch.sin(1e9 * t)) * x, {"max_steps": 50}, "Fixed"),
}


@pytest.mark.parametrize(("field", "options", "remedy"), gives_up.values(), ids=gives_up)
def test_a_solve_that_gives_up_says_where_and_what_to_try(field, options, remedy):
    x = 2 * torch.ones(3, 1, dtype=torch.float64)
    with pytest.raises(SolveError, match=rf"(?s)stopped at t = [\d.e-]+ after \d+ accepted.*({remedy})"):
        CNF(field, solver=Adaptive(**options)).decode_and_logdet(x)


def test_the_time_it_stopped_at_is_that_of_the_singularity():
    """x' = x² from x = 2 blows up at t = 1/2."""
    with pytest.raises(SolveError, match=r"t = 0\.(5|49)"):
        CNF(lambda t, x: x**2, solver=Adaptive()).decode_and_logdet(2 * torch.ones(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("error", [AssertionError("mine"), KeyError("mine"), AssertionError()])
def test_an_error_of_the_field_s_own_stays_itself(error):
    def field(t, x, context):
        raise error

    with pytest.raises(type(error)) as caught:
        CNF(field, solver=Adaptive()).decode_and_logdet(torch.randn(2, 1, generator=rng()))
    assert caught.value is error and not isinstance(caught.value, SolveError)
