"""A context in its own units: what a bijection or a density is conditioned on, encoded before it arrives there.

Without units nothing arrives: the part is that of no context.
"""

from torch import Generator, Tensor, nn

from cnflib._check import check_event, check_like, rearranged, reference
from cnflib._random import learning
from cnflib.bijection import Bijection

__all__ = ["BijectionInUnits", "DensityInUnits"]


class BijectionInUnits(Bijection):
    r"""The map :math:`x \mapsto g(x, k(c))` of a bijection g, and of a bijection k of the context c."""

    def __init__(self, bijection: Bijection, units: Bijection | None) -> None:
        super().__init__()
        self.bijection = bijection
        self.units = units
        self.event_shape = getattr(bijection, "event_shape", None)
        self.channels = getattr(bijection, "channels", None)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.bijection.encode_and_logdet(x, encoded(context, self.units), generator)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self.bijection.decode_and_logdet(z, encoded(context, self.units), generator)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.bijection.encode(x, encoded(context, self.units), generator)

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.bijection.decode(z, encoded(context, self.units), generator)

    def latent_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return rearranged(self.bijection, event, "latent_shape")

    def data_shape(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        return rearranged(self.bijection, latent, "data_shape")


class DensityInUnits(nn.Module):
    r"""The density :math:`p(z \mid k(c))` of a density p, and of a bijection k of the context c."""

    def __init__(self, density: nn.Module, units: Bijection | None) -> None:
        super().__init__()
        self.density = density
        self.units = units
        self.event_shape = density.event_shape

    def log_prob(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        return self.density.log_prob(x, encoded(context, self.units), generator)

    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self.density.sample(n, encoded(context, self.units), generator)

    def rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return learning(self.density)(n, encoded(context, self.units), generator)


def encoded(context: Tensor | None, units: Bijection | None) -> Tensor | None:
    """The context as the flow inside wants it; without one None, of which the flow inside says what it thinks."""
    if context is None or units is None:
        return None
    check_event(context, getattr(units, "event_shape", None), "context")
    check_like(context, reference(units), "context", type(units).__name__)
    return units.encode(context)
