"""A letter stands in one row of the page "notation", and every letter that the book agreed on has one."""

import re
from collections import Counter

from house_rules import ROOT

PAGE = (ROOT / "book/notation.md").read_text(encoding="utf-8")
DECORATED = r"(?:\\(?:hat|bar|dot)\s*(?:\\[A-Za-z]+|[A-Za-z]))"
LETTER = re.compile(
    rf"(?P<letter>{DECORATED}|\\(?:mathrm|operatorname)\{{\w+\}}|\\[A-Za-z]+|[A-Za-z])(?P<index>_(?:\{{[^}}]*\}}|\w))?"
)
EVERY = (
    r"x z c \theta f \phi_t J h \ell b \dot x_t v s \xi \gamma \eta \varepsilon x_0 x_1 \psi \sigma N"
    r" u w d m a k \lambda \mu r L n K X_{s,t} \delta \Phi \phi"
).replace(r"\dot ", r"\dot~")


def rows(page: str) -> list[list[str]]:
    """The letters that each row of the tables of symbols explains, in its first cell."""
    cells = re.findall(r"^\| (\$.*?\$) \| ", page, re.M)
    return [[head(formula) for formula in re.findall(r"\$(.*?)\$", cell)] for cell in cells]


def head(formula: str) -> str:
    """The letter that a formula begins with, and its index: of ``\\hat p_t(x)`` it is ``\\hat~p_t``."""
    found = LETTER.match(formula)
    return re.sub(r"\s+", "~", found["letter"]) + (found["index"] or "")


def twice(page: str) -> list[str]:
    """Letters that stand in more than one row."""
    counts = Counter(letter for row in rows(page) for letter in set(row))
    return [letter for letter, count in counts.items() if count > 1]


def test_every_letter_stands_in_one_row():
    assert not twice(PAGE)


def test_every_letter_of_the_design_has_a_row():
    assert not set(EVERY.split()) - {letter for row in rows(PAGE) for letter in row}


def test_a_letter_in_two_rows_is_noticed():
    assert twice(PAGE + "\n| $m$, $\\zeta$ | another mean | `mean` |\n") == ["m"]
    assert twice(PAGE + "\n| $\\phi_t(x)$ | a feature | |\n") == [r"\phi_t"]


def test_an_index_or_a_hat_makes_another_letter():
    assert [
        head(f) for f in (r"\hat p_t(x)", r"\phi", r"\phi_t", "X_{s,t}", r"W_2^2(\rho_0)", r"\dot x_t")
    ] == [
        r"\hat~p_t",
        r"\phi",
        r"\phi_t",
        "X_{s,t}",
        "W_2",
        r"\dot~x_t",
    ]


def test_a_row_fits_its_table():
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in PAGE.splitlines() if line.startswith("|")}
    assert widths == {4}
