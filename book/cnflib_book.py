"""Sphinx extension of this book: numbers of equations, anchors of figures, theorems and traps, the notebook cache."""

import hashlib
import re
import sys
from pathlib import Path

from docutils.nodes import document, make_id, paragraph, strong
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parents[1]
FOLD_HEAD = re.compile(
    r'(<p class="collapsed admonition-title">)Show code cell source(</p>\s*<p class="expanded admonition-title">)'
    r'Hide code cell source(</p>.{0,400}?<span class="c1"># @title )([^<]+)',
    re.S,
)
MARK = re.compile(
    r"(Figure|Definition|Lemma|Proposition|Theorem|Corollary|Trap|Simpler|Exercise) ((?:\d+|[A-Z])\.\d+)"
)


def cache_folder(root: Path = ROOT) -> Path:
    """The notebook cache of this state of the library: a changed module, data file or pinned version gets a new one."""
    files = [p for p in (root / "cnflib").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    key = hashlib.sha256(f"python {sys.version_info.major}.{sys.version_info.minor}".encode())
    for path in sorted([*files, root / "constraints.txt"]):
        key.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        key.update(path.read_bytes())
    return root / "_build" / ".jupyter_cache" / key.hexdigest()[:16]


def chapter_number(docname: str) -> str | None:
    """``chapters/08-neural-odes`` is chapter 8, ``chapters/A-linear-algebra`` is A, any other page is no chapter."""
    folder, _, name = docname.rpartition("/")
    return name.split("-")[0].lstrip("0") if folder == "chapters" else None


def glossary_terms(root: Path = ROOT) -> dict[str, str]:
    """The terms of the glossary by their words in lower case, with a space for each hyphen."""
    text = (root / "book/glossary.md").read_text(encoding="utf-8")
    entries = (block for block in re.findall(r"^```\{glossary\}\n(.*?)^```", text, re.M | re.S))
    terms = (line for block in entries for line in block.split("\n") if line and not line[0].isspace())
    return {term.lower().replace("-", " "): term for term in terms if not term.startswith(":")}


def anchor(kind: str, number: str) -> str:
    """The address within its page of what is headed, for instance, ``**Trap 9.1**``."""
    return make_id(f"{kind}-{number}")


def mark(app: Sphinx, doctree: document) -> None:
    """A paragraph that begins with a bold ``Figure 9.1`` gets this as its anchor, and its kind as a class."""
    if not chapter_number(app.env.docname):
        return
    for node in doctree.findall(paragraph):
        first = next((child for child in node if child.astext()), None)  # MyST may begin with an empty text
        if isinstance(first, strong) and (found := MARK.match(first.astext())):
            node["ids"].append(anchor(*found.groups()))
            node["classes"].append(f"book-{found[1].lower()}")


def number_equations(app: Sphinx, env: BuildEnvironment) -> None:
    """Equations carry the number their label states."""
    for label, (docname, _) in env.get_domain("math").equations.items():
        if chapter_number(docname):
            equations = env.toc_fignumbers.setdefault(docname, {}).setdefault("displaymath", {})
            equations[make_id(f"equation-{label}")] = tuple(label.split("."))


def use_cache_folder(app: Sphinx, config: Config) -> None:
    """Point the notebook cache at the folder of this state of the library."""
    config.nb_execution_cache_path = str(cache_folder())


def drop_thebe(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Take out the scripts and styles of sphinx-thebe, which come although it is off; they name another host."""
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        context[kind] = [
            file for file in files if "thebe" not in f"{file} {getattr(file, 'attributes', '')}".lower()
        ]


def plain_bibliography(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """Take out the roles of the bibliography's entries: they are deprecated, and what is in them does not fit."""
    for role in (' role="list"', ' role="doc-biblioentry"'):
        context["body"] = context.get("body", "").replace(role, "")


def title_folds(app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object) -> None:
    """A folded code cell is headed by what its first line says, ``# @title …``, as in Colab."""
    context["body"] = FOLD_HEAD.sub(r"\1\4\2\4\3\4", context.get("body", ""))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks with Sphinx."""
    app.connect("config-inited", use_cache_folder)
    app.connect("doctree-read", mark)
    app.connect("env-check-consistency", number_equations)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", plain_bibliography)
    app.connect("html-page-context", title_folds)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
