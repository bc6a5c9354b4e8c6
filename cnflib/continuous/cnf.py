r"""The continuous normalizing flow: a vector field, integrated over time, as a bijection.

Along a solution of :math:`\dot x = f(t, x)` the density obeys the instantaneous change of variables

.. math:: \frac{d}{dt} \log p_t(x(t)) = -\operatorname{tr} \frac{\partial f}{\partial x}(t, x(t)).

Time 0 is the base and time 1 is the data.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib._check import (
    check_differentiable,
    check_rate,
    eager,
)
from cnflib.bijection import Bijection
from cnflib.continuous._arguments import as_times, check_parts, in_order, same_time
from cnflib.continuous._carry import carry, check, inputs, integrate
from cnflib.continuous.control import adaptive
from cnflib.continuous.costs import Cost
from cnflib.continuous.divergence import Divergence, exact
from cnflib.continuous.solvers import Solver, State, Work, fixed
from cnflib.continuous.tableaus import euler
from cnflib.nets import VectorField

__all__ = ["CNF", "Solution"]


class Solution(NamedTuple):
    r"""The state at the end of a solve, or along a path with a leading axis of times.

    Attributes:
        x: Points :math:`x(t_1)`, shape ``(B, *event)``.
        logdet: :math:`\log|\det \partial x(t_1)/\partial x(t_0)| = \int_{t_0}^{t_1} \operatorname{tr} J\,dt`, in
            nats, shape ``(B,)``.
        costs: One :math:`\int |dt|` for each cost, shape ``(B,)``.
        nfe: Evaluations of the field together with its divergence.
        accepted: Accepted steps.
        rejected: Rejected steps.
        backward: The same three numbers of the backward pass: 0 until it runs, and where it evaluates nothing anew.
    """

    x: Tensor
    logdet: Tensor
    costs: tuple[Tensor, ...]
    nfe: int
    accepted: int
    rejected: int
    backward: Work

    def report(self) -> str:
        """What the solve, and by now its backward pass, took, as a small table."""
        rows = {"forward": self, "backward": self.backward}
        lines = [f"{name:<10}{w.nfe:>12}{w.accepted:>10}{w.rejected:>10}" for name, w in rows.items()]
        return "\n".join([f"{'':<10}{'evaluations':>12}{'accepted':>10}{'rejected':>10}", *lines])


class CNF(Bijection):
    r"""The flow of a vector field from t = 0 (base) to t = 1 (data).

    .. math:: x(1) = x(0) + \int_0^1 f(t, x(t))\,dt, \qquad
        \log\left|\det \frac{\partial x(1)}{\partial x(0)}\right| = \int_0^1 \operatorname{tr}
        \frac{\partial f}{\partial x}\,dt

    The field must be continuous in t and Lipschitz in x, and continuously differentiable in x for the log-determinant.
    :meth:`forward` solves from 1 to 0, :meth:`inverse` from 0 to 1; they invert each other up to the solver's error.

    Args:
        field: The vector field ``f(t, x, context)``; its parameters are the flow's if it is a module.
        divergence: :func:`exact`, or :func:`hutchinson` in many dimensions.
        solver: :func:`adaptive` by default, or :func:`fixed`; :func:`adjoint` or :func:`checkpointed` to save memory.
        costs: Rates to integrate along the path, e.g. :func:`kinetic_energy`.

    References:
        Neural Ordinary Differential Equations, Chen et al., 2018, arXiv:1806.07366;
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.
    """

    def __init__(
        self,
        field: VectorField,
        divergence: Divergence = exact,
        solver: Solver | None = None,
        costs: Sequence[Cost] = (),
    ) -> None:
        super().__init__()
        check_parts(field, divergence, solver, costs)
        self.field = field
        self.divergence = divergence
        self.solver = adaptive() if solver is None else solver
        self.costs = tuple(costs)
        self.learned_costs = nn.ModuleList(cost for cost in self.costs if isinstance(cost, nn.Module))

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        solution = self.solve(x, 1.0, 0.0, context, generator)
        return solution.x, solution.logdet

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        solution = self.solve(z, 0.0, 1.0, context, generator)
        return solution.x, solution.logdet

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.carry(z, 0.0, 1.0, context)

    def carry(
        self, x: Tensor, t0: float | Tensor, t1: float | Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The points of :meth:`solve` alone, without log-determinant and costs: one evaluation of the field a stage."""
        return carry(self.field, x, t0, t1, context, self.solver)

    def solve(
        self,
        x: Tensor,
        t0: float | Tensor,
        t1: float | Tensor,
        context: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Solution:
        r"""Carry points from time t0 to time t1, either way round; ``t0 == t1`` is the identity.

        Args:
            x: Points at time t0, shape ``(B, *event)``.
            t0: Starting time in [0, 1].
            t1: Final time in [0, 1].
            context: What the field is conditioned on, shape ``(B, features)``.
            generator: Source of the divergence's probes.

        Returns:
            The :class:`Solution` at t1.

        Raises:
            ValueError: On a wrong shape, dtype, device or time, or a field that returns a wrong shape.
            SolveError: If an adaptive solve cannot go on.
        """
        times = as_times((t0, t1), x)
        check(self.field, x, context)
        same = same_time(t0, t1, times)
        if same and not times.requires_grad:
            zero = x.new_zeros(x.shape[0])
            return Solution(x, zero, tuple(zero for _ in self.costs), 0, 0, 0, Work())
        path = self._path(x, times, context, generator, fixed(1, euler) if same else self.solver)
        return path._replace(x=path.x[-1], logdet=path.logdet[-1], costs=tuple(c[-1] for c in path.costs))

    def path(
        self,
        x: Tensor,
        times: Sequence[float] | Tensor,
        context: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Solution:
        r"""Carry points from the first of several times through all others.

        Args:
            x: Points at ``times[0]``, shape ``(B, *event)``.
            times: At least two times in [0, 1], strictly increasing or strictly decreasing.
            context: What the field is conditioned on, shape ``(B, features)``.
            generator: Source of the divergence's probes, drawn once for the whole path.

        Returns:
            The :class:`Solution` with a leading axis of times; ``logdet[k]`` is that of the map from ``times[0]`` to
            ``times[k]``.

        Raises:
            ValueError: As :meth:`solve`, and if the times are not in strict order.
        """
        times = as_times(times, x)
        if len(times) < 2 or (eager(times) and not in_order(times)):
            raise ValueError(
                f"Expected at least two times in strict order, up or down; got {times.tolist()}."
            )
        check(self.field, x, context)
        return self._path(x, times, context, generator, self.solver)

    def _path(
        self,
        x: Tensor,
        times: Tensor,
        context: Tensor | None,
        generator: Generator | None,
        solver: Solver,
    ) -> Solution:
        local = self.divergence(x, generator)
        direction = torch.sign((times[-1] - times[0]).detach())

        def rhs(t: Tensor, state: State) -> State:
            here = local(self.field, t, state[0], context)
            rates = [cost(t, state[0], context, self.field, here) for cost in self.costs]
            for rate in rates:
                check_rate(rate, x)
            return (here.velocity, here.divergence, *(direction * rate for rate in rates))

        zero = x.new_zeros(x.shape[0])
        start = (x, zero, *[zero] * len(self.costs))
        (path, logdet, *costs), stats = integrate(rhs, start, times, inputs(self, context), solver)
        if eager(logdet) and not logdet.any():
            check_differentiable(self.field, times[0], x, context)
        return Solution(path, logdet, tuple(costs), *stats)
