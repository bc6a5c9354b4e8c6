"""Fields are called f(t, x) without a context and f(t, x, context) with one, however they are written."""

import functools

import pytest
import torch
from registry import rng
from torch import nn

from cnflib import Flow, StandardNormal
from cnflib._field import uniform
from cnflib.adapters import time_second
from cnflib.continuous import CNF, Hutchinson, KineticEnergy
from cnflib.interpolants import Linear, sample_ode, sample_sde, score_from_velocity, velocity_loss
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, heun

t, x, c = torch.tensor(0.5), torch.ones(3, 2), torch.full((3, 2), 7.0)


class Two(nn.Module):
    def forward(self, t, x):
        return t.reshape(-1, 1) * x


class Optional(nn.Module):
    def forward(self, t, x, context=None):
        return t.reshape(-1, 1) * x if context is None else context


class Required(nn.Module):
    def forward(self, t, x, context):
        return t.reshape(-1, 1) * x if context is None else context


def two(t, x):
    return t.reshape(-1, 1) * x


def optional(t, x, context=None):
    return t.reshape(-1, 1) * x if context is None else context


def required(t, x, context):
    return t.reshape(-1, 1) * x if context is None else context


WITHOUT = {"module of two": Two(), "function of two": two}
WITH = {
    "module, optional": Optional(),
    "module, required": Required(),
    "function, optional": optional,
    "function, required": required,
    "partial": functools.partial(
        lambda scale, t, x, context: t.reshape(-1, 1) * x if context is None else context, 2.0
    ),
    "compiled module": torch.compile(Optional(), backend="eager"),
    "compiled function": torch.compile(required, backend="eager"),
    "data parallel": nn.DataParallel(Required()),
}


@pytest.mark.parametrize("name", [*WITHOUT, *WITH])
def test_without_a_context_every_field_is_called_alike(name):
    field = {**WITHOUT, **WITH}[name]
    f = uniform(field)
    assert torch.equal(f(t, x), 0.5 * x) and torch.equal(f(t, x, None), 0.5 * x)
    assert uniform(f) is f and f.field is field


@pytest.mark.parametrize("name", WITH)
def test_with_a_context_it_is_handed_on_untouched(name):
    assert uniform(WITH[name])(t, x, c) is c


@pytest.mark.parametrize("name", WITHOUT)
def test_a_context_that_a_field_does_not_take_is_refused_by_name(name):
    with pytest.raises(ValueError, match="context"):
        uniform(WITHOUT[name])(t, x, c)


@pytest.mark.parametrize("wrong", [3, None, MLP, lambda x: x, lambda t, x, context, extra: x, "field"])
def test_what_is_no_field_is_refused(wrong):
    with pytest.raises(ValueError, match="field"):
        uniform(wrong)
    with pytest.raises(ValueError, match="field"):
        CNF(wrong)


class Swapped(nn.Module):
    def forward(self, x, t):
        return torch.cat([x, t[:, None]], 1)[:, :2]


def test_a_net_of_the_other_order_is_told_of_its_adapter():
    calls = (
        lambda f: Flow(CNF(f), StandardNormal(2)).log_prob(x),
        lambda f: Flow(CNF(f, Hutchinson(), Fixed(2)), StandardNormal(2)).sample(3),
        lambda f: velocity_loss(f, Linear(), x, x + 1),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"time_second\(net\)"):
            call(Swapped())
        call(time_second(Swapped()))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_times_of_rows_are_not_taken_for_those_of_columns(size):
    """As many rows as columns would let it pass."""
    square = torch.randn(size, size, generator=rng(1)).double()
    columns = lambda t, x: -x * (1 + t * t)
    rows = lambda t, x: -x * (1 + t.reshape(-1, 1) ** 2)
    per_row = Flow(CNF(rows, solver=Adaptive(per_row=True)), StandardNormal(size).double())
    flow = Flow(CNF(rows, solver=Fixed(20)), StandardNormal(size).double())
    torch.testing.assert_close(per_row.log_prob(square), flow.log_prob(square), atol=1e-3, rtol=1e-3)
    velocity_loss(rows, Linear(), square, square)
    if size > 1:  # one row or column is both
        per_row.bijection.field = columns
        for call in (
            lambda: velocity_loss(columns, Linear(), square, square),
            lambda: per_row.log_prob(square),
        ):
            with pytest.raises(ValueError, match=r"t.reshape\(-1, 1\)"):
                call()


def test_what_a_field_raises_comes_with_how_it_is_called():
    with pytest.raises(RuntimeError) as raised:
        CNF(lambda t, x: x @ torch.ones(3, 3)).encode(x)
    (note,) = raised.value.__notes__
    assert "f(t, x)" in note and "time_second(net)" in note


@pytest.mark.parametrize("name", [*WITHOUT, *WITH])
def test_every_place_that_takes_a_field_takes_both_kinds(name):
    field = {**WITHOUT, **WITH}[name]
    for cnf in (CNF(field), CNF(field, Hutchinson(), Fixed(2), (KineticEnergy(),))):
        flow = Flow(cnf, StandardNormal(2))
        assert flow.log_prob(x).shape == (3,) and flow.sample(3).shape == (3, 2)
    assert velocity_loss(field, Linear(), x, x + 1).shape == (3,)
    assert sample_ode(field, x).shape == x.shape
    score = score_from_velocity(field, Linear())
    assert score(t, x).shape == score(t, x, None).shape == x.shape
    assert sample_sde(field, score, x, eps=0.1, t0=0.1, t1=0.9, solver=Fixed(2, heun)).shape == x.shape


def test_state_dict_keys_are_those_of_the_field():
    net = MLP(2, (4,))
    assert set(CNF(net).state_dict()) == {f"field.{key}" for key in net.state_dict()}


class OfRows(nn.Module):
    """A net written for one time a row, as a regression alone would allow."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, t, x):
        return self.net(torch.cat([x, t[:, None]], 1))


class OfScalars(nn.Module):
    def forward(self, t, x):
        return x * t.reshape(())


@pytest.mark.parametrize("solver", [Adaptive(), Adaptive(adjoint=True), Fixed(4), Fixed(4, checkpoint=True)])
def test_a_net_written_for_one_time_a_row_is_told_at_the_first_call_of_a_solve(solver):
    net = OfRows()
    velocity_loss(net, Linear(), x, x + 1, generator=rng()).mean().backward()
    flow = Flow(CNF(net, solver=solver), StandardNormal(2))
    for call in (
        lambda: flow.sample(3),
        lambda: flow.log_prob(x),
        lambda: flow.rsample_and_log_prob(3),
        lambda: sample_ode(net, x, solver),
    ):
        with pytest.raises(ValueError, match=r"reshape\(-1, 1\)"):
            call()


def test_a_net_written_for_one_time_for_all_is_told_at_the_first_loss():
    with pytest.raises(ValueError, match=r"reshape\(-1, 1\)"):
        velocity_loss(OfScalars(), Linear(), x, x + 1)


def test_an_error_of_the_field_itself_stays_what_it_is():
    def broken(t, x):
        return x @ torch.ones(5, 5)

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        uniform(broken)(t, x)


def test_a_failure_that_has_nothing_to_do_with_t_stays_what_it_was():
    calls = []

    def tired(t, x):
        calls.append(t)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return -x

    with pytest.raises(RuntimeError, match="out of memory"):
        uniform(tired)(t, x)
