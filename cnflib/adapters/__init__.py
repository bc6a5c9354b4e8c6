r"""Adapters: nets trained elsewhere as vector fields of ours, and our flows as torch distributions.

Whatever net :math:`v` was trained elsewhere becomes a field by a single line, and then has a density::

    field = time_second(net)  # v(x, t), as in flow_matching
    flow = Flow(CNF(field), StandardNormal(2))  # log_prob, sample, rsample
    prior = given(flow)  # a torch.distributions.Distribution

A part of a flow that needs no context, where other parts do, is wrapped by :func:`ignore_context`.
A net with dropout or BatchNorm is no fixed function of each row: call ``net.eval()`` before its density is asked for.
"""

from cnflib.adapters.contexts import ignore_context
from cnflib.adapters.distribution import FlowDistribution, given
from cnflib.adapters.nets import (
    Adapted,
    Call,
    Net,
    data_first,
    time_as_feature,
    time_first,
    time_second,
)

__all__ = [
    "Adapted",
    "Call",
    "FlowDistribution",
    "Net",
    "data_first",
    "given",
    "ignore_context",
    "time_as_feature",
    "time_first",
    "time_second",
]


def __dir__() -> list[str]:
    return sorted(__all__)
