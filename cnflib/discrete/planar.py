r"""Planar layers: space is stretched or pressed across one hyperplane, and everything far from it is shifted.

The determinant lemma gives :math:`\det(I + \hat u\, h' w^\top) = 1 + h' \, w \cdot \hat u`, one number a layer. The
point before is a root of one monotone function of one variable, whatever the dimension.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cnflib._check_sizes import check_features, event_shape
from cnflib.bijection import Bijection
from cnflib.discrete._conditional import UNIT, conditioned, conditioner

__all__ = ["Planar"]


class Planar(Bijection):
    r"""A planar layer: :math:`z = x + \hat u \tanh(t)` with :math:`t = w \cdot x + d`.

    .. math:: \begin{aligned} \log |\det \partial z / \partial x| &= \log(1 + (q - 1)\, \mathrm{sech}^2 t) \\
            &= \log(\tanh^2 t + q \, \mathrm{sech}^2 t) \end{aligned}

        \hat u = u + (q - 1 - w \cdot u) \frac{w}{|w|^2}, \qquad q = \mathrm{softplus}(w \cdot u) > 0

    The choice of :math:`\hat u` makes :math:`w \cdot \hat u = q - 1 > -1`, which is when the map is invertible; the
    second form of the determinant is a sum of positive terms and does not cancel as :math:`q \to 0`.

    Decoding finds the root t of :math:`t + (q - 1) \tanh t = w \cdot z + d` by Newton's method from a side on which
    it converges monotonically, to the rounding of the right-hand side times the condition number
    :math:`1 / (\tanh^2 t + q \, \mathrm{sech}^2 t)`. The last two steps are differentiated, which makes first, second
    and third derivatives exact. Then :math:`x = z - \hat u \tanh t`.

    A fresh layer is near the identity, with a random hyperplane :math:`w \cdot x + d = 0`. As :math:`w \to 0` the
    correction in :math:`\hat u` grows like :math:`0.31 / |w|`; at :math:`w = 0` itself, which training does not reach
    by chance, it is left out and the layer shifts by :math:`u \tanh d`. In variational inference the closed form is
    wanted from latent to data: use ``Inverse(Planar(...))``.

    Args:
        shape: Shape of the event, an int or a tuple; events of several axes are flattened for :math:`w \cdot x`.
        hidden: Widths of the hidden layers of the net of the context.
        context: Number of context features; 0 for none. With a context, each of w, u and d is a constant plus an
            output of a net of the context, zero at first.

    References:
        Variational Inference with Normalizing Flows, Rezende & Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> layer, x = Planar(2), torch.randn(5, 2)
        >>> z, logdet = layer(x)
        >>> z.shape, logdet.shape, torch.allclose(layer.decode(z), x, atol=1e-5)
        (torch.Size([5, 2]), torch.Size([5]), True)
    """

    def __init__(
        self, shape: int | tuple[int, ...], hidden: Sequence[int] = (64, 64), context: int = 0
    ) -> None:
        super().__init__()
        self.event_shape = event_shape(None, shape)
        self.context = context = check_features(context)
        w = 2 * F.normalize(torch.randn(math.prod(self.event_shape)), dim=0)
        self.w = nn.Parameter(w)
        # The layer is the identity where u is parallel to w and softplus(w · u) = 1; here |w|² = 4.
        self.u = nn.Parameter(UNIT * w / 4 + 0.1 * torch.randn_like(w))
        self.d = nn.Parameter(2 * torch.randn(1))
        self.net = conditioner((self.w, self.u, self.d), hidden, context)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        z, t, q = self._map(x, context)
        return z, _tanh_slope(t, q).log().squeeze(1)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        x, t, q = self._solve(z, context)
        return x, -_tanh_slope(t, q).log().squeeze(1)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._map(x, context)[0]

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._solve(z, context)[0]

    def _map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        w, u, d, q = self._at(context)
        t = (w * x.flatten(1)).sum(1, keepdim=True) + d
        return x + (u * torch.tanh(t)).reshape(x.shape), t, q

    def _solve(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        w, u, d, q = self._at(context)
        t = _tanh_root((w * z.flatten(1)).sum(1, keepdim=True) + d, q)
        return z - (u * torch.tanh(t)).reshape(z.shape), t, q

    def _at(self, context: Tensor | None) -> tuple[Tensor, ...]:
        r""":math:`w, \hat u, d` and :math:`q = 1 + w \cdot \hat u`, one row for all or one for each."""
        w, u, d = conditioned(self, (self.w, self.u, self.d), context)
        square, wu = w.square().sum(1, keepdim=True), (w * u).sum(1, keepdim=True)
        vanishes = square < torch.finfo(w.dtype).tiny
        q = F.softplus(wu, threshold=40.0).clamp(min=torch.finfo(w.dtype).tiny).masked_fill(vanishes, 1.0)
        return w, u + (q - 1 - wu) / square.masked_fill(vanishes, 1.0) * w, d, q

    def extra_repr(self) -> str:
        return f"shape={self.event_shape}, context={self.context}"


def _tanh_slope(t: Tensor, q: Tensor) -> Tensor:
    r"""The derivative :math:`\tanh^2 t + q\, \mathrm{sech}^2 t` of :math:`t + (q - 1) \tanh t`."""
    return torch.tanh(t).square() + q * (4 * torch.sigmoid(2 * t) * torch.sigmoid(-2 * t))


def _newton(t: Tensor, y: Tensor, q: Tensor) -> Tensor:
    h = torch.tanh(t)
    return t - (t - h + q * h - y) / _tanh_slope(t, q)


def _tanh_root(y: Tensor, q: Tensor) -> Tensor:
    r"""The root t of :math:`t + (q - 1) \tanh t = y`, differentiable in y and q.

    The function of t is odd, so the root is sought for :math:`|y|` and gets the sign of y.
    """
    size, k = y.detach().abs(), q.detach()
    t = _start(size, k)
    for _ in range(5):  # 5 are enough for q from 1e-30 to 1e8 and every y, in float64
        t = _newton(t, size, k)
    t = torch.copysign(t, y.detach())
    for _ in range(2):  # each doubles the order up to which derivatives are exact: 0, 1, 3
        t = _newton(t, y, q)
    return t


def _start(y: Tensor, q: Tensor) -> Tensor:
    r"""A bound on the root for :math:`y \ge 0`, from which Newton's method is monotone and needs few steps.

    For :math:`q < 1` the function is convex on :math:`t \ge 0` and the bounds are from above, by
    :math:`\tanh t \le 1`, :math:`\tanh t \le t` and :math:`t - \tanh t \ge t^3 / (3 + 1.2\, t^2)`. For :math:`q > 1` it
    is concave and they are from below: the first two again, and one for the bend at :math:`y \approx s = q - 1`, where
    :math:`s (1 - \tanh t) \le 2 s e^{-2t}` bounds t from above and so :math:`\tanh t = (y - t) / s` from below.
    """
    s = q - 1
    most = y - s
    cubic = ((3 + 1.2 * most.square()) * y / -s) ** (1 / 3)
    above = torch.minimum(torch.minimum(most, y / q), cubic)
    bend = torch.logaddexp(2 * most, (4 * s).log()) / 2
    tanh = ((y - bend) / s).clamp(0, 1 - torch.finfo(y.dtype).eps)
    below = torch.maximum(torch.maximum(most, y / q), torch.atanh(tanh))
    return torch.where(q < 1, above, torch.where(q > 1, below, y))
