r"""Affine maps along axis 1: the coordinates of a vector, or the channels of an image, the same at every pixel.

With n pixels (n = 1 for a vector) and a matrix W over the channels,

.. math:: z_{:, p} = W x_{:, p} + b, \qquad \log |\det \partial z / \partial x| = n \log |\det W|.

A flow of couplings mixes its coordinates by these: they have no context of their own and ignore one.
"""

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_axis, check_like, check_positive_int, eager
from cnflib.bijection import Bijection

__all__ = ["ActNorm", "InvertibleConv1x1"]


class ActNorm(Bijection):
    r"""Shift and scale each channel, at first so that one batch of data has zero mean and unit variance.

    .. math:: z_{c, p} = (x_{c, p} - \mu_c) \, e^{-s_c}, \qquad
        \log |\det \partial z / \partial x| = -n \sum_c s_c

    The first :meth:`forward` in training mode sets :math:`\mu_c` and :math:`e^{s_c}` to mean and standard deviation
    of its batch, over rows and pixels. After that they are parameters like any other, and the state dict remembers
    it. Until then ``eval`` mode and :meth:`inverse` use them as they stand, which is the identity. Run one batch
    before ``torch.compile``, ``torch.func`` or a copy to other processes. A context is ignored.

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
        check_positive_int(channels, "channels")
        self.loc = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        self._known = False  # reading the buffer at every call would break the graph, and wait for a GPU
        self.register_load_state_dict_post_hook(_look_up)

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        _check_channels(x, self.loc, "x", "ActNorm")
        if self.training and not self._known:
            self._initialize(x)
        loc, s = _per_channel(self.loc, x), _per_channel(self.log_scale, x)
        return (x - loc) * (-s).exp(), -self._logdet(x)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        _check_channels(z, self.loc, "z", "ActNorm")
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
        return f"channels={self.loc.numel()}"


class InvertibleConv1x1(Bijection):
    r"""A linear map of the channels, the same at every pixel, by its LU factors.

    .. math:: z_{:, p} = W x_{:, p}, \qquad W = P L \big( U + \operatorname{diag}(\pm e^{s}) \big), \qquad
        \log |\det \partial z / \partial x| = n \sum_c s_c

    P is a permutation, L unit lower and U strictly upper triangular. W starts as a random orthogonal matrix, and P and
    the signs stay those of its factors; L, U and s are learned. The inverse solves two triangular systems. A context
    is ignored.

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
        check_positive_int(channels, "channels")
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

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        _check_channels(x, self.lu, "x", "InvertibleConv1x1")
        return _apply(self.weight(), x), self._logdet(x)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        _check_channels(z, self.lu, "z", "InvertibleConv1x1")
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
        return f"channels={len(self.lu)}"


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


def _check_channels(x: Tensor, parameter: Tensor, name: str, owner: str) -> None:
    check_axis(x, len(parameter), name)
    check_like(x, parameter, name, owner)


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
