"""Two versions of this library side by side: which calls became slower.

    python benchmarks/versions.py [--old HEAD] [--rows-old FILE] [--rounds 5] [--only WORD ...] [--quick]

The new version is this checkout; the old one is a folder with another, or a revision of this repository, by default the
last commit. What is measured is what a version's benchmarks/rows.py says, ``rows``, a dictionary of calls without
arguments by name; ``--rows-old`` names such a file for a version that has none. Rows of one name are compared.

Each version runs in a process of its own, started anew in every round, on one thread; the two take turns at being
first. A row is called for 0.08 s, three times at least, always with the same random numbers; its time is
what the fastest call took of the processor, which a busy machine changes least. The ratio new / old is the geometric
mean over the rounds, beside its 95 % interval by Student's t. A row counts as slower only where the whole interval is
above 1.05.
"""

import argparse
import io
import json
import math
import os
import runpy
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SLOWER = 1.05
Times = dict[str, float]  # milliseconds by row


class Version(NamedTuple):
    """A checkout and its file of rows."""

    folder: Path
    rows: Path


class Ratio(NamedTuple):
    """The geometric mean of new / old over the rounds, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


# One version, in a process of its own


def worker(rows: Path, folder: Path, seconds: float, words: list[str]) -> None:
    """Print the times of the rows as JSON."""
    import torch

    import cnflib

    if not Path(cnflib.__file__).resolve().is_relative_to(folder):
        raise SystemExit(f"cnflib was imported from {cnflib.__file__}, not from {folder}.")
    torch.set_num_threads(1)
    calls = runpy.run_path(str(rows))["rows"]
    wanted = (name for name in calls if not words or any(word in name for word in words))
    print(json.dumps({name: fastest(calls[name], seconds, torch.manual_seed) for name in wanted}))


def fastest(call: Callable[[], object], seconds: float, seed: Callable[[int], object]) -> float:
    """Milliseconds of the processor for the fastest call; each has the same random numbers."""
    best, spent, calls = math.inf, 0.0, 0
    while spent < seconds or calls < 3:
        seed(0)
        start = time.process_time()
        call()
        took = time.process_time() - start
        best, spent, calls = min(best, took), spent + took, calls + 1
    return 1e3 * best


def measure(version: Version, seconds: float, words: list[str]) -> Times:
    """The times of a version, by a new process."""
    command = [sys.executable, "-P", __file__, "--worker", version.rows, version.folder]
    options = ["--seconds", str(seconds), *(["--only", *words] if words else [])]
    env = {**os.environ, "PYTHONPATH": str(version.folder), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command), *options], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"The rows of {version.rows} failed on {version.folder}; see above.")
    return json.loads(done.stdout.splitlines()[-1])


# Two versions


def compare(old: Version, new: Version, rounds: int, seconds: float, words: list[str]) -> None:
    """Measure both in turns, and print the table."""
    found: dict[Version, list[Times]] = {old: [], new: []}
    for k in range(rounds):
        for version in (old, new) if k % 2 == 0 else (new, old):
            start = time.perf_counter()
            found[version].append(measure(version, seconds, words))
            print(
                f"round {k + 1}, {version.folder}: {time.perf_counter() - start:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    show(found[old], found[new])


def ratio(old: list[float], new: list[float]) -> Ratio:
    """Of the rounds' pairs."""
    from scipy.stats import t

    logs = [math.log(b / a) for a, b in zip(old, new)]
    mean = sum(logs) / len(logs)
    error = math.sqrt(sum((x - mean) ** 2 for x in logs) / (len(logs) - 1) / len(logs))
    wide = t.ppf(0.975, len(logs) - 1) * error
    return Ratio(*map(math.exp, (mean, mean - wide, mean + wide)))


def show(old: list[Times], new: list[Times]) -> None:
    both = [name for name in new[0] if name in old[0]]
    if not both:
        raise SystemExit("The two versions have no row in common: there is nothing to compare.")
    width = max(map(len, both)) + 2
    print(f"{'':<{width}}{'old, ms':>10}{'new, ms':>10}{'new / old':>11}  95 % interval")
    ratios = {}
    for name in both:
        times = [times[name] for times in old], [times[name] for times in new]
        ratios[name] = r = ratio(*times)
        verdict = "slower" if r.low > SLOWER else "faster" if r.high < 1 / SLOWER else ""
        numbers = "".join(f"{sorted(t)[len(t) // 2]:10.3f}" for t in times)
        print(f"{name:<{width}}{numbers}{r.mean:11.3f}  {r.low:.3f}-{r.high:.3f}  {verdict}".rstrip())
    for title, one, other in (("old", old, new), ("new", new, old)):
        alone = [name for name in one[0] if name not in other[0]]
        if alone:
            print(f"Only in the {title} version: {', '.join(alone)}.")
    mean = math.exp(sum(math.log(r.mean) for r in ratios.values()) / len(ratios))
    slower = [name for name, r in ratios.items() if r.low > SLOWER]
    print(f"{len(both)} rows, geometric mean {mean:.3f}; slower: {', '.join(slower) or 'none'}.")


# What is compared


def checkout(old: str, kept: Path) -> Path:
    """A folder with this version: the one named, or the revision of this name, unpacked."""
    if (Path(old) / "cnflib").is_dir():
        return Path(old).resolve()
    done = subprocess.run(["git", "-C", ROOT, "archive", old], capture_output=True)
    if done.returncode:
        raise SystemExit(
            f"--old {old} is neither a folder that holds cnflib nor a revision: {done.stderr.decode()}"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(kept, filter="data")
    return kept.resolve()


def version(folder: Path, rows: Path | None) -> Version:
    rows = rows or folder / "benchmarks/rows.py"
    if not rows.exists():
        raise SystemExit(f"{rows} is missing: name a file of rows for this version by --rows-old.")
    return Version(folder, rows.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", default="HEAD", help="a folder or a revision; the last commit by default")
    parser.add_argument("--rows-old", type=Path, help="the rows of a version that has none")
    parser.add_argument("--rounds", type=int, default=5, help="two or more")
    parser.add_argument("--seconds", type=float, default=0.08, help="of calls, for a row")
    parser.add_argument("--only", nargs="+", default=[], help="rows with one of these words in their name")
    parser.add_argument("--quick", action="store_true", help="two rounds of three calls a row: does it run")
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker(*asked.worker, asked.seconds, asked.only)
        return
    if asked.rounds < 2:
        parser.error(f"expected --rounds to be 2 or more, for an interval; got {asked.rounds}")
    if asked.quick:
        asked.rounds, asked.seconds = 2, 0.0
    with tempfile.TemporaryDirectory() as kept:
        old = version(checkout(asked.old, Path(kept)), asked.rows_old)
        compare(old, version(ROOT, None), asked.rounds, asked.seconds, asked.only)


if __name__ == "__main__":
    main()
