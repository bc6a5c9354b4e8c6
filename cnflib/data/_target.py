r"""What a target law is: samples, an exact log-density, an entropy and a rectangle that holds the mass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Generator, Tensor

from cnflib._check import check_draw, check_event
from cnflib._random import source
from cnflib.density import Density
from cnflib.distributions import GaussianMixture

__all__ = ["Draws", "Target", "Toy", "ToyMixture"]


@runtime_checkable
class Target(Density, Protocol):
    r"""A law :math:`\rho(x)` on :math:`\mathbb{R}^D` whose density and entropy are known exactly.

    It is a density like any other: sample it, train on it, or take it as the base of a flow. A context is ignored.
    """

    @property
    def name(self) -> str:
        """The law's name, under which ``toy.targets`` holds it."""

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        r"""Limits ((min, max), ...), one pair per axis, outside of which the mass is at most :math:`10^{-6}`."""

    @property
    def entropy(self) -> float:
        r"""The differential entropy :math:`-\mathrm{E}[\log \rho(x)]` in nats; no model's expected NLL is below it."""


class Draws(NamedTuple):
    r"""Where random numbers come from: a generator, and the dtype and device of what it draws."""

    generator: Generator | None
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, generator: Generator | None) -> Self:
        """Draws of torch's default dtype, on the generator's device; without one on torch's default device."""
        device = torch.get_default_device() if generator is None else generator.device
        return cls(generator, torch.get_default_dtype(), device)

    def uniform(self, *shape: int) -> Tensor:
        r"""Draw from :math:`\mathcal{U}[0, 1)`."""
        return torch.rand(shape, **source(self.generator), dtype=self.dtype, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        r"""Draw from :math:`\mathcal{N}(0, I)`."""
        return torch.randn(shape, **source(self.generator), dtype=self.dtype, device=self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        r"""Draw uniformly from 0, ..., high - 1, as int64."""
        return torch.randint(high, shape, **source(self.generator), device=self.device)


@dataclass(frozen=True)
class Toy:
    r"""A 2-D law given by two formulas, one that draws and one that evaluates.

    Args:
        name: The law's name.
        bounds: The limits ((xmin, xmax), (ymin, ymax)) of a rectangle that holds the mass.
        entropy: The differential entropy, in nats.
        draw: A function of (n, draws) that returns points, shape ``(n, 2)``.
        density: A function that maps x, shape ``(B, 2)``, to :math:`\log \rho(x)`, shape ``(B,)``.
        chunk: How many points the density is given at a time.
    """

    event_shape: ClassVar[tuple[int, ...]] = (2,)

    name: str
    bounds: tuple[tuple[float, float], ...]
    entropy: float
    draw: Callable[[int, Draws], Tensor] = field(repr=False)
    density: Callable[[Tensor], Tensor] = field(repr=False)
    chunk: int = field(default=16384, repr=False)

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Draw n independent points, of torch's default dtype and on the generator's device.

        Args:
            n: The number of points.
            context: Ignored; a base takes one.
            generator: The source of randomness; None is torch's default generator.

        Returns:
            The points, shape ``(n, 2)``.

        Raises:
            ValueError: If n is not a positive int, or a generator is given in the place of the context.
        """
        n = check_draw(n, context, generator)
        return self.draw(n, Draws.of(generator))

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""Evaluate :math:`\log \rho(x)`, in chunks so that memory stays bounded; differentiable in x.

        Args:
            x: The points, shape ``(B, 2)``.
            context: Ignored, as is a generator.
            generator: Not needed.

        Returns:
            The log-density in nats, shape ``(B,)``, with the dtype and device of x.

        Raises:
            ValueError: If x is not floating or not of shape ``(B, 2)``.
        """
        check_event(x, self.event_shape)
        log_density = torch.cat([self.density(part) for part in x.split(self.chunk)])
        return log_density.masked_fill(x.isnan().any(-1), math.nan)


@dataclass(frozen=True)
class ToyMixture:
    r"""A Gaussian mixture in the plane as a law with a name and a known entropy.

    Args:
        name: The law's name.
        entropy: The differential entropy, in nats.
        mixture: The mixture, whose weights, means and covariances the law has too.
    """

    event_shape: ClassVar[tuple[int, ...]] = (2,)

    name: str
    entropy: float
    mixture: GaussianMixture = field(repr=False)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """A rectangle that holds the mass, 5.5 standard deviations around every mean."""
        return self.mixture.bounds

    @property
    def weights(self) -> Tensor:
        """The weights of the components, float64 of shape ``(K,)``."""
        return self.mixture.weights

    @property
    def means(self) -> Tensor:
        """The means of the components, float64 of shape ``(K, 2)``."""
        return self.mixture.means

    @property
    def covariances(self) -> Tensor:
        """The covariances of the components, float64 of shape ``(K, 2, 2)``."""
        return self.mixture.covariances

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n independent points, as :meth:`Toy.sample`."""
        return self.mixture.sample(n, context, generator)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""Evaluate :math:`\log \rho(x)`, as :meth:`Toy.log_prob`."""
        return self.mixture.log_prob(x)
