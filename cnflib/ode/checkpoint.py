r"""A checkpoint at every step: no graph is kept, and the backward pass computes each step again.

Gradients are those of backpropagation, for the state, the times and the ``inputs``; a step that depends on anything
else that wants one is refused, and to find out costs one evaluation, which is not counted. The backward pass evaluates
the field anew, so the field must be a function of its arguments and parameters, and these must be what they were: one
that draws random numbers, or is changed between the passes, gets a wrong gradient.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from cnflib.ode._backward import autocast, check_hooks, check_same, first_order_only, vjps
from cnflib.ode.solver import State, Work

__all__ = ["Step", "checkpointed"]

Step = Callable[[Tensor, Tensor, State], State]
"""``step(t, h, state)``: the state after a step of length h from time t."""


def checkpointed(step: Step, stages: int, inputs: Sequence[Tensor], used: set[int], work: Work) -> Step:
    r"""The same step, whose backward pass computes it again.

    Args:
        step: ``step(t, h, state)``.
        stages: Evaluations of the right-hand side in a step.
        inputs: What a step depends on besides, and wants a gradient.
        used: Indices of the inputs that the first step uses; the backward pass raises if it misses one of them.
        work: Where the backward pass counts what it does.

    References:
        Training Deep Nets with Sublinear Memory Cost, Chen et al., 2016, arXiv:1604.06174.

    Example:
        >>> import torch
        >>> from cnflib.ode import Work
        >>> y, work = torch.ones(2, requires_grad=True), Work()
        >>> step = checkpointed(
        ...     lambda t, h, state: (state[0] + h * state[0].sin(),),
        ...     1,
        ...     (),
        ...     set(),
        ...     work,
        ... )
        >>> step(torch.tensor(0.0), torch.tensor(0.1), (y,))[0].sum().backward()
        >>> work
        Work(nfe=1, accepted=1, rejected=0)
    """
    expected = [used]

    def again(t: Tensor, h: Tensor, state: State) -> State:
        used = expected.pop() if expected else set()
        return _Step.apply(step, stages, work, used, len(state), t, h, *state, *inputs)

    return again


class _Step(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        step: Step,
        stages: int,
        work: Work,
        used: set[int],
        n: int,
        t: Tensor,
        h: Tensor,
        *tensors: Tensor,
    ) -> State:
        ctx.save_for_backward(t, h, *tensors)
        ctx.step, ctx.stages, ctx.work, ctx.used, ctx.n = step, stages, work, used, n
        ctx.mode = autocast(t)
        return step(t, h, tensors[:n])

    @staticmethod
    @first_order_only
    def backward(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        t, h, *tensors = ctx.saved_tensors
        inputs = tensors[ctx.n :]
        check_hooks(inputs)
        with torch.enable_grad(), ctx.mode():
            t, h, *state = (y.detach().requires_grad_() for y in (t, h, *tensors[: ctx.n]))
            ends = ctx.step(t, h, tuple(state))
        ctx.work.nfe += ctx.stages
        ctx.work.accepted += 1
        reached: set[int] = set()
        pulled = vjps(ends, (t, h, *state), inputs, grads, reached)
        check_same(ctx.used, reached)
        return None, None, None, None, None, *pulled
