"""The ways to differentiate one solve."""

from dataclasses import replace

from cnflib.ode.adaptive import Adaptive
from cnflib.ode.fixed import Fixed
from cnflib.ode.solver import Solver
from cnflib.ode.torchdiffeq import TorchDiffEq

__all__ = ["alternatives"]


def alternatives(solver: Solver) -> dict[str, Solver]:
    r"""The same solve with each way to differentiate it: ``{"backprop": ..., "adjoint": ...}`` or ``"checkpoint"``.

    The adjoint of steps that every row chooses for itself, or that are compiled, takes common steps, not compiled.
    Empty for a solver that is not of this library.

    Args:
        solver: :class:`Adaptive`, :class:`Fixed` or :class:`TorchDiffEq`.

    Example:
        >>> from cnflib.ode import Fixed
        >>> alternatives(Fixed(4))
        {'backprop': Fixed(4), 'checkpoint': Fixed(4, checkpoint=True)}
    """
    if isinstance(solver, Fixed):
        return {
            "backprop": replace(solver, checkpoint=False),
            "checkpoint": replace(solver, checkpoint=True),
        }
    if isinstance(solver, Adaptive):
        common = replace(solver, per_row=False, compiled=False, adjoint=True)
        return {"backprop": replace(solver, adjoint=False), "adjoint": common}
    if isinstance(solver, TorchDiffEq):
        return {"backprop": replace(solver, adjoint=False), "adjoint": replace(solver, adjoint=True)}
    return {}
