r"""Increasing maps of the line, applied to each coordinate with parameters of its own.

A coupling and an autoregressive layer are such a family and a net that computes its parameters. :class:`Scale` is the
simplest of all: parameters that are the same for every point.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from cnflib._check_sizes import event_shape
from cnflib._settings import compact_repr
from cnflib.bijection import Bijection

__all__ = ["Additive", "Affine", "Elementwise", "Scale"]


@runtime_checkable
class Elementwise(Protocol):
    r"""A family of increasing maps :math:`T(\cdot; \theta)` of the line, applied to each coordinate.

    Both methods take points of shape ``(B, *event)`` and ``params``, the :math:`\theta` of each coordinate, of shape
    ``(B, parameters, *event)``. They return the mapped points and the logarithm of the derivative of the map just
    computed, both of shape ``(B, *event)``. Parameters of zero should give the identity, with which a coupling starts.

    Attributes:
        parameters: The number P of parameters of a coordinate.

    Example:
        >>> import torch
        >>> class Shift:
        ...     parameters = 1
        ...
        ...     def encode(self, x, params):
        ...         return x + params[:, 0], torch.zeros_like(x)
        ...
        ...     def decode(self, z, params):
        ...         return z - params[:, 0], torch.zeros_like(z)
        >>> from cnflib.models import maf
        >>> maf(dim=2, transform=Shift()).log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    parameters: int

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`z = T(x; \theta)` and :math:`\log \partial_x T(x; \theta)`."""

    def decode(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`x = T^{-1}(z; \theta)` and :math:`\log \partial_z T^{-1}(z; \theta)`."""


@dataclass(frozen=True, repr=False)
class Additive:
    r"""The shift :math:`T(x; \mu) = x + \mu`, of log-derivative 0: the layer of NICE.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh et al., 2014, arXiv:1410.8516.

    Example:
        >>> import torch
        >>> z, log_slope = Additive().encode(
        ...     torch.tensor([1.0]), torch.tensor([[0.5]])
        ... )
        >>> z.item(), log_slope.item()
        (1.5, 0.0)
    """

    parameters: ClassVar[int] = 1

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`x + \mu`, and zeros."""
        return x + params[:, 0], torch.zeros_like(x)

    def decode(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`z - \mu`, and zeros."""
        return z - params[:, 0], torch.zeros_like(z)

    __repr__ = compact_repr


@dataclass(frozen=True, repr=False)
class Affine:
    r"""The affine map :math:`T(x; \mu, \alpha) = x e^\lambda + \mu` of bounded log-scale: the layer of RealNVP.

    .. math:: \lambda = \bar\lambda \tanh(\alpha / \bar\lambda)

    Args:
        bound: The bound :math:`\bar\lambda > 0` on :math:`|\lambda|`, in nats; one layer scales by at most
            :math:`e^{\bar\lambda}`. A huge bound does not lift it: :math:`\lambda` is computed to a rounding error of
            the bound, not of itself.

    Raises:
        ValueError: If the bound is not positive and finite.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> z, log_slope = Affine().encode(
        ...     torch.tensor([2.0]), torch.tensor([[0.5, 0.0]])
        ... )
        >>> z.item(), log_slope.item()
        (2.5, 0.0)
        >>> Affine(bound=1)
        Affine(bound=1)
    """

    bound: float = 3.0
    parameters: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if isinstance(self.bound, str) or not 0 < self.bound < math.inf:
            raise ValueError(
                f"Expected bound to be > 0 and finite; got {self.bound!r}. For a pure shift use Additive()."
            )

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`x e^\lambda + \mu`, and :math:`\lambda`."""
        mu, alpha = params.unbind(1)
        log_scale = _bounded(alpha, self.bound)
        return torch.addcmul(mu, x, log_scale.exp()), log_scale

    def decode(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        r"""The point :math:`(z - \mu) e^{-\lambda}`, and :math:`-\lambda`."""
        mu, alpha = params.unbind(1)
        minus = -_bounded(alpha, self.bound)
        return (z - mu) * minus.exp(), minus

    __repr__ = compact_repr


def _bounded(alpha: Tensor, bound: float) -> Tensor:
    r""":math:`\lambda = \bar\lambda (1 - 2\sigma(-2\alpha / \bar\lambda))`: on the CPU torch's tanh is much slower."""
    return torch.rsub(torch.sigmoid(alpha * (-2 / bound)), bound, alpha=2 * bound)


class Scale(Bijection):
    r"""A diagonal scaling, :math:`z_i = x_i e^{\lambda_i}`: the last layer of NICE, whose couplings keep volume.

    .. math:: \log |\det \partial z / \partial x| = \sum_i \lambda_i

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
        self.event_shape = event_shape(None, shape)
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), self.log_scale.sum().repeat(x.shape[0])

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp(), -self.log_scale.sum().repeat(z.shape[0])

    def extra_repr(self) -> str:
        return f"shape={self.event_shape}"
