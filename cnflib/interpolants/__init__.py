"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.diagnostics import BatchCost, PairingReport, cost_by_batch, pairing_report
from cnflib.interpolants.entropic import sinkhorn, sinkhorn_plan
from cnflib.interpolants.interpolant import Interpolant, linear, trigonometric, zero
from cnflib.interpolants.losses import velocity_loss
from cnflib.interpolants.pairing import Pairing, RowPairing, conditional, independent, paired
from cnflib.interpolants.sampling import sample_ode
from cnflib.interpolants.transport import optimal_transport

__all__ = [
    "BatchCost",
    "Interpolant",
    "Pairing",
    "PairingReport",
    "RowPairing",
    "conditional",
    "cost_by_batch",
    "independent",
    "linear",
    "optimal_transport",
    "paired",
    "pairing_report",
    "sample_ode",
    "sinkhorn",
    "sinkhorn_plan",
    "trigonometric",
    "velocity_loss",
    "zero",
]
