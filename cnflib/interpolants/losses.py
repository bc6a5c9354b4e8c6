r"""Losses that learn the velocity of an interpolant by regression."""

import torch
from torch import Generator, Tensor

from cnflib._check import check_context, check_event, check_like, check_velocity, reference
from cnflib.interpolants.interpolant import Interpolant, zero
from cnflib.nets import VectorField

__all__ = ["velocity_loss"]


def velocity_loss(
    field: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The squared error :math:`|f(t, x_t, c) - \dot x_t|^2` at one time for each pair.

    Its mean over pairs, noise and times is least at the velocity :math:`b(t, x) = E[\dot x_t | x_t = x]`, and is there
    :math:`E \operatorname{Var}(\dot x_t | x_t)`, not 0.

    Args:
        field: The vector field ``f(t, x, context)``; t arrives with shape ``(B,)``.
        interpolant: The interpolant.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times, shape ``(B,)``; drawn uniformly on [0, 1] by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default where the interpolant has noise.
        context: What the field is conditioned on, shape ``(B, features)``.
        generator: Source of t and xi.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    Raises:
        ValueError: If ends, times, noise, context or the field's result disagree in shape, dtype or device.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import linear
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> velocity_loss(MLP(2), linear(), x0, x1).shape
        torch.Size([64])
    """
    check_event(x0, None, "x0")
    check_like(x0, reference(field), "x0", "field")
    check_context(context, x0, "x0")
    if t is None:
        t = torch.rand(x0.shape[:1], generator=generator, dtype=x0.dtype, device=x0.device)
    if xi is None and interpolant.gamma2 is not zero:
        xi = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
    rate = interpolant.rate(t, x0, x1, xi)
    velocity = field(t, interpolant(t, x0, x1, xi), context)
    check_velocity(velocity, x0)
    return (velocity - rate).square().flatten(1).sum(1)
