r"""Affine maps of the channels, the same at every pixel.

With n pixels (n = 1 for a vector, whose coordinates are its channels) and a matrix W over the channels,

.. math:: z_{:, p} = W x_{:, p} + b, \qquad \log |\det \partial z / \partial x| = n \log |\det W|.

A flow of couplings scales its coordinates by :class:`ActNorm` and mixes them by :class:`InvertibleConv1x1`. They have
no context of their own and ignore one.
"""

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from cnflib._check import eager, rounding
from cnflib.bijection import Bijection

__all__ = ["ActNorm", "InvertibleConv1x1"]


class ActNorm(Bijection):
    r"""Shift and scale each channel, at first so that one batch of data has zero mean and unit variance.

    .. math:: z_{c, p} = (x_{c, p} - \mu_c) \, e^{-s_c}, \qquad
        \log |\det \partial z / \partial x| = -n \sum_c s_c

    The first batch that is encoded in training mode sets :math:`\mu_c` and :math:`e^{s_c}` to its mean and standard
    deviation, over rows and pixels. After that they are parameters like any other; the state dict says whether they
    are set. Until they are, ``eval`` mode and decoding use them as they stand, which is the identity. Run one batch
    before ``torch.compile`` or ``torch.func``. Where processes train together, each has to run that batch: its shards
    count as one, and all get the same :math:`\mu` and s. A context is ignored.

    Args:
        channels: Size C of axis 1 of x.

    Raises:
        ValueError: If the batch that is to set :math:`\mu` and s has a channel that is constant up to rounding, as that
            of a single value is, or not finite, or comes inside ``torch.compile`` or ``torch.func``.

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
        self.channels = channels
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
        return (x - loc) * (-s).exp(), -_at_every_pixel(self.log_scale.sum(), x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        loc, s = _per_channel(self.loc, z), _per_channel(self.log_scale, z)
        return z * s.exp() + loc, _at_every_pixel(self.log_scale.sum(), z)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        """Set mean and deviation from the batch, unless the state dict says that it has been done."""
        if not eager(x):
            raise ValueError(
                "Expected an ActNorm that has seen data: its first call in training mode sets it up. "
                "Run one batch through the flow before torch.compile or torch.func, or call .eval()."
            )
        if not self.initialized:
            columns = x.transpose(0, 1).flatten(1).T
            variance, mean = _moments(columns)
            flawed = ~((variance.sqrt() > rounding(columns)) & variance.isfinite())
            if flawed.any():
                raise ValueError(
                    f"Expected channels that are finite and not constant to set up an ActNorm; {int(flawed.sum())} of "
                    f"{len(variance)} are not, the first is {int(flawed.nonzero()[0])}. Dequantize integer data, drop "
                    "a constant channel, let the first batch in training mode be larger, or call .eval()."
                )
            self.loc.copy_(mean)
            self.log_scale.copy_(0.5 * variance.log())
            self.initialized.fill_(True)
        self._known = True

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of each column, over the batches of all processes where there are several.

    Each process adds its number of values, their sum, and then their squared distances from the common mean.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return torch.var_mean(columns, 0, correction=0)
    count = _total(columns.new_full((1,), columns.shape[0]))
    mean = _total(columns.sum(0)) / count
    return _total((columns - mean).square().sum(0)) / count, mean


def _total(value: Tensor) -> Tensor:
    dist.all_reduce(value)
    return value


def _look_up(norm: ActNorm, incompatible: object) -> None:
    """Whether a norm is set up, after it was given another state."""
    norm._known = not norm.initialized.is_meta and bool(norm.initialized)


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (x.ndim - 2))


class InvertibleConv1x1(Bijection):
    r"""A linear map of the channels, the same at every pixel, by its LU factors.

    .. math:: z_{:, p} = W x_{:, p}, \qquad W = P L \big( U + \operatorname{diag}(\pm e^{s}) \big), \qquad
        \log |\det \partial z / \partial x| = n \sum_c s_c

    P is a permutation, L unit lower and U strictly upper triangular. W starts as a random orthogonal matrix; P and the
    signs stay as its LU factors have them, and L, U and s are learned. Decoding solves two triangular systems. A
    context is ignored.

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
        self.channels = channels
        noise = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
        Q, R = torch.linalg.qr(noise)
        # With the sign of each column chosen so that R has a positive diagonal, Q is uniform. Of its LU factors the
        # diagonal of U alone is in the determinant: as signs, which stay, and logarithms, which are learned, it costs a
        # sum in place of a decomposition at every call, and W can never become singular.
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
        # In the dtype of x under autocast too: what is rounded here decoding would not find again.
        W = self.weight()
        with torch.autocast(x.device.type, enabled=False):
            z = x @ W.T if x.ndim == 2 else (W @ x.flatten(2)).reshape(x.shape)
        return z, _at_every_pixel(self.lu.diagonal().sum(), x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        L, U = self._factors()
        columns = z.transpose(0, 1).flatten(1)[self.permutation.argsort()]
        columns = torch.linalg.solve_triangular(L, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(U, columns, upper=True)
        x = columns.reshape(z.transpose(0, 1).shape).transpose(0, 1)
        return x, -_at_every_pixel(self.lu.diagonal().sum(), z)

    def _factors(self) -> tuple[Tensor, Tensor]:
        L = self.lu.tril(-1) + torch.eye(len(self.lu), dtype=self.lu.dtype, device=self.lu.device)
        return L, self.lu.triu(1) + (self.sign * self.lu.diagonal().exp()).diag()

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _at_every_pixel(logdet: Tensor, x: Tensor) -> Tensor:
    """The log-determinant of each row, from that of the map of one pixel."""
    return (x.shape[2:].numel() * logdet).repeat(x.shape[0])
