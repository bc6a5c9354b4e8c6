r"""Densities: the bases of flows, and the one place that takes any density from elsewhere.

A density can be evaluated and sampled. Toy targets, mixtures, flows and one's own classes are densities;
:func:`as_density` makes one of a ``torch.distributions.Distribution`` too.
"""

import copy
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from cnflib._check import check_draw, check_event, check_positive_int, event_shape
from cnflib._random import source

__all__ = ["Density", "DiagonalNormal", "GaussianMixture", "StandardNormal", "as_density"]


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
        ...     def log_prob(self, x, context=None, generator=None):
        ...         return torch.where(((x >= 0) & (x <= 1)).all(1), 0.0, -torch.inf)
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


class StandardNormal(nn.Module):
    r"""The standard normal :math:`N(0, I)` on events of a given shape, in :math:`D` dimensions in all.

    .. math:: \log p(z) = -\tfrac12 |z|^2 - \tfrac D2 \log 2\pi

    Args:
        shape: The event shape, an int or a tuple of ints.

    Example:
        >>> StandardNormal(2).sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape(None, shape)
        self.register_buffer("origin", torch.zeros(self.event_shape), persistent=False)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Log-density in nats at points of shape ``(B, *event_shape)``; shape ``(B,)``."""
        check_event(x, self.event_shape)
        return -0.5 * (x.square().flatten(1).sum(1) + self.origin.numel() * math.log(2 * math.pi))

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``(n, *event_shape)``."""
        check_draw(n, context)
        place = {"dtype": self.origin.dtype, "device": self.origin.device}
        return torch.randn((n, *self.event_shape), **source(generator), **place)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


class DiagonalNormal(nn.Module):
    r"""A normal :math:`N(m, \operatorname{diag} \sigma^2)` of learned mean and scale, as a base or one end of a path.

    .. math:: z = m + \sigma \zeta, \quad \zeta \sim N(0, I), \qquad
        \log p(z) = \log N(\zeta; 0, I) - \sum_i \log \sigma_i

    Args:
        shape: The event shape, an int or a tuple of ints.

    Attributes:
        mean: m, of the event's shape, 0 at the start.
        log_scale: :math:`\log \sigma`, of the event's shape, 0 at the start.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> base = DiagonalNormal(2)
        >>> base.log_prob(base.sample(5)).shape, base.sample(5).requires_grad, base.rsample(5).requires_grad
        (torch.Size([5]), False, True)
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape(None, shape)
        self.mean = nn.Parameter(torch.zeros(self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(self.event_shape))

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Log-density in nats at points of shape ``(B, *event_shape)``; shape ``(B,)``."""
        check_event(x, self.event_shape)
        zeta = (x - self.mean) * (-self.log_scale).exp()
        square = zeta.square().flatten(1).sum(1)
        return -0.5 * (square + self.mean.numel() * math.log(2 * math.pi)) - self.log_scale.sum()

    def rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``(n, *event_shape)``, with gradients to mean and scale."""
        check_draw(n, context)
        place = {"dtype": self.mean.dtype, "device": self.mean.device}
        zeta = torch.randn((n, *self.event_shape), **source(generator), **place)
        return self.mean + self.log_scale.exp() * zeta

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points, shape ``(n, *event_shape)``, free of gradients."""
        return self.rsample(n, context, generator)

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


class GaussianMixture(nn.Module):
    r"""A mixture of K Gaussians in D dimensions, with an exact log-density.

    .. math:: \rho(x) = \sum_{k \le K} w_k\, N(x; m_k, C_k)

    The three are buffers, not parameters: it is a base, or a law to compare with. They are kept in float64, as nested
    lists give them, and used in the dtype of the points; samples are of torch's default dtype.

    Args:
        weights: Positive, of sum 1, shape ``(K,)``.
        means: :math:`m_k`, shape ``(K, D)``.
        covariances: :math:`C_k`, symmetric and positive definite, shape ``(K, D, D)``.

    Raises:
        ValueError: If the three do not describe a Gaussian mixture.

    Example:
        >>> import torch
        >>> two = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [[[0.1]], [[0.1]]])
        >>> two.log_prob(torch.zeros(1, 1)).shape, two.sample(5).shape
        (torch.Size([1]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        weights: Tensor | Sequence[float],
        means: Tensor | Sequence,
        covariances: Tensor | Sequence,
    ) -> None:
        super().__init__()
        parts = (torch.as_tensor(value, dtype=torch.float64) for value in (weights, means, covariances))
        weights, means, covariances = (part.detach().clone() for part in parts)
        _check_mixture(weights, means, covariances)
        self.event_shape = (means.shape[1],)
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("covariances", covariances)
        self.register_buffer("factors", torch.linalg.cholesky(covariances), persistent=False)
        self.register_load_state_dict_post_hook(_factorise)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        r"""Limits (min, max) of each axis, outside of which the mass is below :math:`4 D \cdot 10^{-8}`."""
        reach = 5.5 * self.covariances.diagonal(dim1=-2, dim2=-1).sqrt()
        low, high = (self.means - reach).amin(0), (self.means + reach).amax(0)
        return tuple(zip(low.tolist(), high.tolist(), strict=True))

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""Log-density in nats at points of shape ``(B, D)``; shape ``(B,)``, of the dtype of x."""
        check_event(x, self.event_shape)
        weights, means, factors = self.weights.to(x), self.means.to(x), self.factors.to(x)
        z = torch.linalg.solve_triangular(factors, (x - means[:, None]).mT, upper=False)
        logdet = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        normal = -z.square().sum(-2) / 2 - logdet[:, None] - x.shape[-1] * math.log(2 * math.pi) / 2
        return (weights.log()[:, None] + normal).logsumexp(0)

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Draw n points :math:`m_k + L_k \zeta`, :math:`L_k L_k^\top = C_k`, shape ``(n, D)``.

        They have torch's default dtype, and the generator's device where one is given.
        """
        check_draw(n, context)
        device = self.means.device if generator is None else generator.device
        zeta = torch.randn((n, *self.event_shape), **source(generator), device=device)
        k = self.weights.to(zeta).multinomial(n, replacement=True, generator=generator)
        x = self.means.to(zeta) + torch.einsum("kij,nj->nki", self.factors.to(zeta), zeta)
        return x[torch.arange(n, device=device), k]

    def extra_repr(self) -> str:
        return f"components={len(self.weights)}, dim={self.event_shape[0]}"


def as_density(density: object) -> nn.Module:
    r"""Whatever can be evaluated and sampled as a module with ``event_shape``, ``log_prob`` and ``sample``.

    A module is returned as it is; where its methods do not take both context and generator it is held, as it is, by one
    that does. Anything else, a toy target, an object of one's own, a ``torch.distributions.Distribution`` of batch
    shape ``()``, is copied into a module whose tensors follow ``.to()``; what was handed over stays untouched, and what
    was copied is no part of a state dict. A torch distribution is evaluated without validation, so that outside its
    support the log-density is -inf, and it draws from torch's own generator: another one is refused by name.

    Args:
        density: The density.

    Raises:
        ValueError: If it cannot be evaluated or sampled, has no event shape, has a batch shape, or, where it is no
            module, holds tensors that want a gradient.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Laplace
        >>> base = as_density(Independent(Laplace(torch.zeros(2), torch.ones(2)), 1))
        >>> base.event_shape, base.log_prob(torch.zeros(1, 2))  # 2 log ½
        ((2,), tensor([-1.3863]))
    """
    if isinstance(density, type):
        raise ValueError(
            f"Expected a density; got the class {density.__name__}. Is it to be called, e.g. StandardNormal(2)?"
        )
    if isinstance(density, Distribution):
        return _FromTorch(density)
    lacking = [name for name in ("log_prob", "sample") if not callable(getattr(density, name, None))]
    if lacking:
        raise ValueError(
            f"Expected a density, with the methods log_prob and sample; {type(density).__name__} has no "
            f"{' and no '.join(lacking)}. Take StandardNormal(shape), a toy target or a torch distribution; the order "
            "is Flow(bijection, base)."
        )
    if not isinstance(getattr(density, "event_shape", None), tuple):
        raise ValueError(
            f"Expected a density with the attribute event_shape, a tuple of ints; {type(density).__name__} has none. "
            "Set it, e.g. event_shape = (2,)."
        )
    methods = [getattr(density, name) for name in ("log_prob", "sample", "rsample") if hasattr(density, name)]
    if isinstance(density, nn.Module) and all(_accepted(method) == _BOTH for method in methods):
        return density
    return _Own(density)


_BOTH = frozenset(("context", "generator"))


class _Own(nn.Module):
    """A density that is no module, copied, or one whose methods do not take both context and generator."""

    def __init__(self, density: Density) -> None:
        super().__init__()
        self.density = density if isinstance(density, nn.Module) else _copied(density)
        self.event_shape = tuple(density.event_shape)
        self.takes = {
            name: _accepted(getattr(density, name))
            for name in ("log_prob", "sample", "rsample")
            if hasattr(density, name)
        }
        if "rsample" in self.takes:
            self.rsample = self._rsample

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        check_event(x, self.event_shape)
        given = {"context": context, "generator": generator}
        return self.density.log_prob(x, **{name: given[name] for name in self.takes["log_prob"]})

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._draw("sample", n, context, generator)

    def _rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._draw("rsample", n, context, generator)

    def _draw(self, name: str, n: int, context: Tensor | None, generator: Generator | None) -> Tensor:
        if generator is not None and "generator" not in self.takes[name]:
            raise ValueError(
                f"Expected no generator: {type(self.density).__name__}.{name} takes none. Give it an argument "
                "generator=None, or seed torch's own by torch.manual_seed."
            )
        given = {"context": context, "generator": generator}
        return getattr(self.density, name)(n, **{key: given[key] for key in self.takes[name]})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        if not isinstance(self.density, nn.Module):
            self.density = _replace(self.density, fn, set())
        return self

    def extra_repr(self) -> str:
        return "" if isinstance(self.density, nn.Module) else repr(self.density)


class _FromTorch(nn.Module):
    """A torch distribution, copied, without validation."""

    def __init__(self, distribution: Distribution) -> None:
        super().__init__()
        if tuple(distribution.batch_shape) or not tuple(distribution.event_shape):
            raise ValueError(
                f"Expected a torch distribution of batch shape () over events of at least one axis; got batch_shape "
                f"{tuple(distribution.batch_shape)} and event_shape {tuple(distribution.event_shape)}. Wrap it in "
                "Independent(…, 1)."
            )
        self.distribution = _unvalidated(_copied(distribution))
        self.event_shape = tuple(distribution.event_shape)
        if distribution.has_rsample:
            self.rsample = self._rsample

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        check_event(x, self.event_shape)
        inside = self.distribution.support.check(x)
        return torch.where(inside, self.distribution.log_prob(x), -torch.inf)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        _check_torch_draw(n, generator)
        return self.distribution.sample((n,))

    def _rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        _check_torch_draw(n, generator)
        return self.distribution.rsample((n,))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)
        self.distribution = _replace(self.distribution, fn, set())
        return self

    def extra_repr(self) -> str:
        return repr(self.distribution)


def _check_torch_draw(n: int, generator: Generator | None) -> None:
    check_positive_int(n, "n")
    if generator is not None:
        raise ValueError(
            "Expected no generator: torch.distributions draw from torch's own. Seed that by torch.manual_seed, or take "
            "a base of cnflib, e.g. StandardNormal(shape)."
        )


def _accepted(method: Callable) -> frozenset[str]:
    """Which of context and generator a method takes by name; that of a class is looked at once."""
    return _named(getattr(method, "__func__", method))


@functools.lru_cache(maxsize=256)
def _named(method: Callable) -> frozenset[str]:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return _BOTH
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return _BOTH
    return _BOTH & parameters.keys()


def _copied(density: object) -> object:
    """A deep copy of what is no module; tensors that want a gradient are refused, as no optimizer would see them."""
    wanting = [t for t in _tensors(density, set()) if t.requires_grad]
    if wanting:
        raise ValueError(
            f"Expected a density without tensors that want a gradient; {type(density).__name__} holds one of shape "
            f"{tuple(wanting[0].shape)}, which no optimizer of the flow would see. Make it an nn.Module that owns its "
            "parameters, e.g. DiagonalNormal(shape), or detach them."
        )
    return copy.deepcopy(density)


def _parts(value: object) -> dict:
    """What an object holds by name or place; nothing where it is a class, a function or a module of Python."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return dict(enumerate(value))
    closed = (Tensor, nn.Module, Generator, type, FunctionType, ModuleType)
    return {} if isinstance(value, closed) else getattr(value, "__dict__", {})


def _tensors(value: object, seen: set[int]) -> Iterator[Tensor]:
    """The tensors that an object holds, also those of objects in it."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from (*value.parameters(), *value.buffers())
    elif id(value) not in seen:
        seen.add(id(value))
        for part in value if isinstance(value, tuple) else _parts(value).values():
            yield from _tensors(part, seen)
        if isinstance(value, functools.partial):
            yield from _tensors([value.func, *value.args, value.keywords], seen)


def _replace(value: object, fn: Callable[[Tensor], Tensor], seen: set[int]) -> object:
    """The object with every tensor in it replaced, in place but for tensors and tuples themselves."""
    if isinstance(value, Tensor):
        return fn(value)
    if isinstance(value, nn.Module):
        return value._apply(fn)
    if isinstance(value, tuple):
        parts = [_replace(part, fn, seen) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, functools.partial):
        keywords = _replace(value.keywords, fn, seen)
        return functools.partial(_replace(value.func, fn, seen), *_replace(value.args, fn, seen), **keywords)
    for name, part in list(_parts(value).items()):
        new = _replace(part, fn, seen)
        if new is not part and isinstance(value, dict | list):
            value[name] = new
        elif new is not part:
            object.__setattr__(value, name, new)
    return value


def _unvalidated(distribution: Distribution) -> Distribution:
    """The distribution, and those it is made of, without validation of values."""
    distribution._validate_args = False
    for part in vars(distribution).values():
        if isinstance(part, Distribution):
            _unvalidated(part)
    return distribution


def _factorise(mixture: GaussianMixture, incompatible: object) -> None:
    mixture.factors = torch.linalg.cholesky(mixture.covariances.double()).to(mixture.covariances)


def _check_mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> None:
    """Raise a ValueError unless the three describe a Gaussian mixture."""
    shapes = tuple(weights.shape), tuple(means.shape), tuple(covariances.shape)
    k, d = shapes[1] if means.ndim == 2 else (0, 0)
    if k == 0 or shapes != ((k,), (k, d), (k, d, d)):
        raise ValueError(
            f"Expected weights (K,), means (K, D), covariances (K, D, D); got {', '.join(map(str, shapes))}. "
            "Give each component one row of each."
        )
    if not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-6:
        raise ValueError(
            f"Expected positive weights of sum 1; got {weights.tolist()}. Divide them by their sum."
        )
    if not torch.allclose(covariances, covariances.mT) or torch.linalg.cholesky_ex(covariances).info.any():
        raise ValueError(
            f"Expected symmetric positive definite covariances; got {covariances.tolist()}. "
            "Build each as A @ A.T plus a small multiple of the identity."
        )
