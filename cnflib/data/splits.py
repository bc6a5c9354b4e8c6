r"""A split of one's own table into rows to fit, to choose by and to report."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from cnflib._random import source
from cnflib.data._split import fixed_order

__all__ = ["split"]


def split(
    *tables: Tensor | ArrayLike,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    generator: Generator | None = None,
) -> tuple[tuple[Tensor, ...], ...]:
    r"""Split the rows of one or more tables at random, all by the same permutation :math:`\pi` of N rows.

    .. math:: \text{part } k = \big(x_{\pi(i)}\big)_{N F_{k-1} \le i < N F_k}, \qquad F_k = f_1 + \dots + f_k

    Bounds are rounded to whole rows. The parts are disjoint, hold every row, and are copies.

    Args:
        tables: Tensors or NumPy arrays of N rows each, such as x and its context; each keeps its dtype and device.
        fractions: The shares :math:`f_k > 0` of the parts, of sum 1.
        generator: Source of the permutation; None takes a fixed one, the same on every machine and in every version, of
            which torch's default generator takes no notice.

    Returns:
        One tuple for each part, with as many tensors as there are tables.

    Raises:
        ValueError: If the numbers of rows differ, the fractions are no shares of 1, or a part would be empty.

    Example:
        >>> import torch
        >>> x, context = torch.randn(200, 2), torch.rand(200, 1)
        >>> train, validation, test = split(x, context)
        >>> [len(part[0]) for part in (train, validation, test)]
        [160, 20, 20]
        >>> from cnflib.models import realnvp
        >>> realnvp(dim=2, context=1).log_prob(*validation).shape
        torch.Size([20])
    """
    columns = [x if isinstance(x, Tensor) else torch.as_tensor(np.array(x)) for x in tables]
    shares, sizes = np.array(fractions, dtype=float).reshape(-1), {len(x) if x.ndim else 0 for x in columns}
    n = min(sizes, default=0)
    bounds = np.rint(n * np.cumsum([0.0, *shares]))
    if len(sizes) != 1 or not np.isclose(shares.sum(), 1.0, rtol=1e-9) or (np.diff(bounds) < 1).any():
        raise ValueError(
            "Expected tables of equally many rows, and positive fractions of sum 1 that leave no part empty; got "
            f"tables of shapes {[tuple(x.shape) for x in columns]} and fractions={fractions}. Shares go by name: "
            "fractions=(0.8, 0.2); numbers of rows become shares by n / len(x); images and labels are "
            "split(*mnist()[:2])."
        )
    if generator is None:
        order = fixed_order(n)
    else:
        order = torch.randperm(n, **source(generator), device=generator.device)
    parts = [order[start:stop] for start, stop in itertools.pairwise(map(int, bounds))]
    return tuple(tuple(x[rows.to(x.device)] for x in columns) for rows in parts)


def __dir__() -> list[str]:
    return sorted(__all__)
