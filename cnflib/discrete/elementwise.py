r"""Increasing maps of the line, applied to each coordinate with parameters of its own.

A coupling and an autoregressive layer are such a family and a net that computes its parameters. :class:`Scale` is the
simplest of all: parameters that are the same for every point.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_event, check_like, event_shape
from cnflib.bijection import Bijection

__all__ = ["Elementwise", "Scale", "additive", "affine"]


class Elementwise(NamedTuple):
    r"""A family of increasing maps :math:`T(\cdot; \theta)` of the line, applied to each coordinate.

    Both functions take points of shape ``(B, *event)`` and parameters of shape ``(B, parameters, *event)``, and return
    points and :math:`\log` derivatives of shape ``(B, *event)``. Parameters of zero give the identity.

    Example:
        >>> import torch
        >>> from cnflib.discrete import affine
        >>> transform, x, theta = affine(), torch.randn(5), torch.randn(5, 2)
        >>> y, log_slope = transform.forward(x, theta)
        >>> torch.allclose(transform.inverse(y, theta)[0], x, atol=1e-5)
        True
    """

    parameters: int
    forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    inverse: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def additive() -> Elementwise:
    r"""The shift :math:`T(x; b) = x + b`, of log-derivative 0: the layer of NICE.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh et al., 2014, arXiv:1410.8516.

    Example:
        >>> import torch
        >>> y, log_slope = additive().forward(torch.tensor([1.0]), torch.tensor([[0.5]]))
        >>> y.item(), log_slope.item()
        (1.5, 0.0)
    """
    return Elementwise(1, _shift, _unshift)


def affine(bound: float = 3.0) -> Elementwise:
    r"""The affine map :math:`T(x; b, a) = x e^{s} + b` with :math:`s = m \tanh(a / m)`: the layer of RealNVP.

    Args:
        bound: The bound :math:`m > 0` on :math:`|s|`, in nats; one layer scales by at most :math:`e^m`. It is no way
            to lift the bound: s is computed to a rounding error of m, not of itself.

    Raises:
        ValueError: If the bound is not positive and finite.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> y, log_slope = affine().forward(torch.tensor([2.0]), torch.tensor([[0.5, 0.0]]))
        >>> y.item(), log_slope.item()
        (2.5, 0.0)
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"Expected bound > 0 and finite; got {bound}. For a pure shift use additive().")
    return Elementwise(2, partial(_scale_shift, bound=bound), partial(_unshift_scale, bound=bound))


def _shift(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    return x + theta[:, 0], torch.zeros_like(x)


def _unshift(z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    return z - theta[:, 0], torch.zeros_like(z)


def _scale_shift(x: Tensor, theta: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    b, a = theta.unbind(1)
    s = _bounded(a, bound)
    return torch.addcmul(b, x, s.exp()), s


def _unshift_scale(z: Tensor, theta: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    b, a = theta.unbind(1)
    minus = -_bounded(a, bound)
    return (z - b) * minus.exp(), minus


def _bounded(a: Tensor, m: float) -> Tensor:
    r""":math:`m \tanh(a / m) = m - 2 m \sigma(-2 a / m)`: on the CPU torch's sigmoid is much faster than its tanh."""
    return torch.rsub(torch.sigmoid(a * (-2 / m)), m, alpha=2 * m)


class Scale(Bijection):
    r"""A diagonal scaling, :math:`z_i = x_i e^{s_i}`: the last layer of NICE, whose couplings keep volume.

    .. math:: \log |\det \partial z / \partial x| = \sum_i s_i

    It starts as the identity, and ignores a context.

    Args:
        shape: The event shape; every coordinate has a scale of its own.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh et al., 2014, arXiv:1410.8516.

    Example:
        >>> import torch
        >>> z, logdet = Scale(2)(torch.ones(3, 2))
        >>> z.shape, logdet.tolist()
        (torch.Size([3, 2]), [0.0, 0.0, 0.0])
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(event_shape(None, shape)))

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(x, "x")
        return x * self.log_scale.exp(), self.log_scale.sum().repeat(len(x))

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(z, "z")
        return z * (-self.log_scale).exp(), -self.log_scale.sum().repeat(len(z))

    def _check(self, x: Tensor, name: str) -> None:
        check_event(x, tuple(self.log_scale.shape), name)
        check_like(x, self.log_scale, name, "Scale")
