"""Results of a measurement: named tuples that print with the digits they deserve."""

import math
from typing import NamedTuple

__all__ = ["Estimate", "Significance"]


class Estimate(NamedTuple):
    r"""A mean over N independent draws and its standard error; prints as ``3.512 ± 0.004``.

    .. math:: \bar v = \frac1N \sum_i v_i, \qquad
              \mathrm{se} = \frac{s}{\sqrt N}, \quad s^2 = \frac{1}{N-1} \sum_i (v_i - \bar v)^2

    A format such as ``f"{gap:.2f}"`` applies to both numbers, ``float(gap)`` is the value. There is no arithmetic: the
    error of a difference depends on whether both were measured on the same points. There take
    :func:`~cnflib.metrics.paired_gap`; of independent ones the error is ``math.hypot`` of the two.

    Args:
        value: The mean :math:`\bar v`.
        standard_error: :math:`\mathrm{se}`, in the unit of the value; inf where the mean is infinite.
    """

    value: float
    standard_error: float

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        if not (math.isfinite(self.value) and 0 < self.standard_error < math.inf):
            return format(self, "g")
        decimals = max(0, math.ceil(-math.log10(self.standard_error / 2)))
        return format(self, f".{decimals}f")

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ± {self.standard_error:{spec}}" if spec else str(self)


class Significance(NamedTuple):
    r"""A test of one hypothesis; prints as ``0.031, p = 0.42``.

    Where the hypothesis is true :math:`P(\mathrm{p} \le a) \le a` for every a. A large p shows nothing but that this
    test on so many points saw no fault.

    Args:
        statistic: What the test measures; larger is further from the hypothesis.
        p_value: The probability, under the hypothesis, of a statistic at least as large.
    """

    statistic: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.statistic:.3g}, p = {self.p_value:.2g}"
