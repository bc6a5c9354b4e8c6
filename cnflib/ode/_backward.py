"""What a backward pass that evaluates anew must see: all that the right-hand side depends on, once, and unchanged."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from cnflib._check import check_plain
from cnflib.ode.solver import RightHandSide, State

__all__: list[str] = []


def check_visible(rhs: RightHandSide, state: State, start: Tensor, inputs: Sequence[Tensor]) -> set[int]:
    """Refuse a right-hand side whose graph ends in tensors that are neither state nor inputs, or in one twice.

    Returns the places of the inputs that it uses at the start.
    """
    check_plain()  # an autograd.Function passes through no transform
    if not torch.is_grad_enabled():
        return set()
    check_hooks(inputs)
    leaves = tuple(y.detach().requires_grad_() for y in state)
    slope = rhs(start.detach(), leaves)
    refuse_hidden(slope, (*leaves, *inputs))
    behind = _leaves([y for y in inputs if y.grad_fn is not None], ())
    twice = [p for p in behind if any(p is q for q in inputs)]
    if twice:
        raise ValueError(
            f"Expected a context made without the field's own parameters; it depends on {len(twice)} of them, the "
            f"first of shape {tuple(twice[0].shape)}, whose gradient the adjoint and checkpointing would count twice. "
            "Compute it inside the field, or use Adaptive() or Fixed(steps)."
        )
    used: set[int] = set()
    vjps(slope, leaves, inputs, tuple(torch.zeros_like(y) for y in slope), used)
    return used


def check_hooks(inputs: Sequence[Tensor]) -> None:
    if any(p._backward_hooks or p.retains_grad for p in inputs):
        raise ValueError(
            "Expected no gradient hooks on the field's parameters or its context, and no retain_grad(): the adjoint "
            "and checkpointing would run them at every step as well as at the end. Use "
            "register_post_accumulate_grad_hook, or look at the gradient after backward()."
        )


def check_same(used: set[int], reached: set[int]) -> None:
    if used - reached:
        raise ValueError(
            f"Expected the field to use the same parameters in the backward pass as in the forward pass; "
            f"{len(used - reached)} of them it does not, as after torch.func.functional_call. Use Adaptive() or "
            "Fixed(steps)."
        )


def refuse_hidden(outputs: State, known: Sequence[Tensor]) -> None:
    hidden = [p for p in _leaves(outputs, known) if not any(p is q for q in known)]
    if hidden:
        raise ValueError(
            "Expected every tensor that wants a gradient to be a parameter of the field or its context; the field "
            f"uses {len(hidden)} more, the first of shape {tuple(hidden[0].shape)}, which the adjoint and "
            "checkpointing would leave without a gradient. Make the field an nn.Module that owns them (the same ones "
            "in the backward pass: not torch.func.functional_call), pass them as context (to cnflib.ode.solve as "
            "params), or use Adaptive() or Fixed(steps)."
        )


def _leaves(outputs: Sequence[Tensor], stops: Sequence[Tensor]) -> Iterator[Tensor]:
    """Leaves of the graph behind the outputs, not looking behind the tensors at which to stop."""
    seen = {(y.grad_fn, y.output_nr) for y in stops if y.grad_fn is not None}
    edges = [(y.grad_fn, y.output_nr) for y in outputs]
    while edges:
        edge = node, _ = edges.pop()
        if node is None or edge in seen:
            continue
        seen.add(edge)
        if hasattr(node, "variable"):
            yield node.variable
        edges += node.next_functions


def vjps(
    outputs: State, leaves: Sequence[Tensor], inputs: Sequence[Tensor], grads: State, reached: set[int]
) -> State:
    """Vector-Jacobian products for leaves and inputs, zero where one is not used; notes the inputs that are."""
    known = (*leaves, *inputs)
    pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(x) for x in known)
    outputs, grads = zip(*pairs, strict=True)
    pulled = torch.autograd.grad(outputs, known, grads, allow_unused=True)
    reached |= {k for k, g in enumerate(pulled[len(leaves) :]) if g is not None}
    if len(reached) < len(inputs):
        refuse_hidden(outputs, known)
    return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(known, pulled, strict=True))


def first_order_only(
    backward: Callable[..., tuple[Tensor | None, ...]],
) -> Callable[..., tuple[Tensor | None, ...]]:
    """A backward pass that refuses to be differentiated, also where the gradient that comes in is a constant."""

    @wraps(backward)
    def refusing(ctx: FunctionCtx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Expected no gradient of a gradient; got create_graph=True through the adjoint or checkpointing, whose "
                "backward pass keeps no graph. Use Adaptive() or Fixed(steps)."
            )
        return backward(ctx, *grads)

    return refusing


def autocast(like: Tensor) -> Callable[[], AbstractContextManager]:
    """The autocast in force now, to be entered again in the backward pass."""
    kind = like.device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    return partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)
