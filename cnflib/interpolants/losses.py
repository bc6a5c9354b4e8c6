r"""Losses that learn the velocity :math:`b(t, x) = E[\dot x_t | x_t = x]` of an interpolant by regression.

:func:`velocity_loss` is the plain squared error. :func:`velocity_objective` has the same minimiser and stays finite
where :math:`\dot\gamma` is not. :func:`monitor` tells a field that is not at the minimum.
"""

import torch
from torch import Generator, Tensor

from cnflib.interpolants._pairs import check, dot, evaluate
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["monitor", "velocity_loss", "velocity_objective"]


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
    :math:`E \operatorname{Var}(\dot x_t | x_t)`, not 0. It is infinite where :math:`\dot\gamma` is not square
    integrable, as with :class:`~cnflib.interpolants.Bridge`: take :func:`velocity_objective` there.

    With ``p = interpolant.draw(x0, x1)`` it is ``(field(p.t, p.x) - p.rate).square().flatten(1).sum(1)``.

    Args:
        field: The vector field ``f(t, x)`` or ``f(t, x, context)``; t arrives with shape ``(B,)``.
        interpolant: The interpolant.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times in [0, 1], shape ``(B,)``; drawn uniformly on the open interval by default, never 0 or 1. See
            :class:`~cnflib.interpolants.BetaTimes` for other laws.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default where the interpolant has noise, and ignored
            where it has none.
        context: What the field is conditioned on, a tensor with B rows, labels of shape ``(B,)`` too; the field gets
            it untouched.
        generator: Source of t and xi.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    Raises:
        ValueError: If ends, times, noise, context or the field's result disagree in shape, dtype or device, or if a
            given t is one at which the noise of the interpolant vanishes.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> velocity_loss(MLP(2), Linear(), x0, x1).shape
        torch.Size([64])
    """
    f = check(field, "field", interpolant, x0, x1, context)
    p = interpolant._point(x0, x1, t, xi, generator)
    return (evaluate(f, "field", p.t, p.x, context) - p.rate).square().flatten(1).sum(1)


def velocity_objective(
    field: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The part :math:`|f|^2 - 2\, \dot x_t \cdot f` of the velocity loss that depends on the field.

    The rest, :math:`E|\dot x_t|^2`, is the same for all fields, so the minimiser is the same: the velocity b, where the
    mean is :math:`-E|b|^2`. With noise the point is taken at :math:`\pm\xi`,

    .. math:: x^\pm = \alpha x_0 + \beta x_1 \pm \gamma \xi, \qquad
        \tfrac12 \big(|f^+|^2 + |f^-|^2\big) - (\dot\alpha x_0 + \dot\beta x_1) \cdot (f^+ + f^-)
        - \dot\gamma\, \xi \cdot (f^+ - f^-),

    and is finite, with finite variance, where :math:`\dot\gamma` is infinite: :math:`f^+ - f^-` vanishes like
    :math:`\gamma`. The field is evaluated at 2B rows at once then, at B without noise.

    Args:
        field: The vector field ``f(t, x)`` or ``f(t, x, context)``, Lipschitz in x; t arrives with a number for each
            row of x.
        interpolant: The interpolant.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times in [0, 1], shape ``(B,)``; drawn uniformly on the open interval by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default where the interpolant has noise, and ignored
            where it has none.
        context: What the field is conditioned on, a tensor with B rows, labels of shape ``(B,)`` too; the field gets
            it untouched.
        generator: Source of t and xi.

    Returns:
        Shape ``(B,)``, in squared data units; negative where the field has learned something.

    Raises:
        ValueError: As :func:`velocity_loss`.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Bridge, Linear
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> velocity_objective(MLP(2), Linear(Bridge()), x0, x1).shape
        torch.Size([64])
    """
    square, product = _moments(field, interpolant, x0, x1, t, xi, context, generator)
    return square - 2 * product


def monitor(
    field: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The balance :math:`2 f \cdot (f - \dot x_t)`, of mean 0 at the velocity.

    Its mean is :func:`velocity_objective` plus :math:`E|f|^2`, and :math:`2 E[f \cdot (f - b)]`. That it vanishes is
    *necessary only*: it does at every field :math:`f = b - g` with g orthogonal to f, such as :math:`f \equiv 0`, which
    is where a net begins whose last layer is zero. A mean several standard errors from 0 says that the field is not at
    the minimum; a mean near 0 says nothing, unless the objective has fallen as well.

    Arguments, antithetic noise and errors are those of :func:`velocity_objective`.

    Returns:
        Shape ``(B,)``, in squared data units; the standard error of its mean is ``.std() / B**0.5``.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear
        >>> monitor(lambda t, x: 0 * x, Linear(), *torch.randn(2, 3, 2)).tolist()  # and yet not learned
        [0.0, 0.0, 0.0]
    """
    square, product = _moments(field, interpolant, x0, x1, t, xi, context, generator)
    return 2 * (square - product)


def _moments(
    field: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None,
    xi: Tensor | None,
    context: Tensor | None,
    generator: Generator | None,
) -> tuple[Tensor, Tensor]:
    r"""The rows :math:`|f|^2` and :math:`\dot x_t \cdot f`, with noise the means over :math:`\pm \xi`."""
    model = check(field, "field", interpolant, x0, x1, context)
    t, x, rate, xi, gamma, gamma_rate = interpolant._motion(x0, x1, t, xi, generator)
    if xi is None:
        f = evaluate(model, "field", t, x, context)
        return dot(f, f), dot(rate, f)
    both = None if context is None else torch.cat([context, context])
    x = torch.cat([x + gamma * xi, x - gamma * xi])
    plus, minus = evaluate(model, "field", torch.cat([t, t]), x, both).chunk(2)
    product = dot(rate, plus + minus) + dot(gamma_rate * xi, plus - minus)
    return (dot(plus, plus) + dot(minus, minus)) / 2, product / 2
