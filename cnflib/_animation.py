"""Animated figures: small enough to stand in a page, with a still for readers who prefer no motion."""

import base64
import hashlib
import html
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

DPI = 100
HOLD = 1200  # milliseconds that the last frame stays
ALT_LENGTH = 40

PAGE = """<figure class="cnflib-animation" id="{name}">
<style>
#{name} {{ margin: 0; }}
#{name} img {{ display: block; max-width: 100%; height: auto; background: white; }}
#{name} input:checked ~ .moving, #{name} input:not(:checked) ~ .still {{ display: none; }}
@media (prefers-reduced-motion: reduce) {{
  #{name} input:checked ~ .moving, #{name} input:not(:checked) ~ .still {{ display: block; }}
  #{name} input:not(:checked) ~ .moving, #{name} input:checked ~ .still {{ display: none; }}
}}
</style>
<input type="checkbox" id="{name}-switch"> <label for="{name}-switch">pause or play</label>
<img class="moving" src="data:image/webp;base64,{moving}" alt="{alt}">
<img class="still" src="data:image/webp;base64,{still}" alt="{alt}">
<figcaption>{caption}</figcaption>
</figure>"""


@dataclass(frozen=True)
class Animation:
    """What :func:`animation` returns; Jupyter shows it when it is the value of a cell's last line.

    Attributes:
        webp: The animated picture.
        still: Its last frame.
        alt: What is to be seen, in words.
        caption: What it shows to be true.
    """

    webp: bytes
    still: bytes
    alt: str
    caption: str

    def __repr__(self) -> str:
        return f"Animation({len(self.webp) / 1000:.0f} kB: {self.caption})"

    def _repr_html_(self) -> str:
        name = "animation-" + hashlib.sha256(self.webp).hexdigest()[:12]
        moving, still = (base64.b64encode(data).decode() for data in (self.webp, self.still))
        alt, caption = html.escape(self.alt), html.escape(self.caption, quote=False)
        return PAGE.format(name=name, moving=moving, still=still, alt=alt, caption=caption)


def animation(
    fig: Figure, draw: Callable[[int], object], frames: int, alt: str, caption: str, fps: int = 12
) -> Animation:
    """An animated figure, with a pause switch; readers who ask their system for less motion see the still first.

    The layout is that of frame 0 throughout, and pyplot forgets the figure, so that it is not shown a second time.

    Args:
        fig: The figure.
        draw: ``draw(k)`` changes what the figure shows to frame k.
        frames: The number of frames; k runs from 0 to ``frames - 1``. The last one is held longest.
        alt: What is to be seen, for readers who do not see it; at least 40 characters.
        caption: What it shows to be true.
        fps: Frames a second.

    Raises:
        ValueError: If ``frames`` or ``fps`` is not a positive int, or ``alt`` is short, or ``caption`` empty.
    """
    for name, count in (("frames", frames), ("fps", fps)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"Expected {name} to be a positive int; got {count!r}.")
    if len(alt.strip()) < ALT_LENGTH:
        raise ValueError(
            f"Expected alt to say in {ALT_LENGTH} characters or more what is to be seen; got {alt!r}."
        )
    if not caption.strip():
        raise ValueError("Expected a caption that says what the animation shows to be true; got none.")
    plt.close(fig)
    pictures = [_picture(fig, draw, k) for k in range(frames)]
    durations = [1000 // fps] * (frames - 1) + [HOLD]
    moving = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    return Animation(_webp(pictures[0], **moving), _webp(pictures[-1]), alt, caption)


def _picture(fig: Figure, draw: Callable[[int], object], k: int) -> Image.Image:
    draw(k)
    page = BytesIO()
    fig.savefig(page, format="png", dpi=DPI)
    fig.set_layout_engine("none")
    return Image.open(page).convert("RGB")


def _webp(picture: Image.Image, **options: object) -> bytes:
    page = BytesIO()
    picture.save(page, format="WEBP", quality=75, method=4, **options)
    return page.getvalue()
