"""How settings print: as the call that makes them, without what is at its default."""

from dataclasses import MISSING, fields

__all__ = ["compact_repr"]


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
