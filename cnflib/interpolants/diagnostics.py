r"""What a pairing does: the length of its lines, how often they cross, which points it keeps, the bias of a batch."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cnflib._random import source
from cnflib.interpolants.pairing import Pairing

__all__ = ["BatchCost", "PairingReport", "cost_by_batch", "pairing_report"]


class PairingReport(NamedTuple):
    """What a pairing did to one batch; prints as a table. Its numbers are those of :func:`pairing_report`.

    Example:
        >>> print(
        ...     PairingReport(
        ...         cost=3.0,
        ...         independent_cost=4.0,
        ...         crossing=0.0,
        ...         used_x0=1.0,
        ...         used_x1=1.0,
        ...     )
        ... )
        mean |x1 - x0|^2, paired             3
        the same, all pairs                  4
        share of swaps that shorten          0
        share of x0 used                     1
        share of x1 used                     1
    """

    cost: float
    independent_cost: float
    crossing: float
    used_x0: float
    used_x1: float

    def __str__(self) -> str:
        lines = {
            "mean |x1 - x0|^2, paired": self.cost,
            "the same, all pairs": self.independent_cost,
            "share of swaps that shorten": self.crossing,
            "share of x0 used": self.used_x0,
            "share of x1 used": self.used_x1,
        }
        return "\n".join(f"{name:<28}{value:10.4g}" for name, value in lines.items())


def pairing_report(
    pairing: Pairing,
    x0: Tensor,
    x1: Tensor,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> PairingReport:
    r"""What a pairing does to a batch.

    Two pairs are counted as crossing where they would be shorter with their ends swapped, which is where
    :math:`(x_0^i - x_0^j) \cdot (x_1^i - x_1^j) < 0`. Optimal transport has none; for independent pairs it is about
    half of all.

    Args:
        pairing: The pairing.
        x0: Base points, shape ``(B, *event)`` with B at least 2.
        x1: Data points, shape ``(B, *event)``.
        context: Context of the data, for a pairing that takes it.
        generator: Source of random picks.

    Returns:
        ``cost``, the mean of :math:`|x_1 - x_0|^2` over the pairs, in squared units; ``independent_cost``, that over
        all combinations of the batch; ``crossing``, the share of crossing pairs among the pairs of pairs;
        ``used_x0`` and ``used_x1``, the number of different points after pairing over that before: 1 where a
        marginal is kept.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import OptimalTransport
        >>> report = pairing_report(OptimalTransport(), *torch.randn(2, 32, 2))
        >>> report.cost < report.independent_cost, report.crossing, report.used_x0
        (True, 0.0, 1.0)
    """
    y0, y1 = (y.flatten(1) for y in pairing(x0, x1, context, generator))
    x0, x1 = x0.flatten(1), x1.flatten(1)
    inner = (y0 - y0.mean(0)).cpu().double() @ (y1 - y1.mean(0)).cpu().double().T
    gain = inner.diag()[:, None] + inner.diag() - inner - inner.T
    rounding = 8 * torch.finfo(gain.dtype).eps * inner.abs().max()
    return PairingReport(
        cost=(y1 - y0).square().sum(1).mean().item(),
        independent_cost=(x0.var(0, False) + x1.var(0, False) + (x1.mean(0) - x0.mean(0)) ** 2).sum().item(),
        crossing=(gain < -rounding).sum().item() / (len(y0) * (len(y0) - 1)),
        used_x0=_distinct(y0) / _distinct(x0),
        used_x1=_distinct(y1) / _distinct(x1),
    )


class BatchCost(NamedTuple):
    """The mean cost of a pairing at one size of the batch, with its standard error over batches.

    Example:
        >>> BatchCost(size=128, cost=3.0, error=0.1).cost
        3.0
    """

    size: int
    cost: float
    error: float


def cost_by_batch(
    pairing: Pairing,
    x0: Tensor,
    x1: Tensor,
    sizes: Sequence[int],
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> list[BatchCost]:
    r"""The mean of :math:`|x_1 - x_0|^2` where the same points are paired in batches of each size.

    Rows are drawn into batches at random, as data often come sorted.

    For :class:`OptimalTransport` it falls with the size towards :math:`W_2^2`, the bias of small batches; the size
    from which on it hardly falls is the one to train with.

    Args:
        pairing: The pairing.
        x0: Base points, shape ``(N, *event)``.
        x1: Data points, shape ``(N, *event)``.
        sizes: Sizes of a batch, each at most N / 2; rows that fill no batch are left out.
        context: Context of the data, for a pairing that takes it.
        generator: Source of the batches, and of random picks.

    Returns:
        For each size the mean cost and its standard error, that of the mean over batches.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import OptimalTransport
        >>> costs = cost_by_batch(
        ...     OptimalTransport(), *torch.randn(2, 512, 2), sizes=(4, 128)
        ... )
        >>> [c.size for c in costs], costs[0].cost > costs[1].cost
        ([4, 128], True)
    """
    sizes = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    rows = torch.randperm(len(x0), **source(generator), device=x0.device)
    return [_batch_cost(pairing, x0, x1, rows, size, context, generator) for size in sizes]


def _batch_cost(
    pairing: Pairing,
    x0: Tensor,
    x1: Tensor,
    rows: Tensor,
    size: int,
    context: Tensor | None,
    generator: Generator | None,
) -> BatchCost:
    ends = []
    for batch in rows.split(size)[: len(rows) // size]:
        c = None if context is None else context[batch]
        ends.append(pairing(x0[batch], x1[batch], c, generator))
    costs = torch.stack([(y1 - y0).flatten(1).square().sum(1).mean() for y0, y1 in ends])
    return BatchCost(size, costs.mean().item(), (costs.std() / len(costs) ** 0.5).item())


def _distinct(x: Tensor) -> int:
    return len(torch.unique(x, dim=0))
