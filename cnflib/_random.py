"""Random numbers from a generator, where one is given, and draws that carry gradients."""

from torch import Generator, Tensor, nn

__all__ = ["rdraw", "source"]


def source(generator: Generator | None) -> dict[str, Generator]:
    """A generator as an argument by name; without one no argument, not None.

    Even with ``generator=None`` torch refuses a symbolic shape, and what draws would compile for no varying batch.
    """
    return {} if generator is None else {"generator": generator}


def rdraw(density: nn.Module, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
    """Draws with gradients to all that the density can learn; where it learns nothing, any draws."""
    if hasattr(density, "rsample"):
        return density.rsample(n, context, generator)
    if any(p.requires_grad for p in density.parameters()):
        kind = type(getattr(density, "density", density)).__name__
        raise ValueError(
            f"Expected a base with rsample, as it has parameters to learn; {kind} has none, and they "
            "would get no gradient. Add rsample(n, context=None, generator=None), or freeze them by "
            "base.requires_grad_(False)."
        )
    return density.sample(n, context, generator)
