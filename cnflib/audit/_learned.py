"""Checks of what a bijection learns: that it is registered, and that gradients reach it."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cnflib.audit._copies import parameters, said, seeded
from cnflib.audit._jacobians import finding
from cnflib.audit.report import Finding
from cnflib.bijection import Bijection

STEEP = 1e-3  # for a unit, below which a slope may be the error of a solve


def audit_registered(module: object) -> Finding:
    """The number of tensors to learn that no optimizer would see."""
    known = {id(p) for p in parameters(module)}
    owners = module.named_modules() if isinstance(module, nn.Module) else [("", module)]
    held = [pair for name, owner in owners for pair in _attributes(name, owner)]
    lost = [name for name, t in held if t.requires_grad and t.is_leaf and id(t) not in known]
    hint = (
        f"{', '.join(lost)}: wants a gradient and is no parameter of the module, so that no optimizer, .to() or state "
        "dict sees it. A tensor becomes one by nn.Parameter(tensor), modules in a list by nn.ModuleList(list)."
    )
    return Finding("everything learned is registered", float(len(lost)), 0.0, hint)


def _attributes(name: str, owner: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors that an object holds otherwise than as a parameter or a part, by name."""
    for attribute, value in getattr(owner, "__dict__", {}).items():
        if attribute == "_buffers":
            yield from ((f"{name}.{key}".strip("."), t) for key, t in value.items() if t is not None)
        elif attribute not in ("_parameters", "_modules"):
            yield from _held(f"{name}.{attribute}".strip("."), value)


def _held(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a value, which may be a module or a container of tensors and modules."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, nn.Module):
        yield from ((f"{name}.{key}", p) for key, p in value.named_parameters())
    elif isinstance(value, list | tuple | dict):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _held(f"{name}[{key!r}]", part)


def audit_reach(g: Bijection, x: Tensor, context: Tensor | None) -> Finding:
    """The number of parameters that no gradient reaches: outside of the graph, or of gradient 0 where they matter."""
    wanted = {name: p for name, p in _by_name(g).items() if p.requires_grad}

    def loss() -> Tensor:
        z, logdet = g.encode_and_logdet(x, context, seeded(x.device))
        return (_weights(z) * z).sum() - logdet.sum()  # no rotation leaves it as it is

    try:
        grads = _grads_of(loss(), list(wanted.values()))
        pairs = zip(wanted, grads, strict=True)
        dead = [
            n for n, grad in pairs if grad is None or (not grad.any() and _change(loss, wanted[n]) > STEEP)
        ]
    except Exception as error:
        return Finding("gradient reaches every parameter", math.inf, 0.0, said(error))
    hint = (
        f"{len(dead)} of {len(wanted)} parameters get no gradient, {', '.join(dead)}: unused, or detached. Where one "
        "is of use at other points only, pass more points."
    )
    return Finding("gradient reaches every parameter", float(len(dead)), 0.0, hint)


def audit_detached(g: Bijection, x: Tensor, context: Tensor | None) -> Finding:
    """The number of leaves that change an output, latent or log-determinant, whose gradient is exactly zero."""
    x = x.clone().requires_grad_()
    floating = context is not None and context.is_floating_point()
    context = context.clone().requires_grad_() if floating else context
    learned = {name: p for name, p in _by_name(g).items() if p.requires_grad}
    leaves = {"x": x, **({"context": context} if floating else {}), **learned}

    def output(index: int) -> Tensor:
        y = g.encode_and_logdet(x, context, seeded(x.device))[index]
        return _weights(y) * y

    silent: list[str] = []

    def count() -> float:
        for index, of in enumerate(("z", "log-det")):
            grads = _grads_of(output(index).sum(), list(leaves.values()))
            for (name, leaf), grad in zip(leaves.items(), grads, strict=True):
                still = grad is None or not grad.any()
                if still and _change(lambda index=index: output(index), leaf) > STEEP:
                    silent.append(f"{of} of {name}")
        return float(len(silent))

    found = finding("z and log-det have their gradients", 0.0, "", count)
    hint = f"No gradient though it changes, {', '.join(silent)}: training ignores it. Look for detach, .data, no_grad."
    return found._replace(hint=f"{found.hint}{hint}")


def _by_name(g: object) -> dict[str, Tensor]:
    return dict(g.named_parameters()) if isinstance(g, nn.Module) else {}


def _weights(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=seeded(y.device), dtype=y.dtype, device=y.device)


def _grads_of(value: Tensor, leaves: list[Tensor]) -> list[Tensor | None]:
    if not value.requires_grad or not leaves:
        return [None] * len(leaves)
    return list(torch.autograd.grad(value, leaves, allow_unused=True))


@torch.no_grad()
def _change(value: Callable[[], Tensor], leaf: Tensor, h: float = 1e-4) -> float:
    """The largest change of a value along one direction of a leaf, for a unit."""
    before, start = value(), leaf.clone()
    leaf += h * torch.randn(
        leaf.shape, generator=seeded(leaf.device, 1), dtype=leaf.dtype, device=leaf.device
    )
    change = (value() - before).abs().max().item() / h
    leaf.copy_(start)
    return change
