"""A given time of maximum likelihood, or of any other loss, by the clock."""

import copy
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

CLIP, WARM_UP = 5.0, 50


class Kept(NamedTuple):
    """The averaged weights after so many seconds and steps."""

    seconds: float
    steps: int
    module: nn.Module


def mean_nll(log_prob: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of maximum likelihood."""
    return lambda x: -log_prob(x).mean()


def train(
    loss: Callable[[Tensor], Tensor],
    module: nn.Module,
    draw: Callable[[], Tensor],
    seconds: float,
    every: float,
    rate: float,
    fused: bool = False,
) -> list[Kept]:
    """Adam with a warm-up and a cosine decay over the time, weights averaged, kept at every so many seconds.

    The clock runs in the steps alone, not in the drawing of batches. The first call of a compiled loss comes before.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, fused=fused)
    average, kept, clock, step = copy.deepcopy(module), [], 0.0, 0
    while clock < seconds:
        x = draw()
        start = time.perf_counter()
        decay = 0.5 * (1 + math.cos(math.pi * clock / seconds))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARM_UP) * decay
        optimizer.zero_grad()
        loss(x).backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimizer.step()
        with torch.no_grad():
            weight = min(0.98, step / (step + 10))
            for mean, now in zip(average.parameters(), module.parameters(), strict=True):
                mean.lerp_(now, 1 - weight)
            for held, now in zip(average.buffers(), module.buffers(), strict=True):
                held.copy_(now)
        clock, step = clock + time.perf_counter() - start, step + 1
        if clock >= every * (len(kept) + 1) or clock >= seconds:
            kept.append(Kept(clock, step, copy.deepcopy(average)))
    return kept
