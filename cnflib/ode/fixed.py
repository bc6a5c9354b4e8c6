r"""Equal steps: a Runge-Kutta method whose cost is known in advance, free of graph breaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnflib._check import check_positive_int
from cnflib._settings import compact_repr
from cnflib.ode._backward import check_visible
from cnflib.ode._checks import check_tableau
from cnflib.ode._times import ends_and_spans, within
from cnflib.ode.checkpoint import Step, checkpointed
from cnflib.ode.runge_kutta import runge_kutta_step
from cnflib.ode.solver import RightHandSide, State, Stats, Work
from cnflib.ode.tableaus import Tableau, rk4

__all__ = ["Fixed"]

Projection = Callable[[Tensor, Tensor], Tensor]
"""``project(t, y)``: the nearest point to y, or one near it, of where the exact solution stays."""


@dataclass(frozen=True, repr=False)
class Fixed:
    r"""Equal steps between consecutive times, free of graph breaks: for compilation, and for a cost known in advance.

    .. math:: y_{k+1} = \Pi\bigl(t_{k+1},\; y_k + h \sum_i b_i k_i\bigr), \qquad h = (t_1 - t_0) / \mathrm{steps}

    with the projection :math:`\Pi`, if there is one. The error is not controlled. Halve the step and compare before a
    likelihood is believed: coarse steps fake it. A solve forward and a solve backward are not inverses of each other,
    only up to :math:`O(h^p)`.

    Gradients are by backpropagation. With ``checkpoint`` each step is computed again in the backward pass: the same
    gradient, in the memory of one state for each step and the graph of a single step, and about half more time.
    Gradients of gradients are then refused.

    Args:
        steps: Steps between two consecutive times.
        tableau: The Runge-Kutta method: :data:`euler`, :data:`midpoint`, :data:`heun`, :data:`rk4` or your own.
        checkpoint: Whether the backward pass computes each step again instead of keeping its graph.
        project: ``project(t, y)`` takes the first part of the state, after each step, back to a manifold that the
            exact solution does not leave; the order of the method is kept. A log-determinant beside it is not
            projected.

    Raises:
        ValueError: On ``steps`` that are not a positive int, or a tableau that is none. When called with
            ``checkpoint``: if the right-hand side depends on a tensor that wants a gradient and is not in ``inputs``.

    References:
        Geometric Numerical Integration, Hairer, Lubich & Wanner, 2006, section IV.4 (projection);
        Training Deep Nets with Sublinear Memory Cost, Chen et al., 2016, arXiv:1604.06174 (checkpoints).

    Example:
        >>> import torch
        >>> from cnflib.ode import solve
        >>> solve(lambda t, y: -y, torch.ones(2), (0.0, 1.0), Fixed(10)).y[-1]
        tensor([0.3679, 0.3679])
    """

    steps: int
    tableau: Tableau = rk4
    checkpoint: bool = False
    project: Projection | None = None

    __repr__ = compact_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", check_positive_int(self.steps, "steps"))
        check_tableau(self.tableau, "euler, midpoint, heun, rk4")

    def __call__(
        self, rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor] = ()
    ) -> tuple[State, Stats]:
        """The states at all times, as a :class:`Solver` is called."""
        ends, spans = ends_and_spans(times, state[0])
        total = self.steps * len(spans)
        stats = Stats(total * len(self.tableau.b), total, 0, Work())
        rhs, project = within(rhs, ends), self.project and within(self.project, ends)
        step = _one_step(rhs, self.tableau, project)
        if self.checkpoint:
            seen = rhs if project is None else lambda t, y: rhs(t, (project(t, y[0]), *y[1:]))
            used = check_visible(seen, state, ends[0], inputs)
            step = checkpointed(step, len(self.tableau.b), inputs, used, stats.backward)
        return _equal_steps(step, state, ends, spans / self.steps, self.steps), stats

    def halved(self) -> "Fixed":
        """The same solver with steps of half the length."""
        return replace(self, steps=2 * self.steps)


def _one_step(rhs: RightHandSide, tableau: Tableau, project: Projection | None) -> Step:
    def step(t: Tensor, h: Tensor, state: State) -> State:
        times = [torch.add(t, h, alpha=c) for c in tableau.c]
        y, _ = runge_kutta_step(rhs, tableau, times, h, state)
        return y if project is None else (_projected(project, t + h, y[0]), *y[1:])

    return step


def _equal_steps(step: Step, state: State, ends: Tensor, lengths: Tensor, steps: int) -> State:
    states = [state]
    for start, h in zip(ends[:-1], lengths, strict=True):
        for k in range(steps):
            state = step(torch.add(start, h, alpha=k), h, state)
        states.append(state)
    return tuple(torch.stack(parts) for parts in zip(*states, strict=True))


def _projected(project: Projection, t: Tensor, y: Tensor) -> Tensor:
    on = project(t, y)
    if on.shape != y.shape:
        raise ValueError(
            f"Expected project(t, y) to return a tensor of y's shape {tuple(y.shape)}; got {tuple(on.shape)}."
        )
    return on
