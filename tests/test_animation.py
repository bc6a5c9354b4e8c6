"""An animation shows its frames in order, is small, says in words what it shows, and can be stopped."""

import base64
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnflib import plot

ALT = 'A square that brightens from black to white, with <words> & "quotes" in its description.'
GRAYS = (0, 60, 120, 180, 240)


@pytest.fixture(autouse=True)
def no_figure_is_left() -> Iterator[None]:
    """A refused animation leaves its figure open."""
    yield
    plt.close("all")


def brightening(calls: list[int] | None = None, **options: object) -> plot.Animation:
    """Five frames of one gray each; ``calls`` records the frames drawn."""
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.axis("off")

    def draw(k: int) -> None:
        fig.set_facecolor([GRAYS[k] / 255] * 3)
        if calls is not None:
            calls.append(k)

    return plot.animation(fig, draw, **{"frames": 5, "alt": ALT, "caption": "It brightens.", **options})


def frames_of(webp: bytes) -> list[np.ndarray]:
    """The frames as arrays."""
    picture = Image.open(BytesIO(webp))
    frames = []
    for k in range(picture.n_frames):
        picture.seek(k)
        frames.append(np.asarray(picture.convert("L"), float))
    return frames


def test_frames_are_drawn_once_and_in_order() -> None:
    calls: list[int] = []
    animation = brightening(calls)
    assert calls == [0, 1, 2, 3, 4]
    assert [frame[5, 5] for frame in frames_of(animation.webp)] == pytest.approx(GRAYS, abs=4)


def test_still_is_the_last_frame() -> None:
    (still,) = frames_of(brightening().still)
    assert still[5, 5] == pytest.approx(GRAYS[-1], abs=4)


def test_last_frame_is_held_and_it_plays_at_the_given_rate() -> None:
    picture = Image.open(BytesIO(brightening(fps=20).webp))
    durations = []
    for k in range(5):
        picture.seek(k)
        picture.load()
        durations.append(picture.info["duration"])
    assert durations == [50, 50, 50, 50, 1200]
    assert picture.info["loop"] == 0


def test_pyplot_forgets_the_figure_so_that_it_is_not_shown_twice() -> None:
    plt.close("all")
    brightening()
    assert plt.get_fignums() == []


def test_axes_stay_where_they_are_when_labels_grow() -> None:
    fig, ax = plt.subplots(figsize=(3, 2), layout="constrained")
    places = []

    def draw(k: int) -> None:
        ax.set_ylabel("long\n" * k)
        places.append(ax.get_position().bounds)

    plot.animation(fig, draw, frames=3, alt=ALT, caption="They stay.")
    assert places[1] == places[2] == ax.get_position().bounds


class Page(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attrs for name, attrs in self.tags if name == tag]


def test_page_carries_both_pictures_their_words_and_a_labelled_switch() -> None:
    animation = brightening()
    text = animation._repr_html_()
    page = Page(text)
    moving, still = page.all("img")
    data = [base64.b64decode(image["src"].partition("base64,")[2]) for image in (moving, still)]
    assert data == [animation.webp, animation.still]
    assert moving["alt"] == still["alt"] == ALT
    assert page.all("input")[0]["id"] == page.all("label")[0]["for"]
    assert "<figcaption>It brightens.</figcaption>" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_less_motion_shows_the_still_first() -> None:
    calm = brightening()._repr_html_().partition("prefers-reduced-motion")[2]
    shown, hidden = re.findall(r"\{ display: (\w+); \}", calm)
    assert (shown, hidden) == ("block", "none")
    assert "input:not(:checked) ~ .still { display: block" in calm


def test_two_animations_on_one_page_have_switches_of_their_own() -> None:
    one, other = brightening(), brightening(frames=4)
    names = [Page(animation._repr_html_()).all("figure")[0]["id"] for animation in (one, other)]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames"),
        ({"fps": -1}, "fps"),
        ({"alt": "a plot"}, "Expected alt to say in 40 characters"),
        ({"caption": " "}, "Expected a caption"),
    ],
)
def test_bad_input_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brightening(**options)


def test_repr_tells_size_and_caption() -> None:
    assert re.fullmatch(r"Animation\(\d+ kB: It brightens\.\)", repr(brightening()))


def test_figure_without_pyplot_is_fine() -> None:
    animation = plot.animation(Figure(figsize=(1, 1)), lambda k: None, frames=2, alt=ALT, caption="Nothing.")
    assert len(animation.webp) > len(b"RIFF")
