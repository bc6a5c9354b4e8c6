"""What the solver guide says in words holds in what its benchmark wrote, and in the tableaus."""

import math
import re

import pytest
import torch
from house_rules import ROOT

pytest.importorskip("sphinx")

from measured import load  # noqa: E402

from cnflib.ode import Fixed, adaptive_heun, bosh3, dopri5, dopri8, euler, midpoint, rk4, solve  # noqa: E402

FOUND = load("solvers")
FIELDS = {
    field["title"]: {row["solver"]: row["evaluations"] for row in field["rows"]} for field in FOUND["fields"]
}
PAGE = (ROOT / "book/appendix-e.md").read_text(encoding="utf-8")
TABLEAUS = {
    "euler": (euler, 1),
    "midpoint": (midpoint, 2),
    "adaptive_heun": (adaptive_heun, 2),
    "rk4": (rk4, 4),
    "bosh3": (bosh3, 3),
    "dopri5": (dopri5, 6),
    "dopri8": (dopri8, 12),
}


def grows(tableau, size: float) -> bool:
    """Whether one step of x' = -x of this length makes x larger."""
    step = solve(lambda t, x: -size * x, torch.ones(1, dtype=torch.float64), (0.0, 1.0), Fixed(1, tableau))
    return step.y[-1].abs().item() > 1


@pytest.mark.parametrize("name", TABLEAUS)
def test_a_limit_of_stability_is_that_of_the_tableau(name):
    (row,) = re.findall(rf"^\| [^|]*`{name}`[^|]* \| ([\d.]+) \| (\d+) \| ([\d.]+) \|$", PAGE, re.M)
    limit, cost, share = float(row[0]), int(row[1]), float(row[2])
    tableau, evaluations = TABLEAUS[name]
    assert not grows(tableau, limit - 0.01) and grows(tableau, limit + 0.01)
    assert cost == evaluations and share == pytest.approx(limit / cost, abs=0.006)


def test_no_explicit_method_beats_its_limit_on_the_stiff_field():
    stiff = FIELDS["stiff"]
    shares = {"euler": 2.0, "midpoint": 1.0, "rk4": 0.70, "bosh3": 0.84, "dopri5": 0.55, "dopri8": 0.43}
    for name, share in shares.items():
        assert stiff[name][0] == pytest.approx(2000 / share, rel=0.25)
    assert stiff["SciPy's Radau"][0] == 52 and stiff["euler"][0] == min(
        row[0] for name, row in stiff.items() if "Radau" not in name
    )


def test_smooth_fields_belong_to_high_order():
    for title in ("net", "hares", "eight lumps"):
        for column in (1, 2, 3):
            best = min(row[column] for row in FIELDS[title].values() if row[column])
            assert min(FIELDS[title][name][column] for name in ("dopri5", "dopri8")) <= 1.25 * best
        assert FIELDS[title]["euler"][2] is None


def test_kinks_cost_every_method_its_order():
    kinked = FIELDS["kinked net"]
    for name in ("midpoint", "rk4", "bosh3", "dopri5", "dopri8"):
        assert 4 < kinked[name][2] / kinked[name][1] < 14
    assert kinked["midpoint"][2] < kinked["dopri5"][2]


def test_adaptive_steps_pay_where_the_pace_changes():
    hares, net = FIELDS["hares"], FIELDS["net"]
    assert hares["dopri5"][2] < hares["rk4"][2] / 2
    assert net["rk4"][2] / net["dopri5"][2] < hares["rk4"][2] / hares["dopri5"][2]


def test_a_tolerance_is_no_error():
    promise = {field["title"]: field["promise"] for field in FOUND["fields"]}
    assert promise["hares"][0] > 100 and max(promise["stiff"]) < 1
    assert math.isclose(FOUND["most"], 10_000)
