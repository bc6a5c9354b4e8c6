"""Checks of samples and of log-densities, and the form in which the metrics take them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cnflib._check import check_event, check_finite, eager
from cnflib._words import described, shown

__all__ = [
    "are_within",
    "check_draws",
    "check_samples",
    "check_unit",
    "checked_levels",
    "checked_logs",
    "extent",
]


def check_samples(x: Tensor, y: Tensor, least: int = 2) -> None:
    """Check that x and y are two samples of one space, without NaN and inf."""
    for value, name in ((x, "x"), (y, "y")):
        check_event(value, None, name)
        check_finite(value, name)
    if x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < least:
        raise ValueError(
            f"Expected x of shape (N, *event) and y of shape (M, *event) with N, M ≥ {least}; got {tuple(x.shape)} and "
            f"{tuple(y.shape)}. Reshape or pad one of the two."
        )


def check_draws(x: Tensor, draws: Tensor) -> None:
    """Check that there are S draws for each point of x, or S for all of them, and no NaN."""
    if not _are_draws(x, draws):
        raise ValueError(
            f"Expected draws of x, or log-densities of both, as tensors of shape (S, *x.shape){_sizes(x)}; got "
            f"{described(draws)} for x of {described(x)}. Of NumPy's take torch.as_tensor. S draws for each of N rows "
            "of context: cnflib.adapters.given(flow, context).sample((S,)); S draws of a model without context serve "
            "all rows as draws[:, None]."
        )
    if x.isnan().any() or draws.isnan().any():
        raise ValueError(
            "Expected x and its draws without NaN; got some. Look at these rows: an input that is not finite, or a "
            "diverging solver."
        )


def _are_draws(x: object, draws: object) -> bool:
    if not isinstance(x, Tensor) or not isinstance(draws, Tensor):
        return False
    return draws.shape[1:] in (x.shape, (1, *x.shape[1:])) and draws.numel() > 0


def _sizes(x: object) -> str:
    return f" = ({', '.join(map(str, ('S', *x.shape)))})" if isinstance(x, Tensor) else ""


def check_unit(u: Tensor, name: str) -> None:
    """Check that there are floating numbers, all in [0, 1]."""
    if not are_within(u, 1, floating=True):
        raise ValueError(
            f"Expected {name} of floating numbers in [0, 1], at least one; got {extent(u)}. It takes PIT values, or "
            "levels of regions: of latents latent_pit(z), of x and draws of the model pit(x, draws); a level is "
            "central_level(u) of these; for ranks there is rank_uniformity(ranks, draws)."
        )


def are_within(values: Tensor, top: int, floating: bool) -> bool:
    """Whether there are numbers, floating or integers as said, all from 0 to top as far as Python may look."""
    if not isinstance(values, Tensor) or values.is_floating_point() != floating or values.dtype == torch.bool:
        return False
    return values.numel() > 0 and (not eager(values) or bool(((values >= 0) & (values <= top)).all()))


def extent(values: object) -> str:
    """What a message says of numbers: their shape, their dtype and where they lie."""
    if not isinstance(values, Tensor):
        return f"{described(values)}, of which torch.as_tensor makes a tensor"
    span = f", from {values.min().item():.4g} to {values.max().item():.4g}" if values.numel() else ""
    return f"{described(values)} of {values.dtype}{span}"


def checked_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Nominal levels as floats, where each is in (0, 1)."""
    values = torch.as_tensor(levels, dtype=torch.float64)
    if values.ndim != 1 or not ((values > 0) & (values < 1)).all():
        raise ValueError(
            f"Expected levels to be a sequence of numbers in (0, 1); got {shown(levels)}. 90 % is 0.9, and one level "
            "is (0.9,)."
        )
    return tuple(values.tolist())


def checked_logs(log_prob: Tensor, name: str, least: int) -> Tensor:
    """The values in float64 on the CPU, after a check of shape, NaN and +inf."""
    if not isinstance(log_prob, Tensor) or log_prob.ndim != 1 or len(log_prob) < least:
        raise ValueError(
            f"Expected {name} to be a tensor of shape (N,) with N ≥ {least}, one number per point; got "
            f"{described(log_prob)}. Pass "
            "the values at all points, before any mean, summed over the event's dimensions; torch.as_tensor makes a "
            "tensor of NumPy's."
        )
    values = log_prob.detach().cpu().double()
    bad = (values.isnan() | values.isposinf()).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"Expected {name} < +inf and not NaN; got {'NaN' if values[bad[0]].isnan() else '+inf'} at {len(bad)} of "
            f"{len(values)} points, first at index {bad[0]}. Look at that point: an input that is not finite, a "
            "diverging solver, or a density that has collapsed onto it."
        )
    return values
