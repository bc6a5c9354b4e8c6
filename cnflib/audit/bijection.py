"""The audit of a bijection: round trips, log-determinants, rows kept apart, gradients that arrive."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from cnflib._check import check_context, check_event
from cnflib.audit._copies import double_copy, perturb, seeded
from cnflib.audit.report import Finding, Report
from cnflib.bijection import Bijection

__all__ = ["audit_bijection"]

STEPS = (1e-4, 1e-6)  # of the central differences


def audit_bijection(
    bijection: Bijection, x: Tensor, context: Tensor | None = None, tolerance: float = 1e-6, draws: int = 256
) -> Report:
    r"""Audit a bijection at given points: shapes, round trips, log-determinants, rows kept apart, gradients.

    Both log-determinants are held against ``slogdet`` of the Jacobian by autograd, row by row. Where they are random
    (a trace estimator) it is their mean over draws that is judged, within 4 standard errors. Every check runs at the
    weights given and at perturbed ones, the worse finding is reported; gradients are judged at perturbed weights.

    Args:
        bijection: The bijection; a float64 copy of it is audited.
        x: Data points, shape ``(B, *event)``; a handful is enough, the Jacobian costs D passes.
        context: What it is conditioned on, shape ``(B, features)``.
        tolerance: Bound on every deterministic error. An adaptive CNF is an inverse only up to its own tolerance:
            audit it with ``adaptive(rtol=1e-9, atol=1e-9)``.
        draws: Number of draws for each point where the log-determinant is random, all in one batch.

    Returns:
        A :class:`Report`.

    Raises:
        ValueError: If x has no batch dimension or is not floating.
    """
    check_event(x, None)
    check_context(context, x)
    given = copy.deepcopy(bijection).double()
    perturbed = copy.deepcopy(given)
    perturb(perturbed, seeded(x.device))
    x, context = double_copy(x), None if context is None else double_copy(context)
    shapes = _audit_shapes(given, x, context)
    if not shapes.passed:
        return Report((shapes,))
    pairs = zip(*(_judge(g, x, context, tolerance, draws) for g in (given, perturbed)), strict=True)
    worst = (max(pair, key=lambda f: (not f.passed, f.error)) for pair in pairs)
    return Report((shapes, *worst, _audit_reach(perturbed, x, context)))


Map = Callable[..., tuple[Tensor, Tensor]]


def _audit_shapes(g: Bijection, x: Tensor, context: Tensor | None) -> Finding:
    z, logdet = _quietly(g, x, context)
    right = z.shape == x.shape and logdet.shape == x.shape[:1]
    if right:
        back, logdet = _quietly(g.inverse, z, context)
        right = back.shape == g.decode(z, context).shape == x.shape and logdet.shape == x.shape[:1]
    hint = "Return a point in x's shape and one log-determinant a row, from forward and from inverse."
    return Finding("shapes (B, *event) and (B,)", float(not right), 0.0, hint)


def _judge(
    g: Bijection, x: Tensor, context: Tensor | None, tolerance: float, draws: int
) -> tuple[Finding, ...]:
    z, _ = _quietly(g, x, context)
    back, _ = _quietly(g.inverse, z, context)
    again, _ = _quietly(g, back, context)
    decoded = g.decode(z, context).detach()
    jacobians = _jacobian(g, x, context), _jacobian(g.inverse, z, context)
    return (
        Finding("inverse(forward(x)) = x", _gap(back, x), tolerance, "inverse does not undo forward here."),
        Finding("forward(inverse(z)) = z", _gap(again, z), tolerance, "forward does not undo inverse here."),
        Finding("decode(z) = inverse(z)", _gap(decoded, back), tolerance, "decode and inverse disagree."),
        _audit_derivative(g, x, context, jacobians[0]),
        _audit_logdet("forward log-det", g, x, context, jacobians[0], tolerance, draws),
        _audit_logdet("inverse log-det", g.inverse, z, context, jacobians[1], tolerance, draws),
        _audit_rows(jacobians[0], tolerance),
    )


def _quietly(g: Map, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    y, logdet = g(x, context, seeded(x.device))
    return y.detach(), logdet.detach()


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the larger of the point and 1; NaN counts as infinite."""
    return _largest(_relative(a, b))


def _relative(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs() / b.abs().clamp(min=1)


def _largest(gaps: Tensor) -> float:
    gap = gaps.max().item()
    return gap if gap == gap else float("inf")


def _jacobian(g: Map, x: Tensor, context: Tensor | None) -> Tensor:
    """The Jacobian of the whole batch, shape (B, D, B, D)."""
    full = jacobian(lambda y: g(y, context, seeded(y.device))[0], x)
    batch, dim = x.shape[0], x[0].numel()
    return full.reshape(batch, dim, batch, dim)


def _audit_derivative(g: Map, x: Tensor, context: Tensor | None, full: Tensor) -> Finding:
    """The Jacobian by autograd beside central differences, along one direction for all rows.

    Of a long and a short step the better counts, entry by entry: a kink (ReLU) spoils the long one where it lies near,
    the error of a solve the short one, a wrong derivative both.
    """
    u = torch.randn(x.shape, generator=seeded(x.device, 1), dtype=x.dtype, device=x.device)
    slope = torch.einsum("idjc,jc->id", full, u.flatten(1)).reshape(x.shape)
    changes = [
        (_quietly(g, x + h * u, context)[0] - _quietly(g, x - h * u, context)[0]) / (2 * h) for h in STEPS
    ]
    gaps = torch.stack([_relative(change, slope) for change in changes])
    hint = "The map changes with x in a way that autograd does not see: look for detach, .data, no_grad."
    return Finding("Jacobian = central differences", _largest(gaps.amin(0)), 1e-3, hint)


def _audit_logdet(
    name: str, g: Map, x: Tensor, context: Tensor | None, full: Tensor, tolerance: float, draws: int
) -> Finding:
    rows = full.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    truth = torch.linalg.slogdet(rows).logabsdet
    generator = seeded(x.device)
    start = generator.get_state()
    logdet = g(x, context, generator)[1].detach()
    if torch.equal(start, generator.get_state()):
        hint = "The log-determinant is not that of this map: look for a dropped term, a sign, or the other direction's."
        return Finding(f"{name} = slogdet J", _gap(logdet, truth), tolerance, hint)
    rows, contexts = (None if a is None else a.repeat(draws, *[1] * (a.ndim - 1)) for a in (x, context))
    samples = g(rows, contexts, generator)[1].detach().reshape(draws, -1)
    error = (samples.mean(0) - truth).abs() / (samples.std(0) / draws**0.5 + tolerance)
    hint = "The random log-determinant is biased: look for a wrong probe variance, a sign, one probe for all rows."
    return Finding(f"mean {name} = slogdet J, in standard errors", error.max().item(), 4.0, hint)


def _audit_rows(full: Tensor, tolerance: float) -> Finding:
    same = torch.eye(full.shape[0], dtype=torch.bool, device=full.device)[:, None, :, None]
    across = full.masked_fill(same, 0)
    hint = "A row depends on its batch mates (BatchNorm?): then no row has a density of its own."
    return Finding("rows do not mix", across.abs().max().item(), tolerance, hint)


def _audit_reach(g: Bijection, x: Tensor, context: Tensor | None) -> Finding:
    """The number of parameters that no gradient reaches."""
    parameters = [p for p in g.parameters() if p.requires_grad]
    z, logdet = g(x, context, seeded(x.device))
    loss = z.square().sum() - logdet.sum()
    grads = (
        torch.autograd.grad(loss, parameters, allow_unused=True) if parameters and loss.requires_grad else []
    )
    dead = len(parameters) - sum(grad is not None and bool(grad.any()) for grad in grads)
    hint = (
        f"{dead} of {len(parameters)} parameters get no gradient: not registered in the graph, or detached."
    )
    return Finding("gradient reaches every parameter", float(dead), 0.0, hint)
