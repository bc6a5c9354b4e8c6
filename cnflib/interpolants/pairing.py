r"""Pairings: the joint law of the two ends :math:`(x_0, x_1)` of an interpolant.

.. math:: (x_0^i, x_1^i)_{i \le B} \;\mapsto\; (x_0^{\sigma(i)}, x_1^i)_{i \le B}

Every pairing of this library leaves the data :math:`x_1` in their places and picks a base point for each, so that
labels and whatever else belongs to a row of data stay true. Papers call a pairing a coupling; in this library a
coupling is a layer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from cnflib._check import check_built, check_context, check_generator
from cnflib._settings import Built, compact_repr
from cnflib.interpolants._checks import check_ends

__all__ = ["ConditionalPairing", "IndependentPairing", "Paired", "Pairing", "RowPairing"]

Pairing = Callable[..., tuple[Tensor, Tensor]]
"""``pairing(x0, x1, context=None, generator=None) -> (x0, x1)``: both of shape ``(B, *event)``, paired row by row.

A pairing whose attribute ``independent`` is true leaves independent ends independent. Whatever needs that, like the
conversion of a velocity into a score, reads ``getattr(pairing, "independent", False)``.
"""


class RowPairing(Built, ABC):
    r"""A pairing :math:`x_0^{\sigma(i)}, x_1^i` that picks the row :math:`\sigma(i)` of the base for every data point.

    One's own is a subclass with one method, ``pick(x0, x1, context, generator)``, which returns these rows for a batch
    of at least one. Arguments are checked before, and no graph is recorded.

    Attributes:
        independent: Whether independent ends stay independent.
        conditions: Whether ``pick`` takes the context into account; then there must be one, and else none.
        keeps: Whether every row stays in its place, in any context.

    Example:
        >>> import torch
        >>> class Reverse(RowPairing):
        ...     def pick(self, x0, x1, context=None, generator=None):
        ...         return torch.arange(len(x0)).flip(0)
        >>> x0, x1 = Reverse()(
        ...     torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [6.0]])
        ... )
        >>> x0.flatten().tolist(), x1.flatten().tolist()
        ([1.0, 0.0], [5.0, 6.0])
    """

    independent: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    @abstractmethod
    def pick(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""The picks :math:`\sigma`, integers of shape ``(B,)``, for arguments that are checked."""

    def __call__(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""The pairs :math:`(x_0^{\sigma(i)}, x_1^i)`; x1 is returned as it came.

        Args:
            x0: Base points, shape ``(B, *event)``.
            x1: Data points, shape ``(B, *event)``.
            context: What the rows of x1 are conditioned on, shape ``(B,)`` for labels or ``(B, features)``.
            generator: Source of random picks.

        Raises:
            ValueError: If the ends differ in shape, dtype or device, or the pairing ignores a context that is given.
        """
        rows = self.rows(x0, x1, context, generator)
        return (x0 if self.keeps else x0[rows]), x1

    def rows(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        r"""The picks :math:`\sigma`, shape ``(B,)``: ``x0[rows]`` is paired with x1. Arguments as for the pairs."""
        check_ends(x0, x1)
        check_context(context, x1, "x1")
        check_generator(generator)
        if context is not None and not (self.conditions or self.keeps):
            raise ValueError(
                f"Expected no context, as the pairing {self} ignores it: the base points it picks would depend on the "
                "context, while sampling draws them from the whole base. "
                f"Use ConditionalPairing({self}), or IndependentPairing()."
            )
        with torch.no_grad():
            return self.pick(x0, x1, context, generator) if len(x0) else _in_place(x0)


@dataclass(frozen=True, repr=False)
class IndependentPairing(RowPairing):
    r"""The product law :math:`x_0 \perp x_1`: rows drawn independently are paired as they come, in any context.

    Example:
        >>> import torch
        >>> x0, x1 = torch.randn(2, 5, 3)
        >>> IndependentPairing()(x0, x1)[0] is x0, IndependentPairing().independent
        (True, True)
    """

    independent: ClassVar[bool] = True
    keeps: ClassVar[bool] = True
    __repr__ = compact_repr

    def pick(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Every row in its place, shape ``(B,)``."""
        return _in_place(x0)


@dataclass(frozen=True, repr=False)
class Paired(RowPairing):
    r"""The law of data that come in pairs :math:`(x_0^i, x_1^i)`, a blurred image and a sharp one: left as they come.

    What it returns is what :class:`IndependentPairing` returns. But here the ends depend on each other, ``independent``
    is false, and what needs independent ends refuses this pairing.

    Example:
        >>> import torch
        >>> sharp = torch.randn(5, 3)
        >>> x0, x1 = Paired()(sharp + 0.1 * torch.randn(5, 3), sharp)
        >>> x1 is sharp, Paired().independent
        (True, False)
    """

    keeps: ClassVar[bool] = True
    __repr__ = compact_repr

    def pick(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Every row in its place, shape ``(B,)``."""
        return _in_place(x0)


@dataclass(frozen=True, repr=False)
class ConditionalPairing(RowPairing):
    r"""A pairing that takes the context :math:`c` of the data into account, so that :math:`p(x_0 | c)` stays the base.

    .. math:: |x_0^j - x_1^i|^2 + w\,|c^j - c^i|^2

    Before pairing, base and context are independent, so the base points that stand in the rows of one context are
    draws of the base given this context. With :math:`w = \infty` base points change places only among rows of equal
    context, and the law of the base given the context is kept exactly. For a continuous context, where no two rows
    agree and nothing would change places, a finite :math:`w` lets them change places among similar ones: the larger,
    the less :math:`p(x_0 | c)` is skewed, and the less is gained.

    A pairing that ignores the context pairs a class with the base points near to it. A field that is conditioned on
    the class then learns to start from these, but sampling starts from all.

    Args:
        pairing: The pairing of rows, such as :class:`OptimalTransport` or :class:`Sinkhorn`.
        weight: The weight :math:`w > 0`, in squared units of x for one squared unit of the context.

    Raises:
        ValueError: If the pairing is no :class:`RowPairing`, or takes a context already, or the weight is not positive.

    References:
        Dynamic Conditional Optimal Transport through Simulation-Free Flows, Kerrigan et al., 2024, arXiv:2404.04240;
        The Curse of Conditions, Cheng & Schwing, 2025, arXiv:2503.10636.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import OptimalTransport
        >>> x1, labels = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> pairing = ConditionalPairing(OptimalTransport())
        >>> rows = pairing.rows(torch.randn(6, 2), x1, labels)
        >>> bool((labels[rows] == labels).all())
        True
    """

    pairing: RowPairing
    weight: float = math.inf

    conditions: ClassVar[bool] = True
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        check_built(self.pairing, "pairing")
        if not isinstance(self.pairing, RowPairing) or self.pairing.conditions or not self.weight > 0:
            raise ValueError(
                "Expected pairing to be a RowPairing that takes no context, like OptimalTransport(), and weight > 0, "
                f"math.inf to mix equal contexts only; got {self.pairing!r} and {self.weight!r}."
            )

    @property
    def independent(self) -> bool:
        """Whether independent ends stay independent: as the pairing of rows has it."""
        return self.pairing.independent

    def pick(
        self, x0: Tensor, x1: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """The picks among rows of equal context, or of a similar one, shape ``(B,)``."""
        if self.weight == math.inf:
            return _within(self.pairing, x0, x1, context, generator)
        return _near(self.pairing, self.weight, x0, x1, context, generator)


def _in_place(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device)


def _within(
    pairing: RowPairing, x0: Tensor, x1: Tensor, context: Tensor, generator: Generator | None
) -> Tensor:
    """Rows picked among those of equal context."""
    _, group, counts = torch.unique(context, dim=0, return_inverse=True, return_counts=True)
    rows = _in_place(x0)
    for members in group.argsort(stable=True).split(counts.tolist()):
        if len(members) > 1:
            rows[members] = members[pairing.pick(x0[members], x1[members], None, generator)]
    return rows


def _near(
    pairing: RowPairing,
    weight: float,
    x0: Tensor,
    x1: Tensor,
    context: Tensor,
    generator: Generator | None,
) -> Tensor:
    """Rows picked with the context, scaled, as further coordinates of both ends."""
    c = weight**0.5 * context.reshape(len(x0), -1).to(x0)
    return pairing.pick(torch.cat([x0.flatten(1), c], 1), torch.cat([x1.flatten(1), c], 1), None, generator)
