"""What the scripts on MNIST share: its images, the learning rate over a budget, a check of what a checkpoint is of."""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cnflib.data.mnist import mnist
from cnflib.train import load

EVENT, LEVELS, DIMS, CLASSES = (1, 28, 28), 256, 784, 10
WARM_UP = 200  # steps


def images(split: str) -> Tensor:
    """The images to train on or to test, integers of shape (N, 1, 28, 28)."""
    return mnist(split, torch.uint8).images


def labels(split: str) -> Tensor:
    """Their labels as rows of ten features, one of which is 1."""
    return F.one_hot(mnist(split, torch.uint8).labels, CLASSES).float()


def schedule(step: int, done: float) -> float:
    """Factor of the learning rate: a warm-up over steps, a cosine over the budget."""
    return min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1, done)))


def check_settings(path: Path, settings: dict[str, object]) -> None:
    """Stop rather than go on from a run of other settings."""
    saved = load(path)["settings"]
    if saved != settings:
        changed = {k: (saved.get(k), v) for k, v in settings.items() if saved.get(k) != v}
        sys.exit(
            f"{path} was written with other settings {changed} (then, now): delete it, or name another --out."
        )
