r"""Radial layers: space is pulled towards a centre or pushed away from it, along the rays from there."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cnflib._check import event_shape
from cnflib.bijection import Bijection
from cnflib.discrete._conditional import check_call, conditioned, conditioner

__all__ = ["Radial"]


class Radial(Bijection):
    r"""A radial layer: :math:`z = x + \hat\beta h\,(x - x_0)` with :math:`h = 1 / (\alpha + r)`, :math:`r = |x - x_0|`.

    .. math:: \log |\det \partial z / \partial x|
            = (D - 1) \log(1 + \hat\beta h) + \log(1 + \hat\beta h + \hat\beta h' r)

        \alpha = \mathrm{softplus}(a) > 0, \qquad \hat\beta = -\alpha + q > -\alpha, \qquad q = \mathrm{softplus}(\beta)

    The map is invertible just when :math:`\hat\beta > -\alpha`. With the factor :math:`k = 1 + \hat\beta h = h (r + q)`
    by which the layer stretches at right angles to the ray, that along the ray is :math:`h (r + \alpha h (r + q))`:
    sums of positive terms, which do not cancel as :math:`q \to 0`.

    The layer moves points along rays, :math:`z - x_0 = k (x - x_0)`, so the distance :math:`\rho = |z - x_0|` is
    :math:`\rho = r (r + q) / (r + \alpha)` and the inverse is exact:

    .. math:: r^2 + (q - \rho)\, r - \alpha \rho = 0, \qquad x = x_0 + (z - x_0) / k

    At the centre the map is differentiable and its log-determinant has a kink; the gradient given there is zero. A
    fresh layer is near the identity, with a random centre. In variational inference the closed form without a root is
    wanted from latent to data: use ``Inverse(Radial(...))``.

    Args:
        shape: Shape of the event, an int or a tuple, in :math:`D` dimensions in all; r is Euclidean over all axes.
        hidden: Widths of the hidden layers of the net of the context.
        context: Number of context features; 0 for none. With a context, each of :math:`x_0`, a and β is a constant
            plus an output of a net of the context, zero at first.

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
        self.shape = event_shape(None, shape)
        self.context = context
        self.x0 = nn.Parameter(torch.randn(math.prod(self.shape)))
        self.a = nn.Parameter(torch.full((1,), _UNIT))
        self.beta = nn.Parameter(_UNIT + 0.1 * torch.randn(1))
        self.net = conditioner((self.x0, self.a, self.beta), hidden, context)

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        x0, alpha, q = self._at(x, context, "x")
        ray = x.flatten(1) - x0
        r = _norm(ray)
        z = x0 + ray * _stretch(r, alpha, q)
        return z.reshape(x.shape), self._logdet(r, alpha, q)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        x, r, alpha, q = self._solve(z, context)
        return x, -self._logdet(r, alpha, q)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self._solve(z, context)[0]

    def _solve(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        x0, alpha, q = self._at(z, context, "z")
        ray = z.flatten(1) - x0
        r = _radius(_norm(ray), alpha, q)
        x = x0 + ray / _stretch(r, alpha, q)
        return x.reshape(z.shape), r, alpha, q

    def _logdet(self, r: Tensor, alpha: Tensor, q: Tensor) -> Tensor:
        across = _stretch(r, alpha, q)
        along = (r + alpha * across) / (alpha + r)
        return ((len(self.x0) - 1) * across.log() + along.log()).squeeze(1)

    def _at(self, x: Tensor, context: Tensor | None, name: str) -> tuple[Tensor, ...]:
        r""":math:`x_0`, :math:`\alpha` and :math:`q = \alpha + \hat\beta`, one row for all or one for each."""
        check_call(self, x, context, name)
        x0, a, beta = conditioned((self.x0, self.a, self.beta), self.net, context)
        tiny = torch.finfo(a.dtype).tiny
        return x0, F.softplus(a).clamp(min=tiny), F.softplus(beta).clamp(min=tiny)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, context={self.context}"


_UNIT = math.log(math.e - 1)
"""The number of which softplus is 1: with it for both, the layer is the identity."""


def _stretch(r: Tensor, alpha: Tensor, q: Tensor) -> Tensor:
    r"""The factor :math:`1 + \hat\beta h`, without cancellation."""
    return (r + q) / (r + alpha)


def _norm(ray: Tensor) -> Tensor:
    """Euclidean norm of each row, shape (B, 1); its gradients of every order at zero are zero."""
    square = ray.square().sum(1, keepdim=True)
    zero = square == 0
    return square.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _radius(rho: Tensor, alpha: Tensor, q: Tensor) -> Tensor:
    r"""The root :math:`r \ge 0` of :math:`r^2 + (q - \rho)\, r - \alpha\rho = 0`, by the form that does not cancel."""
    away = rho > q
    total = torch.where(away, rho - q, q - rho) + ((rho - q).square() + 4 * alpha * rho).sqrt()
    return torch.where(away, total / 2, 2 * alpha * rho / total)
