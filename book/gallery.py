"""The gallery of the first page: of each chapter that is written, one picture and the question that it opens with.

The picture is what the cell tagged ``still`` draws; the question stands in the notebook's metadata.
"""

import base64
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from nbformat import NotebookNode
from notebooks import read, tagged
from outline import Chapter

STILL = "still"


def gallery(parts: Mapping[str, list[Chapter]]) -> str:
    """The figures with their captions, as HTML for a page in ``book/``."""
    written = (chapter for chapters in parts.values() for chapter in chapters if chapter.path)
    return '<div class="gallery">\n' + "\n".join(map(figure, written)) + "\n</div>\n"


def figure(chapter: Chapter) -> str:
    """One picture, the title as a link, the question."""
    nb = read(chapter.path)
    (cell,) = tagged(nb, STILL)
    alt, question = cell.metadata.mystnb.image.alt, nb.metadata.cnflib.question
    link = f'<a href="../chapters/{chapter.path.stem}.html">{chapter.number}. {escape(chapter.title)}</a>'
    picture = f'<img src="../_static/{still_name(chapter.path)}" alt="{escape(alt)}" loading="lazy">'
    return f"<figure>\n{picture}\n<figcaption>{link}<br>{escape(question)}</figcaption>\n</figure>"


def still_name(path: Path) -> str:
    """The file of a chapter's picture."""
    return f"still-{path.stem}.png"


def pictures(executed: NotebookNode) -> Iterator[bytes]:
    """What the cell tagged ``still`` has drawn, of a notebook with its outputs."""
    for cell in tagged(executed, STILL):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                yield base64.b64decode(output.data["image/png"])
