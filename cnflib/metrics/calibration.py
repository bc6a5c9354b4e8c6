r"""Whether a conditional density is as sure as it may be: probability integral transform, ranks, coverage.

.. math:: u_i = F(x_i \,|\, c_i) \sim \mathrm{Uniform}(0, 1) \quad\text{if}\quad x_i \sim p(\cdot \,|\, c_i)

F is the model's distribution function of one coordinate. Each function here turns data into numbers that are exactly
uniform where the model is the truth: the rank among draws of the model for the same context, or Φ of a latent. A
hill in their histogram is a model too broad, a valley one too narrow, a slope a shifted one.

Calibration alone is not a fit: a model that ignores c and returns :math:`p(x)` passes all but a test that looks at c.
Test within bins of c too, or look at the likelihood.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cnflib._random import source
from cnflib.metrics._checks import check_draws
from cnflib.metrics.results import Estimate, Significance

__all__ = [
    "Coverage",
    "central_level",
    "coverage",
    "density_level",
    "latent_pit",
    "pit",
    "rank_uniformity",
    "ranks",
    "tarp_level",
    "uniformity",
]


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


def ranks(x: Tensor, draws: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Rank of each number of x among the model's draws of it, from 0 to S; ties are broken at random.

    .. math:: r = \#\{s : x^s < x\} + \mathrm{Uniform}\{0, \dots, \#\{s : x^s = x\}\}

    Uniform on :math:`\{0, \dots, S\}` for any S, if x and the draws follow one law given the context. With parameters
    drawn from a prior as x and draws of the posterior given what they simulate, these are the ranks of
    simulation-based calibration. Draws must be independent; thin those of a Markov chain.

    Args:
        x: Data, or parameters drawn from the prior, shape ``(N, *event)``.
        draws: Draws of the model for the context of each row of x, such as
            ``cnflib.adapters.given(flow, context).sample((S,))``, shape ``(S, N, *event)``.
        generator: Source of randomness for ties.

    Returns:
        Integers, shape ``(N, *event)``.

    Raises:
        ValueError: If the shapes do not fit, or there is a NaN.

    References:
        Validating Bayesian Inference Algorithms with Simulation-Based Calibration, Talts et al., 2018,
        arXiv:1804.06788.

    Example:
        >>> import torch
        >>> x, draws = torch.tensor([2.5, 0.5]), torch.arange(4.0)
        >>> ranks(x, draws[:, None].expand(4, 2))
        tensor([3, 1])
    """
    check_draws(x, draws)
    below, ties = (draws < x).sum(0), (draws == x).sum(0)
    return below + (_uniform(x, generator) * (ties + 1)).long()


def pit(x: Tensor, draws: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Randomised probability integral transform of x from draws: uniform on [0, 1) under the truth, for any S.

    .. math:: u = \frac{r + v}{S + 1}, \qquad v \sim \mathrm{Uniform}(0, 1)

    Args: as in :func:`ranks`, whose r this is.

    Returns:
        u, float64, shape ``(N, *event)``; the coordinates of one row may depend on each other.

    Raises:
        ValueError: As in :func:`ranks`.

    Example:
        >>> import torch
        >>> from cnflib.metrics import uniformity
        >>> x, draws = torch.randn(1000), torch.randn(9, 1000)
        >>> uniformity(pit(x, draws)).p_value > 1e-4
        True
    """
    return (ranks(x, draws, generator) + _uniform(x, generator)) / (len(draws) + 1)


def latent_pit(z: Tensor) -> Tensor:
    r"""Probability integral transform by latents, :math:`u = \Phi(z)`, for a flow of standard normal base.

    Under the truth the latents of independent points are independent and standard normal, so all coordinates are
    uniform and independent. A solve is all it costs: no draw is needed.

    Args:
        z: Latents, such as ``flow.encode(x, context)``, any shape.

    Returns:
        u, float64, of z's shape.

    Example:
        >>> import torch
        >>> latent_pit(torch.tensor([-1.96, 0.0, 1.96])).round(decimals=3)
        tensor([0.0250, 0.5000, 0.9750], dtype=torch.float64)
    """
    return torch.special.ndtr(z.detach().double())


def central_level(u: Tensor) -> Tensor:
    r"""Level of the smallest central interval that holds x, :math:`|2u - 1|`; uniform under the truth.

    Args:
        u: Probability integral transforms, any shape.

    Example:
        >>> import torch
        >>> central_level(torch.tensor([0.5, 0.05, 0.95]))
        tensor([0.0000, 0.9000, 0.9000])
    """
    return (2 * u - 1).abs()


def density_level(log_prob: Tensor, log_prob_draws: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Level of the smallest region of highest density that holds x; uniform under the truth, in any dimension.

    .. math:: 1 - \mathrm{pit}\big(\log p(x | c);\ \log p(x^1 | c), \dots, \log p(x^S | c)\big)

    Args:
        log_prob: :math:`\log p(x_i | c_i)` of the model, shape ``(N,)``, nats.
        log_prob_draws: The same at draws of the model for the same contexts, shape ``(S, N)``.
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
        >>> levels = tarp_level(x, torch.randn(99, 1000, 3), r)
        >>> uniformity(levels).p_value > 1e-4
        True
    """
    check_draws(x, draws)
    check_draws(x, reference[None], "reference")
    distance, distances = (x - reference).flatten(1).norm(dim=1), (draws - reference).flatten(2).norm(dim=2)
    return pit(distance, distances, generator)


def coverage(level: Tensor, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)) -> Coverage:
    r"""Share of points whose region of nominal level a holds them; a where the model is the truth.

    .. math:: \frac1N \#\{i : \ell_i \le a\}

    A share below a means that the model is too sure, above that it is not sure enough.

    Args:
        level: For each of N independent points the level ℓ of the smallest region that holds it, by
            :func:`central_level`, :func:`density_level` or :func:`tarp_level`, shape ``(N,)``.
        levels: The nominal levels a in (0, 1).

    Raises:
        ValueError: If the shape is not ``(N,)``.

    Example:
        >>> import torch
        >>> print(coverage(torch.linspace(0, 1, 101), (0.5, 0.9)))
         50.0%: 50.5 ± 5.0 %
         90.0%: 90.1 ± 3.0 %
    """
    if level.ndim != 1 or len(level) == 0:
        raise ValueError(
            f"Expected level of shape (N,), one number per independent point; got {tuple(level.shape)}. Of several "
            "coordinates take one at a time: level[:, 0]."
        )
    shares = [
        Estimate((level <= a).double().mean().item(), math.sqrt(a * (1 - a) / len(level))) for a in levels
    ]
    return Coverage(tuple(levels), tuple(shares))


def uniformity(u: Tensor) -> Significance:
    r"""Kolmogorov–Smirnov test that numbers are uniform on [0, 1], exact for N independent points.

    .. math:: D_N = \sup_a \Big| \frac1N \#\{i : u_i \le a\} - a \Big|

    Of several coordinates it is the largest distance, and Bonferroni's p, the smallest times their number: right
    however they depend on each other. The test sees a shift better than wrong tails: for these test
    ``central_level(u)``.

    Args:
        u: Numbers such as :func:`pit`, rows independent, shape ``(N, *event)``.

    Example:
        >>> import torch
        >>> print(uniformity(torch.linspace(0, 0.8, 50)))
        0.2, p = 0.031
    """
    from scipy.stats import kstwo  # takes a while to import

    ordered = _columns(u).double().sort(1).values
    steps = torch.arange(len(u) + 1, dtype=torch.float64) / len(u)
    largest = max((steps[1:] - ordered).max().item(), (ordered - steps[:-1]).max().item())
    return Significance(largest, min(1.0, len(ordered) * float(kstwo.sf(largest, len(u)))))


def rank_uniformity(ranks: Tensor, draws: int, bins: int = 20) -> Significance:
    r"""Pearson's chi-squared test that ranks are uniform on :math:`\{0, \dots, S\}`.

    .. math:: \chi^2 = \sum_b \frac{(n_b - N q_b)^2}{N q_b}, \qquad q_b = \frac{\#\{r \text{ in bin } b\}}{S + 1}

    Bins are of equal width up to one rank, and :math:`q_b` counts the ranks in each, so S + 1 need not be a multiple
    of their number. The law of the statistic is the limit of large N: keep :math:`N q_b` above 5. Several coordinates
    go together as in :func:`uniformity`.

    Args:
        ranks: Ranks by :func:`ranks`, rows independent, shape ``(N, *event)``.
        draws: The number S of draws that they are ranks among.
        bins: The number of bins, at most S + 1 are used.

    Raises:
        ValueError: If a rank is outside of 0, ..., S.

    References:
        Talts et al., 2018, arXiv:1804.06788.

    Example:
        >>> import torch
        >>> print(rank_uniformity(torch.arange(100) % 10, draws=9))
        0, p = 1
    """
    from scipy.stats import chi2

    if (ranks < 0).any() or (ranks > draws).any():
        raise ValueError(
            f"Expected ranks in 0, …, draws = {draws}; got {ranks.min().item()} to {ranks.max().item()}. Pass the "
            "number of draws that they are ranks among."
        )
    bins, columns = min(bins, draws + 1), _columns(ranks)
    expected = len(ranks) / (draws + 1) * _in_bins(torch.arange(draws + 1), draws, bins)
    counts = torch.stack([_in_bins(column, draws, bins) for column in columns])
    largest = ((counts - expected) ** 2 / expected).sum(1).max().item()
    return Significance(largest, min(1.0, len(columns) * float(chi2.sf(largest, bins - 1))))


def _uniform(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(like.shape, dtype=torch.float64, device=like.device, **source(generator))


def _columns(u: Tensor) -> Tensor:
    """The coordinates of rows, shape ``(D, N)``."""
    return u.detach().cpu().reshape(len(u), -1).T


def _in_bins(ranks: Tensor, draws: int, bins: int) -> Tensor:
    """How many ranks are in each bin, shape ``(bins,)``."""
    return torch.bincount(ranks * bins // (draws + 1), minlength=bins)
