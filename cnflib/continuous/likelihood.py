r"""Likelihoods that say how sure they are, with their costs, at any time of the flow, and in bounded memory."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_call, check_context, check_event, check_flow, check_positive_int, check_rows
from cnflib._field import takes
from cnflib._random import source
from cnflib._words import described
from cnflib.continuous.cnf import CNF, Solution
from cnflib.flow import Flow
from cnflib.metrics import Estimate, nll

__all__ = ["Likelihood", "in_chunks", "log_prob_and_costs", "log_prob_at", "log_prob_with_error", "refined"]


Rows = TypeVar("Rows", bound=Tensor | tuple)
"""A tensor with a row for each point, or a tuple of such."""


class Likelihood(NamedTuple):
    r"""A log-likelihood with the two errors it is known to have, each of shape ``(B,)``, in nats.

    Attributes:
        mean: Mean of :math:`\log p(x)` over the probes.
        standard_error: Standard error of the mean, from the spread over the probes; 0 where nothing is drawn.
        discretisation: :math:`|\log p(x) - \log p'(x)|` with p' from a solve with steps of half the length and the
            same probe: an estimate of the solver's error, not a bound.

    Example:
        >>> import torch
        >>> from cnflib.continuous import log_prob_with_error
        >>> from cnflib.models import ffjord
        >>> likelihood = log_prob_with_error(
        ...     ffjord(dim=2, hidden=(8,)), torch.randn(5, 2)
        ... )
        >>> isinstance(likelihood, Likelihood), likelihood.standard_error
        (True, tensor([0., 0., 0., 0., 0.]))
    """

    mean: Tensor
    standard_error: Tensor
    discretisation: Tensor

    @property
    def nll(self) -> Estimate:
        r"""The negative log-likelihood per point of these N rows, in nats, with one error for all that is uncertain.

        .. math:: \mathrm{nll} = -\frac1N \sum_i m_i, \qquad
                  \mathrm{se}^2 = \frac{s^2}{N} + \Big(\frac1N \sum_i d_i\Big)^2

        The spread s of the means :math:`m_i` over rows has the spread of the data and that of the probes, drawn for
        each row; the discretisations :math:`d_i` are no noise that rows would average, and count as if all erred one
        way. The probes' share alone is ``standard_error.square().sum().sqrt() / N``. Many rows come in chunks:
        ``in_chunks(lambda x, c: log_prob_with_error(flow, x, 16, c), x, 256, context).nll``.
        """
        value, error = nll(self.mean)
        return Estimate(value, math.hypot(error, self.discretisation.mean().item()))


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
    so for p(x) or for an average of densities. Each probe is one ``log_prob`` of the batch, the finer solve one more;
    where nothing is drawn, as with :class:`Exact`, the first is enough. Of few probes the spread is uncertain too: with
    K = 4 an interval of two standard errors holds 86 % and not 95 % (Student's t).

    Args:
        flow: A flow with at least one :class:`CNF` in it, anywhere in a chain.
        x: Data, shape ``(B, *event)``.
        probes: The number K of probes, at least 2.
        context: What the density is conditioned on, a tensor of B rows.
        generator: Source of the probes; seed it to get the same numbers again.

    Returns:
        A :class:`Likelihood`: ``mean``, ``standard_error`` and ``discretisation`` of each row, and ``nll`` of them all.

    Raises:
        ValueError: If there is no CNF in the flow, its solver cannot be refined, or ``probes`` is below 2.

    Example:
        >>> import torch
        >>> from cnflib.continuous import Hutchinson
        >>> from cnflib.models import ffjord
        >>> flow, x = (
        ...     ffjord(dim=2, hidden=(8,), divergence=Hutchinson()),
        ...     torch.randn(5, 2),
        ... )
        >>> log_prob_with_error(flow, x, probes=4).standard_error.shape
        torch.Size([5])
    """
    check_flow(flow)
    check_call(x, flow.event_shape, context, flow, generator=generator)
    probes = check_positive_int(probes, "probes", " The spread of one is unknown.", least=2)
    state = _draw_state(x, generator)
    values = [flow.log_prob(x, context, generator)]
    after = _draw_state(x, generator)
    drawn = not torch.equal(state, after)
    values += [flow.log_prob(x, context, generator) for _ in range(probes - 1) if drawn]
    end = _draw_state(x, generator)
    _restore(x, generator, state)
    finer = refined(flow).log_prob(x, context, generator)
    _restore(x, generator, end)
    stack = torch.stack(values)
    spread = stack.std(0) if drawn else torch.zeros_like(stack[0])
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
        context: What the density is conditioned on, a tensor of B rows.
        generator: Source of the divergence's probes.

    Returns:
        Nats, shape ``(B,)``.

    Raises:
        ValueError: If the flow's bijection is not a CNF: a chain has no times between its layers.

    Example:
        >>> import torch
        >>> from cnflib.models import ffjord
        >>> flow, x = ffjord(dim=2, hidden=(8,)), torch.randn(5, 2)
        >>> torch.allclose(log_prob_at(flow, x, 0.0), flow.base.log_prob(x))
        True
    """
    if not isinstance(getattr(flow, "bijection", None), CNF):
        raise ValueError(
            "Expected flow to be a Flow of a single CNF; got "
            f"{described(getattr(flow, 'bijection', flow))}. For a CNF inside a chain: "
            "log_prob_at(Flow(cnf, flow.base), x, t), with x in the coordinates of the CNF."
        )
    check_event(x, flow.event_shape)
    solution = flow.bijection.solve(x, t, 0.0, context, generator)
    return flow.base.log_prob(solution.x, context, generator) + solution.logdet


def log_prob_and_costs(
    flow: Flow, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    r"""Log-density and the costs of the paths that gave it, by one solve: the loss of regularised training.

    .. math:: L = -\log p(x) + \sum_j \lambda_j \int_0^1 c_j(t, x(t))\,dt

    Costs are those of every :class:`CNF` in the flow, summed cost by cost, in the coordinates that each CNF sees.

    Args:
        flow: A flow with a CNF in it, anywhere: in a chain, an inverse, a split, behind other units.
        x: Data, shape ``(B, *event)``.
        context: What the density is conditioned on, a tensor of B rows.
        generator: Source of the probes.

    Returns:
        The log-density in nats, shape ``(B,)``, and one :math:`\int |dt|` for each cost, shape ``(B,)``.

    Raises:
        ValueError: As :meth:`cnflib.Flow.log_prob`, and if the flow has no CNF, if its CNFs have no costs or not
            equally many, or if ``log_prob`` passes one of them by.

    References:
        How to train your neural ODE, Finlay et al., 2020, arXiv:2002.02798.

    Example:
        >>> import torch
        >>> from cnflib import Flow, Standardize, StandardNormal
        >>> from cnflib.continuous import CNF, JacobianFrobenius, KineticEnergy
        >>> from cnflib.nets import MLP
        >>> x = 100 + 5 * torch.randn(64, 2)
        >>> cnf = CNF(
        ...     MLP(2, hidden=(8,)), costs=(KineticEnergy(), JacobianFrobenius())
        ... )
        >>> flow = Flow(cnf, StandardNormal(2)).after(Standardize.fit(x))
        >>> log_prob, (energy, frobenius) = log_prob_and_costs(flow, x)
        >>> loss = (-log_prob + 0.1 * energy + 0.1 * frobenius).mean()
    """
    noted: list[tuple[int, tuple[Tensor, ...]]] = []
    present: dict[int, int] = {}

    def note(cnf: CNF) -> None:
        solve = cnf._solve
        present[id(cnf)] = len(cnf.costs)

        def noting(*args: object) -> Solution:
            solution = solve(*args)
            noted.append((id(cnf), tuple(cost[-1] for cost in solution.costs)))
            return solution

        cnf._solve = noting

    check_flow(flow)
    flow = _with_cnfs(flow, note, "it has no costs")
    if set(present.values()) == {0} or len(set(present.values())) > 1:
        raise ValueError(
            "Expected every CNF of the flow to have the same number of costs, at least one; got "
            f"{', '.join(map(str, present.values()))}. Build each as CNF(field, costs=(KineticEnergy(),))."
        )
    log_prob = flow.log_prob(x, context, generator)
    if {key for key, _ in noted} != set(present):
        raise ValueError(
            f"Expected log_prob to solve all {len(present)} CNFs of the flow; some of them it passes by, and their "
            "costs are unknown. Take out what is no part of the density, or use cnf.solve(x, 1.0, 0.0).costs."
        )
    return log_prob, tuple(sum(costs[1:], costs[0]) for costs in zip(*(c for _, c in noted), strict=True))


def in_chunks(
    function: Callable[..., Rows],
    x: Tensor,
    size: int,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Rows:
    r"""A function of rows, evaluated on a few rows at a time: the memory of ``size`` rows is enough.

    ``in_chunks(flow.log_prob, x, 64)`` is ``flow.log_prob(x)``, up to the tolerance of an adaptive solver, whose steps
    depend on who shares the batch. Call it under ``torch.no_grad()``: a graph would keep every chunk.

    Args:
        function: Called as ``function(x, context)`` on rows of x and context, without a context as ``function(x)``, or
            with None where it must take two. It returns a tensor with a row for each of x, or a tuple of such, also one
            with names, like a :class:`Likelihood`.
        x: What the function is of, shape ``(B, *)``.
        size: Rows in a chunk.
        context: One row for each of x, or None.
        generator: Passed on as ``generator=generator`` where it is given; each chunk draws on from the one before.

    Returns:
        What the function returns, of all rows.

    Raises:
        ValueError: If ``size`` is not a positive int, the context has not B rows, or the function returns something
            else than tensors of its rows.

    Example:
        >>> import torch
        >>> from cnflib.models import ffjord
        >>> with torch.no_grad():
        ...     log_prob = in_chunks(
        ...         ffjord(dim=2, hidden=(8,)).log_prob, torch.randn(100, 2), 32
        ...     )
        >>> log_prob.shape
        torch.Size([100])
    """
    size = check_positive_int(size, "size")
    check_rows(x, "x")
    check_context(context, x)
    pairs = context is not None or not takes(function, 1, *source(generator))
    found = []
    for first in range(0, x.shape[0] or 1, size):
        rows = x[first : first + size]
        c = None if context is None else context[first : first + size]
        value = function(rows, *([c] if pairs else []), **source(generator))
        found.append(_of_rows(value, rows))
    return _rejoined(found)


def _rejoined(parts: Sequence[Rows]) -> Rows:
    """Tensors one behind the other; tuples part by part, in the kind that they are."""
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    joined = [_rejoined(column) for column in zip(*parts, strict=True)]
    return type(parts[0])(*joined) if hasattr(parts[0], "_fields") else tuple(joined)


def _of_rows(value: Rows, rows: Tensor) -> Rows:
    """What a function returned for some rows, where it is a tensor of as many, or a tuple of such."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, tuple):
            _of_rows(part, rows)
        elif not isinstance(part, Tensor) or part.shape[:1] != rows.shape[:1]:
            raise ValueError(
                f"Expected function to return a tensor with a row for each of its {len(rows)}, or a tuple of such; got "
                f"{described(part)}. Leave out means and counts, as in lambda x, c: cnf.solve(x, 1.0, 0.0, c)[:2]."
            )
    return value


def refined(flow: Flow) -> Flow:
    r"""The same flow, parameters shared, with every CNF solved in steps of half the length.

    Fixed steps are twice as many. An adaptive step is half of the one that the tolerance allows; where a solve takes
    many steps, it takes about twice as many.

    Raises:
        ValueError: If there is no CNF in the flow, or a solver has no method ``halved()``.

    Example:
        >>> from cnflib.models import ffjord
        >>> from cnflib.ode import Fixed
        >>> refined(ffjord(dim=2, solver=Fixed(4))).bijection.solver
        Fixed(8)
    """

    def halve(cnf: CNF) -> None:
        if not hasattr(cnf.solver, "halved"):
            raise ValueError(
                f"Expected a solver that can halve its steps, Adaptive(…) or Fixed(…); got {cnf.solver!r}. Give your "
                "own a method halved(), which returns a solver of half the step."
            )
        cnf.solver = cnf.solver.halved()

    return _with_cnfs(flow, halve, "its log-density has no discretisation error")


def _with_cnfs(flow: Flow, change: Callable[[CNF], None], without: str) -> Flow:
    """The flow with a changed copy of each CNF in its place; parameters are shared, and all that holds no CNF."""
    copies: dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in copies:
            copies[id(module)] = fresh(module)
        return copies[id(module)]

    def fresh(module: nn.Module) -> nn.Module:
        if isinstance(module, CNF):
            cnf = _shallow(module)
            change(cnf)
            return cnf
        parts = {name: None if part is None else copied(part) for name, part in module._modules.items()}
        if all(parts[name] is part for name, part in module._modules.items()):
            return module
        holder = _shallow(module)
        holder._modules.update(parts)
        return holder

    changed = copied(flow)
    if changed is flow:
        raise ValueError(f"Expected a flow with a CNF in it; {without}.")
    return changed


def _shallow(module: nn.Module) -> nn.Module:
    """A module of the same parameters, buffers and parts, of which a part can be replaced."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__, _modules=module._modules.copy())
    return twin


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
