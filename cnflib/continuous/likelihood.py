r"""Likelihoods that say how sure they are, at any time of the flow, and in bounded memory."""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cnflib._check import check_context, check_event, check_positive_int
from cnflib.continuous.cnf import CNF
from cnflib.continuous.solvers import Solver
from cnflib.flow import Flow

__all__ = ["Likelihood", "in_chunks", "log_prob_at", "log_prob_with_error", "refined"]


class Likelihood(NamedTuple):
    r"""A log-likelihood with the two errors it is known to have, each of shape ``(B,)``, in nats.

    Attributes:
        mean: Mean of :math:`\log p(x)` over the probes.
        standard_error: Standard error of the mean, from the spread over the probes; 0 where nothing is drawn.
        discretisation: :math:`|\log p(x) - \log p'(x)|` with p' from a solve with steps of half the length and the
            same probe: an estimate of the solver's error, not a bound.
    """

    mean: Tensor
    standard_error: Tensor
    discretisation: Tensor


@torch.no_grad()
def log_prob_with_error(
    flow: Flow,
    x: Tensor,
    probes: int = 16,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Likelihood:
    r"""Log-density with an error bar: K probes give a mean and its standard error, a finer solve the rest.

    The estimate of the trace enters :math:`\log p` linearly, so the mean is unbiased for :math:`\log p(x)`; it is not
    so for p(x) or for an average of densities. Each probe is one ``log_prob`` of the batch, the finer solve one more.

    Args:
        flow: A flow with at least one :class:`CNF` in it, anywhere in a chain.
        x: Data, shape ``(B, *event)``.
        probes: The number K of probes, at least 2.
        context: What the density is conditioned on, shape ``(B, features)``.
        generator: Source of the probes; seed it to get the same numbers again.

    Raises:
        ValueError: If there is no CNF in the flow, its solver is not of this library, or ``probes`` is below 2.
    """
    check_positive_int(probes, "probes")
    if probes < 2:
        raise ValueError("Expected probes >= 2: the spread of a single one is unknown; got 1.")
    state = _draw_state(x, generator)
    values = [flow.log_prob(x, context, generator)]
    after = _draw_state(x, generator)
    values += [flow.log_prob(x, context, generator) for _ in range(probes - 1)]
    end = _draw_state(x, generator)
    _restore(x, generator, state)
    finer = refined(flow).log_prob(x, context, generator)
    _restore(x, generator, end)
    stack = torch.stack(values)
    spread = stack.std(0) if not torch.equal(state, after) else torch.zeros_like(stack[0])
    return Likelihood(stack.mean(0), spread / probes**0.5, (finer - stack[0]).abs())


def log_prob_at(
    flow: Flow,
    x: Tensor,
    t: float | Tensor,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The log-density :math:`\log p_t(x)` of the flow stopped at time t: the base at 0, the model at 1.

    .. math:: \log p_t(x) = \log p_Z(x(0)) - \int_0^t \operatorname{tr} J(s, x(s))\,ds, \qquad x(t) = x

    Args:
        flow: A flow whose bijection is a single :class:`CNF`.
        x: Points at time t, shape ``(B, *event)``.
        t: Time in [0, 1].
        context: What the density is conditioned on, shape ``(B, features)``.
        generator: Source of the divergence's probes.

    Returns:
        Nats, shape ``(B,)``.

    Raises:
        ValueError: If the flow's bijection is not a CNF: a chain has no times between its layers.
    """
    if not isinstance(flow.bijection, CNF):
        raise ValueError(
            f"Expected a flow of a single CNF; got {type(flow.bijection).__name__}. For a CNF inside a chain: "
            "log_prob_at(Flow(cnf, flow.base), x, t), with x in the coordinates of the CNF."
        )
    check_event(x, getattr(flow.base, "shape", None))
    solution = flow.bijection.solve(x, t, 0.0, context, generator)
    return flow.base.log_prob(solution.x, context) + solution.logdet


def in_chunks(
    function: Callable[..., Tensor], x: Tensor, size: int, context: Tensor | None = None, **options: Generator
) -> Tensor:
    r"""A function of rows, evaluated on a few rows at a time: the memory of ``size`` rows is enough.

    ``in_chunks(flow.log_prob, x, 64)`` is ``flow.log_prob(x)``, up to the tolerance of an adaptive solver, whose steps
    depend on who shares the batch. Call it under ``torch.no_grad()``: a graph would keep every chunk.

    Args:
        function: Called as ``function(x, context, **options)`` on rows of x and context; returns one result a row.
        x: Points, shape ``(B, *event)``.
        size: Rows in a chunk.
        context: One row for each of x, or None.
        options: Passed on as they are, e.g. ``generator``.

    Raises:
        ValueError: If ``size`` is not a positive int, or x has no batch dimension.
    """
    check_positive_int(size, "size")
    check_event(x, None)
    check_context(context, x)
    contexts = [None] * (-(-len(x) // size) or 1) if context is None else context.split(size)
    return torch.cat([function(a, c, **options) for a, c in zip(x.split(size), contexts, strict=True)])


def refined(flow: Flow) -> Flow:
    r"""The same flow, parameters shared, with every CNF solved in steps of half the length.

    Fixed steps are twice as many. An adaptive step is half of the one that the tolerance allows; where a solve takes
    many steps, it takes about twice as many.

    Raises:
        ValueError: If there is no CNF in the flow, or a solver is not of this library.
    """
    shared = {id(p): p for p in (*flow.parameters(), *flow.buffers())}
    finer = copy.deepcopy(flow, shared)
    cnfs = [module for module in finer.modules() if isinstance(module, CNF)]
    if not cnfs:
        raise ValueError("Expected a flow with a CNF in it; its log-density has no discretisation error.")
    for cnf in cnfs:
        cnf.solver = _halved(cnf.solver)
    return finer


def _halved(solver: Solver) -> Solver:
    options = getattr(solver, "keywords", {})
    for name in ("pieces", "steps"):
        if name in options:
            return partial(solver, **{name: 2 * options[name]})
    raise ValueError("Expected a solver of this library: adaptive, fixed, adjoint or checkpointed.")


def _draw_state(x: Tensor, generator: Generator | None) -> Tensor:
    """The state of what a draw on x's device takes its numbers from."""
    if generator is not None:
        return generator.get_state()
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


def _restore(x: Tensor, generator: Generator | None, state: Tensor) -> None:
    if generator is not None:
        generator.set_state(state)
    elif x.is_cuda:
        torch.cuda.set_rng_state(state, x.device)
    else:
        torch.set_rng_state(state)
