"""Continuous flows: a vector field integrated over time is a bijection."""

from cnflib.continuous.cnf import CNF, Solution
from cnflib.continuous.control import adaptive
from cnflib.continuous.costs import Cost, jacobian_frobenius, kinetic_energy, path_derivative
from cnflib.continuous.divergence import (
    Divergence,
    Local,
    bottleneck,
    exact,
    gaussian,
    hutchinson,
    hutchpp,
    rademacher,
)
from cnflib.continuous.fields import EndTime, concat, concat_squash, convolutional, random_end
from cnflib.continuous.gradients import adjoint, checkpointed
from cnflib.continuous.likelihood import in_chunks, log_prob_at, log_prob_with_error
from cnflib.continuous.products import automatic, forward_mode, reverse_mode
from cnflib.continuous.solvers import SolveError, Solver, fixed
from cnflib.continuous.tableaus import (
    Tableau,
    adaptive_heun,
    bosh3,
    dopri5,
    dopri8,
    euler,
    heun,
    midpoint,
    rk4,
)
from cnflib.nets import VectorField

__all__ = [
    "CNF",
    "Cost",
    "Divergence",
    "EndTime",
    "Local",
    "Solution",
    "SolveError",
    "Solver",
    "Tableau",
    "VectorField",
    "adaptive",
    "adaptive_heun",
    "adjoint",
    "automatic",
    "bosh3",
    "bottleneck",
    "checkpointed",
    "concat",
    "concat_squash",
    "convolutional",
    "dopri5",
    "dopri8",
    "euler",
    "exact",
    "fixed",
    "forward_mode",
    "gaussian",
    "heun",
    "hutchinson",
    "hutchpp",
    "in_chunks",
    "jacobian_frobenius",
    "kinetic_energy",
    "log_prob_at",
    "log_prob_with_error",
    "midpoint",
    "path_derivative",
    "rademacher",
    "random_end",
    "reverse_mode",
    "rk4",
]
