"""What the readers of the tables that papers report share: finding a file, and the preparations of Papamakarios."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np

from cnflib.data._download import own_folder

__all__ = ["in_units", "installed", "numbered", "own_file", "read", "standardised", "tenths"]

T = TypeVar("T")


def tenths(data: np.ndarray) -> list[np.ndarray]:
    """The last tenth of all rows for the test, the last tenth of the others for validation, rounded down."""
    rest = len(data) - int(0.1 * len(data))
    return np.split(data, [rest - int(0.1 * rest), rest])


def in_units(parts: list[np.ndarray]) -> list[np.ndarray]:
    """All parts in units of the rows that are not test."""
    return standardised(parts, np.concatenate(parts[:2]), correction=0)


def standardised(parts: Sequence[np.ndarray], rows: np.ndarray, correction: int) -> list[np.ndarray]:
    mean, std = rows.mean(0), rows.std(0, ddof=correction)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a constant column becomes NaN, which is refused by name
        return [(part - mean) / std for part in parts]


def numbered(columns: int) -> list[str]:
    return [f"x{k}" for k in range(columns)]


def own_file(folder: str | os.PathLike[str] | None, name: str, file: str) -> Path:
    path = Path(folder or own_folder(name), file)
    if not path.is_file():
        raise ValueError(
            f"Expected a file {path}; there is none. Unpack data.tar.gz of doi:10.5281/zenodo.1161203 and set "
            "CNFLIB_DATA to the folder data in it, or name the folder of the file: folder=…."
        )
    return path


def installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"This file is read by {name}, which is not installed: pip install {name}."
        ) from error


def read(path: Path, reader: Callable[[Path], T], way: str = "Unpack it again.") -> T:
    """What a reader makes of a file."""
    try:
        return reader(path)
    except Exception as error:  # a pickle raises anything
        raise ValueError(
            f"Expected {path} to be the published file, whole; got {type(error).__name__} in reading it. {way}"
        ) from error
