"""Random numbers from a generator, where one is given, and draws that carry gradients."""

from collections.abc import Callable

from torch import Generator, Tensor, nn

from cnflib._check import check_generator
from cnflib._words import described

__all__ = ["learning", "source"]


def source(generator: Generator | None) -> dict[str, Generator]:
    """A generator, which is checked, as an argument by name; without one no argument, not None.

    torch.rand and its like refuse symbolic shapes if they are passed a generator at all, even None: what draws could
    then not be compiled for a varying batch.
    """
    check_generator(generator)
    return {} if generator is None else {"generator": generator}


def learning(density: nn.Module) -> Callable[..., Tensor]:
    """The method that draws with gradients to all that the density can learn; where it learns nothing, ``sample``."""
    if hasattr(density, "rsample"):
        return density.rsample
    if any(p.requires_grad for p in density.parameters()):
        raise ValueError(
            "Expected a base with rsample, as it has parameters to learn; "
            f"{described(getattr(density, 'density', density))} has none, and they would get no gradient. Add "
            "rsample(n, context=None, generator=None), or freeze them by base.requires_grad_(False)."
        )
    return density.sample
