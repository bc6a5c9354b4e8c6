"""What chapter 8 says of Runge-Kutta methods, of stability and of its counterexamples holds letter by letter."""

from fractions import Fraction
from math import prod

import pytest
import sympy
from sympy import Rational, cbrt, exp, expand, simplify, symbols

from cnflib.ode import Tableau, bosh3, dopri5, euler, heun, midpoint, rk4

# Trees of order up to 4 as nested tuples of their branches: a method has order p if each tree of p nodes or fewer has
# Σ bᵢ Φᵢ = 1 / γ.
LEAF = ()
TREES = {
    1: [LEAF],
    2: [(LEAF,)],
    3: [(LEAF, LEAF), ((LEAF,),)],
    4: [(LEAF,) * 3, (LEAF, (LEAF,)), ((LEAF, LEAF),), (((LEAF,),),)],
}


def rational(tableau: Tableau) -> tuple[list, list, list]:
    """Rows of a, weights b and times c as fractions; a padded with zeros."""
    exact = lambda w: Rational(Fraction(w).limit_denominator(400_000))
    n = len(tableau.b)
    rows = [[exact(w) for w in row] + [0] * (n - len(row)) for row in tableau.a]
    return rows, [exact(w) for w in tableau.b], [exact(w) for w in tableau.c]


def nodes(tree: tuple) -> int:
    return 1 + sum(map(nodes, tree))


def density(tree: tuple) -> int:
    return nodes(tree) * prod(map(density, tree))


def weights(tree: tuple, a: list) -> list:
    """Of each stage, the elementary weight of the tree."""
    inner = [weights(branch, a) for branch in tree]
    stages = range(len(a))
    return [prod(sum(a[i][j] * w[j] for j in stages) for w in inner) for i in stages]


def order(tableau: Tableau) -> int:
    """The order of a method, up to 4."""
    a, b, c = rational(tableau)
    assert [sum(row) for row in a] == c
    for p, trees in TREES.items():
        for tree in trees:
            if sum(w * v for w, v in zip(b, weights(tree, a), strict=True)) != Rational(1, density(tree)):
                return p - 1
    return 4


@pytest.mark.parametrize(
    ("tableau", "p"), [(euler, 1), (midpoint, 2), (heun, 2), (bosh3, 3), (rk4, 4), (dopri5, 4)], ids=repr
)
def test_the_order_conditions_hold_up_to_the_order_and_no_further(tableau, p):
    assert order(tableau) == p  # of dopri5, whose order is 5, the first four are looked at


def test_the_second_answer_of_dopri5_has_order_4():
    lower = dopri5._replace(b=tuple(p - e for p, e in zip(dopri5.b, dopri5.e, strict=True)))
    assert order(lower) == 4


@pytest.mark.parametrize(("tableau", "degree"), [(euler, 1), (midpoint, 2), (rk4, 4)], ids=repr)
def test_a_step_of_a_linear_field_multiplies_by_the_taylor_polynomial(tableau, degree):
    z, (a, b, _) = symbols("z"), rational(tableau)
    slopes = []
    for row in a:
        slopes.append(z * (1 + sum(w * k for w, k in zip(row, slopes))))
    factor = 1 + sum(w * k for w, k in zip(b, slopes, strict=True))
    assert expand(factor - sum(z**k / sympy.factorial(k) for k in range(degree + 1))) == 0


def test_rk4_is_stable_down_to_minus_2_785():
    z = symbols("z", real=True)
    factor = sum(z**k / sympy.factorial(k) for k in range(5))
    edge = min(root for root in sympy.Poly(factor - 1, z).nroots() if root.is_real)
    assert abs(edge + 2.785) < 1e-3 and not sympy.Poly(factor + 1, z).real_roots()


def test_the_hand_example():
    x, y = symbols("x y")
    f = sympy.Matrix([x * (Rational(1, 2) - y / 40), y * (x / 40 - Rational(4, 5))])
    at = lambda p: f.subs({x: p[0], y: p[1]})
    start, half = sympy.Matrix([30, 4]), Rational(1, 2)
    assert at(start).T.tolist() == [[12, -Rational(1, 5)]]
    middle = start + half * at(start)
    assert (start + at(start)).T.tolist() == [[42, Rational(38, 10)]]
    assert (middle + half * at(middle)).T.tolist() == [[Rational(43245, 1000), Rational(4095, 1000)]]
    assert (start + at(middle)).T.tolist() == [[Rational(4449, 100), Rational(439, 100)]]


def test_the_square_blows_up_at_one_over_the_start():
    t, start = symbols("t x0", positive=True)
    x = start / (1 - t * start)
    assert simplify(x.diff(t) - x**2) == 0 and x.subs(t, 0) == start
    assert sympy.solve(sympy.denom(x), t) == [1 / start]


def test_two_solutions_leave_from_zero():
    t = symbols("t", nonnegative=True)
    for x in (sympy.Integer(0) * t, t**3):
        assert simplify(sympy.diff(x, t) - 3 * cbrt(x) ** 2) == 0 and x.subs(t, 0) == 0


def test_the_formula_keeps_its_level():
    x, y, *theta = symbols("x y theta1:5", positive=True)
    one, two, three, four = theta
    level = three * x - four * sympy.log(x) + two * y - one * sympy.log(y)
    rates = x * (one - two * y), y * (three * x - four)
    assert simplify(level.diff(x) * rates[0] + level.diff(y) * rates[1]) == 0


def test_the_bound_on_eulers_error_sums_the_recursion():
    h, L, C, k = symbols("h L C k", positive=True)
    bound = C * h * ((1 + h * L) ** k - 1) / L
    assert simplify(bound.subs(k, k + 1) - (1 + h * L) * bound - C * h**2) == 0 and bound.subs(k, 0) == 0
    assert sympy.limit(exp(h * L) - 1 - h * L, h, 0) == 0
