"""What torchdiffeq is given for a solve: a right-hand side that counts and gives up, its options, and a guard."""

from bisect import bisect
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from math import ceil

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from cnflib._check import check_plain
from cnflib._tensors import widest
from cnflib.ode._backward import first_order_only
from cnflib.ode._checks import gave_up
from cnflib.ode.solver import RightHandSide, State, Work

__all__: list[str] = []

ADAPTIVE = ("adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2")
FIXED = ("euler", "explicit_adams", "fixed_adams", "heun2", "heun3", "implicit_adams", "midpoint", "rk4")

Options = dict[str, object]


def both_options(options: Options, times: Tensor, stops: dict[str, Tensor]) -> tuple[Options, Options]:
    """For a solve, and for that of its adjoint, which torchdiffeq does not turn round in time."""
    sign = -1 if times[0] > times[-1] else 1
    forward = {name: value for name, value in options.items() if name != "max_num_steps"} | stops
    turned: Options = {name: sign * stop for name, stop in stops.items()}
    if "step_size" in options:
        forward["grid_constructor"] = partial(_equal_grid, step_size=forward.pop("step_size"))
    elif "grid_constructor" in options:
        turned["grid_constructor"] = lambda f, y, t: sign * options["grid_constructor"](f, y, sign * t)
    return forward, {name: value for name, value in (forward | turned).items() if name != "norm"}


def _equal_grid(function: Callable, y: Tensor, t: Tensor, step_size: float) -> Tensor:
    """Equal steps of at most the given size, where rounding does not ask for a sliver more."""
    steps = max(1, ceil(abs((t[-1] - t[0]).item()) / step_size - 1e-6))
    return torch.lerp(t[0], t[-1], torch.arange(steps + 1, dtype=t.dtype, device=t.device) / steps)


def _stops(options: Options, times: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Where the steps of an adaptive method must end, in the dtype of the times inside torchdiffeq."""
    like = times.detach().to(torch.promote_types(options.get("dtype", widest(times.device)), dtype))
    stops, jumps = (like.new_tensor(options.get(name, ())).unique() for name in ("step_t", "jump_t"))
    stops = torch.cat([stops, like]).unique()
    return {"step_t": stops[~torch.isin(stops, jumps)], "jump_t": jumps}


class _Way:
    """Signs that make times increase: ``sign`` for the requested ones, ``turn`` for those of the callbacks."""

    def __init__(self, times: Tensor, stops: dict[str, Tensor], sign: int, turn: int, where: str) -> None:
        self.sign, self.turn, self.where = sign, turn, where
        self.ends = sorted((sign * times.detach()).tolist())
        self.stops = {t for stop in stops.values() for t in (sign * stop).tolist()}


class Counted:
    """A right-hand side that counts its calls and steps, and gives up, saying why, before torchdiffeq does."""

    def __init__(
        self, rhs: RightHandSide, method: str, options: Options, times: Tensor, dtype: torch.dtype
    ) -> None:
        self.rhs, self.method, self.options, self.work = rhs, method, options, Work()
        self.stops: dict[str, Tensor] = {}
        self.place = self.tries = 0
        if method in FIXED:
            self.callback_step = self.callback_step_adjoint = self._accept
            return
        self.stops = _stops(options, times, dtype)
        # torchdiffeq turns a solve so that time goes up. It calls back with times as they were, but turned in the
        # adjoint of a solve that went down.
        sign = -1 if times[0] > times[-1] else 1
        back = "In the backward pass of the adjoint: "
        self.callback_step = partial(self._try, _Way(times, self.stops, sign, sign, ""))
        self.callback_step_adjoint = partial(self._try, _Way(times, self.stops, -sign, -1, back))
        self.callback_accept_step = self.callback_accept_step_adjoint = self._accept
        self.callback_reject_step = self.callback_reject_step_adjoint = self._reject

    def __call__(self, t: Tensor, state: State) -> State:
        self.work.nfe += 1
        slopes = self.rhs(t, state)
        if self.work.nfe == 1:
            check_plain(slopes)
        return slopes

    def _accept(self, t: Tensor, state: State, h: Tensor) -> None:
        self.work.accepted += 1

    def _reject(self, t: Tensor, state: State, h: Tensor) -> None:
        self.work.rejected += 1

    def _try(self, way: "_Way", t: Tensor, state: State, h: Tensor) -> None:
        """Called before each step; the time goes up through the ends."""
        now = way.turn * t
        if (now + h).item() in way.stops:
            # A step that ends at a stop by itself makes torchdiffeq forget the next one; a longer step is cut to it.
            h.detach().mul_(1.01)
        place = bisect(way.ends, now.item())
        self.place, self.tries = place, self.tries + 1 if place == self.place else 1
        missing = h <= self.options.get("min_step", 0) and not all(torch.isfinite(y).all() for y in state)
        tired = self.tries > self.options.get("max_num_steps", float("inf"))
        if now + h > now and not missing and not tired:
            return
        where = (
            f"{way.where}The solve by torchdiffeq's {self.method} stopped at t = {way.sign * now.item():.6g} after "
            f"{self.work.accepted} accepted and {self.work.rejected} rejected steps: "
        )
        if missing or h == 0:
            raise gave_up(where)
        reason = "max_num_steps was reached" if tired else "the step size underflowed"
        raise gave_up(where, f"{reason} in {state[0].dtype}")


def again(rhs: RightHandSide, mode: Callable[[], AbstractContextManager]) -> RightHandSide:
    """The right-hand side of the backward pass: under the autocast of the forward pass, and always with a graph."""

    def again(t: Tensor, state: State) -> State:
        with mode():
            slopes = rhs(t, state)
        if any(slope.requires_grad for slope in slopes):
            return slopes
        return (slopes[0] + 0 * state[0], *slopes[1:])

    return again


class Guard(Function):
    """Passes states on; in the backward pass refuses what torchdiffeq's adjoint would silently get wrong."""

    @staticmethod
    def forward(ctx: FunctionCtx, check: Callable[[], None], *states: Tensor) -> State:
        ctx.check = check
        return tuple(y.view_as(y) for y in states)

    @staticmethod
    @first_order_only
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            ctx.check()
        return None, *grads
