"""What chapter 10 says of the mean and the variance of a random trace holds letter by letter."""

import itertools
import math

import pytest
import sympy
from sympy import Matrix, Rational, exp, eye, log, simplify, sqrt, symbols

SIGNS = list(itertools.product((1, -1), repeat=3))
A = Matrix(3, 3, symbols("a:9"))
S = (A + A.T) / 2
BY_HAND = Matrix(
    [
        [Rational(15, 10), Rational(8, 10), Rational(-2, 10)],
        [Rational(4, 10), Rational(7, 10), Rational(6, 10)],
        [Rational(6, 10), Rational(2, 10), Rational(-3, 10)],
    ]
)


def estimates(matrix):
    """The estimate of the trace for each of the eight vectors of signs."""
    return [(Matrix([eta]) * matrix * Matrix(eta))[0] for eta in SIGNS]


def normal_mean(polynomial, eta):
    """The mean of a polynomial of independent standard normals, by their moments 1, 0, 1, 0, 3."""
    moments = {0: 1, 1: 0, 2: 1, 3: 0, 4: 3}
    terms = sympy.Poly(sympy.expand(polynomial), *eta).terms()
    return sum(factor * math.prod(moments[power] for power in powers) for powers, factor in terms)


def test_signs_have_the_mean_and_the_variance_of_theorem_10_1():
    values = estimates(A)
    assert simplify(sum(values) / 8 - A.trace()) == 0
    variance = sum((value - A.trace()) ** 2 for value in values) / 8
    claimed = 2 * (sum(s**2 for s in S) - sum(S[i, i] ** 2 for i in range(3)))
    assert sympy.expand(variance - claimed) == 0


def test_normals_have_the_mean_and_the_variance_of_theorem_10_1():
    eta = Matrix(symbols("e1:4"))
    value = (eta.T * A * eta)[0]
    assert sympy.expand(normal_mean(value, eta) - A.trace()) == 0
    variance = normal_mean((value - A.trace()) ** 2, eta)
    assert sympy.expand(variance - 2 * sum(s**2 for s in S)) == 0


def test_the_example_by_hand():
    values = estimates(BY_HAND)
    assert values[:4] == [Rational(k, 10) for k in (43, 19, 3, 11)] and values[4:] == values[3::-1]
    assert BY_HAND.trace() == Rational(19, 10) == sum(values) / 8
    assert sum((value - BY_HAND.trace()) ** 2 for value in values) / 8 == Rational(224, 100)


def test_the_mass_of_an_averaged_density_by_hand():
    mass = sum(exp(BY_HAND.trace() - value) for value in estimates(BY_HAND)) / 8
    assert round(float(mass), 2) == 2.07


@pytest.mark.parametrize(
    ("corner", "signs", "normals"), [(-3, 2, sqrt(44)), (3, 4, sqrt(56)), (-1, 0, sqrt(40))]
)
def test_exercise_10_2(corner, signs, normals):
    matrix = Matrix([[2, 1], [corner, 4]])
    symmetric = (matrix + matrix.T) / 2
    assert sqrt(4 * symmetric[0, 1] ** 2) == signs
    assert sqrt(2 * sum(s**2 for s in symmetric)) == normals


def test_the_bottleneck_has_the_same_trace_and_the_same_trace_of_the_square():
    W, V = Matrix(3, 2, symbols("w:6")), Matrix(2, 3, symbols("v:6"))
    outside, inside = W * V, V * W
    assert sympy.expand(outside.trace() - inside.trace()) == 0
    assert sympy.expand((outside**2).trace() - (inside**2).trace()) == 0
    norm = sum(s**2 for s in S)
    assert sympy.expand(norm - (sum(a**2 for a in A) + (A**2).trace()) / 2) == 0


@pytest.mark.parametrize("dim", [2, 3])
def test_the_log_determinant_grows_at_the_rate_of_the_trace(dim):
    t, entries = symbols("t"), symbols(f"b:{dim * dim}")
    M = Matrix(dim, dim, lambda i, j: entries[min(i, j) * dim + max(i, j)])
    A_t = (1 - t) * eye(dim) + t * M
    rate = sympy.diff(log(A_t.det(method="berkowitz")), t)
    inverse = A_t.adjugate() / A_t.det(method="berkowitz")
    assert simplify(rate - ((M - eye(dim)) * inverse).trace()) == 0
    assert simplify(rate - (eye(dim) - inverse).trace() / t) == 0


def test_the_one_by_one_matrix():
    t = symbols("t")
    assert simplify(sympy.integrate(2 / (1 + 2 * t), (t, 0, 1)) - log(3)) == 0


def test_a_random_axis_sees_the_diagonal_alone():
    values = [3 * A[i, i] for i in range(3)]
    assert sympy.expand(sum(values) / 3 - A.trace()) == 0
    variance = sum((value - A.trace()) ** 2 for value in values) / 3
    assert sympy.expand(variance - (3 * sum(A[i, i] ** 2 for i in range(3)) - A.trace() ** 2)) == 0
