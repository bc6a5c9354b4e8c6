"""The builder of residual flows."""

import math
from collections.abc import Sequence

from cnflib._check_sizes import check_layers, event_shape
from cnflib.bijection import Chain
from cnflib.discrete import Contraction, ExactLogDet, Residual, RussianRoulette, Scale, sine
from cnflib.discrete.lipschitz import Activation
from cnflib.discrete.logdets import LogDet
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow

__all__ = ["residual_flow"]


def residual_flow(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    layers: int = 16,
    hidden: Sequence[int] = (128,),
    context: int = 0,
    activation: Activation = sine,
    coefficient: float = 0.9,
    logdet: LogDet | None = None,
) -> Flow:
    r"""Residual flow: a chain of maps :math:`(x + r_k(x, c))\, e^{\lambda_k}`, each :math:`r_k` a contraction.

    Images of shape ``(C, H, W)`` get convolutional nets, other events nets on the flattened event. One residual layer
    changes lengths by factors in :math:`[1 - L, 1 + L]` alone; the :class:`cnflib.discrete.Scale` after it
    gives any factor, coordinate by coordinate. Standardise the data even so: ``flow.after(Standardize.fit(x))``. Adam
    at a learning rate of 1e-2 that decays to 0, with the gradient's norm clipped, served best on the plane.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape.
        layers: Number of residual layers, each with a scale after it.
        hidden: Widths of the hidden layers of each net, or their channels.
        context: Number of context features; 0 for an unconditional density.
        activation: ``sine`` or ``lipswish``; in a minute on the plane ``sine`` comes farther.
        coefficient: The bound L on the Lipschitz constant of each net, in (0, 1). Closer to 1 a layer does
            more, and its decoding and its series take longer.
        logdet: By default ``ExactLogDet()`` up to 16 dimensions, else ``RussianRoulette(ratio=coefficient)``, whose
            variance is finite at all weights, for :math:`L^2 < L`.

    Raises:
        ValueError: If the coefficient is not in (0, 1).

    References:
        Residual Flows for Invertible Generative Modeling, Chen et al., 2019, arXiv:1906.02735.

    Example:
        >>> import torch
        >>> flow = residual_flow(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    kernel = 3 if len(event) == 3 else None
    nets = [
        Contraction(event, hidden, context, coefficient, kernel, activation)
        for _ in range(check_layers(layers))
    ]
    if logdet is None:
        logdet = ExactLogDet() if math.prod(event) <= 16 else RussianRoulette(ratio=coefficient)
    pairs = ((Residual(net, logdet), Scale(event)) for net in nets)
    return Flow(Chain(*(layer for pair in pairs for layer in pair)), StandardNormal(event))
