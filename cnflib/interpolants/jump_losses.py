r"""Losses that learn the posterior of a path of tokens: plain, and weighted so that it bounds the likelihood."""

import torch
from torch import Generator, Tensor

from cnflib._random import source
from cnflib.interpolants._tokens import at_tokens, check_tokens, hazard
from cnflib.interpolants.jumps import JumpPath
from cnflib.interpolants.times import inside
from cnflib.nets import VectorField

__all__ = ["elbo", "posterior_loss"]


def posterior_loss(
    posterior: VectorField,
    path: JumpPath,
    x1: Tensor,
    t: float | Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The cross entropy :math:`-\sum_i \log \hat p(x_1^i | x_t)` at one time for each row.

    Its mean is least at the posterior :math:`p(x_1^i | x_t = x)`, for every law of times, and is there
    :math:`\sum_i H(x_1^i | x_t)`, not 0. With :class:`~cnflib.interpolants.Masked` only the tokens that are covered
    count. Weighted so that it bounds the likelihood it is minus :func:`elbo`.

    Args:
        posterior: The net, of logits.
        path: The path.
        x1: Data, integers of shape ``(B, D)``.
        t: Times in [0, 1], a float or shape ``()`` or ``(B,)``; drawn uniformly on the open interval by default.
        context: What the net is conditioned on, a tensor with B rows; it reaches the net untouched.
        generator: Source of times and tokens.

    Returns:
        Shape ``(B,)``, in nats.

    Raises:
        ValueError: If x1 are no tokens of the path's vocabulary, or times, context or logits disagree with them.

    References:
        Generative Flows on Discrete State-Spaces, Campbell et al., 2024, arXiv:2402.04997;
        Discrete Flow Matching, Gat et al., 2024, arXiv:2407.15595.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import UniformNoise
        >>> even = lambda t, x: torch.zeros(*x.shape, 2)
        >>> posterior_loss(
        ...     even, UniformNoise(2), torch.tensor([[0, 1, 1]])
        ... )  # 3 log 2
        tensor([2.0794])
    """
    t, x = path.draw(x1, t, generator)
    return -at_tokens(path._learned(posterior, t, x, context), x1).sum(1)


def elbo(
    posterior: VectorField,
    path: JumpPath,
    x1: Tensor,
    t: float | Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""An unbiased estimate of a lower bound of :math:`\log \hat p(x_1)`, the model's probability of the data.

    The bound is minus the divergence of the path to :math:`x_1` from the process of the learned rates,

    .. math:: \log \hat p(x_1) &\ge \int_0^1 \frac{\dot\kappa}{1 - \kappa}\, E \sum_i g_i\, dt, \\
              g_i &= \hat p(x_t^i | x_t) + \begin{cases} -1, & x_t^i = x_1^i \\
              \log \hat p(x_1^i | x_t), & x_t^i \ne x_1^i \end{cases}

    where :math:`\hat p(x_t^i | x_t)` is the probability that the net gives to the token as it is. With
    :class:`~cnflib.interpolants.Masked` the integrand is :math:`-\frac{\dot\kappa}{1 - \kappa}` times the cross entropy
    of what is covered, and with the exact posterior the bound is an equality. With
    :class:`~cnflib.interpolants.UniformNoise` it is best there too, but stays below: the path remembers which of its
    tokens have jumped, and the process of the mean rates, which has the same law at every time, does not. (The bound of
    Lou et al. is an equality there too. It is that of the noising run backwards, another process of the same laws than
    the one of :func:`~cnflib.interpolants.sample_jumps`.) One trains by ``-elbo(…).mean()``.

    Args:
        posterior: The net, of logits.
        path: The path.
        x1: Data, integers of shape ``(B, D)``.
        t: Times in [0, 1), a float or shape ``()`` or ``(B,)``, at which the integrand is taken. By default they are
            drawn with density :math:`1 / 2\sqrt{1 - t}`, which is undone by a weight: under a uniform one the integrand
            has an infinite variance.
        context: What the net is conditioned on, a tensor with B rows; it reaches the net untouched.
        generator: Source of times and tokens.

    Returns:
        Shape ``(B,)``, in nats; a single one may be above 0. Means over draws of the same row come near its bound.

    Raises:
        ValueError: As :func:`posterior_loss`.

    References:
        Structured Denoising Diffusion Models in Discrete State-Spaces, Austin et al., 2021, arXiv:2107.03006;
        Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution, Lou et al., 2023,
        arXiv:2310.16834; Simple and Effective Masked Diffusion Language Models, Sahoo et al., 2024, arXiv:2406.07524;
        Flow Matching with General Discrete Paths: A Kinetic-Optimal Perspective, Shaul et al., 2024, arXiv:2412.03487.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Masked
        >>> even = lambda t, x: torch.zeros(*x.shape, 2)
        >>> x1 = torch.zeros(4000, 1, dtype=torch.long)
        >>> bool((elbo(even, Masked(2), x1).mean() + 0.693).abs() < 0.1)  # log ½
        True
    """
    weight = 1.0
    if t is None:
        check_tokens(x1, path.vocabulary, "x1")
        root = torch.rand(len(x1), **source(generator), device=x1.device)
        t, weight = inside(1 - root.square()), 2 * root
    t, x = path.draw(x1, t, generator)
    log_p = path._learned(posterior, t, x, context)
    stays = at_tokens(log_p, x).exp()
    terms = torch.where(x == x1, stays - 1, stays + at_tokens(log_p, x1))
    return weight * hazard(path.kappa, t) * terms.sum(1)
