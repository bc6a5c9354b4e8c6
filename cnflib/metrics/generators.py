r"""Samples of a generator beside real ones: Fréchet distance, precision and recall, copies of training data.

None of these numbers says much alone. Put beside it what real data score: another real sample of the same size in the
place of the generated one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cnflib._check import check_positive_int
from cnflib._tensors import widest
from cnflib.metrics._checks import check_samples

__all__ = ["Memorisation", "PrecisionRecall", "frechet_distance", "memorisation", "precision_recall"]


class PrecisionRecall(NamedTuple):
    """How much of what is generated is realistic, and how much of what is real is generated.

    Args:
        precision: The share of generated points near a real one.
        recall: The share of real points near a generated one.
    """

    precision: float
    recall: float

    def __str__(self) -> str:
        return f"precision {self.precision:.2f}, recall {self.recall:.2f}"


class Memorisation(NamedTuple):
    """Whether what is generated lies nearer to training data than to test data; prints as ``0.99, not 0.80 ± 0.02``.

    Args:
        share: The share of generated points whose nearest real point is one of the training data.
        expected: The mean share of any generator that saw no training data, n / (n + m).
        standard_error: The standard deviation of its share over all ways to divide the n + m real points.
    """

    share: float
    expected: float
    standard_error: float

    def __str__(self) -> str:
        relation = "near" if abs(self.share - self.expected) < 2 * self.standard_error else "not"
        return f"{self.share:.2f}, {relation} {self.expected:.2f} ± {self.standard_error:.2f}"


def frechet_distance(x: Tensor, y: Tensor) -> float:
    r"""The squared 2-Wasserstein distance of the Gaussians that have the means and covariances of two samples.

    .. math:: |m_x - m_y|^2 + \operatorname{tr}\big(C_x + C_y - 2 (C_x^{1/2} C_y C_x^{1/2})^{1/2}\big)

    It sees nothing but two moments, and has the squared unit of x. The samples are rows of features; of images the
    distance named FID takes those of one published network, so other features give another number. It is biased
    upward: for N points of each of one isotropic Gaussian of variance :math:`\sigma^2` by about
    :math:`\sigma^2 (D (D + 1) / 2 + 2 D) / N`. With N ≤ D the covariances are singular, and it is mostly bias.
    Compare at equal N only.

    Args:
        x: The first sample, shape ``(N, *event)``, N ≥ 2.
        y: The second, shape ``(M, *event)``, M ≥ 2.

    Raises:
        ValueError: If the shapes do not fit, or there is a NaN or inf.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, Heusel et al., 2017,
        arXiv:1706.08500; Effectively Unbiased FID and Inception Score and Where to Find Them, Chong & Forsyth, 2020,
        arXiv:1911.07023.

    Example:
        >>> import torch
        >>> x = torch.randn(100, 2)
        >>> round(frechet_distance(x, x + 3), 3)
        18.0
    """
    check_samples(x, y)
    (m_x, C_x), (m_y, C_y) = _fitted(x), _fitted(y)
    # The singular values of a product of roots: a root of eigenvalues near 0 would make 1e-8 of rounding's 1e-16.
    cross = torch.linalg.svdvals(_root(C_x) @ _root(C_y)).sum()
    return float((m_x - m_y).square().sum() + C_x.trace() + C_y.trace() - 2 * cross)


def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    r"""The share of generated points within the real sample's balls, and of real points within the generated one's.

    The ball of a point of a sample reaches to its k-th nearest neighbour there. Both are shares of points and no
    densities: one outlier has a large ball, and a real sample against another real one does not have 1.

    Args:
        real: Real points, shape ``(N, *event)``, N > k.
        generated: Generated points, shape ``(M, *event)``, M > k; with N = M the two shares compare.
        k: The number of neighbours.

    Raises:
        ValueError: If the shapes do not fit, there is a NaN or inf, or k is no positive int.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models, Kynkäänniemi et al., 2019,
        arXiv:1904.06991.

    Example:
        >>> import torch
        >>> square = torch.rand(500, 2)
        >>> precision_recall(square, square + 5).precision
        0.0
    """
    k = check_positive_int(k, "k")
    check_samples(real, generated, least=k + 1)
    return PrecisionRecall(_covered(generated, real, k), _covered(real, generated, k))


def memorisation(train: Tensor, test: Tensor, generated: Tensor) -> Memorisation:
    r"""The share of generated points whose nearest real point is a training point, and what it is without copying.

    .. math:: \frac1G \sum_{g \le G} 1[\text{the real point nearest to } y_g \text{ is in train}],
              \qquad \text{expected } \frac{n}{n + m}

    If train and test are independent draws of one law and the generator saw neither, each of the n + m real points is
    as likely a training point, however poor the generator. The standard error is that of dividing them anew.
    Equal distances count in equal parts.

    Args:
        train: What the generator was trained on, shape ``(n, *event)``.
        test: Unseen points of the same law, shape ``(m, *event)``, m ≥ 2.
        generated: Shape ``(G, *event)``.

    Raises:
        ValueError: If the shapes do not fit, or there is a NaN or inf.

    Example:
        >>> import torch
        >>> train, test = torch.randn(2, 200, 5)
        >>> memorisation(train, test, train + 1e-3).share
        1.0
    """
    check_samples(train, test)
    check_samples(train, generated)
    real = torch.cat([train, test])
    distances = _apart(generated, real)
    nearest = (distances == distances.min(1, keepdim=True).values).double()
    counts = (nearest / nearest.sum(1, keepdim=True)).sum(0)  # how many have each real point as their nearest
    n, m, G = len(train), len(test), len(generated)
    error = (n * m / (n + m) * counts.var()).sqrt() / G
    return Memorisation(float(counts[:n].sum() / G), n / (n + m), float(error))


def _fitted(x: Tensor) -> tuple[Tensor, Tensor]:
    points = _flat(x)
    return points.mean(0), points.T.cov().reshape(points.shape[1], -1)


def _root(C: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(C)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _covered(points: Tensor, centres: Tensor, k: int) -> float:
    radii = _apart(centres, centres).kthvalue(k + 1, dim=1).values  # the nearest of all is the centre itself
    return (_apart(points, centres) <= radii).any(1).double().mean().item()


def _apart(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(_flat(a), _flat(b), compute_mode="donot_use_mm_for_euclid_dist")


def _flat(x: Tensor) -> Tensor:
    return x.detach().flatten(1).to(widest(x.device))
