r"""Losses that learn by regression, at a drawn point of each pair, what an interpolant does there on average.

.. math:: b(t, x) = E[\dot x_t | x_t = x], \qquad \bar\xi(t, x) = E[\xi | x_t = x] = -\gamma(t)\, s(t, x), \qquad
          s = \nabla_x \log p_t

:func:`velocity_loss` is the plain squared error of the velocity b. :func:`velocity_objective` has the same minimiser
and stays finite where :math:`\dot\gamma` is not. :func:`monitor` tells a field that is not at the minimum.
:func:`denoiser_loss` and :func:`score_loss` learn the denoiser :math:`\bar\xi` and the score s.
"""

import torch
from torch import Generator, Tensor

from cnflib.interpolants._checks import check_step, evaluate
from cnflib.interpolants.interpolant import Interpolant, _Motion
from cnflib.nets import VectorField

__all__ = ["denoiser_loss", "monitor", "score_loss", "velocity_loss", "velocity_objective"]


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
    check_step(field, interpolant, x0, context)
    p = interpolant.draw(x0, x1, t, xi, generator)
    return (evaluate(field, "field", p.t, p.x, context) - p.rate).square().flatten(1).sum(1)


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
        \begin{aligned} & \tfrac12 \big(|f^+|^2 + |f^-|^2\big) \\
        & - (\dot\alpha x_0 + \dot\beta x_1) \cdot (f^+ + f^-) \\
        & - \dot\gamma\, \xi \cdot (f^+ - f^-), \end{aligned}

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
    check_step(field, interpolant, x0, context)
    square, product = _square_and_product(field, interpolant._motion(x0, x1, t, xi, generator), context)
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
        >>> monitor(
        ...     lambda t, x: 0 * x, Linear(), *torch.randn(2, 3, 2)
        ... ).tolist()  # and yet not learned
        [0.0, 0.0, 0.0]
    """
    check_step(field, interpolant, x0, context)
    square, product = _square_and_product(field, interpolant._motion(x0, x1, t, xi, generator), context)
    return 2 * (square - product)


def _square_and_product(field: VectorField, p: _Motion, context: Tensor | None) -> tuple[Tensor, Tensor]:
    r"""The rows :math:`|f|^2` and :math:`\dot x_t \cdot f`, with noise the means over :math:`\pm \xi`."""
    if p.xi is None:
        f = evaluate(field, "field", p.t, p.x, context)
        return _row_dot(f, f), _row_dot(p.rate, f)
    both = None if context is None else torch.cat([context, context])
    x = torch.cat([p.x + p.gamma * p.xi, p.x - p.gamma * p.xi])
    plus, minus = evaluate(field, "field", torch.cat([p.t, p.t]), x, both).chunk(2)
    product = _row_dot(p.rate, plus + minus) + _row_dot(p.gamma_rate * p.xi, plus - minus)
    return (_row_dot(plus, plus) + _row_dot(minus, minus)) / 2, product / 2


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def denoiser_loss(
    denoiser: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The squared error :math:`|\bar\xi(t, x_t, c) - \xi|^2` at one time for each pair.

    Its mean is least at the denoiser :math:`E[\xi | x_t = x]`, between 0 and the dimension of the event. No rate
    enters: it is finite for every noise and at every time, the ends too.

    Args:
        denoiser: The net ``denoiser(t, x)`` or ``denoiser(t, x, context)``; t arrives with shape ``(B,)``.
        interpolant: An interpolant with noise.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times in [0, 1], shape ``(B,)``; drawn uniformly on the open interval by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default.
        context: What the net is conditioned on, a tensor with B rows, labels of shape ``(B,)`` too; the net gets it
            untouched.
        generator: Source of t and xi.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, without a unit.

    Raises:
        ValueError: If the interpolant has no noise, or if ends, times, noise, context or the net's result disagree.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Bridge, Linear
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> denoiser_loss(MLP(2), Linear(Bridge()), x0, x1).shape
        torch.Size([64])
    """
    check_step(denoiser, interpolant, x0, context, "of which a denoiser is learned")
    t, x_t, _, xi = interpolant._noisy_point(x0, x1, t, xi, generator)
    return (evaluate(denoiser, "denoiser", t, x_t, context) - xi).square().flatten(1).sum(1)


def score_loss(
    score: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The squared error of the score, weighted by :math:`\gamma^2`: :math:`|\gamma\, s(t, x_t, c) + \xi|^2`.

    Along one pair the score is :math:`-\xi / \gamma`, infinite where :math:`\gamma = 0`; the weight makes the loss
    that of the denoiser :math:`-\gamma s`, finite at all times. Its mean is least at :math:`s = \nabla \log p_t`. It
    asks for little near the ends, where :math:`\gamma` is small and the score is not; there a net for the denoiser,
    divided by :math:`-\gamma`, is no better.

    Args:
        score: The net ``s(t, x)`` or ``s(t, x, context)``; t arrives with shape ``(B,)``.
        interpolant: An interpolant with noise.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times in [0, 1], shape ``(B,)``; drawn uniformly on the open interval by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default.
        context: What the net is conditioned on, a tensor with B rows, labels of shape ``(B,)`` too; the net gets it
            untouched.
        generator: Source of t and xi.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, without a unit.

    Raises:
        ValueError: As :func:`denoiser_loss`.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear, Parabola
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> score_loss(MLP(2), Linear(Parabola()), x0, x1).shape
        torch.Size([64])
    """
    check_step(score, interpolant, x0, context, "of which a score is learned")
    t, x_t, gamma, xi = interpolant._noisy_point(x0, x1, t, xi, generator)
    return (gamma * evaluate(score, "score", t, x_t, context) + xi).square().flatten(1).sum(1)
