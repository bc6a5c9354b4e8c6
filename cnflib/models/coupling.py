"""Builders of flows by couplings."""

import math
from collections.abc import Sequence

import torch

from cnflib._check import check_positive_int, event_shape
from cnflib.bijection import Chain
from cnflib.discrete import Coupling, Elementwise, affine
from cnflib.flow import Flow, StandardNormal
from cnflib.nets import Conditioner

__all__ = ["realnvp"]


def realnvp(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
) -> Flow:
    r"""RealNVP: affine couplings that keep the even and the odd coordinates in turn.

    It starts as the identity. Standardise the data, or put a :class:`cnflib.Standardize` in front:
    ``Flow(Chain(Standardize(mean, std), flow.bijection), flow.base)``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event with several axes is flattened for the nets and masked as a checkerboard.
        layers: Number of couplings.
        hidden: Widths of the hidden layers of each conditioner.
        context: Number of context features; 0 for an unconditional density.

    Raises:
        ValueError: If the event has fewer than two coordinates: nothing would be left to condition on.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> flow = realnvp(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    check_positive_int(layers, "layers")
    if math.prod(event) < 2:
        raise ValueError(
            f"Expected at least two coordinates for a coupling; got shape {event}. In 1-D use ffjord(dim=1)."
        )
    even = torch.stack(torch.meshgrid(*map(torch.arange, event), indexing="ij")).sum(0) % 2 == 0
    masks = [even if k % 2 == 0 else ~even for k in range(layers)]
    return Flow(Chain(*[_coupling(mask, affine(), hidden, context) for mask in masks]), StandardNormal(event))


def _coupling(mask: torch.Tensor, transform: Elementwise, hidden: Sequence[int], context: int) -> Coupling:
    outputs = (mask.shape[0] * transform.parameters, *mask.shape[1:])
    return Coupling(mask, transform, Conditioner(tuple(mask.shape), outputs, hidden, context))
