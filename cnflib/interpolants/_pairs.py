"""What every loss begins with: its arguments checked once, times and noise drawn where none were given."""

from torch import Generator, Tensor

from cnflib._check import check_context, check_like, check_velocity, reference
from cnflib._field import Uniform, uniform
from cnflib.interpolants._checks import check_ends
from cnflib.interpolants._draws import drawn, inside
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["check", "check_path", "dot", "draw", "evaluate", "inside"]


def check(
    model: VectorField,
    name: str,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    context: Tensor | None,
) -> Uniform:
    """Check what a loss is given besides time and noise, and return its model as ``f(t, x, context=None)``."""
    field = uniform(model)
    check_path(interpolant)
    check_ends(x0, x1)
    check_like(x0, reference(field.field), "x0", name)
    check_context(context, x0, "x0")
    return field


def check_path(interpolant: Interpolant, name: str = "interpolant") -> None:
    """Refuse what is no interpolant, such as the class of one that was not called, or the field."""
    if not isinstance(interpolant, Interpolant):
        got = getattr(interpolant, "__name__", type(interpolant).__name__)
        raise ValueError(
            f"Expected {name} to be an Interpolant, e.g. Linear(); got {got}. Is it to be called first? A field comes "
            "before it. Of a LearnableInterpolant pass path.interpolant."
        )


def draw(
    interpolant: Interpolant, x0: Tensor, t: Tensor | None, xi: Tensor | None, generator: Generator | None
) -> tuple[Tensor, Tensor | None]:
    """A time inside (0, 1) for each pair, shape ``(B,)``, and noise where the interpolant has some; or those given."""
    return drawn(x0, t, xi, interpolant.gamma2 is not None, generator)


def evaluate(model: VectorField, name: str, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor:
    """What the model says at x, checked for its shape."""
    value = model(t, x, context)
    check_velocity(value, x, name)
    return value


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row, shape ``(B,)``."""
    return (a * b).flatten(1).sum(1)
