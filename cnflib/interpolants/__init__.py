"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.interpolant import Coefficients, Interpolant, Schedule, zero
from cnflib.interpolants.losses import velocity_loss
from cnflib.interpolants.noise import bridge, constant, parabola, sigmoid, sine
from cnflib.interpolants.pairing import Pairing, independent
from cnflib.interpolants.paths import (
    encoding_decoding,
    linear,
    mirror,
    one_sided,
    trigonometric,
    variance_preserving,
)
from cnflib.interpolants.sampling import sample_ode

__all__ = [
    "Coefficients",
    "Interpolant",
    "Pairing",
    "Schedule",
    "bridge",
    "constant",
    "encoding_decoding",
    "independent",
    "linear",
    "mirror",
    "one_sided",
    "parabola",
    "sample_ode",
    "sigmoid",
    "sine",
    "trigonometric",
    "variance_preserving",
    "velocity_loss",
    "zero",
]
