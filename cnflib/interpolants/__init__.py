"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.interpolant import Coefficients, Interpolant, Rated, Schedule, zero
from cnflib.interpolants.losses import monitor, velocity_loss, velocity_objective
from cnflib.interpolants.noise import bridge, constant, parabola, sigmoid, sine
from cnflib.interpolants.noise_losses import denoiser_loss, score_loss
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
    "Rated",
    "Schedule",
    "bridge",
    "constant",
    "denoiser_loss",
    "encoding_decoding",
    "independent",
    "linear",
    "mirror",
    "monitor",
    "one_sided",
    "parabola",
    "sample_ode",
    "score_loss",
    "sigmoid",
    "sine",
    "trigonometric",
    "variance_preserving",
    "velocity_loss",
    "velocity_objective",
    "zero",
]
