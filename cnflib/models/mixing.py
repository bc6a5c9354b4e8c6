"""Glow: layers that normalise, mix the channels, and couple them."""

import math
from collections.abc import Callable, Sequence

from torch import nn

from cnflib._check_sizes import check_layers, event_shape
from cnflib.bijection import Bijection, Chain, Inverse
from cnflib.discrete import (
    ActNorm,
    Affine,
    Coupling,
    Flatten,
    InvertibleConv1x1,
    Split,
    Squeeze,
    checkerboard_mask,
    halves,
)
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow
from cnflib.models.coupling import dense_coupling
from cnflib.models.images import convolutional_coupling
from cnflib.models.scales import resolutions

__all__ = ["glow"]


def glow(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    scales: int | None = None,
) -> Flow:
    r"""Glow: steps of :class:`ActNorm`, an invertible 1 × 1 convolution and an affine coupling of halves.

    On vectors the convolution is a matrix over the coordinates; an event of two axes is flattened to one. An image
    ``(C, H, W)`` is squeezed, run through the steps, and half of its channels is finished, under a normal density
    whose mean and deviation a net computes from the other half; that half goes on to the next scale. Where the sides
    cannot be halved the steps run on the image as it is; with one channel alone their couplings keep the two colours
    of a checkerboard in turn.

    The first batch in training mode sets every ActNorm, so the scale of the data matters little. Of 8-bit images:
    ``flow.after(Chain(Dequantize(256), Logit()))``; of other data: ``flow.after(Standardize.fit(x))``. A context (for
    classes: ``one_hot(labels, 10).float()``) enters every coupling.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape.
        layers: Number of steps, of an image at each scale.
        hidden: Widths of the hidden layers of each conditioner, or their channels.
        context: Number of context features; 0 for an unconditional density.
        activation: Constructor of the activation of the conditioners.
        scales: Number of resolutions of an image. Its own is one of them, at which no step runs unless it is the only
            one. By default as many as its sides can be halved for, at most 3.

    Raises:
        ValueError: If the event has fewer than two coordinates, or an image cannot be halved ``scales - 1`` times.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma & Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> flow = glow(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)

    def couple(event: tuple[int, ...], k: int = 0) -> Coupling:
        if len(event) == 1:
            return dense_coupling(halves(event[0]), Affine(), hidden, context, activation)
        mask = halves(event[0]) if event[0] > 1 else checkerboard_mask(event) ^ bool(k % 2)
        return convolutional_coupling(mask, event[0], Affine(), hidden, context, activation)

    def steps(event: tuple[int, ...]) -> list[Bijection]:
        size = event[0]
        rows = [
            (ActNorm(size), InvertibleConv1x1(size), couple(event, k)) for k in range(check_layers(layers))
        ]
        return [layer for row in rows for layer in row]

    if len(event) == 3:
        chain = _pyramid(event, resolutions(event, scales) - 1, steps, couple)
    else:
        chain = Chain(Flatten(event), *steps((math.prod(event),)), Inverse(Flatten(event)))
    return Flow(chain, StandardNormal(event))


def _pyramid(
    event: tuple[int, ...],
    squeezes: int,
    steps: Callable[[tuple[int, ...]], list[Bijection]],
    prior: Callable[[tuple[int, ...]], Bijection],
) -> Chain:
    """Squeeze, steps, the prior of one half given the other, which goes on; without a squeeze the steps alone."""
    if squeezes == 0:
        return Chain(*steps(event))
    channels, height, width = event = (4 * event[0], event[1] // 2, event[2] // 2)
    inside = steps(event)
    if squeezes > 1:
        inside += [prior(event), Split(_pyramid((channels // 2, height, width), squeezes - 1, steps, prior))]
    return Chain(Squeeze(), *inside, Inverse(Squeeze()))
