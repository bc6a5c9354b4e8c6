"""Every entry of the glossary says where its term is taught, by a chapter of the plan or a page that is there."""

import re

import pytest
from house_rules import ROOT
from outline import PLAN

TEXT = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
ENTRIES = (
    re.search(r"^```\{glossary\}\n:sorted:\n\n(.*?)^```", TEXT, re.M | re.S)[1].strip("\n").split("\n\n")
)
NUMBERS = {number for chapters in PLAN.values() for number in chapters}


def chapters(entry: str) -> set[str]:
    """The chapters that an entry names."""
    named = re.findall(r"\b[Cc]hapters? ((?:\d+|[A-E])(?:(?:, | and )\d+)*)", re.sub(r"\s+", " ", entry))
    return {number for group in named for number in re.split(r", | and ", group)}


def pages(entry: str) -> list[str]:
    return re.findall(r"\{doc\}`(\w[\w-]*)`", entry)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.split("\n")[0])
def test_an_entry_says_where_its_term_is_taught(entry):
    assert chapters(entry) or pages(entry)
    assert chapters(entry) <= NUMBERS
    assert all((ROOT / f"book/{page}.md").exists() for page in pages(entry))


def test_several_chapters_are_read():
    assert chapters("Chapters 13 and 17.") == {"13", "17"} and chapters(
        "Chapter 6; chapter\n  10 gives."
    ) == {"6", "10"}


def test_velocity_is_the_mean_of_rates_and_says_what_papers_call_both():
    (velocity,) = (re.sub(r"\s+", " ", entry) for entry in ENTRIES if entry.startswith("velocity\n"))
    assert r"$b(t, x) = E[\dot x_t \mid x_t = x]$" in velocity
    assert "our velocity the *marginal* and our rate the *conditional* velocity" in velocity
