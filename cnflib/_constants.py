"""Tensors that follow from the arguments alone, masks and frequencies, which no state dict would fill in."""

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["constants"]


def constants() -> AbstractContextManager:
    """Where constants are made: on torch's default device, but on the CPU where that is meta, which has no values."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext()
