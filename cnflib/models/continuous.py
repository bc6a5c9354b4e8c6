"""The builder of continuous flows."""

import math
from collections.abc import Sequence

from cnflib._check_sizes import check_layers, event_shape
from cnflib.continuous import CNF, Divergence, Exact, Hutchinson, TrainEval, convolutional
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow
from cnflib.models.scales import multiscale
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Solver

__all__ = ["ffjord"]

FEW = 8  # coordinates, up to which a training step with the exact divergence takes at most about twice that of a probe
_ADAPTIVE = Adaptive()


def ffjord(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    hidden: Sequence[int] = (64, 64, 64),
    context: int = 0,
    divergence: Divergence | None = None,
    solver: Solver = _ADAPTIVE,
    scales: int | None = None,
    blocks: int = 2,
) -> Flow:
    r"""FFJORD: a continuous flow of a free-form field, on vectors a single one, on images a multi-scale chain.

    Vectors, and events of two axes, get one :class:`cnflib.continuous.CNF` of an :class:`cnflib.nets.MLP`. Images of
    shape ``(C, H, W)`` get ``blocks`` flows of convolutional concat-squash fields at every scale; between two scales
    the image is squeezed, run through as many flows again, and half of its channels is finished. Continuous data is
    expected: of 8-bit images ``flow.after(Chain(Dequantize(256), Logit()))``.

    The field starts at the scale of standardised data; for data in other units: ``flow.after(Standardize.fit(x))``.

    The log-density of up to 8 coordinates is exact. With more it is an unbiased estimate while the flow is trained, at
    a cost that does not grow with the dimension, and exact in evaluation mode: call ``flow.eval()`` to judge. Of
    images it is an estimate in both modes, as the exact one would take a Jacobian of as many columns as pixels.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape.
        hidden: Widths of the hidden layers of the field, or their channels.
        context: Number of context features; 0 for an unconditional density.
        divergence: By default ``Exact()`` for vectors, and events of two axes, of up to 8 coordinates, ``TrainEval()``
            for longer ones, and ``Hutchinson()`` for images.
        solver: How the ODE is solved.
        scales: Number of scales of an image; by default as many as its sides can be halved for, at most 3.
        blocks: Flows before and after each squeeze of an image.

    Raises:
        ValueError: If an image cannot be halved ``scales - 1`` times.

    References:
        FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative Models, Grathwohl et al., 2018,
        arXiv:1810.01367.

    Example:
        >>> import torch
        >>> flow = ffjord(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    if divergence is None:
        divergence = _divergence(event)
    if len(event) != 3:
        return Flow(CNF(MLP(event, hidden, context), divergence, solver), StandardNormal(event))

    def flows(event: tuple[int, ...]) -> list[CNF]:
        fields = [
            convolutional(event, hidden, context=context) for _ in range(check_layers(blocks, "blocks"))
        ]
        return [CNF(field, divergence, solver) for field in fields]

    return Flow(multiscale(event, flows, scales), StandardNormal(event))


def _divergence(event: tuple[int, ...]) -> Divergence:
    """Exact where that is cheap, and else a probe: of vectors in training alone, of images always."""
    if len(event) == 3:
        return Hutchinson()
    return Exact() if math.prod(event) <= FEW else TrainEval()
