r"""Affine maps: of the channels, the same at every pixel, and of the whole event.

With n pixels (n = 1 for a vector, whose coordinates are its channels) and a matrix W over the channels,

.. math:: z_{:, p} = W x_{:, p} + b, \qquad \log |\det \partial z / \partial x| = n \log |\det W|.

A flow of couplings mixes its coordinates by :class:`ActNorm` and :class:`InvertibleConv1x1`: they have no context of
their own and ignore one. :class:`LowerTriangular` is a flow by itself, that of a normal density of any covariance.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_positive_int, eager, event_shape
from cnflib.bijection import Bijection
from cnflib.discrete._conditional import conditioned, conditioner

__all__ = ["ActNorm", "InvertibleConv1x1", "LowerTriangular"]


class ActNorm(Bijection):
    r"""Shift and scale each channel, at first so that one batch of data has zero mean and unit variance.

    .. math:: z_{c, p} = (x_{c, p} - \mu_c) \, e^{-s_c}, \qquad
        \log |\det \partial z / \partial x| = -n \sum_c s_c

    The first batch that is encoded in training mode sets :math:`\mu_c` and :math:`e^{s_c}` to its mean and standard
    deviation, over rows and pixels. After that they are parameters like any other, and the state dict remembers it.
    Until then ``eval`` mode and decoding use them as they stand, which is the identity. Run one batch before
    ``torch.compile``, ``torch.func`` or a copy to other processes. A context is ignored.

    Args:
        channels: Size C of axis 1 of x.

    Raises:
        ValueError: If the batch that is to set :math:`\mu` and s has fewer than two values a channel, or a
            channel that is constant or not finite, or comes inside ``torch.compile`` or ``torch.func``.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma & Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> norm = ActNorm(3)
        >>> z, _ = norm(5 + 2 * torch.randn(10, 3, 4, 4))
        >>> torch.allclose(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
        True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels = check_positive_int(channels, "channels")
        self.loc = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self._known = False  # reading the buffer at every call would break the graph, and wait for a GPU
        self.register_load_state_dict_post_hook(_look_up)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.training and not self._known:
            self._initialize(x)
        loc, s = _per_channel(self.loc, x), _per_channel(self.log_scale, x)
        return (x - loc) * (-s).exp(), -self._logdet(x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        loc, s = _per_channel(self.loc, z), _per_channel(self.log_scale, z)
        return z * s.exp() + loc, self._logdet(z)

    def _logdet(self, x: Tensor) -> Tensor:
        return (_pixels(x) * self.log_scale.sum()).repeat(x.shape[0])

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        """Set mean and deviation from the batch, unless the state dict says that it has been done."""
        if not eager(x):
            raise ValueError(
                "Expected an ActNorm that has seen data: its first call in training mode sets it up. "
                "Run one batch through the flow before torch.compile or torch.func, or call .eval()."
            )
        if not self.initialized:
            values = x.transpose(0, 1).flatten(1)
            variance, mean = _moments(values)
            self.loc.copy_(mean)
            self.log_scale.copy_(0.5 * variance.log())
            self.initialized.fill_(True)
        self._known = True

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


class InvertibleConv1x1(Bijection):
    r"""A linear map of the channels, the same at every pixel, by its LU factors.

    .. math:: z_{:, p} = W x_{:, p}, \qquad W = P L \big( U + \operatorname{diag}(\pm e^{s}) \big), \qquad
        \log |\det \partial z / \partial x| = n \sum_c s_c

    P is a permutation, L unit lower and U strictly upper triangular. W starts as a random orthogonal matrix, and P and
    the signs stay those of its factors; L, U and s are learned. Decoding solves two triangular systems. A context is
    ignored.

    Attributes:
        lu: The three learned parts in one matrix, shape ``(C, C)``: L below the diagonal, s on it, U above.

    Args:
        channels: Size C of axis 1 of x.
        generator: Source of the orthogonal matrix, which is uniform (Haar).

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma & Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> import torch
        >>> mix = InvertibleConv1x1(3)
        >>> W = mix.weight()
        >>> torch.allclose(W @ W.T, torch.eye(3), atol=1e-5)
        True
        >>> x = torch.randn(5, 3, 4, 4)
        >>> torch.allclose(mix.decode(mix(x)[0]), x, atol=1e-5)
        True
    """

    def __init__(self, channels: int, generator: Generator | None = None) -> None:
        super().__init__()
        self.channels = channels = check_positive_int(channels, "channels")
        noise = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
        Q, R = torch.linalg.qr(noise)
        P, L, U = torch.linalg.lu(Q * R.diagonal().sign())
        diagonal = U.diagonal()
        lu = L.tril(-1) + U.triu(1) + diagonal.abs().log().diag()
        self.lu = nn.Parameter(lu.to(torch.get_default_dtype()))
        self.register_buffer("permutation", P.argmax(1))  # row i of P L is row permutation[i] of L
        self.register_buffer("sign", diagonal.sign().to(torch.get_default_dtype()))

    def weight(self) -> Tensor:
        """The matrix W, shape ``(C, C)``."""
        L, U = self._factors()
        with torch.autocast(self.lu.device.type, enabled=False):
            return (L @ U)[self.permutation]

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return _apply(self.weight(), x), self._logdet(x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        L, U = self._factors()
        columns = z.transpose(0, 1).flatten(1)[self.permutation.argsort()]
        columns = torch.linalg.solve_triangular(L, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(U, columns, upper=True)
        return columns.reshape(z.transpose(0, 1).shape).transpose(0, 1), -self._logdet(z)

    def _factors(self) -> tuple[Tensor, Tensor]:
        L = self.lu.tril(-1) + torch.eye(len(self.lu), dtype=self.lu.dtype, device=self.lu.device)
        return L, self.lu.triu(1) + (self.sign * self.lu.diagonal().exp()).diag()

    def _logdet(self, x: Tensor) -> Tensor:
        return (_pixels(x) * self.lu.diagonal().sum()).repeat(x.shape[0])

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


class LowerTriangular(Bijection):
    r"""The whitening of a normal density: :math:`z = S^{-1}(x - m)`, where S is lower triangular.

    .. math:: \log |\det \partial z / \partial x| = -\sum_i \lambda_i, \qquad S_{ii} = e^{\lambda_i}

    With the base :math:`N(0, I)` the density is :math:`N(m, S S^\top)`, and every covariance has such a factor S, its
    Cholesky factor: maximum likelihood finds mean and covariance of the data. Decoding is :math:`x = m + S z`. It
    starts as the identity.

    Attributes:
        mean: :math:`m`, shape ``(D,)``; an event with several axes is taken in the order of memory.
        lower: S below the diagonal and :math:`\lambda` on it, shape ``(D, D)``; what is above it counts nowhere.

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
        self.context = context
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
        return z.mT.reshape(x.shape), x.new_zeros(len(x)) - log_scale.sum(1)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        m, S, log_scale = self._at(context)
        flat = z.flatten(1)
        with torch.autocast(z.device.type, enabled=False):
            columns = S @ self._columns(flat)
        x = m + columns.mT.reshape(flat.shape)
        return x.reshape(z.shape), z.new_zeros(len(z)) + log_scale.sum(1)

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


def _look_up(module: ActNorm, incompatible: object) -> None:
    module._known = not module.initialized.is_meta and bool(module.initialized)


def _apply(W: Tensor, x: Tensor) -> Tensor:
    """W along axis 1, in the dtype of x under autocast too: what is rounded here the inverse would not find again."""
    with torch.autocast(x.device.type, enabled=False):
        return x @ W.T if x.ndim == 2 else (W @ x.flatten(2)).reshape(x.shape)


def _pixels(x: Tensor) -> int:
    return x.shape[2:].numel()


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (x.ndim - 2))


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each row, where both are of use."""
    if values.shape[1] < 2:
        raise ValueError(
            f"Expected at least two values a channel to set up an ActNorm; got {values.shape[1]}. "
            "Let its first batch in training mode be larger, or call .eval()."
        )
    variance, mean = torch.var_mean(values, 1, correction=0)
    flawed = ~((variance > 0) & variance.isfinite())
    if flawed.any():
        raise ValueError(
            f"Expected channels that are finite and not constant to set up an ActNorm; {int(flawed.sum())} of "
            f"{len(variance)} are not, the first is {int(flawed.nonzero()[0])}. Dequantize integer data, drop a "
            "constant channel, or let the first batch in training mode be larger."
        )
    return variance, mean
