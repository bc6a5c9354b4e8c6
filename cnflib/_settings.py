"""Settings, frozen dataclasses: how they print, and how torch.compile can build them."""

import inspect
from dataclasses import MISSING, fields, is_dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor

from cnflib._check import check_built, check_positive_int
from cnflib._words import shown

__all__ = ["Built", "Default", "check_settings", "compact_repr", "traceable"]

Settings = TypeVar("Settings", bound=type)


class Built:
    """Settings of what is called with data later: data in the place of the settings is refused, with the two calls."""

    def __new__(cls, *args: object, **options: object) -> Self:
        if torch.compiler.is_compiling() or not is_dataclass(cls):
            return super().__new__(cls)
        if len(args) > len(fields(cls)) or any(isinstance(a, Tensor) and a.ndim for a in args):
            raise ValueError(
                f"Expected settings of {cls.__name__}, which is built first and then called with data, as in "
                f"{cls.__name__}()(…); got {', '.join(map(shown, args))}."
            )
        return super().__new__(cls)


def compact_repr(settings: object) -> str:
    """The call that makes a dataclass again; arguments at their defaults are left out."""
    shown = []
    for field in fields(settings):
        if not field.init or not field.repr:
            continue
        value = getattr(settings, field.name)
        if field.default is MISSING:  # fields without a default stand first, and go by place
            shown.append(repr(value))
        elif value is not field.default and value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(settings).__name__}({', '.join(shown)})"


class Default:
    """The mark of an omitted argument of a :func:`traceable` dataclass; ``__post_init__`` replaces it."""


def traceable(settings: Settings) -> Settings:
    """A dataclass that can be built inside of what torch.compile traces, also where objects are its defaults.

    Torch.compile takes no object as the default of an argument, only numbers, strings and None. Such a default is
    replaced by a mark, which is exchanged for the real default just before the class's own ``__post_init__``. The class
    must define that. The signature goes on showing the object.
    """
    settings.__signature__ = inspect.signature(settings)
    own, plain = settings.__post_init__, (int, float, str, type(None))
    settings.__init__.__defaults__ = tuple(
        default if isinstance(default, plain) else Default for default in settings.__init__.__defaults__
    )

    def __post_init__(self: object) -> None:
        for field in fields(self):
            if getattr(self, field.name) is Default:
                object.__setattr__(self, field.name, getattr(type(self), field.name))
        own(self)

    settings.__post_init__ = __post_init__
    return settings


def check_settings(settings: object, **examples: object) -> None:
    """Check that settings can be called like their examples; where an example is a number, keep a positive int."""
    for name, example in examples.items():
        value = getattr(settings, name)
        check_built(value, name)
        if isinstance(example, int):
            object.__setattr__(settings, name, check_positive_int(value, name))
        elif not callable(value):
            raise ValueError(
                f"Expected {name} to be callable like {example!r}; got {shown(value)}. A number "
                "of probes goes by name: probes=2."
            )
