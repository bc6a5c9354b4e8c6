"""A fault, and how a list of them is told."""

from collections.abc import Iterable
from typing import NamedTuple


class Fault(NamedTuple):
    """What a check found on a page; ``mode`` and ``width`` say when, if it is not always so."""

    check: str
    page: str
    text: str
    mode: str = ""
    width: int = 0

    def where(self) -> str:
        """The page, with mode and width where they matter."""
        when = ", ".join(str(part) for part in (self.mode, self.width) if part)
        return self.page + (f" ({when})" if when else "")


def report(faults: Iterable[Fault]) -> str:
    """Every fault once, after the places where it was seen."""
    places: dict[tuple[str, str], list[str]] = {}
    for fault in faults:
        places.setdefault((fault.check, fault.text), []).append(fault.where())
    lines = []
    for (check, text), where in places.items():
        unique = list(dict.fromkeys(where))
        more = f" and {len(unique) - 4} more" if len(unique) > 4 else ""
        lines.append(f"{', '.join(unique[:4])}{more}: {check}: {text}")
    return "\n".join(lines)
