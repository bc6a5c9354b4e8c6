"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.conversions import score_from_velocity, velocity_from_score
from cnflib.interpolants.denoisers import denoiser_from_score, score_from_denoiser
from cnflib.interpolants.diagnostics import BatchCost, PairingReport, cost_by_batch, pairing_report
from cnflib.interpolants.energy import TransportGap, gaussian_cost, path_energy, transport_gap
from cnflib.interpolants.entropic import sinkhorn, sinkhorn_plan
from cnflib.interpolants.guidance import drop_context, guided
from cnflib.interpolants.interpolant import Coefficients, Interpolant, Rated, Schedule, zero
from cnflib.interpolants.learnable import FourierSchedule, GaussianBase, LearnableInterpolant
from cnflib.interpolants.likelihood import (
    LogDensity,
    best_diffusion,
    continuity_residual,
    path_measure_bound,
    score_residual,
)
from cnflib.interpolants.losses import monitor, velocity_loss, velocity_objective
from cnflib.interpolants.noise import bridge, constant, parabola, sigmoid, sine
from cnflib.interpolants.noise_losses import denoiser_loss, score_loss
from cnflib.interpolants.oracle import Mixture, Oracle
from cnflib.interpolants.pairing import Pairing, RowPairing, conditional, independent, paired
from cnflib.interpolants.paths import (
    encoding_decoding,
    linear,
    mirror,
    one_sided,
    trigonometric,
    variance_preserving,
)
from cnflib.interpolants.sampling import reflow, sample_ode, sample_sde
from cnflib.interpolants.times import ImportanceTimes, TimeLaw, beta_times, uniform_times
from cnflib.interpolants.transport import optimal_transport

__all__ = [
    "BatchCost",
    "Coefficients",
    "FourierSchedule",
    "GaussianBase",
    "ImportanceTimes",
    "Interpolant",
    "LearnableInterpolant",
    "LogDensity",
    "Mixture",
    "Oracle",
    "Pairing",
    "PairingReport",
    "Rated",
    "RowPairing",
    "Schedule",
    "TimeLaw",
    "TransportGap",
    "best_diffusion",
    "beta_times",
    "bridge",
    "conditional",
    "constant",
    "continuity_residual",
    "cost_by_batch",
    "denoiser_from_score",
    "denoiser_loss",
    "drop_context",
    "encoding_decoding",
    "gaussian_cost",
    "guided",
    "independent",
    "linear",
    "mirror",
    "monitor",
    "one_sided",
    "optimal_transport",
    "paired",
    "pairing_report",
    "parabola",
    "path_energy",
    "path_measure_bound",
    "reflow",
    "sample_ode",
    "sample_sde",
    "score_from_denoiser",
    "score_from_velocity",
    "score_loss",
    "score_residual",
    "sigmoid",
    "sine",
    "sinkhorn",
    "sinkhorn_plan",
    "transport_gap",
    "trigonometric",
    "uniform_times",
    "variance_preserving",
    "velocity_from_score",
    "velocity_loss",
    "velocity_objective",
    "zero",
]
