r"""Interpolants that are learned: the path on which the least velocity objective is largest, which is the shortest.

The minimum of :func:`~cnflib.interpolants.velocity_objective` over fields is :math:`-\int E|b|^2\,dt`, minus the
energy of the path. A path that *maximises* this minimum has the least energy of its family. One optimizer
serves both players::

    optimizer = torch.optim.Adam(
        [
            {"params": field.parameters(), "lr": 3e-3},
            {"params": path.parameters(), "lr": 1e-3, "maximize": True},
        ]
    )
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        loss = velocity_objective(field, path.interpolant, x0, x1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()

The path must learn more slowly than the field: its gradient is true only at the field's minimum. A learned base, such
as :class:`cnflib.DiagonalNormal`, belongs to the path's group, and moves towards the data, which is shorter still; draw
``x0 = base.rsample(n)``, of which gradients reach it. Of a field that has not followed, the energy can lie below
:math:`W_2^2`: look at :func:`~cnflib.interpolants.monitor`, whose mean is then not 0, before any gap is read.
"""

import math

import torch
from torch import Tensor, nn

from cnflib._check import check_positive_int
from cnflib._constants import constants
from cnflib.interpolants._schedules import with_rate
from cnflib.interpolants.interpolant import Interpolant, Schedule
from cnflib.interpolants.paths import Linear

__all__ = ["FourierSchedule", "LearnableInterpolant"]

_START = Linear()


class FourierSchedule(nn.Module):
    r"""A schedule with a learned sine series that leaves both its ends where they are.

    .. math:: \alpha(t) = \alpha_0(t) + \sum_{m=1}^M a_m \sin \pi m t

    Args:
        start: The schedule :math:`\alpha_0`.
        order: The number of coefficients M.

    Attributes:
        coefficients: The coefficients :math:`a_m`, shape ``(M,)``, zero at the start.

    Raises:
        ValueError: If ``order`` is not a positive int.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> FourierSchedule(lambda t: t, order=3)(torch.tensor(0.5)).item()
        0.5
    """

    def __init__(self, start: Schedule, order: int) -> None:
        super().__init__()
        order = check_positive_int(order, "order")
        self.start = start
        self.coefficients = nn.Parameter(torch.zeros(order))
        with constants():
            self.register_buffer("m", torch.arange(1.0, order + 1), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """The schedule at t, of any shape."""
        m, a = self.m.to(t), self.coefficients.to(t)
        late = (t > 0.5)[..., None]  # from there the sine of 1 - t, so that it is exactly 0 at t = 1
        sine = torch.sin(math.pi * m * torch.where(late, 1 - t[..., None], t[..., None]))
        return self.start(t) + (torch.where(late, (2 * (m % 2) - 1) * sine, sine) * a).sum(-1)

    def rate(self, t: Tensor) -> Tensor:
        r"""Its rate :math:`\dot\alpha_0 + \sum a_m \pi m \cos \pi m t`."""
        w, a = math.pi * self.m.to(t), self.coefficients.to(t)
        start = self.start.rate(t) if hasattr(self.start, "rate") else with_rate(self.start, t)[1]
        return start + (torch.cos(t[..., None] * w) * (a * w)).sum(-1)


class LearnableInterpolant(nn.Module):
    r"""A path whose :math:`\alpha` and :math:`\beta` are learned, the same for all coordinates; :math:`\gamma` is kept.

    .. math:: \alpha = \alpha_0 + \sum_{m=1}^M a_m \sin \pi m t, \qquad \beta = \beta_0 + \sum_{m=1}^M b_m \sin \pi m t

    The ends are those of ``start`` whatever the coefficients. Learned as above, the path gets shorter, and no shorter
    than the :math:`W_2^2` of these ends, which two scalar schedules do not reach in general:
    :func:`~cnflib.interpolants.transport_gap` reports by how much. They approach it between independent Gaussians of
    mean 0 whose covariances are multiples of one another.

    Args:
        order: The number M of coefficients of each schedule.
        start: The interpolant to begin with, by default :class:`~cnflib.interpolants.Linear`.

    Attributes:
        interpolant: The :class:`Interpolant`, whose gradients reach the coefficients; it follows them as they change.
        alpha, beta: The two :class:`FourierSchedule`.

    Raises:
        ValueError: If ``order`` is not a positive int.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import velocity_objective
        >>> from cnflib.nets import MLP
        >>> path = LearnableInterpolant(order=4)
        >>> loss = velocity_objective(
        ...     MLP(2), path.interpolant, torch.randn(64, 2), torch.rand(64, 2)
        ... ).mean()
        >>> loss.backward()
        >>> path.alpha.coefficients.grad.shape
        torch.Size([4])
    """

    def __init__(self, order: int = 4, start: Interpolant = _START) -> None:
        super().__init__()
        self.alpha = FourierSchedule(start.alpha, order)
        self.beta = FourierSchedule(start.beta, order)
        self.interpolant = Interpolant(self.alpha, self.beta, start.gamma2)
