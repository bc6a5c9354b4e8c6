"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.diagnostics import BatchCost, PairingReport, cost_by_batch, pairing_report
from cnflib.interpolants.entropic import sinkhorn, sinkhorn_plan
from cnflib.interpolants.interpolant import Coefficients, Interpolant, Schedule, zero
from cnflib.interpolants.losses import velocity_loss
from cnflib.interpolants.noise import bridge, constant, parabola, sigmoid, sine
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
from cnflib.interpolants.transport import optimal_transport

__all__ = [
    "BatchCost",
    "Coefficients",
    "Interpolant",
    "Pairing",
    "PairingReport",
    "RowPairing",
    "Schedule",
    "bridge",
    "conditional",
    "constant",
    "cost_by_batch",
    "encoding_decoding",
    "independent",
    "linear",
    "mirror",
    "one_sided",
    "optimal_transport",
    "paired",
    "pairing_report",
    "parabola",
    "sample_ode",
    "sigmoid",
    "sine",
    "sinkhorn",
    "sinkhorn_plan",
    "trigonometric",
    "variance_preserving",
    "velocity_loss",
    "zero",
]
