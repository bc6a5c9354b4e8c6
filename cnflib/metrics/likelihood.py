r"""How good a density is: likelihood, the gap to the truth, total mass, bits per dimension.

.. math:: -\mathbb E_p \log \hat p(x) = H(p) + \mathrm{KL}(p \,\|\, \hat p), \qquad \int \hat p(x)\, dx = 1

The identity splits a test NLL into an entropy that no model can lower and a gap that a better model closes.
It holds only for a :math:`\hat p` of mass 1, so a likelihood counts together with its mass.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cnflib._check import check_positive_int, check_returned
from cnflib.metrics._checks import checked_logs
from cnflib.metrics.results import Estimate

__all__ = ["Bounds", "LogProb", "bits_per_dim", "mass", "midpoints", "nll", "on_grid", "paired_gap"]


LogProb = Callable[[Tensor], Tensor]
"""``log_prob(x) -> (N,)``: log-densities in nats at points ``(N, D)``."""

Bounds = Sequence[tuple[float, float]]
"""The box ``((a_1, b_1), ..., (a_D, b_D))``, D = 1 or 2, in the unit of x."""


def nll(log_prob: Tensor) -> Estimate:
    r"""Negative log-likelihood per point, :math:`-\frac1N \sum_i \log \hat p(x_i)`, in nats.

    A point to which the model gives density 0 makes it +inf, as it should.

    Args:
        log_prob: :math:`\log \hat p(x_i)` at independent test points, shape ``(N,)``, nats, N ≥ 2.

    Returns:
        An :class:`Estimate`: ``nll(…).value`` is the number, ``.standard_error`` its standard error. Of two models on
        the same points compare by :func:`paired_gap`.

    Raises:
        ValueError: If the shape is not ``(N,)`` with N ≥ 2, or a value is NaN or +inf.
    """
    return _estimate(-checked_logs(log_prob, "log_prob", least=2))


def paired_gap(log_p: Tensor, log_q: Tensor) -> Estimate:
    r"""How much better p fits the same points than q: a mean difference of log-densities, in nats.

    .. math:: \frac1N \sum_i \big( \log p(x_i) - \log q(x_i) \big)

    Of any two models on the same test points; above zero p is the better one. Pairing cancels the scatter of the points
    that the difference of two NLLs keeps: the closer the two, the smaller the standard error.

    Where p is the truth, :math:`x_i \sim p`, it is an estimate of :math:`\mathrm{KL}(p \,\|\, q) \ge 0`. Only then does
    a gap below zero by many standard errors mean that q has a mass above 1.

    Args:
        log_p: Log-densities :math:`\log p(x_i)` of one model, or of the truth, shape ``(N,)``, nats, all finite.
        log_q: Those of the other, at the same points, shape ``(N,)``, nats; a density of 0 gives a gap of +inf.

    Raises:
        ValueError: If a shape is not ``(N,)`` with N ≥ 2, the two differ, or a value is NaN or +inf.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> x = torch.linspace(-1, 1, 5)
        >>> narrow, broad = Normal(0.0, 0.7), Normal(0.0, 2.0)
        >>> print(paired_gap(narrow.log_prob(x), broad.log_prob(x)))
        0.60 ± 0.19
    """
    log_p, log_q = checked_logs(log_p, "log_p", least=2), checked_logs(log_q, "log_q", least=2)
    check_returned(log_q, tuple(log_p.shape), "the model", "log_q", "Both are taken at the same points.")
    return _estimate(log_p - log_q)


def mass(
    log_prob: LogProb,
    bounds: Bounds,
    points: int = 200,
    chunk: int = 2**14,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> float:
    r"""Total mass in a box by the midpoint rule; 1 for a density that lives inside the box.

    .. math:: \int \hat p(x)\, dx \approx \prod_d h_d \sum_k \hat p(x_k), \qquad h_d = (b_d - a_d) / n

    The error falls as :math:`h^2`, faster for a smooth density that vanishes at the border, and is O(h) where
    a jump does not fall on a cell's edge. Compare two values of ``points`` before reading the third decimal.

    Args:
        log_prob: Maps points ``(N, D)`` to log-densities ``(N,)`` in nats.
        bounds: The box ``((a_1, b_1), ..., (a_D, b_D))``, D = 1 or 2, in the unit of x.
        points: Cells along each axis, n.
        chunk: Points per call of ``log_prob``; lower it if memory runs out.
        dtype: dtype of the points, torch's default if None.
        device: Device of the points, torch's default if None: that of the model.

    Raises:
        ValueError: If the box is not one or two pairs a < b, or ``log_prob`` gives a wrong shape, NaN
            or +inf.
    """
    density = on_grid(log_prob, bounds, points, chunk, dtype, device).exp()
    return float(density.mean() * math.prod(b - a for a, b in bounds))


def bits_per_dim(log_prob: Tensor, dims: int, levels: float = 1) -> Estimate:
    r"""Bits per dimension of integer data :math:`y \in \{0, \dots, L - 1\}^D` under a dequantised density.

    .. math:: \mathrm{bpd} = -\frac{\log \hat p(x)}{D \log 2} + \log_2 c,
              \qquad x = (y + u) / c,\ u \in [0, 1)^D

    The unit of x matters: a density in the integers' own unit (c = 1) is compared with unit cells, and
    rescaling by c multiplies it by :math:`c^D`. Data divided by the number of levels into [0, 1) have c = L:
    256 levels add 8 bits; in [-1, 1) they have c = L/2. The log-determinants of ``Dequantize`` and ``Logit``
    inside a flow are part of its log p̂, so c belongs to the x that ``log_prob`` was given. The discrete code
    length is at most this one in expectation over u (Jensen); state how many draws of u it is a mean of.

    Args:
        log_prob: :math:`\log \hat p(x_i)` in nats, one per image, shape ``(N,)``, N ≥ 2.
        dims: Numbers per image, D (channels × height × width).
        levels: The divisor c that took integers to x: 1 for x in integer units, L for x in [0, 1).

    Raises:
        ValueError: As in :func:`nll`, and if D is no positive int, or c is not positive.
    """
    if not 0 < levels < math.inf:
        raise ValueError(f"Expected 0 < levels < inf; got {levels}. For integers in their own unit it is 1.")
    nats = nll(log_prob)
    scale = check_positive_int(dims, "dims", " Of images: images[0].numel().") * math.log(2)
    return Estimate(nats.value / scale + math.log2(levels), nats.standard_error / scale)


def midpoints(
    bounds: Bounds,
    points: int = 200,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Centres of the cells that cut a box into ``points`` equal parts along each axis.

    .. math:: x_k = a + (k + \tfrac12) \frac{b - a}{n}, \qquad k = 0, \dots, n - 1

    Args:
        bounds: The box ``((a_1, b_1), ..., (a_D, b_D))``, D = 1 or 2, in the unit of x.
        points: Cells along each axis, n.
        dtype: dtype of the result, torch's default if None.
        device: Device of the result, torch's default if None.

    Returns:
        The centres, shape ``(points**D, D)``; the last coordinate varies fastest.

    Raises:
        ValueError: If the box is not one or two pairs a < b, or ``points`` is no positive int.
    """
    box = torch.as_tensor(bounds, dtype=torch.float64, device="cpu")
    if box.shape not in ((1, 2), (2, 2)) or not (box[:, 0] < box[:, 1]).all():
        raise ValueError(
            f"Expected bounds ((a, b),) in 1-D or ((a1, b1), (a2, b2)) in 2-D with a < b; got {bounds}. "
            "In more dimensions a grid is too large: compare two densities with paired_gap instead."
        )
    points = check_positive_int(points, "points")
    fractions = (torch.arange(points, dtype=dtype or torch.get_default_dtype(), device=device) + 0.5) / points
    axes = [a + (b - a) * fractions for a, b in bounds]
    return torch.cartesian_prod(*axes).reshape(-1, len(bounds))


def on_grid(
    log_prob: LogProb,
    bounds: Bounds,
    points: int = 200,
    chunk: int = 2**14,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Log-densities at the midpoints of a grid, without gradients.

    Args: as in :func:`mass`.

    Returns:
        ``log_prob`` at :func:`midpoints`, float64 on the CPU, shape ``(points,)`` or ``(points, points)``;
        axis d is coordinate d.

    Raises:
        ValueError: As in :func:`mass`.
    """
    with torch.no_grad():
        chunks = midpoints(bounds, points, dtype, device).split(check_positive_int(chunk, "chunk"))
        values = [checked_logs(log_prob(x), "log_prob", least=x.shape[0]) for x in chunks]
    return torch.cat(values).reshape((points,) * len(bounds))


def _estimate(values: Tensor) -> Estimate:
    mean = values.mean().item()
    error = values.std().item() / math.sqrt(len(values)) if math.isfinite(mean) else math.inf
    return Estimate(mean, error)
