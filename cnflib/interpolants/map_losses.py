r"""Losses that learn a flow map: each is one of its identities, at a drawn pair of times.

The map takes its field from a teacher, a velocity learned before (distillation), or from its own diagonal
:math:`\bar v_{t,t}` (self-distillation). The diagonal is learned by the loss of a velocity::

    loss = velocity_loss(flow_map.velocity, path, x0, x1) + lagrangian_loss(
        flow_map, path, x0, x1
    )

The first term has the floor that it has for any field, the variance of the rate; the second is 0 at the map. Only
:func:`mean_flow_loss` and :func:`consistency_loss` do both at once.

In every loss the map is compared with a target that it must not move, so that **no gradient flows through the target**:
neither into the teacher, nor into the map where it is its own teacher. What is written :math:`[\cdot]` is held fixed.
"""

import torch
from torch import Generator, Tensor
from torch.func import jvp

from cnflib._check import check_positive_int
from cnflib._check_field import untrainable
from cnflib._random import source
from cnflib.interpolants._checks import check_step, check_time, evaluate
from cnflib.interpolants.flow_maps import FlowMap, time_pairs
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["consistency_loss", "eulerian_loss", "lagrangian_loss", "mean_flow_loss", "semigroup_loss"]

Times = tuple[Tensor, Tensor]


def lagrangian_loss(
    flow_map: FlowMap,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    times: Times | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
    *,
    teacher: VectorField | None = None,
) -> Tensor:
    r"""The squared error :math:`|\partial_t X_{s,t}(x_s) - [v(t, X_{s,t}(x_s))]|^2` of the Lagrangian identity.

    Its gradient vanishes only where the map solves the ODE of v from every :math:`x_s`, and the loss is 0 there. No
    derivative in x is taken. The derivative in t is taken in forward mode and has a gradient itself, which torch gets
    wrong through LayerNorm and InstanceNorm: nets with these are refused.

    Args:
        flow_map: The map.
        interpolant: The interpolant, on which the points :math:`x_s` lie.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        times: The times s and t in [0, 1], shape ``(B,)`` each, in either order; drawn by
            :func:`~cnflib.interpolants.time_pairs` by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default where the interpolant has noise, and ignored
            where it has none.
        context: What map and teacher are conditioned on, a tensor with B rows; it reaches both untouched.
        generator: Source of times and noise.
        teacher: The velocity v, ``f(t, x)`` or ``f(t, x, context)``, perhaps a :func:`~cnflib.interpolants.guided`
            one; None is the map's own, ``flow_map.velocity``, which this loss does not move.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    Raises:
        ValueError: If ends, times, noise, context or a result disagree in shape, dtype or device, or the map has a
            module through which the gradient would be wrong.

    References:
        Flow map matching with stochastic interpolants, Boffi, Albergo & Vanden-Eijnden, 2024, arXiv:2406.07507;
        How to build a consistency model: Learning flow maps via self-distillation, Boffi, Albergo & Vanden-Eijnden,
        2025, arXiv:2505.18825.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import (
        ...     AverageVelocity,
        ...     FlowMap,
        ...     Linear,
        ...     velocity_loss,
        ... )
        >>> from cnflib.nets import MLP
        >>> flow_map, path = FlowMap(AverageVelocity(MLP(2, context=1))), Linear()
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> loss = velocity_loss(flow_map.velocity, path, x0, x1)
        >>> (loss + lagrangian_loss(flow_map, path, x0, x1)).mean().backward()
    """
    check_step(flow_map, interpolant, x0, context)
    if refused := next(untrainable(flow_map), None):
        raise ValueError(
            f"Expected a flow_map that forward mode can be trained through; this one has {type(refused).__name__}, "
            "whose tangents have a wrong gradient in torch. Use GroupNorm or RMSNorm, or eulerian_loss."
        )
    s, t, x = _starting_points(interpolant, x0, x1, times, xi, generator)
    end, rate = jvp(lambda t: flow_map(s, t, x, context), (t,), (torch.ones_like(t),))
    target = _field(flow_map, teacher, t, end.detach(), context)
    return (rate - target).square().flatten(1).sum(1)


def eulerian_loss(
    flow_map: FlowMap,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    times: Times | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
    *,
    teacher: VectorField | None = None,
) -> Tensor:
    r"""The squared error of the Eulerian identity, :math:`|\partial_s X_{s,t} + \nabla X_{s,t}\, v|^2` at :math:`x_s`.

    It is written for the average velocity, and this alone is moved:

    .. math:: \big|\bar v_{s,t}(x_s) - \big[v + (t - s)\,(\partial_s \bar v_{s,t} + \nabla \bar v_{s,t}\, v)
              \big]\big|^2, \qquad v = v(s, x_s).

    It is 0 at the map of v. As nothing flows through the target, the derivative costs one pass in forward mode, and
    second derivatives never arise. At t = s it is :math:`|\bar v_{s,s} - [v]|^2`, which teaches the diagonal where
    there is a teacher. Arguments and errors are those of :func:`lagrangian_loss`.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    References:
        Flow map matching with stochastic interpolants, Boffi, Albergo & Vanden-Eijnden, 2024, arXiv:2406.07507;
        How to build a consistency model: Learning flow maps via self-distillation, Boffi, Albergo & Vanden-Eijnden,
        2025, arXiv:2505.18825.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import FlowMap, Linear
        >>> growth = FlowMap(
        ...     lambda s, t, x: torch.expm1(t - s)[:, None] / (t - s)[:, None] * x
        ... )
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> loss = eulerian_loss(growth, Linear(), x0, x1, teacher=lambda t, x: x)
        >>> bool((loss < 1e-6).all())
        True
    """
    check_step(flow_map, interpolant, x0, context)
    s, t, x = _starting_points(interpolant, x0, x1, times, xi, generator)
    return _transport_error(flow_map, s, t, x, _field(flow_map, teacher, s, x, context), context)


def mean_flow_loss(
    flow_map: FlowMap,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    times: Times | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The Eulerian loss with the rate of each pair in the place of the velocity: map and field from data at once.

    .. math:: \big|\bar v_{s,t}(x_s) - \big[\dot x_s + (t - s)\,(\partial_s \bar v_{s,t} + \nabla \bar v_{s,t}\,
              \dot x_s)\big]\big|^2

    The target is linear in the rate and held fixed, so that the mean gradient is that of :func:`eulerian_loss` with
    the true velocity :math:`b = E[\dot x_s | x_s]`, and vanishes at its map. The loss does not: its mean is there
    :math:`E|(I + (t - s) \nabla \bar v_{s,t})(\dot x_s - b)|^2 = E|\nabla X_{s,t}(\dot x_s - b)|^2`. Without the hold
    that term would be made small instead, and the minimiser be another map. The paper divides each row's loss by its
    own size, ``loss / (loss.detach() + 1e-3)``: steadier, but at the map the mean gradient need no longer vanish.

    Arguments and errors are those of :func:`lagrangian_loss`, without a teacher. By default three quarters of the
    times have t = s, where it is :func:`~cnflib.interpolants.velocity_loss`; a given s must not be one at which the
    noise of the interpolant vanishes.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    References:
        Mean Flows for One-step Generative Modeling, Geng et al., 2025, arXiv:2505.13447 (time runs the other way).

    Example:
        >>> import torch
        >>> from cnflib.interpolants import AverageVelocity, FlowMap, Linear
        >>> from cnflib.nets import MLP
        >>> flow_map = FlowMap(AverageVelocity(MLP(2, context=1)))
        >>> mean_flow_loss(
        ...     flow_map, Linear(), torch.randn(64, 2), torch.rand(64, 2)
        ... ).shape
        torch.Size([64])
    """
    check_step(flow_map, interpolant, x0, context)
    s, t = times if times is not None else time_pairs(len(x0), x0, generator, diagonal=0.75)
    p = interpolant.draw(x0, x1, s, xi, generator)
    return _transport_error(flow_map, p.t, _each_checked(t, x0), p.x, p.rate, context)


def semigroup_loss(
    flow_map: FlowMap,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    times: Times | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The squared error of one step against two of half the length, as average velocities.

    .. math:: \big|\bar v_{s,t}(x_s) - \tfrac12 \big[\bar v_{s,r}(x_s) + \bar v_{r,t}(X_{s,r}(x_s))\big]\big|^2,
              \qquad r = \tfrac12 (s + t)

    This is :math:`|X_{s,t} - [X_{r,t} \circ X_{s,r}]|^2 / (t - s)^2`: progressive distillation, and the
    self-consistency of shortcut models. It is 0 for the map of *any* field. Which one is said by the diagonal, learned
    by :func:`~cnflib.interpolants.velocity_loss` or from a teacher: from there it spreads to longer steps. No
    derivative is taken. Arguments and errors are those of :func:`lagrangian_loss`, without a teacher.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models, Salimans & Ho, 2022, arXiv:2202.00512;
        One Step Diffusion via Shortcut Models, Frans et al., 2024, arXiv:2410.12557.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import (
        ...     AverageVelocity,
        ...     FlowMap,
        ...     Linear,
        ...     velocity_loss,
        ... )
        >>> from cnflib.nets import MLP
        >>> flow_map, path = FlowMap(AverageVelocity(MLP(2, context=1))), Linear()
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> loss = velocity_loss(flow_map.velocity, path, x0, x1)
        >>> (loss + semigroup_loss(flow_map, path, x0, x1)).mean().backward()
    """
    check_step(flow_map, interpolant, x0, context)
    s, t, x = _starting_points(interpolant, x0, x1, times, xi, generator)
    with torch.no_grad():
        r = (s + t) / 2
        target = flow_map.average(s, r, x, context)
        target = (target + flow_map.average(r, t, flow_map(s, r, x, context), context)) / 2
    return (flow_map.average(s, t, x, context) - target).square().flatten(1).sum(1)


def consistency_loss(
    flow_map: FlowMap,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    times: Times | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
    *,
    steps: int = 32,
    teacher: VectorField | None = None,
) -> Tensor:
    r"""The squared distance of where two neighbours end, :math:`|X_{s,1}(x_s) - [X_{r,1}(x_r)]|^2 / (r - s)`.

    Here s < r are neighbours, and :math:`x_r` is the point of the same pair and noise (consistency training), or with a
    teacher the Euler step :math:`x_s + (r - s)\, v(s, x_s)` (consistency distillation). No rate and no derivative
    enters. Only the maps to t = 1 are learned, so that :func:`~cnflib.interpolants.sample_map` can take one step alone.
    More steps put noise back in between: from the end x1, ``flow_map(s, 1.0, path(s, x0, x1))`` with a new x0.

    As :math:`r \to s` its mean gradient becomes that of :func:`mean_flow_loss` at (s, 1), times 1 - s, which vanishes
    at the map; for neighbours apart it is off by :math:`O(r - s)`: more steps are less biased, and noisier. Its value
    at the map is :math:`(r - s)\, E|\nabla X_{s,1}(\dot x_s - b)|^2` at first order, with a teacher of order
    :math:`(r - s)^3`.

    Arguments and errors are those of :func:`lagrangian_loss`, and:

    Args:
        times: The times s and r in [0, 1], nowhere equal, shape ``(B,)`` each; neighbours of a grid by default.
        steps: The number of steps in that grid.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, in squared data units.

    References:
        Consistency Models, Song et al., 2023, arXiv:2303.01469.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import AverageVelocity, FlowMap, Linear
        >>> from cnflib.nets import MLP
        >>> flow_map = FlowMap(AverageVelocity(MLP(2, context=1)))
        >>> consistency_loss(
        ...     flow_map, Linear(), torch.randn(64, 2), torch.rand(64, 2)
        ... ).shape
        torch.Size([64])
    """
    check_step(flow_map, interpolant, x0, context)
    if times is None:
        steps = check_positive_int(steps, "steps")
        k = torch.randint(steps, x0.shape[:1], **source(generator), device=x0.device).to(x0)
        times = k / steps, (k + 1) / steps
    s, r = times[0], _each_checked(times[1], x0)
    s, x_s, _, xi = interpolant._noisy_point(x0, x1, s, xi, generator)
    with torch.no_grad():
        if teacher is None:
            x_r = interpolant._noisy_point(x0, x1, r, xi, generator)[1]
        else:
            x_r = x_s + _broadcast(r - s, x_s) * evaluate(teacher, "teacher", s, x_s, context)
        target = flow_map(r, 1.0, x_r, context)
    return (flow_map(s, 1.0, x_s, context) - target).square().flatten(1).sum(1) / (r - s).abs()


def _starting_points(
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    times: Times | None,
    xi: Tensor | None,
    generator: Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The times s and t, drawn where none are given, and the points at time s."""
    s, t = times if times is not None else time_pairs(len(x0), x0, generator)
    s, x, _, _ = interpolant._noisy_point(x0, x1, s, xi, generator)
    return s, _each_checked(t, x0), x


def _each_checked(t: Tensor, x: Tensor) -> Tensor:
    """Checked times, shape (B,)."""
    return check_time(t, x).flatten().expand(len(x)).contiguous()


def _broadcast(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1))


@torch.no_grad()
def _field(
    flow_map: FlowMap, teacher: VectorField | None, t: Tensor, x: Tensor, context: Tensor | None
) -> Tensor:
    """The velocity of the teacher, or of the map, held fixed."""
    if teacher is None:
        return flow_map.velocity(t, x, context)
    return evaluate(teacher, "teacher", t, x, context)


def _transport_error(
    flow_map: FlowMap, s: Tensor, t: Tensor, x: Tensor, v: Tensor, context: Tensor | None
) -> Tensor:
    """The Eulerian error with v in the place of the velocity, shape (B,)."""
    average, change = jvp(lambda s, x: flow_map.average(s, t, x, context), (s, x), (torch.ones_like(s), v))
    target = v + _broadcast(t - s, x) * change
    return (average - target.detach()).square().flatten(1).sum(1)
