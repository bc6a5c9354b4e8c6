r"""Densities: what can be evaluated and sampled, and the one place that takes any of them from elsewhere.

Bases, toy targets, mixtures, flows and one's own classes are densities; :func:`as_density` makes one of a
``torch.distributions.Distribution`` too.
"""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from cnflib._check import check_draw, check_event, described
from cnflib._tensors import replaced, tensors

__all__ = ["Density", "as_density"]


@runtime_checkable
class Density(Protocol):
    """A density on events of one shape: anything that can be evaluated and sampled.

    A density may also have ``rsample``, called as ``sample`` is, whose draws carry gradients.

    Attributes:
        event_shape: The shape of an event, a tuple of ints.

    Example:
        >>> import torch
        >>> from cnflib import Flow, Inverse
        >>> from cnflib.models import realnvp
        >>> class Cube:  # uniform on [0, 1]^2
        ...     event_shape = (2,)
        ...
        ...     def log_prob(self, x, context=None, generator=None):
        ...         return torch.where(
        ...             ((x >= 0) & (x <= 1)).all(1), 0.0, -torch.inf
        ...         )
        ...
        ...     def sample(self, n, context=None, generator=None):
        ...         return torch.rand(n, 2, generator=generator)
        >>> flow = Flow(realnvp(dim=2).bijection, Cube())
        >>> flow.sample(3).shape
        torch.Size([3, 2])
    """

    event_shape: tuple[int, ...]

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Log-density in nats at x of shape ``(B, *event_shape)``; shape ``(B,)``."""

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, free of gradients; shape ``(n, *event_shape)``."""


def as_density(density: object) -> nn.Module:
    r"""Whatever can be evaluated and sampled as a module with ``event_shape``, ``log_prob`` and ``sample``.

    A module is returned unchanged if its methods take ``context`` and ``generator``; otherwise it is wrapped, without a
    copy, in a module whose methods do. Anything else, a toy target, an object of one's own, a
    ``torch.distributions.Distribution`` of batch shape ``()``, is copied into a module whose tensors follow ``.to()``;
    what was handed over stays untouched, and what was copied is no part of a state dict. A torch distribution is
    evaluated without validation, so that outside its support the log-density is -inf, and it draws from torch's own
    generator: another one is refused by name.

    Args:
        density: The density.

    Raises:
        ValueError: If it cannot be evaluated or sampled, has no event shape, has a batch shape, or, where it is no
            module, holds tensors that want a gradient.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Laplace
        >>> base = as_density(
        ...     Independent(Laplace(torch.zeros(2), torch.ones(2)), 1)
        ... )
        >>> base.event_shape, base.log_prob(torch.zeros(1, 2))  # 2 log ½
        ((2,), tensor([-1.3863]))
    """
    if isinstance(density, Distribution):
        return _Wrapped(_OfTorch(_copied(density)))
    shape = getattr(density, "event_shape", None)
    methods = [callable(getattr(density, name, None)) for name in ("log_prob", "sample")]
    if isinstance(density, type) or not all(methods) or not isinstance(shape, tuple):
        raise ValueError(
            "Expected a density, with the methods log_prob and sample and the attribute event_shape, a tuple of ints; "
            f"got {described(density)}. A class is to be called, e.g. StandardNormal(2); the order is "
            "Flow(bijection, base)."
        )
    if not isinstance(density, nn.Module):
        return _Wrapped(_copied(density))
    return density if all(names == _BOTH for names in _taken(density).values()) else _Wrapped(density)


class _Wrapped(nn.Module):
    """A density as a module whose methods take context and generator; tensors of what is no module follow ``.to()``."""

    def __init__(self, density: object) -> None:
        super().__init__()
        self.density = density
        self.event_shape = tuple(density.event_shape)
        self.taken = _taken(density)
        if "rsample" in self.taken:
            self.rsample = self._rsample

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        check_event(x, self.event_shape)
        return self._call("log_prob", x, context, generator)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._draw("sample", n, context, generator)

    def _rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._draw("rsample", n, context, generator)

    def _draw(self, name: str, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        n = check_draw(n, context, generator)
        if generator is not None and "generator" not in self.taken[name]:
            raise ValueError(
                f"Expected no generator: {name} of the base {self!r} takes none, and draws from torch's own. Seed that "
                "by torch.manual_seed, or give the method an argument generator=None."
            )
        return self._call(name, n, context, generator)

    def _call(
        self, name: str, argument: Tensor | int, context: Tensor | None, generator: Generator | None
    ) -> Tensor:
        offered = {"context": context, "generator": generator}
        return getattr(self.density, name)(argument, **{key: offered[key] for key in self.taken[name]})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        if not isinstance(self.density, nn.Module):
            self.density = replaced(self.density, fn, set())
        return self

    def __repr__(self) -> str:
        """The density's own; the name of its class where that has none."""
        kind = type(self.density)
        return f"{kind.__name__}()" if kind.__repr__ is object.__repr__ else repr(self.density)


class _OfTorch:
    """A torch distribution as a density, without validation of values."""

    def __init__(self, distribution: Distribution) -> None:
        if distribution.batch_shape or not distribution.event_shape:
            raise ValueError(
                f"Expected a torch distribution of batch shape () over events of at least one axis; got batch_shape "
                f"{tuple(distribution.batch_shape)} and event_shape {tuple(distribution.event_shape)}. Wrap it in "
                "Independent(…, 1)."
            )
        self.distribution = _unvalidated(distribution)
        self.event_shape = tuple(distribution.event_shape)
        if distribution.has_rsample:
            self.rsample = self._rsample

    def log_prob(self, x: Tensor) -> Tensor:
        inside = self.distribution.support.check(x)
        return torch.where(inside, self.distribution.log_prob(x), -torch.inf)

    def sample(self, n: int) -> Tensor:
        return self.distribution.sample((n,))

    def _rsample(self, n: int) -> Tensor:
        return self.distribution.rsample((n,))

    def __repr__(self) -> str:
        return repr(self.distribution)


def _unvalidated(distribution: Distribution) -> Distribution:
    """The distribution, and those it is made of, without validation of values."""
    distribution._validate_args = False
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            _unvalidated(part)
    return distribution


def _copied(density: object) -> object:
    """A deep copy of what is no module; tensors that want a gradient are refused, as no optimizer would see them."""
    if wanting := [t for t in tensors(density, set()) if t.requires_grad]:
        raise ValueError(
            f"Expected a density without tensors that want a gradient; {type(density).__name__} holds one of shape "
            f"{tuple(wanting[0].shape)}, which no optimizer of the flow would see. Make it an nn.Module that owns its "
            "parameters, e.g. DiagonalNormal(shape), or detach them."
        )
    return copy.deepcopy(density)


_BOTH = frozenset(("context", "generator"))


def _taken(density: object) -> dict[str, frozenset[str]]:
    """Which of context and generator each method of a density takes by name."""
    methods = {name: getattr(density, name, None) for name in ("log_prob", "sample", "rsample")}
    return {name: _names(getattr(m, "__func__", m)) for name, m in methods.items() if m is not None}


@functools.lru_cache(maxsize=256)  # that of a class is looked at once: a signature takes long to read
def _names(method: Callable) -> frozenset[str]:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return _BOTH
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return _BOTH
    return _BOTH & parameters.keys()
