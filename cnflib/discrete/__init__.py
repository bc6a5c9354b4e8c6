"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.coupling import Coupling, checkerboard, halves
from cnflib.discrete.elementwise import Elementwise, Scale, additive, affine
from cnflib.discrete.multiscale import Split, Squeeze

__all__ = [
    "Coupling",
    "Elementwise",
    "Scale",
    "Split",
    "Squeeze",
    "additive",
    "affine",
    "checkerboard",
    "halves",
]
