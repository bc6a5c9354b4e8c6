"""What the four methods of a bijection return."""

import torch
from torch import Tensor

from cnflib.audit._copies import said, seeded
from cnflib.audit.report import Finding
from cnflib.bijection import Bijection

IN_TURN = ("encode_and_logdet", "encode", "decode_and_logdet", "decode")


def audit_returns(g: Bijection, x: Tensor, context: Tensor | None) -> list[Finding]:
    """Call all four methods and see what comes back, and that they leave alone what they are given."""
    z, problem, changed = x, "", []
    for name in IN_TURN:
        given = [x if name.startswith("encode") else z, context]
        point, rows = (None if a is None else a.clone() for a in given)
        try:
            returned = getattr(g, name)(point, rows, seeded(x.device))
        except Exception as error:  # whatever it raises is what there is to say
            problem = f"{name} raises {said(error)}"
            break
        if problem := _wrong_return(name, returned, x):
            break
        if not all(map(_same, given, (point, rows))):
            changed.append(name)
        z = returned[0].detach().clone() if name == "encode_and_logdet" else z
    hint = (
        f"{' and '.join(changed)} change x, z or the context in place, and with it the caller's data: write "
        "x = x * 2 where it says x *= 2, and look for add_(), mul_() and x[:, 0] = …."
    )
    return [
        Finding("methods return (B, *event) and (B,)", float(bool(problem)), 0.0, problem),
        Finding("x is left as it was", float(len(changed)), 0.0, hint),
    ]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is None or torch.equal(a.nan_to_num(), b.nan_to_num())


def _wrong_return(name: str, returned: object, x: Tensor) -> str:
    """What is wrong with it, in words; a latent may have another event shape of as many coordinates."""
    both = name.endswith("logdet")
    parts = tuple(returned) if both and isinstance(returned, tuple | list) else (returned,)
    shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    right = len(parts) == 1 + both and all(isinstance(part, Tensor) for part in parts)
    if right and name.startswith("encode"):
        right = parts[0].ndim > 1 and len(parts[0]) == len(x) and parts[0].numel() == x.numel()
    elif right:
        right = parts[0].shape == x.shape
    if right and both:
        right = parts[1].shape == x.shape[:1]
    wanted = f"a point of shape {tuple(x.shape)}" + (
        f" and a log-determinant of shape ({len(x)},)" if both else ""
    )
    return "" if right else f"{name} returns {' and '.join(map(str, shapes))}; it should return {wanted}."
