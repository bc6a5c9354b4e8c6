r"""The bases of flows: normal densities, and mixtures of Gaussians with an exact log-density."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_draw, check_event
from cnflib._check_sizes import event_shape
from cnflib._constants import constants
from cnflib._random import source
from cnflib._tensors import tensors, widest
from cnflib._words import described

__all__ = ["DiagonalNormal", "GaussianMixture", "StandardNormal"]


class StandardNormal(nn.Module):
    r"""The standard normal :math:`N(0, I)` on events of a given shape, in :math:`D` dimensions in all.

    .. math:: \log p(z) = -\tfrac12 |z|^2 - \tfrac D2 \log 2\pi

    Args:
        shape: The event shape, an int or a tuple of ints.

    Example:
        >>> StandardNormal(2).sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape(None, shape)
        with constants():
            self.register_buffer("origin", torch.zeros(self.event_shape), persistent=False)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Log-density in nats at points of shape ``(B, *event_shape)``; shape ``(B,)``."""
        check_event(x, self.event_shape)
        return -0.5 * (x.square().flatten(1).sum(1) + self.origin.numel() * math.log(2 * math.pi))

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``(n, *event_shape)``."""
        n = check_draw(n, context, generator)
        place = {"dtype": self.origin.dtype, "device": self.origin.device}
        return torch.randn((n, *self.event_shape), **source(generator), **place)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


class DiagonalNormal(nn.Module):
    r"""A normal :math:`N(m, \operatorname{diag} \sigma^2)` of learned mean and scale, as a base or one end of a path.

    .. math:: z = m + \sigma \zeta, \quad \zeta \sim N(0, I), \qquad
        \log p(z) = \log N(\zeta; 0, I) - \sum_i \log \sigma_i

    Args:
        shape: The event shape, an int or a tuple of ints.

    Attributes:
        mean: m, of the event's shape, 0 at the start.
        log_scale: :math:`\log \sigma`, of the event's shape, 0 at the start.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> base = DiagonalNormal(2)
        >>> (
        ...     base.log_prob(base.sample(5)).shape,
        ...     base.sample(5).requires_grad,
        ...     base.rsample(5).requires_grad,
        ... )
        (torch.Size([5]), False, True)
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape(None, shape)
        self.mean = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Log-density in nats at points of shape ``(B, *event_shape)``; shape ``(B,)``."""
        check_event(x, self.event_shape)
        zeta = (x - self.mean) * (-self.log_scale).exp()
        square = zeta.square().flatten(1).sum(1)
        return -0.5 * (square + self.mean.numel() * math.log(2 * math.pi)) - self.log_scale.sum()

    def rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``(n, *event_shape)``, with gradients to mean and scale."""
        n = check_draw(n, context, generator)
        place = {"dtype": self.mean.dtype, "device": self.mean.device}
        zeta = torch.randn((n, *self.event_shape), **source(generator), **place)
        return self.mean + self.log_scale.exp() * zeta

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``(n, *event_shape)``, free of gradients."""
        return self.rsample(n, context, generator)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


class GaussianMixture(nn.Module):
    r"""A mixture of K Gaussians in D dimensions, with an exact log-density.

    .. math:: \rho(x) = \sum_{k \le K} w_k\, N(x; m_k, C_k)

    The three are buffers, not parameters: it is a base, or a law to compare with. They are kept in float64, as nested
    lists give them, and used in the dtype of the points; samples are of torch's default dtype.

    Args:
        weights: Positive, of sum 1, shape ``(K,)``.
        means: :math:`m_k`, shape ``(K, D)``.
        covariances: :math:`C_k`, symmetric and positive definite, shape ``(K, D, D)``.

    Raises:
        ValueError: If the three do not describe a Gaussian mixture, or want a gradient.

    Example:
        >>> import torch
        >>> two = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [[[0.1]], [[0.1]]])
        >>> two.log_prob(torch.zeros(1, 1)).shape, two.sample(5).shape
        (torch.Size([1]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence,
        covariances: Tensor | Sequence,
    ) -> None:
        super().__init__()
        if any(t.requires_grad for t in tensors((weights, means, covariances), set())):
            raise ValueError(
                "Expected weights, means and covariances without a gradient: they are constants, and would not learn. "
                "Detach them; a mixture that learns is a module of your own, with event_shape, log_prob and sample."
            )
        with constants():
            weights, means, covariances = map(_numbers, (weights, means, covariances))
        _check_mixture(weights, means, covariances)
        self.event_shape = (means.shape[1],)
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("covariances", covariances)
        self.register_buffer("factors", torch.linalg.cholesky(covariances), persistent=False)
        self.register_load_state_dict_post_hook(_factorise)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        r"""Limits (min, max) of each axis, outside of which the mass is below :math:`4 D \cdot 10^{-8}`."""
        reach = 5.5 * self.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
        low, high = (self.means - reach).amin(0), (self.means + reach).amax(0)
        return tuple(zip(low.tolist(), high.tolist(), strict=True))

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""Log-density in nats at points of shape ``(B, D)``; shape ``(B,)``, of the dtype of x."""
        check_event(x, self.event_shape)
        weights, means, factors = self.weights.to(x), self.means.to(x), self.factors.to(x)
        z = torch.linalg.solve_triangular(factors, (x - means[:, None]).mT, upper=False)
        logdet = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        normal = -z.square().sum(-2) / 2 - logdet[:, None] - x.shape[-1] * math.log(2 * math.pi) / 2
        return (weights.log()[:, None] + normal).logsumexp(0)

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Draw n points :math:`m_k + L_k \zeta`, :math:`L_k L_k^\top = C_k`, shape ``(n, D)``.

        They have torch's default dtype, and the generator's device where one is given.
        """
        n = check_draw(n, context, generator)
        device = self.means.device if generator is None else generator.device
        zeta = torch.randn((n, *self.event_shape), **source(generator), device=device)
        k = self.weights.to(zeta).multinomial(n, replacement=True, generator=generator)
        x = self.means.to(zeta) + torch.einsum("kij,nj->nki", self.factors.to(zeta), zeta)
        return x[torch.arange(n, device=device), k]

    def extra_repr(self) -> str:
        return f"components={len(self.weights)}, dim={self.event_shape[0]}"


def _factorise(mixture: GaussianMixture, incompatible: object) -> None:
    C = mixture.covariances
    mixture.factors = torch.linalg.cholesky(C.to(widest(C.device))).to(C)


def _numbers(values: Tensor | Sequence) -> Tensor:
    """A float64 copy of numbers; a sequence of tensors is stacked."""
    if not isinstance(values, Tensor) and any(isinstance(value, Tensor) for value in values):
        values = torch.stack([torch.as_tensor(value) for value in values])
    return torch.as_tensor(values, dtype=torch.float64).detach().clone()


def _check_mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    """Check that the three describe a Gaussian mixture."""
    k, d = means.shape if means.ndim == 2 else (0, 0)
    finite = means.isfinite().all() and covariances.isfinite().all()
    if k == 0 or weights.shape != (k,) or covariances.shape != (k, d, d) or not finite:
        raise ValueError(
            f"Expected weights (K,), finite means (K, D) and covariances (K, D, D); got {described(weights)}, "
            f"{described(means)}, {described(covariances)}{' with NaN or inf' * (not finite)}. Give each component one "
            "row of each."
        )
    if not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-6:
        raise ValueError(
            f"Expected positive weights of sum 1; got {weights.tolist()}. Divide them by their sum."
        )
    if not torch.allclose(covariances, covariances.mT) or torch.linalg.cholesky_ex(covariances).info.any():
        raise ValueError(
            f"Expected symmetric positive definite covariances; got {covariances.tolist()}. Build each as A @ A.T plus "
            "a small multiple of the identity."
        )
