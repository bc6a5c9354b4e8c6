r"""Bijections: invertible maps that report the log-determinant of their Jacobian.

For a bijection :math:`g` from data to latent and a base density :math:`p_Z`, the change of variables reads

.. math:: \log p_X(x) = \log p_Z(g(x)) + \log \left| \det \frac{\partial g}{\partial x}(x) \right|.

Everything a flow needs is therefore two maps, each with its own log-determinant.
"""

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_event, check_floating, check_like

__all__ = ["Bijection", "Chain", "Inverse", "Standardize"]


class Bijection(nn.Module, ABC):
    r"""An invertible map between data :math:`x` and latent :math:`z`, both of shape ``(B, *event)``.

    To write one, implement :meth:`forward` and :meth:`inverse`. Each returns the mapped point *and* the
    log-determinant of the map just computed, so at corresponding points the two log-determinants sum to zero.
    Then let :func:`cnflib.audit.audit_bijection` look at it.

    References:
        Normalizing Flows for Probabilistic Modeling and Inference, Papamakarios et al., 2021, arXiv:1912.02762.
    """

    @abstractmethod
    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Map data to latent: :math:`z = g(x)` and :math:`\log |\det \partial g / \partial x|`.

        Args:
            x: Data :math:`x`, shape ``(B, *event)``.
            context: What the map is conditioned on, shape ``(B, features)``.
            generator: Source of randomness for a map that draws (a trace probe); others ignore it.

        Returns:
            The latent :math:`z`, shape ``(B, *event)``, and the log-determinant in nats, shape ``(B,)``.
        """

    @abstractmethod
    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Map latent to data: :math:`x = g^{-1}(z)` and :math:`\log |\det \partial g^{-1} / \partial z|`.

        Arguments and shapes are those of :meth:`forward`, with :math:`x` and :math:`z` exchanged.
        """

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Map latent to data, :math:`x = g^{-1}(z)`, without the log-determinant."""
        return self.inverse(z, context)[0]


class Chain(Bijection):
    r"""The composition :math:`g = g_K \circ \dots \circ g_1`; :meth:`forward` runs left to right.

    .. math:: \log |\det \partial g| = \sum_k \log |\det \partial g_k|

    Args:
        layers: Bijections :math:`g_1, \dots, g_K`, the first one nearest to the data.
    """

    def __init__(self, *layers: Bijection) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_event(x, None, "x")
        total = x.new_zeros(x.shape[0])
        for layer in self.layers:
            x, logdet = layer(x, context, generator)
            total = total + logdet
        return x, total

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_event(z, None, "z")
        total = z.new_zeros(z.shape[0])
        for layer in reversed(self.layers):
            z, logdet = layer.inverse(z, context, generator)
            total = total + logdet
        return z, total

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in reversed(self.layers):
            z = layer.decode(z, context)
        return z


class Inverse(Bijection):
    r"""The inverse of a bijection: its forward is the other's inverse, and the reverse.

    Args:
        bijection: The bijection :math:`g`; the result maps data to latent by :math:`g^{-1}`.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(x, context, generator)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.bijection(z, context, generator)


class Standardize(Bijection):
    r"""Shift and scale data to zero mean and unit variance, a fixed map that is part of the flow.

    .. math:: z = (x - \mu) / \sigma, \qquad \log |\det \partial z / \partial x| = -\sum_i \log \sigma_i

    The log-determinant keeps densities in the data's own units.

    Args:
        mean: The mean :math:`\mu` of the training data, shape ``event``, in the data's units.
        std: The standard deviation :math:`\sigma > 0`, shape ``event``, in the data's units.

    Raises:
        ValueError: If the shapes differ, or an entry of ``std`` is not positive and finite.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        check_floating(mean, "mean")
        check_floating(std, "std")
        if mean.shape != std.shape or mean.ndim == 0:
            raise ValueError(
                f"Expected mean and std of one event shape; got {tuple(mean.shape)} and {tuple(std.shape)}. "
                "Take them over the batch: x.mean(0), x.std(0)."
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                "Expected finite mean and finite std > 0 in every coordinate. "
                "A constant coordinate has no density: drop it."
            )
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("std", std.detach().clone())

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(x, "x")
        return (x - self.mean) / self.std, -self._log_std(x)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(z, "z")
        return self.mean + self.std * z, self._log_std(z)

    def _log_std(self, x: Tensor) -> Tensor:
        return self.std.log().sum().repeat(x.shape[0])

    def _check(self, x: Tensor, name: str) -> None:
        check_event(x, tuple(self.mean.shape), name)
        check_like(x, self.mean, name, "Standardize")
