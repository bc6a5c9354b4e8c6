r"""Explicit Runge-Kutta methods as data: the Butcher tableau of each.

The first four take equal steps, the others carry an estimate of their error and can choose them.
"""

from typing import NamedTuple

__all__ = [
    "Tableau",
    "adaptive_heun",
    "bosh3",
    "dopri5",
    "dopri8",
    "euler",
    "heun",
    "midpoint",
    "rk4",
]


class Tableau(NamedTuple):
    r"""An explicit Runge-Kutta method, with or without an embedded estimate of its error.

    .. math:: k_i = F\bigl(t + c_i h,\; y + h \sum_{j<i} a_{ij} k_j\bigr), \qquad y_{+} = y + h \sum_i b_i k_i,
        \qquad \mathrm{error} = h \sum_i e_i k_i = O(h^p)

    Attributes:
        c: Times of the stages, in steps.
        a: Weights of the slopes in each stage: row i has i of them.
        b: Weights of the slopes in the solution.
        e: Those in the error, b less the weights of a solution of lower order; empty for a method of equal steps.
        order: The order p of the method, which :class:`Adaptive` chooses its steps by.

    Example:
        >>> from cnflib.ode import Fixed
        >>> ralston = Tableau(c=(0, 2 / 3), a=((), (2 / 3,)), b=(1 / 4, 3 / 4))
        >>> solver = Fixed(10, ralston)
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    e: tuple[float, ...] = ()
    order: int = 0

    def __repr__(self) -> str:
        """The name of a ready one; one of your own in full."""
        if self in _NAMES:
            return _NAMES[self]
        filled = {name: value for name, value in self._asdict().items() if value or name in ("c", "a", "b")}
        return f"Tableau({', '.join(f'{name}={value!r}' for name, value in filled.items())})"


def _less(b: tuple[float, ...], lower: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(p - q for p, q in zip(b, lower, strict=True))


euler = Tableau(c=(0,), a=((),), b=(1,))
midpoint = Tableau(c=(0, 1 / 2), a=((), (1 / 2,)), b=(0, 1))
heun = Tableau(c=(0, 1), a=((), (1,)), b=(1 / 2, 1 / 2))
rk4 = Tableau(
    c=(0, 1 / 2, 1 / 2, 1),
    a=((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)

adaptive_heun = heun._replace(e=_less(heun.b, (1, 0)), order=2)

_weights3 = (2 / 9, 1 / 3, 4 / 9)
bosh3 = Tableau(
    c=(0, 1 / 2, 3 / 4, 1),
    a=((), (1 / 2,), (0, 3 / 4), _weights3),
    b=(*_weights3, 0),
    e=_less((*_weights3, 0), (7 / 24, 1 / 4, 1 / 3, 1 / 8)),
    order=3,
)

_weights5 = (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
dopri5 = Tableau(
    c=(0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _weights5,
    ),
    b=(*_weights5, 0),
    e=_less((*_weights5, 0), (5179 / 57600, 0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)),
    order=5,
)

# fmt: off
_weights8 = (
    14005451 / 335480064, 0, 0, 0, 0, -59238493 / 1068277825, 181606767 / 758867731, 561292985 / 797845732,
    -1041891430 / 1371343529, 760417239 / 1151165299, 118820643 / 751138087, -528747749 / 2220607170, 1 / 4,
)
dopri8 = Tableau(
    c=(
        0, 1 / 18, 1 / 12, 1 / 8, 5 / 16, 3 / 8, 59 / 400, 93 / 200, 5490023248 / 9719169821, 13 / 20,
        1201146811 / 1299019798, 1, 1,
    ),
    a=(
        (),
        (1 / 18,),
        (1 / 48, 1 / 16),
        (1 / 32, 0, 3 / 32),
        (5 / 16, 0, -75 / 64, 75 / 64),
        (3 / 80, 0, 0, 3 / 16, 3 / 20),
        (29443841 / 614563906, 0, 0, 77736538 / 692538347, -28693883 / 1125000000, 23124283 / 1800000000),
        (
            16016141 / 946692911, 0, 0, 61564180 / 158732637, 22789713 / 633445777, 545815736 / 2771057229,
            -180193667 / 1043307555,
        ),
        (
            39632708 / 573591083, 0, 0, -433636366 / 683701615, -421739975 / 2616292301, 100302831 / 723423059,
            790204164 / 839813087, 800635310 / 3783071287,
        ),
        (
            246121993 / 1340847787, 0, 0, -37695042795 / 15268766246, -309121744 / 1061227803, -12992083 / 490766935,
            6005943493 / 2108947869, 393006217 / 1396673457, 123872331 / 1001029789,
        ),
        (
            -1028468189 / 846180014, 0, 0, 8478235783 / 508512852, 1311729495 / 1432422823,
            -10304129995 / 1701304382, -48777925059 / 3047939560, 15336726248 / 1032824649,
            -45442868181 / 3398467696, 3065993473 / 597172653,
        ),
        (
            185892177 / 718116043, 0, 0, -3185094517 / 667107341, -477755414 / 1098053517, -703635378 / 230739211,
            5731566787 / 1027545527, 5232866602 / 850066563, -4093664535 / 808688257, 3962137247 / 1805957418,
            65686358 / 487910083,
        ),
        (
            403863854 / 491063109, 0, 0, -5068492393 / 434740067, -411421997 / 543043805, 652783627 / 914296604,
            11173962825 / 925320556, -13158990841 / 6184727034, 3936647629 / 1978049680, -160528059 / 685178525,
            248638103 / 1413531060, 0,
        ),
    ),
    b=_weights8,
    e=_less(_weights8, (
        13451932 / 455176623, 0, 0, 0, 0, -808719846 / 976000145, 1757004468 / 5645159321, 656045339 / 265891186,
        -3867574721 / 1518517206, 465885868 / 322736535, 53011238 / 667516719, 2 / 45, 0,
    )),
    order=8,
)
# fmt: on

_NAMES = {
    euler: "euler",
    midpoint: "midpoint",
    heun: "heun",
    rk4: "rk4",
    adaptive_heun: "adaptive_heun",
    bosh3: "bosh3",
    dopri5: "dopri5",
    dopri8: "dopri8",
}
