"""Run chapters with other seeds: what a chapter asserts must hold for each. Takes a minute a chapter and seed.

For instance: ``python book/seeds.py chapters/01-change-of-variables.ipynb --seeds 5 --jobs 2``.
"""

import argparse
import copy
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build import execute
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from notebooks import code_cells, read

LINE = "seed = 0"


def with_seed(nb: NotebookNode, seed: int) -> NotebookNode:
    """The notebook with another number in its one line ``seed = 0``."""
    nb = copy.deepcopy(nb)
    cells = [cell for cell in code_cells(nb) if LINE in cell.source.split("\n")]
    if len(cells) != 1:
        raise ValueError(f"Expected one cell with the line '{LINE}'; found {len(cells)}.")
    lines = (f"seed = {seed}" if line == LINE else line for line in cells[0].source.split("\n"))
    cells[0].source = "\n".join(lines)
    return nb


def failure(path: Path, seed: int) -> str:
    """The end of what a chapter raises with a seed; empty if it runs through."""
    try:
        execute(with_seed(read(path), seed), timeout=600)
    except CellExecutionError as error:
        return str(error)[-600:]
    return ""


def main() -> None:
    """Run every chapter with every seed, say how each ended, and fail if one did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chapters", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at once")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs = [(path, seed) for seed in range(args.seeds) for path in args.chapters]
    failures = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for (path, seed), error in zip(runs, pool.map(lambda run: failure(*run), runs), strict=True):
            failures += bool(error)
            print(f"{path.stem}, seed {seed}: {error or 'good'}", flush=True)
    sys.exit(f"{failures} of {len(runs)} runs failed." if failures else 0)


if __name__ == "__main__":
    main()
