r"""Whether regions of a nominal level hold their share of points: central intervals, regions of high density, balls.

.. math:: \ell_i \sim \mathrm{Uniform}(0, 1) \quad\text{if}\quad x_i \sim p(\cdot \,|\, c_i)

The level :math:`\ell_i` of a point is that of the smallest region that holds it. Each kind of region gives one,
uniform where the model is the truth, and the share of points with :math:`\ell_i \le a` is the coverage at a.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Generator, Tensor

from cnflib._words import described
from cnflib.metrics._checks import check_draws, check_unit, checked_levels
from cnflib.metrics.calibration import pit
from cnflib.metrics.results import Estimate

__all__ = ["Coverage", "central_level", "coverage", "density_level", "tarp_level"]


class Coverage(NamedTuple):
    r"""The share of points inside the regions of each level; prints a line for each.

    Args:
        levels: The nominal levels a.
        shares: For each the share of points inside, with the standard error :math:`\sqrt{a (1 - a) / N}` that it has
            where the model is the truth: further off than two or three of them, it is not.
    """

    levels: tuple[float, ...]
    shares: tuple[Estimate, ...]

    def __str__(self) -> str:
        return "\n".join(f"{a:6.1%}: {100 * v:.1f} ± {100 * e:.1f} %" for a, (v, e) in zip(*self))


def central_level(u: Tensor) -> Tensor:
    r"""Level of the smallest central interval that holds x, :math:`|2u - 1|`; uniform under the truth.

    Args:
        u: Probability integral transforms in [0, 1], any shape.

    Raises:
        ValueError: If there is none, a NaN, or a number outside of [0, 1].

    Example:
        >>> import torch
        >>> central_level(torch.tensor([0.5, 0.05, 0.95]))
        tensor([0.0000, 0.9000, 0.9000])
    """
    check_unit(u, "u")
    return (2 * u - 1).abs()


def density_level(log_prob: Tensor, log_prob_draws: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Level of the smallest region of highest density that holds x; uniform under the truth, in any dimension.

    .. math:: 1 - \mathrm{pit}\big(\log p(x | c);\ \log p(x^1 | c), \dots, \log p(x^S | c)\big)

    Args:
        log_prob: :math:`\log p(x_i | c_i)` of the model, shape ``(N,)``, nats.
        log_prob_draws: The same at draws of the model for the same contexts, shape ``(S, N)``; of a model without
            context, whose draws serve all rows, ``flow.log_prob(flow.sample(S))[:, None]``, shape ``(S, 1)``. Levels
            of different rows then depend on each other as in :func:`~cnflib.metrics.ranks`.
        generator: Source of randomness.

    Returns:
        Levels in (0, 1], float64, shape ``(N,)``.

    Raises:
        ValueError: If the shapes do not fit, or there is a NaN.

    References:
        Computing and Graphing Highest Density Regions, Hyndman, 1996, doi:10.2307/2684423.

    Example:
        >>> import torch
        >>> from cnflib.metrics import uniformity
        >>> x, draws = torch.randn(1000), torch.randn(99, 1000)
        >>> levels = density_level(-(x**2), -(draws**2))
        >>> uniformity(levels).p_value > 1e-4
        True
    """
    return 1 - pit(log_prob, log_prob_draws, generator)


def tarp_level(x: Tensor, draws: Tensor, reference: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Level of the ball around a random reference point that reaches x: a test by draws alone, in any dimension.

    .. math:: \mathrm{pit}\big(|x - r|;\ |x^1 - r|, \dots, |x^S - r|\big)

    Uniform under the truth for references r of any law that may depend on the context and not on x. References that
    depend on the context see faults that those of one law for all do not.

    Args:
        x: Data, shape ``(N, *event)``.
        draws: Draws of the model for the context of each row, shape ``(S, N, *event)``.
        reference: Reference points r, one for each row, shape ``(N, *event)``.
        generator: Source of randomness.

    Returns:
        Levels in [0, 1), float64, shape ``(N,)``.

    Raises:
        ValueError: If the shapes do not fit, or there is a NaN.

    References:
        Sampling-Based Accuracy Testing of Posterior Estimators for General Inference, Lemos et al., 2023,
        arXiv:2302.03026.

    Example:
        >>> import torch
        >>> from cnflib.metrics import uniformity
        >>> x, r = torch.randn(2, 1000, 3)
        >>> from cnflib.metrics import uniformity
        >>> levels = tarp_level(x, torch.randn(99, 1000, 3), r)
        >>> uniformity(levels).p_value > 1e-4
        True
    """
    check_draws(x, draws)
    if not isinstance(reference, Tensor) or reference.shape != x.shape:
        raise ValueError(
            f"Expected reference of the shape of x, {tuple(x.shape)}, a point for each row; got "
            f"{described(reference)}. One for all rows: reference.expand_as(x)."
        )
    distance, distances = (x - reference).flatten(1).norm(dim=1), (draws - reference).flatten(2).norm(dim=2)
    return pit(distance, distances, generator)


def coverage(level: Tensor, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)) -> Coverage:
    r"""Share of points whose region of nominal level a holds them; a where the model is the truth.

    .. math:: \frac1N \#\{i : \ell_i \le a\}

    A share below a means that the model is too sure, above that it is not sure enough. Each comes with the standard
    error :math:`\sqrt{a (1 - a) / N}` that it has where the model is the truth. A bare PIT u is no level: the share of
    :math:`u \le a` also depends on where the model is, so take ``central_level(u)``.

    Args:
        level: For each of N independent points the level ℓ of the smallest region that holds it, by
            :func:`central_level`, :func:`density_level` or :func:`tarp_level`, shape ``(N,)``.
        levels: The nominal levels a in (0, 1).

    Raises:
        ValueError: If the shape is not ``(N,)``, there is a NaN or a number outside of [0, 1], or a nominal level is
            outside of (0, 1).

    Example:
        >>> import torch
        >>> print(coverage(torch.linspace(0, 1, 101), (0.5, 0.9)))
         50.0%: 50.5 ± 5.0 %
         90.0%: 90.1 ± 3.0 %
    """
    levels = checked_levels(levels)
    check_unit(level, "level")
    if level.ndim != 1:
        raise ValueError(
            f"Expected level of shape (N,), one number per independent point; got {tuple(level.shape)}. Of several "
            "coordinates take one at a time: level[:, 0]."
        )
    shares = [
        Estimate((level <= a).cpu().double().mean().item(), math.sqrt(a * (1 - a) / len(level)))
        for a in levels
    ]
    return Coverage(levels, tuple(shares))
