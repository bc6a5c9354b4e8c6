"""An animation shows its frames in order, can be stopped, and says in words what it shows; a slider is dragged."""

import base64
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("style", [plot.use_style, lambda: None], ids=["the book's", "matplotlib's"])
def test_frames_are_drawn_once_and_in_order(style: Callable[[], None]) -> None:
    style()
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


def test_print_shows_the_still_without_its_switch() -> None:
    rules = brightening()._repr_html_().partition("@media print")[2]
    hidden, shown = re.findall(r"([^{}]+)\{ display: (?:none|block) !important; \}", rules)
    assert "label" in hidden and "input ~ .moving" in hidden and "input ~ .still" in shown


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
    ],
)
def test_bad_input_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        brightening(**options)


def test_repr_tells_size_and_caption() -> None:
    assert re.fullmatch(r"Animation\(\d+ kB: It brightens\.\)", repr(brightening()))
    assert re.fullmatch(r"Slider\(\d+ kB: It brightens\.\)", repr(shades()))


@pytest.mark.parametrize("kind", [plot.animation, plot.slider])
def test_a_caption_is_not_needed(kind) -> None:
    frames = 2 if kind is plot.animation else [0, 1]
    shown = kind(Figure(figsize=(1, 1)), lambda k: None, frames, ALT)
    assert "figcaption" not in shown._repr_html_() and re.fullmatch(r"\w+\(\d+ kB\)", repr(shown))


def test_figure_without_pyplot_is_fine() -> None:
    animation = plot.animation(Figure(figsize=(1, 1)), lambda k: None, frames=2, alt=ALT, caption="Nothing.")
    assert len(animation.webp) > len(b"RIFF")


def shades(
    calls: list[float] | None = None, values=(0.0, 0.25, 0.5, 0.75, 1.0), **options: object
) -> plot.Slider:
    """A figure as bright as its value; ``calls`` records the values drawn."""
    fig = plt.figure(figsize=(2, 1))

    def draw(value: float) -> None:
        fig.set_facecolor([float(value)] * 3)
        if calls is not None:
            calls.append(value)

    return plot.slider(fig, draw, values, **{"alt": ALT, "caption": "It brightens.", **options})


def test_each_value_of_a_slider_is_drawn_once_and_in_order() -> None:
    calls: list[float] = []
    slider = shades(calls)
    assert calls == [0.0, 0.25, 0.5, 0.75, 1.0]
    seen = [frames_of(frame)[0][5, 5] for frame in slider.frames]
    assert seen == pytest.approx([255 * value for value in calls], abs=4)
    assert slider.labels == ("t = 0", "t = 0.25", "t = 0.5", "t = 0.75", "t = 1")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("values", [torch.linspace(0, 1, 5), np.linspace(0, 1, 5), range(2), ("0", "1")])
def test_values_are_numbers_of_any_kind_or_words(values) -> None:
    calls: list[float] = []
    slider = shades(calls, values=values)
    assert [float(value) for value in calls] == [float(value) for value in values]
    assert slider.labels[0] == "t = 0" and slider.labels[-1] == "t = 1"
    assert not any(isinstance(value, torch.Tensor) for value in calls)


def test_page_of_a_slider_carries_all_frames_and_shows_the_first_one_asked_for() -> None:
    slider = shades(name="width", start=2)
    text = slider._repr_html_()
    page = Page(text)
    (control,) = page.all("input")
    frames = [base64.b64decode(frame) for frame in control["data-frames"].split()]
    assert frames == list(slider.frames)
    assert (control["type"], control["min"], control["max"], control["value"]) == ("range", "0", "4", "2")
    assert json.loads(control["data-labels"]) == list(slider.labels)
    assert control["aria-label"] == "width" and control["aria-valuetext"] == "width = 0.5"
    (shown,) = page.all("img")
    assert base64.b64decode(shown["src"].partition("base64,")[2]) == slider.still == slider.frames[2]
    assert shown["alt"] == ALT
    assert "<figcaption>It brightens.</figcaption>" in text and "<output>width = 0.5</output>" in text


def test_a_slider_needs_no_script_of_the_page_no_network_and_moves_nothing_by_itself() -> None:
    text = shades()._repr_html_()
    assert not Page(text).all("script") and not re.search(r"(src|href)=\"(?!data:)", text)
    assert not re.search(r"transition|animation|setInterval|setTimeout|requestAnimationFrame", text)
    assert re.search(r"@media print \{ \.cnflib-slider input \{ display: none; \} \}", text)
    assert " id=" not in text  # two sliders on a page do not meet


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": range(25)}, "Expected 2"),
        ({"values": [0.5]}, "Expected 2"),
        ({"alt": "a plot"}, "Expected alt to say in 40 characters"),
    ],
)
def test_bad_input_to_a_slider_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shades(**options)


def test_a_slider_follows_mouse_and_keyboard() -> None:
    browser = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs Chromium")
    slider = shades()
    sandbox = os.geteuid() != 0  # root, as in a container, runs it without
    with browser.sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=sandbox)
        page = window.new_page()
        page.set_content("<div id=output></div>")
        page.evaluate(
            "html => { output.innerHTML = html; }", slider._repr_html_()
        )  # as JupyterLab shows a result

        def shown() -> tuple[int, str, str]:
            source = page.get_attribute("img", "src").partition("base64,")[2]
            said = page.get_attribute("input", "aria-valuetext")
            return slider.frames.index(base64.b64decode(source)), page.inner_text("output"), said

        assert shown() == (0, "t = 0", "t = 0")
        page.focus("input")
        page.keyboard.press("ArrowRight")
        assert shown() == (1, "t = 0.25", "t = 0.25")
        page.keyboard.press("End")
        assert shown() == (4, "t = 1", "t = 1")
        place = page.query_selector("input").bounding_box()
        middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        page.mouse.move(middle[0] + place["width"] / 2 - 8, middle[1])
        page.mouse.down()
        page.mouse.move(*middle, steps=5)
        page.mouse.up()
        assert shown() == (2, "t = 0.5", "t = 0.5")
        window.close()
