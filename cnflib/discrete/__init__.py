"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.coupling import Coupling, Elementwise, additive, affine
from cnflib.discrete.multiscale import Split, Squeeze

__all__ = ["Coupling", "Elementwise", "Split", "Squeeze", "additive", "affine"]
