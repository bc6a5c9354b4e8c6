"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.conversions import (
    denoiser_from_score,
    score_from_denoiser,
    score_from_velocity,
    velocity_from_score,
)
from cnflib.interpolants.guidance import drop_context, guided
from cnflib.interpolants.interpolant import Coefficients, Interpolant, Schedule, zero
from cnflib.interpolants.losses import velocity_loss
from cnflib.interpolants.noise import bridge, constant, parabola, sigmoid, sine
from cnflib.interpolants.oracle import Mixture, Oracle
from cnflib.interpolants.pairing import Pairing, independent
from cnflib.interpolants.paths import (
    encoding_decoding,
    linear,
    mirror,
    one_sided,
    trigonometric,
    variance_preserving,
)
from cnflib.interpolants.sampling import reflow, sample_ode, sample_sde

__all__ = [
    "Coefficients",
    "Interpolant",
    "Mixture",
    "Oracle",
    "Pairing",
    "Schedule",
    "bridge",
    "constant",
    "denoiser_from_score",
    "drop_context",
    "encoding_decoding",
    "guided",
    "independent",
    "linear",
    "mirror",
    "one_sided",
    "parabola",
    "reflow",
    "sample_ode",
    "sample_sde",
    "score_from_denoiser",
    "score_from_velocity",
    "sigmoid",
    "sine",
    "trigonometric",
    "variance_preserving",
    "velocity_from_score",
    "velocity_loss",
    "zero",
]
