r"""Densities: what can be evaluated and sampled, and the one place that takes any of them from elsewhere.

Bases, toy targets, mixtures, flows and one's own classes are densities; :func:`as_density` makes one of a
``torch.distributions.Distribution`` too.
"""

import copy
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution
from torch.distributions.transforms import _InverseTransform

from cnflib._check import check_draw, check_event
from cnflib._methods import methods_of
from cnflib._tensors import held_by, replaced, tensors
from cnflib._words import described, shown

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
    copy, in a module whose methods do. A context reaches the argument of that name, in all methods or in none; a
    setting of one's own stands behind a star, ``log_prob(x, *, scale=1.0)``. Anything else, a toy target, an object of
    one's own, a ``torch.distributions.Distribution`` of batch shape ``()``, is copied into a module whose tensors
    follow ``.to()``; what was handed over stays untouched, and what was copied is no part of a state dict. A torch
    distribution is evaluated without validation, so that outside its support the log-density is -inf, and it draws from
    torch's own generator: another one is refused by name.

    Args:
        density: The density.

    Raises:
        ValueError: If it cannot be evaluated or sampled, has no event shape, has a batch shape, is discrete, has
            methods of other arguments than these, or, where it is no module, holds tensors that want a gradient.

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
    able = all(callable(getattr(density, name, None)) for name in ("log_prob", "sample"))
    if isinstance(density, type) or not able or not isinstance(shape, tuple) or not shape:
        got = f" with event_shape = {shown(shape)}; write e.g. (2,)" if able and shape is not None else ""
        raise ValueError(
            "Expected a density, with the methods log_prob and sample and the attribute event_shape, a tuple of ints; "
            f"got {described(density)}{got}. A class is to be called, e.g. StandardNormal(2); the order is "
            "Flow(bijection, base)."
        )
    methods = methods_of(density)
    if not isinstance(density, nn.Module):
        return _Wrapped(_copied(density))
    return density if all(method.placed for method in methods.values()) else _Wrapped(density)


class _Wrapped(nn.Module):
    """A density as a module whose methods take context and generator; tensors of what is no module follow ``.to()``."""

    def __init__(self, density: object) -> None:
        super().__init__()
        self.density = density
        self.event_shape = tuple(density.event_shape)
        self.taken = {name: method.taken for name, method in methods_of(density).items()}
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

    def __getattr__(self, name: str) -> object:
        """What a density of one's own has besides, like its parameters."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "density" or name.startswith("__"):  # asked for while it is copied
                raise
            return getattr(self.density, name)

    def _get_name(self) -> str:
        return type(self.density).__name__

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        if not isinstance(self.density, nn.Module):
            self.density = replaced(self.density, fn, set())
        return self

    def __repr__(self) -> str:
        """The density's own; the name of its class where that has none."""
        own = type(self.density).__repr__ is not object.__repr__
        return repr(self.density) if own else f"{self._get_name()}()"


class _OfTorch:
    """A torch distribution as a density, without validation of values."""

    def __init__(self, distribution: Distribution) -> None:
        if distribution.batch_shape or not distribution.event_shape:
            raise ValueError(
                "Expected a torch distribution of batch shape () over events of at least one axis; got batch_shape "
                f"{tuple(distribution.batch_shape)} and event_shape {tuple(distribution.event_shape)}. "
                f"{_way_to_one_event(distribution)}"
            )
        if distribution.support.is_discrete:
            raise ValueError(
                f"Expected a torch distribution with a density; got {distribution!r}, which is discrete. Take a base "
                "like StandardNormal(shape); discrete data are encoded first: flow.after(Dequantize(…))."
            )
        self.distribution = _unvalidated(distribution)
        self.event_shape = tuple(distribution.event_shape)
        if distribution.has_rsample:
            self.rsample = self._rsample

    def log_prob(self, x: Tensor) -> Tensor:
        if len(x) == 0:  # Independent's check cannot reshape no numbers
            return x.flatten(1).sum(1)
        supported = self.distribution.support.check(x)
        return torch.where(supported, self.distribution.log_prob(x), -torch.inf)

    def sample(self, n: int) -> Tensor:
        return self.distribution.sample((n,))

    def _rsample(self, n: int) -> Tensor:
        return self.distribution.rsample((n,))

    def __repr__(self) -> str:
        return repr(self.distribution)


def _way_to_one_event(distribution: Distribution) -> str:
    axes = len(distribution.batch_shape)
    if not axes:
        return f"A law of one number becomes one of D: Independent({type(distribution).__name__}(…).expand((D,)), 1)."
    if distribution.event_shape:
        return f"Take one row of the parameters; one event of all rows is Independent(…, {axes})."
    return f"Wrap it in Independent(…, {axes})."


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
    memo: dict = {}
    for part in list(held_by(density, set())):
        if type(part) is _InverseTransform:
            memo[id(part)] = _Reversed(copy.deepcopy(part._inv, memo))
    return copy.deepcopy(density, memo)


class _Reversed(_InverseTransform):
    """The inverse of one of torch's transforms; torch's own loses what it inverts when it is copied or pickled."""

    def __getstate__(self) -> dict:
        return self.__dict__
