"""Stochastic interpolants: vector fields learned by regression instead of by likelihood."""

from cnflib.interpolants.conversions import (
    denoiser_from_score,
    score_from_denoiser,
    score_from_velocity,
    velocity_from_score,
)
from cnflib.interpolants.diagnostics import BatchCost, PairingReport, cost_by_batch, pairing_report
from cnflib.interpolants.energy import TransportGap, gaussian_cost, path_energy, transport_gap
from cnflib.interpolants.entropic import Sinkhorn, sinkhorn_plan
from cnflib.interpolants.flow_maps import (
    AverageVelocity,
    FlowMap,
    MapResiduals,
    map_residuals,
    sample_map,
    time_pairs,
)
from cnflib.interpolants.guidance import drop_context, guided
from cnflib.interpolants.interpolant import Coefficients, Interpolant, PathPoint, Rated, Schedule
from cnflib.interpolants.jump_losses import elbo, posterior_loss
from cnflib.interpolants.jump_sampling import sample_first_hitting, sample_jumps
from cnflib.interpolants.jumps import JumpPath, Masked, UniformNoise, mean_rate
from cnflib.interpolants.learnable import FourierSchedule, LearnableInterpolant
from cnflib.interpolants.likelihood import (
    TimeLogDensity,
    best_diffusion,
    continuity_residual,
    path_measure_bound,
    score_residual,
)
from cnflib.interpolants.losses import denoiser_loss, monitor, score_loss, velocity_loss, velocity_objective
from cnflib.interpolants.map_losses import (
    consistency_loss,
    eulerian_loss,
    lagrangian_loss,
    mean_flow_loss,
    semigroup_loss,
)
from cnflib.interpolants.noise import Bridge, Constant, Parabola, Sigmoid, SineSquared
from cnflib.interpolants.oracle import Oracle
from cnflib.interpolants.pairing import ConditionalPairing, IndependentPairing, Paired, Pairing, RowPairing
from cnflib.interpolants.paths import (
    EncodingDecoding,
    Linear,
    Mirror,
    OneSided,
    Trigonometric,
    VariancePreserving,
)
from cnflib.interpolants.sampling import reflow, sample_ode, sample_sde
from cnflib.interpolants.times import BetaTimes, ImportanceTimes, TimeLaw, UniformTimes
from cnflib.interpolants.transport import OptimalTransport

__all__ = [
    "AverageVelocity",
    "BatchCost",
    "BetaTimes",
    "Bridge",
    "Coefficients",
    "ConditionalPairing",
    "Constant",
    "EncodingDecoding",
    "FlowMap",
    "FourierSchedule",
    "ImportanceTimes",
    "IndependentPairing",
    "Interpolant",
    "JumpPath",
    "LearnableInterpolant",
    "Linear",
    "MapResiduals",
    "Masked",
    "Mirror",
    "OneSided",
    "OptimalTransport",
    "Oracle",
    "Paired",
    "Pairing",
    "PairingReport",
    "Parabola",
    "PathPoint",
    "Rated",
    "RowPairing",
    "Schedule",
    "Sigmoid",
    "SineSquared",
    "Sinkhorn",
    "TimeLaw",
    "TimeLogDensity",
    "TransportGap",
    "Trigonometric",
    "UniformNoise",
    "UniformTimes",
    "VariancePreserving",
    "best_diffusion",
    "consistency_loss",
    "continuity_residual",
    "cost_by_batch",
    "denoiser_from_score",
    "denoiser_loss",
    "drop_context",
    "elbo",
    "eulerian_loss",
    "gaussian_cost",
    "guided",
    "lagrangian_loss",
    "map_residuals",
    "mean_flow_loss",
    "mean_rate",
    "monitor",
    "pairing_report",
    "path_energy",
    "path_measure_bound",
    "posterior_loss",
    "reflow",
    "sample_first_hitting",
    "sample_jumps",
    "sample_map",
    "sample_ode",
    "sample_sde",
    "score_from_denoiser",
    "score_from_velocity",
    "score_loss",
    "score_residual",
    "semigroup_loss",
    "sinkhorn_plan",
    "time_pairs",
    "transport_gap",
    "velocity_from_score",
    "velocity_loss",
    "velocity_objective",
]


def __dir__() -> list[str]:
    return sorted(__all__)
