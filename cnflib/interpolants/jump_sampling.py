"""Sampling of tokens with a learned posterior: in steps of all tokens at once, and exactly, one token at a time."""

import torch
from torch import Generator, Tensor

from cnflib._check import check_positive_int, row_each
from cnflib._random import source
from cnflib.interpolants._tokens import check_tokens
from cnflib.interpolants.interpolant import Schedule
from cnflib.interpolants.jumps import JumpPath, Masked
from cnflib.nets import VectorField

__all__ = ["sample_first_hitting", "sample_jumps"]


@torch.no_grad()
def sample_jumps(
    posterior: VectorField,
    path: JumpPath,
    x0: Tensor,
    steps: int = 64,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Carry noise to data in equal steps with the posterior held fixed in each: tau-leaping.

    From s to t each token, with probability :math:`(\kappa(t) - \kappa(s)) / (1 - \kappa(s))`, is replaced by a draw of
    the posterior at time s. Within a step no token sees a jump, neither of another nor its own: this is its only error,
    and the law of the result is off by the order of one step.

    Args:
        posterior: The net, of logits. A temperature divides them: ``lambda t, x: net(t, x) / temperature``.
        path: The path.
        x0: Noise, ``path.noise((B, D))``; with :class:`~cnflib.interpolants.Masked` tokens that are no masks are kept.
        steps: The number of steps, and of evaluations of the net.
        context: What the net is conditioned on, a row for each of x0 or one for all.
        generator: Source of the jumps.

    Returns:
        Tokens of data, shape ``(B, D)``.

    Raises:
        ValueError: If x0 are no tokens of the path, steps is no positive int, or context or logits are not as above.

    References:
        A Continuous Time Framework for Discrete Denoising Models, Campbell et al., 2022, arXiv:2205.14987;
        Discrete Flow Matching, Gat et al., 2024, arXiv:2407.15595.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Masked
        >>> ones = lambda t, x: torch.tensor([0.0, 100.0]).expand(*x.shape, 2)
        >>> path = Masked(2)
        >>> sample_jumps(ones, path, path.noise((1, 3)), steps=2)
        tensor([[1, 1, 1]])
    """
    check_tokens(x0, path.states, "x0")
    context = row_each(context, len(x0))
    x, times = x0, torch.linspace(0, 1, check_positive_int(steps, "steps") + 1, device=x0.device)
    kappa = path.kappa(times).clone()
    kappa[-1] = 1  # also where rounding leaves it below: no mask may stay
    for k in range(steps):
        p = path._learned(posterior, times[k].expand(len(x)), x, context).exp()
        drawn = p.flatten(0, 1).multinomial(1, generator=generator).reshape(x.shape)
        jump = torch.rand(x.shape, **source(generator), device=x.device)
        x = torch.where(jump * (1 - kappa[k]) < kappa[k + 1] - kappa[k], drawn, x)
    return x


@torch.no_grad()
def sample_first_hitting(
    posterior: VectorField,
    path: Masked,
    x0: Tensor,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""Uncover masked tokens one at a time, in the random order and at the random times of the exact process.

    There is no error but the net's. Every token is uncovered at a time of law :math:`\kappa`, independently of all
    else, so that the times are drawn first; the net is evaluated D times.

    Args:
        posterior: The net, of logits.
        path: The path, :class:`~cnflib.interpolants.Masked`.
        x0: Masks, ``path.noise((B, D))``; tokens that are no masks are kept.
        context: What the net is conditioned on, a row for each of x0 or one for all.
        generator: Source of times and tokens.

    Returns:
        Tokens of data, shape ``(B, D)``.

    Raises:
        ValueError: If the path is another one, x0 are no tokens of it, or context or logits are not as above.

    References:
        Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling,
        Zheng et al., 2024, arXiv:2409.02908.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Masked
        >>> path = Masked(3)
        >>> count = lambda t, x: (
        ...     100.0 * torch.eye(3)[(x < 3).sum(1, keepdim=True)].expand(-1, 2, -1)
        ... )
        >>> sample_first_hitting(count, path, path.noise((1, 2))).sort()[0]
        tensor([[0, 1]])
    """
    if not isinstance(path, Masked):
        raise ValueError(
            f"Expected path to be Masked(vocabulary), on which a token jumps once; got {path!r}. Take sample_jumps."
        )
    check_tokens(x0, path.states, "x0")
    context, x = row_each(context, len(x0)), x0
    times, order = _inverse(path.kappa, torch.rand(x.shape, **source(generator), device=x.device)).sort(1)
    for k in range(x.shape[1]):
        place = order[:, k, None]
        p = path._learned(posterior, times[:, k], x, context).exp()
        p = p.gather(1, place[..., None].expand(-1, 1, path.states))[:, 0]
        x = x.scatter(1, place, p.multinomial(1, generator=generator))
    return x


def _inverse(kappa: Schedule, value: Tensor) -> Tensor:
    """The time at which a rising schedule has a value, by halving."""
    low, high = torch.zeros_like(value), torch.ones_like(value)
    for _ in range(30):
        middle = (low + high) / 2
        early = kappa(middle) < value
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return high
