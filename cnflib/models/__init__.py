"""Builders: functions that return ready flows on continuous data, with a standard normal base."""

from cnflib.models.continuous import ffjord
from cnflib.models.coupling import realnvp
from cnflib.models.planar import planar_flow, radial_flow

__all__ = ["ffjord", "planar_flow", "radial_flow", "realnvp"]
