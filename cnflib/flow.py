r"""A flow is a bijection and a base density.

.. math:: \log p(x) = \log p_Z(z) + \log |\det \partial z / \partial x|, \qquad z = g(x)
"""

import math
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from cnflib._check import (
    check_context,
    check_event,
    check_floating,
    check_like,
    check_positive_int,
    event_shape,
    reference,
)
from cnflib._random import given
from cnflib.bijection import Bijection

__all__ = ["Base", "Flow", "StandardNormal", "tempered"]


class Base(Protocol):
    """A base density: anything that can be evaluated and sampled."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats at z of shape ``(B, *event)``; shape ``(B,)``."""

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points; shape ``(n, *event)``."""


class StandardNormal(nn.Module):
    r"""The standard normal :math:`N(0, I)` on events of a given shape, in :math:`D` dimensions in all.

    .. math:: \log p(z) = -\tfrac12 |z|^2 - \tfrac D2 \log 2\pi

    Args:
        shape: The event shape, an int or a tuple of ints.
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.shape = event_shape(None, shape)
        self.register_buffer("origin", torch.zeros(self.shape), persistent=False)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        check_event(z, self.shape, "z")
        square = z.square().flatten(1).sum(1)
        return -0.5 * (square + self.origin.numel() * math.log(2 * math.pi))

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        check_positive_int(n, "n")
        return torch.randn(
            (n, *self.shape), **given(generator), dtype=self.origin.dtype, device=self.origin.device
        )

    def extra_repr(self) -> str:
        return f"shape={self.shape}"


class Flow(nn.Module):
    r"""The density of :math:`x = g^{-1}(z)` with :math:`z \sim p_Z`: a bijection and a base.

    Log-densities are in nats and in the data's own units, shape ``(B,)``. Gradients flow through every method,
    through samples too: wrap a call in ``torch.no_grad()`` where none is needed.

    Args:
        bijection: The map :math:`g` from data to latent.
        base: The density :math:`p_Z` of the latent. A base that is a module is moved to dtype and device of the
            bijection's first parameter or buffer.

    References:
        Variational Inference with Normalizing Flows, Rezende & Mohamed, 2015, arXiv:1505.05770.
    """

    def __init__(self, bijection: Bijection, base: Base) -> None:
        super().__init__()
        self.bijection = bijection
        self.base = base
        like = reference(bijection)
        if like is not None and isinstance(base, nn.Module):
            base.to(dtype=like.dtype, device=like.device)

    def forward(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """The same as :meth:`log_prob`, for ``torch.func.functional_call`` and distributed wrappers."""
        return self.log_prob(x, context, generator)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""Log-density :math:`\log p(x)` in nats.

        Args:
            x: Data, shape ``(B, *event)``, floating, of the flow's dtype and device.
            context: What the density is conditioned on, shape ``(B, features)``.
            generator: Source of randomness for a bijection that draws (a trace probe).

        Returns:
            Shape ``(B,)``.

        Raises:
            ValueError: If x has no batch dimension, another event shape, an integer dtype, or dtype or device
                differ from the flow's.
        """
        self._check(x, context)
        z, logdet = self.bijection(x, context, generator)
        return self.base.log_prob(z, context) + logdet

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points of shape ``(n, *event)``; a context has one row for each, or one row for all."""
        context = _repeat(context, n)
        z = self.base.sample(n, context, generator)
        return self.bijection.decode(z, context)

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Draw n points with their log-densities by one pass.

        .. math:: \log p(x) = \log p_Z(z) - \log |\det \partial x / \partial z|

        Returns:
            Points, shape ``(n, *event)``, and log-densities in nats, shape ``(n,)``.
        """
        context = _repeat(context, n)
        z = self.base.sample(n, context, generator)
        x, logdet = self.bijection.inverse(z, context, generator)
        return x, self.base.log_prob(z, context) - logdet

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        check_event(x, getattr(self.base, "shape", None))
        check_like(x, reference(self.bijection), "x", "flow")
        check_context(context, x)


def tempered(flow: Flow, temperature: float) -> Flow:
    r"""The flow with the spread of its base scaled by a temperature T; it shares bijection and base, weights and all.

    .. math:: z = T z_0, \quad z_0 \sim p_Z, \qquad \log p_T(z) = \log p_Z(z / T) - D \log T

    Below T = 1 samples come from nearer the middle of the base, with less variety; ``log_prob`` is the exact density
    of these samples. With a standard normal base and a bijection of constant log-determinant (additive couplings,
    linear maps) it is :math:`p(x)^{1 / T^2}`, normalised: what lowers the temperature of :math:`p` itself. In
    any other flow it is not.

    Args:
        flow: The flow, which is left as it is.
        temperature: T > 0.

    Raises:
        ValueError: If the temperature is not positive and finite.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma & Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> from cnflib.models import glow
        >>> calm = tempered(glow(dim=2), 0.7)
        >>> x, log_prob = calm.sample_and_log_prob(3)
    """
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"Expected 0 < temperature < inf; got {temperature}. For the point at the middle of the base: "
            "flow.bijection.decode(torch.zeros(1, *event))."
        )
    return Flow(flow.bijection, _Scaled(flow.base, temperature))


class _Scaled(nn.Module):
    """The density of T z with z from another base."""

    def __init__(self, base: Base, temperature: float) -> None:
        super().__init__()
        self.base = base
        self.temperature = temperature
        self.shape = getattr(base, "shape", None)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        unscaled = self.base.log_prob(z / self.temperature, context)
        return unscaled - z.shape[1:].numel() * math.log(self.temperature)

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.temperature * self.base.sample(n, context, generator)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


def _repeat(context: Tensor | None, n: int) -> Tensor | None:
    check_positive_int(n, "n")
    if context is None:
        return None
    check_floating(context, "context")
    if context.ndim < 2 or context.shape[0] not in (1, n):
        raise ValueError(
            f"Expected context of shape (n, features) or (1, features) with n = {n}; got {tuple(context.shape)}."
        )
    return context.repeat(n // context.shape[0], *[1] * (context.ndim - 1))
