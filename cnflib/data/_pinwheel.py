r"""The pinwheel: Gaussian blades, turned by an angle that grows with the distance along the blade.

A point of blade k is :math:`f = (1 + 0.3 z_1, 0.1 z_2)`, and :math:`x = 2 R^\top(a(f_1) + 2 \pi k / 5) f` with the
rotation R and :math:`a(u) = e^u / 4`. In polar coordinates, :math:`x / 2 = r (\cos\varphi, \sin\varphi)` and
:math:`f = r (\cos\psi, \sin\psi)`, the inverse is one equation for the angle :math:`\psi`:

.. math:: h(\psi) = \psi - a(r \cos\psi) = \varphi + 2 \pi j / 5, \quad j \in \mathbb{Z}

Beyond r = 1.7 the blades fold over, h falls on an interval :math:`(\psi_1, \psi_2)`, and blades have several roots.
"""

import math

import torch
from torch import Tensor

from cnflib.data._numerics import bisect, logsumexp_by_row
from cnflib.data._target import Draws

__all__ = ["draw_pinwheel", "pinwheel_density"]

BLADES, RATE, SCALE, RADIAL, TANGENTIAL = 5, 0.25, 2.0, 0.3, 0.1
TURN = 2 * math.pi / BLADES
# From 16 standard deviations on the blades stop turning, so that exp(u) neither overflows nor drowns the angle.
LAST = 6.0
# Up to |x| = 12 a root more turns away from the blade's axis weighs below 1e-40 of the largest one.
TURNS = 16


def draw_pinwheel(n: int, draws: Draws) -> Tensor:
    r"""Draw n points of the pinwheel.

    Args:
        n: The number of points.
        draws: Where its random numbers come from.

    Returns:
        The points, shape ``(n, 2)``.
    """
    z = draws.normal(n, 2)
    f = torch.stack([1 + RADIAL * z[:, 0], TANGENTIAL * z[:, 1]], dim=-1)
    blade = draws.integers(BLADES, n)
    return SCALE * rotate(f, -angle(f[:, 0]) - TURN * blade)


def pinwheel_density(x: Tensor) -> Tensor:
    r"""Evaluate the log-density as a sum over the roots of all blades.

    .. math:: \rho(x) = \frac{1}{4} \sum_{\text{roots } f} \frac{1}{5}
        \frac{\mathcal{N}(f_1; 1, 0.3^2) \, \mathcal{N}(f_2; 0, 0.1^2)}{|1 + a'(f_1) f_2|}

    A root u of :math:`f_1(u, x) = u` is found without gradients; the implicit function theorem then gives it its own,
    :math:`\partial u / \partial x = (\partial f_1 / \partial x) / (1 + a'(u) f_2)`, so that the score is right too.

    Args:
        x: Points, shape ``(B, 2)``.

    Returns:
        The log-density, shape ``(B,)``.
    """
    y = x / SCALE
    with torch.no_grad():
        row, turn, u = blade_roots(y)
    y = y[row]

    f1, f2 = rotate(y, angle(u) + turn).unbind(-1)
    u = u + (f1 - f1.detach()) / slope(u, f2).detach()
    f1, f2 = rotate(y, angle(u) + turn).unbind(-1)

    z1, z2 = (f1 - 1) / RADIAL, f2 / TANGENTIAL
    terms = -(z1.square() + z2.square()) / 2 - slope(f1, f2).abs().log()
    constant = math.log(BLADES * SCALE**2 * 2 * math.pi * RADIAL * TANGENTIAL)
    return logsumexp_by_row(terms, row, len(x)) - constant


def angle(u: Tensor) -> Tensor:
    r"""Evaluate :math:`a(u) = e^u / 4`, held constant from u = 6 on."""
    return RATE * u.clamp_max(LAST).exp()


def slope(f1: Tensor, f2: Tensor) -> Tensor:
    r"""Evaluate :math:`1 + a'(f_1) f_2`, the derivative of h and the Jacobian's determinant; never quite zero."""
    value = 1 + angle(f1) * (f1 < LAST) * f2
    eps = torch.finfo(value.dtype).eps
    return torch.where(value.abs() < eps, eps, value)


def rotate(y: Tensor, theta: Tensor) -> Tensor:
    r"""Turn points y, shape ``(N, 2)``, by the angles theta, shape ``(N,)``."""
    cos, sin = theta.cos(), theta.sin()
    return torch.stack([y[:, 0] * cos - y[:, 1] * sin, y[:, 0] * sin + y[:, 1] * cos], dim=-1)


def blade_roots(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Find all solutions of :math:`h(\psi) = \varphi + 2 \pi j / 5`, bisecting where h is monotone.

    Args:
        y: The points :math:`r (\cos\varphi, \sin\varphi)`, shape ``(B, 2)``.

    Returns:
        For each of the R roots the row of its point, the turn :math:`2 \pi j / 5` and the position along the blade
        :math:`f_1 = r \cos\psi`, all of shape ``(R,)``.
    """
    r, phi = torch.linalg.vector_norm(y, dim=-1)[:, None], torch.atan2(y[:, 1], y[:, 0])[:, None]
    edges = pieces(r)
    ends = height(edges, r)
    low, high = ends.unfold(1, 2, 1).sort(-1).values[..., None].unbind(2)

    middle = ((height(torch.zeros_like(r), r) - phi) / TURN).round()
    turn = TURN * (middle + torch.arange(-TURNS, TURNS + 1, device=y.device))[:, None]
    level = phi[..., None] + turn
    hit = (low <= level) & (level < high)

    row, piece, j = hit.nonzero(as_tuple=True)
    r, level, rising = r[row, 0], level[row, 0, j], piece != 1
    psi = bisect(lambda psi: (height(psi, r) > level) == rising, edges[row, piece], edges[row, piece + 1])
    return row, turn[row, 0, j], r * psi.cos()


def height(psi: Tensor, r: Tensor) -> Tensor:
    r"""Evaluate :math:`h(\psi) = \psi - a(r \cos\psi)`."""
    return psi - angle(r * psi.cos())


def pieces(r: Tensor) -> Tensor:
    r"""Return the limits :math:`-\pi \le \psi_1 \le \psi_2 \le \pi` between which h rises, falls and rises.

    Where :math:`h'(\psi) = 1 + a'(r \cos\psi) \, r \sin\psi` has its minimum, :math:`\cos\psi = r \sin^2\psi`; the
    folds lie on either side if it is negative there, and both limits are the minimum itself otherwise.

    Args:
        r: The radii, shape ``(B, 1)``.

    Returns:
        The limits, shape ``(B, 4)``.
    """
    cos = torch.minimum(2 * r / (1 + (1 + 4 * r.square()).sqrt()), LAST / r)
    lowest, pi = -cos.clamp_max(1).acos(), torch.full_like(r, math.pi)

    def falls(psi: Tensor) -> Tensor:
        return slope(r * psi.cos(), r * psi.sin()) < 0

    first = bisect(falls, -pi, lowest)
    second = bisect(lambda psi: ~falls(psi), lowest, torch.zeros_like(r))
    return torch.cat([-pi, first, second, pi], dim=-1)
