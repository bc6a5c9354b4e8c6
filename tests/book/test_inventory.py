"""The concept inventory: both pages hold the same questions, and the numbers of the answers are those of the laws."""

import math
import re

import pytest
import torch
from house_rules import ROOT
from torch.distributions import Normal

from cnflib.ode import Adaptive, solve

QUESTIONS = (ROOT / "book" / "inventory.md").read_text(encoding="utf-8")
ANSWERS = (ROOT / "book" / "inventory-answers.md").read_text(encoding="utf-8")
SECTIONS = ["## Change of variables", "## Continuous time", "## Interpolants"]


def test_each_question_has_four_options_and_one_answer():
    asked = re.findall(r"^\*\*(\d+)\.\*\* .*?\n\n((?:- \([A-D]\) [^\n]+\n){4})\n", QUESTIONS, re.M | re.S)
    answered = re.findall(r"<summary>(\d+)\. .*?</summary>\n\n\*\*([A-D])[.*]", ANSWERS)
    numbers = [str(i) for i in range(1, 16)]
    assert [number for number, _ in asked] == [number for number, _ in answered] == numbers
    letters = [letter for _, letter in answered]
    assert max(letters.count(letter) for letter in "ABCD") <= 5
    for page in (QUESTIONS, ANSWERS):
        assert [line for line in page.splitlines() if line in SECTIONS] == SECTIONS


def test_every_answer_is_in_the_table_of_what_to_read():
    rows = re.findall(r"^\| ([\d, ]+) \|", ANSWERS, re.M)
    assert sorted(int(number) for row in rows for number in row.split(",")) == list(range(1, 16))


def test_certainty_marks_pay_for_honesty():
    marks = {1: (1, 0), 2: (2, -2), 3: (3, -6)}
    best = lambda p: max(marks, key=lambda c: p * marks[c][0] + (1 - p) * marks[c][1])
    assert [best(p) for p in (0.6, 0.66, 0.68, 0.79, 0.81)] == [1, 1, 2, 2, 3]


def test_distance_in_a_thousand_dimensions():
    # Chernoff: P(χ² ≤ n r) ≤ (r e^{1 − r})^{n/2}
    assert 500 * (math.log(0.4) + 0.6) / math.log(10) < -60
    assert math.sqrt(1000) == pytest.approx(31.6, abs=0.05)
    assert (1000 - 20**2) / math.sqrt(2000) == pytest.approx(13, abs=0.5)


def test_units_swap_the_order():
    z = torch.tensor([-1.0, 0.5])
    in_z = Normal(0.0, 1.0).log_prob(z).exp()
    in_x = in_z / z.exp()
    assert in_x.tolist() == pytest.approx([0.658, 0.214], abs=5e-4)
    assert in_z.tolist() == pytest.approx([0.242, 0.352], abs=5e-4)


def test_noise_in_the_logarithm_lifts_the_mean():
    assert math.exp(0.5) == pytest.approx(1.65, abs=0.005)
    assert (2.39 - 1.93) / 0.02 == pytest.approx(23)


def test_a_contracting_equation_forgets_its_start():
    f, exact = lambda t, x: -50 * x, Adaptive(rtol=1e-6, atol=1e-6)
    for start in (0.7, 1.0, 2.0):
        end = solve(f, torch.tensor([start], dtype=torch.float64), [0.0, 1.0], exact).y[-1]
        back = solve(f, end, [1.0, 0.0], exact).y[-1]
        assert end.abs() < 1e-5 and (back - start).abs() > 1e6


def test_floor_of_the_velocity_loss_between_two_normals():
    t = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    covariance, variance = 2 * t - 1, (1 - t) ** 2 + t**2
    left = 2 - covariance**2 / variance  # Var(x1 − x0 | x_t)
    torch.testing.assert_close(left, 1 / variance)
    assert torch.trapezoid(left, t).item() == pytest.approx(math.pi / 2, abs=1e-6)


def test_a_score_that_is_three_times_too_large():
    t = 0.5
    converted, true = (t / (1 + t) - 1) / (1 - t), -1 / (1 + t) ** 2
    assert converted == pytest.approx(-1.33, abs=0.005) and true == pytest.approx(-0.444, abs=5e-4)
    assert converted / true == pytest.approx(3)
