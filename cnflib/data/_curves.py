r"""Laws made of a curve and noise: the density is an integral of the noise's density along the curve.

.. math:: \rho(x) = \int k(x - c(s)) \, \mu(\mathrm{d}s) \approx \sum_i w_i \, k(x - c(s_i))

A circle's integral is a Bessel function; for the others the nodes :math:`s_i` are Gauss-Legendre's, as many as
leave a relative error below :math:`10^{-7}` wherever :math:`\log \rho(x) > -20`.
"""

import math

import torch
from torch import Tensor

from cnflib.data._numerics import logsumexp_by_row

__all__ = ["boxed_curve", "gaussian_curve", "gaussian_rings"]


def gaussian_rings(x: Tensor, radii: tuple[float, ...], sigma: float) -> Tensor:
    r"""Evaluate K equally weighted circles around the origin plus noise :math:`\mathcal{N}(0, \sigma^2 I)`.

    .. math:: \rho(x) = \frac{1}{K} \sum_k \frac{1}{2 \pi \sigma^2}
        \exp\left(-\frac{(|x| - R_k)^2}{2 \sigma^2}\right) e^{-u_k} I_0(u_k), \quad u_k = \frac{|x| R_k}{\sigma^2}

    Args:
        x: Points, shape ``(B, 2)``.
        radii: The radii :math:`R_k`.
        sigma: The noise's standard deviation :math:`\sigma`.

    Returns:
        The log-density, shape ``(B,)``.
    """
    r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    radius = x.new_tensor(radii)
    bessel = torch.special.i0e(r * radius / sigma**2).log()
    terms = bessel - ((r - radius) / sigma).square() / 2
    return terms.logsumexp(-1) - math.log(2 * math.pi * sigma**2 * len(radii))


def gaussian_curve(x: Tensor, points: Tensor, weights: Tensor, sigma: float) -> Tensor:
    r"""Evaluate a curve plus noise :math:`\mathcal{N}(0, \sigma^2 I)`.

    .. math:: \rho(x) = \sum_i w_i \, \mathcal{N}(x; c_i, \sigma^2 I)

    Args:
        x: Points, shape ``(B, 2)``.
        points: The curve at the nodes, :math:`c_i`, shape ``(N, 2)``.
        weights: The weights :math:`w_i`, of sum 1, shape ``(N,)``.
        sigma: The noise's standard deviation :math:`\sigma`.

    Returns:
        The log-density, shape ``(B,)``.
    """
    points, weights = points.to(x), weights.to(x)
    offset = x[:, None] - points
    terms = weights.log() - offset.square().sum(-1) / (2 * sigma**2)
    return terms.logsumexp(-1) - math.log(2 * math.pi * sigma**2)


def boxed_curve(x: Tensor, points: Tensor, weights: Tensor, half: float, sigma: float) -> Tensor:
    r"""Evaluate a curve plus noise :math:`\mathcal{U}[-h, h]^2` plus noise :math:`\mathcal{N}(0, \sigma^2 I)`.

    .. math:: \rho(x) = \sum_i w_i \, k(x_1 - c_{i1}) \, k(x_2 - c_{i2}), \qquad
              k(z) = \frac{\operatorname{erfc}(a) - \operatorname{erfc}(b)}{4 h}
                   = \frac{e^{-a^2}}{4 h} \left( \operatorname{erfcx}(a) - e^{a^2 - b^2} \operatorname{erfcx}(b) \right)

    with :math:`a, b = (|z| \mp h) / (\sqrt{2} \sigma)`; the scaled function erfcx neither under- nor overflows.

    Args:
        x: Points, shape ``(B, 2)``.
        points: The curve at the nodes, :math:`c_i`, shape ``(N, 2)``.
        weights: The weights :math:`w_i`, of sum 1, shape ``(N,)``.
        half: Half the side of the box, :math:`h`.
        sigma: The standard deviation :math:`\sigma` of the Gaussian noise.

    Returns:
        The log-density, shape ``(B,)``.
    """
    points, weights, scale = points.to(x), weights.to(x), math.sqrt(2) * sigma
    near = neighbours(x, points, reach=math.sqrt(48) * sigma, slack=math.sqrt(2) * half)
    row, node = near.nonzero(as_tuple=True)

    z = (x[row] - points[node]).abs()
    a, b = (z - half) / scale, (z + half) / scale
    factor = torch.special.erfcx(a) - torch.exp(-4 * z * half / scale**2) * torch.special.erfcx(b)
    log_kernel = (factor / (4 * half)).log() - a.square()
    terms = weights[node].log() + log_kernel.sum(-1)
    return logsumexp_by_row(terms, row, len(x))


def neighbours(x: Tensor, points: Tensor, reach: float, slack: float) -> Tensor:
    r"""Mark the nodes whose term may count: :math:`(d - \text{slack})^2 < d_{\min}^2 + \text{reach}^2`.

    A reach of :math:`\sqrt{48} \sigma` drops terms below :math:`e^{-24}` of the largest one, most of them all.

    Args:
        x: Points, shape ``(B, 2)``.
        points: The curve at the nodes, shape ``(N, 2)``.
        reach: How far past the nearest node a node may lie if x is on the curve.
        slack: How much nearer than its node a term's noise may come.

    Returns:
        A mask, shape ``(B, N)``.
    """
    distance = torch.cdist(x.detach(), points)
    return distance < slack + (distance.amin(-1, keepdim=True).square() + reach**2).sqrt()
