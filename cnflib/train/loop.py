"""Steps of training, one at a time, on the best device."""

import math
from collections import abc

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from cnflib._check import check_positive_int
from cnflib._words import described
from cnflib.train.averages import EMA

__all__ = ["best_device", "steps"]

READ_EVERY = 50

UNTRAINED = (
    "Expected a loss that depends on parameters of the optimizer; got one that gives none of them a gradient, so that "
    "nothing would be trained. Build the optimizer of what the loss calls: Adam(flow.parameters())."
)


def best_device() -> torch.device:
    """The device ``cuda`` if there is one, else ``cpu``; never ``mps``, which has no float64."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def steps(
    loss: abc.Callable[[], Tensor],
    optimizer: Optimizer,
    n: int,
    ema: EMA | None = None,
    clip: float | None = None,
    start: int = 0,
    progress: bool | None = None,
) -> abc.Generator[tuple[int, Tensor], None, None]:
    r"""Train up to step n and hand control back after every step.

    .. math:: g = \nabla_\theta \ell(\theta), \qquad g \leftarrow g \min(1, \mathrm{clip} / |g|), \qquad
              \theta \leftarrow \mathrm{optimizer}(\theta, g)

    Each pair comes after its update is complete, so a ``break`` loses nothing and a later call carries on.
    The loss is that of the weights before the update. It stays on its device: ``loss.item()`` waits for a
    GPU, so call it now and then. On a CPU a loss that is not finite is caught at once, before it reaches the
    weights; elsewhere the loss is read every 50 steps and at the last.

    Args:
        loss: Draws a batch and returns the scalar loss :math:`\ell(\theta)`.
        optimizer: Any ``torch.optim`` optimizer; its parameters are those that ``clip`` bounds.
        n: Number of the step to stop before, counted over all runs.
        ema: Averaged weights to update after each step.
        clip: Largest norm of the gradient over all parameters; None for no bound.
        start: First step: 0, or one more than the last step saved.
        progress: Show a bar with the loss; None shows it where stderr is a terminal.

    Yields:
        The step, from ``start`` to ``n - 1``, and its loss, detached, shape ``()``.

    Raises:
        ValueError: If ``clip`` is not positive, the optimizer is none or one whose steps need a closure (LBFGS),
            ``loss`` is no function or does not return one number that has a gradient, or none of the optimizer's
            parameters gets one.
        FloatingPointError: If the loss is NaN or infinite.
    """
    if clip is not None and clip <= 0:
        raise ValueError(f"Expected clip > 0; got {clip}. Pass clip=None to leave the gradient as it is.")
    _check_call(loss, optimizer)
    start, n = check_positive_int(start, "start", least=0), check_positive_int(n, "n", least=0)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with tqdm(total=n, initial=start, disable=None if progress is None else not progress) as bar:
        for step in range(start, n):
            value = loss()
            if step == start:
                _check_loss(value)
            if value.device.type == "cpu" or step % READ_EVERY == 0 or step == n - 1:
                bar.set_postfix_str(f"loss {_finite(value, step):.4f}", refresh=False)
            optimizer.zero_grad()
            value.backward()
            if step == start and all(parameter.grad is None for parameter in parameters):
                raise ValueError(UNTRAINED)
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            if ema is not None:
                ema.update()
            bar.update()
            yield step, value.detach()


def _check_call(loss: abc.Callable[[], Tensor], optimizer: Optimizer) -> None:
    if not callable(loss):
        raise ValueError(
            f"Expected loss to be a function that draws a batch and returns its loss; got {described(loss)}. Put it "
            "behind a lambda, which steps calls anew at each step: lambda: -flow.log_prob(x).mean()."
        )
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            f"Expected optimizer to be one of torch.optim, like Adam(flow.parameters()), whose step needs no closure; "
            f"got {described(optimizer)}. LBFGS asks for the loss several times a step; its loop is: for step in "
            "range(n): optimizer.step(closure), with a function closure() of four lines: optimizer.zero_grad(); value "
            "= loss(); value.backward(); return value."
        )


def _check_loss(value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise ValueError(
            f"Expected loss() to return one number with a gradient, a tensor of shape (); got {described(value)}"
            f"{' without a gradient' * (getattr(value, 'numel', int)() == 1)}. Of one number a row take .mean(); draw "
            "by rsample, and leave out .item(), .detach() and torch.no_grad()."
        )


def _finite(loss: Tensor, step: int) -> float:
    number = loss.item()
    if not math.isfinite(number):
        raise FloatingPointError(
            f"The loss is {number} at step {step}. Lower the learning rate, bound the gradient by clip=1.0, "
            "or look for NaN in the data and for points to which a base gives density 0; "
            "torch.autograd.set_detect_anomaly(True) names the operation."
        )
    return number
