"""Builders of autoregressive flows."""

import math
from collections.abc import Callable, Sequence

from torch import nn

from cnflib._check import check_transform
from cnflib._check_sizes import check_layers, event_shape
from cnflib.bijection import Chain, Inverse
from cnflib.discrete import MADE, Additive, Affine, Elementwise, MaskedAutoregressive
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow

__all__ = ["iaf", "maf"]

_AFFINE = Affine()


def maf(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    transform: Elementwise = _AFFINE,
) -> Flow:
    r"""MAF: masked autoregressive layers that take the coordinates forwards and backwards in turn.

    The density of a point takes one pass through each layer, a sample D steps. It starts as the identity. For data in
    other units: ``flow.after(Standardize.fit(x))``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event with several axes is taken in the order of memory.
        layers: Number of layers.
        hidden: Widths of the hidden layers of each net; none should be below the dimension.
        context: Number of context features; 0 for an unconditional density.
        activation: Constructor of the activation of the nets.
        transform: The family of maps of one coordinate; with ``RationalQuadratic()`` it is the autoregressive spline
            flow.

    Raises:
        ValueError: If the event has one coordinate and the transform is affine or additive: that is a normal density.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.

    Example:
        >>> import torch
        >>> flow = maf(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    check_transform(transform)
    if math.prod(event) == 1 and isinstance(transform, Affine | Additive):
        raise ValueError(
            f"Expected a transform that bends the line, as {event} is one coordinate; got {transform}, with which the "
            "density stays normal. Use maf(dim=1, transform=RationalQuadratic()), or gaussian(dim=1), which says so."
        )

    def layer(k: int) -> MaskedAutoregressive:
        net = MADE(event, transform.parameters, hidden, context, reverse=k % 2 == 1, activation=activation)
        return MaskedAutoregressive(transform, net)

    return Flow(Chain(*map(layer, range(check_layers(layers)))), StandardNormal(event))


def iaf(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 5,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    transform: Elementwise = _AFFINE,
) -> Flow:
    r"""IAF: the inverse of the layers of :func:`maf`; a sample takes one pass, the density of a given point D steps.

    ``rsample_and_log_prob`` has the density of its own samples in the one pass, as variational inference needs it. For
    data in other units: ``flow.after(Standardize.fit(x))``. Arguments are those of :func:`maf`.

    Raises:
        ValueError: As :func:`maf`.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.

    Example:
        >>> flow = iaf(dim=2)
        >>> x, log_prob = flow.rsample_and_log_prob(3)
        >>> x.shape, log_prob.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """
    flow = maf(dim, shape, layers, hidden, context, activation, transform)
    return Flow(Inverse(flow.bijection), flow.base)
