"""Builders: functions that return ready flows on continuous data, with a standard normal base."""

from cnflib.models.autoregressive import iaf, maf
from cnflib.models.continuous import ffjord
from cnflib.models.coupling import nice, realnvp, spline_flow
from cnflib.models.gaussian import gaussian
from cnflib.models.mixing import glow
from cnflib.models.planar import planar_flow, radial_flow
from cnflib.models.residual import residual_flow

__all__ = [
    "ffjord",
    "gaussian",
    "glow",
    "iaf",
    "maf",
    "nice",
    "planar_flow",
    "radial_flow",
    "realnvp",
    "residual_flow",
    "spline_flow",
]


def __dir__() -> list[str]:
    return sorted(__all__)
