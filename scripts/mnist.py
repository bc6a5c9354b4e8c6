"""What the scripts on MNIST share: its files, the learning rate over a budget, a check of what a checkpoint is of."""

import gzip
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cnflib.train import load

EVENT, LEVELS, DIMS, CLASSES = (1, 28, 28), 256, 784, 10
WARM_UP = 200  # steps


def images(part: str) -> Tensor:
    """The training (``train``) or test (``t10k``) images, integers of shape (N, 1, 28, 28)."""
    return _read(f"{part}-images-idx3", 16).reshape(-1, *EVENT)


def labels(part: str) -> Tensor:
    """Their labels as rows of ten features, one of which is 1."""
    return F.one_hot(_read(f"{part}-labels-idx1", 8).long(), CLASSES).float()


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


def _read(name: str, skip: int) -> Tensor:
    """The bytes of one of MNIST's files behind its header."""
    folder = os.environ.get("CNFLIB_DATA")
    path = Path(folder or ".", "mnist", f"{name}-ubyte.gz")
    if not folder or not path.exists():
        sys.exit(
            f"{path} is missing: set CNFLIB_DATA to a folder that holds MNIST's four files under mnist/."
        )
    with gzip.open(path) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=skip).copy())
