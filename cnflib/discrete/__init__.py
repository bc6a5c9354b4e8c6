"""Discrete flows: bijections that are finite chains of layers."""

from cnflib.discrete.coupling import Coupling, Elementwise, additive, affine

__all__ = ["Coupling", "Elementwise", "additive", "affine"]
