r"""Whether a conditional density is as sure as it may be: probability integral transform, ranks, coverage.

.. math:: u_i = F(x_i \,|\, c_i) \sim \mathrm{Uniform}(0, 1) \quad\text{if}\quad x_i \sim p(\cdot \,|\, c_i)

F is the model's distribution function of one coordinate. Each function here turns data into numbers that are exactly
uniform where the model is the truth: the rank among draws of the model for the same context, or Φ of a latent. A
hill in their histogram is a model too broad, a valley one too narrow, a slope a shifted one.

Calibration alone is not a fit: a model that ignores c and returns :math:`p(x)` passes all but a test that looks at c.
Test within bins of c too, or look at the likelihood.
"""

import torch
from torch import Generator, Tensor

from cnflib._check import check_positive_int
from cnflib._random import source
from cnflib._tensors import widest
from cnflib.metrics._checks import are_within, check_draws, check_unit, extent
from cnflib.metrics.results import Significance

__all__ = [
    "latent_pit",
    "pit",
    "rank_uniformity",
    "ranks",
    "uniformity",
]


def ranks(x: Tensor, draws: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Rank of each number of x among the model's draws of it, from 0 to S; ties are broken at random.

    .. math:: r = \#\{s : x^s < x\} + \mathrm{Uniform}\{0, \dots, \#\{s : x^s = x\}\}

    Uniform on :math:`\{0, \dots, S\}` for any S, if x and the draws follow one law given the context. With parameters
    drawn from a prior as x and draws of the posterior given what they simulate, these are the ranks of
    simulation-based calibration. Draws must be independent; thin those of a Markov chain.

    A model without context may have the same S draws for all rows, as ``draws[:, None]``. The ranks of different rows
    then depend on each other through them: for a test of many rows take many more draws than rows, or S for each.

    Args:
        x: Data, or parameters drawn from the prior, shape ``(N, *event)``.
        draws: Draws of the model for the context of each row of x, such as
            ``cnflib.adapters.given(flow, context).sample((S,))``, shape ``(S, N, *event)``; or the same for all
            rows, shape ``(S, 1, *event)``.
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
    z = torch.as_tensor(z)
    return torch.special.ndtr(z.detach().to(widest(z.device)))


def uniformity(u: Tensor) -> Significance:
    r"""Kolmogorov–Smirnov test that numbers are uniform on [0, 1], exact for N independent points.

    .. math:: D_N = \sup_a \Big| \frac1N \#\{i : u_i \le a\} - a \Big|

    Of several coordinates it is the largest distance, and Bonferroni's p, the smallest times their number: right
    however they depend on each other. The test sees a shift better than wrong tails: for these test
    ``central_level(u)``.

    Args:
        u: Numbers in [0, 1] such as :func:`pit`, rows independent, shape ``(N, *event)``.

    Raises:
        ValueError: If there is no row, a NaN, or a number outside of [0, 1].

    Example:
        >>> import torch
        >>> print(uniformity(torch.linspace(0, 0.8, 50)))
        0.2, p = 0.031
    """
    from scipy.stats import kstwo  # takes a while to import

    check_unit(u, "u")
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
        ValueError: If there is no rank, one is outside of 0, ..., S, or there are fewer than two bins.

    References:
        Talts et al., 2018, arXiv:1804.06788.

    Example:
        >>> import torch
        >>> print(rank_uniformity(torch.arange(100) % 10, draws=9))
        0, p = 1
    """
    from scipy.stats import chi2

    draws, bins = check_positive_int(draws, "draws"), check_positive_int(bins, "bins", least=2)
    if not are_within(ranks, draws, floating=False):
        raise ValueError(
            f"Expected ranks, integers in 0, …, draws = {draws}, at least one; got {extent(ranks)}. Pass the number of "
            "draws that they are ranks among; of a PIT: uniformity(u)."
        )
    bins, columns = min(bins, draws + 1), _columns(ranks)
    expected = len(ranks) / (draws + 1) * _in_bins(torch.arange(draws + 1), draws, bins)
    counts = torch.stack([_in_bins(column, draws, bins) for column in columns])
    largest = ((counts - expected) ** 2 / expected).sum(1).max().item()
    return Significance(largest, min(1.0, len(columns) * float(chi2.sf(largest, bins - 1))))


def _uniform(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(like.shape, dtype=widest(like.device), device=like.device, **source(generator))


def _columns(u: Tensor) -> Tensor:
    """The coordinates of rows, shape ``(D, N)``."""
    return u.detach().cpu().reshape(len(u), -1).T


def _in_bins(ranks: Tensor, draws: int, bins: int) -> Tensor:
    """How many ranks are in each bin, shape ``(bins,)``."""
    return torch.bincount(ranks * bins // (draws + 1), minlength=bins)
