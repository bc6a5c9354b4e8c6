"""Settings, frozen dataclasses: how they print, and how torch.compile can build them."""

import inspect
from dataclasses import MISSING, fields
from typing import TypeVar

from cnflib._check import check_positive_int

__all__ = ["Default", "compact_repr", "check_settings", "traceable"]

Settings = TypeVar("Settings", bound=type)


def compact_repr(settings: object) -> str:
    """The call that makes a dataclass again; arguments at their defaults are left out."""
    shown = []
    by_name = False
    for field in fields(settings):
        if not field.init or not field.repr:
            continue
        value = getattr(settings, field.name)
        if field.default is not MISSING and (value is field.default or value == field.default):
            by_name = True  # what follows an argument left out goes by name
        else:
            shown.append(
                f"{field.name}={value!r}" if by_name or field.default is not MISSING else repr(value)
            )
    return f"{type(settings).__name__}({', '.join(shown)})"


class Default:
    """The mark of an omitted argument of a :func:`traceable` dataclass; ``__post_init__`` replaces it."""


def traceable(settings: Settings) -> Settings:
    """A dataclass that can be built inside of what torch.compile traces, also where objects are its defaults.

    Torch.compile takes no object as the default of an argument, only numbers, strings and None. So such an argument
    defaults to a mark in its place, which is replaced by the default of its field before the class's own
    ``__post_init__`` runs, and it must have one. The signature goes on showing the object.
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
    """Check that settings are callable like their examples, or positive ints where the example is a number."""
    for name, example in examples.items():
        value = getattr(settings, name)
        if isinstance(example, int):
            object.__setattr__(settings, name, check_positive_int(value, name))
        elif not callable(value) or isinstance(value, type):
            raise ValueError(
                f"Expected {name} to be callable like {example!r}; got {value!r}. Call the class of one; a number of "
                "probes goes by name: probes=2."
            )
