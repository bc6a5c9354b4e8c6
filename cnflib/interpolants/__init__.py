"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.diagnostics import BatchCost, PairingReport, cost_by_batch, pairing_report
from cnflib.interpolants.energy import TransportGap, gaussian_cost, path_energy, transport_gap
from cnflib.interpolants.entropic import sinkhorn, sinkhorn_plan
from cnflib.interpolants.interpolant import Coefficients, Interpolant, Rated, Schedule, zero
from cnflib.interpolants.learnable import FourierSchedule, GaussianBase, LearnableInterpolant
from cnflib.interpolants.losses import monitor, velocity_loss, velocity_objective
from cnflib.interpolants.noise import bridge, constant, parabola, sigmoid, sine
from cnflib.interpolants.noise_losses import denoiser_loss, score_loss
from cnflib.interpolants.pairing import Pairing, RowPairing, conditional, independent, paired
from cnflib.interpolants.paths import (
    encoding_decoding,
    linear,
    mirror,
    one_sided,
    trigonometric,
    variance_preserving,
)
from cnflib.interpolants.sampling import sample_ode
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
    "Pairing",
    "PairingReport",
    "Rated",
    "RowPairing",
    "Schedule",
    "TimeLaw",
    "TransportGap",
    "beta_times",
    "bridge",
    "conditional",
    "constant",
    "cost_by_batch",
    "denoiser_loss",
    "encoding_decoding",
    "gaussian_cost",
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
    "sample_ode",
    "score_loss",
    "sigmoid",
    "sine",
    "sinkhorn",
    "sinkhorn_plan",
    "transport_gap",
    "trigonometric",
    "uniform_times",
    "variance_preserving",
    "velocity_loss",
    "velocity_objective",
    "zero",
]
