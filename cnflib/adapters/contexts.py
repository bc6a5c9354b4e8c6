r"""Parts of a flow that are not conditioned on what the other parts are."""

from torch import nn

from cnflib._check import check_bijection
from cnflib._context import BijectionInUnits, DensityInUnits
from cnflib.bijection import Bijection
from cnflib.density import Density, as_density

__all__ = ["ignore_context"]


def __dir__() -> list[str]:
    return sorted(__all__)


def ignore_context(part: Bijection | Density) -> nn.Module:
    r"""The same bijection g, or the same density p, to which no context is handed on.

    .. math:: \log p(x \mid c) = \log p_Z(g(x) \mid c) + \log |\det \partial g / \partial x|, \qquad p(z \mid c) = p(z)

    A flow hands its context to bijection and base alike, and a part that was built without one refuses it. The part is
    shared, not copied; its parameters and its event shape are those of the view.

    Args:
        part: A bijection, or whatever :func:`cnflib.as_density` takes.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> import torch
        >>> from cnflib import Flow
        >>> from cnflib.models import gaussian, realnvp
        >>> bijection = gaussian(dim=2).bijection  # knows of no context
        >>> flow = Flow(ignore_context(bijection), realnvp(dim=2, context=1))
        >>> flow.log_prob(torch.zeros(3, 2), torch.ones(3, 1)).shape
        torch.Size([3])
    """
    if hasattr(part, "log_prob"):
        return DensityInUnits(as_density(part), None)
    check_bijection(part, "part")
    return BijectionInUnits(part, None)
