"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.autoregressive import MADE, MaskedAutoregressive
from cnflib.discrete.coupling import Coupling, checkerboard, halves
from cnflib.discrete.elementwise import Elementwise, Scale, additive, affine
from cnflib.discrete.multiscale import Split, Squeeze
from cnflib.discrete.planar import Planar
from cnflib.discrete.radial import Radial
from cnflib.discrete.spline import rational_quadratic

__all__ = [
    "MADE",
    "Coupling",
    "Elementwise",
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
    "rational_quadratic",
]
