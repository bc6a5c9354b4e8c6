r"""Costs of a path, integrated over :math:`|dt|` beside the state: what regularised dynamics penalise.

References:
    How to train your neural ODE, Finlay et al., 2020, arXiv:2002.02798.
"""

from collections.abc import Callable

from torch import Tensor

from cnflib.continuous.divergence import Local
from cnflib.nets import VectorField

__all__ = ["Cost", "jacobian_frobenius", "kinetic_energy"]

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
