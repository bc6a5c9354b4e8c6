"""Float64 copies, perturbed weights and seeded draws for the audits."""

import torch
from torch import Generator, Tensor, nn


def double_copy(x: Tensor) -> Tensor:
    return x.detach().double().clone(memory_format=torch.contiguous_format)


def seeded(device: torch.device, seed: int = 0) -> Generator:
    return Generator(device).manual_seed(seed)


def perturb(module: nn.Module, generator: Generator) -> None:
    with torch.no_grad():
        for p in module.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)
