"""Random numbers from a generator, where one is given."""

from torch import Generator

__all__ = ["given"]


def given(generator: Generator | None) -> dict[str, Generator]:
    """A generator as an argument by name; without one no argument, not None.

    Even with ``generator=None`` torch refuses a symbolic shape, and what draws would compile for no varying batch.
    """
    return {} if generator is None else {"generator": generator}
