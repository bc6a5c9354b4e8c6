"""Solvers: order, cost, direction and gradient of fixed and adaptive steps, and what they say when they give up."""

import math
import pickle

import pytest
import torch
from registry import rng

from cnflib.continuous import CNF, SolveError, Tableau, adaptive, euler, fixed, heun, midpoint, rk4

orders = {"euler": (euler, 1), "midpoint": (midpoint, 2), "heun": (heun, 2), "rk4": (rk4, 4)}
methods = {"dopri5": 10, "dopri8": 10, "bosh3": 20, "adaptive_heun": 20}  # error in tolerances
tableau = pytest.mark.parametrize(("tableau", "order"), orders.values(), ids=orders)
solvers = pytest.mark.parametrize(
    "solver", [fixed(20), adaptive(rtol=1e-8, atol=1e-8)], ids=["fixed", "adaptive"]
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
    steps = torch.tensor([32, 64, 128])
    errors = torch.tensor([error(fixed(int(n), tableau), *times) for n in steps])
    slopes = -errors.log2().diff() / steps.log2().diff()
    assert (slopes - order).abs().max() < 0.15


def test_a_tableau_of_one_s_own_is_enough_for_a_new_method():
    ralston = Tableau(c=(0, 2 / 3), a=((), (2 / 3,)), b=(1 / 4, 3 / 4))
    assert math.log2(error(fixed(64, ralston), 0, 1) / error(fixed(128, ralston), 0, 1)) == pytest.approx(
        2, abs=0.15
    )


@tableau
def test_fixed_steps_have_a_known_cost(tableau, order):
    calls = []
    _, stats = solve(fixed(5, tableau), 0.0, 0.4, 1.0, rhs=lambda t, y: (calls.append(t), growth(t, y))[1])
    assert stats[:3] == (2 * 5 * len(tableau.b), 10, 0) and len(calls) == stats.nfe


def test_fixed_steps_are_equal_between_times():
    calls = []
    solve(fixed(2, euler), 0.0, 0.5, 1.0, rhs=lambda t, y: (calls.append(t.item()), growth(t, y))[1])
    assert calls == pytest.approx([0, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(("method", "times_tolerance"), methods.items())
def test_adaptive_error_keeps_to_the_tolerance_and_falls_with_it(method, times_tolerance):
    tolerances = (1e-3, 1e-5, 1e-6)
    errors = [error(adaptive(method, tol, tol), 0, 1) for tol in tolerances]
    nfe = [solve(adaptive(method, tol, tol), 0, 1)[1].nfe for tol in tolerances]
    assert errors[-1] < errors[0] / 100 and nfe == sorted(nfe)
    assert all(e < times_tolerance * tol for e, tol in zip(errors, tolerances, strict=True))


@pytest.mark.parametrize("times", [(0.0, 0.13, 0.37, 0.61, 1.0), (1.0, 0.77, 0.24, 0.0)], ids=["up", "down"])
def test_adaptive_is_as_accurate_between_the_ends_as_at_the_end(times):
    (y,), _ = solve(adaptive(rtol=1e-8, atol=1e-8), *times)
    exact = torch.stack([truth(torch.tensor(t, dtype=torch.float64)) for t in times])
    assert (y - exact).abs().max() < 2e-8


@pytest.mark.parametrize(("rtol", "atol"), [(1e-9, 1e-3), (1e-3, 1e-9)])
def test_relative_tolerance_counts_for_large_states_and_absolute_for_small(rtol, atol):
    def work(size):
        return solve(adaptive(rtol=rtol, atol=atol), 0, 1, rhs=lambda t, y: (9 * y[0],), state=(size * one,))[
            1
        ].nfe

    assert work(1e5) > 2 * work(1e-7) if rtol < atol else work(1e5) == work(1.0) < 200


def test_adaptive_counts_evaluations_and_steps():
    calls = []
    _, stats = solve(
        adaptive(), 0, 1, rhs=lambda t, y: (calls.append(t), (20 * torch.cos(20 * t) * y[0],))[1]
    )
    assert (
        stats.nfe == len(calls) == 2 + 6 * (stats.accepted + stats.rejected)
    )  # dopri5 reuses its last slope
    assert stats.accepted > 3 and stats.rejected > 0


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


def nan_late(t, x, context):
    return torch.where(t < 0.4, x, torch.nan)


gives_up = {
    "blow-up": (lambda t, x, c: x**2, {}, "blows up|step size underflowed"),
    "stiff": (lambda t, x, c: -1e9 * x, {"max_steps": 20}, "max_steps was reached.*tol"),
    "NaN": (nan_late, {}, "NaN or inf.*weights"),
    "kink": (lambda t, x, c: 1e6 * torch.sign(torch.sin(1e9 * t)) * x, {"max_steps": 50}, "fixed"),
}


@pytest.mark.parametrize(("field", "options", "remedy"), gives_up.values(), ids=gives_up)
def test_a_solve_that_gives_up_says_where_and_what_to_try(field, options, remedy):
    x = 2 * torch.ones(3, 1, dtype=torch.float64)
    with pytest.raises(SolveError, match=rf"(?s)stopped at t = [\d.e-]+ after \d+ accepted.*({remedy})"):
        CNF(field, solver=adaptive(**options)).inverse(x)


def test_the_time_it_stopped_at_is_that_of_the_singularity():
    """x' = x² from x = 2 blows up at t = 1/2."""
    with pytest.raises(SolveError, match=r"t = 0\.(5|49)"):
        CNF(lambda t, x, c: x**2, solver=adaptive()).inverse(2 * torch.ones(1, 1, dtype=torch.float64))


@pytest.mark.parametrize("error", [AssertionError("mine"), KeyError("mine"), AssertionError()])
def test_an_error_of_the_field_s_own_stays_itself(error):
    def field(t, x, context):
        raise error

    with pytest.raises(type(error)) as caught:
        CNF(field, solver=adaptive()).inverse(torch.randn(2, 1, generator=rng()))
    assert caught.value is error and not isinstance(caught.value, SolveError)
