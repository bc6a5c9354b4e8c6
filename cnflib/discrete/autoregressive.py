r"""Autoregressive layers: each coordinate is mapped with parameters computed from those before it.

.. math:: z_i = T(x_i; \theta_i(x_{<i}, c)), \qquad
    \log |\det \partial z / \partial x| = \sum_i \log \partial_x T(x_i; \theta_i(x_{<i}, c))

One net with masked weights, the MADE, gives all :math:`\theta_i` in one pass, so :math:`z` costs one pass. The inverse
goes coordinate by coordinate. The order of the coordinates is that of the units in every layer too, so each unit of the
net is computed once, as soon as what it sees is known: all D steps together cost about as much arithmetic as one pass.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from cnflib._check import check_context, check_declared, check_event, check_like, event_shape
from cnflib.bijection import Bijection
from cnflib.discrete.elementwise import Elementwise

__all__ = ["MADE", "MaskedAutoregressive"]


class MADE(nn.Module):
    r"""A fully connected net with masked weights: output i depends on the inputs before i, and on a context.

    Every unit has a degree d and sees the units of the layer below whose degree is at most d; a hidden unit of degree
    d thereby sees the inputs of rank below d, and output i the hidden units of degree at most i. Degrees ascend from
    the first unit to the last. Where there is a context, degree 0 sees that alone. The last layer starts at zero.

    Args:
        shape: The event shape of x, of D numbers in the order in which they lie in memory.
        parameters: The number P of outputs for each coordinate.
        hidden: Widths of the hidden layers, at least one; a width below D - 1 leaves out some degrees.
        context: Number of context features; 0 for none.
        reverse: Take the coordinates from the last to the first.
        activation: Constructor of the activation.

    Raises:
        ValueError: If there is no hidden layer.

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
        if not hidden:
            raise ValueError("Expected at least one hidden layer; got hidden=(). Pass e.g. hidden=(64,).")
        self.shape, self.parameters_each, self.context = event_shape(None, shape), parameters, context
        dim = math.prod(self.shape)
        self.layers = nn.ModuleList(map(nn.Linear, [dim, *hidden[:-1]], hidden))
        self.last = nn.Linear(hidden[-1], dim * parameters)
        self.condition = nn.Linear(context, hidden[0], bias=False) if context else None
        self.activation = activation()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        rank = torch.arange(dim)
        lowest = 0 if context or dim == 1 else 1
        degrees = [torch.linspace(lowest, dim - 1, width).round().long() for width in hidden]
        self.known = [torch.searchsorted(d, rank, right=True).tolist() for d in degrees]
        self.register_buffer("rank", rank.flip(0) if reverse else rank, persistent=False)
        seen = [
            self.rank + 1,
            *degrees,
        ]  # a unit sees those of the layer below for which this is at most its degree
        for k, (below, above) in enumerate(zip(seen, degrees)):
            self.register_buffer(f"mask{k}", above[:, None] >= below, persistent=False)
        self.register_buffer("mask", (self.rank[:, None] >= seen[-1]).repeat(parameters, 1), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters for x of shape ``(B, *shape)``, shape ``(B, P, *shape)``."""
        check_declared(context, self.context, "MADE")
        h = x.flatten(1)
        for k, layer in enumerate(self.layers):
            h = F.linear(h, layer.weight * getattr(self, f"mask{k}"), layer.bias)
            h = self.activation(h if k or context is None else h + self.condition(context.flatten(1)))
        theta = F.linear(h, self.last.weight * self.mask, self.last.bias)
        return theta.unflatten(1, (self.parameters_each, *self.shape))

    def solve(
        self, pick: Callable[[int, Tensor], tuple[Tensor, Tensor]], batch: int, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Find x coordinate by coordinate, each from the parameters that those before it give.

        Args:
            pick: ``pick(i, theta)`` gives coordinate i of x from its parameters of shape ``(B, P)``, and a second
                number, both of shape ``(B,)``.
            batch: The number B of rows.
            context: Shape ``(B, features)``.

        Returns:
            x and the second numbers, of shape ``(B, D)``.
        """
        check_declared(context, self.context, "MADE")
        order = self.rank.argsort()
        inputs = self.layers[0].weight[:, order]  # columns in the order in which x becomes known
        weights = [inputs, *(layer.weight for layer in self.layers[1:])]
        biases = [layer.bias[:, None].expand(-1, batch) for layer in self.layers]
        if context is not None:
            biases[0] = biases[0] + self.condition(context.flatten(1)).T
        last = self.last.weight.unflatten(0, (self.parameters_each, -1))
        shift = self.last.bias.unflatten(0, (self.parameters_each, -1))
        x = inputs.new_empty(0, batch)
        hidden = [
            x for _ in self.layers
        ]  # (units, B): what is known of each layer, one block below the other
        found = []
        for step, i in enumerate(order.tolist()):
            below = x
            for k, (weight, bias) in enumerate(zip(weights, biases)):
                old, new = len(hidden[k]), self.known[k][step]
                if new > old:
                    a = torch.addmm(bias[old:new], weight[old:new, : len(below)], below)
                    hidden[k] = torch.cat([hidden[k], self.activation(a)])
                below = hidden[k]
            theta = torch.addmm(shift[:, i : i + 1], last[:, i, : len(below)], below)
            found.append(pick(i, theta.T))
            x = torch.cat([x, found[-1][0][None]])
        points, numbers = (torch.stack(column, 1) for column in zip(*found))
        return points[:, self.rank], numbers[:, self.rank]


class MaskedAutoregressive(Bijection):
    r"""The masked autoregressive layer, :math:`z_i = T(x_i; \theta_i(x_{<i}, c))`: one pass forward, D steps back.

    With the affine family this is the layer of MAF: densities of given points are cheap. Its
    :class:`cnflib.Inverse` is that of IAF, whose samples are cheap. Both directions are differentiable.

    Args:
        transform: The family :math:`T`, e.g. :func:`cnflib.discrete.affine`.
        net: The :class:`MADE`, with ``transform.parameters`` outputs for each coordinate.

    Raises:
        ValueError: If the net has another number of outputs.

    References:
        Masked Autoregressive Flow for Density Estimation, Papamakarios et al., 2017, arXiv:1705.07057.
        Improving Variational Inference with Inverse Autoregressive Flow, Kingma et al., 2016, arXiv:1606.04934.

    Example:
        >>> import torch
        >>> from cnflib.discrete import MADE, affine
        >>> layer = MaskedAutoregressive(affine(), MADE(3, parameters=2))
        >>> z, logdet = layer(torch.randn(5, 3))
        >>> z.shape, logdet.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, transform: Elementwise, net: MADE) -> None:
        super().__init__()
        if net.parameters_each != transform.parameters:
            raise ValueError(
                f"Expected a net with parameters={transform.parameters}, as the transform needs for each coordinate; "
                f"got {net.parameters_each}. Build it by MADE(shape, transform.parameters)."
            )
        self.transform = transform
        self.net = net

    def forward(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(x, context, "x")
        z, log_slope = self.transform.forward(x, self.net(x, context))
        return z, log_slope.flatten(1).sum(1)

    def inverse(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self._check(z, context, "z")
        flat = z.flatten(1)
        x, log_slope = self.net.solve(
            lambda i, theta: self.transform.inverse(flat[:, i], theta), len(z), context
        )
        return x.reshape(z.shape), log_slope.sum(1)

    def _check(self, x: Tensor, context: Tensor | None, name: str) -> None:
        check_event(x, self.net.shape, name)
        check_like(x, self.net.last.weight, name, "MaskedAutoregressive")
        check_context(context, x, name)
