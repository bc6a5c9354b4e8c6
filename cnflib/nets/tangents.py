"""Tangents carried along with a value: what a forward derivative takes through one layer after the other."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import jvp, vmap

from cnflib.nets.layers import Tanh, intercepted

__all__ = ["push"]


def push(f: Callable[[Tensor], Tensor], h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    r"""Carry a value and its tangents through a map of rows: :math:`(h, \dot h) \mapsto (f(h), f'(h)\,\dot h)`.

    A linear map, and an activation of known slope, takes one more product for each tangent; any other map goes
    through ``torch.func.jvp``.

    Args:
        f: The map, most often a layer of a net.
        h: Value, shape ``(B, *)``.
        dh: Tangents, shape ``(K, B, *)``, or ``(K, 1, *)`` for the same ones in every row.
    """
    if type(f) in _RULES and _as_written(f):
        return _RULES[type(f)](f, h, dh)
    h, dh = h.contiguous(), dh.expand(-1, *h.shape).contiguous()
    values, tangents = vmap(lambda v: jvp(f, (h,), (v,)))(dh)
    return values[0], tangents


def _as_written(layer: nn.Module) -> bool:
    """Whether a rule says all that the layer does: nothing intercepts it, and it pads with nothing but zeros."""
    return not intercepted(layer) and getattr(layer, "padding_mode", "zeros") == "zeros"


def _linear(layer: nn.Linear, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    y = h @ layer.weight.T
    return y if layer.bias is None else y + layer.bias.to(y.dtype), dh @ layer.weight.T


def _convolution(layer: nn.Conv2d, h: Tensor, dh: Tensor) -> tuple[Tensor, Tensor]:
    flat = F.conv2d(
        dh.flatten(0, 1), layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return layer(h), flat.unflatten(0, dh.shape[:2])


def _tanh(layer: nn.Module, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    y = layer(a)
    return y, torch.ops.aten.tanh_backward(da, y)  # (1 - y²) da in one pass


def _silu(layer: nn.SiLU, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(a)
    y = a * s
    return y, (s + y * (1 - s)) * da


_RULES: dict[type, Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    nn.Identity: lambda layer, h, dh: (h, dh),
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    Tanh: _tanh,
    nn.Tanh: _tanh,
    nn.SiLU: _silu,
    nn.Softplus: lambda layer, a, da: (layer(a), torch.sigmoid(layer.beta * a) * da),
}
"""Value and tangents after a layer: of the affine ones, and of the usual activations that are smooth."""
