r"""What a target law is: samples, an exact log-density, an entropy and a rectangle that holds the mass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Bounds", "Noise", "Target", "Toy", "check_points"]

Bounds = tuple[tuple[float, float], ...]


@runtime_checkable
class Target(Protocol):
    r"""A law :math:`\rho(x)` on :math:`\mathbb{R}^D` whose density and entropy are known exactly."""

    @property
    def name(self) -> str:
        """The law's name in the literature."""

    @property
    def bounds(self) -> Bounds:
        r"""Limits ((min, max), ...), one pair per axis, outside of which the mass is at most :math:`10^{-6}`."""

    @property
    def entropy(self) -> float:
        r"""The differential entropy :math:`-\mathrm{E}[\log \rho(x)]` in nats; no model's expected NLL is below it."""

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draw n independent points, shape ``(n, D)``."""

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Evaluate :math:`\log \rho(x)` in nats, in the units of the data: (B, D) to (B,)."""


class Noise(NamedTuple):
    r"""A source of random numbers: a generator together with the dtype and device of what it draws."""

    generator: torch.Generator | None
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(
        cls,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        r"""Fill in the defaults: torch's default dtype, and the generator's device or else torch's default device.

        Raises:
            ValueError: If dtype is not floating, or the generator lives on another kind of device.
        """
        home = torch.get_default_device() if generator is None else generator.device
        device = home if device is None else torch.device(device)
        dtype = torch.get_default_dtype() if dtype is None else dtype

        if not dtype.is_floating_point:
            raise ValueError(
                f"Expected a floating dtype; got {dtype}. Ask for torch.float32 or torch.float64."
            )
        if generator is not None and device.type != home.type:
            raise ValueError(
                f"Expected device {home}, where the generator lives; got {device}. "
                f"Make one there: torch.Generator('{device}')."
            )

        return cls(generator, dtype, device)

    def uniform(self, *shape: int) -> Tensor:
        r"""Draw from :math:`\mathcal{U}[0, 1)`."""
        return torch.rand(shape, generator=self.generator, dtype=self.dtype, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        r"""Draw from :math:`\mathcal{N}(0, I)`."""
        return torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        r"""Draw uniformly from 0, ..., high - 1, as int64."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)


@dataclass(frozen=True)
class Toy:
    r"""A 2-D law given by two formulas, one that draws and one that evaluates.

    Args:
        name: The law's name.
        bounds: The limits ((xmin, xmax), (ymin, ymax)) of a rectangle that holds the mass.
        entropy: The differential entropy, in nats.
        draw: A function of (n, noise) that returns points, shape ``(n, 2)``.
        density: A function that maps x, shape ``(B, 2)``, to :math:`\log \rho(x)`, shape ``(B,)``.
        chunk: How many points the density is given at a time.
    """

    name: str
    bounds: Bounds
    entropy: float
    draw: Callable[[int, Noise], Tensor] = field(repr=False)
    density: Callable[[Tensor], Tensor] = field(repr=False)
    chunk: int = field(default=16384, repr=False)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draw n independent points.

        Args:
            n: The number of points.
            generator: The source of randomness; None is torch's default generator.
            dtype: The dtype of the points; None is torch's default dtype.
            device: The device of the points; None is the generator's.

        Returns:
            The points, shape ``(n, 2)``.

        Raises:
            ValueError: If n is not a positive integer, dtype not floating or device not the generator's.
        """
        check_count(n)
        return self.draw(n, Noise.of(generator, dtype, device))

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Evaluate :math:`\log \rho(x)`, in chunks so that memory stays bounded; differentiable in x.

        Args:
            x: The points, shape ``(B, 2)``.

        Returns:
            The log-density in nats, shape ``(B,)``, with the dtype and device of x.

        Raises:
            ValueError: If x is not floating or not of shape ``(B, 2)``.
        """
        check_points(x, dim=2)
        log_density = torch.cat([self.density(part) for part in x.split(self.chunk)])
        return log_density.masked_fill(x.isnan().any(-1), math.nan)


def check_count(n: int) -> None:
    r"""Raise a ValueError unless n is a positive integer."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(
            f"Expected n, the number of points, to be a positive int; got {n!r}. Ask for one at least."
        )


def check_points(x: Tensor, dim: int) -> None:
    r"""Raise a ValueError unless x is a floating tensor of shape ``(B, dim)``."""
    if x.ndim != 2 or x.shape[-1] != dim:
        raise ValueError(
            f"Expected x of shape (B, {dim}); got {tuple(x.shape)}. Add a batch dimension: x[None]."
        )
    if not x.is_floating_point():
        raise ValueError(f"Expected x of a floating dtype; got {x.dtype}. Convert it: x.float().")
