r"""Bijections: invertible maps that report the log-determinant of their Jacobian.

For a bijection :math:`g` from data to latent and a base density :math:`p_Z`, the change of variables reads

.. math:: \log p_X(x) = \log p_Z(g(x)) + \log \left| \det \frac{\partial g}{\partial x}(x) \right|.

Everything a flow needs is therefore two maps, each with its own log-determinant: *encode* leads from data to latent,
*decode* from latent to data.
"""

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor, nn

from cnflib._check import (
    METHODS,
    check_bijection,
    check_call,
    check_returned,
    eager,
    event_of,
    rearranged,
    rounding,
)

__all__ = ["Bijection", "Chain", "Inverse", "Standardize"]


class Bijection(nn.Module, ABC):
    r"""An invertible map between data :math:`x` and latent :math:`z`, both of shape ``(B, *event)``.

    To write one, implement :meth:`encode_and_logdet` and :meth:`decode_and_logdet`. Each returns the mapped point *and*
    the log-determinant of the map just computed, so at corresponding points the two log-determinants sum to zero.
    Then let :func:`cnflib.audit.audit_bijection` look at it.

    Calling a bijection checks x and is then :meth:`encode_and_logdet`. The four methods check no argument; a
    :class:`cnflib.Flow` has checked before it calls them.

    Attributes:
        event_shape: The shape of an event of the data, where the map fixes it; None where it takes any.
        channels: The size of axis 1, where the map fixes that alone.

    References:
        Normalizing Flows for Probabilistic Modeling and Inference, Papamakarios et al., 2021, arXiv:1912.02762.

    Example:
        >>> import torch
        >>> class Double(Bijection):
        ...     def encode_and_logdet(self, x, context=None, generator=None):
        ...         return 2 * x, x.new_full(
        ...             (x.shape[0],), x[0].numel() * math.log(2)
        ...         )
        ...
        ...     def decode_and_logdet(self, z, context=None, generator=None):
        ...         return z / 2, z.new_full(
        ...             (z.shape[0],), -z[0].numel() * math.log(2)
        ...         )
        >>> import math
        >>> z, logdet = Double()(torch.ones(1, 3))
        >>> z.tolist(), round(logdet.item(), 3)
        ([[2.0, 2.0, 2.0]], 2.079)
    """

    event_shape: tuple[int, ...] | None = None
    channels: int | None = None

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Check x and its context, then :meth:`encode_and_logdet`.

        Raises:
            ValueError: If x has no batch dimension, another event shape, an integer dtype, or dtype or device differ
                from the bijection's, or the context has not a row for each of x.
        """
        check_call(x, event_of(self, x), context, self, generator=generator)
        return self.encode_and_logdet(x, context, generator)

    @abstractmethod
    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Map data to latent: :math:`z = g(x)` and :math:`\log |\det \partial g / \partial x|`.

        Args:
            x: Data :math:`x`, shape ``(B, *event)``.
            context: What the map is conditioned on, a tensor of B rows.
            generator: Source of randomness for a map that draws (a trace probe); others ignore it.

        Returns:
            The latent :math:`z`, shape ``(B, *event)``, and the log-determinant in nats, shape ``(B,)``.
        """

    @abstractmethod
    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Map latent to data: :math:`x = g^{-1}(z)` and :math:`\log |\det \partial g^{-1} / \partial z|`.

        Arguments and shapes are those of :meth:`encode_and_logdet`, with :math:`x` and :math:`z` exchanged.
        """

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Map data to latent, :math:`z = g(x)`, without the log-determinant."""
        return self.encode_and_logdet(x, context, generator)[0]

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Map latent to data, :math:`x = g^{-1}(z)`, without the log-determinant."""
        return self.decode_and_logdet(z, context, generator)[0]

    def latent_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a latent event for data of a shape: the same, but for maps that rearrange an event."""
        return event

    def data_shape(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a data event for latents of a shape; see :meth:`latent_shape`."""
        return latent


class Chain(Bijection):
    r"""The composition :math:`g = g_n \circ \dots \circ g_1`; data enters at the first layer.

    .. math:: \log |\det \partial g| = \sum_k \log |\det \partial g_k|

    Args:
        layers: Bijections :math:`g_1, \dots, g_n`, the first one nearest to the data.

    Raises:
        ValueError: If a layer has not the four methods of a bijection, or is for events of another shape than those
            that reach it.
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        _check_layers(layers)
        self.layers = nn.ModuleList(
            layer if isinstance(layer, nn.Module) else _HeldMethods(layer) for layer in layers
        )
        first = layers[0] if layers else None
        self.event_shape = getattr(first, "event_shape", None)
        self.channels = getattr(first, "channels", None)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, logdet = layer.encode_and_logdet(x, context, generator)
            check_returned(logdet, total.shape, layer, "a log-determinant")
            total = total + logdet
        return x, total

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for layer in reversed(self.layers):
            z, logdet = layer.decode_and_logdet(z, context, generator)
            check_returned(logdet, total.shape, layer, "a log-determinant")
            total = total + logdet
        return z, total

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        for layer in self.layers:
            x = layer.encode(x, context, generator)
        return x

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        for layer in reversed(self.layers):
            z = layer.decode(z, context, generator)
        return z

    def latent_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.layers:
            event = rearranged(layer, event, "latent_shape")
        return event

    def data_shape(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        for layer in reversed(self.layers):
            latent = rearranged(layer, latent, "data_shape")
        return latent


def _check_layers(layers: tuple[Bijection, ...]) -> None:
    """Refuse what is no bijection, and layers whose events differ in shape, which would broadcast in silence."""
    reached: tuple[int, ...] | None = None
    for k, layer in enumerate(layers):
        check_bijection(layer, f"layer {k}")
        event = getattr(layer, "event_shape", None)
        channels = getattr(layer, "channels", None)
        if reached and (event not in (None, reached) or channels not in (None, reached[0])):
            raise ValueError(
                f"Expected layer {k}, {type(layer).__name__}, to be for the events of shape {reached} that the layers "
                f"before it return; it is for {event or f'{channels} along the first axis'}. Build it for that "
                "shape, or put Flatten or Squeeze between them."
            )
        event = event or reached
        reached = event and rearranged(layer, event, "latent_shape")


class Inverse(Bijection):
    r"""The inverse of a bijection: what it encodes the other decodes, and the reverse.

    Args:
        bijection: The bijection :math:`g`; the result maps data to latent by :math:`g^{-1}`.

    Raises:
        ValueError: If it has not the four methods of a bijection.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        check_bijection(bijection, "bijection")
        self.bijection = bijection

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The shape of an event, that of the bijection's latents where it fixes one."""
        event = getattr(self.bijection, "event_shape", None)
        return event and self.data_shape(event)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.bijection.decode_and_logdet(x, context, generator)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.bijection.encode_and_logdet(z, context, generator)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.bijection.decode(x, context, generator)

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.bijection.encode(z, context, generator)

    def latent_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return rearranged(self.bijection, event, "data_shape")

    def data_shape(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        return rearranged(self.bijection, latent, "latent_shape")


class Standardize(Bijection):
    r"""Shift and scale data to zero mean and unit variance, a fixed map that is part of the flow.

    .. math:: z = (x - \mu) / \sigma, \qquad \log |\det \partial z / \partial x| = -\sum_i \log \sigma_i

    The log-determinant keeps densities in the data's own units. :meth:`fit` takes the two from data.

    Args:
        mean: The mean :math:`\mu` of the training data, shape ``event``, in the data's units.
        std: The standard deviation :math:`\sigma > 0`, shape ``event``, in the data's units.

    Raises:
        ValueError: If the shapes differ, or an entry of ``std`` is not finite, or is 0 up to the rounding of its mean.

    Example:
        >>> import torch
        >>> from cnflib.models import realnvp
        >>> x_train = 1000 + 50 * torch.randn(256, 2)
        >>> flow = realnvp(dim=2).after(Standardize.fit(x_train))
        >>> flow.log_prob(x_train).shape
        torch.Size([256])
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        if mean.shape != std.shape or mean.ndim == 0:
            raise ValueError(
                f"Expected mean and std of one event shape; got {tuple(mean.shape)} and {tuple(std.shape)}. Take them "
                "over the batch, x.mean(0) and x.std(0); where x is one column of numbers, of x[:, None]."
            )
        # NumPy's deviation of a column of n equal numbers is not 0 but grows up to about n roundings of their mean.
        least = max(torch.finfo(std.dtype).eps, 1e-10) * mean.abs()
        finite = torch.isfinite(mean) & torch.isfinite(std)
        if eager(std) and not (finite & (std > least)).all():
            raise ValueError(
                "Expected finite mean and finite std > 0, larger than the rounding of the mean, in every coordinate. "
                "Drop or repair rows that hold NaN or inf; a constant coordinate has no density: drop it. Statistics "
                "that round less: Standardize.fit(x), and x less a large offset."
            )
        self.event_shape = tuple(mean.shape)
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("std", std.detach().clone())

    @classmethod
    def fit(cls, x: Tensor | ArrayLike) -> Self:
        r"""The map that gives the data at hand zero mean and unit variance in every coordinate.

        .. math:: \mu = \frac1N \sum_n x_n, \qquad \sigma^2 = \frac1N \sum_n (x_n - \mu)^2

        The statistics are computed in float64, on the CPU, and kept in torch's default dtype, on the device of x.

        Args:
            x: Training data of shape ``(N, *event)``, N ≥ 2: a tensor, or what NumPy takes for a table of numbers, as
                a NumPy array or one of pandas.

        Raises:
            ValueError: If x has fewer than two rows, values that are not finite, or a coordinate that is constant up to
                rounding.
        """
        x = x.detach() if isinstance(x, Tensor) else torch.tensor(np.asarray(x, dtype=np.float64))
        data, kept = x.cpu().double(), torch.get_default_dtype()
        variance, mean = torch.var_mean(data, 0, correction=0)
        std, finite = variance.sqrt(), data.isfinite().all(0)
        constant = std <= torch.maximum(rounding(data), torch.finfo(kept).eps * data.abs().mean(0))
        if data.shape[:1].numel() < 2 or (constant | ~finite).any():
            raise ValueError(_unfit(data, constant, finite, kept))
        return cls(mean.to(x.device, kept), std.to(x.device, kept))

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, -self._log_std(x)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.mean + self.std * z, self._log_std(z)

    def _log_std(self, x: Tensor) -> Tensor:
        return self.std.log().sum().repeat(x.shape[0])

    def extra_repr(self) -> str:
        return f"event_shape={self.event_shape}"


class _HeldMethods(nn.Module):
    """A module with the methods of a bijection that is none, so that a chain can register it."""

    def __init__(self, bijection: object) -> None:
        super().__init__()
        for method in METHODS:
            setattr(self, method, getattr(bijection, method))


def _unfit(data: Tensor, constant: Tensor, finite: Tensor, kept: torch.dtype) -> str:
    """What a message says of a table that has no deviations: its size, or the first columns at fault."""
    if data.shape[:1].numel() < 2:
        return (
            f"Expected x of shape (N, *event) with N ≥ 2 rows; got {tuple(data.shape)}. Fewer have no deviation; a "
            "known one goes in directly: Standardize(mean, std)."
        )
    bad, which = (constant, "constant, up to rounding") if finite.all() else (~finite, "not finite")
    first = bad.flatten().nonzero().flatten().tolist()
    return (
        f"Expected x of finite columns without a constant one; of {len(data)} rows and {bad.numel()} columns "
        f"{len(first)} {'is' if len(first) == 1 else 'are'} {which}: number "
        f"{', '.join(map(str, first[:5]))}{', …' * (len(first) > 5)}, counted from 0. "
    ) + (
        f"It has no density: drop it; take a large offset off before, as numbers are kept in {kept}."
        if finite.all()
        else "Drop or repair the rows that hold NaN or inf: x[torch.isfinite(x).flatten(1).all(1)]."
    )
