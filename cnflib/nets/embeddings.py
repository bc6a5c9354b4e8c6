"""Features of time and of space, from which a small net learns a field that varies fast."""

import math

import torch
from torch import Tensor, nn

from cnflib._check import check_declared, check_positive_int
from cnflib._constants import constants

__all__ = ["FourierFeatures", "TimeEmbedding", "conditions"]


class TimeEmbedding(nn.Module):
    r"""Features of time :math:`(t, \sin \pi k t, \cos \pi k t)_{k \le M}`.

    Args:
        frequencies: The number :math:`M` of frequencies; 0 gives :math:`t` alone.
    """

    def __init__(self, frequencies: int = 0) -> None:
        super().__init__()
        frequencies = check_positive_int(frequencies, "time frequencies", least=0)
        self.features = 1 + 2 * frequencies
        with constants():
            self.register_buffer("rates", math.pi * torch.arange(1.0, frequencies + 1), persistent=False)

    def forward(self, t: Tensor, batch: int) -> Tensor:
        """Embed t of shape ``()`` or ``(B,)`` as ``(B, 1 + 2M)``."""
        t = t.reshape(-1, 1)
        if self.features > 1:
            phase = self.rates * t
            t = torch.cat([t, phase.sin(), phase.cos()], 1)
        return t.expand(batch, -1)


def conditions(net: nn.Module, t: Tensor, rows: Tensor, context: Tensor | None) -> Tensor:
    """What a field sees besides x: features of time and the context, in one row where they are the same for all.

    Args:
        net: The field, with a :class:`TimeEmbedding` as ``time`` and its number of context features as ``context``.
        t: Shape ``()`` or ``(B,)``, or a number.
        rows: A tensor with the B rows and the dtype of x.
        context: Shape ``(B, features)``.

    Returns:
        Shape ``(B, 1 + 2M + features)``, or ``(1, 1 + 2M)`` for one time and no context.

    Raises:
        ValueError: If the context is not what the field was built for.
    """
    check_declared(context, net.context, type(net).__name__, rows, rows=True)
    t = t if isinstance(t, Tensor) else rows.new_tensor(t)
    if context is None:
        return net.time(t, rows.shape[0] if t.ndim else 1)
    return torch.cat([net.time(t, rows.shape[0]), context.flatten(1)], 1)


class FourierFeatures(nn.Module):
    r"""Random features :math:`(x, \sin 2\pi F x, \cos 2\pi F x)` that let a small net follow sharp edges.

    The rows of :math:`F` are drawn once, when the module is made, from :math:`N(0, s^2)`, and are saved with it.

    Args:
        dim: Dimension of x.
        frequencies: The number of rows of :math:`F`; 0 gives x alone.
        scale: The standard deviation :math:`s`, in periods per unit of x.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains, Tancik et al.,
        2020, arXiv:2006.10739.
    """

    def __init__(self, dim: int, frequencies: int = 0, scale: float = 0.5) -> None:
        super().__init__()
        frequencies = check_positive_int(frequencies, "fourier frequencies", least=0)
        self.features = dim + 2 * frequencies
        self.register_buffer("rates", 2 * math.pi * scale * torch.randn(frequencies, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Features of x of shape ``(B, dim)``, shape ``(B, dim + 2 frequencies)``."""
        if self.features == x.shape[1]:
            return x
        phase = x @ self.rates.T
        return torch.cat([x, phase.sin(), phase.cos()], 1)

    def jvp(self, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Features and their tangents along directions of shape ``(K, B, dim)`` or ``(K, 1, dim)``."""
        if self.features == x.shape[1]:
            return x, directions
        phase, rate = x @ self.rates.T, directions @ self.rates.T
        sin, cos = phase.sin(), phase.cos()
        rows = directions.expand(-1, x.shape[0], -1)
        return torch.cat([x, sin, cos], 1), torch.cat([rows, cos * rate, -sin * rate], 2)
