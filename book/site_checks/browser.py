"""A browser to look with, and a server that shows it the built folder and nothing else."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str:
    """The browser that the variable CHROMIUM names, or else the first known one on the PATH."""
    names = (os.environ.get("CHROMIUM", ""), *NAMES)
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    raise SystemExit(
        f"No browser is here: none of {', '.join(NAMES)} is on the PATH. On Debian: apt-get install chromium. "
        "Elsewhere install Chromium or Chrome, and let the variable CHROMIUM say where it is."
    )


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium; root, as in a container, runs it without its sandbox, which refuses root."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log line for each."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Lets a browser hang up in the middle of a file, as it does when it leaves a page."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Report what went wrong here, and not that the other side has gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve(site: Path) -> Iterator[str]:
    """The address under which this machine alone sees the folder."""
    with Server(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
