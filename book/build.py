"""Build the book: run the chapters that changed, side by side, then make the HTML with warnings as errors.

A chapter runs again when its code changed, or cnflib, or a pinned version. What pages say of the chapters (the map, the
traps, the run times) and of the benchmarks (the costs) is written to ``_build/pages``, the first page's picture to
``book/_generated``. ``make book`` calls this.
"""

import argparse
import hashlib
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path

import map as chapter_map
import measured
from cnflib_book import ROOT, cache_folder, glossary_terms
from excerpts import excerpts
from gallery import gallery, pictures, still_name
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from nbclient import NotebookClient
from nbformat import NotebookNode
from notebooks import read
from outline import chapter_paths, outline, read_chapter
from site_checks.loaded import page_faults

BUILD = ROOT / "_build"
PAGES = BUILD / "pages"  # what pages include
PICTURES = ROOT / "book/_generated"  # a folder of html_static_path: all of it goes with the site
HERO = ROOT / "book/hero.py"
MEBIBYTE = 2**20 if sys.platform == "darwin" else 2**10  # in the unit of ru_maxrss: bytes there, KiB on Linux
EXCERPTS = {"traps": "Trap", "simpler": "Simpler"}  # a page and the head of its paragraphs
KEPT_CACHES = 5
COST = ("execution_seconds", "processor_seconds", "peak_mebibytes", "threads", "processor")


def execute(notebook: NotebookNode, timeout: int) -> tuple[NotebookNode, dict]:
    """Run a notebook in an empty folder; return it with its outputs, and what it cost."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": folder}},
        ).execute()
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = (seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / MEBIBYTE, threads(), processor())
    return notebook, dict(zip(COST, cost, strict=True))


def threads() -> int:
    """The threads that a chapter computes on, as the environment sets them."""
    return int(os.environ["OMP_NUM_THREADS"])


def processor() -> str:
    """The model of this machine's processor."""
    if sys.platform == "darwin":
        ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def open_cache() -> JupyterCacheAbstract:
    """The cache of this state of the library, emptied if its last write was cut short."""
    folder = cache_folder()
    if (folder / "writing").exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return get_cache(folder)


def store(cache: JupyterCacheAbstract, path: Path, notebook: NotebookNode, cost: dict) -> None:
    """Put an executed notebook into the cache; a marker stands there while that is unfinished."""
    marker = Path(cache.path) / "writing"
    marker.touch()
    bundle = CacheBundleIn(notebook, str(path), data=cost)
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    marker.unlink()


def cost_of(cache: JupyterCacheAbstract, path: Path) -> dict | None:
    """What the chapter cost when it ran, or None if this code has not run against this library."""
    try:
        cost = cache.match_cache_notebook(read(path)).data
    except KeyError:
        return None
    return cost if set(COST) <= cost.keys() else None


def run_chapters(cache: JupyterCacheAbstract, chapters: list[Path], jobs: int, timeout: int) -> int:
    """Run chapters side by side, each in a process of its own; print every traceback; return the failures."""
    failures = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        running = {pool.submit(execute, read(path), timeout): path for path in chapters}
        for future in as_completed(running):
            path = running[future]
            if error := future.exception():
                failures += 1
                print(f"{path.stem} failed:\n{error}", file=sys.stderr, flush=True)
            else:
                store(cache, path, *future.result())
                print(f"{path.stem} ran in {future.result()[1]['execution_seconds']:.0f} s", flush=True)
    return failures


def prune_caches(used: Path) -> None:
    """Delete all but the caches used last: each state of the library leaves one."""
    used.touch()
    folders = sorted(used.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-KEPT_CACHES]:
        shutil.rmtree(folder)


def build_html() -> None:
    """Call jupyter-book. After a failed or cut-off build it starts afresh: Sphinx repeats no old warning."""
    unfinished = BUILD / "unfinished"
    if unfinished.exists():
        shutil.rmtree(BUILD / "html", ignore_errors=True)
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
    unfinished.touch()
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    subprocess.run([*jupyter_book, "build", ROOT, "-q", "-W", "--keep-going"], check=True)
    pages = sorted((BUILD / "html").rglob("*.html"))
    if faults := [fault for page in pages for fault in page_faults(BUILD / "html", page)]:
        raise SystemExit("\n".join(faults))
    unfinished.unlink()


def cost_table(cache: JupyterCacheAbstract, chapters: list[Path], ran: list[Path]) -> str:
    """Run time and peak memory of every chapter, as text."""
    lines = [f"{'chapter':40}{'seconds':>9}{'peak MiB':>10}"]
    for path in chapters:
        cost = cost_of(cache, path)
        when = "ran now" if path in ran else "from the cache"
        lines.append(f"{path.stem:40}{cost['execution_seconds']:9.1f}{cost['peak_mebibytes']:10.0f}  {when}")
    return "\n".join(lines)


def run_times(chapters: list[tuple[str, dict]]) -> str:
    """The page's account of what each chapter cost, as Markdown: pairs of a document and its cost."""
    lines = ["| chapter | clock, s | CPU, s | MiB |", "|---|--:|--:|--:|"]
    for document, cost in chapters:
        seconds = f"{cost['execution_seconds']:.0f} | {cost['processor_seconds']:.0f}"
        lines.append(f"| {{doc}}`/{document}` | {seconds} | {cost['peak_mebibytes']:.0f} |")
    totals = [sum(cost[key] for _, cost in chapters) for key in COST[:2]]
    peak = max((cost["peak_mebibytes"] for _, cost in chapters), default=0)
    lines.append(f"| **all** | **{totals[0]:.0f}** | **{totals[1]:.0f}** | **{peak:.0f}** |")
    machines = sorted({(cost["threads"], cost["processor"]) for _, cost in chapters})
    where = "; ".join(f"{n} thread{'s' * (n > 1)} of {model}" for n, model in machines)
    versions = f"Python {platform.python_version()}, PyTorch {metadata.version('torch')}, {platform.system()}"
    return "\n".join([*lines, "", f"Measured on {where}; {versions}.", ""])


def write(path: Path, text: str) -> None:
    """Write a file unless it says so already: Sphinx reads anew what is younger than its page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_pages(cache: JupyterCacheAbstract, chapters: list[Path]) -> None:
    """What the pages include: the map of the chapters as drawing and table, the run times, the costs."""
    parts = outline()
    write(PAGES / "map.svg", chapter_map.svg(parts))
    write(PAGES / "map-table.md", chapter_map.table(parts, glossary_terms()))
    write(PAGES / "gallery.html", gallery(parts))
    for name, kind in EXCERPTS.items():
        write(PAGES / f"{name}.md", excerpts(kind, parts))
    costs = [(chapter_map.page(read_chapter(path)), cost_of(cache, path)) for path in chapters]
    write(PAGES / "run-times.md", run_times(costs))
    for name, table in measured.pages().items():
        write(PAGES / f"{name}.md", table)


def draw_hero() -> None:
    """Draw the picture of the first page anew if its script, the library or a pinned version changed."""
    key = f"{cache_folder().name} {hashlib.sha256(HERO.read_bytes()).hexdigest()[:16]}"
    stamp = BUILD / "hero.key"
    if PICTURES.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return
    stamp.unlink(missing_ok=True)
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir()
    script = f"from pathlib import Path; from {HERO.stem} import draw; draw(Path({str(PICTURES)!r}))"
    subprocess.run([sys.executable, "-c", script], cwd=HERO.parent, check=True)
    stamp.write_text(key, encoding="utf-8")


def save_stills(cache: JupyterCacheAbstract, chapters: list[Path]) -> None:
    """The pictures of the gallery, as the chapters have drawn them."""
    for path in chapters:
        executed = cache.get_cache_bundle(cache.match_cache_notebook(read(path)).pk).nb
        (PICTURES / still_name(path)).write_bytes(next(pictures(executed)))


def main() -> None:
    """Run what changed, build the pages, say where they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="how many chapters run at once")
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell may take")
    args = parser.parse_args()

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cache = open_cache()
    chapters = chapter_paths()
    stale = [path for path in chapters if cost_of(cache, path) is None]
    if failures := run_chapters(cache, stale, args.jobs, args.timeout):
        raise SystemExit(f"{failures} of {len(stale)} chapters failed; the tracebacks stand above.")
    write_pages(cache, chapters)
    try:
        draw_hero()
    except subprocess.CalledProcessError:
        raise SystemExit("book/hero.py failed; its traceback stands above.") from None
    measured.figures.draw(PICTURES)
    save_stills(cache, chapters)
    try:
        build_html()
    except subprocess.CalledProcessError:
        raise SystemExit("The HTML was not built; the warnings stand above.") from None
    prune_caches(Path(cache.path))
    print(cost_table(cache, chapters, stale))
    print(f"\nOpen {(BUILD / 'html' / 'index.html').as_uri()} or run `make serve`.")


if __name__ == "__main__":
    main()
