r"""Monotone rational-quadratic splines: M bins in a box, the identity outside.

In bin k between the knots :math:`(x_k, y_k)` and :math:`(x_{k+1}, y_{k+1})`, of width :math:`w_k`, height :math:`h_k`
and mean slope :math:`s_k = h_k / w_k`, with slopes :math:`d_k, d_{k+1}` at its ends and
:math:`\xi = (x - x_k) / w_k`,

.. math:: T(x) = y_k + h_k \, \frac{s_k \xi^2 + d_k\, \xi (1 - \xi)}{q(\xi)}, \qquad
    q(\xi) = s_k + (d_k + d_{k+1} - 2 s_k)\, \xi (1 - \xi),

.. math:: T'(x) = s_k^2 \, \frac{d_{k+1} \xi^2 + 2 s_k\, \xi (1 - \xi) + d_k (1 - \xi)^2}{q(\xi)^2}.

Decoding takes the positive root of a quadratic in :math:`r = \xi / (1 - \xi)`: with the heights
:math:`u = y - y_k` and :math:`v = y_{k+1} - y` on either side of :math:`y`,

.. math:: s_k v\, r^2 + (d_k v - d_{k+1} u)\, r - s_k u = 0.

Its discriminant is a sum of positive terms, so nothing cancels, however steep or flat the bin.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cnflib._check import check_positive_int
from cnflib._settings import compact_repr

__all__ = ["RationalQuadratic"]

SMALLEST = 1e-3
"""The least width and height of a bin, as a share of the box, and the least slope at a knot."""
SHIFT = math.log(math.expm1(1 - SMALLEST))
"""What is added before the softplus, so that parameters of zero give slopes of 1, the identity."""


@dataclass(frozen=True, repr=False)
class RationalQuadratic:
    r"""The monotone rational-quadratic spline on :math:`[-R, R]`, the identity outside: the layer of neural splines.

    The :math:`3M - 1` parameters of a coordinate are the logits of M widths, those of M heights, and the slopes at
    the :math:`M - 1` inner knots before a softplus. At the ends of the box the slope is 1, so the map has a
    continuous derivative. No bin is narrower or lower than a thousandth of the box, no slope at a knot below a
    thousandth.

    Args:
        bins: The number :math:`M` of bins; a single one is the identity.
        bound: The half side :math:`R` of the box, in the unit of x. Points outside are not moved: standardise the data.

    Raises:
        ValueError: If the number of bins is not between 1 and 999, or the bound is not positive and finite; in a call,
            if x is of half precision.

    References:
        Neural Spline Flows, Durkan et al., 2019, arXiv:1906.04032; the spline is of Gregory and Delbourgo, 1982.

    Example:
        >>> import torch
        >>> spline, x = (
        ...     RationalQuadratic(bins=4, bound=3.0),
        ...     torch.tensor([-10.0, 0.5, 10.0]),
        ... )
        >>> z, log_slope = spline.encode(x, torch.randn(3, spline.parameters))
        >>> z[::2].tolist(), log_slope[::2].tolist()
        ([-10.0, 10.0], [0.0, 0.0])
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", check_positive_int(self.bins, "bins"))
        if self.bins >= 1 / SMALLEST:
            raise ValueError(
                f"Expected 1 <= bins < {1 / SMALLEST:.0f}; got {self.bins!r}. For more use more layers."
            )
        if isinstance(self.bound, str) or not 0 < self.bound < math.inf:
            raise ValueError(
                f"Expected bound to be > 0 and finite; got {self.bound!r}. Standardised data fit into bound=5."
            )

    @property
    def parameters(self) -> int:
        r"""The number :math:`3M - 1` of parameters of a coordinate."""
        return 3 * self.bins - 1

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`T(x)` and :math:`\log T'(x)`."""
        inside, at = _clamp(x, self.bound)
        (left, right), (low, high), (d0, d1) = _bin(at, params, self.bins, self.bound, 0)
        w, h = right - left, high - low
        s, xi = h / w, (at - left) / w
        q, log_slope = _denominator_and_log_slope(xi, s, d0, d1)
        z = low + h * xi * (s * xi + d0 * (1 - xi)) / q
        return torch.where(inside, z, x), torch.where(inside, log_slope, 0.0)

    def decode(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`x = T^{-1}(z)` and :math:`-\log T'(x)`."""
        inside, at = _clamp(z, self.bound)
        (left, right), (low, high), (d0, d1) = _bin(at, params, self.bins, self.bound, 1)
        w, u, v = right - left, at - low, high - at
        s = (u + v) / w
        # The quadratic (a/2) r² + b r - c/2 = 0 with a, c > 0 has one positive root, r = (√(b² + ac) - b) / a. Where
        # b > 0 that is a difference of near numbers; multiplied out it is c / (√(b² + ac) + b). So with m, the sum in
        # which nothing cancels, r = c / m or m / a, and ξ = r / (1 + r) needs no r, which may overflow.
        a, b, c = 2 * s * v, d0 * v - d1 * u, 2 * s * u
        rising = b > 0
        m = (b * b + a * c).sqrt() + torch.where(rising, b, -b)  # not b.abs(), whose gradient at b = 0 is 0
        n = torch.where(rising, c, a)
        xi = torch.where(rising, n, m) / (m + n)
        _, log_slope = _denominator_and_log_slope(xi, s, d0, d1)
        return torch.where(inside, left + xi * w, z), torch.where(inside, -log_slope, 0.0)

    __repr__ = compact_repr


def _denominator_and_log_slope(xi: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    r"""The denominator :math:`q` and :math:`\log T'`."""
    eta = 1 - xi
    both = xi * eta
    q = s + (d0 + d1 - 2 * s) * both
    return q, (s * s * (d1 * xi * xi + 2 * s * both + d0 * eta * eta) / (q * q)).log()


def _clamp(x: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Which points the spline moves, and the points with those outside at the border, where all stays finite."""
    return x.abs() < bound, x.clamp(-bound, bound)


def _bin(
    at: Tensor, theta: Tensor, bins: int, bound: float, axis: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Ends in x and in y of the bin that holds each point, looked for along axis 0, x, or 1, y, and its slopes."""
    if at.dtype.itemsize < 4:  # a bin may be no wider than a rounding, and what is divided by it NaN
        raise ValueError(
            f"Expected x of float32 or float64 for a spline; got {at.dtype}. Use flow.float() and x.float(); under "
            "torch.autocast a spline keeps the dtype of x."
        )
    shares = theta[:, : 2 * bins].unflatten(1, (2, bins)).softmax(2)
    one = torch.ones_like(shares[:, :, :1])
    # With the smallest share ε, knot k lies at -R + 2R (k ε + (1 - M ε) reach_k), so no bin is narrower than 2R ε.
    reach = torch.cat([torch.zeros_like(one), shares.cumsum(2)[:, :, :-1], one], 2)
    least = bins * SMALLEST
    even = torch.linspace(-least * bound, least * bound, bins + 1, dtype=at.dtype, device=at.device)
    start = (even - (1 - least) * bound).reshape(-1, *[1] * (at.ndim - 1))
    knots = torch.add(start, reach, alpha=2 * bound * (1 - least))
    slopes = SMALLEST + F.softplus(theta[:, 2 * bins :] + SHIFT)
    slopes = torch.cat([one[:, 0], slopes, one[:, 0]], 1)
    table = torch.cat([knots, slopes.unsqueeze(1)], 1)
    k = (at.unsqueeze(1) >= table[:, axis, 1:-1]).sum(1)
    k = torch.stack([k, k + 1], 1).unsqueeze(1)
    ends = table.gather(2, k.expand(-1, 3, *k.shape[2:]))
    return tuple(ends[:, i].unbind(1) for i in range(3))
