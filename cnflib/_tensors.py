"""The tensors in an object that is no module: found, and replaced, as ``.to()`` does with those of a module.

Besides, the dtype in which a device computes what must be precise.
"""

import functools
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType

import torch
from torch import Generator, Tensor, nn

__all__ = ["held_by", "replaced", "tensors", "widest"]

NARROW = {"mps"}  # kinds of devices without float64


def tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """The tensors that an object holds, also those of objects in it; ``seen`` starts empty."""
    return (part for part in held_by(value, seen) if isinstance(part, Tensor))


def held_by(value: object, seen: set[int]) -> Iterator[object]:
    """An object after all that it holds, of a module its tensors alone; ``seen`` starts empty."""
    if isinstance(value, nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif id(value) not in seen:
        seen.add(id(value))
        for part in value if isinstance(value, tuple) else _parts(value).values():
            yield from held_by(part, seen)
        if isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                yield from held_by(part, seen)
        yield value


def replaced(value: object, fn: Callable[[Tensor], Tensor], seen: set[int]) -> object:
    """The object with fn applied to every tensor in it, in place but for tensors and tuples; ``seen`` starts empty."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, nn.Module):
        return value._apply(fn)
    if isinstance(value, tuple):
        parts = [replaced(part, fn, seen) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if id(value) in seen:  # objects may hold each other
        return value
    seen.add(id(value))
    if isinstance(value, functools.partial):
        keywords = replaced(value.keywords, fn, seen)
        return functools.partial(replaced(value.func, fn, seen), *replaced(value.args, fn, seen), **keywords)
    for name, part in list(_parts(value).items()):
        new = replaced(part, fn, seen)
        if new is not part and isinstance(value, dict | list):
            value[name] = new
        elif new is not part:
            object.__setattr__(value, name, new)  # a frozen dataclass too
    return value


def _parts(value: object) -> dict:
    """What an object holds by name or place; nothing where it is a class, a function or a module of Python."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return dict(enumerate(value))
    closed = (Tensor, nn.Module, Generator, type, FunctionType, ModuleType)
    return {} if isinstance(value, closed) else getattr(value, "__dict__", {})


def widest(device: torch.device) -> torch.dtype:
    """Float64, but float32 on a device that has no float64."""
    return torch.float32 if device.type in NARROW else torch.float64
