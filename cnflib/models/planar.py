"""Builders of planar and radial flows."""

from collections.abc import Sequence

from cnflib._check_sizes import check_layers, event_shape
from cnflib.bijection import Chain
from cnflib.discrete import Planar, Radial
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow

__all__ = ["planar_flow", "radial_flow"]


def planar_flow(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 16,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
) -> Flow:
    r"""A planar flow: a chain of :class:`cnflib.discrete.Planar` layers, closed-form from data to latent.

    It starts near the identity, with hyperplanes that pass through standardised data; for data in other units:
    ``flow.after(Standardize.fit(x))``. Samples take a root finding a layer; for variational inference turn it round,
    ``Flow(Inverse(flow.bijection), flow.base)``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event with several axes is flattened.
        layers: Number of layers, each of which bends space along one direction.
        hidden: Widths of the hidden layers of the net of the context; without a context there is none.
        context: Number of context features; 0 for an unconditional density.

    References:
        Variational Inference with Normalizing Flows, Rezende & Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> flow = planar_flow(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    return Flow(
        Chain(*[Planar(event, hidden, context) for _ in range(check_layers(layers))]), StandardNormal(event)
    )


def radial_flow(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 16,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
) -> Flow:
    r"""A radial flow: a chain of :class:`cnflib.discrete.Radial` layers, closed-form in both directions.

    It starts near the identity, with centres drawn from the standard normal; for data in other units:
    ``flow.after(Standardize.fit(x))``. For variational inference turn it round,
    ``Flow(Inverse(flow.bijection), flow.base)``.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; distances are Euclidean over all axes.
        layers: Number of layers, each of which bends space around one centre.
        hidden: Widths of the hidden layers of the net of the context; without a context there is none.
        context: Number of context features; 0 for an unconditional density.

    References:
        Variational Inference with Normalizing Flows, Rezende & Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> flow = radial_flow(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    return Flow(
        Chain(*[Radial(event, hidden, context) for _ in range(check_layers(layers))]), StandardNormal(event)
    )
