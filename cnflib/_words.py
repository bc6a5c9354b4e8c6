"""What a message says of a value, and how something else becomes the tensor that was expected."""

from torch import Tensor, nn

Shape = tuple[int, ...] | None
"""The shape of an event; None where any will do."""


def described(value: object) -> str:
    """What a message says of a value: a tensor's shape, a class or a string itself, the type of anything else."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | None):
        return repr(value)
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def shown(value: object) -> str:
    """The repr of a value, where it is no tensor and no module: those it describes."""
    return described(value) if isinstance(value, Tensor | nn.Module) else repr(value)


def tensor_of(value: object, name: str) -> str:
    """How something that is no tensor becomes one: a NumPy array, a list, a table of pandas."""
    return f"torch.tensor({name}.to_numpy())" if hasattr(value, "to_numpy") else f"torch.as_tensor({name})"


def batched(shape: Shape) -> str:
    """The shape of a batch of events, as a message writes it."""
    return "(" + ", ".join(["B", *(["*event"] if shape is None else map(str, shape))]) + ")"
