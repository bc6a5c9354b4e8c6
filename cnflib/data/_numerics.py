r"""The three numerical tools of the toy laws: quadrature nodes, bisection, and log-sum-exp over ragged rows."""

import math
from collections.abc import Callable

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

__all__ = ["bisect", "gauss_legendre", "logsumexp_by_row"]


def gauss_legendre(low: float, high: float, count: int) -> tuple[Tensor, Tensor]:
    r"""Return the nodes and weights of Gauss-Legendre quadrature, exact for polynomials up to degree 2 N - 1.

    Args:
        low: The lower limit.
        high: The upper limit.
        count: The number N of nodes.

    Returns:
        The nodes and the weights, each float64 of shape ``(N,)``.
    """
    nodes, weights = map(torch.from_numpy, leggauss(count))
    return low + (high - low) * (nodes + 1) / 2, (high - low) * weights / 2


def bisect(above: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    r"""Halve brackets down to rounding.

    Args:
        above: A predicate, false to the left of the sought point and true to its right.
        low: The left ends of the brackets.
        high: The right ends, of the same shape.

    Returns:
        The left ends of the final brackets; where the predicate is true everywhere, low itself.
    """
    step = high - low
    for _ in range(4 - round(math.log2(torch.finfo(low.dtype).eps))):
        step = step / 2
        middle = low + step
        low = torch.where(above(middle), low, middle)
    return low


def logsumexp_by_row(terms: Tensor, row: Tensor, rows: int) -> Tensor:
    r"""Evaluate :math:`\log \sum_{i: \, \text{row}_i = b} e^{\text{terms}_i}` for each row b, -inf where it is empty.

    Args:
        terms: The terms, shape ``(M,)``.
        row: The row that each term belongs to, int64 of shape ``(M,)``.
        rows: The number B of rows.

    Returns:
        The sums, shape ``(B,)``.
    """
    largest = terms.new_full((rows,), -math.inf).scatter_reduce(0, row, terms.detach(), "amax")
    total = terms.new_zeros(rows).index_add(0, row, (terms - largest[row]).exp())
    return largest + total.log()
