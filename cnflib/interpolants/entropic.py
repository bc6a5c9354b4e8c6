r"""Entropic optimal transport: a plan between two batches, made by Sinkhorn's iterations, and pairs drawn from it.

.. math:: P = \arg\min_P \sum_{ij} P_{ij} C_{ij} + \varepsilon s \sum_{ij} P_{ij} \log P_{ij},
    \qquad C_{ij} = |x_0^i - x_1^j|^2

Only the part :math:`-2\, (x_0^i - \bar x_0) \cdot (x_1^j - \bar x_1)` of C depends on the pairing; its standard
deviation s over all i and j is the unit of the regularization.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cnflib._random import source
from cnflib._settings import compact_repr
from cnflib.interpolants._checks import check_ends
from cnflib.interpolants.pairing import RowPairing

__all__ = ["Sinkhorn", "sinkhorn_plan"]

EVERY = 10  # iterations between two looks at the error, each of which waits for the device


@dataclass(frozen=True, repr=False)
class Sinkhorn(RowPairing):
    r"""Pairs drawn from the entropic plan: each :math:`x_1^j` gets an :math:`x_0^i` at random by the plan.

    As the regularization :math:`\varepsilon \to 0` this becomes :class:`OptimalTransport`, as
    :math:`\varepsilon \to \infty` a pairing at random. All of it runs where the points are, in :math:`O(B^2)` memory
    and time per iteration; the smaller :math:`\varepsilon`, the more iterations.

    Every data point is used once. A base point may be drawn several times or never: its marginal holds on average over
    the draws, up to the tolerance, and not in one batch.

    Args:
        regularization: The weight :math:`\varepsilon > 0` of the entropy, in units of the standard deviation s of
            what the pairing can change in the squared distance: it means the same at every place, scale and dimension.
        iterations: The most iterations.
        tolerance: The largest error of the marginal of x0, :math:`\sum_i |\sum_j P_{ij} - 1/B|`, in [0, 2].

    Raises:
        ValueError: When called, if the iterations do not reach the tolerance, as for points or a regularization without
            sense.

    References:
        Sinkhorn Distances, Cuturi, 2013, arXiv:1306.0895;
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong et al., 2023,
        arXiv:2302.00482.

    Example:
        >>> import torch
        >>> x0, x1 = torch.randn(2, 64, 2)
        >>> near, _ = Sinkhorn(0.02)(x0, x1)
        >>> bool((near - x1).square().sum() < (x0 - x1).square().sum())
        True
    """

    regularization: float = 0.05
    iterations: int = 2000
    tolerance: float = 0.01

    __repr__ = compact_repr

    def pick(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """A draw from each column of the plan, shape ``(B,)``."""
        plan = _plan(x0, x1, self)
        return torch.multinomial(plan.T, 1, **source(generator))[:, 0]


def sinkhorn_plan(
    x0: Tensor, x1: Tensor, regularization: float = 0.05, iterations: int = 2000, tolerance: float = 0.01
) -> Tensor:
    r"""The entropic plan P between two batches, shape ``(B, B)``: rows are those of x0, columns those of x1.

    Iterated on logarithms, :math:`P_{ij} = e^{u_i + v_j - C_{ij} / \varepsilon s}`, until the rows sum to
    :math:`1/B` up to the tolerance. The columns do exactly.

    Args:
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        regularization: The weight :math:`\varepsilon`, in units of s.
        iterations: The most iterations.
        tolerance: The largest :math:`\sum_i |\sum_j P_{ij} - 1/B|`.

    Raises:
        ValueError: If the ends differ in shape, dtype or device or the iterations do not suffice.

    Example:
        >>> import torch
        >>> plan = sinkhorn_plan(torch.randn(4, 2), torch.randn(4, 2))
        >>> torch.allclose(plan.sum(0), torch.full((4,), 0.25))
        True
    """
    check_ends(x0, x1)
    return _plan(x0, x1, Sinkhorn(regularization, iterations, tolerance))


def _plan(x0: Tensor, x1: Tensor, settings: Sinkhorn) -> Tensor:
    regularization, iterations, tolerance = settings.regularization, settings.iterations, settings.tolerance
    gain = _normalised(x0) @ _normalised(x1).T
    if not len(gain):
        return gain
    scores = gain / (regularization * gain.std(correction=0)).clamp_min(torch.finfo(gain.dtype).tiny)
    u, v, logB = torch.zeros_like(gain[0]), torch.zeros_like(gain[0]), math.log(len(gain))
    error = torch.inf
    for k in range(1, iterations + 1):
        u = -logB - (scores + v).logsumexp(1)
        v = -logB - (scores + u[:, None]).logsumexp(0)
        if k % EVERY == 0 or k == iterations:
            plan = (scores + u[:, None] + v).exp()
            error = (plan.sum(1) - 1 / len(plan)).abs().sum()
            if error <= tolerance:
                return plan
    raise ValueError(
        f"Expected Sinkhorn's marginal error to reach tolerance={tolerance} in iterations={iterations}; "
        f"got {error:.3g} at regularization={regularization}. "
        "Raise iterations or regularization, drop points with NaN, or take OptimalTransport(), which is exact."
    )


def _normalised(x: Tensor) -> Tensor:
    """Points about their mean, of size 1: neither place nor scale changes what is to be paired with what."""
    x = x.flatten(1) - x.flatten(1).mean(0)
    return x / x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
