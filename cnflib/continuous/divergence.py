r"""The divergence :math:`\operatorname{tr} J` of a vector field with Jacobian :math:`J = \partial f / \partial x`.

A divergence works in two stages. Called with the starting points of a solve it draws what it needs (a probe for each
row) and returns an estimator; the estimator is then evaluated at every stage of the solve. Within a solve the
right-hand side is therefore a smooth function of time, and an adaptive solver does not integrate noise.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.func import vjp, vmap

from cnflib._check import check_positive_int
from cnflib.nets import VectorField

__all__ = [
    "Divergence",
    "Estimator",
    "Local",
    "Noise",
    "exact",
    "gaussian",
    "hutchinson",
    "rademacher",
]


class Local(NamedTuple):
    r"""What a solve needs of a field at one point of time.

    Attributes:
        velocity: :math:`f(t, x)`, shape ``(B, *event)``.
        divergence: :math:`\operatorname{tr} J` or an unbiased estimate, shape ``(B,)``, per unit of time.
        frobenius: :math:`|J|_F^2` or an unbiased estimate, shape ``(B,)``.
    """

    velocity: Tensor
    divergence: Tensor
    frobenius: Tensor


Estimator = Callable[[VectorField, Tensor, Tensor, Tensor | None], Local]
"""``estimator(field, t, x, context) -> Local``."""

Divergence = Callable[[Tensor, Generator | None], Estimator]
"""``divergence(x, generator) -> estimator``: called once a solve with its starting points, draws its probes."""

Noise = Callable[[tuple[int, ...], Tensor, Generator | None], Tensor]
r"""``noise(shape, like, generator)``: entries of mean 0 and variance 1, with dtype and device of ``like``."""


def rademacher(shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Independent signs :math:`\pm 1`: the least variance of all probes with independent entries."""
    return torch.randint(0, 2, shape, generator=generator, dtype=like.dtype, device=like.device) * 2 - 1


def gaussian(shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Independent standard normals, :math:`\eta \sim N(0, I)`."""
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def exact(x: Tensor, generator: Generator | None = None) -> Estimator:
    r"""The exact divergence :math:`\sum_i e_i^\top J e_i`, by one vector-Jacobian product for each of the D axes.

    Time and memory grow as D times an evaluation of the field; from a few dozen dimensions on, train with
    :func:`hutchinson` and keep this one for evaluation.

    Args:
        x: Starting points of the solve, shape ``(B, *event)``; only their shape, dtype and device matter.
        generator: Not used, nothing is drawn.
    """
    axes = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
    return _estimator(axes.repeat(1, x.shape[0], *[1] * (x.ndim - 1)), torch.sum)


def hutchinson(noise: Noise = rademacher, probes: int = 1) -> Divergence:
    r"""Hutchinson's unbiased estimate :math:`\eta^\top J \eta`, with :math:`E\,\eta\eta^\top = I`.

    With :math:`S = (J + J^\top)/2` its variance is :math:`2(|S|_F^2 - \sum_i s_{ii}^2)` for :func:`rademacher` probes
    and :math:`2|S|_F^2` for :func:`gaussian` ones, divided by the number of probes.

    Args:
        noise: Law of the probes :math:`\eta`.
        probes: Number of probes that are averaged; each costs a vector-Jacobian product an evaluation.

    Raises:
        ValueError: If ``probes`` is not a positive int.

    References:
        A stochastic estimator of the trace of the influence matrix, Hutchinson, 1989;
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.
    """
    check_positive_int(probes, "probes")
    return partial(_hutchinson, noise=noise, probes=probes)


def _hutchinson(x: Tensor, generator: Generator | None = None, *, noise: Noise, probes: int) -> Estimator:
    return _estimator(noise((probes, *x.shape), x, generator), torch.mean)


def _estimator(directions: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Estimator:
    r"""Reduce :math:`v^\top J v` and :math:`|J^\top v|^2` over directions v of shape ``(K, B, *event)``."""

    def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
        velocity, pull = vjp(lambda y: field(t, y, context), x)
        many = len(directions) > 1
        products = vmap(pull)(directions)[0] if many else pull(directions[0])[0][None]
        quadratic = (directions * products).flatten(2).sum(2)
        square = products.square().flatten(2).sum(2)
        return Local(velocity, reduce(quadratic, 0), reduce(square, 0))

    return estimate
