r"""The log-determinant :math:`\log\det(I + J)` of a residual map, from products with the Jacobian J of its branch r.

For :math:`\|J\|_2 < 1` the determinant is positive, and

.. math:: \log\det(I + J) = \operatorname{tr} \log(I + J) = \sum_{k \ge 1} \frac{(-1)^{k+1}}{k} \operatorname{tr} J^k.

With a probe :math:`\eta` of independent signs :math:`E\,\eta\eta^\top = I`, so
:math:`\operatorname{tr} J^k = E\,\eta^\top J^k \eta`: k products with J give k terms. What is left is to end the
series, without a bias or with one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cnflib._check import check_positive_int
from cnflib._random import source
from cnflib._settings import compact_repr
from cnflib._tensors import widest
from cnflib.discrete.lipschitz import JacobianProduct

__all__ = ["ExactLogDet", "LogDet", "RussianRoulette", "TruncatedSeries"]

LogDet = Callable[[JacobianProduct, Tensor, Generator | None], Tensor]
"""``logdet(product, x, generator) -> (B,)``, in nats; of x only shape, dtype and device matter."""


@dataclass(frozen=True, repr=False)
class ExactLogDet:
    r"""The exact :math:`\log\det(I + J)`: J by one product for each of the D axes, then a LU decomposition.

    It takes :math:`D` times the work of the net and :math:`D^2` numbers a row, then :math:`D^3` operations. For
    D up to some dozens it is the one to train with: its gradient has no noise.

    Example:
        >>> import torch
        >>> ExactLogDet()(
        ...     lambda v, rows=None: 0.5 * v, torch.zeros(1, 2)
        ... ).exp().item()
        2.25
    """

    def __call__(self, product: JacobianProduct, x: Tensor, generator: Generator | None = None) -> Tensor:
        """The log-determinant in nats, shape ``(B,)``; nothing is drawn.

        Args:
            product: Products with J.
            x: Points, shape ``(B, *event)``.
            generator: Not used.
        """
        dim = x.shape[1:].numel()
        axes = torch.eye(dim, dtype=x.dtype, device=x.device)
        columns = product(axes.reshape(dim, 1, *x.shape[1:])).flatten(2).expand(-1, x.shape[0], -1)
        # Not slogdet, whose second derivatives are wrong in torch 2.13 where two are taken in forward mode.
        LU = torch.linalg.lu_factor_ex(axes + columns.movedim(0, 2)).LU
        return LU.diagonal(dim1=1, dim2=2).abs().log().sum(1)

    __repr__ = compact_repr


@dataclass(frozen=True, repr=False)
class RussianRoulette:
    r"""The power series, ended at random and reweighted so that its expectation is :math:`\log\det(I + J)`.

    .. math:: \sum_{k=1}^{n + N} \frac{(-1)^{k+1}}{k}\, \frac{\eta^\top J^k \eta}{P(N \ge k - n)}, \qquad
        P(N \ge j) = p^j \text{ for } j \ge 0, \text{ else } 1

    The first n terms are always kept. Their number N beyond that is geometric and drawn anew for each row and each
    call, as the probes are; so rows are independent, and the noise of a mean over a batch falls with its size. A row
    takes :math:`n + p / (1 - p)` products on average.

    With :math:`\|J\|_2 \le L` the k-th term is at most :math:`L^k D / k`, and the variance is finite if
    :math:`L^2 < p`. Below that it may be infinite, and then a standard error of draws means nothing. Larger p
    costs terms, larger n lowers the variance of what comes after by :math:`L^{2n}`. What remains for any p and n
    is the variance of Hutchinson's probe; more ``probes`` divide it.

    Args:
        terms: n, at least 1.
        ratio: p, in (0, 1).
        probes: Number of probes for each row that are averaged.

    Raises:
        ValueError: If ``terms`` or ``probes`` is not a positive int, or the ratio is not in (0, 1).

    References:
        Residual Flows for Invertible Generative Modeling, Chen et al., 2019, arXiv:1906.02735;
        A stochastic estimator of the trace of the influence matrix, Hutchinson, 1989.

    Example:
        >>> import torch
        >>> estimate = RussianRoulette()(
        ...     lambda v, rows=None: 0.5 * v, torch.zeros(10_000, 2)
        ... )
        >>> bool(
        ...     (estimate.mean() - torch.tensor(2.25).log()).abs()
        ...     < 4 * estimate.std() / 100
        ... )
        True
    """

    terms: int = 4
    ratio: float = 0.9
    probes: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", check_positive_int(self.terms, "terms"))
        object.__setattr__(self, "probes", check_positive_int(self.probes, "probes"))
        if not 0 < self.ratio < 1:
            raise ValueError(
                f"Expected 0 < ratio < 1; got {self.ratio!r}. The variance is finite where ratio > coefficient "
                "squared. For a series without a random end use TruncatedSeries(terms)."
            )

    def __call__(self, product: JacobianProduct, x: Tensor, generator: Generator | None = None) -> Tensor:
        """An unbiased estimate in nats, shape ``(B,)``.

        Args:
            product: Products with J.
            x: Points, shape ``(B, *event)``.
            generator: Source of the probes and of the numbers of terms.
        """
        return _series(product, x, generator, self.terms, self.ratio, self.probes)

    __repr__ = compact_repr


@dataclass(frozen=True, repr=False)
class TruncatedSeries:
    r"""The power series cut after n terms: biased, and here to show its bias.

    .. math:: \sum_{k=1}^{n} \frac{(-1)^{k+1}}{k}\, \eta^\top J^k \eta, \qquad
        |\text{bias}| \le \frac{D}{n + 1}\, \frac{L^{n+1}}{1 - L}

    Trained with it, a flow learns to make the neglected terms large, and reports a likelihood that is not its own. Use
    :class:`RussianRoulette`.

    Args:
        terms: n, at least 1.
        probes: Number of probes for each row that are averaged.

    Raises:
        ValueError: If ``terms`` or ``probes`` is not a positive int.

    References:
        Invertible Residual Networks, Behrmann et al., 2018, arXiv:1811.00995.

    Example:
        >>> import torch
        >>> TruncatedSeries(2)(
        ...     lambda v, rows=None: 0.5 * v, torch.zeros(1, 1)
        ... ).item()  # log 1.5 = 0.405
        0.375
    """

    terms: int = 5
    probes: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", check_positive_int(self.terms, "terms"))
        object.__setattr__(self, "probes", check_positive_int(self.probes, "probes"))

    def __call__(self, product: JacobianProduct, x: Tensor, generator: Generator | None = None) -> Tensor:
        """A biased estimate in nats, shape ``(B,)``.

        Args:
            product: Products with J.
            x: Points, shape ``(B, *event)``.
            generator: Source of the probes.
        """
        return _series(product, x, generator, self.terms, 0.0, self.probes)

    __repr__ = compact_repr


def _series(
    product: JacobianProduct, x: Tensor, generator: Generator | None, terms: int, ratio: float, probes: int
) -> Tensor:
    r"""The sum of the terms, by :math:`v \leftarrow J v` from the probes; a ratio of 0 ends it after ``terms``."""
    eta = torch.randint(0, 2, (probes, *x.shape), **source(generator), dtype=x.dtype, device=x.device) * 2 - 1
    last = terms + (_geometric(ratio, x, generator) if ratio else x.new_zeros(x.shape[0]))
    total, v, k = x.new_zeros(x.shape[0]), eta, 0
    # Rows end at different k, and a row that has ended is left out of all further products: the work is that of the
    # sum of their lengths, not of the longest row times the batch.
    rows = torch.arange(x.shape[0], device=x.device)
    while len(rows):
        k += 1
        v = product(v, rows)
        weight = (-1) ** (k + 1) / (k * ratio ** max(k - terms, 0))
        total = total.index_add(0, rows, weight * (eta * v).flatten(2).sum(2).mean(0))
        keep = last[rows] > k
        rows, v, eta = rows[keep], v[:, keep], eta[:, keep]
    return total


def _geometric(ratio: float, x: Tensor, generator: Generator | None) -> Tensor:
    r"""N with :math:`P(N \ge j) = p^j`, one for each row: :math:`\lfloor \log U / \log p \rfloor`, U uniform."""
    u = 1 - torch.rand(x.shape[0], **source(generator), dtype=widest(x.device), device=x.device)
    return (u.log() / math.log(ratio)).floor()
