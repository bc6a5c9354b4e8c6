"""What a field offers besides its value: tangents and factors, and whether forward mode may be trained through it."""

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from cnflib._field import Uniform
from cnflib.nets import VectorField, intercepted

__all__ = ["check_forward_mode", "factors", "has_tangents", "original"]


def has_tangents(field: VectorField) -> bool:
    r"""Whether a field carries tangents itself, by a method ``jvp(t, x, context, directions)``.

    The method returns the velocity and :math:`J v` for every direction v; :class:`cnflib.nets.MLP` shows one. It counts
    only if it belongs to the ``forward`` in use: a subclass that changes ``forward`` alone, or a module with a forward
    hook anywhere in it or with a layer that :class:`ForwardMode` refuses, has none. A wrapper of another field says by
    an attribute ``carries_tangents`` whether that one has any.
    """
    field = original(field)
    if not getattr(field, "carries_tangents", True):
        return False
    if not isinstance(field, nn.Module):
        return callable(getattr(field, "jvp", None))
    owners = {name: _owner(type(field), name) for name in ("jvp", "forward")}
    own = None not in owners.values() and issubclass(owners["jvp"], owners["forward"])
    return own and not any(intercepted(m) for m in field.modules()) and not any(_untrainable(field))


def factors(
    field: VectorField, t: Tensor, context: Tensor | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    r"""The two parts h and g of a field :math:`f = g \circ h` that offers them.

    Raises:
        ValueError: If the field has no method ``factors(t, context)``, or a module that forward mode is wrong for.
    """
    check_forward_mode(field)
    field = original(field)
    if not hasattr(field, "factors"):
        raise ValueError(
            f"Expected a field with a method factors(t, context) -> (h, g) for Bottleneck(); got "
            f"{type(field).__name__}. Add it, or use Hutchinson()."
        )
    return field.factors(t, context)


def check_forward_mode(field: VectorField) -> None:
    """Refuse a field with modules whose forward-mode derivative torch does not differentiate rightly."""
    refused = sorted({type(module).__name__ for module in _untrainable(original(field))})
    if refused:
        raise ValueError(
            f"Expected a field that forward mode can be trained through; this one contains {', '.join(refused)}, whose "
            "tangents have a wrong gradient in torch. Use reverse mode, e.g. Hutchinson(product=ReverseMode())."
        )


def original(field: VectorField) -> VectorField:
    """The field as it was written, inside of what makes it uniform: tangents, factors and modules are its own."""
    return field.field if isinstance(field, Uniform) else field


def _untrainable(field: VectorField) -> Iterator[nn.Module]:
    kinds = (nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return (m for m in (field.modules() if isinstance(field, nn.Module) else ()) if isinstance(m, kinds))


def _owner(kind: type, name: str) -> type | None:
    """The class that defines the method, None where there is none."""
    return next((c for c in kind.__mro__ if name in vars(c) and c is not nn.Module), None)
