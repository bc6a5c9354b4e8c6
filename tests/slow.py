"""Which laws are slow, over all their members together: `make test-fast` leaves out those named in tests/slow.txt.

The list is written anew from the times of a run on a quiet machine:

    python -m pytest tests/laws tests/units -n 2 --dist loadfile --durations=0 -vv | python3 tests/slow.py
"""

import re
import sys
from collections import Counter
from pathlib import Path

LIST = Path(__file__).with_name("slow.txt")
LEAST = 0.65  # seconds


def slow() -> set[str]:
    """The test functions, each as file::name."""
    return set(LIST.read_text().split())


def named(lines: list[str], least: float = LEAST) -> list[str]:
    """The functions that take at least so many seconds together, by the lines of `--durations=0`."""
    seconds: Counter[str] = Counter()
    for line in lines:
        if found := re.match(r"([\d.]+)s (?:call|setup|teardown) +(\S+::\w+)", line):
            seconds[found[2]] += float(found[1])
    return sorted(name for name, total in seconds.items() if total >= least)


if __name__ == "__main__":
    LIST.write_text("".join(f"{name}\n" for name in named(sys.stdin.readlines())))
