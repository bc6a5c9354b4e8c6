"""The site check finds nothing on a good site, and on a site with one fault that fault alone."""

import json
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

pytest.importorskip("axe_playwright_python")

import site_check  # noqa: E402
from site_checks import operate, visit  # noqa: E402
from site_checks.browser import Quiet, find_chromium, open_browser, serve  # noqa: E402
from site_checks.fault import Fault, report  # noqa: E402
from site_checks.links import listed  # noqa: E402

try:
    find_chromium()
except SystemExit as missing:
    pytest.skip(str(missing), allow_module_level=True)

ALT = "A histogram of a thousand draws under a bell curve."
MATHJAX = Path(sysconfig.get_path("purelib"), "sphinx-mathjax-offline/static/mathjax")
PICTURE = (
    f'<img alt="{ALT}" src="data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==">'
)
OTHER = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
MOVED = (
    f"const f = this.closest('figure'); f.querySelector('img').src = '{OTHER}'; "
    "f.querySelector('output').value = 't = 1'"
)
SLIDER = (
    f'<figure class="cnflib-slider"><input type="range" min="0" max="1" value="0" aria-label="t" oninput="{MOVED}">'
    f"<output>t = 0</output>{PICTURE}</figure>"
)
FORMULA = '<span class="math"><mjx-container>x</mjx-container></span>'
STYLE = """
    :root { color-scheme: light; --ground: #fff; --ink: #111; --link: #003d99 }
    :root[data-theme=dark] { color-scheme: dark; --ground: #111; --ink: #eee; --link: #9cf }
    body { background: var(--ground); color: var(--ink) }
    a { color: var(--link) }
    button { min-height: 24px }
    :focus-visible { outline: 2px solid }
"""
SCRIPT = """
    const system = matchMedia("(prefers-color-scheme: dark)");
    const paint = () => {
      document.documentElement.dataset.theme = localStorage.mode || (system.matches ? "dark" : "light");
    };
    const modes = () => { localStorage.mode = localStorage.mode === "light" ? "dark" : "light"; paint() };
    system.addEventListener("change", paint); paint();
    addEventListener("keydown", (event) => {
      if (!event.ctrlKey || event.key !== "k") return;
      event.preventDefault(); document.querySelector("#find").showModal();
    });
"""
INDEX = f"""<!doctype html><html lang="en"><head><title>A book</title><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>{STYLE}</style><script>{SCRIPT}</script></head><body>
<dialog id="find"><form action="search.html"><input name="q" aria-label="Search"></form></dialog>
<dialog id="toc"><button>Close</button><a href="page.html">A page</a></dialog>
<button class="primary-toggle" onclick="document.querySelector('#toc').showModal()">Contents</button>
<button class="theme-switch-button" onclick="modes()">Mode</button>
<main><article><h1 id="top-of-it">A book</h1>
<p>Read <a href="page.html#good%20place">a page</a>, or <a href="#top-of-it">begin again</a>. {FORMULA}</p>
<pre>price = "$x$"</pre>
<details><summary>More</summary><p>What is folded.</p><div class="cell_input"># @title Set up</div></details>
{PICTURE}
{SLIDER}
</article></main></body></html>"""
PAGE = """<!doctype html><meta http-equiv="refresh" content="0; url=index.html"><p id="good place">Elsewhere.</p>"""
SEARCH = """<!doctype html><html lang="en"><head><title>Search</title><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>:root { color-scheme: light dark } body { background: Canvas; color: CanvasText }</style></head><body><main>
<h1>Search</h1><ul id="search-results"></ul></main><script>
if (location.search === "?q=Jacobian")
  document.querySelector("ul").innerHTML = '<li><a href="page.html">A page</a></li>';
</script></body></html>"""

# name: (what stands in the root page, what is put in its place, the check that speaks, what it says)
BREAKS = {
    "console error": ("<article>", "<article><script>console.error('Bad luck')</script>", "console", "Bad luck"),
    "exception": ("<article>", "<article><script>missing()</script>", "console", "missing is not defined"),
    "missing script": ("<article>", "<article><script>fetch('gone.json')</script>", "console", "gone.json"),
    "outside": (
        "<article>",
        "<article><script>fetch('https://example.org/a.js').catch(() => 0)</script>",
        "outside",
        "https://example.org/a.js",
    ),
    "no icon": ('<link rel="icon" href="data:,">', "", "icon", "names no icon"),
    "not typeset": ("<mjx-container>x</mjx-container>", "x", "mathematics", "not typeset"),
    "TeX error": ("<mjx-container>x", '<mjx-container><mjx-merror data-mjx-error="Extra }">x</mjx-merror>',
                  "mathematics", "Extra }"),
    "undefined macro": ("<mjx-container>x", '<mjx-container><i style="color: red">\\foo</i>', "mathematics", "foo"),
    "raw TeX": ("What is folded.", "What $x^2$ is.", "mathematics", "TeX stands in the text: “What $x^2$ is.”"),
    "short alt": (ALT, "A figure.", "images", "40 characters"),
    "file name as alt": (ALT, "a-long-name-of-a-picture-of-forty-letters.png", "images", "no alt text"),
    "broken image": ("base64,R0lGODlh", "base64,AAAAAAAA", "images", "is not shown"),
    "broken file": ('href="page.html#', 'href="gone.html#', "link", "gone.html#good%20place leads to no file"),
    "broken anchor": ("#good%20place", "#bad", "link", "page.html#bad leads to no anchor"),
    "broken own anchor": ("#top-of-it", "#elsewhere", "link", "#elsewhere leads to no anchor"),
    "absolute link": ('href="page.html#', 'href="/page.html#', "link", "begins at the host's root"),
    "outside the folder": ('href="page.html#', 'href="../_toc.yml#', "link", "leads to no file of the site"),
    "too wide": ("<article>", '<article><div id="wide" style="width: 700px">a</div>', "width", "because of div#wide"),
    "too wide beside a hidden panel": (
        "<article>",
        '<i style="visibility: hidden; position: fixed; width: 3000px">b</i>'
        '<article><div id="wide" style="width: 700px">a</div>',
        "width",
        "because of div#wide",
    ),
    "formula too wide": (
        "<article>",
        '<article class="bd-article"><div class="math" tabindex="0" style="width: 50px; overflow: auto"><mjx-container>'
        '<i style="display: block; width: 90px">f</i></mjx-container><span class="eqno">(9.3)</span></div>',
        "overflow",
        "the formula (9.3)",
    ),
    "code too wide": (
        "<article>",
        '<article class="bd-article"><div class="highlight"><pre tabindex="0" style="width: 50px; overflow: auto">'
        "a_long_line_of_code = 1</pre></div>",
        "overflow",
        "the code pre “a_long_line_of_code = 1”",
    ),
    "slider that stands still": (MOVED, "", "slider", "an arrow key on “t = 0” moves nothing"),
    "fold that shows": (
        "<article>",
        '<article><div class="cell_input"># @title Set up</div>',
        "folds",
        "not folded: div.cell_input “# @title Set up”",
    ),
    "not in the tab order": (
        "<article>", '<article><button tabindex="-1">Lost</button>', "keyboard", "does not reach button “Lost”"),
    "focus unseen": (
        "<article>", '<article><button style="outline: none">Pale</button>', "keyboard", "not to be seen on button"),
    "focus on nothing to see": (
        "<article>", '<article><button style="opacity: 0">Clear</button>', "keyboard", "not to be seen on button"),
    "keyboard trap": (
        "<article>",
        "<article><button onkeydown=\"event.key === 'Tab' && event.preventDefault()\">Held</button>",
        "keyboard",
        "does not come round",
    ),
    "pale in light": ("--ink: #111", "--ink: #bbb", "axe", "color-contrast"),
    "pale in dark": ("--ink: #eee", "--ink: #444", "axe", "color-contrast"),
    "pale when unfolded": ("<p>What is", '<p style="color: #888; background: #999">What is', "axe", "color-contrast"),
    "pale on a phone": (
        "<p>Read",
        '<style>@media (max-width: 500px) { #pale { color: #888; background: #999 } }</style><p id="pale">Read',
        "axe",
        "color-contrast",
    ),
    "pale beside the article on a phone": (
        "<main>",
        '<main><p style="color: #888; background: #999" id="menu">Menu</p>'
        "<style>@media (min-width: 500px) { #menu { display: none } }</style>",
        "axe",
        "color-contrast",
    ),
    "no name": ("<article>", "<article><button></button>", "axe", "button-name"),
    "never dark": ('localStorage.mode || (system.matches ? "dark" : "light")', '"light"', "mode", "prefers"),
    "search finds nothing": ('action="search.html"', 'action="index.html"', "search", "Jacobian"),
    "search does not open": ('event.key !== "k"', "true", "search", "Ctrl+K"),
    "contents do not open": ("document.querySelector('#toc').showModal()", "", "contents", "does not open them"),
    "contents do not close": (
        '<dialog id="toc">', '<dialog id="toc" oncancel="event.preventDefault()">', "contents", "does not close them"),
    "mode is forgotten": (
        'localStorage.mode = localStorage.mode === "light" ? "dark" : "light"; paint()',
        'document.documentElement.dataset.theme = "dark"',
        "switch",
        "does not turn the page dark for good",
    ),
}  # fmt: skip
ALSO = {"keyboard trap": {"keyboard"}, "never dark": {"mode", "switch"}}


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests."""
    with open_browser() as chromium:
        yield chromium


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A good site of a page, a page that sends the reader on, and a search."""
    monkeypatch.setattr(visit, "PATIENCE", 3000)
    folder = tmp_path / "html"
    folder.mkdir()
    for name, text in {"index": INDEX, "page": PAGE, "search": SEARCH}.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("root: index\nparts:\n- chapters:\n  - file: page\n")
    return folder


def faults(site: Path, browser, controls: bool = True) -> list[Fault]:
    """What the check says of the site's root page, and of its controls if they are to be worked."""
    pages = site_check.read_pages(site)
    still = [*site_check.toc_faults(pages, site.parent / "_toc.yml"), *site_check.link_faults(site, pages)]
    with serve(site) as origin:
        found = [*still, *visit.visit(browser, origin, "index.html", site.parent)]
        if controls:
            found += operate.operate(browser, origin, "index.html", "Jacobian", "page.html")
    return found


def test_a_good_site_has_no_fault(site, browser):
    assert faults(site, browser) == []
    assert not list(site.parent.glob("*.png"))


def test_a_page_with_a_fault_is_pictured_at_the_width_of_the_fault(site, browser):
    (site / "index.html").write_text(INDEX.replace("--ink: #eee", "--ink: #444"), encoding="utf-8")
    faults(site, browser, controls=False)
    assert {path.name for path in site.parent.glob("*.png")} == {
        "index-1300-light.png",
        "index-1300-dark.png",
    }


@pytest.mark.parametrize("name", BREAKS)
def test_one_fault_is_found_and_no_other(site, browser, name):
    old, new, check, message = BREAKS[name]
    assert old in INDEX
    (site / "index.html").write_text(INDEX.replace(old, new), encoding="utf-8")
    found = faults(site, browser, check in {"search", "contents", "switch", "mode"})
    assert {fault.check for fault in found} == ALSO.get(name, {check}), report(found)
    assert any(message in fault.text for fault in found), report(found)


def test_a_page_of_the_contents_that_was_not_built_is_a_fault(site):
    (site / "page.html").unlink()
    pages = site_check.read_pages(site)
    found = list(site_check.toc_faults(pages, site.parent / "_toc.yml"))
    assert ["lists page, which was not built" in fault.text for fault in found] == [True]


def test_the_command_tells_every_fault_and_fails(site, monkeypatch, capsys):
    (site / "search.html").write_text(SEARCH.replace("<h1>", '<h1 style="color: #888; background: #999">'))
    options = [str(site), "--toc", str(site.parent / "_toc.yml"), "--shots", str(site.parent / "shots")]
    monkeypatch.setattr(site_check, "SEARCH", ("Jacobian", "page.html"))
    monkeypatch.setattr(sys, "argv", ["site_check.py", *options, "--jobs", "2"])
    with pytest.raises(SystemExit) as end:
        site_check.main()
    assert "search.html (light, 1300)" in end.value.code and "color-contrast" in end.value.code
    assert "good" in capsys.readouterr().out


@pytest.mark.parametrize("delay", [0, 0.5])
def test_a_formula_has_one_size_however_late_the_typefaces_come(site, browser, delay):
    sphinx = yaml.safe_load((site_check.ROOT / "_config.yml").read_text())["sphinx"]["config"]
    shutil.copytree(MATHJAX, site / "mathjax")
    shutil.copy(site_check.ROOT / "book/_static/fonts/source-serif-4.woff2", site / "serif.woff2")
    (site / "formula.html").write_text(
        f"""<!doctype html><meta charset="utf-8">
        <script>window.MathJax = {json.dumps(sphinx["mathjax3_config"])}</script>
        <script defer src="mathjax/tex-chtml.js"></script>
        <style>@font-face {{ font-family: Late; src: url(serif.woff2) }} body {{ font: 16px Late, serif }}</style>
        <p>The height of x is that of \\(x\\).</p>""",
        encoding="utf-8",
    )
    with serve(site) as origin:
        page, _ = visit.open_page(browser, origin, 390)
        page.route("**/serif.woff2", lambda route: (time.sleep(delay), route.continue_()))
        visit.go(page, f"{origin}/formula.html")
        assert page.evaluate("document.querySelector('mjx-container').style.fontSize") == "107.6%"
        page.context.close()


def test_a_page_that_fails_to_open_is_a_fault_of_its_own(site, browser):
    with serve(site) as origin:
        found = list(visit.visit(browser, origin, "gone.html", site.parent))
    assert {fault.check for fault in found} == {"open"}


@pytest.mark.parametrize(("error", "told"), [(ConnectionResetError, False), (ValueError, True)])
def test_the_server_is_silent_about_who_hangs_up_and_tells_the_rest(site, monkeypatch, capsys, error, told):
    def fail(handler):
        raise error

    monkeypatch.setattr(Quiet, "do_GET", fail)
    with serve(site) as origin, pytest.raises(OSError):
        urlopen(origin)
    assert (error.__name__ in capsys.readouterr().err) == told


def test_without_a_browser_the_way_out_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        find_chromium()


def test_the_contents_are_read_at_every_depth(tmp_path):
    toc = tmp_path / "_toc.yml"
    toc.write_text("root: a\nparts:\n- chapters:\n  - file: b\n    sections:\n    - file: c\n")
    assert listed(toc) == ["a", "b", "c"]


def test_a_report_tells_a_fault_once_with_its_places():
    found = [Fault("width", f"{k}.html", "too wide", width=390) for k in range(6)]
    told = "0.html (390), 1.html (390), 2.html (390), 3.html (390) and 2 more: width: too wide"
    assert report(found) == told
