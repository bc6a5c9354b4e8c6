"""Around a training loop: averaged weights, a generator of steps, the best weights, checkpoints that survive a crash.

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

Another day, with all of these built anew, the run goes on at ``start``::

    objects = {
        "flow": flow,
        "optimizer": optimizer,
        "ema": ema,
        "generator": generator,
    }
    start = 1 + load("run.pt", **objects)["step"]
"""

from cnflib.train.averages import EMA
from cnflib.train.checkpoints import load, save
from cnflib.train.loop import best_device, steps
from cnflib.train.stopping import EarlyStopping

__all__ = ["EMA", "EarlyStopping", "best_device", "load", "save", "steps"]


def __dir__() -> list[str]:
    return sorted(__all__)
