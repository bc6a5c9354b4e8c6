r"""Products of a field's Jacobian :math:`J = \partial f / \partial x` with given directions.

Every divergence and cost is made of them. A product is called as ``product(field, t, x, context, directions)`` with
directions of shape ``(K, B, *event)``, or ``(K, 1, *event)`` for the same ones in every row, and returns the velocity
``(B, *event)`` and the products ``(K, B, *event)``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import vjp, vmap

from cnflib._check_field import check_velocity, untrainable
from cnflib._field import Uniform, uniform
from cnflib._settings import compact_repr
from cnflib.nets import VectorField, intercepted, push

__all__ = [
    "Automatic",
    "ForwardMode",
    "Product",
    "ReverseMode",
    "check_forward_mode",
    "dot",
    "factors",
    "has_tangents",
]

Product = Callable[[VectorField, Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]
"""``product(field, t, x, context, directions) -> (velocity, products)``."""


@dataclass(frozen=True, repr=False)
class Automatic:
    r"""The faster product: :math:`J v` by the field's own tangents where it has them, else :math:`J^\top v`.

    Value and tangents come in one forward pass, which a training step differentiates once; reverse mode it
    differentiates twice. ``torch.func.jvp`` of a field without tangents of its own was measured slower than either.

    Example:
        >>> import torch
        >>> from cnflib.nets import MLP
        >>> x, directions = torch.randn(5, 2), torch.ones(1, 5, 2)
        >>> velocity, products = Automatic()(
        ...     MLP(2), torch.tensor(0.5), x, None, directions
        ... )
        >>> velocity.shape, products.shape
        (torch.Size([5, 2]), torch.Size([1, 5, 2]))
    """

    __repr__ = compact_repr

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The velocity and the products, by the field's tangents or in reverse mode."""
        product = _by_tangents if _once(has_tangents, field) else _REVERSE
        return product(field, t, x, context, directions)


@dataclass(frozen=True, repr=False)
class ForwardMode:
    r"""Jacobian-vector products :math:`J v`: the field's own tangents, or ``torch.func.jvp``.

    In torch 2.13 ``torch.func.jvp`` of layer and instance normalisation, and of ``torch.linalg.solve``, is right but
    its gradient is not. Modules of that kind are refused; :func:`cnflib.audit.audit_gradients` finds the rest.

    Raises:
        ValueError: When called, if the field does not return a tensor of x's shape, or has a module that cannot be
            trained so.

    Example:
        >>> from cnflib.continuous import Hutchinson
        >>> Hutchinson(product=ForwardMode())
        Hutchinson(product=ForwardMode())
    """

    __repr__ = compact_repr

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""The velocity and :math:`J v` for every direction v."""
        if _once(has_tangents, field):
            return _by_tangents(field, t, x, context, directions)
        _once(check_forward_mode, field)
        return push(_at(field, t, x, context), x, directions)


@dataclass(frozen=True, repr=False)
class ReverseMode:
    r"""Vector-Jacobian products :math:`J^\top v` by ``torch.func.vjp``.

    A training step differentiates them once more. On the CPU torch's fused attention cannot do that: run it in the
    field under ``sdpa_kernel(SDPBackend.MATH)`` of ``torch.nn.attention``.

    Raises:
        ValueError: When called, if the field does not return a tensor of x's shape.

    Example:
        >>> from cnflib.continuous import Exact
        >>> Exact(ReverseMode())
        Exact(product=ReverseMode())
    """

    __repr__ = compact_repr

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""The velocity and :math:`J^\top v` for every direction v."""
        velocity, pull = vjp(_at(field, t, x, context), x)
        rows = directions.expand(-1, *x.shape)
        if len(rows) == 1:
            return velocity, pull(rows[0])[0][None]
        return velocity, vmap(pull)(rows)[0]


_REVERSE = ReverseMode()


def _by_tangents(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    velocity, products = _original(field).jvp(t, x, context, directions)
    check_velocity(velocity, x)
    if len(products) != len(directions) or products.shape[2:] != x.shape[1:]:
        raise ValueError(
            f"Expected field.jvp(t, x, context, directions) to return products of shape "
            f"{(len(directions), *x.shape)}, one for each direction and row; got {tuple(products.shape)}."
        )
    return velocity.to(x.dtype), products.to(x.dtype).expand(-1, *x.shape)


def _once(question: Callable[[VectorField], object], field: VectorField) -> object:
    """What a question to a field finds, asked once a solve: it goes through all modules of the field."""
    if not isinstance(field, Uniform):
        return question(field)
    if question.__name__ not in field.found:
        field.found[question.__name__] = question(field)
    return field.found[question.__name__]


def _at(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Callable[[Tensor], Tensor]:
    field = uniform(field)

    def velocity(y: Tensor) -> Tensor:
        v = field(t, y, context)
        check_velocity(v, x)
        return v.to(x.dtype)

    return velocity


def has_tangents(field: VectorField) -> bool:
    r"""Whether a field carries tangents itself, by a method ``jvp(t, x, context, directions)``.

    The method returns the velocity and :math:`J v` for every direction v; :class:`cnflib.nets.MLP` shows one. It counts
    only if it belongs to the ``forward`` in use: a subclass that changes ``forward`` alone, or a module with a forward
    hook anywhere in it or with a layer that :class:`ForwardMode` refuses, has none. A wrapper of another field says by
    an attribute ``carries_tangents`` whether that one has any.

    Example:
        >>> from cnflib.nets import MLP
        >>> has_tangents(MLP(2)), has_tangents(lambda t, x: -x)
        (True, False)
    """
    field = _original(field)
    if not getattr(field, "carries_tangents", True):
        return False
    if not isinstance(field, nn.Module):
        return callable(getattr(field, "jvp", None))
    owners = {name: _owner(type(field), name) for name in ("jvp", "forward")}
    own = None not in owners.values() and issubclass(owners["jvp"], owners["forward"])
    return own and not any(intercepted(m) for m in field.modules()) and not any(untrainable(field))


def factors(
    field: VectorField, t: Tensor, context: Tensor | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    r"""The two parts h and g of a field :math:`f = g \circ h` that offers them.

    Raises:
        ValueError: If the field has no method ``factors(t, context)``, or a module that forward mode is wrong for.

    Example:
        >>> import torch
        >>> from cnflib.nets import MLP
        >>> field, t, x = (
        ...     MLP(8, hidden=(32, 4, 32)),
        ...     torch.tensor(0.5),
        ...     torch.randn(5, 8),
        ... )
        >>> h, g = factors(field, t, None)
        >>> h(x).shape, torch.allclose(g(h(x)), field(t, x))
        (torch.Size([5, 4]), True)
    """
    check_forward_mode(field)
    field = _original(field)
    if not hasattr(field, "factors"):
        raise ValueError(
            f"Expected a field with a method factors(t, context) -> (h, g) for Bottleneck(); got "
            f"{type(field).__name__}. Add it, or use Hutchinson()."
        )
    return field.factors(t, context)


def check_forward_mode(field: VectorField) -> None:
    """Refuse a field with modules whose forward-mode derivative torch does not differentiate rightly.

    Example:
        >>> from cnflib.nets import MLP
        >>> check_forward_mode(MLP(2))
    """
    refused = sorted({type(module).__name__ for module in untrainable(_original(field))})
    if refused:
        raise ValueError(
            f"Expected a field that forward mode can be trained through; this one contains {', '.join(refused)}, whose "
            "tangents have a wrong gradient in torch. Use reverse mode, e.g. Hutchinson(product=ReverseMode())."
        )


def _original(field: VectorField) -> VectorField:
    """The field as it was written, inside of what makes it uniform: tangents, factors and modules are its own."""
    return field.field if isinstance(field, Uniform) else field


def _owner(kind: type, name: str) -> type | None:
    """The class that defines the method, None where there is none."""
    return next((c for c in kind.__mro__ if name in vars(c) and c is not nn.Module), None)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over the event of two stacks ``(K, B, *event)``, shape ``(K, B)``.

    Example:
        >>> import torch
        >>> dot(torch.ones(2, 5, 3), torch.ones(2, 5, 3)).shape
        torch.Size([2, 5])
    """
    return (a * b).flatten(2).sum(2)
