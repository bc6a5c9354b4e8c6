"""Look at the built site as a reader does, in headless Chromium, and name every fault. ``make site-check`` calls this.

Every page is opened at two widths in light and dark, with every other host out of reach. Pictures of the pages with a
fault go to ``_build/site-check``.
"""

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from site_checks.browser import find_chromium, open_browser, serve
from site_checks.fault import Fault, report
from site_checks.links import link_faults, listed, read_pages, toc_faults
from site_checks.operate import operate
from site_checks.visit import visit

ROOT = Path(__file__).parents[1]
SEARCH = ("Jacobian", "chapters/01-")  # a word, and the beginning of the address of a page that holds it


def look(origin: str, names: list[str], shots: Path) -> list[Fault]:
    """Visit pages one after the other in one browser, with a line for each."""
    found = []
    with open_browser() as browser:
        for name in names:
            start = time.perf_counter()
            faults = list(visit(browser, origin, name, shots))
            verdict = f"{len(faults)} faults" if faults else "good"
            print(f"{name:48}{time.perf_counter() - start:6.1f} s  {verdict}", flush=True)
            found += faults
    return found


def work(origin: str, root: str) -> list[Fault]:
    """Work the controls of the root page in a browser."""
    with open_browser() as browser:
        return list(operate(browser, origin, root, *SEARCH))


def check(site: Path, toc: Path, shots: Path, jobs: int = 1) -> list[Fault]:
    """Every fault of a built site; the pages are shared out among ``jobs`` browsers, the largest first."""
    site = site.resolve()
    find_chromium()
    shutil.rmtree(shots, ignore_errors=True)
    shots.mkdir(parents=True)
    pages = read_pages(site)
    found = [*toc_faults(pages, toc), *link_faults(site, pages)]
    names = [name for name, page in pages.items() if not page.forward]
    names.sort(key=lambda name: (site / name).stat().st_size, reverse=True)
    with serve(site) as origin, ThreadPoolExecutor(jobs) as pool:
        shares = [pool.submit(look, origin, names[k::jobs], shots) for k in range(jobs)]
        controls = pool.submit(work, origin, f"{listed(toc)[0]}.html")
        return found + [fault for share in [*shares, controls] for fault in share.result()]


def main() -> None:
    """Check the folder, print every fault, and say so by the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "_build/html", help="the built folder")
    parser.add_argument("--toc", type=Path, default=ROOT / "_toc.yml", help="the table of contents")
    parser.add_argument(
        "--shots",
        type=Path,
        default=ROOT / "_build/site-check",
        help="where the pictures of pages with a fault go",
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many browsers look at once")
    args = parser.parse_args()
    if not (args.site / "index.html").exists():
        raise SystemExit(f"There is no book in {args.site}: run `make book` first.")

    start = time.perf_counter()
    found = check(args.site, args.toc, args.shots, args.jobs)
    print(f"\n{time.perf_counter() - start:.0f} s")
    if found:
        sys.exit(f"\n{report(found)}\nThe pictures are in {args.shots}.")
    print("No fault was found.")


if __name__ == "__main__":
    main()
