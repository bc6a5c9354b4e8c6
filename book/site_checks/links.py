"""What can be known of the built pages without a browser: which there are, and where their links lead.

Ready checkers were tried: Sphinx's own does not look at what was built, and LinkChecker passes a link that begins at
the host's root or leaves the folder, both of which break where the book is published.
"""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from .fault import Fault

PLACES = {"href", "src", "poster", "action", "data"}  # attributes that name a file


class Page(HTMLParser):
    """One page's links, its anchors, and where it sends the reader at once, if it does."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.forward = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag's links and anchors."""
        values = {name: value or "" for name, value in attrs}
        self.links += [values[name].strip() for name in PLACES & values.keys()]
        self.links += [part.split()[0] for part in values.get("srcset", "").split(", ") if part.strip()]
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.forward = values.get("content", "").partition("url=")[2]
            self.links.append(self.forward)


def listed(toc: Path) -> list[str]:
    """The pages of the table of contents, the root first."""

    def files(entry: dict) -> Iterator[str]:
        if "file" in entry:
            yield entry["file"]
        for key in ("parts", "chapters", "sections"):
            for part in entry.get(key, []):
                yield from files(part)

    contents = yaml.safe_load(toc.read_text(encoding="utf-8"))
    return [contents["root"], *files(contents)]


def read_pages(site: Path) -> dict[str, Page]:
    """Every page of the site by its path; the theme's templates under _static are none."""
    paths = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*.html"))}
    return {name: Page(path) for name, path in paths.items() if not name.startswith("_static/")}


def toc_faults(pages: dict[str, Page], toc: Path) -> Iterator[Fault]:
    """Pages that are listed and not built."""
    for name in listed(toc):
        if f"{name}.html" not in pages:
            yield Fault("toc", toc.name, f"lists {name}, which was not built; run `make book`")


def link_faults(site: Path, pages: dict[str, Page]) -> Iterator[Fault]:
    """Links of the pages that lead to no file of the site, or to no anchor there."""
    for name, page in pages.items():
        for link in sorted(set(page.links)):
            if fault := broken(site, pages, name, link):
                yield Fault("link", name, fault)


def broken(site: Path, pages: dict[str, Page], name: str, link: str) -> str | None:
    """What is wrong with one link of one page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    if parts.path.startswith("/"):
        return f"the link {link} begins at the host's root, where the book may not stand; make it relative"
    path = (site / name).parent / unquote(parts.path) if parts.path else site / name
    path = (path / "index.html" if path.is_dir() else path).resolve()
    if not path.is_file() or not path.is_relative_to(site):
        return f"the link {link} leads to no file of the site; mend the address"
    target = pages.get(path.relative_to(site).as_posix())
    if target and unquote(parts.fragment) not in target.anchors:
        return f"the link {link} leads to no anchor of {path.name}; mend the part after #"
    return None
