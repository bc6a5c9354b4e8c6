"""A given time of maximum likelihood, or of any other loss, by the clock or by the number of steps."""

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnflib.train import EMA, steps

CLIP, WARM_UP = 5.0, 50


class Kept(NamedTuple):
    """The averaged weights after so many seconds and steps."""

    seconds: float
    steps: int
    module: nn.Module


def mean_nll(log_prob: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss of maximum likelihood."""
    return lambda x: -log_prob(x).mean()


def pace(step: int, share: float) -> float:
    """What a step takes of the full learning rate, after a share of the training: a warm-up, and a cosine down to 0."""
    return min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))


def paced(loss: Callable[[], Tensor], module: nn.Module, ema: EMA, total: int, rate: float) -> Iterator[int]:
    """So many steps of Adam with a warm-up and a cosine decay, weights averaged; the number of each step taken."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, step / total))
    for step, _ in steps(loss, optimizer, total, ema, CLIP, progress=False):
        schedule.step()
        yield step


def train(
    loss: Callable[[Tensor], Tensor],
    module: nn.Module,
    draw: Callable[[], Tensor],
    seconds: float,
    every: float | Sequence[float],
    rate: float,
    fused: bool = False,
    memory: float = 0.98,
) -> list[Kept]:
    """Adam with a warm-up and a cosine decay over the time, weights averaged, kept at every so many seconds.

    The clock runs in the steps alone, not in the drawing of batches. The first call of a compiled loss comes before.
    ``every`` may be the seconds themselves; ``memory`` is the decay of the average.
    """
    marks = [*every, seconds] if isinstance(every, Sequence) else None
    optimizer = torch.optim.Adam(module.parameters(), lr=rate, fused=fused)
    ema, kept, clock = EMA(module, memory), [], 0.0
    loop = steps(lambda: loss(x), optimizer, sys.maxsize, ema, CLIP, progress=False)
    while clock < seconds:
        x = draw()
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * pace(ema.updates, clock / seconds)
        next(loop)
        clock += time.perf_counter() - start
        if clock >= (marks[len(kept)] if marks else every * (len(kept) + 1)) or clock >= seconds:
            kept.append(Kept(clock, ema.updates, copy.deepcopy(ema.module)))
    return kept
