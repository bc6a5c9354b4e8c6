r"""Data as plain tensors, and target laws whose density is known in closed form.

``toy`` holds 2-D laws with exact log-densities and entropies, ``digits`` small images, ``tables`` a small table of real
measurements. Nothing is downloaded.
"""

from cnflib.data import digits, tables, toy

__all__ = ["digits", "tables", "toy"]


def __dir__() -> list[str]:
    return sorted(__all__)
