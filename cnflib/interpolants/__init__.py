"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.interpolant import Coefficients, Interpolant, Schedule, zero
from cnflib.interpolants.likelihood import (
    LogDensity,
    best_diffusion,
    continuity_residual,
    path_measure_bound,
    score_residual,
)
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
    "LogDensity",
    "Pairing",
    "Schedule",
    "best_diffusion",
    "bridge",
    "constant",
    "continuity_residual",
    "encoding_decoding",
    "independent",
    "linear",
    "mirror",
    "one_sided",
    "parabola",
    "path_measure_bound",
    "sample_ode",
    "score_residual",
    "sigmoid",
    "sine",
    "trigonometric",
    "variance_preserving",
    "velocity_loss",
    "zero",
]
