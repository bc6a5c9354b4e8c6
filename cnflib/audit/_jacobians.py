"""Checks of one map against its Jacobian by autograd, and what all checks of a bijection share."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from cnflib.audit._copies import said, seeded
from cnflib.audit.report import Finding
from cnflib.bijection import Bijection

Way = Callable[..., tuple[Tensor, Tensor]]
WIDTHS = (1e-4, 1e-6)  # of the central differences


def finding(check: str, bound: float, hint: str, error: Callable[[], float]) -> Finding:
    """A check as a finding, also where the code that is audited raises."""
    try:
        return Finding(check, error(), bound, hint)
    except Exception as problem:
        return Finding(check, math.inf, bound, f"{said(problem)}. {hint}")


def quietly(g: Way, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    y, logdet = g(x, context, seeded(x.device))
    return y.detach().clone(), logdet.detach()


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the larger of the point and 1; NaN counts as infinite."""
    return largest(_relative(a, b))


def _relative(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs() / b.abs().clamp(min=1)


def largest(gaps: Tensor) -> float:
    most = gaps.max().item()
    return math.inf if math.isnan(most) else most


def jacobian_of(g: Way, x: Tensor, context: Tensor | None) -> Tensor:
    """The Jacobian of the whole batch, shape (B, D, B, D)."""
    full = jacobian(lambda y: g(y, context, seeded(y.device))[0], x)
    batch, dim = x.shape[0], x[0].numel()
    return full.reshape(batch, dim, batch, dim)


def audit_derivative(g: Way, x: Tensor, context: Tensor | None, full: Tensor) -> Finding:
    """The Jacobian by autograd beside central differences, along one direction for all rows.

    Of a long and a short step the better counts, entry by entry: a kink (ReLU) spoils the long one where it lies near,
    the error of a solve the short one, a wrong derivative both.
    """
    u = torch.randn(x.shape, generator=seeded(x.device, 1), dtype=x.dtype, device=x.device)
    slope = torch.einsum("idjc,jc->id", full, u.flatten(1))

    def worst() -> float:
        ends = [(quietly(g, x + h * u, context)[0], quietly(g, x - h * u, context)[0], h) for h in WIDTHS]
        changes = [((above - below) / (2 * h)).flatten(1) for above, below, h in ends]
        return largest(torch.stack([_relative(change, slope) for change in changes]).amin(0))

    hint = "The map changes with x in a way that autograd does not see: look for detach, .data, no_grad."
    return finding("Jacobian = central differences", 1e-3, hint, worst)


def audit_logdet(
    name: str, g: Way, x: Tensor, context: Tensor | None, full: Tensor, tolerance: float, draws: int
) -> Finding:
    rows = full.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    truth = torch.linalg.slogdet(rows).logabsdet
    generator = seeded(x.device)
    start = generator.get_state()
    logdet = g(x, context, generator)[1].detach()
    if torch.equal(start, generator.get_state()):
        hint = "The log-determinant is not that of this map: look for a dropped term, a sign, or the other direction's."
        return Finding(f"{name} = slogdet J", gap(logdet, truth), tolerance, hint)

    def deviation() -> float:
        many = (None if a is None else a.repeat(draws, *[1] * (a.ndim - 1)) for a in (x, context))
        samples = g(*many, generator)[1].detach().reshape(draws, -1)
        return largest((samples.mean(0) - truth).abs() / (samples.std(0) / draws**0.5 + tolerance))

    hint = "The random log-determinant is biased: look for a wrong probe variance, a sign, one probe for all rows."
    return finding(f"mean {name} = slogdet J, in standard errors", 4.0, hint, deviation)


def audit_rows(
    g: Bijection,
    x: Tensor,
    latent: Tensor,
    context: Tensor | None,
    jacobians: tuple[Tensor, ...],
    tolerance: float,
) -> Finding:
    """The Jacobian between rows, and what becomes of the first row where all others get its context."""
    batch = jacobians[0].shape[0]
    same = torch.eye(batch, dtype=torch.bool, device=jacobians[0].device)[:, None, :, None]
    across = largest(torch.stack(jacobians).masked_fill(same, 0).abs())
    if context is not None:
        of_first = context[:1].expand_as(context).clone()
        across = max(across, gap(quietly(g.encode_and_logdet, x, of_first)[0][0], latent[0]))
    hint = "A row depends on its batch mates, or on their context (BatchNorm?): then no row has a density of its own."
    return Finding("rows do not mix", across, tolerance, hint)
