"""What every loss begins with: its arguments checked once, times and noise drawn where none were given."""

import torch
from torch import Generator, Tensor

from cnflib._check import check_context, check_like, check_velocity, eager, reference
from cnflib._random import given
from cnflib.interpolants._checks import check_ends, check_noise, check_time
from cnflib.interpolants._root import root
from cnflib.interpolants.interpolant import Coefficients, Interpolant, zero
from cnflib.nets import VectorField

__all__ = ["check", "dot", "draw", "evaluate", "inside", "roots"]


def check(
    model: VectorField,
    name: str,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    context: Tensor | None,
) -> None:
    """Check what a loss is given besides time and noise."""
    if not isinstance(interpolant, Interpolant):
        got = getattr(interpolant, "__name__", type(interpolant).__name__)
        raise ValueError(
            f"Expected interpolant to be an Interpolant, e.g. linear(); got {got}. Is it to be called first? Of a "
            "LearnableInterpolant pass path.interpolant."
        )
    check_ends(x0, x1)
    check_like(x0, reference(model), "x0", name)
    check_context(context, x0, "x0")


def inside(t: Tensor) -> Tensor:
    """Times of [0, 1] in the open interval: an end moves by half the precision of its dtype."""
    least = torch.finfo(t.dtype).eps / 2
    return t.clamp(least, 1 - least)


def draw(
    interpolant: Interpolant, x0: Tensor, t: Tensor | None, xi: Tensor | None, generator: Generator | None
) -> tuple[Tensor, Tensor | None]:
    """A time inside (0, 1) for each pair, shape ``(B,)``, and noise where the interpolant has some; or those given."""
    if t is None:
        t = inside(torch.rand(x0.shape[:1], **given(generator), dtype=x0.dtype, device=x0.device))
    else:
        t = check_time(t, x0).flatten().expand(len(x0)).contiguous()
    if interpolant.gamma2 is zero:
        return t, None
    if xi is None:
        xi = torch.randn(x0.shape, **given(generator), dtype=x0.dtype, device=x0.device)
    check_noise(xi, x0)
    return t, xi


def roots(c: Coefficients, given: bool) -> tuple[Tensor, Tensor]:
    r"""The noise :math:`\gamma` and its rate; times that a caller has given are checked for one.

    Where there is no noise at a time that was drawn, there is none around it, and its rate is 0.
    """
    if given and eager(c.gamma2) and not (c.gamma2 > 0).all():
        raise ValueError(
            "Expected times at which the noise gamma2 of the interpolant is positive, as its rate is divided by gamma; "
            f"got {(c.gamma2 <= 0).sum().item()} of {c.gamma2.numel()} where it is 0. Keep t inside the open (0, 1)."
        )
    gamma = root(c.gamma2)
    return gamma, torch.where(gamma > 0, c.gamma2_rate / (2 * torch.where(gamma > 0, gamma, 1)), 0)


def evaluate(model: VectorField, name: str, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """What the model says at x, checked for its shape."""
    value = model(t, x, context)
    check_velocity(value, x, name)
    return value


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row, shape ``(B,)``."""
    return (a * b).flatten(1).sum(1)
