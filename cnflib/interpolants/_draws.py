"""Times and noise of a regression step: drawn where none are given, and what the noise is there."""

import torch
from torch import Generator, Tensor

from cnflib._check import eager
from cnflib._random import source
from cnflib.interpolants._checks import check_noise, check_time
from cnflib.interpolants._root import root

__all__ = ["drawn", "inside", "roots"]


def inside(t: Tensor) -> Tensor:
    """Times of [0, 1] in the open interval: an end moves by half the precision of its dtype."""
    least = torch.finfo(t.dtype).eps / 2
    return t.clamp(least, 1 - least)


def drawn(
    x0: Tensor, t: float | Tensor | None, xi: Tensor | None, noisy: bool, generator: Generator | None
) -> tuple[Tensor, Tensor | None]:
    """A time inside (0, 1) for each pair, shape ``(B,)``, and noise where there is to be some; or those given."""
    if t is None:
        t = inside(torch.rand(x0.shape[:1], **source(generator), dtype=x0.dtype, device=x0.device))
    else:
        t = check_time(t, x0).flatten().expand(len(x0)).contiguous()
    if not noisy:
        return t, None
    if xi is None:
        return t, torch.randn(x0.shape, **source(generator), dtype=x0.dtype, device=x0.device)
    check_noise(xi, x0)
    return t, xi


def roots(gamma2: Tensor, gamma2_rate: Tensor, given: bool) -> tuple[Tensor, Tensor]:
    r"""The noise :math:`\gamma` and its rate; times that a caller has given are checked for one.

    Where there is no noise at a time that was drawn, there is none around it, and its rate is 0.
    """
    if given and eager(gamma2) and not (gamma2 > 0).all():
        raise ValueError(
            "Expected times at which the noise gamma² of the interpolant is positive, as its rate is divided by "
            f"gamma; got {(gamma2 <= 0).sum().item()} of {gamma2.numel()} where it is 0. Keep t inside the open (0, 1)."
        )
    gamma = root(gamma2)
    return gamma, torch.where(gamma > 0, gamma2_rate / (2 * torch.where(gamma > 0, gamma, 1)), 0)
