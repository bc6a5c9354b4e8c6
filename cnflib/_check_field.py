"""Checks of vector fields: what they return, and whether they can be differentiated and repeated."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.func import vjp
from torch.nn.utils.spectral_norm import SpectralNorm

from cnflib._check import check_returned

EACH = "One number for each coordinate of x."


def check_velocity(velocity: Tensor, x: Tensor, name: str = "field") -> None:
    """Check that what a field returned at x is a tensor of x's shape."""
    check_returned(velocity, x.shape, f"{name}(t, x, context)", "a tensor", EACH)


def check_differentiable(field: Callable[..., Tensor], t: Tensor, x: Tensor, context: Tensor | None) -> None:
    """Refuse a field whose value changes with x where its derivative is exactly zero in every row."""
    if _is_cut(field, t.detach(), x.detach(), context):
        raise ValueError(
            "Expected field to be differentiable in x; its value changes with x and its derivative is exactly 0. "
            "Look inside it for detach(), .data, torch.no_grad(), rounding, or a sign."
        )


def _is_cut(field: Callable[..., Tensor], t: Tensor, x: Tensor, context: Tensor | None) -> bool:
    with torch.no_grad():
        change = field(t, 1.01 * x + 0.01, context) - field(t, x, context)
    return bool(change.any()) and not vjp(lambda y: field(t, y, context), x)[1](change)[0].any()


def untrainable(field: object) -> Iterator[nn.Module]:
    """The modules of a field whose tangents have a wrong gradient in torch."""
    kinds = (nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return (m for m in (field.modules() if isinstance(field, nn.Module) else ()) if isinstance(m, kinds))


def check_deterministic(field: object) -> None:
    """Refuse modules that, in training mode, draw random numbers, mix rows, or change from call to call."""
    for module in field.modules() if isinstance(field, nn.Module) else ():
        if module.training and (kind := _unsteady(module)):
            raise ValueError(
                f"Expected field to be a function of each row alone; {kind} in training mode draws random numbers, "
                "mixes rows, or changes from call to call. Call .eval() on it, or build the field without it."
            )


_UNSTEADY = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.utils.parametrizations._SpectralNorm,  # a step of power iteration at each call
)


def _unsteady(module: nn.Module) -> str:
    """The name of what in a module makes two equal calls differ in training mode; "" where nothing does."""
    if isinstance(module, _UNSTEADY) and getattr(module, "p", 1):
        return type(module).__name__.removeprefix("_")
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout:
        return f"dropout of {type(module).__name__}"
    hooks = module._forward_pre_hooks.values()
    return next((type(hook).__name__ for hook in hooks if isinstance(hook, SpectralNorm)), "")
