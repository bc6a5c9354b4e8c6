"""What chapter 11 says of adjoints, of two kinds of gradient and of contraction holds letter by letter."""

import pytest
import sympy
from sympy import Matrix, Rational, diff, exp, integrate, simplify, symbols, zeros

t, p, q, y = symbols("t theta_1 theta_2 y", real=True)
START, TARGET = Matrix([2, 1]), Matrix([1, 3])

# Linear fields dx/dt = A(theta) x in the plane whose matrices have an exponential in closed form.
FIELDS = {
    "triangular": Matrix([[p, q], [0, p]]),
    "spiral": Matrix([[p, -q], [q, p]]),
    "two rates": Matrix([[p, 1], [0, q]]),
}


def solved(A: Matrix, time: sympy.Expr) -> Matrix:
    """The exponential of A times the time, as a matrix of expressions."""
    return (A * time).exp().applyfunc(simplify)


@pytest.mark.parametrize("name", FIELDS)
def test_the_adjoint_s_integral_is_the_derivative_of_the_matrix_exponential(name):
    """dL/dtheta = ∫ aᵀ ∂f/∂theta dt, with da/dt = −Aᵀ a, for L = |x(1) − y|² / 2."""
    A = FIELDS[name]
    x = solved(A, t) * START
    end = x.subs(t, 1)
    a = solved(A.T, 1 - t) * (end - TARGET)
    assert simplify(diff(a, t) + A.T * a) == zeros(2, 1)
    loss = ((end - TARGET).T * (end - TARGET))[0] / 2
    values = {p: Rational(1, 3), q: Rational(1, 2)}
    for theta in (p, q):
        rate = (a.T * diff(A, theta) * x)[0].subs(values)
        by_adjoint = integrate(sympy.expand(rate.rewrite(exp)), (t, 0, 1))
        assert abs(sympy.N(by_adjoint - diff(loss, theta).subs(values), 30)) < 1e-20


@pytest.mark.parametrize("name", FIELDS)
def test_adjoint_times_tangent_stays_the_same(name):
    A = FIELDS[name]
    a, tangent = solved(A.T, 1 - t) * TARGET, solved(A, t) * START
    assert simplify(diff((a.T * tangent)[0], t)) == 0


def test_the_example_by_hand():
    """dx/dt = theta x, x(0) = 1, L = (x(1) − 2)² / 2, at theta = ½: two Euler steps, and the exact flow."""
    theta = Rational(1, 2)
    x = [1, 1 + theta / 2, (1 + theta / 2) ** 2]
    a = [(1 + theta / 2) ** (2 - k) * (x[2] - 2) for k in range(3)]
    assert a == [Rational(-175, 256), Rational(-35, 64), Rational(-7, 16)]
    assert (a[1] * x[0] + a[2] * x[1]) / 2 == Rational(-35, 64)
    steps, flow = ((1 + p / 2) ** 2 - 2) ** 2 / 2, (exp(p) - 2) ** 2 / 2
    assert diff(steps, p).subs(p, theta) == Rational(-35, 64)
    assert abs(diff(flow, p).subs(p, theta).evalf() + 0.5792) < 1e-4


def test_one_midpoint_step_at_minus_1_is_at_its_minimum():
    loss = (1 + p + p**2 / 2) ** 2 / 2
    assert diff(loss, p).subs(p, -1) == 0 and diff(loss, p, 2).subs(p, -1) > 0
    assert diff(exp(2 * p) / 2, p).subs(p, -1) == exp(-2)


def test_at_the_ends_the_adjoint_times_the_velocity_is_the_gradient():
    """Of L = x(t₁)² / 2 along dx/dt = x², whose solution from x₀ at t₀ is x₀ / (1 − x₀ (t₁ − t₀))."""
    start, t0, t1 = symbols("x_0 t_0 t_1", real=True)
    end = start / (1 - start * (t1 - t0))
    loss = end**2 / 2
    a0, a1 = diff(loss, start), end
    assert simplify(diff(loss, t1) - a1 * end**2) == 0
    assert simplify(diff(loss, t0) + a0 * start**2) == 0


def test_the_adjoint_of_a_flow_adds_the_gradient_of_the_trace():
    """For the pair (x, l) with dl/dt = tr J the adjoint equation is −Jᵀ a − a_l ∇ tr J."""
    u, v, b, c, e = symbols("u v b c e")
    f = Matrix([sympy.sin(u * v), u**2 + sympy.cos(v)])
    J = f.jacobian([u, v])
    both = Matrix([*f, J.trace()]).jacobian([u, v, symbols("l")])
    pulled = -both.T * Matrix([b, c, e])
    by_hand = -J.T * Matrix([b, c]) - e * Matrix([diff(J.trace(), u), diff(J.trace(), v)])
    assert simplify(pulled[:2, :] - by_hand) == zeros(2, 1) and pulled[2] == 0


def test_the_pendulum_in_oil_forgets_at_the_rates_2_and_6():
    J = Matrix([[0, 1], [-12, -8]])  # at rest, where the sine is its angle
    assert set(J.eigenvals()) == {-2, -6}
