"""Any solver of the library torchdiffeq that has gradients, in the place of ours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from cnflib._check import check_finite, check_plain
from cnflib._tensors import widest
from cnflib.ode._backward import autocast, check_same, check_visible
from cnflib.ode._checks import check_tolerances
from cnflib.ode._times import within
from cnflib.ode._torchdiffeq import ADAPTIVE, FIXED, Counted, Guard, again, both_options
from cnflib.ode.solver import RightHandSide, State, Stats, Work

__all__ = ["TorchDiffEq"]

STEPS = "dfactor dtype first_step ifactor jump_t max_num_steps max_step min_step norm safety step_t".split()
GRID = "grid_constructor interp perturb step_size".split()
ADAMS = "max_iters max_order".split()
ORDERS = {"adaptive_heun": 2, "bosh3": 3, "dopri5": 5, "dopri8": 8, "fehlberg2": 2}


@dataclass(frozen=True, init=False, repr=False)
class TorchDiffEq:
    r"""A solver of torchdiffeq, for any flow and for :func:`solve`: the ecosystem's own, and more methods than ours.

    Adaptive methods (adaptive_heun, bosh3, dopri5, dopri8, fehlberg2) are made to end a step at every requested time,
    by torchdiffeq's ``step_t``, so that nothing is evaluated beyond the ends and no answer is interpolated. Methods of
    fixed steps (euler, midpoint, heun2, heun3, rk4, explicit_adams, implicit_adams, fixed_adams) take equal steps of at
    most ``step_size`` from each requested time to the next; the Adams methods begin anew at each.

    Gradients are by backpropagation; with ``adjoint`` by torchdiffeq's ``odeint_adjoint``, whose ``adjoint_params`` are
    the ``inputs``; its tolerance is for the size of the loss as it comes, and gradients of gradients are refused.
    fehlberg2 misses its tolerance several hundred-fold; explicit_adams is of order 12 by default and unstable unless
    its steps are tiny (``max_order=4`` is safer); implicit_adams, also named fixed_adams, warns where its iteration
    does not converge.

    Args:
        method: The name of one of these methods.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in units of the state.
        adjoint: Whether gradients come by a second solve backward in time.
        options: The method's own, by name, as in torchdiffeq: ``first_step``, ``safety``, ``max_num_steps``,
            ``jump_t``, ... of an adaptive method; ``step_size``, which must be given, ``perturb``, ... of fixed steps.

    Raises:
        ValueError: On an unknown method or option, a method of fixed steps without ``step_size`` (torchdiffeq
            would silently take a single step), or a tolerance that is not positive. When called: on NaN or inf in the
            starting state, and with ``adjoint`` if the right-hand side depends on a tensor that wants a gradient and is
            not in ``inputs``.
        SolveError: When called: the step underflows, or ``max_num_steps`` are not enough.

    References:
        Neural Ordinary Differential Equations, Chen et al., 2018, arXiv:1806.07366; torchdiffeq, Chen, 2018.

    Example:
        >>> import torch
        >>> from cnflib.ode import solve
        >>> y0 = torch.ones(2, dtype=torch.float64)
        >>> solve(
        ...     lambda t, y: -y, y0, (0.0, 1.0), TorchDiffEq("rk4", step_size=0.1)
        ... ).y[-1]
        tensor([0.3679, 0.3679], dtype=torch.float64)
    """

    method: str
    rtol: float
    atol: float
    adjoint: bool
    options: tuple[tuple[str, object], ...]

    def __init__(
        self,
        method: str = "dopri5",
        rtol: float = 1e-7,
        atol: float = 1e-9,
        adjoint: bool = False,
        **options: object,
    ) -> None:
        options = dict(options.pop("options", ())) | options  # as dataclasses.replace passes them
        _check_method(method, options)
        check_tolerances(rtol, atol)
        plain = tuple(sorted((name, _plain(value)) for name, value in options.items()))
        values = {"method": method, "rtol": rtol, "atol": atol, "adjoint": adjoint, "options": plain}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        names = {"method": "dopri5", "rtol": 1e-7, "atol": 1e-9, "adjoint": False}
        changed = [(k, getattr(self, k)) for k, default in names.items() if getattr(self, k) != default]
        return f"TorchDiffEq({', '.join(f'{k}={v!r}' for k, v in (*changed, *self.options))})"

    @torch.compiler.disable
    def __call__(
        self, rhs: RightHandSide, state: State, times: Tensor, inputs: Sequence[Tensor] = ()
    ) -> tuple[State, Stats]:
        """The states at all times, as a :class:`Solver` is called."""
        check_plain(state)
        check_finite(state[0], "starting state")
        times = times.to(state[0].device, widest(state[0].device))
        rhs = within(rhs, times.to(state[0]))
        check = partial(check_visible, rhs, state, times[0].to(state[0]), inputs)
        used = check() if self.adjoint else set()
        function = Counted(rhs, self.method, dict(self.options), times, state[0].dtype)
        states = self._integrate(function, state, times, inputs)
        done, function.work = function.work, Work()
        if self.adjoint:
            mode = autocast(state[0])
            function.rhs = again(rhs, mode)

            def begin() -> None:
                with mode():
                    check_same(used, check())
                function.place = 0

            states = Guard.apply(begin, *states)
        return states, Stats(done.nfe, done.accepted, done.rejected, function.work)

    def halved(self) -> "TorchDiffEq":
        r"""The same solver with steps of half the length; of an adaptive method of order p, of about half.

        Its steps are as long as the p-th root of the tolerance, so both tolerances are divided by :math:`2^p`. Float32
        does not hold the default ones so divided: such a solve takes very many steps, which ``max_num_steps`` bounds.

        Raises:
            ValueError: If the steps come from a ``grid_constructor``.
        """
        options = dict(self.options)
        if self.method in ADAPTIVE:
            factor = 2.0 ** -ORDERS[self.method]
            return replace(self, rtol=factor * self.rtol, atol=factor * self.atol)
        if "step_size" not in options:
            raise ValueError(
                "Expected step_size, to halve it; got a grid_constructor. Give a step_size instead."
            )
        return replace(self, options=options | {"step_size": options["step_size"] / 2})

    def _integrate(self, function: Counted, state: State, times: Tensor, inputs: Sequence[Tensor]) -> State:
        """In one call, or in one for each two consecutive times where the steps between them are equal."""
        from torchdiffeq import odeint, odeint_adjoint  # slow to import

        plain = dict(self.options)
        forward, backward = both_options(plain, times, function.stops)
        options = {"rtol": self.rtol, "atol": self.atol, "method": self.method, "options": forward}
        call = partial(odeint, function, **options)
        if self.adjoint:
            options |= {"adjoint_params": tuple(inputs), "adjoint_options": backward}
            call = partial(odeint_adjoint, function, **options)
        if "step_size" not in plain:
            return call(state, times)
        states = [state]
        for pair in times.unfold(0, 2, 1):
            states.append(tuple(y[-1] for y in call(states[-1], pair)))
        return tuple(torch.stack(parts) for parts in zip(*states, strict=True))


def _check_method(method: str, options: dict[str, object]) -> None:
    if method not in (*ADAPTIVE, *FIXED):
        raise ValueError(
            f"Expected method to be one of torchdiffeq's with gradients: {', '.join(sorted((*ADAPTIVE, *FIXED)))}; got "
            f"{method!r}. For a stiff field: 'implicit_adams' with a small step_size."
        )
    known = STEPS if method in ADAPTIVE else GRID + ADAMS if "adams" in method else GRID
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"Expected options of {method!r}: {', '.join(known)}; got {', '.join(unknown)}.")
    steps = ("step_size" in options) + ("grid_constructor" in options)
    if method in FIXED and (steps != 1 or not 0 < options.get("step_size", 1) < float("inf")):
        raise ValueError(
            f"Expected step_size > 0 for {method!r}, which takes fixed steps (or a grid_constructor, not both); "
            f"without it torchdiffeq takes one step. Write TorchDiffEq({method!r}, step_size=0.05)."
        )


def _plain(value: object) -> object:
    """A value that compares and hashes: numbers for a tensor, a tuple for a list."""
    value = value.tolist() if isinstance(value, Tensor) else value
    return tuple(value) if isinstance(value, list) else value
