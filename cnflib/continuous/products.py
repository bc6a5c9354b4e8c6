r"""Products of a field's Jacobian :math:`J = \partial f / \partial x` with given directions.

Every divergence and cost is made of them. A product is called as ``product(field, t, x, context, directions)`` with
directions of shape ``(K, B, *event)``, or ``(K, 1, *event)`` for the same ones in every row, and returns the velocity
``(B, *event)`` and the products ``(K, B, *event)``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.func import vjp, vmap

from cnflib._check import check_velocity
from cnflib._field import uniform
from cnflib._settings import compact_repr
from cnflib.continuous._tangents import check_forward_mode, has_tangents, original
from cnflib.nets import VectorField, push

__all__ = ["Automatic", "ForwardMode", "Product", "ReverseMode"]

Product = Callable[[VectorField, Tensor, Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]
"""``product(field, t, x, context, directions) -> (velocity, products)``.

One that has a method ``chosen(field) -> product`` is asked for it once a solve.
"""


@dataclass(frozen=True, repr=False)
class Automatic:
    r"""The faster product: :math:`J v` by the field's own tangents where it has them, else :math:`J^\top v`.

    Value and tangents come in one forward pass, which a training step differentiates once; reverse mode it
    differentiates twice. ``torch.func.jvp`` of a field without tangents of its own was measured slower than either.

    Example:
        >>> import torch
        >>> from cnflib.nets import MLP
        >>> x, directions = torch.randn(5, 2), torch.ones(1, 5, 2)
        >>> velocity, products = Automatic()(MLP(2), torch.tensor(0.5), x, None, directions)
        >>> velocity.shape, products.shape
        (torch.Size([5, 2]), torch.Size([1, 5, 2]))
    """

    __repr__ = compact_repr

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The velocity and the products, by the field's tangents or in reverse mode."""
        return self.chosen(field)(field, t, x, context, directions)

    def chosen(self, field: VectorField) -> Product:
        """The product that is the faster one for a field, for all calls of a solve."""
        return _by_tangents if has_tangents(field) else _REVERSE


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
        return self.chosen(field)(field, t, x, context, directions)

    def chosen(self, field: VectorField) -> Product:
        """The way to :math:`J v` for a field, for all calls of a solve."""
        if has_tangents(field):
            return _by_tangents
        check_forward_mode(field)
        return _by_jvp


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
    velocity, products = original(field).jvp(t, x, context, directions)
    check_velocity(velocity, x)
    if products.shape not in [(len(directions), rows, *x.shape[1:]) for rows in (1, len(x))]:
        raise ValueError(
            f"Expected field.jvp(t, x, context, directions) to return products of shape "
            f"{(len(directions), *x.shape)}, one for each direction and row; got {tuple(products.shape)}."
        )
    return velocity.to(x.dtype), products.to(x.dtype).expand(-1, *x.shape)


def _by_jvp(
    field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
) -> tuple[Tensor, Tensor]:
    return push(_at(field, t, x, context), x, directions)


def _at(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Callable[[Tensor], Tensor]:
    field = uniform(field)

    def velocity(y: Tensor) -> Tensor:
        v = field(t, y, context)
        check_velocity(v, x)
        return v.to(x.dtype)

    return velocity
