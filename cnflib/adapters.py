r"""Adapters: nets trained elsewhere as vector fields of ours, and our flows as torch distributions.

Libraries disagree on how a velocity net is called. A field of ours is :math:`f(t, x)`, or :math:`f(t, x, c)` where it
has a context, with t = 0 at the base and t = 1 at the data; whatever net :math:`v` was trained elsewhere becomes one by
a single line, and then has a density::

    field = time_second(net)                     # v(x, t), as in flow_matching
    flow = Flow(CNF(field), StandardNormal(2))   # log_prob, sample, rsample
    prior = given(flow)                          # a torch.distributions.Distribution

A net with dropout or BatchNorm is no fixed function of each row: call ``net.eval()`` before its density is asked for.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from cnflib._check import check_floating, reference
from cnflib._field import Uniform, uniform
from cnflib.flow import Flow
from cnflib.nets import VectorField

__all__ = [
    "Adapted",
    "Call",
    "FlowDistribution",
    "Net",
    "data_first",
    "given",
    "time_as_feature",
    "time_first",
    "time_second",
]


def __dir__() -> list[str]:
    return sorted(__all__)


Net = Callable[..., Tensor]
"""A velocity net with arguments of its own; a module or any other callable."""

Call = Callable[[Net, Tensor, Tensor, Tensor | None], Tensor]
"""``call(net, t, x, context)``: how a net is called; t of shape ``()`` or ``(B,)``, x and result ``(B, *event)``."""


class Adapted(nn.Module):
    r"""A net with another calling convention as a vector field, :math:`f(t, x, c) = \mathrm{call}(v, t, x, c)`.

    The parameters of a net that is a module are the field's. For a convention that is not among the ready ones write
    the call, e.g. for a label by keyword and for times in thousandths::

        Adapted(net, lambda net, t, x, context: net(x, 1000 * t.expand(len(x)), y=context))

    A field is pickled if its call is a function defined by name in a module, not a lambda.

    Args:
        net: The velocity net :math:`v`.
        call: How it is called; t has the dtype and the device of x.

    Raises:
        ValueError: If net or call cannot be called.

    Example:
        >>> import torch
        >>> field = Adapted(lambda x, sigma: x / sigma, lambda net, t, x, context: net(x, sigma=1 + t))
        >>> field(torch.tensor(1.0), torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, net: Net, call: Call) -> None:
        super().__init__()
        _check_callable(net, "net")
        _check_callable(call, "call")
        self.net = net
        self.call = call

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time t of shape ``()`` or ``(B,)`` and x of shape ``(B, *event)``."""
        return self.call(self.net, t.to(dtype=x.dtype, device=x.device), x, context)


def time_first(net: Net) -> Adapted:
    r"""A net :math:`v(t, x)`, or :math:`v(t, x, c)` where a context is given, as in torchdyn and in torchcfm's UNet.

    Args:
        net: Takes t as it comes, of shape ``()``, or ``(B,)`` where each row has a time of its own. (torchcfm's
            ``torch_wrapper`` takes ``()`` only; the net inside it takes both by :func:`time_as_feature`.)

    Raises:
        ValueError: If it cannot be called with two or three arguments.

    Example:
        >>> import torch
        >>> field = time_first(lambda t, x: t * x)
        >>> field(torch.tensor(0.5), torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    return _in_order(net, _as_it_comes)


def time_second(net: Net) -> Adapted:
    r"""A net :math:`v(x, t)`, or :math:`v(x, t, c)` where a context is given, as in flow_matching.

    Args:
        net: Takes one time for each row, shape ``(B,)``.

    Raises:
        ValueError: If it cannot be called with two or three arguments.

    Example:
        >>> import torch
        >>> field = time_second(lambda x, t: t[:, None] * x)
        >>> field(torch.tensor(0.5), torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """
    return _in_order(net, _time_last)


def time_as_feature(net: Net) -> Adapted:
    r"""A net of the one argument :math:`(x, t)`, or :math:`(x, t, c)` where a context is given, as torchcfm's MLP.

    Args:
        net: Takes columns ``(B, D + 1)``, or ``(B, D + 1 + features)``.

    Raises:
        ValueError: When called at x that is not of shape ``(B, D)``.

    Example:
        >>> import torch
        >>> field = time_as_feature(torch.nn.Linear(3, 2))
        >>> field(torch.tensor(0.5), torch.ones(4, 2)).shape
        torch.Size([4, 2])
    """
    return Adapted(net, _time_as_feature)


def data_first(field: VectorField) -> Adapted:
    r"""A field whose time runs from the data (t = 0) to noise (t = 1), turned round.

    .. math:: f(t, x, c) = -v(1 - t, x, c)

    So are trained diffusion and rectified-flow image models. Their net is first given our arguments:
    ``data_first(time_second(net))``.

    Args:
        field: The field :math:`v(t, x)` or :math:`v(t, x, c)` with the data at t = 0.

    Raises:
        ValueError: If it cannot be called with two or three arguments.

    Example:
        >>> import torch
        >>> field = data_first(lambda t, x: t * x)
        >>> field(torch.tensor(0.25), torch.ones(1, 2))
        tensor([[-0.7500, -0.7500]])
    """
    return _in_order(field, _backward, torch.neg)


_Arguments = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class _InOrder:
    """A call with two arguments made of t and x, and the context in third place by the rule for fields."""

    def __init__(self, rule: Uniform, arguments: _Arguments, then: Callable[[Tensor], Tensor] | None) -> None:
        self.takes_context, self.needs_context = rule.takes_context, rule.needs_context
        self.arguments = arguments
        self.then = then

    def __call__(self, net: Net, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        velocity = Uniform(net, self.takes_context, self.needs_context)(*self.arguments(t, x), context)
        return velocity if self.then is None else self.then(velocity)


def _in_order(net: Net, arguments: _Arguments, then: Callable[[Tensor], Tensor] | None = None) -> Adapted:
    _check_callable(net, "net")
    return Adapted(
        net, _InOrder(uniform(net), arguments, then)
    )  # a signature is read once, not at every call


def _as_it_comes(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return t, x


def _time_last(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x, t.expand(x.shape[0])


def _backward(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - t, x


def _time_as_feature(net: Net, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    if x.ndim != 2:
        raise ValueError(
            f"Expected x of shape (B, D), to which time is appended as a column; got {tuple(x.shape)}. "
            "Take time_first or time_second for a net of other events."
        )
    features = [x, t.expand(x.shape[0])[:, None]]
    if context is not None:
        features.append(context.flatten(1))
    return net(torch.cat(features, 1))


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

        Raises:
            ValueError: If it does not.
        """
        batch_shape = torch.Size(batch_shape)
        if _broadcast(self.batch_shape, batch_shape) != batch_shape:
            raise ValueError(
                f"Expected a batch_shape to which {tuple(self.batch_shape)} broadcasts; got {tuple(batch_shape)}. "
                "Put new axes in front: expand((n, *batch_shape))."
            )
        context = None if self.context is None else self.context.expand(batch_shape + self._features)
        return FlowDistribution(self.flow, context, batch_shape)

    def _draw(self, draw: Callable[..., Tensor], sample_shape: Sequence[int]) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        if shape.numel() == 0:
            return _empty(shape + self.event_shape, self.flow)
        return draw(shape.numel(), self._contexts(shape)).reshape(shape + self.event_shape)

    @property
    def _features(self) -> torch.Size:
        return self.context.shape[len(self.batch_shape) :]

    def _contexts(self, shape: torch.Size) -> Tensor | None:
        return None if self.context is None else _rows(self.context, shape, self._features)

    def _shape_before_event(self, value: Tensor) -> torch.Size:
        check_floating(value, "value")
        axes = value.ndim - len(self.event_shape)
        shape = _broadcast(value.shape[:axes], self.batch_shape)
        if value.shape[axes:] != self.event_shape or shape is None:
            wanted = ", ".join(["*sample_shape", *map(str, self.batch_shape + self.event_shape)])
            raise ValueError(
                f"Expected value of shape ({wanted}); got {tuple(value.shape)}. The last axes are the event's "
                f"{tuple(self.event_shape)}, those before them the batch's {tuple(self.batch_shape)}."
            )
        return shape


def given(flow: Flow, context: Tensor | None = None) -> FlowDistribution:
    r"""A view of a flow as a ``torch.distributions.Distribution``.

    Without a context its batch shape is ``()``; with one it is ``(B,)``, a distribution of its own for each row, over
    which ``Independent`` sums and of which ``MixtureSameFamily`` makes a mixture.

    Args:
        flow: The flow.
        context: What the density is conditioned on: any tensor of B rows, labels of shape ``(B,)`` too.

    Raises:
        ValueError: If the flow is none, or the context no tensor with a batch dimension.

    Example:
        >>> import torch
        >>> from cnflib.models import realnvp
        >>> posterior = given(realnvp(dim=2, context=3), torch.zeros(4, 3))
        >>> posterior.batch_shape, posterior.sample((5,)).shape
        (torch.Size([4]), torch.Size([5, 4, 2]))
    """
    if not hasattr(flow, "log_prob") or not isinstance(getattr(flow, "event_shape", None), tuple):
        raise ValueError(
            f"Expected flow to be a Flow, with log_prob and event_shape; got {_kind(flow)}. Of a bijection: "
            "Flow(bijection, StandardNormal(shape))."
        )
    if context is None:
        return FlowDistribution(flow, None, torch.Size())
    if not isinstance(context, Tensor) or context.ndim == 0:
        got = tuple(context.shape) if isinstance(context, Tensor) else _kind(context)
        raise ValueError(
            f"Expected context to be a tensor of B rows, one for each distribution; got {got}. For one row: "
            "context[None]."
        )
    return FlowDistribution(flow, context, context.shape[:1])


def _check_callable(value: object, name: str) -> None:
    if not callable(value) or isinstance(value, type):
        raise ValueError(
            f"Expected {name} to be a module or a function; got {_kind(value)}. "
            "Is it to be called first? The order is Adapted(net, call)."
        )


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _broadcast(a: torch.Size, b: torch.Size) -> torch.Size | None:
    """The common shape of a and b, None where there is none."""
    try:
        return torch.broadcast_shapes(a, b)
    except RuntimeError:
        return None


def _rows(x: Tensor, shape: torch.Size, event: torch.Size) -> Tensor:
    """Repeat x over leading axes of the given shape, then flatten them: ``(n, *event)``.

    Contiguous, because forward mode refuses the strides of 0 that an expanded tensor has.
    """
    return x.expand(shape + event).reshape(shape.numel(), *event).contiguous()


def _empty(shape: torch.Size, flow: Flow) -> Tensor:
    like = reference(flow)
    return torch.empty(shape) if like is None else like.new_empty(shape)
