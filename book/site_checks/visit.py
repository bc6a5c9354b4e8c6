"""One page in the browser, at each width, in light and dark."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import axe_playwright_python
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, TimeoutError

from .fault import Fault

WIDTHS = (1300, 390)
MODES = ("light", "dark")
PATIENCE = 15_000  # milliseconds until a control has answered; a busy machine is no fault of the page
LOADING = 120_000  # milliseconds until a page has come
QUESTIONS = ("icon", "mathematics", "images", "width", "folds", "overflow")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PAGE_JS = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
AXE_JS = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def visit(browser: Browser, origin: str, name: str, shots: Path) -> Iterator[Fault]:
    """Open a page at every width and yield what is wrong with it."""
    painted: dict[str, str] = {}
    for width in WIDTHS:
        page, heard = open_page(browser, origin, width)
        if not go(page, f"{origin}/{name}"):
            yield Fault("open", name, "it does not open; does the file exist?", width=width)
            continue
        found = [*questions(page), *sliders(page)]
        page.evaluate("siteCheck.thin()")
        found += [*keyboard(page), *accessibility(page, painted), *heard]
        if found and go(page, f"{origin}/{name}"):
            pictures(page, shots / f"{name.removesuffix('.html').replace('/', '-')}-{width}")
        page.context.close()
        yield from (fault._replace(page=name, width=width) for fault in found)


def open_page(browser: Browser, origin: str, width: int) -> tuple[Page, list[Fault]]:
    """A page of a new reader, and a list that fills with its complaints and with whom it asks outside the site."""
    context = browser.new_context(viewport={"width": width, "height": 800}, service_workers="block")
    context.set_default_timeout(LOADING)
    page, heard = context.new_page(), []

    def complaint(message: ConsoleMessage) -> None:
        place = message.location["url"].removeprefix(f"{origin}/")
        if message.type == "error" and "net::ERR_BLOCKED_BY_CLIENT" not in message.text:
            heard.append(
                Fault("console", "", f"{message.text} ({place}); mend what the console complains of")
            )

    def refuse(route: Route) -> None:
        heard.append(Fault("outside", "", f"it asks {route.request.url}; put a copy of that into the site"))
        route.abort("blockedbyclient")

    page.on("console", complaint)
    page.on("pageerror", lambda error: heard.append(Fault("console", "", f"{error}; mend the script")))
    page.route(re.compile(rf"^(?:https?|wss?)://(?!{re.escape(origin.partition('//')[2])}/)"), refuse)
    return page, heard


def go(page: Page, address: str) -> bool:
    """Open a page and wait until it has typeset, loaded and unfolded everything; tell whether it was there."""
    response = page.goto(address)
    page.evaluate(PAGE_JS)
    page.evaluate("siteCheck.ready()")
    return response.ok


def tell(check: str, texts: Iterable[str], mode: str = "") -> list[Fault]:
    """Faults of one check on the page at hand."""
    return [Fault(check, "", text, mode) for text in texts]


def questions(page: Page) -> Iterator[Fault]:
    """What the page is asked once for each width."""
    for check in QUESTIONS:
        yield from tell(check, page.evaluate(f"siteCheck.{check}()"))


def turn(page: Page, mode: str) -> list[Fault]:
    """Let the reader's machine prefer light or dark, and wait until the page follows."""
    page.emulate_media(color_scheme=mode)
    try:
        page.wait_for_function("mode => siteCheck.ground() === mode", arg=mode, timeout=PATIENCE)
    except TimeoutError:
        return tell(
            "mode", ["it stays as it is when the reader prefers this; follow prefers-color-scheme"], mode
        )
    return []


def pictures(page: Page, shot: Path) -> None:
    """The whole page in each mode, for whoever has to mend it."""
    for mode in MODES:
        turn(page, mode)
        page.screenshot(path=f"{shot}-{mode}.png", full_page=True)


def sliders(page: Page) -> Iterator[Fault]:
    """Press an arrow key on every slider: its picture and what is said of it must change."""
    for slider in page.locator(".cnflib-slider").all():
        control, picture, said = (slider.locator(part) for part in ("input", "img", "output"))
        before = picture.get_attribute("src"), said.inner_text()
        control.press("ArrowLeft" if control.input_value() == control.get_attribute("max") else "ArrowRight")
        after = picture.get_attribute("src"), said.inner_text()
        if before[0] == after[0] or before[1] == after[1]:
            yield Fault("slider", "", f"an arrow key on “{before[1]}” moves nothing; does its script run?")


def keyboard(page: Page) -> list[Fault]:
    """Press Tab until the focus has come round, and ask what it passed."""
    controls = page.evaluate("siteCheck.watch()")
    for pressed in range(1, 2 * controls + 100):
        page.keyboard.press("Tab")
        if pressed % 10 == 0 and page.evaluate("siteCheck.round()"):
            break
    return tell("keyboard", page.evaluate("siteCheck.keyboard()"))


def accessibility(page: Page, painted: dict[str, str]) -> Iterator[Fault]:
    """What axe-core says, at the top of the page: every rule of WCAG 2.2 A and AA in light, colours in dark too.

    Further down the button that leads back to the top floats over whatever happens to lie there. Colours take most of
    the time, so an article is spared that is painted as it was at the width before, which ``painted`` keeps by mode.
    """
    page.evaluate(AXE_JS)
    page.evaluate("scrollTo(0, 0)")
    for mode in MODES:
        yield from turn(page, mode)
        before, painted[mode] = painted.get(mode), page.evaluate("siteCheck.painted()")
        spared = ["article"] if painted[mode] == before else []
        yield from tell("axe", page.evaluate("spared => siteCheck.colours(spared)", spared), mode)
        if mode == MODES[0]:
            yield from tell("axe", page.evaluate("tags => siteCheck.rules(tags)", WCAG), mode)
