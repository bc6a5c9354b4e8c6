"""What chapter 5 says of a rational-quadratic bin holds as algebra: its slope, its ends, its inverse."""

import pytest
import sympy

X0, Y0, TAU = sympy.symbols("x_0 y_0 tau", real=True)
W, H, D0, D1, RHO = sympy.symbols("w h d_0 d_1 rho", positive=True)
S = H / W
Q = S + (D0 + D1 - 2 * S) * TAU * (1 - TAU)
Z = Y0 + H * (S * TAU**2 + D0 * TAU * (1 - TAU)) / Q  # equation (5.6)
SLOPE = S**2 / Q**2 * (D1 * TAU**2 + 2 * S * TAU * (1 - TAU) + D0 * (1 - TAU) ** 2)  # equation (5.7)


def same(left: sympy.Expr, right: sympy.Expr) -> bool:
    return sympy.simplify(left - right) == 0


def test_the_slope_is_the_derivative_of_the_value():
    assert same(sympy.diff(Z, TAU) / W, SLOPE)


@pytest.mark.parametrize(("at", "value", "slope"), [(0, Y0, D0), (1, Y0 + H, D1)], ids=["left", "right"])
def test_a_bin_has_the_values_and_the_slopes_of_its_knots(at, value, slope):
    assert same(Z.subs(TAU, at), value)
    assert same(SLOPE.subs(TAU, at), slope)


def test_the_inverse_is_the_positive_root_of_a_quadratic():
    z = Z.subs(TAU, RHO / (1 + RHO))
    u, v = z - Y0, Y0 + H - z
    assert same(S * v * RHO**2 + (D0 * v - D1 * u) * RHO - S * u, sympy.Integer(0))


def test_the_bin_of_the_chapter():
    bin = {Y0: 0, W: 1, H: 1, D0: 2, D1: sympy.Rational(1, 2), TAU: sympy.Rational(1, 2)}
    assert Z.subs(bin) == sympy.Rational(2, 3)
    assert SLOPE.subs(bin) == sympy.Rational(8, 9)


def test_another_formula_is_noticed():
    assert not same(sympy.diff(Z, TAU), SLOPE)
