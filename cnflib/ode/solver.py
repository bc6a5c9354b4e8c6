r"""What a solver of :math:`\dot y = F(t, y)` is: how it is called, what it returns, and how it gives up."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "RightHandSide",
    "SolveError",
    "Solver",
    "State",
    "Stats",
    "Work",
    "integrate",
]

State = tuple[Tensor, ...]
RightHandSide = Callable[[Tensor, State], State]


@dataclass
class Work:
    """Evaluations, accepted steps and rejected steps of a backward pass: 0 until it runs, then filled in.

    Example:
        >>> Work()
        Work(nfe=0, accepted=0, rejected=0)
    """

    nfe: int = 0
    accepted: int = 0
    rejected: int = 0


class Stats(NamedTuple):
    """Evaluations of the right-hand side, accepted steps and rejected steps of one solve, and of its backward pass.

    Backpropagation evaluates nothing anew, so its backward work stays 0.

    Example:
        >>> from cnflib.ode import Work
        >>> Stats(nfe=8, accepted=1, rejected=0, backward=Work()).nfe
        8
    """

    nfe: int
    accepted: int
    rejected: int
    backward: Work


class Solver(Protocol):
    r"""Whatever is called as ``solver(rhs, state, times, inputs=())`` and returns ``(states, stats)``.

    ``rhs(t, state)`` is the right-hand side, with a tuple of tensors as state and t of shape ``()``, or ``(B,)`` where
    every row keeps its own steps; ``times`` are at least two, in strict order, up or down. ``states`` is the state at
    all of them, each part with a new first axis. Times may be of a higher precision than the state: their differences
    are taken first and rounded then, and rhs gets t in the dtype of the state. ``inputs`` are the other tensors that
    the right-hand side depends on and that want a gradient; backpropagation finds them by itself, a backward pass that
    evaluates the right-hand side anew does not.

    Example:
        >>> import torch
        >>> from cnflib.ode import Fixed
        >>> (y,), stats = Fixed(4)(
        ...     lambda t, state: (-state[0],),
        ...     (torch.ones(3),),
        ...     torch.tensor([0.0, 1.0]),
        ... )
        >>> y.shape, stats.nfe
        (torch.Size([2, 3]), 16)
    """

    def __call__(
        self, rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor] = ()
    ) -> tuple[State, Stats]: ...


class SolveError(RuntimeError):
    """A solve could not go on; the message says where, why and what to try.

    Example:
        >>> import torch
        >>> from cnflib.ode import Adaptive, solve
        >>> try:
        ...     solve(lambda t, y: y**2, torch.ones(1), (0.0, 2.0))
        ... except SolveError as error:
        ...     print(str(error)[:17])
        The solve stopped
    """


def integrate(
    solver: Solver, rhs: RightHandSide, state: State, times: Tensor, depends: Iterable[Tensor]
) -> tuple[State, Stats]:
    """The states at all times; without a solve where the state is empty.

    Args:
        solver: The solver.
        rhs: The right-hand side.
        state: The starting state.
        times: At least two times in strict order.
        depends: What the right-hand side depends on besides; what of it wants a gradient is handed on, each once.

    Example:
        >>> import torch
        >>> from cnflib.ode import Adaptive
        >>> (y,), stats = integrate(
        ...     Adaptive(),
        ...     lambda t, state: state,
        ...     (torch.ones(0, 2),),
        ...     torch.arange(2.0),
        ...     (),
        ... )
        >>> y.shape, stats.nfe
        (torch.Size([2, 0, 2]), 0)
    """
    if not any(y.numel() for y in state):
        return tuple(torch.stack([y] * len(times)) for y in state), Stats(0, 0, 0, Work())
    inputs = {id(p): p for p in depends if p.requires_grad}
    return solver(rhs, state, times, tuple(inputs.values()))
