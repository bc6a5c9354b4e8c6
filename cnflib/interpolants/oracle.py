r"""Closed forms: what a perfect net would have learned between two Gaussian mixtures.

Ends drawn independently from :math:`\rho_0 = \sum_i v_i N(m_i, C_i)` and :math:`\rho_1 = \sum_j w_j N(n_j, D_j)` make
of :math:`x_t = \alpha x_0 + \beta x_1 + \gamma \xi` a mixture of one Gaussian for each pair of components,

.. math:: p_t = \sum_{ij} v_i w_j\, N(\mu_{ij}, \Sigma_{ij}), \qquad \mu_{ij} = \alpha m_i + \beta n_j, \qquad
          \Sigma_{ij} = \alpha^2 C_i + \beta^2 D_j + \gamma^2 I,

and within a pair everything is jointly Gaussian. All means given :math:`x_t = x` then follow from the posterior
:math:`r_{ij}(x) \propto v_i w_j\, N(x; \mu_{ij}, \Sigma_{ij})` and :math:`q_{ij}(x) = \Sigma_{ij}^{-1} (x - \mu_{ij})`.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cnflib._check import check_draw, check_event
from cnflib._random import source
from cnflib._tensors import widest
from cnflib._words import described
from cnflib.distributions import GaussianMixture, StandardNormal
from cnflib.interpolants._checks import check_path, check_time
from cnflib.interpolants._schedules import root
from cnflib.interpolants.interpolant import Coefficients, Interpolant

__all__ = ["Oracle"]


class _Parts(NamedTuple):
    """One Gaussian for each pair of components, with an axis T of times, 1 or B; n = B / T points share a time."""

    c: Coefficients
    log_joint: Tensor  # log v w N(x; mu, Sigma), shape (T, K, n)
    q: Tensor  # shape (T, K, D, n)


class Oracle:
    r"""The exact velocity, score, denoiser and density of an interpolant between independent Gaussian mixtures.

    Every method but :meth:`sample` takes ``(t, x, context=None)``, as fields do; the context is ignored. Times are
    floats or tensors of shape ``()`` or ``(B,)``, points of shape ``(B, D)``; dtype and device are those of the points.

    Args:
        interpolant: Any interpolant.
        rho0: The law of :math:`x_0`: a :class:`cnflib.GaussianMixture`, or a :class:`cnflib.StandardNormal`.
        rho1: The law of :math:`x_1`, one of these in the same dimension D.

    Raises:
        ValueError: If the dimensions of the two ends differ, or an end is no mixture of Gaussians.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib import GaussianMixture, StandardNormal
        >>> from cnflib.interpolants import Linear, sample_ode
        >>> two = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [[[0.1]], [[0.1]]])
        >>> oracle = Oracle(Linear(), StandardNormal(1), two)
        >>> sample_ode(oracle.velocity, torch.tensor([[-1.0], [1.0]])).round(
        ...     decimals=2
        ... )
        tensor([[-2.1500],
                [ 2.1500]])
    """

    def __init__(
        self,
        interpolant: Interpolant,
        rho0: GaussianMixture | StandardNormal,
        rho1: GaussianMixture | StandardNormal,
    ) -> None:
        check_path(interpolant)
        v, m, C = _mixture(rho0, "rho0")
        w, n, D = _mixture(rho1, "rho1")
        if m.shape[1] != n.shape[1]:
            raise ValueError(
                f"Expected rho0 and rho1 in the same dimension; got {m.shape[1]} and {n.shape[1]}."
            )
        v, m, C = (part.to(w.device) for part in (v, m, C))
        self.interpolant = interpolant
        self.log_weights = (v[:, None] * w).flatten().log()
        self.means = tuple(torch.broadcast_tensors(m[:, None], n[None]))
        self.covariances = tuple(torch.broadcast_tensors(C[:, None], D[None]))

    def velocity(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The velocity :math:`b(t, x) = E[\dot x_t | x_t = x]`, shape ``(B, D)``.

        .. math:: b = \sum_{ij} r_{ij} \Big[\dot\alpha m_i + \dot\beta n_j + \tfrac12 \dot\Sigma_{ij}\, q_{ij}\Big],
                  \qquad \tfrac12 \dot\Sigma_{ij} = \alpha\dot\alpha C_i + \beta\dot\beta D_j + \gamma\dot\gamma I

        It is NaN or infinite where :math:`\dot\alpha` or :math:`\dot\beta` is.
        """
        c, _, q = parts = self._at(t, x)
        rate = self._mean(c.alpha_rate, c.beta_rate, x)[..., None]
        half = self._covariance(c.alpha * c.alpha_rate, c.beta * c.beta_rate, c.gamma2_rate / 2, x)
        return self._average(parts, rate + half @ q)

    def score(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The score :math:`s = \nabla \log p_t(x) = -\sum_{ij} r_{ij} q_{ij}`, shape ``(B, D)``."""
        parts = self._at(t, x)
        return -self._average(parts, parts.q)

    def denoiser(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The denoiser :math:`\bar\xi(t, x) = E[\xi | x_t = x] = -\gamma s`, shape ``(B, D)``; 0 without noise."""
        c, _, q = parts = self._at(t, x)
        return root(c.gamma2) * self._average(parts, q)

    def ends(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""The means :math:`E[x_0 | x_t = x]` and :math:`E[x_1 | x_t = x]`, shape ``(B, D)`` each.

        .. math:: E[x_0 | x_t = x] = \sum_{ij} r_{ij} \big[m_i + \alpha C_i q_{ij}\big], \qquad
                  E[x_1 | x_t = x] = \sum_{ij} r_{ij} \big[n_j + \beta D_j q_{ij}\big]
        """
        c, _, q = parts = self._at(t, x)
        zero, one = torch.zeros_like(c.alpha), torch.ones_like(c.alpha)
        x0 = self._mean(one, zero, x)[..., None] + self._covariance(c.alpha, zero, zero, x) @ q
        x1 = self._mean(zero, one, x)[..., None] + self._covariance(zero, c.beta, zero, x) @ q
        return self._average(parts, x0), self._average(parts, x1)

    def log_prob(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The log-density :math:`\log p_t(x)` in nats, shape ``(B,)``: a ``TimeLogDensity``."""
        return self._at(t, x).log_joint.logsumexp(1).flatten()

    @torch.no_grad()
    def sample(self, t: float | Tensor, n: int, generator: Generator | None = None) -> Tensor:
        r"""Draw n points of :math:`p_t` at one time, shape ``(n, D)``, free of gradients.

        They have torch's default dtype, and the generator's device where one is given.

        Args:
            t: Time in [0, 1], a float or shape ``()``.
            n: The number of points.
            generator: The source of randomness; None is torch's default generator.

        Raises:
            ValueError: If t is outside [0, 1].
        """
        n = check_draw(n, None, generator)
        device = "cpu" if generator is None else generator.device
        z = torch.randn(n, self.means[0].shape[-1], **source(generator), device=device)
        c = self._coefficients(float(t), z)
        k = self.log_weights.to(z).exp().multinomial(n, replacement=True, generator=generator)
        means = self._mean(c.alpha, c.beta, z)[0]
        factors = torch.linalg.cholesky(self._covariance(c.alpha**2, c.beta**2, c.gamma2, z))[0]
        return means[k] + (factors[k] @ z[..., None])[..., 0]

    def _at(self, t: float | Tensor, x: Tensor) -> _Parts:
        """Posterior and q of each pair, from one factor of its covariance at each time."""
        D = self.means[0].shape[-1]
        check_event(x, (D,))
        c = self._coefficients(t, x)
        n = x.shape[0] // max(c.alpha.shape[0], 1)
        residual = x.reshape(c.alpha.shape[0], 1, n, D).mT - self._mean(c.alpha, c.beta, x)[..., None]
        factor = torch.linalg.cholesky(self._covariance(c.alpha**2, c.beta**2, c.gamma2, x))
        z = torch.linalg.solve_triangular(factor, residual, upper=False)
        q = torch.linalg.solve_triangular(factor.mT, z, upper=True)
        log_volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + D / 2 * math.log(2 * math.pi)
        log_weights = self.log_weights.to(x) - log_volume
        return _Parts(c, log_weights[..., None] - z.square().sum(-2) / 2, q)

    def _coefficients(self, t: float | Tensor, x: Tensor) -> Coefficients:
        """The schedules and their rates, shape (T, 1)."""
        return self.interpolant.coefficients(check_time(t, x))

    def _mean(self, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        r""":math:`a\,m_i + b\,n_j`, shape (T, K, D)."""
        m, n = (mean.flatten(0, 1).to(x) for mean in self.means)
        return a[..., None] * m + b[..., None] * n

    def _covariance(self, a: Tensor, b: Tensor, c: Tensor, x: Tensor) -> Tensor:
        r""":math:`a\,C_i + b\,D_j + c\,I`, shape (T, K, D, D)."""
        C, D = (covariance.flatten(0, 1).to(x) for covariance in self.covariances)
        a, b, c = (k[..., None, None] for k in (a, b, c))
        return a * C + b * D + c * torch.eye(C.shape[-1], dtype=x.dtype, device=x.device)

    @staticmethod
    def _average(parts: _Parts, of: Tensor) -> Tensor:
        r""":math:`\sum_{ij} r_{ij} f_{ij}` for f of shape (T, K, D, n), as (B, D)."""
        return (parts.log_joint.softmax(1)[:, :, None] * of).sum(1).mT.flatten(0, 1)


def _mixture(rho: GaussianMixture | StandardNormal, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances, in float64 where the device has it."""
    if isinstance(rho, StandardNormal):
        D = math.prod(rho.event_shape)
        parts = (torch.ones(1), torch.zeros(1, D), torch.eye(D)[None])
    elif hasattr(rho, "covariances"):
        parts = (rho.weights, rho.means, rho.covariances)
    else:
        raise ValueError(
            f"Expected {name} to be a GaussianMixture or a StandardNormal; got {described(rho)}. Other laws have no "
            "closed form here."
        )
    return tuple(part.to(widest(part.device)) for part in parts)
