"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.interpolant import Interpolant, linear, trigonometric, zero
from cnflib.interpolants.losses import velocity_loss
from cnflib.interpolants.pairing import Pairing, independent
from cnflib.interpolants.sampling import sample_ode

__all__ = [
    "Interpolant",
    "Pairing",
    "independent",
    "linear",
    "sample_ode",
    "trigonometric",
    "velocity_loss",
    "zero",
]
