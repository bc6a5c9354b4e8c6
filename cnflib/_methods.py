"""What the methods of a density take, read from their signatures once, where a flow is built."""

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import NamedTuple

__all__ = ["Method", "methods_of"]

BOTH = frozenset(("context", "generator"))


class Method(NamedTuple):
    """How a method is called after its first argument."""

    taken: frozenset[str]  # which of context and generator it takes by name
    placed: bool  # whether it takes the two by place, in this order


def methods_of(density: object) -> dict[str, Method]:
    """What log_prob, sample and, where there is one, rsample of a density take; all of them a context, or none."""
    found = {name: getattr(density, name, None) for name in ("log_prob", "sample", "rsample")}
    methods = {
        name: _signed(getattr(m, "__func__", m), hasattr(m, "__func__"))
        for name, m in found.items()
        if m is not None
    }
    given = [name for name, method in methods.items() if "context" in method.taken]
    if 0 < len(given) < len(methods):
        raise ValueError(
            f"Expected all methods of {type(density).__name__} to take context, or none; got it in {', '.join(given)} "
            f"alone of {', '.join(methods)}: draws would have another law than the density. Add context=None."
        )
    return methods


@functools.lru_cache(maxsize=256)  # that of a class is looked at once: a signature takes long to read
def _signed(function: Callable, bound: bool) -> Method:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return Method(BOTH, True)
    kinds = {p.kind for p in parameters}
    taken = BOTH if Parameter.VAR_KEYWORD in kinds else BOTH & {p.name for p in parameters}
    if unfilled := _unfilled(parameters[bound:], taken):
        name = getattr(function, "__qualname__", function)
        raise ValueError(
            f"Expected {name} to take points x, or n, an int, and then context=None and generator=None; got "
            f"{', '.join(unfilled)}. What a density is conditioned on is named context; a setting has a default and "
            "stands behind a star: (x, *, scale=1.0)."
        )
    placed = [p.name for p in parameters[1 + bound : 3 + bound] if p.kind is not Parameter.KEYWORD_ONLY]
    both_ways = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD} <= kinds
    return Method(taken, both_ways or placed == ["context", "generator"])


def _unfilled(parameters: list[Parameter], taken: frozenset[str]) -> list[str]:
    """The parameters that nothing would be handed over for, or that may be a context by another name."""
    kinds = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    others = [p for p in parameters[1:] if p.name not in BOTH and p.kind not in kinds]
    hidden = [
        p.name
        for p in others
        if p.default is p.empty or (p.kind is not Parameter.KEYWORD_ONLY and "context" not in taken)
    ]
    return [p.name for p in parameters[:1] if p.name == "sample_shape"] + hidden
