"""The map of the chapters, drawn from what their notebooks say they require and provide.

``svg`` draws it, ``table`` says the same in words. An arc runs from a chapter to each one that builds on it.
"""

import textwrap
from collections.abc import Iterator, Mapping
from html import escape

from outline import FAST_PATHS, ROOT, Chapter, needs

WIDTH, GUTTER = 360, 70  # pixels on a phone; a wider screen enlarges the drawing to 31rem at most
ROW, HEAD, LINE = 36, 46, 17
PILL = (32, 24)
TITLE = 36  # characters a line
PRIOR = "calculus, linear algebra, probability"
LEGEND = {"": "to be read now", "planned": "planned"} | {
    path: f"on the fast path to {path}" for path in FAST_PATHS
}
STYLE = """
.chapter-map { display: block; margin: 1rem auto; max-width: 31rem; width: 100%; }
.chapter-map text { fill: var(--pst-color-text-base); font-size: 14px; }
.chapter-map .part { font-size: 15px; font-weight: 600; }
.chapter-map .planned text { fill: var(--pst-color-text-muted); }
.chapter-map rect { fill: var(--pst-color-background); stroke: var(--pst-color-text-muted); stroke-width: 1.2; }
.chapter-map .generators rect { stroke: var(--pst-color-primary); stroke-width: 2.6; }
.chapter-map .likelihoods .dot { fill: var(--pst-color-secondary); }
.chapter-map .dot { fill: none; }
.chapter-map .planned rect { stroke-dasharray: 4 3; }
.chapter-map a text { fill: var(--pst-color-link); text-decoration: underline; }
.chapter-map a .number { text-decoration: none; }
.chapter-map .number { font-weight: 600; text-anchor: middle; }
.chapter-map .arc { fill: none; stroke: var(--pst-color-text-muted); stroke-width: 1.6; }
.chapter-map .tip { fill: var(--pst-color-text-muted); }
"""


def concepts(parts: Mapping[str, list[Chapter]]) -> dict[str, dict[str, list[str]]]:
    """What each written chapter requires and provides, by its number."""
    return {
        chapter.number: {"requires": list(chapter.requires), "provides": list(chapter.provides)}
        for chapters in parts.values()
        for chapter in chapters
        if chapter.path
    }


def page(chapter: Chapter) -> str:
    """The chapter's document, as Sphinx names it."""
    path = chapter.path or chapter.page
    return path.relative_to(ROOT).with_suffix("").as_posix() if path else ""


def svg(parts: Mapping[str, list[Chapter]]) -> str:
    """The map as an inline SVG whose nodes link to the chapters, for a page in ``book/``."""
    heights, y = {}, 22 + 30 * len(LEGEND)
    body = [node(kind, 22 + 30 * k, text) for k, (kind, text) in enumerate(LEGEND.items())]
    for part, chapters in parts.items():
        y += HEAD - ROW + 16
        body.append(f'<text class="part" x="{GUTTER}" y="{y}">{escape(part)}</text>')
        y += ROW - 8
        for chapter in chapters:
            heights[chapter.number] = y
            body.append(chapter_node(chapter, y))
            y += ROW
    body += arcs(heights, needs(concepts(parts)))
    label = "Map of the chapters. The table below it says the same in words."
    return (
        f'<style>{STYLE}</style>\n<svg class="chapter-map" viewBox="0 0 {WIDTH} {y - ROW + 24}" role="group" '
        f'aria-label="{label}" xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(body) + "\n</svg>\n"
    )


def chapter_node(chapter: Chapter, y: float) -> str:
    """A chapter's number and title; a link where there is something to read."""
    paths = {path: chapter.number in numbers for path, numbers in FAST_PATHS.items()}
    kinds = {"planned": not page(chapter)} | paths
    kind = " ".join(kind for kind, holds in kinds.items() if holds)
    href = f"../{page(chapter)}.html" if page(chapter) else ""
    return node(kind, y, chapter.title, chapter.number, href)


def node(kind: str, y: float, text: str, number: str = "", href: str = "") -> str:
    """A box that holds a number, and a text of one or two lines beside it."""
    lines = textwrap.wrap(text, TITLE)
    left, top = GUTTER + PILL[0] + 9, y + 5 - LINE * (len(lines) - 1) / 2
    content = f'<rect x="{GUTTER}" y="{y - PILL[1] / 2}" width="{PILL[0]}" height="{PILL[1]}" rx="6"/>'
    content += f'<circle class="dot" cx="{GUTTER + PILL[0]}" cy="{y - PILL[1] / 2}" r="5"/>'
    if number:
        content += f'<text class="number" x="{GUTTER + PILL[0] / 2}" y="{y + 5}">{number}</text>'
    spans = (f'<tspan x="{left}" y="{top + LINE * k}">{escape(line)}</tspan>' for k, line in enumerate(lines))
    content += f"<text>{' '.join(spans)}</text>"
    return f'<g class="{kind}">' + (f'<a href="{href}">{content}</a>' if href else content) + "</g>"


def arcs(heights: Mapping[str, float], graph: Mapping[str, Mapping[str, list[str]]]) -> Iterator[str]:
    """An arc with a tip from every chapter to each one that builds on it; its tooltip names the concepts."""
    for chapter, sources in graph.items():
        for source, taken in sources.items():
            start, end = heights[source], heights[chapter]
            reach = min(20 + 0.065 * abs(end - start), (GUTTER - 6) / 0.75)
            x = GUTTER - 2
            curve = f"M{x} {start} C{x - reach:.1f} {start} {x - reach:.1f} {end} {x - 6} {end}"
            title = f"Chapter {chapter} builds on chapter {source}: {', '.join(map(words, taken))}"
            yield (
                f'<g><title>{escape(title)}</title><path class="arc" d="{curve}"/>'
                f'<path class="tip" d="M{x} {end} l-8 -4.5 v9 z"/></g>'
            )


def words(concept: str) -> str:
    """``mass-check`` in words."""
    return concept.replace("-", " ")


def table(parts: Mapping[str, list[Chapter]], terms: Mapping[str, str]) -> str:
    """The map in words, as Markdown: of every written chapter what it needs and what it teaches.

    ``terms`` maps a concept in words, in lower case, to the term of the glossary.
    """
    graph = needs(concepts(parts))
    name = lambda concept: f"{{term}}`{terms[words(concept)]}`" if words(concept) in terms else words(concept)
    lines = ["| chapter | builds on | teaches |", "|---|---|---|"]
    for chapter in (chapter for chapters in parts.values() for chapter in chapters if chapter.path):
        sources = graph[chapter.number].items()
        taken = "; ".join(f"{source}: {', '.join(map(name, found))}" for source, found in sources)
        taught = ", ".join(map(name, chapter.provides))
        lines.append(f"| {{doc}}`/{page(chapter)}` | {taken or PRIOR} | {taught} |")
    return "\n".join(lines) + "\n"
