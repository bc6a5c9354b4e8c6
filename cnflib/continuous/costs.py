r"""Costs of a path, integrated over :math:`|dt|` beside the state: what regularised dynamics penalise.

References:
    How to train your neural ODE, Finlay et al., 2020, arXiv:2002.02798;
    Learning Differential Equations that are Easy to Solve, Kelly et al., 2020, arXiv:2007.04504.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import jvp

from cnflib._check import check_positive_int
from cnflib.continuous.divergence import Local
from cnflib.continuous.products import check_forward_mode
from cnflib.nets import VectorField

__all__ = ["Cost", "jacobian_frobenius", "kinetic_energy", "path_derivative"]

Cost = Callable[[Tensor, Tensor, Tensor | None, VectorField, Local], Tensor]
"""``cost(t, x, context, field, local) -> (B,)``, a rate per unit of time."""


def kinetic_energy(t: Tensor, x: Tensor, context: Tensor | None, field: VectorField, local: Local) -> Tensor:
    r"""The rate :math:`|f(t, x)|^2`, squared data units per unit of time squared; shape ``(B,)``."""
    return local.velocity.square().flatten(1).sum(1)


def jacobian_frobenius(
    t: Tensor, x: Tensor, context: Tensor | None, field: VectorField, local: Local
) -> Tensor:
    r"""The rate :math:`|J|_F^2`, from the products that gave the divergence; shape ``(B,)``."""
    return local.frobenius


def path_derivative(order: int = 2) -> Cost:
    r"""The rate :math:`|x^{(K)}(t)|^2`: how far the path is from a polynomial of degree K - 1 (TayNODE).

    .. math:: x^{(1)} = f, \qquad x^{(k+1)} = \frac{\partial x^{(k)}}{\partial t}
        + \frac{\partial x^{(k)}}{\partial x} f

    An adaptive solver of order K - 1 takes fewer steps where it is small. Each order doubles the evaluations of the
    field: order 2 takes two more, order 3 four more. The field must be K - 1 times differentiable in t and x.

    Args:
        order: The order K of the derivative; 1 gives :func:`kinetic_energy`, 2 the squared acceleration.

    Raises:
        ValueError: If ``order`` is not a positive int; in a solve, if forward mode is wrong for a module of the field.
    """
    check_positive_int(order, "order")
    return partial(_path_derivative, order=order)


def _path_derivative(
    t: Tensor, x: Tensor, context: Tensor | None, field: VectorField, local: Local, *, order: int
) -> Tensor:
    check_forward_mode(field)

    def derivative(t: Tensor, x: Tensor, k: int) -> Tensor:
        velocity = field(t, x, context)
        if k == 1:
            return velocity
        return jvp(lambda s, y: derivative(s, y, k - 1), (t, x), (torch.ones_like(t), velocity))[1]

    return derivative(t, x, order).square().flatten(1).sum(1)
