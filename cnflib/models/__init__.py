"""Builders: functions that return ready flows on continuous data, with a standard normal base."""

from cnflib.models.continuous import ffjord
from cnflib.models.coupling import realnvp
from cnflib.models.residual import residual_flow

__all__ = ["ffjord", "realnvp", "residual_flow"]
