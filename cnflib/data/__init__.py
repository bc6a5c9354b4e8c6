r"""Data as plain tensors, and target laws whose density is known in closed form.

``toy`` holds 2-D laws with exact log-densities and entropies, ``digits`` small images, ``mnist`` larger
ones, ``tables`` a small table of real measurements and readers of five large ones; ``split`` divides a table of one's
own. Only MNIST is downloaded, where it is not found.
"""

from cnflib.data import digits, mnist, tables, toy
from cnflib.data.splits import split

__all__ = ["digits", "mnist", "split", "tables", "toy"]


def __dir__() -> list[str]:
    return sorted(__all__)
