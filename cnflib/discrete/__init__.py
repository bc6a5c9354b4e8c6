"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.autoregressive import MADE, MaskedAutoregressive
from cnflib.discrete.coupling import Coupling, checkerboard_mask, halves
from cnflib.discrete.elementwise import Additive, Affine, Elementwise, Scale
from cnflib.discrete.linear import ActNorm, InvertibleConv1x1
from cnflib.discrete.lipschitz import (
    Activation,
    Contraction,
    JacobianProduct,
    Linearized,
    Settled,
    lipswish,
    sine,
)
from cnflib.discrete.logdets import ExactLogDet, LogDet, RussianRoulette, TruncatedSeries
from cnflib.discrete.multiscale import Flatten, Split, Squeeze
from cnflib.discrete.pixels import Dequantize, Logit, mean_log_prob
from cnflib.discrete.planar import Planar
from cnflib.discrete.radial import Radial
from cnflib.discrete.residual import Residual
from cnflib.discrete.spectral import spectral_norm
from cnflib.discrete.spline import RationalQuadratic
from cnflib.discrete.triangular import LowerTriangular

__all__ = [
    "MADE",
    "ActNorm",
    "Activation",
    "Additive",
    "Affine",
    "Contraction",
    "Coupling",
    "Dequantize",
    "Elementwise",
    "ExactLogDet",
    "Flatten",
    "InvertibleConv1x1",
    "JacobianProduct",
    "Linearized",
    "LogDet",
    "Logit",
    "LowerTriangular",
    "MaskedAutoregressive",
    "Planar",
    "Radial",
    "RationalQuadratic",
    "Residual",
    "RussianRoulette",
    "Scale",
    "Settled",
    "Split",
    "Squeeze",
    "TruncatedSeries",
    "checkerboard_mask",
    "halves",
    "lipswish",
    "mean_log_prob",
    "sine",
    "spectral_norm",
]


def __dir__() -> list[str]:
    return sorted(__all__)
