"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.coupling import Coupling, Elementwise, additive, affine
from cnflib.discrete.lipschitz import Contraction, lipswish, sine, spectral_norm
from cnflib.discrete.logdets import exact_logdet, russian_roulette, truncated_series
from cnflib.discrete.multiscale import Split, Squeeze
from cnflib.discrete.residual import Residual

__all__ = [
    "Contraction",
    "Coupling",
    "Elementwise",
    "Residual",
    "Split",
    "Squeeze",
    "additive",
    "affine",
    "exact_logdet",
    "lipswish",
    "russian_roulette",
    "sine",
    "spectral_norm",
    "truncated_series",
]
