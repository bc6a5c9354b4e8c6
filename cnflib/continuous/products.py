r"""Products of a field's Jacobian :math:`J = \partial f / \partial x` with given directions.

Every divergence and cost is made of them. A product is called as ``product(field, t, x, context, directions)`` with
directions of shape ``(K, B, *event)``, or ``(K, 1, *event)`` for the same ones in every row, and returns the velocity
``(B, *event)`` and the products ``(K, B, *event)``.
"""

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.func import vjp, vmap

from cnflib._check import check_velocity
from cnflib.nets import VectorField, intercepted, push

__all__ = [
    "Product",
    "automatic",
    "check_forward_mode",
    "factors",
    "forward_mode",
    "has_tangents",
    "reverse_mode",
    "settled",
]

Product = Callable[[VectorField, Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]
"""``product(field, t, x, context, directions) -> (velocity, products)``."""


def has_tangents(field: VectorField) -> bool:
    r"""Whether a field carries tangents itself, by a method ``jvp(t, x, context, directions)``.

    The method returns the velocity and :math:`J v` for every direction v; :class:`cnflib.nets.MLP` shows one. It counts
    only if it belongs to the ``forward`` in use: a subclass that changes ``forward`` alone, or a module with a forward
    hook anywhere in it or with a layer that :func:`forward_mode` refuses, has none. A wrapper of another field says by
    an attribute ``carries_tangents`` whether that one has any.
    """
    if not getattr(field, "carries_tangents", True):
        return False
    if not isinstance(field, nn.Module):
        return callable(getattr(field, "jvp", None))
    owners = {name: _owner(type(field), name) for name in ("jvp", "forward")}
    own = None not in owners.values() and issubclass(owners["jvp"], owners["forward"])
    return own and not any(intercepted(m) for m in field.modules()) and not any(_untrainable(field))


def automatic(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The faster product: :math:`J v` by the field's own tangents where it has them, else :math:`J^\top v`.

    Value and tangents come in one forward pass, which a training step differentiates once; reverse mode it
    differentiates twice. ``torch.func.jvp`` of a field without tangents of its own was measured slower than either.
    """
    return _automatic(field)(field, t, x, context, directions)


def settled(product: Product) -> Product:
    """The product for one solve of one field: :func:`automatic` looks at the field once and keeps to its choice."""
    chosen: list[Product] = []

    def keeping(
        field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not chosen:
            chosen.append(_automatic(field))
        return chosen[0](field, t, x, context, directions)

    return keeping if product is automatic else product


def forward_mode(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Jacobian-vector products :math:`J v`: the field's own tangents, or ``torch.func.jvp``.

    In torch 2.13 ``torch.func.jvp`` of layer and instance normalisation, and of ``torch.linalg.solve``, is right but
    its gradient is not. Modules of that kind are refused; :func:`cnflib.audit.audit_gradients` finds the rest.

    Raises:
        ValueError: If the field does not return a tensor of x's shape, or has a module that cannot be trained so.
    """
    if has_tangents(field):
        return _by_tangents(field, t, x, context, directions)
    check_forward_mode(field)
    return push(_at(field, t, x, context), x, directions)


def reverse_mode(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Vector-Jacobian products :math:`J^\top v` by ``torch.func.vjp``.

    A training step differentiates them once more. On the CPU torch's fused attention cannot do that: run it in the
    field under ``sdpa_kernel(SDPBackend.MATH)`` of ``torch.nn.attention``.

    Raises:
        ValueError: If the field does not return a tensor of x's shape.
    """
    velocity, pull = vjp(_at(field, t, x, context), x)
    rows = directions.expand(-1, *x.shape)
    if len(rows) == 1:
        return velocity, pull(rows[0])[0][None]
    return velocity, vmap(pull)(rows)[0]


def factors(
    field: VectorField, t: Tensor, context: Tensor | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    r"""The two parts h and g of a field :math:`f = g \circ h` that offers them.

    Raises:
        ValueError: If the field has no method ``factors(t, context)``, or a module that forward mode is wrong for.
    """
    check_forward_mode(field)
    if not hasattr(field, "factors"):
        raise ValueError(
            f"Expected a field with a method factors(t, context) -> (h, g) for bottleneck(); got "
            f"{type(field).__name__}. Add it, or use hutchinson()."
        )
    return field.factors(t, context)


def _automatic(field: VectorField) -> Product:
    return _by_tangents if has_tangents(field) else reverse_mode


def _by_tangents(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    velocity, products = field.jvp(t, x, context, directions)
    check_velocity(velocity, x)
    if products.shape not in [(len(directions), rows, *x.shape[1:]) for rows in (1, len(x))]:
        raise ValueError(
            f"Expected field.jvp(t, x, context, directions) to return products of shape "
            f"{(len(directions), *x.shape)}, one for each direction and row; got {tuple(products.shape)}."
        )
    return velocity.to(x.dtype), products.to(x.dtype).expand(-1, *x.shape)


def check_forward_mode(field: VectorField) -> None:
    """Refuse a field with modules whose forward-mode derivative torch does not differentiate rightly."""
    refused = sorted({type(module).__name__ for module in _untrainable(field)})
    if refused:
        raise ValueError(
            f"Expected a field that forward mode can be trained through; this one contains {', '.join(refused)}, whose "
            "tangents have a wrong gradient in torch. Use reverse_mode, e.g. hutchinson(product=reverse_mode)."
        )


def _untrainable(field: VectorField) -> Iterator[nn.Module]:
    kinds = (nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
    return (m for m in (field.modules() if isinstance(field, nn.Module) else ()) if isinstance(m, kinds))


def _at(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Callable[[Tensor], Tensor]:
    def velocity(y: Tensor) -> Tensor:
        v = field(t, y, context)
        check_velocity(v, x)
        return v.to(x.dtype)

    return velocity


def _owner(kind: type, name: str) -> type | None:
    """The class that defines the method, None where there is none."""
    return next((c for c in kind.__mro__ if name in vars(c) and c is not nn.Module), None)
