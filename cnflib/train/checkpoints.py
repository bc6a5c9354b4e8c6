"""Files that hold a training run, written in one piece."""

import copy
import io
import os
import pickle
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import torch
from torch import Generator

from cnflib._words import described

__all__ = ["load", "save"]


def save(path: str | os.PathLike[str], /, *unnamed: object, **objects: object) -> None:
    """Write a checkpoint in one piece: after a crash ``path`` holds the old file or the new one.

    The file is written beside ``path``, flushed to disk, read back, and only then renamed. To make a resumed
    run repeat an uninterrupted one bit for bit, save all that the loop changes: the modules, the optimizer,
    its scheduler, the EMA, the step, and the generators. Draws without a generator (dropout, a shuffled
    DataLoader) come from torch's default one; save it too: ``rng=torch.default_generator``. The step is that
    of the last update, as :func:`steps` yields it; go on with one more.

    Args:
        path: The file; missing folders are made.
        unnamed: Nothing; what has no name is refused.
        objects: By name: anything with ``state_dict``, a ``torch.Generator``, or plain values (tensors,
            numbers, strings, None, and lists, tuples and dicts of them).

    Raises:
        ValueError: If a value is of another kind or has no name; an older file at ``path`` is left as it was.
    """
    if unnamed:
        raise ValueError(
            f"Expected a path and then objects by name, like flow=flow; got {', '.join(map(described, unnamed))} "
            "without a name."
        )
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
            f"Expected modules, optimizers, generators and plain values in save({path.name!r}, …); got something else "
            f"in {_unreadable(states)}. Turn NumPy values into float(…) or a tensor, lists of modules into ModuleList."
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
        ValueError: If the file was not written by :func:`save` or is broken, a name is missing from it, or an object
            does not take what was saved; then nothing is restored.
    """
    saved = _checkpoint(Path(path))
    if wrong := sorted(name for name in objects if name not in saved or not _restorable(objects[name])):
        raise ValueError(
            f"Expected {', '.join(wrong)} in {path}, saved of an object that can be restored in place; got a file of "
            f"{', '.join(saved) or 'nothing'}. Use the names that save was given. Plain values are returned: "
            f"load(path, …)[{wrong[0]!r}]. A state dict alone: flow.load_state_dict(torch.load(path))."
        )
    try:
        with ExitStack() as undo:  # a file is restored whole or not at all
            for name, value in objects.items():
                undo.callback(_put_back, value, copy.deepcopy(_state(value)))
                _put_back(value, saved[name])
            undo.pop_all()
    except Exception as error:
        raise ValueError(
            f"Expected {name} to take what {path} holds of it; got {type(error).__name__}: {error}. Nothing was "
            "restored. Build it with the settings it was saved with."
        ) from error
    return {name: value for name, value in saved.items() if name not in objects}


def _checkpoint(path: Path) -> dict[str, Any]:
    """What save wrote to a file."""
    with open(path, "rb") as file:
        try:
            return dict(_read(file))
        except Exception as error:  # a file of another kind raises anything
            raise ValueError(
                f"Expected {path} to be a whole file written by save; got {type(error).__name__} in reading it. Use an "
                "older checkpoint, or torch.load for a file of another kind."
            ) from error


def _unreadable(states: dict[str, object]) -> str:
    """The names of what torch does not read back as plain values, with their types."""
    return ", ".join(
        f"{name} ({type(state).__name__})" for name, state in states.items() if not _reads_back(state)
    )


def _reads_back(state: object) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(state, stream)
        _read(io.BytesIO(stream.getvalue()))
    except (pickle.PickleError, AttributeError, TypeError):
        return False
    return True


def _restorable(value: object) -> bool:
    return isinstance(value, Generator) or hasattr(value, "load_state_dict")


def _put_back(value: object, state: object) -> None:
    (value.set_state if isinstance(value, Generator) else value.load_state_dict)(state)


def _state(value: object) -> object:
    if isinstance(value, Generator):
        return value.get_state()
    return value.state_dict() if hasattr(value, "state_dict") else value


def _read(file: Path | IO[bytes]) -> dict[str, Any]:
    return torch.load(file, map_location="cpu", weights_only=True)
