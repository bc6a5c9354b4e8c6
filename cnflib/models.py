"""Builders: functions that return ready flows on continuous data, with a standard normal base."""

import math
from collections.abc import Callable, Sequence

import torch

from cnflib._check import check_positive_int, event_shape
from cnflib.bijection import Bijection, Chain, Inverse
from cnflib.continuous import CNF, Divergence, Solver, convolutional, exact, hutchinson
from cnflib.discrete import Coupling, Elementwise, Split, Squeeze, affine
from cnflib.flow import Flow, StandardNormal
from cnflib.nets import MLP, Conditioner

__all__ = ["ffjord", "realnvp"]


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


def ffjord(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    hidden: Sequence[int] = (64, 64, 64),
    context: int = 0,
    divergence: Divergence | None = None,
    solver: Solver | None = None,
    scales: int | None = None,
    blocks: int = 2,
) -> Flow:
    r"""FFJORD: a continuous flow of a free-form field, on vectors a single one, on images a multi-scale chain.

    Vectors, and events of two axes, get one :class:`cnflib.continuous.CNF` of an :class:`cnflib.nets.MLP`. Images of
    shape ``(C, H, W)`` get ``blocks`` flows of convolutional concat-squash fields at every scale; between two scales
    the image is squeezed, run through as many flows again, and half of its channels is finished. Continuous data is
    expected: dequantise pixels and take their logits first.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape.
        hidden: Widths of the hidden layers of the field, or their channels.
        context: Number of context features; 0 for an unconditional density.
        divergence: By default ``exact`` for vectors and ``hutchinson()`` for images.
        solver: ``adaptive()`` by default.
        scales: Number of scales of an image; by default as many as its sides can be halved for, at most 3.
        blocks: Flows before and after each squeeze of an image.

    Raises:
        ValueError: If an image cannot be halved ``scales - 1`` times.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models, Grathwohl et al., 2018,
        arXiv:1810.01367.
    """
    event = event_shape(dim, shape)
    if len(event) != 3:
        return Flow(CNF(MLP(event, hidden, context), divergence or exact, solver), StandardNormal(event))
    check_positive_int(blocks, "blocks")
    halvings = min(_halvings(event[1]), _halvings(event[2]))
    scales = min(3, 1 + halvings) if scales is None else scales
    check_positive_int(scales, "scales")
    if scales > 1 + halvings:
        raise ValueError(
            f"Expected sides that can be halved {scales - 1} times; got {event[1:]}. Use at most "
            f"scales={1 + halvings}, or pad the images."
        )

    def flows(event: tuple[int, ...]) -> list[CNF]:
        fields = [convolutional(event, hidden, context=context) for _ in range(blocks)]
        return [CNF(field, divergence or hutchinson(), solver) for field in fields]

    return Flow(_scale(event, scales, flows), StandardNormal(event))


def _scale(
    event: tuple[int, ...], scales: int, flows: Callable[[tuple[int, ...]], Sequence[Bijection]]
) -> Chain:
    """Flows at this resolution and, squeezed, at the next; the scales below take half of the channels."""
    if scales == 1:
        return Chain(*flows(event))
    channels, height, width = 4 * event[0], event[1] // 2, event[2] // 2
    below = _scale((channels // 2, height, width), scales - 1, flows)
    squeezed = flows((channels, height, width))
    return Chain(*flows(event), Squeeze(), *squeezed, Split(below), Inverse(Squeeze()))


def _halvings(side: int) -> int:
    """How often a side can be halved."""
    return (side & -side).bit_length() - 1


def _coupling(mask: torch.Tensor, transform: Elementwise, hidden: Sequence[int], context: int) -> Coupling:
    outputs = (mask.shape[0] * transform.parameters, *mask.shape[1:])
    return Coupling(mask, transform, Conditioner(tuple(mask.shape), outputs, hidden, context))
