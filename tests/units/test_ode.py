"""Initial value problems on their own: solve and its settings, closed forms, projections, and torchdiffeq's solvers."""

import copy
import dataclasses
import doctest
import importlib
import inspect
import math
import pickle
import warnings

import pytest
import torch
import torchdiffeq
from registry import rng
from torch import nn

from cnflib import ode
from cnflib.continuous import CNF
from cnflib.nets import MLP
from cnflib.ode import (
    Adaptive,
    Fixed,
    SolveError,
    Tableau,
    TorchDiffEq,
    Work,
    adaptive_heun,
    alternatives,
    bosh3,
    dopri5,
    dopri8,
    euler,
    heun,
    midpoint,
    rk4,
    solve,
)

double = torch.float64
orders = {euler: 1, midpoint: 2, heun: 2, rk4: 4, adaptive_heun: 2, bosh3: 3, dopri5: 5, dopri8: 8}
adaptive = ["adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2"]
grids = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
adams = ["explicit_adams", "implicit_adams", "fixed_adams"]
own = Tableau(c=(0, 2 / 3), a=((), (2 / 3,)), b=(1 / 4, 3 / 4), e=(-3 / 4, 3 / 4), order=2)


def theirs(method, **options):
    """torchdiffeq's method, at settings where it is good to some 1e-5, or what ``bound`` says."""
    if method in adaptive:
        tolerance = {"adaptive_heun": 1e-5, "fehlberg2": 1e-6, "bosh3": 1e-8}.get(method, 1e-10)
        return TorchDiffEq(method, tolerance, tolerance, **options)
    extra = {"max_order": 4} if method == "explicit_adams" else {}
    if "adams" in method:
        extra |= {"rtol": 1e-12, "atol": 1e-12}
    return TorchDiffEq(method, step_size=0.01 if grids.get(method, 4) > 2 else 4e-3, **extra, **options)


def bound(method, usual):
    """How near a method of low order comes at these settings: closer would take thousands of steps."""
    return {"euler": 2e-2, "adaptive_heun": 1e-3, "fehlberg2": 1e-3}.get(method, usual)


def ours():
    tight = {"rtol": 1e-9, "atol": 1e-9}
    return {
        "fixed": Fixed(60),
        "checkpoint": Fixed(60, checkpoint=True),
        "adaptive": Adaptive(**tight),
        "dopri8": Adaptive(dopri8, **tight),
        "adjoint": Adaptive(**tight, adjoint=True),
        "torchdiffeq": TorchDiffEq(rtol=1e-10, atol=1e-10),
        "torchdiffeq adjoint": TorchDiffEq(rtol=1e-10, atol=1e-10, adjoint=True),
        "torchdiffeq rk4": TorchDiffEq("rk4", step_size=0.01),
        "torchdiffeq rk4 adjoint": TorchDiffEq("rk4", adjoint=True, step_size=0.01),
    }


every = pytest.mark.parametrize("solver", ours().values(), ids=ours())
anew = [
    solver
    for solver in ours().values()
    if "adjoint=True" in repr(solver) or "checkpoint=True" in repr(solver)
]
directions = pytest.mark.parametrize("times", [(0.2, 0.5, 1.1), (1.1, 0.4, 0.2)], ids=["up", "down"])


def swing(t, y):
    """y' = cos(t) y, solved by y(s) exp(sin t - sin s)."""
    return torch.cos(t) * y


def swung(y0, times):
    factors = torch.exp(torch.sin(times) - torch.sin(times[0]))
    return factors.reshape(-1, *[1] * y0.ndim) * y0


# Values.


@every
@directions
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2)], ids=str)
def test_a_closed_form_for_a_value_of_any_shape(solver, times, shape):
    y0 = torch.randn(shape, generator=rng(), dtype=double)
    result = solve(swing, y0, times, solver)
    torch.testing.assert_close(result.y, swung(y0, torch.tensor(times, dtype=double)), rtol=1e-6, atol=1e-6)
    assert result.y.shape == (3, *shape) and torch.equal(result.y[0], y0)


@every
@directions
def test_a_tuple_is_solved_part_by_part(solver, times):
    """A rotation of a number and one of a matrix beside it."""
    y0 = (torch.tensor(1.0, dtype=double), torch.zeros((), dtype=double), torch.ones(2, 3, dtype=double))
    a, b, c = solve(lambda t, y: (-y[1], y[0], t * y[2]), y0, times, solver).y
    t = torch.tensor(times, dtype=double)
    torch.testing.assert_close(a, torch.cos(t - t[0]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(b, torch.sin(t - t[0]), rtol=1e-6, atol=1e-6)
    grown = torch.exp((t**2 - t[0] ** 2) / 2)[:, None, None].expand(3, 2, 3)
    torch.testing.assert_close(c, grown, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tableau", orders, ids=repr)
def test_the_order_of_every_tableau_is_measured_through_solve(tableau):
    order = orders[tableau]
    steps = [16, 32] if order < 8 else [2, 4]
    y0 = torch.ones(1, dtype=double)
    errors = [
        (solve(swing, y0, (0, 2), Fixed(n, tableau)).y[-1] - math.exp(math.sin(2))).abs().item()
        for n in steps
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.6)


def test_a_stage_may_look_ahead_without_moving():
    trapezium = Tableau(c=(0, 1), a=((), (0.0,)), b=(0.5, 0.5))  # y + h (f(t, y) + f(t + h, y)) / 2
    y = solve(
        lambda t, y: 2 * t * torch.ones_like(y), torch.zeros(1, dtype=double), [0.0, 3.0], Fixed(1, trapezium)
    ).y
    assert y[-1].item() == 9.0


@pytest.mark.parametrize("method", [*grids, *adams])
def test_the_order_of_a_method_of_fixed_steps_of_torchdiffeq(method):
    def error(h):
        options = {"max_order": 4} if method == "explicit_adams" else {}
        solver = TorchDiffEq(method, 1e-13, 1e-13, step_size=h, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the implicit iteration at the last digits
            y = solve(swing, torch.ones(1, dtype=double), (0, 2), solver).y
        return (y[-1] - math.exp(math.sin(2))).abs().item()

    h = 0.1 if method in adams else 0.025
    measured = math.log2(error(h) / error(h / 2))
    assert measured > 2.4 if method in adams else measured == pytest.approx(grids[method], abs=0.15)


@directions
@pytest.mark.parametrize("method", [*adaptive, *grids, *adams])
def test_a_solve_is_that_of_torchdiffeq(method, times):
    net, y0 = MLP(3, (8,)).double(), torch.randn(5, 3, generator=rng(), dtype=double)
    solver = theirs(method)
    result = solve(net, y0, times, solver)
    reference = torchdiffeq.odeint(net, y0, torch.tensor(times, dtype=double), rtol=1e-11, atol=1e-11)
    near = bound(method, 1e-5)
    torch.testing.assert_close(result.y, reference, rtol=near, atol=near)
    assert result.backward == Work() and result.nfe >= result.accepted > 0


@pytest.mark.parametrize("tableau", [dopri5, dopri8, bosh3, adaptive_heun], ids=repr)
def test_adaptive_steps_agree_with_torchdiffeq(tableau):
    net, y0 = MLP(3, (8,)).double(), torch.randn(5, 3, generator=rng(), dtype=double)
    reference = torchdiffeq.odeint(net, y0, torch.tensor([0.0, 1.0], dtype=double), rtol=1e-11, atol=1e-11)
    result = solve(net, y0, (0.0, 1.0), Adaptive(tableau, 1e-7, 1e-7))
    torch.testing.assert_close(result.y, reference, rtol=1e-5, atol=1e-5)


years = [(1900, 1920), (1900, 1900.1, 1920), (1920, 1900)]
calendar = [
    Adaptive(rtol=1e-6, atol=1e-6),
    Adaptive(per_row=True),
    Fixed(400),
    TorchDiffEq(rtol=1e-6, atol=1e-6),
]


@pytest.mark.parametrize("times", years, ids=str)
@pytest.mark.parametrize("solver", [*calendar, TorchDiffEq("rk4", step_size=0.05)], ids=repr)
@pytest.mark.parametrize("field", ["autonomous", "of time"])
def test_years_in_float32_cost_no_digits_of_the_steps(times, solver, field):
    """The field of time sees years to 6e-5, and an adaptive solver takes that for roughness."""

    def f(t, y):
        assert t.dtype == torch.float32
        return (
            -0.1 * y
            if field == "autonomous"
            else torch.cos(t - 1900).reshape(-1, *[1] * t.ndim).squeeze(0) * y
        )

    since = torch.tensor(times, dtype=double) - 1900
    truth = torch.exp(-0.1 * since if field == "autonomous" else torch.sin(since))
    y = solve(f, truth[:1, None].float(), times, solver).y[:, 0, 0]
    worst = ((y - truth) / truth).abs().max()
    assert worst < (1e-3 if field == "of time" or solver == Adaptive(per_row=True) else 1e-4)


@pytest.mark.parametrize("solver", [Adaptive(), Adaptive(adjoint=True), Fixed(5), TorchDiffEq()], ids=repr)
def test_a_short_way_between_years_is_not_rounded(solver):
    """In float32 1900.1 - 1900 is wrong in its fourth digit."""
    y0 = torch.zeros(1, requires_grad=True)
    y = solve(lambda t, y: torch.ones_like(y) + 0 * y, y0, (1900, 1900.1), solver).y
    assert y[-1].item() == pytest.approx(0.1, rel=5e-6)
    y[-1].sum().backward()
    assert y0.grad.item() == 1


def test_an_empty_value_needs_no_solve():
    result = solve(swing, torch.ones(0, 2), (0.0, 0.5, 1.0))
    assert result.y.shape == (3, 0, 2) and result[1:] == (0, 0, 0, Work())


# Gradients.


class Rate(nn.Module):
    """y' = -w t y, with a parameter that is not used and one that wants no gradient."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.7, dtype=double))
        self.spare, self.frozen = (
            nn.Parameter(torch.ones(2)),
            nn.Parameter(torch.ones(2), requires_grad=False),
        )

    def forward(self, t, y):
        return -self.w * t * y


def assert_gradients(solver, times, near):
    """Those of y(t) = y0 exp(-w (t² - s²) / 2), in y0, w and all times."""
    f, y0 = Rate(), torch.tensor([1.0, -2.0], dtype=double, requires_grad=True)
    times = torch.tensor(times, dtype=double, requires_grad=True)
    leaves = [y0, f.w, times]
    truth = y0 * torch.exp(-f.w * (times**2 - times[0] ** 2) / 2)[:, None]
    y = solve(f, y0, times, solver).y
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=double)
    pairs = [torch.autograd.grad((weights * v.sin()).sum(), leaves) for v in (y, truth)]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near)


@every
@directions
def test_gradients_in_value_parameters_and_times_are_those_of_the_closed_form(solver, times):
    assert_gradients(solver, times, 1e-5)


@directions
@pytest.mark.parametrize("method", [*adaptive, *grids, *adams])
@pytest.mark.parametrize("adjoint", [False, True], ids=["", "adjoint"])
def test_every_method_of_torchdiffeq_has_gradients(method, times, adjoint):
    assert_gradients(theirs(method, adjoint=adjoint), times, bound(method, 1e-4))


@pytest.mark.parametrize("method", [*adaptive, *grids, *adams])
def test_a_method_of_torchdiffeq_passes_gradcheck(method):
    """Of coarse steps and tolerances too the gradient is that of the steps, where these do not change."""
    f = MLP(2, (4,)).double()
    options = {"first_step": 0.3, "ifactor": 1, "dfactor": 1} if method in adaptive else {"step_size": 0.3}
    solver = TorchDiffEq(method, 1.0, 1.0, **options)
    y0 = torch.randn(3, 2, generator=rng(), dtype=double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: solve(f, y, (0, 1.0), solver).y, y0, atol=1e-6)


@every
def test_a_field_that_stands_still_has_the_gradient_of_nothing(solver):
    y0 = torch.ones(2, dtype=double, requires_grad=True)
    solve(lambda t, y: torch.ones_like(y), y0, (0.0, 0.5, 1.0), solver).y.sum().backward()
    assert torch.equal(y0.grad, torch.full((2,), 3.0, dtype=double))


@pytest.mark.parametrize("solver", anew, ids=repr)
def test_what_f_depends_on_is_found_in_a_module_or_given(solver):
    f, y0 = Rate(), torch.ones(2, dtype=double)
    truth = -math.exp(-0.35)
    for arguments in ((f,), (lambda t, y: f(t, y),)):
        params = None if arguments[0] is f else [f.w]
        (grad,) = torch.autograd.grad(solve(*arguments, y0, (0, 1), solver, params).y[-1].sum(), [f.w])
        assert grad.item() == pytest.approx(truth, rel=1e-4)
    with pytest.raises(ValueError, match="Expected every tensor"):
        solve(lambda t, y: f(t, y), y0, (0, 1), solver)


@pytest.mark.parametrize("solver", anew, ids=repr)
@pytest.mark.parametrize("loss", [lambda y: y.square().sum(), lambda y: y.sum()], ids=["curved", "straight"])
def test_a_gradient_of_a_gradient_is_refused(solver, loss):
    y0 = torch.ones(2, dtype=double, requires_grad=True)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(loss(solve(swing, y0, (0, 1), solver).y), y0, create_graph=True)


@pytest.mark.parametrize("solver", anew, ids=repr)
def test_parameters_that_are_others_in_the_backward_pass_are_refused(solver):
    f, y0 = Rate(), torch.ones(2, dtype=double)
    others = {name: p.detach().clone().requires_grad_() for name, p in f.named_parameters()}

    class Solved(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = f

        def forward(self, y):
            return solve(self.f, y, (0, 1), solver).y

    y = torch.func.functional_call(Solved(), {f"f.{name}": p for name, p in others.items()}, (y0,))
    with pytest.raises(ValueError, match="Expected every tensor"):
        y.sum().backward()


@pytest.mark.parametrize("solver", anew, ids=repr)
def test_a_hook_is_refused(solver):
    f = Rate()
    f.w.register_hook(lambda g: 2 * g)
    with pytest.raises(ValueError, match="Expected no gradient hooks"):
        solve(f, torch.ones(2, dtype=double), (0, 1), solver)


# Projections.


def spin(t, y):
    """A rotation about an axis that turns: the norm is kept."""
    return torch.linalg.cross(torch.stack([torch.cos(3 * t), torch.sin(3 * t), t]).expand_as(y), y)


def onto_sphere(t, y):
    return y / y.norm(dim=1, keepdim=True)


def start():
    return onto_sphere(None, torch.randn(4, 3, generator=rng(), dtype=double))


@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpoint"])
@pytest.mark.parametrize("times", [(0, 2, 5), (5, 0)], ids=["up", "down"])
def test_a_projected_solve_stays_on_the_sphere(times, checkpoint):
    solver = Fixed(20, checkpoint=checkpoint, project=onto_sphere)
    y = solve(spin, start(), times, solver).y
    assert (y.norm(dim=-1) - 1).abs().max() < 1e-15
    drift = solve(spin, start(), times, Fixed(20)).y
    assert (drift.norm(dim=-1) - 1).abs().max() > 1e-4
    assert solve(spin, start(), times, solver).nfe == solve(spin, start(), times, Fixed(20)).nfe


@pytest.mark.parametrize("tableau", [euler, midpoint, heun, rk4, bosh3, dopri5], ids=repr)
def test_a_projection_keeps_the_order(tableau):
    truth = solve(spin, start(), (0, 1), Adaptive(dopri8, 1e-12, 1e-12)).y[-1]
    errors = [
        (solve(spin, start(), (0, 1), Fixed(n, tableau, project=onto_sphere)).y[-1] - truth).norm().item()
        for n in (16, 32)
    ]
    assert math.log2(errors[0] / errors[1]) > orders[tableau] - 0.4


def test_a_gradient_goes_through_a_projection_in_every_way():
    """Beside the projected point goes a part that is not projected."""
    f = lambda t, y: (y[0].sin() + t, y[0].sum(1))  # noqa: E731

    def value(y0, times, checkpoint):
        solver = Fixed(3, checkpoint=checkpoint, project=lambda t, y: onto_sphere(t, y) * (1 + t))
        return sum(part.cos().sum() for part in solve(f, (y0, y0.new_zeros(4)), times, solver).y)

    inputs = [start().requires_grad_(), torch.tensor([0.0, 0.4, 1.0], dtype=double, requires_grad=True)]
    grads = [torch.autograd.grad(value(*inputs, checkpoint), inputs) for checkpoint in (False, True)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *args: value(*args, False), inputs, atol=1e-6)


def test_a_projection_that_learns_is_seen_by_a_checkpoint():
    radius, y0 = nn.Parameter(torch.tensor(2.0, dtype=double)), start()
    solver = Fixed(3, checkpoint=True, project=lambda t, y: radius * onto_sphere(t, y))
    assert torch.autograd.grad(solve(spin, y0, (0, 1), solver, [radius]).y[-1].square().sum(), radius)[0] > 1
    with pytest.raises(ValueError, match="Expected every tensor"):
        solve(spin, y0, (0, 1), solver)


def test_times_of_projections_are_the_ends_of_steps():
    seen = []
    solve(spin, start(), (0, 0.3), Fixed(3, project=lambda t, y: (seen.append(t.item()), y)[1]))
    assert seen == pytest.approx([0.1, 0.2, 0.3]) and max(seen) <= 0.3


def test_a_projection_works_in_a_flow():
    """On the circle a rotation, whose log-determinant is 0."""
    field = lambda t, x: torch.stack([-x[:, 1], x[:, 0]], 1)  # noqa: E731
    cnf = CNF(field, solver=Fixed(5, project=onto_sphere))
    z, logdet = cnf.encode_and_logdet(onto_sphere(None, torch.randn(4, 2, generator=rng())))
    assert (z.norm(dim=1) - 1).abs().max() < 1e-6 and logdet.abs().max() < 1e-6


# Work, and giving up.


@directions
@pytest.mark.parametrize("method", [*adaptive, "rk4", "implicit_adams"])
@pytest.mark.parametrize("adjoint", [False, True], ids=["", "adjoint"])
def test_the_work_of_torchdiffeq_is_counted_call_by_call(method, times, adjoint):
    calls = []

    def f(t, y):
        calls.append(t.item())
        return torch.cos(20 * t) * y

    y0 = torch.ones(2, dtype=double, requires_grad=True)
    options = {"step_size": 0.05} if method in ("rk4", "implicit_adams") else {}
    tolerance = 1e-3 if method == "adaptive_heun" else 1e-4
    result = solve(f, y0, times, TorchDiffEq(method, tolerance, tolerance, adjoint=adjoint, **options))
    assert len(calls) == result.nfe + adjoint and min(times) <= min(calls) and max(calls) <= max(times)
    if method in adaptive:
        stages = {"adaptive_heun": 1, "fehlberg2": 2, "bosh3": 3, "dopri5": 6, "dopri8": 13}[method]
        assert result.nfe == 2 + stages * (result.accepted + result.rejected)
        assert result.rejected > 0 or method == "dopri8"
    calls.clear()
    result.y[-1].sum().backward()
    back = result.backward
    assert len(calls) == back.nfe + adjoint and (back.accepted > 0) == adjoint
    assert not calls or min(times) <= min(calls) and max(calls) <= max(times)


def test_an_answer_of_torchdiffeq_ends_a_step_and_is_as_good_as_any():
    """Its own interpolation is wrong by many tolerances between steps."""
    times = torch.linspace(0, 3, 40, dtype=double)
    solver = TorchDiffEq(rtol=1e-6, atol=1e-6)
    y0 = torch.ones(1, dtype=double)
    errors = (solve(swing, y0, times, solver).y - swung(y0, times)).abs()
    raw = torchdiffeq.odeint(swing, y0, times, rtol=1e-6, atol=1e-6) - swung(y0, times)
    assert errors.max() < 5e-6 < raw.abs().max()


@pytest.mark.parametrize("times", [(0.0, 0.25, 0.5, 1.0), (1.0, 0.5, 0.25, 0.0)], ids=["up", "down"])
@pytest.mark.parametrize("options", [{}, {"step_t": (0.75,)}, {"jump_t": (0.75,)}], ids=str)
def test_a_step_that_ends_at_an_answer_by_itself_does_not_make_later_ones_forgotten(times, options):
    """torchdiffeq 0.2.5 alone then steps over the others, and interpolates."""
    solver = TorchDiffEq(rtol=1.0, atol=1.0, first_step=0.25, ifactor=1, dfactor=1, **options)
    result = solve(swing, torch.ones(2, dtype=double), times, solver)
    y = [
        solve(
            swing, torch.ones(2, dtype=double), (times[0], t), Fixed(round(4 * abs(t - times[0])), dopri5)
        ).y[-1]
        for t in times[1:]
    ]
    torch.testing.assert_close(result.y[1:], torch.stack(y), rtol=1e-13, atol=1e-13)
    assert result.accepted == 4


@directions
@pytest.mark.parametrize("adjoint", [False, True], ids=["", "adjoint"])
def test_a_jump_that_is_told_is_no_trouble(times, adjoint):
    y0 = torch.zeros(1, dtype=double, requires_grad=True)
    f = lambda t, y: torch.where(t < 0.7, 1.0, 5.0) + 0 * y  # noqa: E731
    told, untold = (
        solve(f, y0, times, TorchDiffEq(adjoint=adjoint, **options)) for options in ({"jump_t": [0.7]}, {})
    )
    total = (0.7 - 0.2) + 5 * (1.1 - 0.7)
    assert told.y[-1].item() == pytest.approx(total if times[0] < times[-1] else -total, abs=1e-7)
    told.y[-1].backward()
    untold.y[-1].backward()
    assert told.nfe < untold.nfe and y0.grad.item() == 2
    assert told.backward.rejected <= untold.backward.rejected


def late_nan(t, y):
    return torch.where(t < 0.4, y, torch.nan)


gives_up = {
    "blow-up": (lambda t, y: y**2, {}, "underflowed|blows up"),
    "stiff": (lambda t, y: -1e9 * y, {"max_num_steps": 20}, "max_num_steps was reached.*tol"),
    "NaN": (late_nan, {}, "NaN or inf.*weights"),
    "NaN, least step": (late_nan, {"min_step": 1e-3}, "NaN or inf.*weights"),
}


@pytest.mark.parametrize(("f", "options", "remedy"), gives_up.values(), ids=gives_up)
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
def test_torchdiffeq_gives_up_with_a_reason(f, options, remedy, times):
    """The second way round the same problem in the time that is left."""
    turned = f if times[0] < times[1] else lambda t, y: -f(1 - t, y)
    y0 = 2 * torch.ones(3, dtype=double)
    with pytest.raises(SolveError, match=rf"(?s)stopped at t = [\d.e-]+ after \d+ accepted.*({remedy})"):
        solve(turned, y0, times, TorchDiffEq(**options))


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
def test_the_time_it_stopped_at_is_that_of_the_singularity(times):
    sign = 1 if times[0] < times[1] else -1
    f = lambda t, y: sign * y**2  # noqa: E731
    with pytest.raises(SolveError, match=r"t = 0\.(5|49)"):
        solve(f, 2 * torch.ones(1, dtype=double), times, TorchDiffEq())


@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.0)], ids=["up", "down"])
@pytest.mark.parametrize(
    "solver", [Adaptive(max_steps=20, adjoint=True), TorchDiffEq(adjoint=True, max_num_steps=20)]
)
def test_a_backward_solve_that_gives_up_says_so_and_where(solver, times):
    """At 0 nothing moves forward in time, and the adjoint swings."""
    y0 = torch.zeros(2, dtype=double, requires_grad=True)
    y = solve(lambda t, y: 60 * torch.cos(30 * t) * y, y0, times, solver).y
    with pytest.raises(
        SolveError, match=r"(?s)backward pass of the adjoint.*stopped at t = 0\..*max_.*steps"
    ):
        y[-1].sum().backward()


@pytest.mark.parametrize("solver", [Adaptive(adjoint=True), TorchDiffEq(adjoint=True)], ids=repr)
def test_a_loss_that_is_not_finite_is_named(solver):
    y0 = torch.ones(2, dtype=double, requires_grad=True)
    with pytest.raises(SolveError, match="backward pass.*NaN"):
        (torch.nan * solve(swing, y0, (0, 1), solver).y.sum()).backward()


def test_as_many_steps_as_allowed_are_allowed_each_way_and_between_each_two_times():
    f, y0 = Rate(), torch.ones(2, dtype=double, requires_grad=True)
    times = torch.linspace(0, 5, 6, dtype=double)
    steps = solve(f, y0, times, TorchDiffEq(adjoint=True))
    steps.y[-1].sum().backward()
    most = max(steps.accepted, steps.backward.accepted)
    result = solve(f, y0, times, TorchDiffEq(adjoint=True, max_num_steps=most // 2))
    for _ in range(2):
        result.y[-1].sum().backward(retain_graph=True)
    with pytest.raises(SolveError, match="max_num_steps"):
        solve(f, y0, times, TorchDiffEq(max_num_steps=1))


@pytest.mark.parametrize("error", [AssertionError("mine"), KeyError("mine")], ids=repr)
@every
def test_an_error_of_f_s_own_stays_itself(error, solver):
    def f(t, y):
        raise error

    with pytest.raises(type(error)) as caught:
        solve(f, torch.ones(2, dtype=double), (0, 1), solver)
    assert caught.value is error


# In a flow.


@pytest.mark.parametrize("method", [*adaptive, *grids, *adams])
def test_a_flow_is_solved_by_every_method_of_torchdiffeq(method):
    net, x = MLP(2, (8,)).double(), torch.randn(6, 2, generator=rng(), dtype=double)
    leaves = list(net.parameters())

    def values(solver):
        z, logdet = CNF(net, solver=solver).encode_and_logdet(x)
        return z, logdet, *torch.autograd.grad(z.sin().sum() + logdet.sum(), leaves)

    near = bound(method, 2e-5)
    for a, b in zip(values(theirs(method)), values(Adaptive(rtol=1e-10, atol=1e-10)), strict=True):
        torch.testing.assert_close(a, b, rtol=near, atol=near)


def test_the_adjoint_of_torchdiffeq_reaches_field_and_context():
    net, x = MLP(2, (8,), context=2).double(), torch.randn(6, 2, generator=rng(), dtype=double)
    code = nn.Parameter(torch.randn(6, 2, generator=rng(1), dtype=double))
    leaves = [*net.parameters(), code]

    def values(solver):
        z, logdet = CNF(net, solver=solver).encode_and_logdet(x, code.sin())
        return torch.autograd.grad(z.sin().sum() + logdet.sum(), leaves)

    pairs = zip(values(TorchDiffEq(adjoint=True)), values(Adaptive(rtol=1e-9, atol=1e-9)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_autocast_reaches_the_backward_pass_of_torchdiffeq():
    seen = set()

    class Seen(nn.Linear):
        def forward(self, t, y):
            out = super().forward(y)
            seen.add(out.dtype)
            return torch.tanh(out).float()

    f, solver = Seen(2, 2), TorchDiffEq("rk4", adjoint=True, step_size=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        y = solve(f, torch.ones(3, 2), (0, 1), solver).y
    y.sum().backward()
    assert seen == {torch.bfloat16} and f.weight.grad.dtype == torch.float32


# Settings.

settings = [
    Fixed(4),
    Fixed(4, heun),
    Fixed(4, own, checkpoint=True),
    Fixed(3, project=None, checkpoint=True),
    Adaptive(),
    Adaptive(dopri8),
    Adaptive(own, 1e-3, atol=1e-8, max_steps=10),
    Adaptive(per_row=True, compiled=True),
    Adaptive(adjoint=True),
    Adaptive().halved(),
    Adaptive(bosh3, adjoint=True).halved().halved(),
    TorchDiffEq(rtol=1e-3).halved(),
    TorchDiffEq(),
    TorchDiffEq("dopri8", 1e-4, adjoint=True),
    TorchDiffEq("rk4", step_size=0.1),
    TorchDiffEq("implicit_adams", atol=1e-3, step_size=0.25, max_order=5),
    TorchDiffEq(jump_t=torch.tensor([0.25, 0.5]), dtype=torch.float32, safety=0.5),
    euler,
    dopri5,
    own,
]
each = pytest.mark.parametrize("k", range(len(settings)))


@each
def test_settings_print_as_what_makes_them_and_are_values(k):
    setting = settings[k]
    names = {name: getattr(ode, name) for name in ode.__all__}
    copies = [eval(repr(setting), {"torch": torch, **names}), copy.deepcopy(setting), copy.copy(setting)]
    for same in (*copies, pickle.loads(pickle.dumps(setting))):
        assert same == setting and hash(same) == hash(setting) and repr(same) == repr(setting)
        assert type(same) is type(setting)
    assert [other == setting for other in settings].count(True) == 1


def test_settings_leave_out_what_is_at_its_default_and_print_tableaus_by_name():
    shown = {
        "Fixed(4)": Fixed(4),
        "Fixed(4, tableau=euler)": Fixed(4, euler),
        "Adaptive()": Adaptive(dopri5, 1e-5),
        "Adaptive(tableau=dopri8, adjoint=True)": Adaptive(dopri8, adjoint=True),
        "Adaptive().halved()": Adaptive().halved(),
        "TorchDiffEq(method='rk4', step_size=0.1)": TorchDiffEq("rk4", step_size=0.1),
        "rk4": Tableau(*rk4),
    }
    assert list(shown) == [repr(setting) for setting in shown.values()]


def test_a_frozen_setting_is_replaced_and_not_changed():
    assert dataclasses.replace(Fixed(4, euler), steps=6) == Fixed(6, euler)
    assert dataclasses.replace(Adaptive(bosh3), rtol=1e-3) == Adaptive(bosh3, 1e-3)
    rk = TorchDiffEq("rk4", step_size=0.1)
    assert dataclasses.replace(rk, adjoint=True) == TorchDiffEq("rk4", adjoint=True, step_size=0.1)
    assert TorchDiffEq("rk4", options={"step_size": 0.1}) == rk
    for setting, name in ((Fixed(4), "steps"), (Adaptive(), "rtol"), (rk, "method")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(setting, name, 1)


def test_what_was_compiled_stays_with_its_object(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f, **options: f)
    solver, y0 = Adaptive(compiled=True), torch.ones(2, 1)
    solve(swing, y0, (0, 1), solver)
    parts = solver._parts
    assert all(part.compiled for part in parts)
    others = (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver)), dataclasses.replace(solver))
    for other in (*others, Adaptive(compiled=True)):
        assert other == solver and hash(other) == hash(solver)
        assert not any(part.compiled for part in other._parts)
    solve(swing, y0, (0, 1), solver.halved())
    assert solver._parts is parts and "_parts" not in repr(solver)


@pytest.mark.parametrize(
    "build",
    [
        lambda f, y: Fixed(4)(f, (y,), torch.tensor([0.0, 1.0]))[0][0][-1],
        lambda f, y: Fixed(2, euler, project=onto_sphere)(f, (y,), torch.tensor([0.0, 1.0]))[0][0][-1],
        lambda f, y: dataclasses.replace(Fixed(2), steps=4).halved()(f, (y,), torch.tensor([0.0, 1.0]))[0][0][
            -1
        ],
        lambda f, y: solve(lambda t, x: f(t, (x,))[0], y, (0.0, 1.0), Fixed(4)).y[-1],
        lambda f, y: y * Adaptive().rtol + Adaptive(bosh3, adjoint=True).atol,
    ],
    ids=["Fixed", "Fixed with a projection", "replaced", "solve", "Adaptive"],
)
def test_settings_are_built_inside_a_compiled_function(build):
    torch.compiler.reset()
    f, y = (lambda t, state: (torch.cos(t) * state[0],)), torch.ones(2, 3)
    torch.testing.assert_close(torch.compile(build, fullgraph=True, backend="eager")(f, y), build(f, y))


class Foreign:
    def __call__(self, rhs, state, times, inputs=()):
        return Fixed(3)(rhs, state, times)


def test_each_solver_of_the_library_has_two_ways_to_differentiate_it():
    assert alternatives(Fixed(3, euler, checkpoint=True)) == {
        "backprop": Fixed(3, euler),
        "checkpoint": Fixed(3, euler, checkpoint=True),
    }
    rows = Adaptive(rtol=1e-3, per_row=True, compiled=True)
    assert alternatives(rows) == {"backprop": rows, "adjoint": Adaptive(rtol=1e-3, adjoint=True)}
    assert alternatives(TorchDiffEq()) == {"backprop": TorchDiffEq(), "adjoint": TorchDiffEq(adjoint=True)}
    assert alternatives(Foreign()) == {}


def test_a_solver_of_one_s_own_is_taken():
    y0 = torch.ones(2, dtype=double)
    assert torch.equal(solve(swing, y0, (0, 1), Foreign()).y, solve(swing, y0, (0, 1), Fixed(3)).y)


@pytest.mark.parametrize(
    "solver", [Adaptive(rtol=1e-4, atol=1e-4), Adaptive(rtol=1e-4, adjoint=True)], ids=repr
)
def test_a_halved_adaptive_solver_takes_twice_the_steps(solver):
    f, y0 = (lambda t, y: torch.cos(20 * t) * y), torch.ones(2, dtype=double)
    once, twice, again = (
        solve(f, y0, (0, 3), s).accepted for s in (solver, solver.halved(), solver.halved().halved())
    )
    assert twice / once == pytest.approx(2, abs=0.2) and again / twice == pytest.approx(2, abs=0.2)


def test_a_halved_solver_of_fixed_steps_and_of_torchdiffeq():
    assert Fixed(3, euler, project=onto_sphere).halved() == Fixed(6, euler, project=onto_sphere)
    assert TorchDiffEq("rk4", step_size=0.5).halved() == TorchDiffEq("rk4", step_size=0.25)
    bosh = TorchDiffEq("bosh3", 1e-4, 1e-3, adjoint=True)
    assert bosh.halved() == TorchDiffEq("bosh3", 1e-4 / 8, 1e-3 / 8, adjoint=True)
    with pytest.raises(ValueError, match="step_size"):
        TorchDiffEq("rk4", grid_constructor=lambda f, y, t: t).halved()


@pytest.mark.parametrize("method", adaptive)
def test_a_halved_adaptive_method_of_torchdiffeq_takes_about_twice_the_steps(method):
    f, y0 = (lambda t, y: torch.cos(20 * t) * y), torch.ones(2, dtype=double)
    solver = TorchDiffEq(method, 1e-4, 1e-4)
    once, twice = (solve(f, y0, (0, 1), s).accepted for s in (solver, solver.halved()))
    assert 1.5 < twice / once < 3


refused = {
    "no steps": (lambda: Fixed(0), "steps"),
    "half steps": (lambda: Fixed(2.5), "steps"),
    "True": (lambda: Fixed(True), "steps"),
    "a name for Fixed": (lambda: Fixed(10, "rk4"), "tableau"),
    "a name for Adaptive": (lambda: Adaptive("dopri5"), "tableau"),
    "a tolerance for a tableau": (lambda: Adaptive(1e-5), "tableau"),
    "no error": (lambda: Adaptive(rk4), "tableau"),
    "error weights of zero": (lambda: Adaptive(rk4._replace(e=(0.0,) * 4)), "tableau"),
    "no order": (lambda: Adaptive(own._replace(order=0)), "tableau"),
    "a row too long": (lambda: Fixed(2, own._replace(a=((), (1, 2)))), "tableau of 2 stages"),
    "a weight too few": (lambda: Fixed(2, own._replace(b=(1,))), "tableau of 1 stages"),
    "an error too short": (lambda: Adaptive(own._replace(e=(1,))), "tableau of 2 stages"),
    "a time too few": (lambda: Fixed(2, own._replace(c=(0,))), "tableau of 2 stages"),
    "rtol": (lambda: Adaptive(rtol=0.0), "rtol"),
    "atol": (lambda: Adaptive(atol=math.inf), "atol"),
    "a name for rtol": (lambda: Adaptive(rtol="1e-5"), "rtol"),
    "max_steps": (lambda: Adaptive(max_steps=0), "max_steps"),
    "adjoint by rows": (lambda: Adaptive(per_row=True, adjoint=True), "adjoint without per_row"),
    "adjoint compiled": (lambda: Adaptive(compiled=True, adjoint=True), "adjoint without compiled"),
    "no gradient": (lambda: TorchDiffEq("scipy_solver"), "method"),
    "no method": (lambda: TorchDiffEq("rk45"), "method"),
    "a number for a method": (lambda: TorchDiffEq(1e-5), "method"),
    "a tableau for a method": (lambda: TorchDiffEq(dopri5), "method"),
    "tolerance": (lambda: TorchDiffEq(rtol=-1), "rtol"),
    "an option": (lambda: TorchDiffEq(step_size=0.1), "options of 'dopri5'"),
    "another": (
        lambda: TorchDiffEq("rk4", step_size=0.1, first_step=1),
        "options of 'rk4'",
    ),
    "step size": (lambda: TorchDiffEq("rk4", step_size=0), "step_size"),
    "two grids": (lambda: TorchDiffEq("rk4", step_size=1, grid_constructor=print), "step_size"),
} | {method: (lambda method=method: TorchDiffEq(method), "step_size") for method in (*grids, *adams)}


@pytest.mark.parametrize(("build", "words"), refused.values(), ids=refused)
def test_settings_are_refused_when_they_are_built(build, words):
    with pytest.raises(ValueError, match=rf"Expected .*{words}"):
        build()


def test_a_method_by_its_old_name_is_no_argument():
    with pytest.raises(TypeError, match="method"):
        Adaptive(method="dopri5")


y0 = torch.ones(2, dtype=double)
mistakes = {
    "one time": (lambda: solve(swing, y0, (0.0,)), "times"),
    "no time": (lambda: solve(swing, y0, ()), "times"),
    "times that turn": (lambda: solve(swing, y0, (0.0, 1.0, 0.5)), "times"),
    "a time twice": (lambda: solve(swing, y0, (0.0, 0.0)), "times"),
    "a time that is none": (lambda: solve(swing, y0, (0.0, math.nan)), "times"),
    "a table of times": (lambda: solve(swing, y0, torch.ones(2, 2)), "times"),
    "whole numbers": (
        lambda: solve(swing, torch.ones(2, dtype=int), (0, 1)),
        "y0 to be a tensor of a floating dtype",
    ),
    "a list": (lambda: solve(swing, [1.0, 2.0], (0, 1)), "y0"),
    "NaN": (lambda: solve(swing, torch.nan * y0, (0, 1)), "finite starting state"),
    "two dtypes": (lambda: solve(swing, (y0, y0.float()), (0, 1)), "y0 of one dtype"),
    "another shape": (lambda: solve(lambda t, y: y[:, None] * y, y0, (0, 1)), r"f\(t, y\)"),
    "another dtype": (lambda: solve(lambda t, y: y.float(), y0, (0, 1)), r"f\(t, y\)"),
    "no tuple": (lambda: solve(lambda t, y: y[0], (y0, y0), (0, 1)), r"f\(t, y\)"),
    "a tuple": (lambda: solve(lambda t, y: (y,), y0, (0, 1)), r"f\(t, y\)"),
    "a part too few": (lambda: solve(lambda t, y: y[:1], (y0, y0), (0, 1)), r"f\(t, y\)"),
    "a number": (lambda: solve(lambda t, y: 1.0, y0, (0, 1)), r"f\(t, y\)"),
    "a projection elsewhere": (
        lambda: solve(swing, y0, (0, 1), Fixed(2, project=lambda t, y: y[0])),
        "project",
    ),
}


@pytest.mark.parametrize(("call", "words"), mistakes.values(), ids=mistakes)
def test_a_mistake_is_named_with_its_argument(call, words):
    with pytest.raises(ValueError, match=rf"(?s)Expected .*{words}"):
        call()


# The package.


def test_the_package_shows_its_public_names_alone():
    assert dir(ode) == sorted(ode.__all__)


modules = "adaptive adjoint checkpoint fixed gradients runge_kutta solve solver tableaus torchdiffeq".split()
shown = {
    f"{module}.{name}": getattr(importlib.import_module(f"cnflib.ode.{module}"), name)
    for module in modules
    for name in importlib.import_module(f"cnflib.ode.{module}").__all__
}
examples = {k: v for k, v in shown.items() if inspect.isclass(v) or inspect.isfunction(v)}


@pytest.mark.parametrize("name", examples)
def test_every_docstring_has_an_example_that_runs(name):
    globs = {name.rpartition(".")[2]: examples[name]}
    (test,) = doctest.DocTestFinder(recurse=False).find(examples[name], name, globs=globs)
    assert test.examples
    said = []
    failures, _ = doctest.DocTestRunner().run(test, out=said.append)
    assert not failures, "".join(said)
