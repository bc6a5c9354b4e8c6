r"""A flow is a bijection and a base density.

.. math:: \log p(x) = \log p_Z(z) + \log |\det \partial z / \partial x|, \qquad z = g(x)
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from cnflib._check import (
    check_bijection,
    check_call,
    check_draw,
    check_flow,
    check_positive_int,
    check_returned,
    rearranged,
    reference,
    row_each,
)
from cnflib._context import BijectionInUnits, DensityInUnits
from cnflib._random import learning
from cnflib._words import described
from cnflib.bijection import Bijection, Chain
from cnflib.density import Density, as_density

__all__ = ["Flow", "tempered"]


class Flow(nn.Module):
    r"""The density of :math:`x = g^{-1}(z)` with :math:`z \sim p_Z`: a bijection and a base.

    Log-densities are in nats and in the data's own units, shape ``(B,)``. As in ``torch.distributions``, gradients flow
    through ``log_prob``, ``encode``, ``decode``, ``rsample`` and ``rsample_and_log_prob``, and ``sample`` has none.

    A flow is a density like any other: it has an ``event_shape``, and may be the base of another flow. It is called
    like :meth:`log_prob`, for ``torch.func.functional_call`` and distributed wrappers; compile the method,
    ``torch.compile(flow.log_prob)``. The state dict holds bijection and base, the base as far as it is a module.
    Built on torch's meta device, a flow gets its values by ``load_state_dict(…, assign=True)``; ``to_empty`` would wipe
    out masks and frequencies, which no state dict holds.

    Args:
        bijection: The map :math:`g` from data to latent: a :class:`Bijection`, or anything with its four methods.
        base: The density :math:`p_Z` of the latent: whatever :func:`as_density` takes. A module is held, not copied,
            and wrapped where its methods do not take context and generator: keep a name of your own for it. Anything
            else is copied, to dtype and device of the bijection.

    Raises:
        ValueError: If the one is no bijection or the other no density.

    References:
        Variational Inference with Normalizing Flows, Rezende & Mohamed, 2015, arXiv:1505.05770.

    Example:
        >>> import torch
        >>> from cnflib import StandardNormal
        >>> from cnflib.continuous import CNF
        >>> from cnflib.nets import MLP
        >>> flow = Flow(CNF(MLP(2)), StandardNormal(2))
        >>> flow.log_prob(torch.randn(5, 2)).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """

    def __init__(self, bijection: Bijection, base: Density) -> None:
        super().__init__()
        check_bijection(bijection, "bijection")
        self.bijection = bijection
        self.base = as_density(base)
        event, channels = (getattr(bijection, name, None) for name in ("event_shape", "channels"))
        latent = self.base.event_shape
        data = event or rearranged(bijection, latent, "data_shape")
        if math.prod(data) != math.prod(latent) or channels not in (None, *data[:1]):
            raise ValueError(
                f"Expected a base of as many coordinates as the bijection has; got events of shape {latent}, where "
                f"the bijection has {event or f'channels of size {channels} along the first axis'}. Take "
                f"StandardNormal({event or channels})."
            )
        self._event = tuple(data)
        like = reference(bijection)
        if like is not None and not isinstance(base, nn.Module):
            self.base.to(
                None if like.is_meta else like.device, like.dtype
            )  # on meta its values would be lost

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of an event of the data: what the bijection says, else what it makes of an event of the base."""
        return getattr(self.bijection, "event_shape", None) or self._event

    def forward(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """The same as :meth:`log_prob`."""
        return self.log_prob(x, context, generator)

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""Log-density :math:`\log p(x)` in nats.

        Args:
            x: Data, shape ``(B, *event)``, floating, of the flow's dtype and device.
            context: What the density is conditioned on, a tensor of B rows.
            generator: Source of randomness for a bijection that draws (a trace probe).

        Returns:
            Shape ``(B,)``.

        Raises:
            ValueError: If x has no batch dimension, another event shape, an integer dtype, or dtype or device
                differ from the flow's; if the context has not B rows; or if the bijection returns a log-determinant of
                another shape than ``(B,)``.
        """
        bijection, base = self.bijection, self.base
        check_call(x, self.event_shape, context, bijection, generator=generator)
        shape = x.shape[0], *base.event_shape
        z, logdet = _point_and_logdet(bijection.encode_and_logdet(x, context, generator), shape, bijection)
        log_prob = base.log_prob(z, context, generator)
        check_returned(log_prob, x.shape[:1], base, "a log-density")
        return log_prob + logdet

    @torch.no_grad()
    def sample(
        self,
        n: int,
        context: Tensor | None = None,
        generator: Generator | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Draw n points, free of gradients.

        A loss that is to learn through its points, as in variational inference, takes :meth:`rsample_and_log_prob`: at
        fixed points the gradient of the mean of log p has expectation 0.

        Args:
            n: The number of points.
            context: What they are conditioned on: one row for all, or n rows, one for each.
            generator: Source of randomness, on the flow's device.
            chunk: The most points that are decoded at once, to save memory; None takes all of them.

        Returns:
            Shape ``(n, *event)``.

        Raises:
            ValueError: If n or ``chunk`` is not a positive int, or the context has neither 1 nor n rows.
        """
        z, context = self._latents(self.base.sample, n, context, generator)
        if chunk is None:
            return self._decoded(z, context, generator)
        chunk = check_positive_int(chunk, "chunk")
        parts = z.split(chunk)
        contexts = [None] * len(parts) if context is None else context.split(chunk)
        decoded = [self._decoded(part, c, generator) for part, c in zip(parts, contexts, strict=True)]
        return torch.cat(decoded)

    def rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw n points as :meth:`sample` does, with gradients to the parameters and the context.

        Raises:
            ValueError: As :meth:`sample`, and if the base has something to learn and no ``rsample``.
        """
        z, context = self._latents(learning(self.base), n, context, generator)
        return self._decoded(z, context, generator)

    def rsample_and_log_prob(
        self, n: int, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Draw n points with their log-densities by one pass, both with gradients, as variational inference needs.

        .. math:: \log p(x) = \log p_Z(z) - \log |\det \partial x / \partial z|

        Returns:
            Points, shape ``(n, *event)``, and log-densities in nats, shape ``(n,)``.

        Raises:
            ValueError: As :meth:`rsample`.
        """
        z, context = self._latents(learning(self.base), n, context, generator)
        shape = z.shape[0], *self.event_shape
        x, logdet = _point_and_logdet(
            self.bijection.decode_and_logdet(z, context, generator), shape, self.bijection
        )
        log_prob = self.base.log_prob(z, context, generator)
        check_returned(log_prob, z.shape[:1], self.base, "a log-density")
        return x, log_prob - logdet

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Map data to latent, :math:`z = g(x)`; arguments and errors are those of :meth:`log_prob`."""
        check_call(x, self.event_shape, context, self.bijection, generator=generator)
        return self.bijection.encode(x, context, generator)

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Map latent to data, :math:`x = g^{-1}(z)`; z has the event shape of the base."""
        check_call(z, self.base.event_shape, context, self.bijection, "z", generator)
        return self._decoded(z, context, generator)

    def after(self, bijection: Bijection, context: Bijection | None = None) -> "Flow":
        r"""The flow of data that a bijection h encodes first: the same model in other units, of the context too.

        .. math:: \begin{aligned} \log p(x \mid c) ={} & \log p_{\text{flow}}(h(x) \mid k(c)) \\
                  & + \log |\det \partial h / \partial x| \end{aligned}

        Parts are shared, not copied: ``realnvp(dim=13).after(Standardize.fit(x_train))``. Every method of the new flow,
        its bijection and its base take the context c as it is.

        Args:
            bijection: The map h from data to what this flow takes as data.
            context: The map k from contexts to what this flow takes as context, a bijection that draws nothing; None
                leaves them as they are.

        Raises:
            ValueError: If one has not the four methods of a bijection, or h leads to another event than this
                flow; later, if a context is not of k's event shape.

        Example:
            >>> import torch
            >>> from cnflib import Standardize
            >>> from cnflib.models import realnvp
            >>> year = 1950 + 50 * torch.rand(256, 1)
            >>> x = 0.1 * year + torch.randn(256, 2)
            >>> flow = realnvp(dim=2, context=1).after(
            ...     Standardize.fit(x), context=Standardize.fit(year)
            ... )
            >>> flow.log_prob(x, year).shape
            torch.Size([256])
            >>> flow.sample(3, torch.tensor([[1984.0]])).shape
            torch.Size([3, 2])
        """
        if context is None:
            return Flow(Chain(bijection, self.bijection), self.base)
        check_bijection(context, "context")
        inner, base = BijectionInUnits(self.bijection, context), DensityInUnits(self.base, context)
        return Flow(Chain(bijection, inner), base)

    def _decoded(self, z: Tensor, context: Tensor | None, generator: Generator | None) -> Tensor:
        """The points of latents; those of another shape were broadcast, or are of a bijection that does not say its."""
        x = self.bijection.decode(z, context, generator)
        check_returned(x, (z.shape[0], *self.event_shape), self.bijection, "points", _REARRANGED)
        return x

    def _latents(
        self, draw: Callable[..., Tensor], n: int, context: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """n draws of the base in dtype and on the device of the bijection, and a row of context for each."""
        n = check_draw(n, context, generator)
        context = row_each(context, n)
        z = draw(n, context, generator)
        check_returned(z, (n, *self.base.event_shape), self.base, "draws", "Look at its sample(n).")
        like = reference(self.bijection)
        return z if like is None else z.to(like), context


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
        ValueError: If ``flow`` is no flow, or the temperature is not positive and finite.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma & Dhariwal, 2018, arXiv:1807.03039.

    Example:
        >>> from cnflib.models import glow
        >>> tempered(glow(dim=2), 0.7).sample(3).shape
        torch.Size([3, 2])
    """
    check_flow(flow, "bijection")
    if isinstance(temperature, str) or not 0 < temperature < math.inf:
        raise ValueError(
            f"Expected 0 < temperature < inf; got {temperature!r}. For the point at the middle of the base: "
            "flow.decode(torch.zeros(1, *flow.base.event_shape))."
        )
    return Flow(flow.bijection, _Scaled(flow.base, temperature))


class _Scaled(nn.Module):
    """The density of T z with z from another base."""

    def __init__(self, base: nn.Module, temperature: float) -> None:
        super().__init__()
        self.base = base
        self.temperature = temperature
        self.event_shape = base.event_shape

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        unscaled = self.base.log_prob(x / self.temperature, context, generator)
        return unscaled - x.shape[1:].numel() * math.log(self.temperature)

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.temperature * self.base.sample(n, context, generator)

    def rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.temperature * learning(self.base)(n, context, generator)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


_REARRANGED = "A bijection that rearranges an event says so by latent_shape and data_shape."


def _point_and_logdet(returned: object, shape: tuple[int, ...], bijection: object) -> tuple[Tensor, Tensor]:
    """The points and log-determinants that a bijection returned; those of other shapes would broadcast in silence."""
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(
            f"Expected {type(bijection).__name__} to return a point and a log-determinant of shape (B,), as in return "
            f"z, logdet; got {described(returned)}. cnflib.audit.audit_bijection looks at all four methods."
        )
    check_returned(returned[0], shape, bijection, "points", _REARRANGED)
    check_returned(returned[1], shape[:1], bijection, "a log-determinant")
    return returned
