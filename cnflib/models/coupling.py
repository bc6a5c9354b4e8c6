"""Builders of flows by couplings."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from cnflib._check_sizes import check_layers, event_shape
from cnflib.bijection import Chain
from cnflib.discrete import (
    Additive,
    Affine,
    Coupling,
    Elementwise,
    RationalQuadratic,
    Scale,
    checkerboard_mask,
    halves,
)
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow
from cnflib.models.images import pixels_then_channels
from cnflib.nets import Conditioner

__all__ = ["alternating", "dense_coupling", "nice", "realnvp", "spline_flow"]


def nice(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Flow:
    r"""NICE: additive couplings that keep one half and the other in turn, and a diagonal scaling.

    It starts as the identity. The couplings keep volume, so the density changes along the flow by the factor of
    the scaling alone. For data in other units: ``flow.after(Standardize.fit(x))``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event with several axes is flattened for the nets and masked as a checkerboard.
        layers: Number of couplings.
        hidden: Widths of the hidden layers of each conditioner.
        context: Number of context features; 0 for an unconditional density.
        activation: Constructor of the activation of the conditioners.

    Raises:
        ValueError: If the event has fewer than two coordinates: nothing would be left to condition on.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh et al., 2014, arXiv:1410.8516.

    Example:
        >>> import torch
        >>> flow = nice(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    couplings = alternating(event, Additive(), layers, hidden, context, activation)
    return Flow(Chain(*couplings, Scale(event)), StandardNormal(event))


def realnvp(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int | None = None,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    scales: int | None = None,
) -> Flow:
    r"""RealNVP: affine couplings that keep one half of the coordinates and the other in turn.

    Images ``(C, H, W)`` get convolutional couplings at several resolutions, of pixels on a checkerboard and, squeezed,
    of channels: :func:`~cnflib.models.images.pixels_then_channels`.

    It starts as the identity. For data in other units: ``flow.after(Standardize.fit(x))``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event of two axes is flattened for the nets and masked as a checkerboard.
        layers: Number of couplings, 8 by default; of an image the number before, and again after, each squeeze, 3 by
            default.
        hidden: Widths of the hidden layers of each conditioner, or their channels.
        context: Number of context features; 0 for an unconditional density.
        activation: Constructor of the activation of the conditioners.
        scales: Number of resolutions of an image; by default as many as its sides can be halved for, at most 3.

    Raises:
        ValueError: If the event has fewer than two coordinates: nothing would be left to condition on; or an image
            cannot be halved ``scales - 1`` times.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> flow = realnvp(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    if len(event) == 3 and math.prod(event) > 1:
        layers = 3 if layers is None else layers
        chain = pixels_then_channels(event, Affine(), layers, hidden, context, activation, scales)
    else:
        chain = Chain(
            *alternating(event, Affine(), 8 if layers is None else layers, hidden, context, activation)
        )
    return Flow(chain, StandardNormal(event))


def spline_flow(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 4,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    bins: int = 8,
    bound: float = 5.0,
) -> Flow:
    r"""A spline flow: couplings by rational-quadratic splines that keep one half and the other in turn.

    It starts as the identity. Outside the box the splines move nothing, and no training fits data there:
    ``flow.after(Standardize.fit(x))`` brings data of other units inside. With autoregressive layers it is
    ``maf(…, transform=RationalQuadratic())``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event with several axes is flattened for the nets and masked as a checkerboard.
        layers: Number of couplings.
        hidden: Widths of the hidden layers of each conditioner.
        context: Number of context features; 0 for an unconditional density.
        activation: Constructor of the activation of the conditioners.
        bins: Number of bins of each spline, at least 2: a single one is the identity.
        bound: Half side of the box in which the splines act, in the unit of x.

    Raises:
        ValueError: If the event has fewer than two coordinates: nothing would be left to condition on; or a spline has
            a single bin.

    References:
        Neural Spline Flows, Durkan et al., 2019, arXiv:1906.04032.

    Example:
        >>> import torch
        >>> from cnflib import Standardize
        >>> x_train = 1000 + 50 * torch.randn(256, 2)  # far outside the box
        >>> flow = spline_flow(dim=2, bins=4).after(Standardize.fit(x_train))
        >>> bool(flow.log_prob(x_train).mean() > -12)
        True
    """
    event = event_shape(dim, shape)
    if bins == 1:
        raise ValueError("Expected bins >= 2; got 1, with which a spline is the identity. Pass e.g. bins=8.")
    splines = alternating(event, RationalQuadratic(bins, bound), layers, hidden, context, activation)
    return Flow(Chain(*splines), StandardNormal(event))


def alternating(
    event: tuple[int, ...],
    transform: Elementwise,
    layers: int,
    hidden: Sequence[int],
    context: int,
    activation: Callable[[], nn.Module],
) -> list[Coupling]:
    """Couplings with fully connected conditioners that keep one half of the event and the other in turn.

    Args:
        event: The event shape. The halves of a vector are its first and last coordinates, those of an event of
            several axes the two colours of a :func:`cnflib.discrete.checkerboard_mask`.
        transform: The family of maps.
        layers: Number of couplings.
        hidden: Widths of the hidden layers of each conditioner.
        context: Number of context features; 0 for none.
        activation: Constructor of the activation of the conditioners.

    Raises:
        ValueError: If the event has fewer than two coordinates: nothing would be left to condition on.

    Example:
        >>> from torch import nn
        >>> from cnflib.discrete import Additive
        >>> [
        ...     layer.mask.tolist()
        ...     for layer in alternating((3,), Additive(), 2, (8,), 0, nn.ReLU)
        ... ]
        [[True, True, False], [False, False, True]]
    """
    first = halves(event[0]) if len(event) == 1 else checkerboard_mask(event)
    masks = [first if k % 2 == 0 else ~first for k in range(check_layers(layers))]
    return [dense_coupling(mask, transform, hidden, context, activation) for mask in masks]


def dense_coupling(
    mask: Tensor,
    transform: Elementwise,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Coupling:
    """A coupling with a :class:`cnflib.nets.Conditioner`, fully connected, as conditioner.

    Args:
        mask: True on what is kept, of the event's shape.
        transform: The family of maps.
        hidden: Widths of the hidden layers of the conditioner.
        context: Number of context features; 0 for none.
        activation: Constructor of the activation of the conditioner.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Affine, halves
        >>> layer = dense_coupling(halves(5), Affine())
        >>> layer(torch.randn(7, 5))[0].shape
        torch.Size([7, 5])
    """
    size, *rest = mask.shape
    kept, moved = (size, size) if rest else (int(mask.sum()), int((~mask).sum()))
    parameters = (moved * transform.parameters, *rest)
    return Coupling(mask, transform, Conditioner((kept, *rest), parameters, hidden, context, activation))
