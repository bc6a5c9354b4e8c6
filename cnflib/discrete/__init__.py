"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.coupling import Coupling, Elementwise, additive, affine
from cnflib.discrete.multiscale import Split, Squeeze
from cnflib.discrete.planar import Planar
from cnflib.discrete.radial import Radial

__all__ = ["Coupling", "Elementwise", "Planar", "Radial", "Split", "Squeeze", "additive", "affine"]
