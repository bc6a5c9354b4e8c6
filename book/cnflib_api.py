"""Sphinx extension of the reference pages: one directive describes a module's public names, and types keep their names.

``.. public:: cnflib.ode.fixed`` prints the module's docstring and describes every public name that it defines under the
shortest path a reader can import it from, here ``cnflib.ode``.
"""

import ast
import inspect
import pkgutil
import re
import sys
import textwrap
from abc import ABC
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Generic, Protocol

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.domains import ObjType
from sphinx.domains.python import PyObject, PythonDomain
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

PRIVATE = re.compile(r"(?<![\w.])_[A-Za-z]\w*")  # a name that is none of a reader's

# Which names there are, and where a reader imports them from.


@cache
def public_modules(package: str = "cnflib") -> tuple[str, ...]:
    """Every module of the package that defines public names; a package only passes names on."""
    found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    return tuple(info.name for info in found if not info.ispkg and "._" not in info.name)


def own_names(module: str) -> list[str]:
    """The names of ``__all__`` that a reader meets, without those that another public module defines and describes.

    A reader meets what can be imported from a package, or from a module that its package shows, and beside it the
    classes and types that signatures name; other names are for the modules of the same folder.
    """
    space = import_module(module)
    homes = {name: getattr(getattr(space, name), "__module__", module) for name in space.__all__}
    others = set(public_modules()) - {module}
    own = [
        name for name, home in homes.items() if not (home in others and name in import_module(home).__all__)
    ]
    if is_shown(module):
        return own
    passed_on = {name for name in own if public_path(module, name) != f"{module}.{name}"}
    return [name for name in own if name in passed_on or (passed_on and is_type(getattr(space, name)))]


def is_shown(module: str) -> bool:
    """Whether the package of a module shows it to readers, who then import its names from it."""
    package, _, leaf = module.rpartition(".")
    space = import_module(package)
    return leaf in dir(space) and isinstance(getattr(space, leaf), ModuleType)


def public_path(module: str, name: str) -> str:
    """The shortest path a name can be imported from: a package that passes it on comes before its module."""
    parts = module.split(".")
    for length in range(1, len(parts)):
        package = import_module(".".join(parts[:length]))
        if name in package.__all__ and not isinstance(getattr(package, name), ModuleType):
            return f"{package.__name__}.{name}"
    return f"{module}.{name}"


def is_type(value: object) -> bool:
    """Whether a name stands for a class or for a type made of others."""
    return inspect.isclass(value) or is_alias(value)


def is_alias(value: object) -> bool:
    """Whether a name stands for a type such as ``Callable[[Tensor], Tensor]``."""
    if inspect.isclass(value) or inspect.isroutine(value):
        return False
    return type(value).__module__ in {"collections.abc", "types", "typing"}


@cache
def aliases() -> dict[str, tuple[str, object]]:
    """The public path and the value of each named type, by its name."""
    named = [(module, name) for module in public_modules() for name in own_names(module)]
    values = ((module, name, getattr(import_module(module), name)) for module, name in named)
    return {name: (public_path(module, name), value) for module, name, value in values if is_alias(value)}


# How they are described.


class Public(SphinxDirective):
    """Describe a module: its docstring, then every public name that it defines, in the order of the file."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the generated reStructuredText in place."""
        source = inspect.getsourcefile(import_module(self.arguments[0]))
        self.env.note_dependency(source)
        container = nodes.container()
        lines = StringList(list(describe(self.arguments[0])), source)
        self.state.nested_parse(lines, self.content_offset, container)
        return container.children


def describe(module: str) -> Iterator[str]:
    """The lines of reStructuredText that describe a module."""
    paths = [public_path(module, name) for name in own_names(module)]
    yield f".. py:module:: {module}"
    if module in paths:  # the path leads a reader to the function, so the index has that alone
        yield "   :no-index:"
    yield from ("", f".. py:currentmodule:: {paths[0].rpartition('.')[0]}", "")
    yield from (*inspect.cleandoc(import_module(module).__doc__).split("\n"), "")
    analyzer = ModuleAnalyzer.for_module(module)
    comments = analyzer.find_attr_docs()
    for name in sorted(own_names(module), key=analyzer.tagorder.__getitem__):
        yield from describe_name(module, name, comments.get(("", name), []))


def describe_name(module: str, name: str, comment: list[str]) -> Iterator[str]:
    """The lines that describe one name; ``comment`` is the text under an assignment."""
    path, value = public_path(module, name), getattr(import_module(module), name)
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        yield f".. {kind}:: {path}"
        yield from [] if any(map(is_hidden, value.__bases__)) else ["   :show-inheritance:"]
        yield ""
    elif inspect.isroutine(value):
        yield from (f".. autofunction:: {path}", "")
    else:
        source = assigned(module).get(name, repr(value))
        yield from (
            f".. py:{'type' if is_alias(value) else 'data'}:: {name}",
            f"   :module: {path.rpartition('.')[0]}",
        )
        if not comment and not is_alias(value) and not PRIVATE.search(source):
            yield f"   :value: {source}"
        yield from ("", *(f"   {line}" for line in comment), "")
        if is_alias(value):
            yield from (f"   The same as ``{source}``.", "")


def is_hidden(base: type) -> bool:
    """Whether a base class says nothing to a reader: Python's own, or one of a private module."""
    return (
        base in (object, ABC, Generic, Protocol) or "._" in base.__module__ or base.__name__.startswith("_")
    )


def assigned(module: str) -> dict[str, str]:
    """The source of what a module assigns to its names."""
    tree = ast.parse(inspect.getsource(import_module(module)))
    named = (
        node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    )
    return {node.targets[0].id: ast.unparse(node.value) for node in named}


# Named types stay what the source calls them; Sphinx alone would spell each one out.


def with_paths(annotation: str, space: ModuleType) -> str:
    """An annotation as the source has it, its named types as links."""
    for name, (path, value) in aliases().items():
        if getattr(space, name, None) is value:
            annotation = re.sub(rf"(?<![\w.~]){name}\b", f"~{path}", annotation)
    return annotation


def annotations(obj: object) -> dict[str, str]:
    """The annotations of a function, or of a class's fields or ``__init__``, as the source has them."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError):
        return {}
    if isinstance(tree, ast.ClassDef):
        makers = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        if not makers:
            fields = (node for node in tree.body if isinstance(node, ast.AnnAssign))
            return {node.target.id: ast.unparse(node.annotation) for node in fields}
        tree = makers[0]
    arguments = [node for node in ast.walk(tree.args) if isinstance(node, ast.arg) and node.annotation]
    return {node.arg: ast.unparse(node.annotation) for node in arguments}


def defaults(settings: type) -> dict[str, str]:
    """What a dataclass says in its source of the defaults of its fields; a base says it where the class does not."""
    said = {}
    for owner in reversed([base for base in settings.__mro__ if is_dataclass(base)]):
        source = textwrap.dedent(inspect.getsource(owner))
        (tree,) = ast.parse(source).body
        fields_of = (node for node in tree.body if isinstance(node, ast.AnnAssign) and node.value)
        said |= {node.target.id: ast.get_source_segment(source, node.value) for node in fields_of}
    return said


def with_names(settings: type) -> str:
    """The signature of a dataclass, its defaults as the source has them: a tableau by name, 1e-5 and not 1e-05."""
    said, parameters = defaults(settings), inspect.signature(settings).parameters.values()
    return (
        f"({', '.join(p.name if p.default is p.empty else f'{p.name}={said[p.name]}' for p in parameters)})"
    )


def without_private_names(signature: str, space: ModuleType) -> str:
    """A signature in which a private constant that is a default stands as what it is: ``solver=Adaptive()``."""
    return re.sub(f"(?<==){PRIVATE.pattern}", lambda found: repr(getattr(space, found[0])), signature)


def name_types(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Put the named types back into what Sphinx recorded; name defaults; drop ``*args, **kwargs`` that say nothing."""
    recorded = app.env.temp_data.get("annotations", {}).get(name, {})
    space = sys.modules.get(getattr(obj, "__module__", None) or "")
    for argument, annotation in annotations(obj).items():
        named = with_paths(annotation, space)
        if argument in recorded and named != annotation:
            recorded[argument] = named
    if what == "class" and signature == "(*args, **kwargs)":
        return "", ""
    if what == "class" and is_dataclass(obj) and obj.__dataclass_params__.init:
        signature = with_names(obj)
    return (without_private_names(signature, space), returns) if signature else None


def shorten_types(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """The types of attributes by their last names, as those of arguments are, with a link where there is one."""
    for k, line in enumerate(lines):
        if line.startswith(":vartype "):
            line = re.sub(r"ClassVar\[(.*)\]$", r"\1", line)
            lines[k] = re.sub(r"(?<![\w.~])((?:\w+\.)+\w+)", r"~\1", line)


def skip_field(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """A field of a named tuple, or one whose default is a function, is described in its class and is no method."""
    if what == "class" and inspect.isfunction(obj) and "." not in obj.__qualname__:
        return True
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def stack_formulas(app: Sphinx, doctree: nodes.document) -> None:
    """Formulas with a ``\\qquad`` between them stand one under the other, so that a phone shows all of each."""
    if not app.env.docname.startswith("book/api"):
        return
    for formula in doctree.findall(nodes.math_block):
        formula[:] = [nodes.Text("\n\n".join(map(stacked, formula.astext().split("\n\n"))))]


def stacked(formula: str) -> str:
    """The formula with a row for each part."""
    rows = r" \\ ".join(part.strip() for part in formula.split(r"\qquad"))
    return rf"\begin{{gathered}} {rows} \end{{gathered}}" if r"\qquad" in formula else formula


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the hooks with Sphinx."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    PythonDomain.object_types["type"] = ObjType("type", "type", "class", "obj")  # annotations link to it
    app.add_directive("public", Public)
    app.connect("autodoc-process-signature", name_types, priority=900)
    app.connect("autodoc-process-docstring", shorten_types, priority=900)  # after napoleon
    app.connect("autodoc-skip-member", skip_field)
    app.connect("doctree-read", stack_formulas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
