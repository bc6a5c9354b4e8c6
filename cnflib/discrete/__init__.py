"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.autoregressive import MADE, MaskedAutoregressive
from cnflib.discrete.coupling import Coupling, checkerboard, halves
from cnflib.discrete.elementwise import Elementwise, Scale, additive, affine
from cnflib.discrete.linear import ActNorm, InvertibleConv1x1
from cnflib.discrete.lipschitz import Activation, Contraction, Linearized, Product, Settled, lipswish, sine
from cnflib.discrete.logdets import LogDet, exact_logdet, russian_roulette, truncated_series
from cnflib.discrete.multiscale import Flatten, Split, Squeeze
from cnflib.discrete.pixels import Dequantize, Logit, mean_log_prob
from cnflib.discrete.planar import Planar
from cnflib.discrete.radial import Radial
from cnflib.discrete.residual import Residual
from cnflib.discrete.spectral import spectral_norm
from cnflib.discrete.spline import rational_quadratic

__all__ = [
    "MADE",
    "ActNorm",
    "Activation",
    "Contraction",
    "Coupling",
    "Dequantize",
    "Elementwise",
    "Flatten",
    "InvertibleConv1x1",
    "Linearized",
    "LogDet",
    "Logit",
    "MaskedAutoregressive",
    "Planar",
    "Product",
    "Radial",
    "Residual",
    "Scale",
    "Settled",
    "Split",
    "Squeeze",
    "additive",
    "affine",
    "checkerboard",
    "exact_logdet",
    "halves",
    "lipswish",
    "mean_log_prob",
    "rational_quadratic",
    "russian_roulette",
    "sine",
    "spectral_norm",
    "truncated_series",
]
