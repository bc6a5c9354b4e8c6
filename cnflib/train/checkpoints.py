"""Files that hold a training run, written in one piece."""

import os
import pickle
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Generator

__all__ = ["load", "save"]


def save(path: str | os.PathLike[str], /, **objects: object) -> None:
    """Write a checkpoint in one piece: after a crash ``path`` holds the old file or the new one.

    The file is written beside ``path``, flushed to disk, read back, and only then renamed. To make a resumed
    run repeat an uninterrupted one bit for bit, save all that the loop changes: the modules, the optimizer,
    its scheduler, the EMA, the step, and the generators. Draws without a generator (dropout, a shuffled
    DataLoader) come from torch's default one; save it too: ``rng=torch.default_generator``.

    Args:
        path: The file; missing folders are made.
        objects: By name: anything with ``state_dict``, a ``torch.Generator``, or plain values (tensors,
            numbers, strings, None, and lists, tuples and dicts of them).

    Raises:
        ValueError: If a value is of another kind; an older file at ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    states = {name: _state(value) for name, value in objects.items()}
    try:
        with open(temporary, "wb") as file:
            torch.save(states, file)
            file.flush()
            os.fsync(file.fileno())
        _read(temporary)
        os.replace(temporary, path)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise ValueError(
            f"Expected modules, optimizers, generators and plain values in save({path.name!r}, …); one of "
            f"{', '.join(objects)} holds something else. Turn NumPy values into float(…) or a tensor. "
            f"From torch: {error}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], /, **objects: object) -> dict[str, Any]:
    """Restore the given objects in place from a checkpoint of :func:`save` and return the rest.

    Args:
        path: The file.
        objects: By the names they were saved under: a ``torch.Generator``, or anything with
            ``load_state_dict``; each keeps its device.

    Returns:
        All saved values that were not named, tensors on the CPU; for an object, its ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a name is missing from the file; then nothing is restored.
    """
    path = Path(path)
    saved = _read(path)
    if missing := sorted(objects.keys() - saved.keys()):
        raise ValueError(
            f"Expected {', '.join(missing)} in {path}; got only {', '.join(saved) or 'an empty file'}. "
            "Use the names that save was given."
        )
    restores = {  # all are looked up before the first is called: a file is restored whole or not at all
        name: value.set_state if isinstance(value, Generator) else value.load_state_dict
        for name, value in objects.items()
    }
    for name, restore in restores.items():
        restore(saved[name])
    return {name: value for name, value in saved.items() if name not in objects}


def _state(value: object) -> object:
    if isinstance(value, Generator):
        return value.get_state()
    return value.state_dict() if hasattr(value, "state_dict") else value


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)
