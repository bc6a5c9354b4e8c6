r"""Vector fields in which time acts on every layer: concat, concat-squash, convolutional.

Every hidden layer is an affine map of the layer before, modulated by features u of time and context,

.. math:: a = (W h + b) \odot \sigma(G u + g) + H u,

with the gate :math:`\sigma(\cdot)` in concat-squash and 1 in its place in concat.

References:
    FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cnflib._check_sizes import check_features, check_widths, event_shape, made_activation
from cnflib.nets import Tanh, TimeEmbedding, push
from cnflib.nets.embeddings import conditions

__all__ = ["ModulatedNet", "concat", "concat_squash", "convolutional"]


class _Modulated(nn.Module):
    """An affine map of h, scaled by a gate and shifted by features u."""

    def __init__(self, affine: nn.Linear | nn.Conv2d, features: int, gated: bool) -> None:
        super().__init__()
        width = affine.weight.shape[0]
        self.affine = affine
        self.gate = nn.Linear(features, width) if gated else None
        self.shift = nn.Linear(features, width, bias=False)

    def forward(self, h: Tensor, u: Tensor) -> Tensor:
        return self._scale(self.affine(h), u) + self._spread(self.shift(u), h)

    def jvp(self, h: Tensor, dh: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        a, da = push(self.affine, h, dh)
        return self._scale(a, u) + self._spread(self.shift(u), h), self._scale(da, u)

    def _scale(self, a: Tensor, u: Tensor) -> Tensor:
        return a if self.gate is None else a * self._spread(torch.sigmoid(self.gate(u)), a)

    def _spread(self, v: Tensor, like: Tensor) -> Tensor:
        """Numbers a channel ``(rows, C)`` as ``(rows, C, 1, 1)`` for images."""
        return v if isinstance(self.affine, nn.Linear) else v[..., None, None]


class ModulatedNet(nn.Module):
    r"""A vector field of affine layers modulated by time and context, with an activation between them.

    Made by :func:`concat`, :func:`concat_squash` and :func:`convolutional`. With a smooth activation of bounded slope
    it is smooth and Lipschitz in x, so it generates a flow.

    Args:
        shape: Shape of the event x.
        affine: Affine layers, from first to last.
        context: Number of context features; 0 for none.
        gated: Whether time scales a layer (concat-squash) or only shifts it (concat).
        activation: Constructor of the activation.

    Example:
        >>> import torch
        >>> field = ModulatedNet(
        ...     (4,),
        ...     [torch.nn.Linear(4, 8), torch.nn.Linear(8, 4)],
        ...     0,
        ...     True,
        ...     torch.nn.Tanh,
        ... )
        >>> field(torch.tensor(0.5), torch.randn(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        affine: Sequence[nn.Linear | nn.Conv2d],
        context: int,
        gated: bool,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.shape, self.context = shape, check_features(context)
        self.time = TimeEmbedding()
        self.layers = nn.ModuleList(_Modulated(a, self.time.features + self.context, gated) for a in affine)
        self.activation = made_activation(activation)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time t of shape ``()`` or ``(B,)`` and x of shape ``(B, *shape)``."""
        u = conditions(self, t, x, context)
        return self._run(self.layers, self._rows(x), u).reshape(x.shape)

    def jvp(self, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        r"""The velocity and :math:`J v` for directions v of shape ``(K, B, *shape)`` or ``(K, 1, *shape)``."""
        u = conditions(self, t, x, context)
        h = self._rows(x)
        dh = directions.reshape(*directions.shape[:2], *h.shape[1:])
        for layer in self.layers[:-1]:
            h, dh = push(self.activation, *layer.jvp(h, dh, u))
        h, dh = self.layers[-1].jvp(h, dh, u)
        return h.reshape(x.shape), dh.reshape(len(dh), -1, *self.shape)

    def factors(
        self, t: Tensor, context: Tensor | None
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        r"""Two maps whose composition is the field: from x into its narrowest hidden layer, and on from there."""
        widths = [layer.affine.weight.shape[0] for layer in self.layers[:-1]]
        cut = 1 + widths.index(min(widths)) if widths else 0

        def into(x: Tensor) -> Tensor:
            u = conditions(self, t, x, context)
            return self._run(self.layers[:cut], self._rows(x), u) if cut else self._rows(x)

        def on(h: Tensor) -> Tensor:
            u = conditions(self, t, h, context)
            h = self.activation(h) if cut else h
            return self._run(self.layers[cut:], h, u).reshape(-1, *self.shape)

        return into, on

    def _run(self, layers: nn.ModuleList, h: Tensor, u: Tensor) -> Tensor:
        for layer in layers[:-1]:
            h = self.activation(layer(h, u))
        return layers[-1](h, u)

    def _rows(self, x: Tensor) -> Tensor:
        return x.flatten(1) if isinstance(self.layers[0].affine, nn.Linear) else x


def concat(
    shape: int | tuple[int, ...],
    hidden: Sequence[int] = (64, 64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = Tanh,
) -> ModulatedNet:
    r"""FFJORD's concat field: time and context are appended to the input of every layer.

    Args:
        shape: Shape of the event x, flattened for the net.
        hidden: Widths of the hidden layers.
        context: Number of context features; 0 for none.
        activation: Constructor of the activation; a kink breaks the smoothness that the log-determinant needs.

    Example:
        >>> import torch
        >>> concat(2, hidden=(16, 16))(torch.tensor(0.5), torch.randn(5, 2)).shape
        torch.Size([5, 2])
    """
    return _dense(shape, hidden, context, False, activation)


def concat_squash(
    shape: int | tuple[int, ...],
    hidden: Sequence[int] = (64, 64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = Tanh,
) -> ModulatedNet:
    r"""FFJORD's concat-squash field: a gate of time and context scales every layer, and a shift is added.

    Args:
        shape: Shape of the event x, flattened for the net.
        hidden: Widths of the hidden layers.
        context: Number of context features; 0 for none.
        activation: Constructor of the activation; a kink breaks the smoothness that the log-determinant needs.

    Example:
        >>> import torch
        >>> field = concat_squash(2, hidden=(16, 16), context=3)
        >>> field(torch.tensor(0.5), torch.randn(5, 2), torch.randn(5, 3)).shape
        torch.Size([5, 2])
    """
    return _dense(shape, hidden, context, True, activation)


def convolutional(
    shape: tuple[int, int, int],
    channels: Sequence[int] = (64, 64, 64),
    kernel: int = 3,
    context: int = 0,
    gated: bool = True,
    activation: Callable[[], nn.Module] = nn.Softplus,
) -> ModulatedNet:
    r"""A field on images: convolutions that keep height and width, modulated by time channel by channel.

    Args:
        shape: Shape ``(C, H, W)`` of the event.
        channels: Channels of the hidden layers.
        kernel: Side of every kernel, odd; edges are padded with zeros.
        context: Number of context features; 0 for none.
        gated: Whether time scales a channel (concat-squash) or only shifts it (concat).
        activation: Constructor of the activation.

    Raises:
        ValueError: If the event has not three axes.

    Example:
        >>> import torch
        >>> convolutional((1, 8, 8), channels=(4,))(
        ...     torch.tensor(0.5), torch.randn(5, 1, 8, 8)
        ... ).shape
        torch.Size([5, 1, 8, 8])
    """
    event = event_shape(None, shape)
    if len(event) != 3:
        raise ValueError(f"Expected shape (C, H, W); got {event}. For vectors use concat_squash(shape).")
    widths = [event[0], *check_widths(channels), event[0]]
    layers = [
        nn.Conv2d(a, b, kernel, padding=kernel // 2) for a, b in zip(widths[:-1], widths[1:], strict=True)
    ]
    return ModulatedNet(event, layers, context, gated, activation)


def _dense(
    shape: int | tuple[int, ...],
    hidden: Sequence[int],
    context: int,
    gated: bool,
    activation: Callable[[], nn.Module],
) -> ModulatedNet:
    event = event_shape(None, shape)
    widths = [math.prod(event), *check_widths(hidden), math.prod(event)]
    layers = [nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)]
    return ModulatedNet(event, layers, context, gated, activation)
