r"""An affine map of the whole event, by which a normal density of any covariance is a flow."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from cnflib._check_sizes import check_features, event_shape
from cnflib.bijection import Bijection
from cnflib.discrete._conditional import conditioned, conditioner

__all__ = ["LowerTriangular"]


class LowerTriangular(Bijection):
    r"""The whitening of a normal density: :math:`z = S^{-1}(x - m)`, where S is lower triangular.

    .. math:: \log |\det \partial z / \partial x| = -\sum_i \lambda_i, \qquad S_{ii} = e^{\lambda_i}

    With the base :math:`N(0, I)` the density is :math:`N(m, S S^\top)`, and every covariance has such a factor S, its
    Cholesky factor: maximum likelihood finds mean and covariance of the data. Decoding is :math:`x = m + S z`. It
    starts as the identity.

    Attributes:
        mean: :math:`m`, shape ``(D,)``; an event with several axes is taken in the order of memory.
        lower: S below the diagonal and :math:`\lambda` on it, shape ``(D, D)``; the entries above it are not used.

    Args:
        shape: The event shape, an int or a tuple, in :math:`D` dimensions in all.
        hidden: Widths of the hidden layers of the net of the context.
        context: Number of context features; 0 for none. With a context, a net of it, zero at first, adds to ``mean``
            and ``lower`` row by row.

    Example:
        >>> import torch
        >>> layer, x = LowerTriangular(2), torch.randn(5, 2)
        >>> z, logdet = layer(x)
        >>> torch.equal(z, x), logdet.shape
        (True, torch.Size([5]))
        >>> S = layer.factor()
        >>> (S @ S.mT).tolist()  # the covariance
        [[[1.0, 0.0], [0.0, 1.0]]]
    """

    def __init__(
        self, shape: int | tuple[int, ...], hidden: Sequence[int] = (64, 64), context: int = 0
    ) -> None:
        super().__init__()
        self.event_shape = event_shape(None, shape)
        self.context = context = check_features(context)
        dim = math.prod(self.event_shape)
        self.mean = nn.Parameter(torch.zeros(dim))
        self.lower = nn.Parameter(torch.zeros(dim, dim))
        self.net = conditioner((self.mean, self.lower.flatten()), hidden, context)

    def factor(self, context: Tensor | None = None) -> Tensor:
        """The matrix S, shape ``(1, D, D)`` without a context, else ``(B, D, D)``."""
        return self._at(context)[1]

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        m, S, log_scale = self._at(context)
        z = torch.linalg.solve_triangular(S, self._columns(x.flatten(1) - m), upper=False)
        return z.mT.reshape(x.shape), x.new_zeros(x.shape[0]) - log_scale.sum(1)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        m, S, log_scale = self._at(context)
        flat = z.flatten(1)
        with torch.autocast(z.device.type, enabled=False):
            columns = S @ self._columns(flat)
        x = m + columns.mT.reshape(flat.shape)
        return x.reshape(z.shape), z.new_zeros(z.shape[0]) + log_scale.sum(1)

    def _at(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        r"""m, S and :math:`\lambda`, one row for all or one for each."""
        mean, lower = conditioned(self, (self.mean, self.lower.flatten()), context)
        lower = lower.unflatten(1, self.lower.shape)
        log_scale = lower.diagonal(dim1=1, dim2=2)
        return mean, lower.tril(-1) + log_scale.exp().diag_embed(), log_scale

    def _columns(self, x: Tensor) -> Tensor:
        """Rows as the columns of one matrix, or each as that of a matrix of its own: as many as there are S."""
        return x.T[None] if self.net is None else x[:, :, None]

    def extra_repr(self) -> str:
        return f"shape={self.event_shape}, context={self.context}"
