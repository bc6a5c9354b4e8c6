"""The weights that served the validation rows best, and when to stop looking for better ones."""

import copy
import math
from typing import Any, SupportsFloat

from torch import Tensor, nn

from cnflib._check import check_module, check_positive_int
from cnflib._words import described

__all__ = ["EarlyStopping"]


class EarlyStopping:
    r"""The best weights so far, and whether it is time to stop: after ``patience`` values without a better one.

    A value is better if it is finite and below all before it; a tie, NaN and infinities are not. Buffers are part of
    the weights. Of an average give the module that holds it, ``EarlyStopping(ema.module)``.

    Attributes:
        best: The least value so far; infinite before the first.
        updates: The number of values so far.
        stale: The number of values since the best one.

    Args:
        module: The module in training.
        patience: The number of values to wait for a better one.

    Raises:
        ValueError: If the module is none, or the patience is not a positive int.

    References:
        Early Stopping — But When?, Prechelt, 1998, doi:10.1007/3-540-49430-8_3.

    Example:
        >>> import torch
        >>> from cnflib.models import realnvp
        >>> from cnflib.train import steps
        >>> x, validation = torch.randn(64, 2), torch.randn(64, 2)
        >>> flow = realnvp(dim=2, hidden=(8,))
        >>> optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
        >>> best = EarlyStopping(flow, patience=5)
        >>> for step, loss in steps(
        ...     lambda: -flow.log_prob(x).mean(), optimizer, 100
        ... ):
        ...     with torch.no_grad():
        ...         value = -flow.log_prob(validation).mean()
        ...     if best.update(value):
        ...         break
        >>> best.restore()
        >>> float(-flow.log_prob(validation).mean()) == best.best
        True
    """

    def __init__(self, module: nn.Module, patience: int = 10) -> None:
        check_module(module)
        self.module = module
        self.patience = check_positive_int(patience, "patience")
        self.best = math.inf
        self.updates = self.stale = 0
        self.weights: dict[str, Any] | None = None

    def update(self, value: SupportsFloat) -> bool:
        """Take notice of a value, such as the validation NLL of the module as it is; True when it is time to stop.

        Args:
            value: A number to be small, in nats; the value of an :class:`~cnflib.metrics.Estimate`, or a tensor of one
                element, for which a GPU is waited for.

        Raises:
            ValueError: If it is not one number.
        """
        number = _number(value)
        better = math.isfinite(number) and number < self.best
        self.updates, self.stale = self.updates + 1, 0 if better else self.stale + 1
        if better:
            self.best, self.weights = number, copy.deepcopy(self.module.state_dict())
        return self.stale >= self.patience

    def restore(self) -> None:
        """Give the module its best weights back.

        Raises:
            ValueError: If no value so far was finite.
        """
        if self.weights is None:
            raise ValueError(
                f"Expected a finite value in update(value) before restore(); of {self.updates} none was. Look for NaN "
                "in the data, or lower the learning rate."
            )
        self.module.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best value with its weights, and the counts."""
        return {name: getattr(self, name) for name in _KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; the module keeps the weights it has."""
        for name in _KEPT:
            setattr(self, name, state[name])


def _number(value: SupportsFloat) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected value to be one number; got {described(value)}. Of one number a row take .mean()."
        ) from error


_KEPT = ("best", "updates", "stale", "weights")
