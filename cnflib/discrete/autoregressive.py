r"""Autoregressive layers: each coordinate is mapped with parameters computed from those before it.

.. math:: z_i = T(x_i; \theta_i(x_{<i}, c)), \qquad
    \log |\det \partial z / \partial x| = \sum_i \log \partial_x T(x_i; \theta_i(x_{<i}, c))

One net with masked weights, the MADE, gives all :math:`\theta_i` in one pass, so encoding costs one pass. Decoding goes
coordinate by coordinate, and costs about as much arithmetic as one pass: each step computes the units that have just
become known, and no unit twice.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cnflib._check import check_context, check_declared, check_positive_int, check_transform
from cnflib._check_sizes import check_features, check_widths, event_shape, made_activation
from cnflib._constants import constants
from cnflib.bijection import Bijection
from cnflib.discrete.elementwise import Elementwise

__all__ = ["MADE", "MaskedAutoregressive"]


class _Masked(nn.Linear):
    """A linear layer whose weights count only where a mask of shape ``(outputs, inputs)`` is True."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(*mask.T.shape)
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    r"""A fully connected net with masked weights: output i depends on the inputs before i, and on a context.

    Every unit has a degree d and sees the units of the layer below whose degree is at most d; a hidden unit of degree
    d thereby sees the inputs of rank below d, and output i the hidden units of degree at most i. Degrees ascend from
    the first unit to the last. Where there is a context, degree 0 sees that alone. The last layer starts at zero.

    Args:
        shape: The event shape of x, of D numbers in the order in which they lie in memory.
        parameters: The number P of outputs for each coordinate.
        hidden: Widths of the hidden layers, at least one. A layer of fewer than D - 1 units, or than D where there is a
            context, leaves out some degrees.
        context: Number of context features; 0 for none.
        reverse: Take the coordinates from the last to the first.
        activation: Constructor of the activation, which acts on each unit alone.

    Raises:
        ValueError: If there is no hidden layer, or a width is no positive int; in a call, if the context is not what
            was declared.

    References:
        MADE: Masked Autoencoder for Distribution Estimation, Germain et al., 2015, arXiv:1502.03509.

    Example:
        >>> import torch
        >>> net = MADE(3, parameters=2)
        >>> net(torch.randn(5, 3)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        parameters: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        reverse: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        hidden, context = check_widths(hidden, least=1), check_features(context)
        self.shape, self.context = event_shape(None, shape), context
        self.parameters_each = parameters = check_positive_int(parameters, "parameters")
        dim = math.prod(self.shape)
        self.order = range(dim)[::-1] if reverse else range(dim)
        lowest = 0 if context or dim == 1 else 1
        with constants():
            rank = torch.tensor(self.order)  # of coordinate i; the order of ranks is its own inverse
            degrees = [torch.linspace(lowest, dim - 1, width).round().long() for width in hidden]
            self.known = [torch.searchsorted(d, torch.arange(dim), right=True).tolist() for d in degrees]
        needs = [rank + 1, *degrees]  # of the units of a layer: the least degree that sees them
        self.layers = nn.ModuleList(_Masked(d[:, None] >= need) for d, need in zip(degrees, needs))
        self.last = _Masked((rank[:, None] >= needs[-1]).repeat(parameters, 1))
        self.condition = nn.Linear(context, hidden[0], bias=False) if context else None
        self.activation = made_activation(activation)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters for x of shape ``(B, *shape)``, shape ``(B, P, *shape)``."""
        check_context(context, x)
        h, shift = x.flatten(1), self._shift(context, x)
        for k, layer in enumerate(self.layers):
            h = layer(h) if k or shift is None else layer(h) + shift
            h = self.activation(h)
        return self.last(h).unflatten(1, (self.parameters_each, *self.shape))

    def extra_repr(self) -> str:
        order = ", reverse=True" if self.order[0] > 0 else ""
        return f"shape={self.shape}, parameters={self.parameters_each}, context={self.context}{order}"

    def solve(
        self, pick: Callable[[int, Tensor], tuple[Tensor, Tensor]], batch: int, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Find x one coordinate after the other: those found so far give the parameters of the next.

        Args:
            pick: ``pick(i, theta)`` gives coordinate i of x from its parameters of shape ``(B, P)``, and a second
                number, both of shape ``(B,)``.
            batch: The number B of rows.
            context: Shape ``(B, features)``.

        Returns:
            x and the second numbers, of shape ``(B, D)``.
        """
        first, *others = (layer.weight for layer in self.layers)
        # With the inputs in the order in which they become known, and the units of a layer by degree, every masked
        # matrix is a staircase: a step can compute the next few units of each layer, from all that is known of the
        # layer below. So every unit is computed once, as soon as what it sees is known, and all D steps together cost
        # about as much arithmetic as one pass, not D passes. What a mask hides is not known yet: none is applied.
        weights = [first.flip(1) if self.order[0] > 0 else first, *others]
        biases = [layer.bias[:, None].expand(-1, batch) for layer in self.layers]
        if (shift := self._shift(context, first)) is not None:
            biases[0] = biases[0] + shift.T
        last, bias = (p.unflatten(0, (self.parameters_each, -1)) for p in (self.last.weight, self.last.bias))
        x = first.new_empty(0, batch)  # (coordinates known, B), in the order of the steps
        hidden = [x for _ in self.layers]  # (units known, B)
        found = {}
        for step, i in enumerate(self.order):
            below = x
            for k, layer in enumerate(zip(weights, biases)):
                below = hidden[k] = self._grown(hidden[k], self.known[k][step], *layer, below)
            theta = torch.addmm(bias[:, i : i + 1], last[:, i, : len(below)], below)
            found[i] = pick(i, theta.T)
            x = torch.cat([x, found[i][0][None]])
        points, numbers = zip(*(found[i] for i in sorted(found)))
        return torch.stack(points, 1), torch.stack(numbers, 1)

    def _grown(self, h: Tensor, units: int, weight: Tensor, bias: Tensor, below: Tensor) -> Tensor:
        """What is known of a layer, grown to so many units."""
        if units == len(h):
            return h
        new = slice(len(h), units)
        more = self.activation(torch.addmm(bias[new], weight[new, : len(below)], below))
        return torch.cat([h, more]) if len(h) else more

    def _shift(self, context: Tensor | None, like: Tensor) -> Tensor | None:
        """What the context adds to the first layer."""
        check_declared(context, self.context, "MADE", like)
        return None if context is None else self.condition(context.flatten(1))


class MaskedAutoregressive(Bijection):
    r"""The masked autoregressive layer :math:`z_i = T(x_i; \theta_i(x_{<i}, c))`: one pass encodes, D steps decode.

    With the affine family this is the layer of MAF: densities of given points are cheap. Its
    :class:`cnflib.Inverse` is that of IAF, whose samples are cheap. Both directions are differentiable.

    Args:
        transform: The family :math:`T`, e.g. :class:`cnflib.discrete.Affine`.
        net: The :class:`MADE`, with ``transform.parameters`` outputs for each coordinate.

    Raises:
        ValueError: If the net has another number of outputs, or ``transform`` is no family of maps.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.

    Example:
        >>> import torch
        >>> from cnflib.discrete import MADE, Affine
        >>> layer = MaskedAutoregressive(Affine(), MADE(3, parameters=2))
        >>> z, logdet = layer(torch.randn(5, 3))
        >>> z.shape, logdet.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, transform: Elementwise, net: MADE) -> None:
        super().__init__()
        check_transform(transform)
        parameters = getattr(net, "parameters_each", None)
        if parameters != transform.parameters:
            raise ValueError(
                f"Expected a net with parameters={transform.parameters}, as the transform needs for each coordinate; "
                f"got {parameters}. Build it by MADE(shape, transform.parameters)."
            )
        self.transform = transform
        self.net = net
        self.event_shape = net.shape

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transform.encode(x, self.net(x, context).to(x.dtype))
        return z, log_slope.flatten(1).sum(1)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        flat = z.flatten(1)
        x, log_slope = self.net.solve(
            lambda i, theta: self.transform.decode(flat[:, i], theta.to(z.dtype)), z.shape[0], context
        )
        return x.reshape(z.shape), log_slope.sum(1)

    def extra_repr(self) -> str:
        return f"transform={self.transform}"
