"""Every piece of Python in the README and in the pages of the book is a whole program and runs as it is printed."""

import re
from pathlib import Path

import pytest
import torch
from house_rules import ROOT

FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
    if FENCE.search(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_on_a_page_runs(page: Path):
    for source in FENCE.findall(page.read_text(encoding="utf-8")):
        space = {}
        with torch.random.fork_rng(devices=[]):
            exec(compile(source, page.name, "exec"), space)
        results = [value for value in space.values() if isinstance(value, torch.Tensor)]
        assert results and all(result.isfinite().all() for result in results)
