"""Checks stand at the boundary and nowhere else: they are a small part of the library."""

from pathlib import Path

from proportion import counts

import cnflib


def test_a_tenth_of_the_code_at_most_checks():
    lines, checking = map(sum, zip(*counts(Path(cnflib.__file__).parent).values()))
    assert checking <= 0.1 * lines
