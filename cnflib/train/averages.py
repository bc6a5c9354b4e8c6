"""The average of the weights along a training run."""

import copy
from typing import Any

import torch
from torch import nn

from cnflib._check import check_module

__all__ = ["EMA"]


class EMA:
    r"""Exponential moving average of a module's parameters, with a warm-up.

    .. math:: \bar\theta_{k+1} = d_k \bar\theta_k + (1 - d_k)\, \theta_{k+1}, \qquad
              d_k = \min\Big(d, \frac{1 + k}{10 + k}\Big), \quad \bar\theta_0 = \theta_0

    Early on the average spans about the last k/9 steps, so the initial weights are soon forgotten; it reaches
    its full length of 1/(1 - d) steps at k ≈ 9/(1 - d). Buffers, and parameters that are not floating, are
    copied.

    Attributes:
        module: A copy of the module that holds :math:`\bar\theta`, in ``eval`` mode, without gradients.
        updates: Number of updates so far, k.

    Args:
        module: The module in training; the average starts at its weights, dtype and device.
        decay: d in [0, 1]; 0 copies the last weights, 1 - 1/m averages over about m steps.

    Raises:
        ValueError: If the module is none, or the decay is outside of [0, 1].
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"Expected decay in [0, 1]; got {decay}. Usual values are 0.99 to 0.9999.")
        check_module(module)
        self.source = module
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights; call it after each optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, value in zip(self.module.parameters(), self.source.parameters(), strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average), 1 - decay)
            else:
                average.copy_(value)
        for average, value in zip(self.module.buffers(), self.source.buffers(), strict=True):
            average.copy_(value)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]
