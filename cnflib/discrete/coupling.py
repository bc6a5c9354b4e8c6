r"""Coupling layers: part of the event is kept, the rest is transformed with parameters computed from the kept part.

With the kept coordinates :math:`x_A`, the others :math:`x_B` and a net :math:`\theta`,

.. math:: z_A = x_A, \qquad z_B = T(x_B; \theta(x_A)),

the Jacobian is block-triangular, so its determinant is the product of :math:`\partial T / \partial x_B` over the
transformed coordinates. "Coupling" here is the layer; the joint law of two ends of an interpolant is a "pairing".
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_context, check_event, check_like, reference
from cnflib.bijection import Bijection

__all__ = ["Coupling", "Elementwise", "additive", "affine"]


class Elementwise(NamedTuple):
    r"""A family of increasing maps :math:`T(\cdot; \theta)` of the line, applied to each coordinate.

    Both functions take points of shape ``(B, *event)`` and parameters of shape ``(B, *event, parameters)``, and
    return points and :math:`\log` derivatives of shape ``(B, *event)``. Parameters of zero give the identity.

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
        bound: The bound :math:`m > 0` on :math:`|s|`, in nats; one layer scales by at most :math:`e^m`.

    Raises:
        ValueError: If the bound is not positive.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> y, log_slope = affine().forward(torch.tensor([2.0]), torch.tensor([[0.5, 0.0]]))
        >>> y.item(), log_slope.item()
        (2.5, 0.0)
    """
    if not bound > 0:
        raise ValueError(f"Expected bound > 0; got {bound}. For a pure shift use additive().")

    return Elementwise(2, partial(_scale_shift, bound=bound), partial(_unshift_scale, bound=bound))


def _shift(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    return x + theta[..., 0], torch.zeros_like(x)


def _unshift(z: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    return z - theta[..., 0], torch.zeros_like(z)


def _scale_shift(x: Tensor, theta: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    s = bound * torch.tanh(theta[..., 1] / bound)
    return x * s.exp() + theta[..., 0], s


def _unshift_scale(z: Tensor, theta: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    s = bound * torch.tanh(theta[..., 1] / bound)
    return (z - theta[..., 0]) * (-s).exp(), -s


class Coupling(Bijection):
    r"""A coupling layer: :math:`z_A = x_A`, :math:`z_B = T(x_B; \theta(x_A, c))`.

    .. math:: \log |\det \partial z / \partial x| = \sum_{i \in B} \log \partial_x T(x_i; \theta_i(x_A, c))

    Args:
        mask: True on the kept coordinates :math:`A`, False on the transformed ones :math:`B`; shape ``event``, bool.
        transform: The family :math:`T`, e.g. :func:`affine`.
        net: The net :math:`\theta`, called as ``net(x, context)`` on x with :math:`x_B` set to zero. It returns
            ``transform.parameters`` numbers a coordinate, shape ``(B, event[0] * parameters, *event[1:])``.

    Raises:
        ValueError: If the mask keeps all coordinates or none.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh et al., 2014, arXiv:1410.8516.

    Example:
        >>> import torch
        >>> from cnflib.discrete import affine
        >>> from cnflib.nets import Conditioner
        >>> mask = torch.tensor([True, False])
        >>> layer = Coupling(mask, affine(), Conditioner(2, 4))
        >>> z, logdet = layer(torch.randn(5, 2))
        >>> z.shape, logdet.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, mask: Tensor, transform: Elementwise, net: nn.Module) -> None:
        super().__init__()
        if mask.dtype != torch.bool or mask.ndim == 0:
            raise ValueError(
                f"Expected mask to be a bool tensor of the event's shape; got {mask.dtype}, {tuple(mask.shape)}."
            )
        if mask.all() or not mask.any():
            raise ValueError(
                "Expected a mask that keeps some coordinates and transforms others; a coupling needs dim >= 2."
            )
        self.register_buffer("mask", mask)
        self.transform = transform
        self.net = net

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._apply_transform(self.transform.forward, x, context, "x")

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._apply_transform(self.transform.inverse, z, context, "z")

    def _apply_transform(
        self,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        x: Tensor,
        context: Tensor | None,
        name: str,
    ) -> tuple[Tensor, Tensor]:
        check_event(x, tuple(self.mask.shape), name)
        check_like(x, reference(self.net), name, "Coupling")
        check_context(context, x, name)
        y, logdet = transform(x, self._theta(x, context))
        return torch.where(self.mask, x, y), logdet.masked_fill(self.mask, 0).flatten(1).sum(1)

    def _theta(self, x: Tensor, context: Tensor | None) -> Tensor:
        theta = self.net(x * self.mask, context)
        expected = (x.shape[0], x.shape[1] * self.transform.parameters, *x.shape[2:])
        if theta.shape != expected:
            raise ValueError(
                f"Expected net(x, context) to return shape {expected}, {self.transform.parameters} numbers for each "
                f"coordinate of x; got {tuple(theta.shape)}."
            )
        return theta.unflatten(1, (x.shape[1], self.transform.parameters)).movedim(2, -1)
