r"""Nets trained elsewhere as vector fields of ours.

Libraries disagree on how a velocity net is called. A field of ours is :math:`f(t, x)`, or :math:`f(t, x, c)` where it
has a context, with t = 0 at the base and t = 1 at the data.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cnflib._field import Uniform, uniform
from cnflib.nets import VectorField

__all__ = ["Adapted", "Call", "Net", "data_first", "time_as_feature", "time_first", "time_second"]


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

        Adapted(
            net,
            lambda net, t, x, context: net(
                x, 1000 * t.expand(x.shape[0]), y=context
            ),
        )

    A field is pickled if its call is a function defined by name in a module, not a lambda.

    Args:
        net: The velocity net :math:`v`.
        call: How it is called; t has the dtype and the device of x.

    Example:
        >>> import torch
        >>> field = Adapted(
        ...     lambda x, sigma: x / sigma,
        ...     lambda net, t, x, context: net(x, sigma=1 + t),
        ... )
        >>> field(torch.tensor(1.0), torch.ones(1, 2))
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, net: Net, call: Call) -> None:
        super().__init__()
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
    return Adapted(net, _InOrder(net, _as_it_comes, None))


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
    return Adapted(net, _InOrder(net, _time_last, None))


def time_as_feature(net: Net) -> Adapted:
    r"""A net of the one argument :math:`(x, t)`, or :math:`(x, t, c)` where a context is given, as torchcfm's MLP.

    Args:
        net: Takes columns ``(B, D + 1)``, or ``(B, D + 1 + features)``; the field then takes x of shape ``(B, D)``.

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
    return Adapted(field, _InOrder(field, _backward, torch.neg))


_Arguments = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class _InOrder:
    """A call with two arguments made of t and x, and the context in third place by the rule for fields."""

    def __init__(self, net: Net, arguments: _Arguments, then: Callable[[Tensor], Tensor] | None) -> None:
        rule = uniform(net)  # a signature is read once, not at every call
        self.takes_context, self.needs_context = rule.takes_context, rule.needs_context
        self.arguments = arguments
        self.then = then

    def __call__(self, net: Net, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
        velocity = Uniform(net, self.takes_context, self.needs_context)(*self.arguments(t, x), context)
        return velocity if self.then is None else self.then(velocity)


def _as_it_comes(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return t, x


def _time_last(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x, t.expand(x.shape[0])


def _backward(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - t, x


def _time_as_feature(net: Net, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    features = [x, t.expand(x.shape[0])[:, None]]
    if context is not None:
        features.append(context.flatten(1))
    return net(torch.cat(features, 1))
