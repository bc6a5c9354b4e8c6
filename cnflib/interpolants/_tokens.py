"""What paths of tokens, their losses and their samplers share: checks, times, and how fast tokens arrive."""

import torch
from torch import Tensor

from cnflib._check import eager
from cnflib._words import described
from cnflib.interpolants._checks import check_time
from cnflib.interpolants._schedules import with_rate
from cnflib.interpolants.interpolant import Schedule

__all__ = ["at_tokens", "check_tokens", "hazard", "rowwise"]


def check_tokens(x: Tensor, states: int, name: str) -> None:
    """Check that x are integers of shape (B, D) below a number of states."""
    if not isinstance(x, Tensor) or x.dtype != torch.int64 or x.ndim != 2:
        raise ValueError(
            f"Expected {name} to be tokens, int64 of shape (B, D); got {described(x)} {getattr(x, 'dtype', '')}. Of "
            f"images {name}.flatten(1).long()."
        )
    if eager(x) and not ((x >= 0) & (x < states)).all():
        raise ValueError(
            f"Expected {name} in 0, ..., {states - 1}; got {x.min().item()} to {x.max().item()}. The path is built "
            "with the size of the vocabulary."
        )


def rowwise(t: float | Tensor, x: Tensor) -> Tensor:
    """Checked times, a number for each row of tokens, shape (B,)."""
    dtype = t.dtype if isinstance(t, Tensor) else None
    return check_time(t, torch.empty(len(x), 1, dtype=dtype, device=x.device)).flatten().expand(len(x))


def at_tokens(log_p: Tensor, x: Tensor) -> Tensor:
    return log_p.gather(-1, x[..., None])[..., 0]


def hazard(kappa: Schedule, t: Tensor) -> Tensor:
    r"""The rate :math:`\dot\kappa / (1 - \kappa)` at which a token arrives."""
    value, rate = (kappa(t), kappa.rate(t)) if hasattr(kappa, "rate") else with_rate(kappa, t)
    return rate / (1 - value).clamp_min(torch.finfo(t.dtype).eps / 2)
