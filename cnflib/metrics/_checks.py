"""Checks of samples and of log-densities, and the form in which the metrics take them."""

from torch import Tensor

from cnflib._check import check_event, check_finite, described

__all__ = ["check_draws", "check_samples", "checked_logs"]


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


def check_draws(x: Tensor, draws: Tensor, name: str = "x") -> None:
    """Check that there are S draws for each point of x, and no NaN."""
    if not isinstance(draws, Tensor) or draws.shape[1:] != x.shape or draws.numel() == 0:
        raise ValueError(
            f"Expected draws of {name} of shape (S, *{name}.shape) = (S, {', '.join(map(str, x.shape))}); got "
            f"{described(draws)}. S draws for each of N rows of context: "
            "cnflib.adapters.given(flow, context).sample((S,))."
        )
    if x.isnan().any() or draws.isnan().any():
        raise ValueError(
            f"Expected {name} and its draws without NaN; got some. Look at these rows: an input that is not finite, "
            "or a diverging solver."
        )


def checked_logs(log_prob: Tensor, name: str, least: int) -> Tensor:
    """The values in float64 on the CPU, after a check of shape, NaN and +inf."""
    if not isinstance(log_prob, Tensor) or log_prob.ndim != 1 or len(log_prob) < least:
        raise ValueError(
            f"Expected {name} of shape (N,) with N ≥ {least}, one number per point; got {described(log_prob)}. Pass "
            "the values at all points, before any mean, summed over the event's dimensions."
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
