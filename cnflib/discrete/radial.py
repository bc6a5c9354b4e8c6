r"""Radial layers: space is pulled towards a centre or pushed away from it, along the rays from there."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cnflib._check_sizes import check_features, event_shape
from cnflib.bijection import Bijection
from cnflib.discrete._conditional import UNIT, conditioned, conditioner

__all__ = ["Radial"]


class Radial(Bijection):
    r"""A radial layer: :math:`z = x + k\,(x - m) / (a + r)` with the distance :math:`r = |x - m|` from a centre m.

    .. math:: \begin{aligned} \log |\det \partial z / \partial x| ={} & (D - 1) \log\Big(1 + \frac{k}{a + r}\Big) \\
            & + \log\Big(1 + \frac{k a}{(a + r)^2}\Big) \end{aligned}

        a = \mathrm{softplus}(\alpha) > 0, \qquad k = -a + q > -a, \qquad q = \mathrm{softplus}(\beta)

    The map is invertible just when :math:`k > -a`. With the factor :math:`p = 1 + k / (a + r) = (r + q) / (r + a)` by
    which the layer stretches at right angles to the ray, that along the ray is :math:`(r + a p) / (r + a)`: of sums of
    positive terms, which do not cancel as :math:`q \to 0`.

    The layer moves points along rays, :math:`z - m = p (x - m)`, so the distance :math:`\rho = |z - m|` is
    :math:`\rho = r (r + q) / (r + a)`, and decoding is in closed form too:

    .. math:: r^2 + (q - \rho)\, r - a \rho = 0, \qquad x = m + (z - m) / p

    At the centre the map is differentiable and its log-determinant has a kink; the gradient given there is zero. A
    fresh layer is near the identity, with a random centre. In variational inference the closed form without a root is
    wanted from latent to data: use ``Inverse(Radial(...))``.

    Args:
        shape: Shape of the event, an int or a tuple, in :math:`D` dimensions in all; r is Euclidean over all axes.
        hidden: Widths of the hidden layers of the net of the context.
        context: Number of context features; 0 for none. With a context, each of m, α and β is a constant plus an
            output of a net of the context, zero at first.

    References:
        Variational Inference with Normalizing Flows, Rezende & Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> layer, x = Radial(2), torch.randn(5, 2)
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
        self.m = nn.Parameter(torch.randn(math.prod(self.event_shape)))
        # The layer is the identity where a = q = 1.
        self.alpha = nn.Parameter(torch.full((1,), UNIT))
        self.beta = nn.Parameter(UNIT + 0.1 * torch.randn(1))
        self.net = conditioner((self.m, self.alpha, self.beta), hidden, context)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        z, r, a, q = self._map(x, context)
        return z, self._logdet(r, a, q)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        x, r, a, q = self._solve(z, context)
        return x, -self._logdet(r, a, q)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._map(x, context)[0]

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._solve(z, context)[0]

    def _map(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        m, a, q = self._at(context)
        ray = x.flatten(1) - m
        r = _norm(ray)
        z = m + ray * _stretch(r, a, q)
        return z.reshape(x.shape), r, a, q

    def _solve(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        m, a, q = self._at(context)
        ray = z.flatten(1) - m
        r = _radius(_norm(ray), a, q)
        x = m + ray / _stretch(r, a, q)
        return x.reshape(z.shape), r, a, q

    def _logdet(self, r: Tensor, a: Tensor, q: Tensor) -> Tensor:
        across = _stretch(r, a, q)
        along = (r + a * across) / (a + r)
        return ((len(self.m) - 1) * across.log() + along.log()).squeeze(1)

    def _at(self, context: Tensor | None) -> tuple[Tensor, ...]:
        r"""The centre m, a and :math:`q = a + k`, one row for all or one for each."""
        m, alpha, beta = conditioned(self, (self.m, self.alpha, self.beta), context)
        tiny = torch.finfo(m.dtype).tiny
        return m, F.softplus(alpha).clamp(min=tiny), F.softplus(beta).clamp(min=tiny)

    def extra_repr(self) -> str:
        return f"shape={self.event_shape}, context={self.context}"


def _stretch(r: Tensor, a: Tensor, q: Tensor) -> Tensor:
    r"""The factor :math:`1 + k / (a + r)`, without cancellation."""
    return (r + q) / (r + a)


def _norm(ray: Tensor) -> Tensor:
    """Euclidean norm of each row, shape (B, 1); its gradients of every order at zero are zero."""
    unit = ray.detach().abs().amax(1, keepdim=True).clamp(min=1)  # in units of it no square overflows
    square = (ray / unit).square().sum(1, keepdim=True)
    zero = square == 0
    return unit * square.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _radius(rho: Tensor, a: Tensor, q: Tensor) -> Tensor:
    r"""The root :math:`r \ge 0` of :math:`r^2 + (q - \rho)\, r - a \rho = 0`, by the form that does not cancel."""
    away = rho > q
    unit = rho.detach().clamp(min=1)
    root = unit * (((rho - q) / unit).square() + 4 * a * (rho / unit) / unit).sqrt()
    total = torch.where(away, rho - q, q - rho) + root
    return torch.where(away, total / 2, 2 * a * rho / total)
