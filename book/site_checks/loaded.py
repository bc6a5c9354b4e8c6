"""What a built page loads by itself, and whether its figures say what they show: looked at in every build."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path


class Resources(HTMLParser):
    """Collects what a page loads by itself, and its figures: ``loaded`` addresses, ``alts`` by image."""

    LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch"}

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.alts: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag's resources."""
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and self.LINKS.intersection(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        elif tag in {"script", "img", "source", "iframe", "video", "audio", "embed"}:
            self.loaded.append(values.get("src", ""))
        if tag == "img" and "_images/" in values.get("src", ""):
            self.alts[values["src"]] = values.get("alt", "")


def page_faults(site: Path, page: Path) -> Iterator[str]:
    """What a built page loads from another host, and the figures that do not say what they show."""
    parser = Resources()
    parser.feed(page.read_text(encoding="utf-8"))
    name = page.relative_to(site)
    for address in parser.loaded:
        if address.startswith(("http:", "https:", "//")):
            yield f"{name} loads {address}: the site must ask nothing of another host"
    for image, alt in parser.alts.items():
        if len(alt) < 40 or "_images/" in alt:
            yield f"{name}: the figure {image} needs alt text (mystnb.image.alt in the cell's metadata)"
