r"""Pairings: the joint law of the two ends :math:`(x_0, x_1)` of an interpolant.

.. math:: (x_0^i, x_1^i)_{i \le B} \;\mapsto\; (x_0^{\sigma(i)}, x_1^i)_{i \le B}

Every pairing of this library leaves the data :math:`x_1` in their places and picks a base point for each, so that
labels and whatever else belongs to a row of data stay true. Papers call a pairing a coupling; in this library a
coupling is a layer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor

from cnflib._check import check_finite
from cnflib.interpolants._checks import check_ends, check_rows

__all__ = ["Pairing", "RowPairing", "conditional", "independent", "paired"]

Pairing = Callable[..., tuple[Tensor, Tensor]]
"""``pairing(x0, x1, generator=None, context=None) -> (x0, x1)``: both of shape ``(B, *event)``, paired row by row.

A pairing whose attribute ``independent`` is true leaves independent ends independent. Whatever needs that, like the
conversion of a velocity into a score, reads ``getattr(pairing, "independent", False)``.
"""

Pick = Callable[[Tensor, Tensor, Generator | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class RowPairing:
    r"""A pairing :math:`x_0^{\sigma(i)}, x_1^i` that picks the row :math:`\sigma(i)` of the base for every data point.

    :func:`independent`, :func:`paired`, :func:`optimal_transport`, :func:`sinkhorn` and :func:`conditional` return one.

    Args:
        name: The call that made it, which is how it prints.
        pick: A function ``pick(x0, x1, generator, context) -> rows``; None keeps every row in its place.
        independent: Whether independent ends stay independent.
        conditions: Whether ``pick`` takes the context into account.

    Example:
        >>> import torch
        >>> reverse = RowPairing("reverse()", lambda x0, x1, generator, context: torch.arange(len(x0)).flip(0))
        >>> x0, x1 = reverse(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [6.0]]))
        >>> x0.flatten().tolist(), x1.flatten().tolist(), reverse
        ([1.0, 0.0], [5.0, 6.0], reverse())
    """

    name: str
    pick: Pick | None = field(default=None, repr=False)
    independent: bool = False
    conditions: bool = False

    def __call__(
        self, x0: Tensor, x1: Tensor, generator: Generator | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""The pairs :math:`(x_0^{\sigma(i)}, x_1^i)`; x1 is returned as it came.

        Args:
            x0: Base points, shape ``(B, *event)``.
            x1: Data points, shape ``(B, *event)``.
            generator: Source of random picks.
            context: What the rows of x1 are conditioned on, shape ``(B,)`` for labels or ``(B, features)``.

        Raises:
            ValueError: If the ends differ in shape, dtype or device, or the pairing ignores a context that is given.
        """
        self._check(x0, x1, generator, context)
        return (x0 if self.pick is None else x0[self._rows(x0, x1, generator, context)]), x1

    def rows(
        self, x0: Tensor, x1: Tensor, generator: Generator | None = None, context: Tensor | None = None
    ) -> Tensor:
        r"""The picks :math:`\sigma`, shape ``(B,)``: ``x0[rows]`` is paired with x1. Arguments as for the pairs."""
        self._check(x0, x1, generator, context)
        return self._rows(x0, x1, generator, context)

    def __repr__(self) -> str:
        return self.name

    @torch.no_grad()
    def _rows(self, x0: Tensor, x1: Tensor, generator: Generator | None, context: Tensor | None) -> Tensor:
        if self.pick is None or not len(x0):
            return torch.arange(len(x0), device=x0.device)
        return self.pick(x0, x1, generator, context)

    def _check(self, x0: Tensor, x1: Tensor, generator: Generator | None, context: Tensor | None) -> None:
        check_ends(x0, x1)
        if isinstance(generator, Tensor):
            raise ValueError(
                "Expected generator to be a torch.Generator; got a tensor. Labels go by name: context=labels."
            )
        if context is not None:
            check_rows(context, x1)
        if self.conditions and context is None:
            raise ValueError(f"Expected a context, as the pairing is {self}; got None. Pass context=labels.")
        if self.pick is not None and not self.conditions and context is not None:
            raise ValueError(
                f"Expected no context, as the pairing {self} ignores it: the base points it picks would depend on the "
                "context, while sampling draws them from the whole base. "
                f"Use conditional({self}), or independent()."
            )


def independent() -> RowPairing:
    r"""The product law :math:`x_0 \perp x_1`: rows drawn independently are paired as they come, in any context.

    Example:
        >>> import torch
        >>> x0, x1 = torch.randn(2, 5, 3)
        >>> independent()(x0, x1)[0] is x0, independent().independent
        (True, True)
    """
    return RowPairing("independent()", independent=True)


def paired() -> RowPairing:
    r"""The law of data that come in pairs :math:`(x_0^i, x_1^i)`, a blurred image and a sharp one: left as they come.

    What it returns is what :func:`independent` returns. But here the ends depend on each other, ``independent`` is
    false, and what needs independent ends refuses this pairing.

    Example:
        >>> import torch
        >>> sharp = torch.randn(5, 3)
        >>> x0, x1 = paired()(sharp + 0.1 * torch.randn(5, 3), sharp)
        >>> x1 is sharp, paired().independent
        (True, False)
    """
    return RowPairing("paired()")


def conditional(pairing: RowPairing, weight: float = math.inf) -> RowPairing:
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
        pairing: The pairing of rows, such as :func:`optimal_transport` or :func:`sinkhorn`.
        weight: The weight :math:`w > 0`, in squared units of x for one squared unit of the context.

    Raises:
        ValueError: If the pairing is no :class:`RowPairing`, or takes a context already, or the weight is not positive.

    References:
        Dynamic Conditional Optimal Transport through Simulation-Free Flows, Kerrigan et al., 2024, arXiv:2404.04240;
        The Curse of Conditions, Cheng & Schwing, 2025, arXiv:2503.10636.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import optimal_transport
        >>> x1, labels = torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> pairing = conditional(optimal_transport())
        >>> x0, x1 = pairing(torch.randn(6, 2), x1, context=labels)
        >>> rows = pairing.rows(x0, x1, context=labels)
        >>> bool((labels[rows] == labels).all())
        True
    """
    if not isinstance(pairing, RowPairing):
        raise ValueError(
            f"Expected pairing to be a RowPairing, such as optimal_transport(); got {pairing!r}. "
            "Is it to be called first?"
        )
    if pairing.conditions:
        raise ValueError(
            f"Expected pairing to take no context of its own; got {pairing}, which is conditional already."
        )
    if not weight > 0:
        raise ValueError(f"Expected weight > 0, or math.inf to mix equal contexts only; got {weight}.")
    pick = partial(_within, pairing) if weight == math.inf else partial(_near, pairing, weight)
    name = f"conditional({pairing})" if weight == math.inf else f"conditional({pairing}, weight={weight})"
    return RowPairing(name, pick, pairing.independent, conditions=True)


def _within(
    pairing: RowPairing, x0: Tensor, x1: Tensor, generator: Generator | None, context: Tensor
) -> Tensor:
    """Rows picked among those of equal context."""
    _, group, counts = torch.unique(context, dim=0, return_inverse=True, return_counts=True)
    rows = torch.arange(len(x0), device=x0.device)
    for members in group.argsort(stable=True).split(counts.tolist()):
        if len(members) > 1:
            rows[members] = members[pairing.rows(x0[members], x1[members], generator)]
    return rows


def _near(
    pairing: RowPairing,
    weight: float,
    x0: Tensor,
    x1: Tensor,
    generator: Generator | None,
    context: Tensor,
) -> Tensor:
    """Rows picked with the context, scaled, as further coordinates of both ends."""
    check_finite(context, "context")
    c = weight**0.5 * context.reshape(len(x0), -1).to(x0)
    return pairing.rows(torch.cat([x0.flatten(1), c], 1), torch.cat([x1.flatten(1), c], 1), generator)
