"""The builder of continuous flows."""

from collections.abc import Sequence

from cnflib._check import check_positive_int, event_shape
from cnflib.continuous import CNF, Divergence, Solver, convolutional, exact, hutchinson
from cnflib.flow import Flow, StandardNormal
from cnflib.models.scales import multiscale
from cnflib.nets import MLP

__all__ = ["ffjord"]


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

    Example:
        >>> import torch
        >>> flow = ffjord(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    if len(event) != 3:
        return Flow(CNF(MLP(event, hidden, context), divergence or exact, solver), StandardNormal(event))
    check_positive_int(blocks, "blocks")

    def flows(event: tuple[int, ...]) -> list[CNF]:
        fields = [convolutional(event, hidden, context=context) for _ in range(blocks)]
        return [CNF(field, divergence or hutchinson(), solver) for field in fields]

    return Flow(multiscale(event, flows, scales), StandardNormal(event))
