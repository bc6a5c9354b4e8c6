r"""Gaussian mixtures, the laws whose interpolants have a velocity and a score in closed form."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cnflib.data._target import Bounds, Noise, check_count, check_points

__all__ = ["GaussianMixture"]


class GaussianMixture:
    r"""A mixture of K Gaussians in any dimension D.

    .. math:: \rho(x) = \sum_{k=1}^K w_k \, \mathcal{N}(x; m_k, C_k)

    Its image under :math:`x_t = \alpha x_0 + \beta x_1` with an independent :math:`x_0 \sim \mathcal{N}(0, I)` is again
    a mixture, with means :math:`\beta m_k` and covariances :math:`\alpha^2 I + \beta^2 C_k`.

    Args:
        weights: The weights :math:`w_k`, positive and of sum 1, shape ``(K,)``.
        means: The means :math:`m_k`, shape ``(K, D)``.
        covariances: The covariances :math:`C_k`, symmetric and positive definite, shape ``(K, D, D)``.
        name: The law's name.
        entropy: The entropy in nats if it is known; None is the closed form where K = 1, and nan otherwise.

    Attributes:
        weights, means, covariances: The arguments as float64 tensors; use `.to(x)` to match points x.
        bounds: One pair (min, max) per axis, 5.5 standard deviations around every mean.

    Raises:
        ValueError: If the shapes disagree, the weights are no probabilities or a covariance is not positive definite.
    """

    def __init__(
        self,
        weights: Tensor | Sequence,
        means: Tensor | Sequence,
        covariances: Tensor | Sequence,
        name: str = "gaussian_mixture",
        entropy: float | None = None,
    ) -> None:
        self.weights, self.means, self.covariances = (
            torch.as_tensor(value, dtype=torch.float64) for value in (weights, means, covariances)
        )
        check_mixture(self.weights, self.means, self.covariances)
        self.name = name
        self.factors = torch.linalg.cholesky(self.covariances)
        self.entropy = self._entropy() if entropy is None else entropy

    def __repr__(self) -> str:
        return (
            f"GaussianMixture(name={self.name!r}, components={len(self.weights)}, dim={self.means.shape[-1]})"
        )

    @property
    def bounds(self) -> Bounds:
        r"""Limits (min, max) per axis, outside of which the mass is below :math:`4 D \cdot 10^{-8}`."""
        reach = 5.5 * self.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
        low, high = (self.means - reach).amin(0), (self.means + reach).amax(0)
        return tuple(zip(low.tolist(), high.tolist(), strict=True))

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draw n independent points :math:`x = m_k + L_k z`, where :math:`L_k L_k^\top = C_k`.

        Args:
            n: The number of points.
            generator: The source of randomness; None is torch's default generator.
            dtype: The dtype of the points; None is torch's default dtype.
            device: The device of the points; None is the generator's.

        Returns:
            The points, shape ``(n, D)``.

        Raises:
            ValueError: If n is not a positive integer, dtype not floating or device not the generator's.
        """
        check_count(n)
        noise = Noise.of(generator, dtype, device)
        z = noise.normal(n, self.means.shape[-1])
        k = self.weights.to(z).multinomial(n, replacement=True, generator=generator)
        x = self.means.to(z) + torch.einsum("kij,nj->nki", self.factors.to(z), z)
        return x[torch.arange(n, device=z.device), k]

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Evaluate :math:`\log \rho(x)`.

        Args:
            x: The points, shape ``(B, D)``.

        Returns:
            The log-density in nats, shape ``(B,)``, with the dtype and device of x.

        Raises:
            ValueError: If x is not floating or not of shape ``(B, D)``.
        """
        check_points(x, dim=self.means.shape[-1])
        weights, means, factors = self.weights.to(x), self.means.to(x), self.factors.to(x)
        z = torch.linalg.solve_triangular(factors, (x - means[:, None]).mT, upper=False)
        logdet = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        normal = -z.square().sum(-2) / 2 - logdet[:, None] - x.shape[-1] * math.log(2 * math.pi) / 2
        return (weights.log()[:, None] + normal).logsumexp(0)

    def _entropy(self) -> float:
        if len(self.weights) > 1:
            return math.nan
        return 0.5 * torch.logdet(2 * math.pi * math.e * self.covariances[0]).item()


def check_mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    r"""Raise a ValueError unless the three describe a Gaussian mixture."""
    shapes = tuple(weights.shape), tuple(means.shape), tuple(covariances.shape)
    k, d = shapes[1] if means.ndim == 2 else (0, 0)
    if k == 0 or shapes != ((k,), (k, d), (k, d, d)):
        raise ValueError(
            f"Expected weights (K,), means (K, D), covariances (K, D, D); got {', '.join(map(str, shapes))}. "
            "Give each component one row of each."
        )
    if not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-6:
        raise ValueError(
            f"Expected positive weights of sum 1; got {weights.tolist()}. Divide them by their sum."
        )
    if not torch.allclose(covariances, covariances.mT) or torch.linalg.cholesky_ex(covariances).info.any():
        raise ValueError(
            f"Expected symmetric positive definite covariances; got {covariances.tolist()}. "
            "Build each as A @ A.T plus a small multiple of the identity."
        )
