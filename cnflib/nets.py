r"""Networks: the conditioners of a coupling and the vector field of a continuous flow.

``Conditioner`` and ``MLP`` flatten the event, so they work on vectors and, without any notion of locality, on images;
``ConvNet`` is for images.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jvp, vmap

from cnflib._check import check_declared, check_event, check_features, check_widths, event_shape

__all__ = [
    "MLP",
    "Conditioner",
    "ConvNet",
    "FourierFeatures",
    "Tanh",
    "TimeEmbedding",
    "VectorField",
    "feedforward",
    "intercepted",
    "narrowest",
    "push",
]

VectorField = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A vector field ``f(t, x, context)``: t of shape ``()`` or ``(B,)``, x and the result of shape ``(B, *event)``.

It must act on each row alone: a field that mixes rows (BatchNorm) has no divergence row by row.
"""


class Tanh(nn.Module):
    r"""The activation :math:`\tanh a`, on the CPU as :math:`2 \sigma(2a) - 1`, where torch's sigmoid is much faster.

    The two agree to the rounding of a number near 1, about 1e-7 in float32.
    """

    def forward(self, a: Tensor) -> Tensor:
        """Of any shape."""
        return 2 * torch.sigmoid(2 * a) - 1 if a.is_cpu else torch.tanh(a)


def feedforward(
    inputs: int, outputs: int, hidden: Sequence[int] = (64, 64), activation: Callable[[], nn.Module] = Tanh
) -> nn.Sequential:
    """Linear layers with an activation between them, none after the last.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
        hidden: Widths of the hidden layers; empty gives one linear map.
        activation: Constructor of the activation.
    """
    check_widths(hidden)
    widths = [inputs, *hidden, outputs]
    layers: list[nn.Module] = []
    for width, next_width in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(width, next_width), activation()]
    return nn.Sequential(*layers[:-1])


def narrowest(net: Sequence[nn.Module]) -> int:
    """The number of layers up to and with the linear one of fewest outputs, the last layer left out."""
    widths = {k + 1: layer.out_features for k, layer in enumerate(net[:-1]) if isinstance(layer, nn.Linear)}
    return min(widths, key=widths.__getitem__, default=0)


def intercepted(module: nn.Module) -> bool:
    """Whether a call of the module runs something besides its class's forward: a hook, or a forward of its own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def push(f: Callable[[Tensor], Tensor], h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    r"""Carry a value and its tangents through a map of rows: :math:`(h, \dot h) \mapsto (f(h), f'(h)\,\dot h)`.

    A linear map, and an activation of known slope, takes one more product for each tangent; any other map goes
    through ``torch.func.jvp``.

    Args:
        f: The map, most often a layer of a net.
        h: Value, shape ``(B, *)``.
        dh: Tangents, shape ``(K, B, *)``, or ``(K, 1, *)`` for the same ones in every row.
    """
    if _known(f, _AFFINE):
        return _AFFINE[type(f)](f, h, dh)
    if _known(f, _CURVED):
        return _CURVED[type(f)](f, h, dh)
    h, dh = h.contiguous(), dh.expand(-1, *h.shape).contiguous()
    values, tangents = vmap(lambda v: jvp(f, (h,), (v,)))(dh)
    return values[0], tangents


def _known(f: Callable[[Tensor], Tensor], rules: dict[type, object]) -> bool:
    """Whether a rule says all that the layer does: nothing intercepts it, and it pads with nothing but zeros."""
    return type(f) in rules and not intercepted(f) and getattr(f, "padding_mode", "zeros") == "zeros"


def _linear(layer: nn.Linear, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    y = h @ layer.weight.T
    return y if layer.bias is None else y + layer.bias.to(y.dtype), dh @ layer.weight.T


def _convolution(layer: nn.Conv2d, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    flat = F.conv2d(
        dh.flatten(0, 1), layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return layer(h), flat.unflatten(0, dh.shape[:2])


_AFFINE: dict[type, Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    nn.Identity: lambda layer, h, dh: (h, dh),
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
}
"""Value and tangents after a layer that is affine."""


def _tanh(layer: nn.Module, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    y = layer(a)
    return y, torch.ops.aten.tanh_backward(da, y)  # (1 - y²) da in one pass


def _silu(layer: nn.SiLU, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(a)
    y = a * s
    return y, (s + y * (1 - s)) * da


def _softplus(layer: nn.Softplus, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    return layer(a), torch.sigmoid(layer.beta * a) * da


_CURVED: dict[type, Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    Tanh: _tanh,
    nn.Tanh: _tanh,
    nn.SiLU: _silu,
    nn.Softplus: _softplus,
}
"""Value and tangents after an activation, for the usual ones that are smooth."""


class TimeEmbedding(nn.Module):
    r"""Features of time :math:`(t, \sin \pi k t, \cos \pi k t)_{k \le K}`.

    Args:
        frequencies: The number :math:`K` of frequencies; 0 gives :math:`t` alone.
    """

    def __init__(self, frequencies: int = 0) -> None:
        super().__init__()
        self.features = 1 + 2 * frequencies
        self.register_buffer("rates", math.pi * torch.arange(1.0, frequencies + 1), persistent=False)

    def forward(self, t: Tensor, batch: int) -> Tensor:
        """Embed t of shape ``()`` or ``(B,)`` as ``(B, 1 + 2K)``."""
        t = t.reshape(-1, 1)
        if self.features > 1:
            phase = self.rates * t
            t = torch.cat([t, phase.sin(), phase.cos()], 1)
        return t.expand(batch, -1)


class FourierFeatures(nn.Module):
    r"""Random features :math:`(x, \sin 2\pi F x, \cos 2\pi F x)` that let a small net follow sharp edges.

    The rows of :math:`F` are drawn once, when the module is made, from :math:`N(0, s^2)`, and are saved with it.

    Args:
        dim: Dimension of x.
        frequencies: The number of rows of :math:`F`; 0 gives x alone.
        scale: The standard deviation :math:`s`, in periods per unit of x.

    References:
        Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains, Tancik et al.,
        2020, arXiv:2006.10739.
    """

    def __init__(self, dim: int, frequencies: int = 0, scale: float = 0.5) -> None:
        super().__init__()
        self.features = dim + 2 * frequencies
        self.register_buffer("rates", 2 * math.pi * scale * torch.randn(frequencies, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Features of x of shape ``(B, dim)``, shape ``(B, dim + 2 frequencies)``."""
        phase = x @ self.rates.T
        return torch.cat([x, phase.sin(), phase.cos()], 1)

    def jvp(self, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Features and their tangents along directions of shape ``(K, B, dim)`` or ``(K, 1, dim)``."""
        if self.features == x.shape[1]:
            return x, directions
        phase, rate = x @ self.rates.T, directions @ self.rates.T
        sin, cos = phase.sin(), phase.cos()
        rows = directions.expand(-1, x.shape[0], -1)
        return torch.cat([x, sin, cos], 1), torch.cat([rows, cos * rate, -sin * rate], 2)


class Conditioner(nn.Module):
    r"""A net from an event, and an optional context, to the parameters of another map.

    Its last layer starts at zero, so that a coupling starts as the identity and deep chains train from the first step.

    Args:
        shape: Shape of the input event.
        outputs: Shape of the output event.
        hidden: Widths of the hidden layers.
        context: Number of context features; 0 for none.
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
        check_features(context)
        self.context = context
        self.outputs = event_shape(None, outputs)
        inputs = math.prod(event_shape(None, shape))
        self.net = feedforward(inputs + context, math.prod(self.outputs), hidden, activation)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map x of shape ``(B, *shape)`` to ``(B, *outputs)``."""
        check_declared(context, self.context, "Conditioner")
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
        context: Number of context features; 0 for none.
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
        check_features(context)
        check_widths(hidden)
        if not hidden:
            raise ValueError(
                "Expected at least one hidden layer; got hidden=(). One of 64 channels: hidden=(64,)."
            )
        self.context = context
        sizes = [3, *[1] * (len(hidden) - 1)]
        self.layers = nn.ModuleList(
            nn.Conv2d(n, m, k, padding=k // 2)
            for n, m, k in zip([channels, *hidden[:-1]], hidden, sizes, strict=True)
        )
        self.activation = activation()
        self.last = nn.Conv2d(hidden[-1], outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.shifts = nn.ModuleList(nn.Linear(context, m, bias=False) for m in hidden if context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map x of shape ``(B, channels, H, W)`` to ``(B, outputs, H, W)``."""
        check_declared(context, self.context, "ConvNet")
        for k, layer in enumerate(self.layers):
            x = layer(x)
            if context is not None:
                x = x + self.shifts[k](context.flatten(1))[:, :, None, None]
            x = self.activation(x)
        return self.last(x)


class MLP(nn.Module):
    r"""A vector field :math:`f(t, x, c)` by a fully connected net on :math:`(x, t, c)`.

    With the default activation the field is smooth, and Lipschitz in x with a constant uniform in t, so it
    generates a flow. The net carries tangents along with the value (:meth:`jvp`), which makes divergences cheap.

    Args:
        shape: Shape of the event x; the output has the same.
        hidden: Widths of the hidden layers.
        context: Number of context features; 0 for none.
        time_frequencies: Number of frequencies of the :class:`TimeEmbedding`; 0 appends :math:`t` alone.
        fourier: Number of :class:`FourierFeatures` of x; 0 for none.
        fourier_scale: Their standard deviation, in periods per unit of x.
        activation: Constructor of the activation. A kink (ReLU) breaks the smoothness that the log-determinant needs.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        hidden: Sequence[int] = (64, 64, 64),
        context: int = 0,
        time_frequencies: int = 0,
        fourier: int = 0,
        fourier_scale: float = 0.5,
        activation: Callable[[], nn.Module] = Tanh,
    ) -> None:
        super().__init__()
        check_features(context)
        self.shape = event_shape(None, shape)
        self.context = context
        dim = math.prod(self.shape)
        self.time = TimeEmbedding(time_frequencies)
        self.embed = FourierFeatures(dim, fourier, fourier_scale)
        self.net = feedforward(self.embed.features + self.time.features + context, dim, hidden, activation)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time t of shape ``()`` or ``(B,)`` and x of shape ``(B, *shape)``."""
        self._check(x, context)
        h = self._first(self.embed(x.flatten(1)), t, context)
        for layer in self._rest():
            h = layer(h)
        return h.unflatten(1, self.shape)

    def jvp(self, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        r"""The velocity and :math:`J v` for directions v of shape ``(K, B, *shape)`` or ``(K, 1, *shape)``."""
        self._check(x, context)
        features, dh = self.embed.jvp(x.flatten(1), directions.flatten(2))
        h, dh = self._first(features, t, context), dh @ self.net[0].weight[:, : dh.shape[2]].T
        for layer in self._rest():
            h, dh = push(layer, h, dh)
        return h.unflatten(1, self.shape), dh.unflatten(2, self.shape)

    def factors(
        self, t: Tensor, context: Tensor | None
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        r"""Two maps whose composition is the field: from x into its narrowest hidden layer, and on from there."""
        cut = narrowest(self.net)

        def into(x: Tensor) -> Tensor:
            self._check(x, context)
            return self.net[:cut](self._join(self.embed(x.flatten(1)), t, context))

        return into, lambda h: self.net[cut:](h).unflatten(1, self.shape)

    def _first(self, features: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        """The first layer, of x and of the conditions apart: what time adds is mostly the same in all rows."""
        first, n = self.net[0], features.shape[1]
        if not _known(first, _AFFINE):
            return first(self._join(features, t, context))
        shift = F.linear(self._conditions(t, len(features), context), first.weight[:, n:], first.bias)
        W = first.weight[:, :n]
        return F.linear(features, W, shift[0]) if len(shift) == 1 else features @ W.T + shift

    def _rest(self) -> Iterator[nn.Module]:
        return islice(self.net, 1, None)

    def _join(self, features: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        return torch.cat([features, self._conditions(t, len(features), context).expand(len(features), -1)], 1)

    def _conditions(self, t: Tensor, batch: int, context: Tensor | None) -> Tensor:
        """Features of time and context; one row for all where they are the same for all."""
        if context is None:
            return self.time(t, batch if t.ndim else 1)
        return torch.cat([self.time(t, batch), context.flatten(1)], 1)

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        check_event(x, self.shape)
        check_declared(context, self.context, "MLP")
