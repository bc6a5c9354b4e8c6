"""Continuous flows: a vector field integrated over time is a bijection."""

from cnflib.continuous.cnf import CNF, Solution
from cnflib.continuous.costs import Cost, jacobian_frobenius, kinetic_energy
from cnflib.continuous.divergence import (
    Divergence,
    Local,
    exact,
    gaussian,
    hutchinson,
    rademacher,
)
from cnflib.continuous.solvers import (
    SolveError,
    Solver,
    Tableau,
    adaptive,
    euler,
    fixed,
    heun,
    midpoint,
    rk4,
)
from cnflib.nets import VectorField

__all__ = [
    "CNF",
    "Cost",
    "Divergence",
    "Local",
    "Solution",
    "SolveError",
    "Solver",
    "Tableau",
    "VectorField",
    "adaptive",
    "euler",
    "exact",
    "fixed",
    "gaussian",
    "heun",
    "hutchinson",
    "jacobian_frobenius",
    "kinetic_energy",
    "midpoint",
    "rademacher",
    "rk4",
]
