r"""Sampling with a learned velocity."""

from torch import Tensor

from cnflib._check import check_event
from cnflib.continuous import CNF, Solver
from cnflib.nets import VectorField

__all__ = ["sample_ode"]


def sample_ode(
    field: VectorField, x0: Tensor, solver: Solver | None = None, context: Tensor | None = None
) -> Tensor:
    r"""Carry base points to data by the probability flow :math:`\dot x = b(t, x)` from t = 0 to t = 1.

    For their density hand the field to a flow: ``Flow(CNF(field), base).log_prob``.

    Args:
        field: The velocity ``b(t, x, context)``.
        x0: Base points, shape ``(B, *event)``.
        solver: :func:`cnflib.continuous.adaptive` by default.
        context: What the field is conditioned on, shape ``(B, features)``.

    Returns:
        Data points, shape ``(B, *event)``.

    Example:
        >>> import torch
        >>> x1 = sample_ode(lambda t, x, context: x, torch.ones(1, 2))  # x1 = e x0
    """
    check_event(x0, None, "x0")
    return CNF(field, solver=solver).decode(x0, context)
