"""The audit of a flow's gradients: against central differences, and between the ways to differentiate a solve."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import is_dataclass, replace

import torch
from torch import Generator, Tensor

from cnflib._check import check_call, check_flow
from cnflib.audit._copies import (
    check_audit,
    double_copy,
    double_module,
    perturb,
    said,
    seeded,
)
from cnflib.audit._learned import audit_registered
from cnflib.audit.report import Finding, Report
from cnflib.continuous import CNF
from cnflib.flow import Flow
from cnflib.ode import Solver, alternatives

__all__ = ["audit_gradients"]


def __dir__() -> list[str]:
    return sorted(__all__)


def audit_gradients(flow: Flow, x: Tensor, context: Tensor | None = None, tolerance: float = 1e-4) -> Report:
    r"""Audit the gradient of the mean log-likelihood against central differences, parameter by parameter.

    For each parameter :math:`\theta` a random direction :math:`u` is drawn, and
    :math:`\langle \nabla_\theta L, u \rangle` is compared with :math:`(L(\theta + hu) - L(\theta - hu)) / 2h`; x, and
    a context of floating dtype, are judged like parameters. A gradient that is there and wrong, as of a log-determinant
    that was detached in part, shows here and nowhere else. Random log-determinants are frozen by one seed. An estimate
    that holds a part of itself constant in gradients (Hutch++) is right in expectation only: where one seed disagrees,
    the mean over draws is judged, within 4 standard errors.

    A flow with a CNF in it is audited in every way to differentiate its solve, adaptive ones at tolerance 1e-9:
    backpropagation beside the adjoint, or beside a checkpoint at every step, each against central differences and
    against the other.

    Args:
        flow: The flow; a float64 copy with perturbed weights is audited.
        x: Data points, shape ``(B, *event)``.
        context: What it is conditioned on, a tensor of B rows.
        tolerance: Bound on the error relative to the larger of the two derivatives and 1.

    Returns:
        A :class:`Report` with one finding for each parameter, for x and for a floating context, in each way, one for
        each two ways, and one for what is not registered. A way that raises is a finding too.

    Raises:
        ValueError: If x has another event shape, no batch dimension, is empty, or is not floating or not
            finite; if the context has not B rows; if the tolerance is not positive.

    Example:
        >>> import torch
        >>> from cnflib.models import realnvp
        >>> audit_gradients(
        ...     realnvp(dim=2, layers=2, hidden=(8,)), torch.randn(3, 2)
        ... ).raise_for_faults()
    """
    check_flow(flow)
    check_call(x, flow.event_shape, context, None)
    check_audit(x, tolerance)
    registered = audit_registered(flow)
    if not registered.passed:
        return Report((registered,))
    flow = double_module(flow)
    generator = seeded(x.device)
    perturb(flow, generator)
    x, context = double_copy(x), double_copy(context)
    given = {"context": context, "x": x}
    points = {
        name: a.requires_grad_() for name, a in given.items() if a is not None and a.is_floating_point()
    }
    leaves = {name: p for name, p in flow.named_parameters() if p.requires_grad} | points
    directions = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype, device=p.device) for p in leaves.values()
    ]

    def likelihood(draws: Generator) -> Tensor:
        return flow.log_prob(x, context, draws).mean()

    findings: list[Finding] = []
    gradients: dict[str, list[Tensor]] = {}
    for way in _ways(flow):
        try:
            gradients[way] = _gradients(likelihood, leaves.values(), 0)
            judged = _judge_slopes(likelihood, list(leaves.values()), directions, tolerance)
        except Exception as error:  # whatever the audited code raises is a finding
            gradients.pop(way, None)
            check = f"gradient by {way}" if way else "gradient"
            findings.append(Finding(check, math.inf, tolerance, said(error)))
            continue
        labels = [f"of {name}, by {way}" if way else f"of {name}" for name in leaves]
        findings += [f._replace(check=f"{f.check} {label}") for f, label in zip(judged, labels, strict=True)]
    return Report((*findings, registered, *_compare(gradients, tolerance)))


MeanLikelihood = Callable[[Generator], Tensor]
_HINT = "The gradient is not that of log_prob: look for detach, create_graph=False, or a tensor outside the graph."


def _judge_slopes(
    likelihood: MeanLikelihood,
    leaves: list[Tensor],
    directions: list[Tensor],
    tolerance: float,
    draws: int = 32,
) -> list[Finding]:
    """One finding for each leaf: at one seed, or over many where the log-determinant is random and one disagrees."""
    slopes, truth = _both(likelihood, leaves, directions, 0)
    errors = (slopes - truth).abs() / truth.abs().clamp(min=1)
    findings = [Finding("gradient", e, tolerance, _HINT) for e in errors.nan_to_num(torch.inf).tolist()]
    if all(f.passed for f in findings) or not _draws(likelihood, leaves[-1].device):
        return findings
    pairs = [_both(likelihood, leaves, directions, seed) for seed in range(draws)]
    gaps = torch.stack([slopes - truth for slopes, truth in pairs])
    errors = gaps.mean(0).abs() / (gaps.std(0) / draws**0.5 + tolerance)
    means = [Finding("mean gradient, in standard errors,", e, 4.0, _HINT) for e in errors.tolist()]
    return [f if f.passed else mean for f, mean in zip(findings, means, strict=True)]


def _both(
    likelihood: MeanLikelihood, leaves: list[Tensor], directions: list[Tensor], seed: int
) -> tuple[Tensor, Tensor]:
    """Slopes along the directions by autograd and by central differences, both of shape (leaves,)."""
    grads = _gradients(likelihood, leaves, seed)
    slopes = torch.stack([(g * u).sum() for g, u in zip(grads, directions, strict=True)])
    device = leaves[-1].device
    truth = [
        _central_difference(lambda: likelihood(seeded(device, seed)), leaf, u / u.norm()) * u.norm()
        for leaf, u in zip(leaves, directions, strict=True)
    ]
    return slopes, torch.stack(truth)


def _gradients(likelihood: MeanLikelihood, leaves: Collection[Tensor], seed: int) -> list[Tensor]:
    leaves = list(leaves)
    grads = torch.autograd.grad(likelihood(seeded(leaves[-1].device, seed)), leaves, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, grads, strict=True)]


def _draws(likelihood: MeanLikelihood, device: torch.device) -> bool:
    """Whether the likelihood is random."""
    generator = seeded(device)
    before = generator.get_state()
    with torch.no_grad():
        likelihood(generator)
    return not torch.equal(before, generator.get_state())


def _compare(gradients: dict[str, list[Tensor]], tolerance: float) -> list[Finding]:
    """The gradients of each way beside those of backpropagation: a checkpoint's are the same, an adjoint's close."""
    plain = gradients.get("backprop", [])
    bounds = {"checkpoint": 1e-10, "adjoint": tolerance}
    hint = "Two ways to differentiate one solve disagree: look for a tensor that one of them does not see."
    return [
        Finding(f"{way} = backprop", max(_distance(a, b) for a, b in zip(gradients[way], plain)), bound, hint)
        for way, bound in bounds.items()
        if way in gradients and plain
    ]


def _distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).nan_to_num(torch.inf).item()


def _ways(flow: Flow) -> Iterator[str]:
    """Set the flow's solvers to each way to differentiate in turn and yield its name; "" where there is only one."""
    cnfs = [module for module in flow.modules() if isinstance(module, CNF)]
    ways = [alternatives(_tight(cnf.solver)) for cnf in cnfs]
    for name in dict.fromkeys(name for way in ways for name in way) or [""]:
        for cnf, way in zip(cnfs, ways, strict=True):
            cnf.solver = way.get(name, way.get("backprop", cnf.solver))
        yield name


def _tight(solver: Solver, tolerance: float = 1e-9) -> Solver:
    adaptive = is_dataclass(solver) and hasattr(solver, "rtol")
    return replace(solver, rtol=tolerance, atol=tolerance) if adaptive else solver


@torch.no_grad()
def _central_difference(
    value: Callable[[], Tensor], leaf: Tensor, direction: Tensor, h: float = 1e-5
) -> Tensor:
    start = leaf.clone()
    leaf.copy_(start + h * direction)
    above = value()
    leaf.copy_(start - h * direction)
    below = value()
    leaf.copy_(start)
    return (above - below) / (2 * h)
