"""The audit of a bijection: round trips, log-determinants, rows kept apart, gradients that arrive."""

import copy
import math

import torch
from torch import Tensor

from cnflib._check import check_bijection, check_call, check_positive_int, event_of
from cnflib.audit._copies import (
    check_audit,
    double_copy,
    double_module,
    perturb,
    said,
    seeded,
)
from cnflib.audit._jacobians import (
    audit_derivative,
    audit_logdet,
    audit_rows,
    finding,
    gap,
    jacobian_of,
    quietly,
)
from cnflib.audit._learned import audit_detached, audit_reach, audit_registered
from cnflib.audit._returns import audit_returns
from cnflib.audit.report import Finding, Report
from cnflib.bijection import Bijection

__all__ = ["audit_bijection"]


def __dir__() -> list[str]:
    return sorted(__all__)


def audit_bijection(
    bijection: Bijection,
    x: Tensor,
    z: Tensor | None = None,
    context: Tensor | None = None,
    tolerance: float = 1e-6,
    draws: int = 256,
) -> Report:
    r"""Audit a bijection at given points: what it returns, round trips, log-determinants, rows kept apart, gradients.

    Both log-determinants are held against ``slogdet`` of the Jacobian by autograd, row by row. Where they are random
    (a trace estimator) it is their mean over draws that is judged, within 4 standard errors. Every check runs at the
    weights given and at perturbed ones, the worse finding is reported; gradients are judged at perturbed weights: that
    they reach every parameter, and that latent and log-determinant have one for all that changes them, a context too.
    A parameter that changes nothing at these points is no fault. Whether gradients are right is for
    :func:`audit_gradients`. What the bijection raises, and values that are not finite, are findings too.

    Args:
        bijection: The bijection, or anything with its four methods; a float64 copy of it is audited.
        x: Data points, shape ``(B, *event)``; a handful is enough, the Jacobian costs D passes.
        z: Latents to decode, as many: what the base may draw; by default draws of N(0, I) and their mirror images. A
            map that is not onto, for which such a draw has no data, fails here.
        context: What it is conditioned on, a tensor of B rows.
        tolerance: Bound on every deterministic error. An adaptive CNF is an inverse only up to its own tolerance:
            audit it with ``Adaptive(rtol=1e-9, atol=1e-9)``.
        draws: Number of draws for each point where the log-determinant is random, all in one batch.

    Returns:
        A :class:`Report`.

    Raises:
        ValueError: If the bijection lacks a method, has one that does not take x, context and generator, or is a flow;
            if x has no batch dimension, is empty, not floating or not finite; if z has another size; if the context has
            not B rows; if the tolerance is not positive.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Planar
        >>> report = audit_bijection(Planar(2), torch.randn(3, 2))
        >>> report.raise_for_faults()
        >>> print(report)  # doctest: +ELLIPSIS
        check                                       error      bound
        methods return (B, *event) and (B,)      0.00e+00   0.00e+00  ok
        x is left as it was                      0.00e+00   0.00e+00  ok
        ...
    """
    check_bijection(bijection, "bijection")
    check_call(x, event_of(bijection, x), context, None)
    check_audit(x, tolerance)
    if z is not None and (len(z) != len(x) or z[0].numel() != x[0].numel()):
        raise ValueError(
            f"Expected z to hold a latent for each of {len(x)} points, of {x[0].numel()} coordinates each; got "
            f"{tuple(z.shape)}. Without z they are drawn from N(0, I)."
        )
    draws = check_positive_int(draws, "draws")
    registered = audit_registered(bijection)
    if not registered.passed:
        return Report((registered,), NOTE)
    double = double_module(bijection)
    perturbed = copy.deepcopy(double)
    perturb(perturbed, seeded(x.device))
    x, z, context = double_copy(x), double_copy(z), double_copy(context)

    worst: dict[str, Finding] = {}
    for g in (double, perturbed):
        called = audit_returns(g, x, context)
        if not all(f.passed for f in called):
            where = "" if g is double else " This is at perturbed weights."
            return Report(tuple(f._replace(hint=f.hint + where) for f in called), NOTE)
        for f in (*called, *_judge(g, x, z, context, tolerance, draws)):
            worst[f.check] = max(worst.get(f.check, f), f, key=lambda f: (not f.passed, f.error))
    last = audit_reach(perturbed, x, context), audit_detached(perturbed, x, context)
    return Report((*worst.values(), registered, *last), NOTE)


NOT_ONTO = (
    "encode does not undo decode at such a latent. Where that is more than a solver's error the map is not onto: the "
    "latent has no data, and a flow cannot sample there. Where the base draws others than N(0, I), pass them as z."
)
NOTE = "Next: audit_gradients(flow, x) holds the gradients of log_prob against differences."


def _judge(
    g: Bijection, x: Tensor, z: Tensor | None, context: Tensor | None, tolerance: float, draws: int
) -> list[Finding]:
    """What is found of a bijection whose methods return what they should."""
    encode, decode = g.encode_and_logdet, g.decode_and_logdet
    latent, logdet = quietly(encode, x, context)
    back, logdet_back = quietly(decode, latent, context)
    infinite = sum((~t.isfinite()).sum().item() for t in (latent, logdet, back, logdet_back))
    hint = "NaN or inf at these points: look for a log or a root of 0."
    findings = [
        Finding("values are finite", float(infinite), 0.0, hint),
        *_round_trips(g, x, z, latent, back, context, tolerance),
    ]
    try:
        jacobians = jacobian_of(encode, x, context), jacobian_of(decode, latent, context)
    except Exception as error:
        return [*findings, Finding("Jacobian by autograd", math.inf, 0.0, said(error))]
    return [
        *findings,
        audit_derivative(encode, x, context, jacobians[0]),
        audit_logdet("encode log-det", encode, x, context, jacobians[0], tolerance, draws),
        audit_logdet("decode log-det", decode, latent, context, jacobians[1], tolerance, draws),
        audit_rows(g, x, latent, context, jacobians, tolerance),
    ]


def _round_trips(
    g: Bijection,
    x: Tensor,
    z: Tensor | None,
    latent: Tensor,
    back: Tensor,
    context: Tensor | None,
    tolerance: float,
) -> list[Finding]:
    """Each direction undoes the other, from x, from its latent, and from latents z or of N(0, I)."""
    normal = torch.randn(latent.shape, generator=seeded(x.device, 6), dtype=x.dtype, device=x.device)
    latents = (normal, -normal) if z is None else (z,)

    def again(start: Tensor) -> float:
        data = quietly(g.decode_and_logdet, start, context)[0]
        return (
            gap(quietly(g.encode_and_logdet, data, context)[0], start) if data.isfinite().all() else math.inf
        )

    def alone(name: str, point: Tensor, wanted: Tensor) -> float:
        return gap(getattr(g, name)(point, context, seeded(x.device)).detach(), wanted)

    two = "The two give different points."
    return [
        finding(check, tolerance, hint, error)
        for check, hint, error in (
            ("decode(encode(x)) = x", "decode does not undo encode here.", lambda: gap(back, x)),
            (
                "encode(decode(z)) = z at z = encode(x)",
                "encode does not undo decode here.",
                lambda: again(latent),
            ),
            ("encode(decode(z)) = z at latents z", NOT_ONTO, lambda: max(map(again, latents))),
            ("encode = encode_and_logdet", two, lambda: alone("encode", x, latent)),
            ("decode = decode_and_logdet", two, lambda: alone("decode", latent, back)),
        )
    ]
