"""What chapter 6 says of log det(I + hJ) and of Russian roulette holds letter by letter."""

import itertools
import math

import pytest
import sympy
from sympy import Rational, eye, log, simplify, symbols


@pytest.mark.parametrize("dim", [2, 3])
def test_the_log_determinant_begins_with_the_traces_of_powers(dim):
    h = symbols("h")
    J = sympy.Matrix(dim, dim, symbols(f"a:{dim * dim}"))
    det = sympy.expand((eye(dim) + h * J).det(method="berkowitz"))
    claimed = sum((-1) ** (k + 1) * h**k * (J**k).trace() / k for k in (1, 2, 3))
    # log det and the claim agree up to h³ if their derivatives do up to h², and both are 0 at h = 0.
    assert det.subs(h, 0) == 1 and claimed.subs(h, 0) == 0
    difference = sympy.expand(sympy.diff(det, h) - sympy.diff(claimed, h) * det)
    assert all(sympy.expand(difference.coeff(h, k)) == 0 for k in range(3))


def test_the_expansion_of_the_logarithm_by_hand():
    h = symbols("h")
    J = sympy.Matrix([[Rational(-12, 10), Rational(3, 10)], [Rational(3, 10), Rational(-7, 10)]])
    terms = sympy.series(log((eye(2) + h * J).det()), h, 0, 4).removeO()
    claimed = sum((-1) ** (k + 1) * h**k * (J**k).trace() / k for k in (1, 2, 3))
    assert simplify(terms - claimed) == 0


@pytest.mark.parametrize("last", [1, 3, 5])
def test_russian_roulette_has_the_mean_of_the_whole_series(last):
    a = symbols(f"a1:{last + 1}")
    reached = symbols(f"P1:{last + 1}", positive=True)  # P(ν ≥ k) of a ν that is at most `last`
    chance = [reached[k] - (reached[k + 1] if k + 1 < last else 0) for k in range(last)]
    sums = [sum(a[j] / reached[j] for j in range(k + 1)) for k in range(last)]
    mean = sum(p * total for p, total in zip(chance, sums, strict=True))
    assert simplify(mean - sum(a)) == 0


def test_weights_of_the_last_term_alone_would_be_wrong():
    a, b, p = symbols("a b p", positive=True)  # ν = 1 or 2, and P(ν ≥ 2) = p
    mean = (1 - p) * a / (1 - p) + p * (a / (1 - p) + b / p)
    assert simplify(mean - (a + b)) != 0


def test_the_digits_of_the_hand_calculations():
    J = sympy.Matrix([[Rational(-12, 10), Rational(3, 10)], [Rational(3, 10), Rational(-7, 10)]]) / 2
    terms = [float((-1) ** (k + 1) * (J**k).trace() / k) for k in (1, 2, 3)]
    exact = float(log((eye(2) + J).det()))
    assert [round(term, 3) for term in terms] == [-0.95, -0.264, -0.108]
    assert (round(sum(terms), 3), round(exact, 3), round(exact - sum(terms), 3)) == (-1.321, -1.438, -0.116)
    guesses = [1.0]
    for _ in range(4):
        guesses.append(1 - 0.5 * math.sin(guesses[-1]))
    steps = [abs(b - a) for a, b in itertools.pairwise(guesses)]
    assert [round(x, 4) for x in guesses] == [1, 0.5793, 0.7263, 0.6679, 0.6903]
    assert [round(step, 4) for step in steps] == [0.4207, 0.147, 0.0583, 0.0224]
