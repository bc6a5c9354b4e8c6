r"""Conditioners: nets from one part of an event to the parameters of a map of the rest.

``Conditioner`` flattens the event, so it works on vectors and, without any notion of locality, on images; ``ConvNet``
is for images.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cnflib._check import check_declared, check_positive_int
from cnflib._check_sizes import check_features, check_widths, event_shape, made_activation
from cnflib.nets.layers import Tanh, feedforward

__all__ = ["Conditioner", "ConvNet"]


class Conditioner(nn.Module):
    r"""A net from an event, and an optional context, to the parameters of another map.

    Its last layer starts at zero, so that a coupling starts as the identity and deep chains train from the first step.

    Args:
        shape: Shape of the input event.
        outputs: Shape of the output event.
        hidden: Widths of the hidden layers.
        context: Number of context features; 0 for none. Labels become features by ``one_hot(labels, k).float()``.
        activation: Constructor of the activation.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        outputs: int | tuple[int, ...],
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: Callable[[], nn.Module] = Tanh,
    ) -> None:
        super().__init__()
        self.context = context = check_features(context)
        self.outputs = event_shape(None, outputs)
        inputs = math.prod(event_shape(None, shape))
        self.net = feedforward(inputs + context, math.prod(self.outputs), hidden, activation)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map x of shape ``(B, *shape)`` to ``(B, *outputs)``."""
        check_declared(context, self.context, "Conditioner", x, rows=True)
        h = x.flatten(1) if context is None else torch.cat([x.flatten(1), context.flatten(1)], 1)
        return self.net(h).reshape(-1, *self.outputs)


class ConvNet(nn.Module):
    r"""A convolutional net from an image, and an optional context, to as large an image of parameters.

    Convolutions of 3 × 3 first and last, of 1 × 1 between them. A context gives every hidden layer one bias a
    channel, the same at every pixel. The last layer starts at zero, as in :class:`Conditioner`.

    Args:
        channels: Channels of the input.
        outputs: Channels of the output.
        hidden: Channels of the hidden layers, at least one layer.
        context: Number of context features; 0 for none. Labels become features by ``one_hot(labels, k).float()``.
        activation: Constructor of the activation.

    Raises:
        ValueError: If there is no hidden layer.

    References:
        Glow: Generative Flow with Invertible 1x1 Convolutions, Kingma & Dhariwal, 2018, arXiv:1807.03039.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        hidden, context = check_widths(hidden, least=1), check_features(context)
        channels, outputs = (check_positive_int(n, "channels and outputs") for n in (channels, outputs))
        self.context = context
        sizes = [3, *[1] * (len(hidden) - 1)]
        self.layers = nn.ModuleList(
            nn.Conv2d(n, m, k, padding=k // 2)
            for n, m, k in zip([channels, *hidden[:-1]], hidden, sizes, strict=True)
        )
        self.activation = made_activation(activation)
        self.last = nn.Conv2d(hidden[-1], outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.shifts = nn.ModuleList(nn.Linear(context, m, bias=False) for m in hidden if context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map x of shape ``(B, channels, H, W)`` to ``(B, outputs, H, W)``."""
        check_declared(context, self.context, "ConvNet", x, rows=True)
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if context is not None:
                x = x + self.shifts[k](context.flatten(1))[:, :, None, None]
            x = self.activation(x)
        return self.last(x)
