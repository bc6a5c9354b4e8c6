"""Continuous flows: a vector field integrated over time is a bijection."""

from cnflib.continuous.bottleneck import Bottleneck
from cnflib.continuous.cnf import CNF, Solution
from cnflib.continuous.costs import Cost, JacobianFrobenius, KineticEnergy, PathDerivative
from cnflib.continuous.divergence import Divergence, Exact, Hutchinson, Local, TrainEval
from cnflib.continuous.end_time import EndTime, random_end
from cnflib.continuous.fields import concat, concat_squash, convolutional
from cnflib.continuous.hutchpp import HutchPP
from cnflib.continuous.likelihood import in_chunks, log_prob_and_costs, log_prob_at, log_prob_with_error
from cnflib.continuous.points import carry
from cnflib.continuous.probes import Gaussian, Rademacher
from cnflib.continuous.products import Automatic, ForwardMode, ReverseMode

__all__ = [
    "CNF",
    "Automatic",
    "Bottleneck",
    "Cost",
    "Divergence",
    "EndTime",
    "Exact",
    "ForwardMode",
    "Gaussian",
    "HutchPP",
    "Hutchinson",
    "JacobianFrobenius",
    "KineticEnergy",
    "Local",
    "PathDerivative",
    "Rademacher",
    "ReverseMode",
    "Solution",
    "TrainEval",
    "carry",
    "concat",
    "concat_squash",
    "convolutional",
    "in_chunks",
    "log_prob_and_costs",
    "log_prob_at",
    "log_prob_with_error",
    "random_end",
]


def __dir__() -> list[str]:
    return sorted(__all__)
