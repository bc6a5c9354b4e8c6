r"""Minibatch optimal transport: the pairing of a batch with the least mean squared distance.

.. math:: \sigma = \arg\min_\sigma \sum_i |x_0^{\sigma(i)} - x_1^i|^2

SciPy's shortest augmenting paths solve the assignment problem exactly. Prices of the data points, near the dual
optimum, are subtracted before: they change the cost of every permutation by the same sum, and shorten the search.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cnflib._check import check_finite
from cnflib._settings import compact_repr
from cnflib.interpolants.pairing import RowPairing

__all__ = ["OptimalTransport"]

SMALL = 128  # rows up to which prices do not pay
SUBSET = 512  # rows from which the coarse prices are estimated
COARSE = [
    2 * 10 ** (-0.4 * k) for k in range(6)
]  # temperatures from 2 to 0.02 standard deviations of the cost
FINE = (0.02, 0.003)  # those of the prices on all rows


@dataclass(frozen=True, repr=False)
class OptimalTransport(RowPairing):
    r"""The permutation :math:`\sigma` of the base points that makes :math:`\sum_i |x_0^{\sigma(i)} - x_1^i|^2` least.

    Exact for the batch: every base point is used once, so that both marginals are kept, and the cost is the least of
    all joint laws of the batch. It is not exact for the distributions. The optimal pairing of B points differs from
    that of the laws they were drawn from, its mean cost is biased, and the paths of a learned velocity still bend;
    the bias vanishes as B grows, slowly in high dimension. Time grows up to as :math:`B^3`. The assignment is solved
    on the CPU, wherever the points are; in one dimension they are sorted.

    Where the data have labels, see :class:`ConditionalPairing`.

    References:
        Minibatch optimal transport distances, Fatras et al., 2021, arXiv:2101.01792;
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong et al., 2023,
        arXiv:2302.00482;
        Multisample Flow Matching, Pooladian et al., 2023, arXiv:2304.14772;
        On Implementing 2D Rectangular Assignment Algorithms, Crouse, 2016 (SciPy's algorithm).

    Example:
        >>> import torch
        >>> x0, x1 = (
        ...     torch.tensor([[0.0], [1.0], [2.0]]),
        ...     torch.tensor([[12.0], [10.0], [11.0]]),
        ... )
        >>> OptimalTransport()(x0, x1)[0].flatten().tolist()
        [2.0, 0.0, 1.0]
    """

    __repr__ = compact_repr

    def pick(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """The permutation, shape ``(B,)``; nothing is drawn."""
        check_finite(x0, "x0")
        check_finite(x1, "x1")
        x0, x1 = x0.flatten(1), x1.flatten(1)
        one = x0.shape[1] == 1
        return _sorted(x0[:, 0], x1[:, 0]) if one else _assigned(x0.cpu(), x1.cpu()).to(x0.device)


def _sorted(x0: Tensor, x1: Tensor) -> Tensor:
    """In one dimension the optimum pairs equal ranks."""
    return x0.argsort()[x1.argsort().argsort()]


def _assigned(x0: Tensor, x1: Tensor) -> Tensor:
    r"""The optimum in several: of :math:`|x_0 - x_1|^2` only :math:`-2\, x_0 \cdot x_1` depends on the permutation."""
    from scipy.optimize import linear_sum_assignment  # takes a while to import, and only this needs it

    # The search is shorter from a base, which is smooth, to data that cluster.
    cost = -_at_the_origin(x0.double()) @ _at_the_origin(x1.double()).T
    if len(cost) > SMALL:
        cost -= _prices(cost.float())
    return torch.as_tensor(linear_sum_assignment(cost.numpy())[1]).argsort()


def _at_the_origin(x: Tensor) -> Tensor:
    """Neither a shift nor a scale of one end changes the optimum; without them float32 suffices for the prices."""
    x = x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
    return x - x.mean(0)


def _prices(cost: Tensor) -> Tensor:
    """Prices of the columns, near the dual optimum: entropic ones, coarse on some rows and then finer on all."""
    scale = cost.std().clamp_min(1e-30)
    # Rows taken evenly would alias with classes that alternate.
    chosen = torch.randperm(len(cost), generator=Generator().manual_seed(0))[:SUBSET]
    some, prices = cost[chosen], torch.zeros_like(cost[0])
    for eps in COARSE:
        prices = _scaled(some, prices, eps * scale, steps=1)
    for eps in FINE:
        prices = _scaled(cost, prices, eps * scale, steps=10)
    return prices


def _scaled(cost: Tensor, prices: Tensor, eps: Tensor, steps: int) -> Tensor:
    """Prices after so many of Sinkhorn's scalings of rows and columns; the clamps hold back what float32 cannot."""
    kernel = ((prices - cost) / eps).softmax(1)
    demand = torch.ones_like(prices)
    for _ in range(steps):
        supply = 1 / (kernel @ demand).clamp_min(1e-15)
        demand = 1 / (supply @ kernel).clamp(1e-15, 1e15)
    return prices + eps * demand.log()
