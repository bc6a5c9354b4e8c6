r"""A field that runs to an end time of its own: learned, or drawn anew for every step of training."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from cnflib._check import reference
from cnflib._field import uniform
from cnflib._random import source
from cnflib.continuous.products import ForwardMode, factors, has_tangents
from cnflib.nets import VectorField

__all__ = ["EndTime", "random_end"]

_FORWARD = ForwardMode()


class EndTime(nn.Module):
    r"""A field run to a learnable end time T, in unit time: :math:`f_T(t, x) = T f(T t, x)`.

    :math:`\log T` is a parameter, so T stays positive and every solver gives its gradient.

    Args:
        field: The field f, f(t, x) or f(t, x, context).
        end: The first value of T, in units of f's time.

    Raises:
        ValueError: If ``field`` is none, or ``end`` is not positive and finite.

    Example:
        >>> import torch
        >>> from cnflib.continuous import CNF
        >>> cnf = CNF(EndTime(lambda t, x: x, end=2.0))  # x(1) = e^2 x(0)
        >>> torch.allclose(
        ...     cnf.solve(torch.ones(1, 1), 0.0, 1.0).logdet,
        ...     torch.tensor([2.0]),
        ...     atol=1e-3,
        ... )
        True
    """

    def __init__(self, field: VectorField, end: float = 1.0) -> None:
        super().__init__()
        if not 0 < end < float("inf"):
            raise ValueError(f"Expected end > 0 and finite; got {end}.")
        uniform(field)  # refuses what is no field
        self.field = field
        like = reference(field)
        place = {} if like is None else {"dtype": like.dtype, "device": like.device}
        self.log_end = nn.Parameter(torch.tensor(math.log(end), **place))

    @property
    def carries_tangents(self) -> bool:
        """Whether the field f has tangents of its own."""
        return has_tangents(self.field)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity :math:`T f(T t, x)`."""
        end = self.log_end.exp()
        return end * uniform(self.field)(end * t, x, context)

    def jvp(self, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        r"""The velocity and :math:`J v` for directions v."""
        end = self.log_end.exp()
        velocity, products = _FORWARD(uniform(self.field), end * t, x, context, directions)
        return end * velocity, end * products

    def factors(
        self, t: Tensor, context: Tensor | None
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        r"""The field's own two maps, the second one times T."""
        end = self.log_end.exp()
        h, g = factors(self.field, end * t, context)
        return h, lambda hidden: end * g(hidden)


def random_end(field: VectorField, spread: float, generator: Generator | None = None) -> EndTime:
    r"""The field run to a random end time :math:`T \sim U(1 - b, 1 + b)` that is not learned (STEER).

    Drawn anew for every training step it keeps the dynamics from turning stiff near one fixed end. Evaluate with the
    field itself:

    .. code-block:: python

        for x in batches:
            random = CNF(random_end(field, 0.5))
            loss = -Flow(random, base).log_prob(x).mean()

    Args:
        field: The field f.
        spread: The number b, in [0, 1).
        generator: Source of T.

    Raises:
        ValueError: If ``spread`` is outside [0, 1).

    References:
        STEER: Simple Temporal Regularization For Neural ODEs, Ghosh et al., 2020, arXiv:2006.10711.

    Example:
        >>> import torch
        >>> from cnflib.nets import MLP
        >>> random = random_end(MLP(2), 0.5)
        >>> 0.5 <= random.log_end.exp().item() <= 1.5
        True
    """
    if not 0 <= spread < 1:
        raise ValueError(f"Expected spread in [0, 1), so that the end time stays positive; got {spread}.")
    u = torch.rand((), **source(generator), device="cpu" if generator is None else generator.device)
    random = EndTime(field, 1 + spread * (2 * u.item() - 1))
    random.log_end.requires_grad_(False)
    return random
