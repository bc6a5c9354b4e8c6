"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.autoregressive import MADE, MaskedAutoregressive
from cnflib.discrete.coupling import Coupling, checkerboard, halves
from cnflib.discrete.elementwise import Elementwise, Scale, additive, affine
from cnflib.discrete.linear import ActNorm, InvertibleConv1x1
from cnflib.discrete.multiscale import Flatten, Split, Squeeze
from cnflib.discrete.pixels import Dequantize, Logit, mean_log_prob
from cnflib.discrete.planar import Planar
from cnflib.discrete.radial import Radial
from cnflib.discrete.spline import rational_quadratic

__all__ = [
    "MADE",
    "ActNorm",
    "Coupling",
    "Dequantize",
    "Elementwise",
    "Flatten",
    "InvertibleConv1x1",
    "Logit",
    "MaskedAutoregressive",
    "Planar",
    "Radial",
    "Scale",
    "Split",
    "Squeeze",
    "additive",
    "affine",
    "checkerboard",
    "halves",
    "mean_log_prob",
    "rational_quadratic",
]
