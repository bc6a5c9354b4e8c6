"""The battery of chapter 16 for a flow trained longer: the chapter's own cells, with more steps.

    python benchmarks/judging.py [--steps 1800] [--seeds 0 1 2]

The cells of chapters/16-judging-a-generator.ipynb are executed up to the one that fills the table, figures left out,
with the steps of its flow and the seed replaced. Kept are the bits per dimension of the Gaussians and of the flow, and
what the sample judges say of them, four draws each. Runs that are in benchmarks/results/judging.json are not measured
again.
"""

import argparse
import json
import pathlib
import time

import torch
from harness import keep, machine, missing

NAME, SAME = "judging", ("steps", "seed")
CHAPTER = pathlib.Path(__file__).parents[1] / "chapters/16-judging-a-generator.ipynb"
LAST, LEFT_OUT = "# @title Five machines, four draws each", ("# @title Figure", "# @title What the text says")
MACHINES = ("real", "A: Gaussians", "B: flow")


def cells(steps: int, seed: int) -> list[str]:
    """The sources to execute, without the cell that installs the library."""
    found = []
    for cell in json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "pip install" in source or source.startswith(LEFT_OUT):
            continue
        for old, new in (("steps=450,", f"steps={steps},"), ("\nseed = 0\n", f"\nseed = {seed}\n")):
            source = source.replace(old, new)
        found.append(source)
        if source.startswith(LAST):
            return found
    raise ValueError(f"Expected a cell {LAST!r} in {CHAPTER.name}; found none.")


def measure(steps: int, seed: int) -> dict[str, object]:
    """Bits per dimension, and the means of the sample judges."""
    space: dict[str, object] = {"__name__": NAME}
    for source in cells(steps, seed):
        exec(compile(source, CHAPTER.name, "exec"), space)
    means = {m: {k: sum(f[k] for f in space["table"][m]) / 4 for k in space["table"][m][0]} for m in MACHINES}
    return {
        "steps": steps,
        "seed": seed,
        "seconds": space["flow_seconds"],
        "bits": {m: space["bits"][m].value for m in MACHINES[1:]},
        "means": means,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(machine())
    for steps, seed in missing(NAME, [(asked.steps, seed) for seed in asked.seeds], SAME, {}):
        start = time.perf_counter()
        run = measure(steps, seed)
        keep(NAME, run, SAME)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", run["bits"], run["means"], flush=True)


if __name__ == "__main__":
    main()
