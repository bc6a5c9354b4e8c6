"""The floor of flows of constant volume, of which chapter 3 and the page of one target speak, by symbolic integrals."""

import math

import pytest
import sympy as sp
import torch

from cnflib.data import toy

r, a, area = sp.symbols("r a area", positive=True)
DISC = (
    sp.integrate(r**2 * 2 * sp.pi * r, (r, 0, sp.sqrt(area / sp.pi))) / area
)  # mean of |z|² on a disc of an area


def coupling_floor(size: sp.Expr) -> sp.Expr:
    """The least NLL of a uniform density on a set of some size, over all constant factors a of volume."""
    loss = sp.log(2 * sp.pi) + DISC.subs(area, a * size) / 2 - sp.log(a)
    (best,) = sp.solve(sp.diff(loss, a), a)
    assert sp.diff(loss, a, 2).subs(a, best) > 0 or size.free_symbols
    return sp.simplify(sp.expand_log(loss.subs(a, best), force=True))


def test_the_mean_square_on_a_disc_is_its_area_over_two_pi():
    assert sp.simplify(DISC - area / (2 * sp.pi)) == 0


def test_constant_volume_costs_a_uniform_density_one_minus_log_two():
    size = sp.Symbol("size", positive=True)
    assert sp.simplify(coupling_floor(size) - sp.log(size) - 1 + sp.log(2)) == 0


def test_the_floor_of_the_checkerboard():
    floor = coupling_floor(sp.Integer(32))
    assert sp.simplify(floor - sp.log(16) - 1) == 0
    assert float(floor) == pytest.approx(3.7726, abs=1e-4)
    assert float(floor) == pytest.approx(toy.checkerboard.entropy + 1 - math.log(2), abs=1e-9)


def test_the_best_factor_of_the_checkerboard_is_pi_over_eight():
    loss = sp.log(2 * sp.pi) + 8 * a / sp.pi - sp.log(a)
    assert sp.solve(sp.diff(loss, a), a) == [sp.pi / 8]


def test_the_chapters_example_by_hand():
    x = torch.tensor([1.50, -1.10], dtype=torch.float64)
    additive = torch.stack([x[0], x[1] + 0.9 * x[0]])
    affine = torch.stack([x[0], x[1] * math.exp(1.30) + 4.40])
    log_prob = lambda z: -math.log(2 * math.pi) - z.square().sum().item() / 2
    assert log_prob(additive) == pytest.approx(-2.994, abs=6e-4)
    assert log_prob(affine) + 1.30 == pytest.approx(-1.729, abs=6e-4)
    z2 = -1 * math.exp(1) + 1
    z = torch.tensor([1 - z2, z2], dtype=torch.float64)
    assert log_prob(z) + 1 == pytest.approx(-6.009, abs=6e-4)
