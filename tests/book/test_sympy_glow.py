"""What chapter 4 computes by hand, by symbols: determinants from LU factors, 1 × 1 convolutions, a cooled lognormal."""

import pytest
import sympy as sp

v = sp.Symbol("v", real=True)


def test_the_factors_of_the_hand_example():
    W = sp.Matrix([[800, 600], [480, 1260]]) / 1000
    L, U, swaps = W.LUdecomposition()
    assert not swaps and L[1, 0] == sp.Rational("0.6") and U[1, 1] == sp.Rational("0.9")
    assert W.det() == sp.Rational("0.72")
    assert float(16 * sp.log(W.det())) == pytest.approx(-5.26, abs=0.005)


def test_the_factors_of_the_exercise():
    W = sp.Matrix([[2, 1], [3, sp.Rational(5, 2)]])
    L, U, _ = W.LUdecomposition()
    assert L[1, 0] == sp.Rational(3, 2) and U[1, 1] == 1 and W.det() == 2
    assert [float(n * (sp.log(2) - sp.Rational(3, 10))) for n in (64, 256)] == pytest.approx(
        [25.2, 100.6], abs=0.1
    )


def test_a_determinant_is_the_product_of_the_diagonal_of_u():
    a = sp.symbols("a:6")
    L = sp.Matrix([[1, 0, 0], [a[0], 1, 0], [a[1], a[2], 1]])
    U = sp.Matrix(3, 3, lambda i, j: sp.Symbol(f"u{i}{j}") if j >= i else 0)
    assert sp.expand((L * U).det() - U[0, 0] * U[1, 1] * U[2, 2]) == 0


def test_a_convolution_of_one_pixel_counts_its_determinant_once_a_pixel():
    W, pixels = sp.Matrix(2, 2, sp.symbols("w:4")), 3
    image = [sp.Matrix(sp.symbols(f"x{p}_:2")) for p in range(pixels)]
    z = sp.Matrix([number for p in image for number in W * p])
    J = z.jacobian(sp.Matrix([number for p in image for number in p]))
    assert sp.expand(J.det() - W.det() ** pixels) == 0


def test_a_cooled_lognormal_is_not_the_sharpened_one():
    cooled = sp.integrate(sp.exp(v / 2) * sp.exp(-(v**2) / 2), (v, -sp.oo, sp.oo)) / sp.sqrt(2 * sp.pi)
    sharp = sp.exp(-3 * v - 2 * v**2)  # p^4 in v = log x, with dx = e^v dv
    mean = sp.integrate(sp.exp(v) * sharp, (v, -sp.oo, sp.oo)) / sp.integrate(sharp, (v, -sp.oo, sp.oo))
    assert sp.simplify((cooled - sp.exp(sp.Rational(1, 8))).rewrite(sp.erf)) == 0
    assert sp.simplify((mean - sp.exp(-sp.Rational(5, 8))).rewrite(sp.erf)) == 0
    assert [float(cooled), float(mean)] == pytest.approx([1.133, 0.535], abs=5e-4)


def test_two_draws_halve_the_slack_of_the_hand_example():
    log, half = sp.log, sp.Rational(1, 2)
    densities = (3 * half, half)
    loose = -sum(log(a) for a in densities) / 2
    tight = -sum(log((a + b) / 2) for a in densities for b in densities) / 4
    assert sp.simplify(sp.expand_log(loose - 2 * tight)) == 0
    assert [float(loose), float(tight)] == pytest.approx([0.144, 0.072], abs=5e-4)
