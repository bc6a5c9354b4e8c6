r"""Our flows as torch distributions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from cnflib._check import check_flow, check_rows, reference
from cnflib._words import shown
from cnflib.flow import Flow

__all__ = ["FlowDistribution", "given"]


def __dir__() -> list[str]:
    return sorted(__all__)


def _by_draws(name: str, estimate: str) -> Callable[..., Tensor]:
    """A method that says how to estimate what a flow has no closed form of."""

    def refused(self: Distribution, *arguments: object) -> Tensor:
        raise ValueError(
            f"Expected log_prob, sample or rsample of a flow; got {name}, of which it has no closed form. Estimate it "
            f"by draws: {estimate}."
        )

    refused.__doc__ = f"Refused, without a closed form: ``{estimate}`` estimates it."
    return refused


class FlowDistribution(Distribution):
    r"""A flow as a torch distribution: batches of events in front of which samples add axes of their own.

    A view: parameters stay the flow's and gradients reach them, through :meth:`log_prob` and :meth:`rsample`. As for
    every torch distribution draws come from torch's default generator, those of an estimated divergence too.
    :func:`given` makes one.

    Args:
        flow: The flow.
        context: What it is conditioned on, shape ``(*batch_shape, *features)``; labels have no features.
        batch_shape: The shape of a batch of independent events.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, flow: Flow, context: Tensor | None, batch_shape: torch.Size) -> None:
        self.flow = flow
        self.context = context
        super().__init__(batch_shape, torch.Size(flow.event_shape))

    mean = property(_by_draws("mean", "sample((999,)).mean(0)"))
    variance = property(_by_draws("variance", "sample((999,)).var(0)"))
    cdf = _by_draws("cdf", "(sample((999,)) <= value).double().mean(0)")
    icdf = _by_draws("icdf", "sample((999,)).quantile(p, 0)")
    entropy = _by_draws("entropy", "-log_prob(sample((999,))).mean(0)")

    @property
    def support(self) -> constraints.Constraint:
        """All real events."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        r"""Log-density :math:`\log p(x)` in nats.

        Args:
            value: Points, shape ``(*sample_shape, *batch_shape, *event_shape)`` or one that broadcasts to it.

        Returns:
            Shape ``(*sample_shape, *batch_shape)``.

        Raises:
            ValueError: On another shape, and as :meth:`cnflib.Flow.log_prob`.
        """
        shape = self._shape_before_event(value)
        return self.flow.log_prob(_rows(value, shape, self.event_shape), self._contexts(shape)).reshape(shape)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draw points of shape ``(*sample_shape, *batch_shape, *event_shape)``, free of gradients."""
        return self._draw(self.flow.sample, sample_shape)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Draw points of shape ``(*sample_shape, *batch_shape, *event_shape)``, with gradients.

        Raises:
            ValueError: As :meth:`cnflib.Flow.rsample`.
        """
        return self._draw(self.flow.rsample, sample_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> "FlowDistribution":
        """The same distribution for a larger batch: the rows of a context are repeated.

        Args:
            batch_shape: A shape to which the present batch shape broadcasts.
            _instance: Not used: torch's hook for subclasses, of which there are none.
        """
        batch_shape = torch.Size(batch_shape)
        context = None if self.context is None else self.context.expand(batch_shape + self._features)
        return FlowDistribution(self.flow, context, batch_shape)

    def _draw(self, draw: Callable[..., Tensor], sample_shape: Sequence[int]) -> Tensor:
        try:
            shape = torch.Size(sample_shape) + self.batch_shape
        except TypeError as error:
            raise ValueError(
                f"Expected sample_shape to be a tuple of ints; got {shown(sample_shape)}. Write e.g. sample((99,))."
            ) from error
        if shape.numel() == 0:
            return _empty(shape + self.event_shape, self.flow)
        return draw(shape.numel(), self._contexts(shape)).reshape(shape + self.event_shape)

    @property
    def _features(self) -> torch.Size:
        return self.context.shape[len(self.batch_shape) :]

    def _contexts(self, shape: torch.Size) -> Tensor | None:
        return None if self.context is None else _rows(self.context, shape, self._features)

    def _shape_before_event(self, value: Tensor) -> torch.Size:
        axes = value.ndim - len(self.event_shape)
        if value.shape[axes:] != self.event_shape:
            raise ValueError(
                f"Expected value of shape (*sample_shape, {', '.join(map(str, self.batch_shape + self.event_shape))}); "
                f"got {tuple(value.shape)}. The last axes are the event's {tuple(self.event_shape)}."
            )
        return torch.broadcast_shapes(value.shape[:axes], self.batch_shape)


def given(flow: Flow, context: Tensor | None = None) -> FlowDistribution:
    r"""A view of a flow as a ``torch.distributions.Distribution``.

    Without a context its batch shape is ``()``; with one it is ``(B,)``, a distribution of its own for each row, over
    which ``Independent`` sums and of which ``MixtureSameFamily`` makes a mixture.

    Args:
        flow: The flow.
        context: What the density is conditioned on: any tensor of B rows, labels of shape ``(B,)`` too.

    Raises:
        ValueError: If the flow is none.

    Example:
        >>> import torch
        >>> from cnflib.models import realnvp
        >>> posterior = given(realnvp(dim=2, context=3), torch.zeros(4, 3))
        >>> posterior.batch_shape, posterior.sample((5,)).shape
        (torch.Size([4]), torch.Size([5, 4, 2]))
    """
    check_flow(flow)
    if context is None:
        return FlowDistribution(flow, None, torch.Size())
    check_rows(context, "context")
    return FlowDistribution(flow, context, context.shape[:1])


def _rows(x: Tensor, shape: torch.Size, event: torch.Size) -> Tensor:
    """Repeat x over leading axes of the given shape, then flatten them: ``(n, *event)``.

    Contiguous, because forward mode refuses the strides of 0 that an expanded tensor has.
    """
    return x.expand(shape + event).reshape(shape.numel(), *event).contiguous()


def _empty(shape: torch.Size, flow: Flow) -> Tensor:
    like = reference(flow)
    return torch.empty(shape) if like is None else like.new_empty(shape)
