r"""From pixels to the real line: integers become cells by uniform noise, cells become all reals by the logit.

A density :math:`\hat p` of :math:`y + u`, with u uniform on the unit cube, bounds the code length of integers y:

.. math:: \log P(y) = \log \mathbb E_u \, \hat p(y + u) \ge \mathbb E_u \log \hat p(y + u).

Both maps stand before a builder's flow, never inside it::

    flow = glow((1, 28, 28)).after(Chain(Dequantize(256), Logit()))
    # log-probabilities are those of y + u
    bits_per_dim(mean_log_prob(flow, y, draws=4), dims=784, levels=1)
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cnflib._check import check_positive_int, eager
from cnflib._random import source
from cnflib.bijection import Bijection
from cnflib.flow import Flow

__all__ = ["Dequantize", "Logit", "mean_log_prob"]


class Dequantize(Bijection):
    r"""Integers of L levels to points of the unit cube, each anywhere in its cell.

    .. math:: x = \frac{y + u}{L}, \quad u \sim U[0, 1)^D, \qquad \log |\det \partial x / \partial y| = -D \log L

    It undoes itself in one direction only: decoding, :math:`y = \lfloor L x \rfloor`, takes every point of a cell
    back to its integer, and a point outside the cube to the nearest one, 0 or L - 1. Points are kept away from the
    edges of their cell by a few roundings, so the round trip is exact. A context is ignored.

    Args:
        levels: The number L of levels; integers run from 0 to L - 1.

    Raises:
        ValueError: In encoding, if the dtype is too coarse for so many levels, and outside of ``torch.compile`` and
            ``torch.func`` if a value is not one of them.

    References:
        RNADE: The real-valued neural autoregressive density-estimator, Uria et al., 2013, arXiv:1306.0186.

    Example:
        >>> import torch
        >>> y = torch.randint(256, (5, 1, 8, 8)).float()
        >>> x, logdet = Dequantize()(y)
        >>> torch.equal(Dequantize().decode(x), y), round(logdet[0].item(), 2)
        (True, -354.89)
    """

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = check_positive_int(levels, "levels")

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        if eager(x) and (wrong := (x != x.floor()) | (x < 0) | (x > self.levels - 1)).any():
            raise ValueError(
                f"Expected integers from 0 to {self.levels - 1}; got {x[wrong][0].item():g} at {int(wrong.sum())} of "
                f"{x.numel()} values. Pass levels=… as many as your data has, and pixels before they are scaled."
            )
        # A point on the edge of its cell would be decoded as a neighbour after the roundings of (x + u) / L and L z.
        edge = 2 * self.levels * torch.finfo(x.dtype).eps if x.is_floating_point() else 1.0
        if edge > 0.1:
            raise ValueError(
                f"Expected x of a dtype in which a cell of {self.levels} levels holds points; got {x.dtype}. "
                "Dequantize in float32 or float64, x.float() of integers, and round what comes out."
            )
        u = torch.rand(x.shape, **source(generator), dtype=x.dtype, device=x.device)
        return (x + u.clamp(edge, 1 - edge)) / self.levels, -self._logdet(x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return (self.levels * z).floor().clamp(0, self.levels - 1), self._logdet(z)

    def _logdet(self, x: Tensor) -> Tensor:
        return x.new_full((x.shape[0],), x.shape[1:].numel() * math.log(self.levels))

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


class Logit(Bijection):
    r"""The unit cube to the reals, its ends held off by a margin :math:`\alpha`.

    .. math:: z = \operatorname{logit} s, \quad s = \alpha + (1 - 2\alpha) x, \qquad
        \log |\det \partial z / \partial x| = \sum_i \log (1 - 2\alpha) - \log s_i - \log (1 - s_i)

    In decoding, :math:`-\log s = \log(1 + e^{-z})` and :math:`-\log(1 - s) = \log(1 + e^z)`.

    The margin is the same at both ends (Dinh et al. have it at 0 only). The map is onto from a cube that is a little
    wider, :math:`0 < s_i < 1`, and a density has its mass there: some z are decoded as points outside the unit cube, by
    less than :math:`\alpha / (1 - 2\alpha)`. A point outside of the wider cube has density 0: its log-determinant is
    -inf, and for a latent, of which it has none, it gets that of a point at the border. A context is ignored.

    Args:
        alpha: The margin, :math:`0 < \alpha < 1/2`.

    Raises:
        ValueError: If alpha is outside its range.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.5, 1.0]])
        >>> z, _ = Logit()(x)
        >>> z.round(decimals=2)
        tensor([[-2.9400,  0.0000,  2.9400]])
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"Expected 0 < alpha < 0.5; got {alpha}. The usual margins are 0.05 and 1e-6.")
        self.alpha = alpha

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        s, rest = self._margin(x), self._margin(1 - x)  # 1 - s would lose digits near 1
        outside, least = (s <= 0) | (rest <= 0), _least(x)
        log_s, log_rest = (part.masked_fill(part <= 0, least).log() for part in (s, rest))
        log_slope = (math.log1p(-2 * self.alpha) - log_s - log_rest).masked_fill(outside, -torch.inf)
        return log_s - log_rest, log_slope.flatten(1).sum(1)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        # With torch's own threshold, 20, the softplus is wrong by 2e-9.
        up, down = (F.softplus(s, threshold=40.0) for s in (z, -z))
        logdet = (math.log1p(-2 * self.alpha) + up + down).flatten(1).sum(1)
        s = torch.sigmoid(z).clamp(_least(z), 1 - _least(z))
        return (s - self.alpha) / (1 - 2 * self.alpha), -logdet

    def _margin(self, x: Tensor) -> Tensor:
        return self.alpha + (1 - 2 * self.alpha) * x

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


def _least(x: Tensor) -> float:
    """How near to 0 and 1 decoding may come so that, after the roundings of x, encoding finds s inside of them."""
    return 8 * torch.finfo(x.dtype).eps


def mean_log_prob(
    flow: Flow, y: Tensor, draws: int = 1, context: Tensor | None = None, generator: Generator | None = None
) -> Tensor:
    r"""Log-density of integers under a flow that begins with :class:`Dequantize`, averaged over K draws of its noise.

    .. math:: \frac1K \sum_{k=1}^K \log \hat p(y + u_k), \qquad u_k \sim U[0, 1)^D

    Its expectation is the bound :math:`\mathbb E_u \log \hat p(y + u) \le \log P(y)` for every K: more draws lower the
    scatter and do not raise the number. (The log of the mean density would be a tighter bound, but one that rises with
    K, so numbers of different K could not be compared.) State K with every number all the same.

    Args:
        flow: A flow that adds noise to what it encodes, by :class:`Dequantize` or a bijection of one's own.
        y: Integers as floats, shape ``(B, *event)``.
        draws: The number K.
        context: What the density is conditioned on, a tensor of B rows.
        generator: Source of the noise.

    Returns:
        Nats, shape ``(B,)``, for :func:`cnflib.metrics.bits_per_dim` with ``levels=1``.

    Raises:
        ValueError: If ``draws`` is not a positive int, or the flow encodes a row twice as the same point: a density
            without noise can be as high as one likes on integers, and bounds no code length.

    Example:
        >>> import torch
        >>> from cnflib import Chain, Flow, StandardNormal
        >>> from cnflib.discrete import Dequantize, Logit
        >>> from cnflib.metrics import bits_per_dim
        >>> flow = Flow(Chain(Dequantize(4), Logit()), StandardNormal((1, 8, 8)))
        >>> y = torch.randint(4, (5, 1, 8, 8)).float()
        >>> bits = bits_per_dim(mean_log_prob(flow, y, draws=8), dims=64, levels=1)
        >>> bits.value > 2  # four levels that are all alike take 2 bits under the best density
        True
    """
    check_positive_int(draws, "draws")
    total = flow.log_prob(y, context, generator)
    if eager(y) and not _adds_noise(flow, y[:1], None if context is None else context[:1]):
        raise ValueError(
            "Expected flow to add noise to the pixels that it encodes; got one that encodes a row twice as the same "
            "point. Put the noise before it, and leave the pixels integers: flow.after(Chain(Dequantize(levels), "
            "Logit()))."
        )
    for _ in range(draws - 1):
        total = total + flow.log_prob(y, context, generator)
    return total / draws


@torch.no_grad()
def _adds_noise(flow: Flow, y: Tensor, context: Tensor | None) -> bool:
    """Whether a flow encodes a row as two points when it is asked twice."""
    if any(isinstance(part, Dequantize) for part in flow.modules()):
        return True
    own = torch.Generator(y.device)  # the caller's stream stays where it is
    one, other = (flow.encode(y, context, own) for _ in range(2))
    return not torch.equal(one, other)
