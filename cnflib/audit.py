"""Checks that run on anyone's bijection or flow and say what is wrong.

They judge float64 copies, at perturbed weights too: a coupling whose net ends in zeros is the identity, and there a
dropped log-determinant is right and a net that learns looks like one that does not.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.autograd.functional import jacobian

from cnflib._check import check_context, check_event
from cnflib.bijection import Bijection
from cnflib.flow import Flow

__all__ = ["AuditError", "Finding", "Report", "audit_bijection", "audit_gradients"]


class AuditError(AssertionError):
    """An audit found faults; the message lists them."""


class Finding(NamedTuple):
    """One check: what was measured, the largest error seen, the bound it must keep, and what a fault points to."""

    check: str
    error: float
    bound: float
    hint: str

    @property
    def passed(self) -> bool:
        return self.error <= self.bound


class Report(NamedTuple):
    """The findings of an audit; prints as a table."""

    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if not f.passed)

    def raise_for_faults(self) -> None:
        """Raise an :class:`AuditError` that lists every fault; do nothing where there is none."""
        if self.faults:
            raise AuditError(
                "\n".join(f"{f.check}: error {f.error:.2e} > {f.bound:.0e}. {f.hint}" for f in self.faults)
            )

    def __str__(self) -> str:
        width = max(len(f.check) for f in self.findings)
        lines = [f"{'check':<{width}}  {'error':>9}  {'bound':>9}"]
        lines += [
            f"{f.check:<{width}}  {f.error:9.2e}  {f.bound:9.2e}  {'ok' if f.passed else f.hint}"
            for f in self.findings
        ]
        return "\n".join(lines)


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
    _perturb(perturbed, _generator(x.device))
    x, context = _copy(x), None if context is None else _copy(context)
    shapes = _audit_shapes(given, x, context)
    if not shapes.passed:
        return Report((shapes,))
    pairs = zip(*(_judge(g, x, context, tolerance, draws) for g in (given, perturbed)), strict=True)
    worst = (max(pair, key=lambda f: (not f.passed, f.error)) for pair in pairs)
    return Report((shapes, *worst, _audit_reach(perturbed, x, context)))


def audit_gradients(flow: Flow, x: Tensor, context: Tensor | None = None, tolerance: float = 1e-4) -> Report:
    r"""Audit the gradient of the mean log-likelihood against central differences, parameter by parameter.

    For each parameter :math:`\theta` a random direction :math:`u` is drawn, and
    :math:`\langle \nabla_\theta L, u \rangle` is compared with :math:`(L(\theta + hu) - L(\theta - hu)) / 2h`. A
    log-determinant that was detached shows here and nowhere else. Random log-determinants are frozen by one seed.

    Args:
        flow: The flow; a float64 copy with perturbed weights is audited.
        x: Data points, shape ``(B, *event)``.
        context: What it is conditioned on, shape ``(B, features)``.
        tolerance: Bound on the error relative to the larger of the two derivatives and 1.

    Returns:
        A :class:`Report` with one finding for each parameter and one for x.
    """
    flow = copy.deepcopy(flow).double()
    generator = _generator(x.device)
    _perturb(flow, generator)
    x, context = _copy(x), None if context is None else _copy(context)
    leaves = {name: p for name, p in flow.named_parameters() if p.requires_grad} | {"x": x.requires_grad_()}

    def likelihood() -> Tensor:
        return flow.log_prob(x, context, _generator(x.device)).mean()

    grads = torch.autograd.grad(likelihood(), list(leaves.values()), allow_unused=True)
    hint = "The gradient is not that of log_prob: look for detach, create_graph=False, or a tensor outside the graph."
    findings = []
    for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
        direction = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype, device=leaf.device)
        slope = 0.0 if grad is None else (grad * direction).sum().item()
        norm = direction.norm()
        difference = _central_difference(likelihood, leaf, direction / norm) * norm.item()
        error = abs(slope - difference) / max(1.0, abs(difference))
        findings.append(Finding(f"gradient of {name}", error, tolerance, hint))
    return Report(tuple(findings))


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
        _audit_logdet("forward log-det", g, x, context, jacobians[0], tolerance, draws),
        _audit_logdet("inverse log-det", g.inverse, z, context, jacobians[1], tolerance, draws),
        _audit_rows(jacobians[0], tolerance),
    )


def _copy(x: Tensor) -> Tensor:
    return x.detach().double().clone(memory_format=torch.contiguous_format)


def _quietly(g: Map, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    y, logdet = g(x, context, _generator(x.device))
    return y.detach(), logdet.detach()


def _generator(device: torch.device) -> Generator:
    return Generator(device).manual_seed(0)


def _gap(a: Tensor, b: Tensor) -> float:
    """The largest difference relative to the larger of the point and 1; NaN counts as infinite."""
    gap = ((a - b).abs() / b.abs().clamp(min=1)).max().item()
    return gap if gap == gap else float("inf")


def _jacobian(g: Map, x: Tensor, context: Tensor | None) -> Tensor:
    """The Jacobian of the whole batch, shape (B, D, B, D)."""
    full = jacobian(lambda y: g(y, context, _generator(y.device))[0], x)
    batch, dim = x.shape[0], x[0].numel()
    return full.reshape(batch, dim, batch, dim)


def _audit_logdet(
    name: str, g: Map, x: Tensor, context: Tensor | None, full: Tensor, tolerance: float, draws: int
) -> Finding:
    rows = full.diagonal(dim1=0, dim2=2).movedim(-1, 0)
    truth = torch.linalg.slogdet(rows).logabsdet
    generator = _generator(x.device)
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
    z, logdet = g(x, context, _generator(x.device))
    loss = z.square().sum() - logdet.sum()
    grads = (
        torch.autograd.grad(loss, parameters, allow_unused=True) if parameters and loss.requires_grad else []
    )
    dead = len(parameters) - sum(grad is not None and bool(grad.any()) for grad in grads)
    hint = (
        f"{dead} of {len(parameters)} parameters get no gradient: not registered in the graph, or detached."
    )
    return Finding("gradient reaches every parameter", float(dead), 0.0, hint)


def _perturb(module: nn.Module, generator: Generator) -> None:
    with torch.no_grad():
        for p in module.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device)


def _central_difference(
    value: Callable[[], Tensor], leaf: Tensor, direction: Tensor, h: float = 1e-5
) -> float:
    with torch.no_grad():
        start = leaf.clone()
        leaf.copy_(start + h * direction)
        above = value().item()
        leaf.copy_(start - h * direction)
        below = value().item()
        leaf.copy_(start)
    return (above - below) / (2 * h)
