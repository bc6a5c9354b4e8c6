r"""Flow maps: where an ODE has carried a point between any two times, in one evaluation of a net.

The map :math:`X_{s,t}` of a field v takes the point of a trajectory at time s to that at time t; the flow is
:math:`\phi_t = X_{0,t}`. With :math:`X_{s,s}(x) = x` each of three identities says that it is the map of v:

.. math:: \partial_t X_{s,t}(x) &= v(t, X_{s,t}(x)), \\
          \partial_s X_{s,t}(x) &= -\nabla X_{s,t}(x)\, v(s, x), \\
          X_{s,t}(x) &= X_{r,t}(X_{s,r}(x)), \\
          \partial_t X_{s,t}(x)|_{t=s} &= v(s, x).

They are called Lagrangian, Eulerian and, the third with its derivative on the diagonal, semigroup.

What is learned is the average velocity :math:`\bar v_{s,t}` along the way,
:math:`X_{s,t}(x) = x + (t - s)\, \bar v_{s,t}(x)`. On the diagonal it is the field itself,
:math:`\bar v_{t,t} = v(t, \cdot)`. The losses are in :mod:`cnflib.interpolants.map_losses`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.func import jvp

from cnflib._check import check_built, check_event, check_labels, check_positive_int, check_returned, row_each
from cnflib._random import source
from cnflib.interpolants._checks import check_time, evaluate
from cnflib.interpolants.times import inside
from cnflib.nets import VectorField

__all__ = ["AverageVelocity", "FlowMap", "MapResiduals", "map_residuals", "sample_map", "time_pairs"]


class FlowMap(nn.Module):
    r"""The two-time map :math:`X_{s,t}(x, c) = x + (t - s)\, \bar v_{s,t}(x, c)` of an average velocity.

    It is called ``flow_map(s, t, x)`` or ``flow_map(s, t, x, context)``. It is the identity at t = s by construction,
    and runs backwards, from t to s < t, as far as it was trained to.

    Args:
        average: The average velocity, called ``average(s, t, x)`` without a context and ``average(s, t, x, context)``
            with one; s and t have shape ``(B,)``. Of a net that is a field make one by :class:`AverageVelocity`.

    Raises:
        ValueError: If it is a class, or, when called, does not return the shape of x.

    References:
        Flow map matching with stochastic interpolants, Boffi, Albergo & Vanden-Eijnden, 2024, arXiv:2406.07507;
        Mean Flows for One-step Generative Modeling, Geng et al., 2025, arXiv:2505.13447.

    Example:
        >>> import torch
        >>> growth = FlowMap(
        ...     lambda s, t, x: torch.expm1(t - s)[:, None] / (t - s)[:, None] * x
        ... )
        >>> growth(0.0, 1.0, torch.ones(1, 2))  # of the field v(t, x) = x
        tensor([[2.7183, 2.7183]])
    """

    def __init__(self, average: Callable[..., Tensor]) -> None:
        super().__init__()
        check_built(average, "average")
        self.net = average

    def forward(
        self, s: float | Tensor, t: float | Tensor, x: Tensor, context: Tensor | None = None
    ) -> Tensor:
        r"""The point :math:`X_{s,t}(x)`, shape ``(B, *event)``; times are floats or of shape ``()`` or ``(B,)``."""
        step = (_each(t, x) - _each(s, x)).reshape(-1, *[1] * (x.ndim - 1))
        return x + step * self.average(s, t, x, context)

    def average(
        self, s: float | Tensor, t: float | Tensor, x: Tensor, context: Tensor | None = None
    ) -> Tensor:
        r"""The average velocity :math:`\bar v_{s,t}(x)`, shape ``(B, *event)``; arguments as for the point."""
        given = () if context is None else (context,)
        value = self.net(_each(s, x), _each(t, x), x, *given)
        check_returned(value, x.shape, "average(s, t, x, context)", "a tensor")
        return value

    def velocity(self, t: float | Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The field :math:`v(t, x) = \bar v_{t,t}(x)` of which this is the map: a field for all that takes one."""
        return self.average(t, t, x, context)


class AverageVelocity(nn.Module):
    r"""The average velocity :math:`\bar v_{s,t}(x, c) = f(s, x, (t - s, c))` by the net of a field f.

    The field is told how far to look ahead by one more feature of its context, the first one.

    Args:
        field: A field ``f(t, x, context)`` of one context feature more than the map has, like ``MLP(2, context=1)``.

    Raises:
        ValueError: If the field is a class, or, when called, the context is one of integers.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import FlowMap
        >>> from cnflib.nets import MLP
        >>> flow_map = FlowMap(AverageVelocity(MLP(2, context=1 + 3)))
        >>> flow_map(0.0, 1.0, torch.randn(5, 2), torch.randn(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, field: VectorField) -> None:
        super().__init__()
        check_built(field, "field")
        self.field = field

    def forward(self, s: Tensor, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""The average velocity, shape ``(B, *event)``, for s and t of shape ``(B,)``."""
        check_labels(context)
        ahead = (t - s)[:, None]
        return self.field(s, x, ahead if context is None else torch.cat([ahead, context.flatten(1)], 1))


def _each(t: float | Tensor, x: Tensor) -> Tensor:
    """A time for each row of x, shape ``(B,)``."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0]).contiguous()


def time_pairs(
    n: int, like: Tensor | None = None, generator: Generator | None = None, *, diagonal: float = 0.0
) -> tuple[Tensor, Tensor]:
    r"""Draw n pairs of times :math:`s \le t`, uniform on the triangle, or on its diagonal with some probability.

    Args:
        n: How many.
        like: A tensor whose dtype and device the times have; by default the default ones.
        generator: Source of the times.
        diagonal: The probability that t = s.

    Returns:
        The times s and t, each of shape ``(n,)``, inside (0, 1).

    Raises:
        ValueError: If n is no positive int, or the probability is outside [0, 1].

    Example:
        >>> s, t = time_pairs(100, diagonal=0.5)
        >>> bool((s <= t).all()), bool((s == t).any())
        (True, True)
    """
    n = check_positive_int(n, "n")
    if not 0 <= diagonal <= 1:
        raise ValueError(f"Expected diagonal to be a probability, in [0, 1]; got {diagonal}.")
    place = {} if like is None else {"dtype": like.dtype, "device": like.device}
    one, other, chance = torch.rand(3, n, **source(generator), **place)
    s = inside(torch.minimum(one, other))
    return s, torch.where(chance < diagonal, s, inside(torch.maximum(one, other)))


@torch.no_grad()
def sample_map(
    flow_map: FlowMap,
    x0: Tensor,
    times: int | Sequence[float] | Tensor = 1,
    context: Tensor | None = None,
) -> Tensor:
    r"""Carry base points to data in few steps, :math:`x \leftarrow X_{t_k, t_{k+1}}(x)`, one evaluation each.

    For the exact map the times make no difference; a learned one errs less over short steps, and its errors add up.
    The points carry no gradient; for one call the map itself.

    Args:
        flow_map: The map.
        x0: Points at the first time, shape ``(B, *event)``.
        times: The number of equal steps from 0 to 1, or the times at which to stop, two or more.
        context: What the map is conditioned on, a row for each of x0 or one for all.

    Returns:
        Points at the last time, shape ``(B, *event)``.

    Raises:
        ValueError: If points or context are not as above, or there are fewer than two times.

    References:
        How to build a consistency model: Learning flow maps via self-distillation, Boffi, Albergo & Vanden-Eijnden,
        2025, arXiv:2505.18825.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import FlowMap
        >>> shift = FlowMap(lambda s, t, x: torch.ones_like(x))
        >>> (
        ...     sample_map(shift, torch.zeros(1, 2), 4),
        ...     sample_map(shift, torch.zeros(1, 2), [0.0, 0.3]),
        ... )
        (tensor([[1., 1.]]), tensor([[0.3000, 0.3000]]))
    """
    check_event(x0, None, "x0")
    context = row_each(context, x0.shape[0])
    if not isinstance(times, Tensor | Sequence):
        steps = check_positive_int(times, "times", " Times to stop at are a list, like [0.0, 0.5, 1.0].")
        times = [k / steps for k in range(steps + 1)]
    if len(times) < 2:
        raise ValueError(f"Expected two times or more, from where to where; got {times}.")
    x = x0
    for s, t in zip(times[:-1], times[1:], strict=True):
        x = flow_map(s, t, x, context)
    return x


class MapResiduals(NamedTuple):
    r"""By how much a map misses each identity, at B points: tensors of shape ``(B, *event)``.

    Attributes:
        lagrangian: :math:`\partial_t X_{s,t}(x) - v(t, X_{s,t}(x))`.
        eulerian: :math:`\partial_s X_{s,t}(x) + \nabla X_{s,t}(x)\, v(s, x)`.
        semigroup: :math:`X_{r,t}(X_{s,r}(x)) - X_{s,t}(x)` at the middle r of s and t.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import FlowMap, map_residuals
        >>> shift = FlowMap(lambda s, t, x: torch.ones_like(x))
        >>> map_residuals(
        ...     shift, lambda t, x: 0 * x, 0.0, 1.0, torch.zeros(1, 1)
        ... ).lagrangian
        tensor([[1.]])
    """

    lagrangian: Tensor
    eulerian: Tensor
    semigroup: Tensor


def map_residuals(
    flow_map: FlowMap,
    field: VectorField,
    s: float | Tensor,
    t: float | Tensor,
    x: Tensor,
    context: Tensor | None = None,
) -> MapResiduals:
    r"""The residuals of the three identities, all zero for the map of the field, and for no other.

    Args:
        flow_map: The map.
        field: The field v, ``f(t, x)`` or ``f(t, x, context)``; ``flow_map.velocity`` asks whether the map is one at
            all, of whatever field.
        s: Time in [0, 1] of the points, a float or shape ``()`` or ``(B,)``.
        t: Time in [0, 1] to which they are carried, alike; at t = s the last two residuals say nothing.
        x: Points at time s, shape ``(B, *event)``.
        context: What map and field are conditioned on, a tensor with B rows.

    Raises:
        ValueError: If points or times are not as above, or the field returns another shape.

    References:
        Flow map matching with stochastic interpolants, Boffi, Albergo & Vanden-Eijnden, 2024, arXiv:2406.07507.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import AverageVelocity, FlowMap
        >>> from cnflib.nets import MLP
        >>> flow_map = FlowMap(AverageVelocity(MLP(2, context=1)))
        >>> rest = map_residuals(
        ...     flow_map, flow_map.velocity, 0.2, 0.9, torch.randn(5, 2)
        ... )
        >>> rest.semigroup.square().sum(1).sqrt().shape
        torch.Size([5])
    """
    check_event(x, None)
    s, t = (_each(check_time(time, x).flatten(), x) for time in (s, t))
    one, r = torch.ones_like(t), (s + t) / 2
    carried, rate = jvp(lambda t: flow_map(s, t, x, context), (t,), (one,))
    start = evaluate(field, "field", s, x, context)
    transported = jvp(lambda s, x: flow_map(s, t, x, context), (s, x), (one, start))[1]
    halfway = flow_map(r, t, flow_map(s, r, x, context), context)
    return MapResiduals(rate - evaluate(field, "field", t, carried, context), transported, halfway - carried)
