"""A field computed from another."""

from collections.abc import Callable

from torch import Tensor, nn

from cnflib.nets import VectorField

Rule = Callable[[VectorField, Tensor, Tensor, Tensor | None], Tensor]
"""``rule(field, t, x, context)``: the value of the new field."""


class Derived(nn.Module):
    """A field that keeps the one it is computed from, with its parameters, so that a solver sees them."""

    def __init__(self, field: VectorField, rule: Rule, name: str) -> None:
        super().__init__()
        self.field = field
        self.rule = rule
        self.name = name

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.rule(self.field, t, x, context)

    def extra_repr(self) -> str:
        return self.name
