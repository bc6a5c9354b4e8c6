"""What chapter 2 proves of planar and radial layers, by computer algebra, and its hand calculations."""

import pytest
import sympy as sp

symbols = lambda name, n=3: sp.Matrix(sp.symbols(f"{name}1:{n + 1}", real=True))


def test_the_determinant_lemma_in_three_dimensions():
    u, w = symbols("u"), symbols("w")
    assert sp.expand((sp.eye(3) + u * w.T).det() - 1 - w.dot(u)) == 0


@pytest.mark.parametrize("dim", [2, 3])
def test_a_planar_layer_has_the_determinant_of_equation_2_8(dim):
    x, u, w = (symbols(name, dim) for name in "xuw")
    d = sp.Symbol("d", real=True)
    t = w.dot(x) + d
    J = (x + u * sp.tanh(t)).jacobian(x)
    assert sp.expand(J.det() - 1 - w.dot(u) * (1 - sp.tanh(t) ** 2)) == 0


@pytest.mark.parametrize("dim", [2, 3])
def test_a_radial_layer_has_the_determinant_of_equation_2_11(dim):
    """At a point whose distance from the centre is rational, with a and k left as letters."""
    x, m = symbols("x", dim), symbols("m", dim)
    a, k = sp.symbols("a k", real=True)
    r = sp.sqrt((x - m).dot(x - m))
    J = (x + k / (a + r) * (x - m)).jacobian(x)
    here = dict(zip([*x, *m], [*[4, 6, 13][:dim], *[1, 2, 1][:dim]], strict=True))
    rho = 5 if dim == 2 else 13
    want = (1 + k / (a + rho)) ** (dim - 1) * (1 + k * a / (a + rho) ** 2)
    assert sp.simplify(J.subs(here).det() - want) == 0


def test_the_second_moment_of_the_weights_is_equation_2_14():
    x = sp.Symbol("x", real=True)
    for s in (sp.Rational(7, 5), sp.Rational(3, 4)):
        p = sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi)
        q = sp.exp(-(x**2) / (2 * s**2)) / (sp.sqrt(2 * sp.pi) * s)
        moment = sp.integrate(sp.simplify(p**2 / q), (x, -sp.oo, sp.oo))
        assert sp.simplify(moment - s**2 / sp.sqrt(2 * s**2 - 1)) == 0


def test_the_planar_layer_by_hand():
    w, u, x = sp.Matrix([1, 2]), sp.Matrix([0.5, -0.4]), sp.Matrix([0.2, 0.1])
    slope = 1 - sp.tanh(w.dot(x)) ** 2
    assert abs((sp.eye(2) + slope * u * w.T).det() - 0.743) < 5e-4 and abs(slope - 0.856) < 5e-4
