"""Pages made of paragraphs of the chapters: what goes wrong, and where the simple thing wins."""

import re
from collections.abc import Iterator, Mapping

from cnflib_book import anchor
from notebooks import marked, read
from outline import Chapter

TO_CHAPTER = re.compile(r"\[([^\]]+)\]\(([\w-]+)\.ipynb\)")  # as a chapter links another one


def excerpts(kind: str, parts: Mapping[str, list[Chapter]]) -> str:
    """The paragraphs of a kind in every chapter as Markdown, each under its name, with a link to where it stands."""
    chapters = (chapter for chapters in parts.values() for chapter in chapters if chapter.path)
    return "\n".join(line for chapter in chapters for line in of_chapter(kind, chapter))


def of_chapter(kind: str, chapter: Chapter) -> Iterator[str]:
    """What one chapter says: its title, then the paragraphs."""
    for n, (number, name, body) in enumerate(marked(read(chapter.path), kind)):
        if n == 0:
            yield f"## {chapter.number}. {chapter.title}\n"
        address = f"../chapters/{chapter.path.stem}.html#{anchor(kind, number)}"
        body = TO_CHAPTER.sub(r'<a href="../chapters/\2.html">\1</a>', body)
        yield f'**{name}.** {body} <a href="{address}">{kind} {number}</a>\n'
