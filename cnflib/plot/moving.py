"""Figures drawn many times: one that plays by itself and can be paused, and one that the reader drags."""

import base64
import hashlib
import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cnflib._check import check_positive_int

__all__ = ["Animation", "Slider", "animation", "slider"]


def __dir__() -> list[str]:
    return sorted(__all__)


DPI = 100
HOLD = 1200  # milliseconds that the last frame stays
ALT_LENGTH = 40
MOST = 24  # frames of a slider: they all lie in the page

PLAYER = """<figure class="cnflib-animation" id="{name}">
<style>
#{name} {{ margin: 0; }}
#{name} img {{ display: block; max-width: 100%; height: auto; background: white; }}
#{name} input:checked ~ .moving, #{name} input:not(:checked) ~ .still {{ display: none; }}
@media (prefers-reduced-motion: reduce) {{
  #{name} input:checked ~ .moving, #{name} input:not(:checked) ~ .still {{ display: block; }}
  #{name} input:not(:checked) ~ .moving, #{name} input:checked ~ .still {{ display: none; }}
}}
@media print {{
  #{name} input, #{name} label, #{name} input ~ .moving {{ display: none !important; }}
  #{name} input ~ .still {{ display: block !important; }}
}}
</style>
<input type="checkbox" id="{name}-switch"> <label for="{name}-switch">pause or play</label>
<img class="moving" src="data:image/webp;base64,{moving}" alt="{alt}">
<img class="still" src="data:image/webp;base64,{still}" alt="{alt}">
{caption}</figure>"""

# The handler stands in the tag, where it works in JupyterLab and Colab too; where no script runs the still remains.
SLIDER = """<figure class="cnflib-slider">
<style>
.cnflib-slider {{ margin: 0; }}
.cnflib-slider img {{ display: block; max-width: 100%; height: auto; background: white; }}
.cnflib-slider label {{ display: flex; flex-wrap: wrap; align-items: center; gap: 0.75em; }}
.cnflib-slider input {{ flex: 0 1 24em; min-width: 0; height: 2em; margin: 0; }}
.cnflib-slider output {{ font-variant-numeric: tabular-nums; }}
@media print {{ .cnflib-slider input {{ display: none; }} }}
</style>
<label><input type="range" min="0" max="{last}" step="1" value="{start}" autocomplete="off" aria-label="{name}"
aria-valuetext="{label}" data-labels="{labels}" data-frames="{frames}" oninput="
const figure = this.closest('figure'), label = JSON.parse(this.dataset.labels)[this.value];
figure.querySelector('img').src = 'data:image/webp;base64,' + this.dataset.frames.split(' ')[this.value];
figure.querySelector('output').value = label; this.setAttribute('aria-valuetext', label);">
<output>{label}</output></label>
<img src="data:image/webp;base64,{still}" alt="{alt}">
{caption}</figure>"""


@dataclass(frozen=True)
class Animation:
    """What :func:`animation` returns; Jupyter shows it when it is the value of a cell's last line.

    Attributes:
        webp: The animated picture.
        still: Its last frame.
        alt: What is to be seen, in words.
        caption: What it shows to be true; may be empty.
    """

    webp: bytes
    still: bytes
    alt: str
    caption: str

    def __repr__(self) -> str:
        return _summary("Animation", len(self.webp), self.caption)

    def _repr_html_(self) -> str:
        name = "animation-" + hashlib.sha256(self.webp).hexdigest()[:12]
        moving, still = _base64(self.webp), _base64(self.still)
        alt, caption = html.escape(self.alt), _figcaption(self.caption)
        return PLAYER.format(name=name, moving=moving, still=still, alt=alt, caption=caption)


@dataclass(frozen=True)
class Slider:
    """What :func:`slider` returns; Jupyter shows it when it is the value of a cell's last line.

    Attributes:
        frames: One picture for each value.
        labels: What is said of each, such as ``t = 0.25``.
        name: What the values are.
        start: The number of the frame shown first; it is the one that stays where nothing can be dragged.
        alt: What is to be seen, in words.
        caption: What it shows to be true; may be empty.
    """

    frames: tuple[bytes, ...]
    labels: tuple[str, ...]
    name: str
    start: int
    alt: str
    caption: str

    @property
    def still(self) -> bytes:
        """The frame shown first."""
        return self.frames[self.start]

    def __repr__(self) -> str:
        return _summary("Slider", sum(map(len, self.frames)), self.caption)

    def _repr_html_(self) -> str:
        return SLIDER.format(
            last=len(self.frames) - 1,
            start=self.start,
            name=html.escape(self.name),
            label=html.escape(self.labels[self.start]),
            labels=html.escape(json.dumps(self.labels)),
            frames=" ".join(map(_base64, self.frames)),
            still=_base64(self.still),
            alt=html.escape(self.alt),
            caption=_figcaption(self.caption),
        )


def animation(
    fig: Figure, draw: Callable[[int], object], frames: int, alt: str, caption: str = "", fps: int = 12
) -> Animation:
    """An animated figure, with a pause switch; readers who ask their system for less motion see the still first.

    The layout is that of frame 0 throughout, and pyplot forgets the figure, so that it is not shown a second time.

    Args:
        fig: The figure.
        draw: ``draw(k)`` changes what the figure shows to frame k.
        frames: The number of frames; k runs from 0 to ``frames - 1``. The last one is held longest, and is the still.
        alt: What is to be seen, for readers who do not see it; at least 40 characters.
        caption: What it shows to be true.
        fps: Frames a second.

    Raises:
        ValueError: If ``frames`` or ``fps`` is not a positive int, or ``alt`` is short.
    """
    frames, fps = check_positive_int(frames, "frames"), check_positive_int(fps, "fps")
    pictures = _pictures(fig, draw, range(frames), alt)
    durations = [1000 // fps] * (frames - 1) + [HOLD]
    moving = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    return Animation(_webp(pictures[0], **moving), _webp(pictures[-1]), alt, caption)


def slider(
    fig: Figure,
    draw: Callable[[float], object],
    values: Sequence[float] | Tensor,
    alt: str,
    caption: str = "",
    name: str = "t",
    start: int = 0,
) -> Slider:
    """A figure that the reader drags through a few values, by mouse, finger or arrow keys, without a kernel.

    Every frame is drawn now and lies in the page. Nothing moves by itself: readers who want less motion have a still,
    the frame shown first, and that is all where a page runs no scripts. The layout is that of the first value
    throughout, and pyplot forgets the figure.

    Args:
        fig: The figure.
        draw: ``draw(value)`` changes what the figure shows to one value.
        values: The values in the order of the slider, 2 to 24 of them: numbers, or words.
        alt: What is to be seen, for readers who do not see it; at least 40 characters, true of all values.
        caption: What it shows to be true.
        name: What the values are; by default times t.
        start: The number of the value shown first.

    Raises:
        ValueError: If there are fewer than 2 or more than 24 values, or ``alt`` is short.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> fig, ax = plt.subplots(figsize=(2, 1))
        >>> (line,) = ax.plot([0, 1], [0, 0])
        >>> alt = "A line from the origin whose right end rises from 0 to 1 as t grows."
        >>> slider(
        ...     fig, lambda t: line.set_ydata([0, t]), [0.0, 0.5, 1.0], alt
        ... ).labels
        ('t = 0', 't = 0.5', 't = 1')
    """
    values = values.tolist() if isinstance(values, Tensor) else list(values)
    if not 2 <= len(values) <= MOST:
        raise ValueError(
            f"Expected 2 to {MOST} values, each a frame that lies in the page; got {len(values)}. Take every other "
            "one, or plot.animation for a smooth motion."
        )
    frames = tuple(map(_webp, _pictures(fig, draw, values, alt)))
    labels = tuple(f"{name} = {v if isinstance(v, str) else format(v, '.4g')}" for v in values)
    return Slider(frames, labels, name, start, alt, caption)


def _pictures(fig: Figure, draw: Callable[..., object], frames: Iterable, alt: str) -> list[Image.Image]:
    """The figure at every frame, in the layout of the first one."""
    if len(alt.strip()) < ALT_LENGTH:
        raise ValueError(
            f"Expected alt to say in {ALT_LENGTH} characters or more what is to be seen; got {alt!r}."
        )
    plt.close(fig)
    pictures = []
    for frame in frames:
        draw(frame)
        page = BytesIO()
        fig.savefig(page, format="png", dpi=DPI, facecolor=fig.get_facecolor())
        fig.set_layout_engine("none")
        pictures.append(Image.open(page).convert("RGB"))
    return pictures


def _webp(picture: Image.Image, **options: object) -> bytes:
    page = BytesIO()
    picture.save(page, format="WEBP", quality=75, method=4, **options)
    return page.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _figcaption(caption: str) -> str:
    return f"<figcaption>{html.escape(caption, quote=False)}</figcaption>\n" if caption else ""


def _summary(kind: str, size: int, caption: str) -> str:
    return f"{kind}({size / 1000:.0f} kB{': ' if caption else ''}{caption})"
