"""The page "recipes": each one runs alone, in few lines, and what it claims does not hang on its seed."""

import re
from pathlib import Path

import pytest
import torch
from house_rules import ROOT

PAGE = (ROOT / "book/recipes.md").read_text(encoding="utf-8")
HEAD, *SECTIONS = re.split(r"^\((recipe-\w+)\)=\n", PAGE, flags=re.M)
CODE = {
    f"{label}-{k}": source
    for label, body in zip(SECTIONS[::2], SECTIONS[1::2], strict=True)
    for k, source in enumerate(re.findall(r"^```python\n(.*?)^```", body, re.M | re.S))
}


def lines(source: str) -> list[str]:
    """The lines of a program that are not empty."""
    return [line for line in source.splitlines() if line.strip()]


@pytest.mark.parametrize("name", CODE)
def test_a_recipe_holds_for_another_seed_and_leaves_no_file(name, tmp_path: Path, monkeypatch):
    """Seed 0, as printed, runs with the code of all pages."""
    monkeypatch.chdir(tmp_path)
    source = CODE[name].replace("torch.manual_seed(0)", "torch.manual_seed(1)")
    with torch.random.fork_rng(devices=[]):
        exec(compile(source, name, "exec"), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CODE)
def test_a_recipe_is_short_and_ends_in_what_it_promises(name):
    program = lines(CODE[name])
    assert len(program) <= 25 and max(map(len, program)) <= 84
    assert program[-1].startswith("assert ")
    assert "torch.manual_seed(0)" in CODE[name] or not re.search(r"\bsteps\(", CODE[name])


def test_the_table_at_the_head_leads_to_every_recipe_in_order():
    assert re.findall(r"\{ref\}`(recipe-\w+)`", HEAD) == SECTIONS[::2]
    assert len(CODE) >= len(SECTIONS) // 2


def test_each_recipe_says_when_it_is_needed_and_what_to_look_at():
    for label, body in zip(SECTIONS[::2], SECTIONS[1::2], strict=True):
        before, *_, after = re.split(r"^```.*$", body, flags=re.M)
        assert len(before.split()) > 20 and len(after.split()) > 20, label
