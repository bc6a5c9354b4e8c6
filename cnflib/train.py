"""Around a training loop: averaged weights, a generator of steps, checkpoints that survive a crash.

The loop itself stays with the reader::

    for step, loss in steps(
        lambda: -flow.log_prob(data(512)).mean(), optimizer, 2000, ema=ema
    ):
        if step % 500 == 0:
            save(
                "run.pt",
                flow=flow,
                optimizer=optimizer,
                ema=ema,
                generator=generator,
                step=step,
            )
"""

import copy
import math
import os
import pickle
from collections import abc
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from cnflib._check import check_positive_int, described

__all__ = ["EMA", "best_device", "load", "save", "steps"]


def __dir__() -> list[str]:
    return sorted(__all__)


READ_EVERY = 50


def best_device() -> torch.device:
    """The device ``cuda`` if there is one, else ``cpu``; never ``mps``, which has no float64."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class EMA:
    r"""Exponential moving average of a module's parameters, with a warm-up.

    .. math:: \bar\theta_{k+1} = d_k \bar\theta_k + (1 - d_k)\, \theta_{k+1}, \qquad
              d_k = \min\Big(d, \frac{1 + k}{10 + k}\Big), \quad \bar\theta_0 = \theta_0

    Early on the average spans about the last k/9 steps, so the initial weights are soon forgotten; it reaches
    its full length of 1/(1 - d) steps at k ≈ 9/(1 - d). Buffers, and parameters that are not floating, are
    copied.

    Attributes:
        module: A copy of the module that holds :math:`\bar\theta`, in ``eval`` mode, without gradients.
        updates: Number of updates so far, k.

    Args:
        module: The module in training; the average starts at its weights, dtype and device.
        decay: d in [0, 1]; 0 copies the last weights, 1 - 1/m averages over about m steps.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"Expected decay in [0, 1]; got {decay}. Usual values are 0.99 to 0.9999.")
        self.source = module
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights; call it after each optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, value in zip(self.module.parameters(), self.source.parameters(), strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average), 1 - decay)
            else:
                average.copy_(value)
        for average, value in zip(self.module.buffers(), self.source.buffers(), strict=True):
            average.copy_(value)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and the number of updates."""
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


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
        ValueError: If ``clip`` is not positive, the optimizer is none or one whose steps need a closure (LBFGS), or
            ``loss`` does not return one number that has a gradient.
        FloatingPointError: If the loss is NaN or infinite.
    """
    if clip is not None and clip <= 0:
        raise ValueError(f"Expected clip > 0; got {clip}. Pass clip=None to leave the gradient as it is.")
    _check_optimizer(optimizer)
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
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            if ema is not None:
                ema.update()
            bar.update()
            yield step, value.detach()


def save(path: str | os.PathLike[str], /, **objects: object) -> None:
    """Write a checkpoint in one piece: after a crash ``path`` holds the old file or the new one.

    The file is written beside ``path``, flushed to disk, read back, and only then renamed. To make a resumed
    run repeat an uninterrupted one bit for bit, save all that the loop changes: the modules, the optimizer,
    its scheduler, the EMA, the step, and the generators. Draws without a generator (dropout, a shuffled
    DataLoader) come from torch's default one; save it too: ``rng=torch.default_generator``.

    Args:
        path: The file; missing folders are made.
        objects: By name: anything with ``state_dict``, a ``torch.Generator``, or plain values (tensors,
            numbers, strings, None, and lists, tuples and dicts of them).

    Raises:
        ValueError: If a value is of another kind; an older file at ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    states = {name: _state(value) for name, value in objects.items()}
    try:
        with open(temporary, "wb") as file:
            torch.save(states, file)
            file.flush()
            os.fsync(file.fileno())
        _read(temporary)
        os.replace(temporary, path)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise ValueError(
            f"Expected modules, optimizers, generators and plain values in save({path.name!r}, …); one of "
            f"{', '.join(objects)} holds something else. Turn NumPy values into float(…) or a tensor. "
            f"From torch: {error}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], /, **objects: object) -> dict[str, Any]:
    """Restore the given objects in place from a checkpoint of :func:`save` and return the rest.

    Args:
        path: The file.
        objects: By the names they were saved under: a ``torch.Generator``, or anything with
            ``load_state_dict``; each keeps its device.

    Returns:
        All saved values that were not named, tensors on the CPU; for an object, its ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a name is missing from the file; then nothing is restored.
    """
    path = Path(path)
    saved = _read(path)
    if missing := sorted(objects.keys() - saved.keys()):
        raise ValueError(
            f"Expected {', '.join(missing)} in {path}; got only {', '.join(saved) or 'an empty file'}. "
            "Use the names that save was given."
        )
    restores = {  # all are looked up before the first is called: a file is restored whole or not at all
        name: value.set_state if isinstance(value, Generator) else value.load_state_dict
        for name, value in objects.items()
    }
    for name, restore in restores.items():
        restore(saved[name])
    return {name: value for name, value in saved.items() if name not in objects}


def _check_optimizer(optimizer: Optimizer) -> None:
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


def _state(value: object) -> object:
    if isinstance(value, Generator):
        return value.get_state()
    return value.state_dict() if hasattr(value, "state_dict") else value


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)
