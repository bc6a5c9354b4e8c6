r"""The continuous normalizing flow: a vector field, integrated over time, as a bijection.

Along a solution of :math:`\dot x = f(t, x)` the density obeys the instantaneous change of variables

.. math:: \frac{d}{dt} \log p_t(x(t)) = -\operatorname{tr} \frac{\partial f}{\partial x}(t, x(t)).

Time 0 is the base and time 1 is the data.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_returned, eager
from cnflib._check_field import check_deterministic, check_differentiable
from cnflib._field import uniform
from cnflib.bijection import Bijection
from cnflib.continuous._boundary import (
    ONE_STEP,
    as_path,
    as_times,
    check_costs,
    check_divergence,
    check_parts,
    check_points,
    event_of_field,
    inputs_of,
    same_time,
)
from cnflib.continuous.costs import Cost
from cnflib.continuous.divergence import Divergence, Exact
from cnflib.continuous.points import carry_along
from cnflib.nets import VectorField
from cnflib.ode import Adaptive, Solver
from cnflib.ode.solver import State, Work, integrate

__all__ = ["CNF", "Solution"]

_EXACT, _ADAPTIVE = Exact(), Adaptive()


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

    Example:
        >>> import torch
        >>> from cnflib.continuous import CNF
        >>> from cnflib.ode import Fixed
        >>> solution = CNF(lambda t, x: -x, solver=Fixed(5)).solve(
        ...     torch.ones(2, 3), 0.0, 1.0
        ... )
        >>> print(solution.report())
                   evaluations  accepted  rejected
        forward             20         5         0
        backward             0         0         0
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
    To encode it is solved from 1 to 0, to decode from 0 to 1; the two invert each other up to the solver's error.
    ``encode``, ``decode`` and :meth:`trajectory` give points alone and ask for no divergence: an evaluation of the
    field a stage. The state of an adaptive solve is then another, so their points agree with those of
    ``encode_and_logdet`` and ``decode_and_logdet`` to its tolerance, not to the last digit.

    Args:
        field: The vector field, f(t, x) or f(t, x, context); its parameters are the flow's if it is a module.
        divergence: :class:`Exact`, or :class:`Hutchinson` in many dimensions; :class:`TrainEval` holds one for
            training and one for evaluation.
        solver: :class:`cnflib.ode.Adaptive`, :class:`cnflib.ode.Fixed` or :class:`cnflib.ode.TorchDiffEq`; to save
            memory ``Adaptive(adjoint=True)`` or ``Fixed(steps, checkpoint=True)``.
        costs: Rates to integrate along the path, e.g. ``(KineticEnergy(),)``.

    Raises:
        ValueError: If a part is not what its name says.

    References:
        Neural Ordinary Differential Equations, Chen et al., 2018, arXiv:1806.07366;
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.

    Example:
        >>> import torch
        >>> from cnflib.continuous import KineticEnergy
        >>> from cnflib.nets import MLP
        >>> from cnflib.ode import Fixed
        >>> cnf = CNF(
        ...     MLP(2, hidden=(16,)), solver=Fixed(4), costs=(KineticEnergy(),)
        ... )
        >>> cnf.solve(torch.randn(5, 2), 1.0, 0.0).costs[0].shape
        torch.Size([5])
        >>> cnf.trajectory(torch.randn(5, 2), [0.0, 0.5, 1.0]).shape
        torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        field: VectorField,
        divergence: Divergence = _EXACT,
        solver: Solver = _ADAPTIVE,
        costs: Sequence[Cost] = (),
    ) -> None:
        super().__init__()
        check_parts(field, solver)
        check_divergence(divergence)
        self.field = field
        self.divergence = divergence
        self.solver = solver
        self.costs = check_costs(costs)
        learned = [cost for cost in self.costs if isinstance(cost, nn.Module)]
        if learned:
            self.learned_costs = nn.ModuleList(learned)

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The shape of an event, where the field says it; else None."""
        return event_of_field(self.field)

    def __setattr__(self, name: str, value: object) -> None:
        """Set a part; a module may be replaced by one that is none, which torch alone refuses."""
        if name in self.__dict__.get("_modules", {}) and not isinstance(value, nn.Module):
            del self._modules[name]
        super().__setattr__(name, value)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        path = self._solve(x, x.new_tensor((1.0, 0.0)), context, generator)
        return path.x[-1], path.logdet[-1]

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        path = self._solve(z, z.new_tensor((0.0, 1.0)), context, generator)
        return path.x[-1], path.logdet[-1]

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return carry_along(self.field, x, x.new_tensor((1.0, 0.0)), context, self.solver)[-1]

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return carry_along(self.field, z, z.new_tensor((0.0, 1.0)), context, self.solver)[-1]

    def trajectory(
        self,
        x: Tensor,
        times: Sequence[float] | Tensor,
        context: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Carry points from the first of several times through all others, without log-determinants.

        Args:
            x: Points at ``times[0]``, shape ``(B, *event)``.
            times: At least two times in [0, 1], strictly increasing or strictly decreasing.
            context: What the field is conditioned on, a tensor of B rows.
            generator: Not used, nothing is drawn.

        Returns:
            The points at all times, shape ``(T, B, *event)``.

        Raises:
            ValueError: On a wrong shape, dtype, device or time, or a field that returns a wrong shape.
            SolveError: If an adaptive solve cannot go on.
        """
        check_points(self.field, x, context)
        return carry_along(self.field, x, as_path(times, x), context, self.solver)

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
            context: What the field is conditioned on, a tensor of B rows.
            generator: Source of the divergence's probes.

        Returns:
            The :class:`Solution` at t1.

        Raises:
            ValueError: On a wrong shape, dtype, device or time, or a field that returns a wrong shape.
            SolveError: If an adaptive solve cannot go on.
        """
        check_points(self.field, x, context)
        times = as_times((t0, t1), x)
        same = same_time(t0, t1, times)
        if same and not times.requires_grad:
            zero = x.new_zeros(x.shape[0])
            return Solution(x, zero, tuple(zero for _ in self.costs), 0, 0, 0, Work())
        path = self._solve(x, times, context, generator, ONE_STEP if same else self.solver)
        return path._replace(x=path.x[-1], logdet=path.logdet[-1], costs=tuple(c[-1] for c in path.costs))

    def solve_along(
        self,
        x: Tensor,
        times: Sequence[float] | Tensor,
        context: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Solution:
        r"""Carry points and log-determinants from the first of several times through all others.

        Args:
            x: Points at ``times[0]``, shape ``(B, *event)``.
            times: At least two times in [0, 1], strictly increasing or strictly decreasing.
            context: What the field is conditioned on, a tensor of B rows.
            generator: Source of the divergence's probes, drawn once for the whole path.

        Returns:
            The :class:`Solution` with a leading axis of times; ``logdet[k]`` is that of the map from ``times[0]`` to
            ``times[k]``.

        Raises:
            ValueError: As :meth:`solve`, and if the times are not in strict order.
        """
        check_points(self.field, x, context)
        return self._solve(x, as_path(times, x), context, generator)

    def _solve(
        self,
        x: Tensor,
        times: Tensor,
        context: Tensor | None,
        generator: Generator | None,
        solver: Solver | None = None,
    ) -> Solution:
        """The solution at all times, by the flow's own solver or another."""
        check_deterministic(self.field)
        field, local = uniform(self.field), self.divergence(x, generator)
        direction = torch.sign((times[-1] - times[0]).detach())

        def rhs(t: Tensor, state: State) -> State:
            here = local(field, t, state[0], context)
            rates = [cost(field, t, state[0], context, here) for cost in self.costs]
            for rate in rates:
                check_returned(rate, x.shape[:1], "every cost", "a rate")
            return (here.velocity, here.divergence, *(direction * rate for rate in rates))

        zero = x.new_zeros(x.shape[0])
        start = (x, zero, *[zero] * len(self.costs))
        (path, logdet, *costs), stats = integrate(
            solver or self.solver, rhs, start, times, inputs_of(self, context)
        )
        if eager(logdet) and not logdet.any():
            check_differentiable(field, times[0], x, context)
        return Solution(path, logdet, tuple(costs), *stats)

    def extra_repr(self) -> str:
        parts = {"field": self.field, "divergence": self.divergence, "solver": self.solver}
        shown = [f"{name}={_name(part)}" for name, part in parts.items() if not isinstance(part, nn.Module)]
        costs = ", ".join(map(_name, self.costs)) + "," * (len(self.costs) == 1)
        return ", ".join([*shown, *([f"costs=({costs})"] if costs else [])])


def _name(part: object) -> str:
    """How a part is printed: a function and a module by name, settings as they are."""
    return (
        type(part).__name__ + "(…)" if isinstance(part, nn.Module) else getattr(part, "__name__", repr(part))
    )
