"""Builders: functions that return ready flows on continuous data, with a standard normal base."""

from cnflib.models.continuous import ffjord
from cnflib.models.coupling import nice, realnvp

__all__ = ["ffjord", "nice", "realnvp"]
