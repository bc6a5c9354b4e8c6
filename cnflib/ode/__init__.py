"""Initial value problems: Runge-Kutta methods as data, solvers that take them, and ways to differentiate a solve."""

from cnflib.ode.adaptive import Adaptive
from cnflib.ode.fixed import Fixed
from cnflib.ode.gradients import alternatives
from cnflib.ode.solve import Result, solve
from cnflib.ode.solver import RightHandSide, SolveError, Solver, State, Stats, Work
from cnflib.ode.tableaus import Tableau, adaptive_heun, bosh3, dopri5, dopri8, euler, heun, midpoint, rk4
from cnflib.ode.torchdiffeq import TorchDiffEq

__all__ = [
    "Adaptive",
    "Fixed",
    "Result",
    "RightHandSide",
    "SolveError",
    "Solver",
    "State",
    "Stats",
    "Tableau",
    "TorchDiffEq",
    "Work",
    "adaptive_heun",
    "alternatives",
    "bosh3",
    "dopri5",
    "dopri8",
    "euler",
    "heun",
    "midpoint",
    "rk4",
    "solve",
]


def __dir__() -> list[str]:
    return sorted(__all__)
