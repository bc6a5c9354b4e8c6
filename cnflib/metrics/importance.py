r"""How good a variational fit is, by the weights of its own draws.

.. math:: \log \omega_i = \log \tilde p(x_i) - \log q(x_i), \qquad x_i \sim q, \qquad
          Z = \int \tilde p(x)\, dx = \mathbb E_q\, \omega

:math:`\tilde p` is a density up to the unknown factor Z, q a flow that was fitted to it. All weights are equal where
q is :math:`\tilde p / Z`.

**Where q has no draws, none of these numbers looks.** A mode that q has dropped, or a tail that it cannot reach (the
splines of a coupling bend in their box alone): the weights look equal, the effective sample size is large, k̂ is small,
Z is too small by the mass that is missed, and its standard error says nothing of it. Only draws of p itself, or of a q
that is broad enough, can tell.
"""

import math

import torch
from torch import Tensor

from cnflib.metrics._checks import checked_logs
from cnflib.metrics.results import Estimate

__all__ = ["effective_sample_size", "log_z", "pareto_k"]


def log_z(log_w: Tensor) -> Estimate:
    r"""Logarithm of the normalising constant, by importance sampling, with its standard error by the delta method.

    .. math:: \log \hat Z = \log \frac1N \sum_i \omega_i, \qquad
              \mathrm{se} = \frac{s_\omega}{\sqrt N\, \bar\omega}, \quad
              s_\omega^2 = \frac{1}{N - 1} \sum_i (\omega_i - \bar\omega)^2

    The mean of the weights is unbiased for Z, its logarithm is too small by about :math:`\mathrm{se}^2 / 2`. Both
    numbers mean something only while :func:`pareto_k` is below 0.7; the standard error is finite below 1/2.

    Args:
        log_w: Log-weights of independent draws of q, shape ``(N,)``, nats, N ≥ 2; -inf where :math:`\tilde p = 0`.

    Raises:
        ValueError: If the shape is not ``(N,)``, a value is NaN or +inf, or all are -inf.

    Example:
        >>> import torch
        >>> print(log_z(torch.tensor([1.0, 2.0, 3.0])))
        2.3 ± 0.5
    """
    weights, largest = _relative_weights(log_w)
    mean, error = weights.mean().item(), weights.std().item() / math.sqrt(len(weights))
    return Estimate(largest + math.log(mean), error / mean)


def effective_sample_size(log_w: Tensor) -> float:
    r"""Kish's effective sample size, between 1 and N: so many equal weights have the same scatter.

    .. math:: \mathrm{ESS} = \frac{(\sum_i \omega_i)^2}{\sum_i \omega_i^2}

    Args: as in :func:`log_z`.

    Raises:
        ValueError: As in :func:`log_z`.

    References:
        Survey Sampling, Kish, 1965, §8.2.

    Example:
        >>> import torch
        >>> effective_sample_size(torch.zeros(100))
        100.0
    """
    weights, _ = _relative_weights(log_w)
    return (weights.sum() ** 2 / (weights**2).sum()).item()


def pareto_k(log_w: Tensor) -> float:
    r"""Shape of the generalised Pareto law that fits the largest weights: how many moments they have.

    .. math:: P(\omega > c + y \,|\, \omega > c) \approx \Big(1 + \frac{\hat k\, y}{\sigma}\Big)^{-1 / \hat k}

    Moments of order below 1/k are finite. Below 0.5 the variance of the weights is, and :func:`log_z` behaves; up to
    0.7 it still converges at a practical rate; above 1 the weights have no mean that draws could find. It is fitted to
    the :math:`\min(N/5,\, 3 \sqrt N)` largest weights, as PSIS does, drawn towards 0.5 by a weak prior.

    Args:
        log_w: Log-weights of independent draws of q, shape ``(N,)``, nats, N ≥ 25.

    Returns:
        k̂; -inf where the largest weights agree within 0.01 %.

    Raises:
        ValueError: As in :func:`log_z`.

    References:
        Pareto Smoothed Importance Sampling, Vehtari et al., 2015, arXiv:1507.02646; the fit: A New and Efficient
        Estimation Method for the Generalized Pareto Distribution, Zhang & Stephens, 2009, doi:10.1198/tech.2009.08017.

    Example:
        >>> import torch
        >>> x = 0.5 * torch.randn(10_000)  # q narrower than p = N(0, 1)
        >>> log_w = x**2 / (2 * 0.5**2) - x**2 / 2
        >>> 0.4 < pareto_k(log_w) < 1.1  # the limit is 1 - 0.5**2
        True
    """
    weights, _ = _relative_weights(log_w, least=25)
    tail = math.ceil(min(len(weights) / 5, 3 * math.sqrt(len(weights))))
    largest = weights.sort().values[-tail - 1 :]
    excess = largest[1:] - largest[0]
    return _fitted_shape(excess.clamp_min(1e-150)) if excess[-1] > 1e-4 else -math.inf


def _fitted_shape(y: Tensor) -> float:
    """Zhang and Stephens' posterior mean of a generalised Pareto shape, for sorted y > 0, with the prior of PSIS."""
    n, grid = len(y), 30 + math.isqrt(len(y))
    k = torch.arange(1, grid + 1, dtype=y.dtype) - 0.5
    b = 1 / y[-1] + (1 - (grid / k).sqrt()) / (3 * y[int(n / 4 + 0.5) - 1])
    shapes = torch.log1p(-b[:, None] * y).mean(1)
    log_likelihoods = n * ((-b / shapes).log() - shapes - 1)
    mean = b @ log_likelihoods.softmax(0)
    return (n * torch.log1p(-mean * y).mean().item() + 10 * 0.5) / (n + 10)


def _relative_weights(log_w: Tensor, least: int = 2) -> tuple[Tensor, float]:
    """Weights over the largest of them, float64, and the logarithm of that one."""
    log_w = checked_logs(log_w, "log_w", least)
    if (largest := log_w.max().item()) == -math.inf:
        raise ValueError(
            "Expected log_w finite at one draw at least; got -inf at all. No draw of q falls where the target has "
            "mass: fit q first, or start it broader."
        )
    return (log_w - largest).exp(), largest
