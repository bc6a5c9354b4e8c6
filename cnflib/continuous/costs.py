r"""Costs of a path, integrated over :math:`|dt|` beside the state: what regularised dynamics penalise.

References:
    How to train your neural ODE, Finlay et al., 2020, arXiv:2002.02798;
    Learning Differential Equations that are Easy to Solve, Kelly et al., 2020, arXiv:2007.04504.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from cnflib._check import check_positive_int
from cnflib._field import uniform
from cnflib._settings import compact_repr
from cnflib.continuous.divergence import Local
from cnflib.continuous.products import check_forward_mode
from cnflib.nets import VectorField

__all__ = ["Cost", "JacobianFrobenius", "KineticEnergy", "PathDerivative"]

Cost = Callable[[VectorField, Tensor, Tensor, Tensor | None, Local], Tensor]
"""``cost(field, t, x, context, local) -> (B,)``, a rate per unit of time."""


@dataclass(frozen=True, repr=False)
class KineticEnergy:
    r"""The rate :math:`|f(t, x)|^2`, squared data units per unit of time squared.

    Example:
        >>> import torch
        >>> from cnflib.continuous import CNF
        >>> cnf = CNF(lambda t, x: torch.ones_like(x), costs=(KineticEnergy(),))
        >>> cnf.solve(torch.zeros(1, 3), 0.0, 1.0).costs
        (tensor([3.]),)
    """

    __repr__ = compact_repr

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, local: Local
    ) -> Tensor:
        """The rate, shape ``(B,)``."""
        return local.velocity.square().flatten(1).sum(1)


@dataclass(frozen=True, repr=False)
class JacobianFrobenius:
    r"""The rate :math:`|J|_F^2`, from the products that gave the divergence.

    Example:
        >>> import torch
        >>> from cnflib.continuous import CNF
        >>> cnf = CNF(lambda t, x: -x, costs=(JacobianFrobenius(),))
        >>> cnf.solve(torch.zeros(1, 3), 0.0, 1.0).costs
        (tensor([3.]),)
    """

    __repr__ = compact_repr

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, local: Local
    ) -> Tensor:
        """The rate, shape ``(B,)``."""
        return local.frobenius


@dataclass(frozen=True, repr=False)
class PathDerivative:
    r"""The rate :math:`|x^{(K)}(t)|^2`: how far the path is from a polynomial of degree K - 1 (TayNODE).

    .. math:: x^{(1)} = f, \qquad x^{(k+1)} = \frac{\partial x^{(k)}}{\partial t}
        + \frac{\partial x^{(k)}}{\partial x} f

    An adaptive solver of order K - 1 takes fewer steps where it is small. Each order doubles the evaluations of the
    field: order 2 takes two more, order 3 four more. The field must be K - 1 times differentiable in t and x.

    Args:
        order: The order K of the derivative; 1 gives :class:`KineticEnergy`, 2 the squared acceleration.

    Raises:
        ValueError: If ``order`` is not a positive int; in a solve, if forward mode is wrong for a module of the field.

    Example:
        >>> import torch
        >>> from cnflib.continuous import CNF
        >>> cnf = CNF(
        ...     lambda t, x: 2 * t * torch.ones_like(x), costs=(PathDerivative(2),)
        ... )
        >>> round(cnf.solve(torch.zeros(1, 1), 0.0, 1.0).costs[0].item(), 3)
        4.0
    """

    order: int = 2
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", check_positive_int(self.order, "order"))

    def __call__(
        self, field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, local: Local
    ) -> Tensor:
        """The rate, shape ``(B,)``."""
        check_forward_mode(field)
        field = uniform(field)

        def derivative(t: Tensor, x: Tensor, k: int) -> Tensor:
            velocity = field(t, x, context)
            if k == 1:
                return velocity
            return jvp(lambda s, y: derivative(s, y, k - 1), (t, x), (torch.ones_like(t), velocity))[1]

        return derivative(t, x, self.order).square().flatten(1).sum(1)
