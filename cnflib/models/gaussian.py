"""The builder of normal densities, against which every flow is to be measured."""

from collections.abc import Sequence

from cnflib._check_sizes import event_shape
from cnflib.discrete import LowerTriangular
from cnflib.distributions import StandardNormal
from cnflib.flow import Flow

__all__ = ["gaussian"]


def gaussian(
    dim: int | None = None,
    shape: int | tuple[int, ...] | None = None,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
) -> Flow:
    r"""A normal density of any mean and covariance, :math:`N(m, S S^\top)`, as the flow of one affine map.

    The baseline: what a flow gains over it is what the data has beyond mean and covariance. Trained by maximum
    likelihood it finds those of the data; it starts as the standard normal.

    Args:
        dim: Dimension of vector data; give either this or ``shape``.
        shape: Event shape; an event with several axes is taken in the order of memory.
        hidden: Widths of the hidden layers of the net of the context; without a context there is none.
        context: Number of context features; 0 for an unconditional density. With a context a net gives m and S: a
            regression that knows how the errors scatter.

    Example:
        >>> import torch
        >>> flow = gaussian(dim=2)
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """
    event = event_shape(dim, shape)
    return Flow(LowerTriangular(event, hidden, context), StandardNormal(event))
