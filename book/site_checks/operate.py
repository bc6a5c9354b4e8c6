"""The book's own controls, worked from the keyboard: the search, the contents on a phone, light and dark."""

from collections.abc import Iterator

from playwright.sync_api import Browser, Page, TimeoutError

from . import visit
from .fault import Fault
from .visit import MODES, WIDTHS, go, open_page

IN_DIALOG = "document.activeElement.closest('dialog[open]')"
NO_DIALOG = "!document.querySelector('dialog[open]')"


def operate(browser: Browser, origin: str, root: str, word: str, target: str) -> Iterator[Fault]:
    """Work each control on a fresh root page; one that does not answer in time is a fault."""
    tasks = [
        (
            "search",
            max(WIDTHS),
            f"Ctrl+K, “{word}” and Enter do not lead to a link to {target}; look at the search",
        ),
        (
            "contents",
            min(WIDTHS),
            "Enter on the contents' button does not open them, or Escape does not close them",
        ),
        (
            "switch",
            max(WIDTHS),
            "Enter on the switch does not turn the page dark for good; look at the theme's script",
        ),
    ]
    work = {"search": lambda page: search(page, word, target), "contents": contents, "switch": switch}
    for check, width, text in tasks:
        page, _ = open_page(browser, origin, width)
        go(page, f"{origin}/{root}")
        page.set_default_timeout(visit.PATIENCE)
        try:
            work[check](page)
        except TimeoutError:
            yield Fault(check, root, text, width=width)
        page.context.close()


def search(page: Page, word: str, target: str) -> None:
    """Look a word up and wait for the page that holds it."""
    page.keyboard.press("Control+k")
    page.wait_for_function("document.activeElement.matches('input[name=q]')")
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#search-results a[href*='{target}']")


def contents(page: Page) -> None:
    """Open the contents, step to a link in them, close them."""
    page.focus("button.primary-toggle")
    page.keyboard.press("Enter")
    page.wait_for_function(IN_DIALOG)
    page.keyboard.press("Tab")
    page.wait_for_function(f"document.activeElement.matches('a') && {IN_DIALOG}")
    page.keyboard.press("Escape")
    page.wait_for_function(NO_DIALOG)


def switch(page: Page) -> None:
    """Turn the page dark by its own switch, and open it again."""
    page.focus("button.theme-switch-button")
    for _ in MODES:
        page.keyboard.press("Enter")
    page.wait_for_function("siteCheck.ground() === 'dark'")
    go(page, page.url)
    page.wait_for_function("siteCheck.ground() === 'dark'")
