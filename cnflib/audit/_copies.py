"""Float64 copies, perturbed weights and seeded draws for the audits, and what a failing call says."""

import copy

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_finite


def double_copy(x: Tensor | None) -> Tensor | None:
    """A copy that shares no memory, in float64; labels stay integers."""
    if x is None:
        return None
    x = x.detach().clone(memory_format=torch.contiguous_format)
    return x.double() if x.is_floating_point() else x


def double_module(module: object) -> object:
    """A copy of a module in float64; what is no module and only has the methods of one is copied as it is."""
    copied = copy.deepcopy(module)
    return copied.double() if isinstance(copied, nn.Module) else copied


def parameters(module: object) -> list[nn.Parameter]:
    return list(module.parameters()) if isinstance(module, nn.Module) else []


def seeded(device: torch.device, seed: int = 0) -> Generator:
    return Generator(device).manual_seed(seed)


def perturb(module: object, generator: Generator) -> None:
    with torch.no_grad():
        for p in parameters(module):
            p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)


def said(error: Exception) -> str:
    """An error in one line of a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def check_audit(x: Tensor, tolerance: float) -> None:
    """Check that there is something to judge, and a bound that can be kept."""
    check_finite(x, "x")
    if not x.numel() or not tolerance > 0:
        raise ValueError(
            f"Expected x of one point at least, and tolerance > 0; got x of shape {tuple(x.shape)} and "
            f"tolerance={tolerance}. A handful of points and the default tolerance are enough."
        )
