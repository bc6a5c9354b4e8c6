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

from cnflib._check import check_positive_int, check_velocity
from cnflib._random import given
from cnflib.continuous.products import Product, automatic, factors, settled
from cnflib.nets import VectorField, push

__all__ = [
    "Divergence",
    "Estimator",
    "Local",
    "Noise",
    "bottleneck",
    "exact",
    "gaussian",
    "hutchinson",
    "hutchpp",
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
    return torch.randint(0, 2, shape, **given(generator), dtype=like.dtype, device=like.device) * 2 - 1


def gaussian(shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    r"""Independent standard normals, :math:`\eta \sim N(0, I)`."""
    return torch.randn(shape, **given(generator), dtype=like.dtype, device=like.device)


def exact(x: Tensor, generator: Generator | None = None, *, product: Product = automatic) -> Estimator:
    r"""The exact divergence :math:`\sum_i e_i^\top J e_i`, by one product with J for each of the D axes.

    Time and memory grow as D times an evaluation of the field; from a few dozen dimensions on, train with
    :func:`hutchinson` and keep this one for evaluation, in chunks of rows (:func:`cnflib.continuous.in_chunks`).

    Args:
        x: Starting points of the solve, shape ``(B, *event)``; only their shape, dtype and device matter.
        generator: Not used, nothing is drawn.
        product: How J is multiplied; another one by ``partial(exact, product=forward_mode)``.
    """
    product = settled(product)
    axes = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])

    def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
        velocity, columns = product(field, t, x, context, axes)
        J = columns.flatten(2)
        return Local(velocity, J.diagonal(dim1=0, dim2=2).sum(1), J.square().sum((0, 2)))

    return estimate


def hutchinson(noise: Noise = rademacher, probes: int = 1, product: Product = automatic) -> Divergence:
    r"""Hutchinson's unbiased estimate :math:`\eta^\top J \eta`, with :math:`E\,\eta\eta^\top = I`.

    With :math:`S = (J + J^\top)/2` its variance is :math:`2(|S|_F^2 - \sum_i s_{ii}^2)` for :func:`rademacher` probes
    and :math:`2|S|_F^2` for :func:`gaussian` ones, divided by the number of probes. For the log-determinant of a whole
    solve the same holds with :math:`M = \int J\,dt` along the path in the place of J, for the probe does not change.

    Args:
        noise: Law of the probes :math:`\eta`.
        probes: Number of probes that are averaged; each costs a product with J an evaluation.
        product: How J is multiplied: :func:`automatic`, :func:`forward_mode` or :func:`reverse_mode`.

    Raises:
        ValueError: If ``probes`` is not a positive int.

    References:
        A stochastic estimator of the trace of the influence matrix, Hutchinson, 1989;
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.
    """
    check_positive_int(probes, "probes")
    return partial(_hutchinson, noise=noise, probes=probes, product=product)


def hutchpp(sketch: int = 1, probes: int = 1, product: Product = automatic) -> Divergence:
    r"""Hutch++: the trace on a sketched range of J exactly, the rest by Hutchinson's estimate.

    .. math:: \operatorname{tr} Q^\top J Q + \frac1m \sum_{k \le m} g_k^\top J g_k, \qquad
        Q = \operatorname{orth}(J S), \quad g_k = (I - Q Q^\top) \eta_k

    The Gaussian sketch S and the Rademacher probes :math:`\eta_k` are drawn once a solve. Q is taken as a constant in
    gradients: for any orthonormal Q the estimate is unbiased, so its gradient is too, though one draw's gradient is
    not the derivative of that draw. It costs two passes over the field and 2 ``sketch`` + ``probes`` products, and pays
    for a symmetric J of decaying spectrum. For a flat spectrum, a nearly diagonal J, and the nets we measured,
    :func:`hutchinson` scatters less at equal cost.

    Args:
        sketch: Columns of S; with as many as there are dimensions the trace is exact.
        probes: Number m of probes.
        product: How J is multiplied: :func:`automatic`, :func:`forward_mode` or :func:`reverse_mode`.

    Raises:
        ValueError: If ``sketch`` or ``probes`` is not a positive int.

    References:
        Hutch++: Optimal Stochastic Trace Estimation, Meyer et al., 2021, arXiv:2010.09649.
    """
    check_positive_int(sketch, "sketch")
    check_positive_int(probes, "probes")
    return partial(_hutchpp, sketch=sketch, probes=probes, product=product)


def bottleneck(noise: Noise = gaussian, probes: int = 1) -> Divergence:
    r"""FFJORD's bottleneck estimate: the probe lives in a narrow hidden layer of the field.

    For :math:`f = g \circ h` with H numbers between, and :math:`J_g`, :math:`J_h` the Jacobians of the two parts,

    .. math:: \operatorname{tr} J = \operatorname{tr} J_g J_h = \operatorname{tr} J_h J_g
        = E\,\eta^\top J_h J_g\,\eta, \qquad \eta \in \mathbb R^H.

    Its variance is that of :func:`hutchinson` with :math:`J_h J_g` in the place of :math:`J`. So it is the smaller one
    iff the symmetric part of :math:`J_h J_g` has the smaller Frobenius norm, or for Rademacher probes the smaller one
    off the diagonal. A narrow layer alone does not make it so: rescaling the hidden units changes it and not the field.
    :math:`|J|_F^2` takes a probe in x of its own; an evaluation takes three to over four times that of
    :func:`hutchinson` with one probe.

    The field must offer the two parts by a method ``factors(t, context) -> (h, g)`` with
    ``field(t, x, context) == g(h(x))`` and h(x) of shape ``(B, H)``; :class:`cnflib.nets.MLP` and our other nets do,
    at their narrowest layer.

    Args:
        noise: Law of the probes.
        probes: Number of probes that are averaged.

    Raises:
        ValueError: If ``probes`` is not a positive int; in a solve, if the field has no ``factors`` or no layer as
            narrow as x.

    References:
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367, section 3.1.1.
    """
    check_positive_int(probes, "probes")
    return partial(_bottleneck, noise=noise, probes=probes)


def _hutchinson(
    x: Tensor, generator: Generator | None = None, *, noise: Noise, probes: int, product: Product
) -> Estimator:
    product, eta = settled(product), noise((probes, *x.shape), x, generator)

    def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
        velocity, products = product(field, t, x, context, eta)
        return Local(velocity, _dot(eta, products).mean(0), _dot(products, products).mean(0))

    return estimate


def _hutchpp(
    x: Tensor, generator: Generator | None = None, *, sketch: int, probes: int, product: Product
) -> Estimator:
    product = settled(product)
    S = gaussian((sketch, *x.shape), x, generator)
    eta = rademacher((probes, *x.shape), x, generator)

    def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
        Q = _orthonormal(product(field, t, x, context, S)[1].detach())
        g = eta - _project(Q, eta)
        velocity, products = product(field, t, x, context, torch.cat([Q, g]))
        on_range, rest = products[: len(Q)], products[len(Q) :]
        trace = _dot(Q, on_range).sum(0) + _dot(g, rest).mean(0)
        return Local(velocity, trace, _dot(on_range, on_range).sum(0) + _dot(rest, rest).mean(0))

    return estimate


def _bottleneck(x: Tensor, generator: Generator | None = None, *, noise: Noise, probes: int) -> Estimator:
    nu = noise((probes, *x.shape), x, generator)
    drawn = noise((probes, x.shape[0], x.shape[1:].numel()), x, generator)

    def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
        h, g = factors(field, t, context)
        hidden, dh = push(h, x, nu)
        eta = _narrow(drawn, hidden)
        velocity, products = push(g, hidden, torch.cat([eta, dh]))
        check_velocity(velocity, x)
        through, whole = products[:probes], products[probes:]
        _, back = push(h, x, through)
        return Local(velocity, _dot(eta, back).mean(0), _dot(whole, whole).mean(0))

    return estimate


def _narrow(drawn: Tensor, hidden: Tensor) -> Tensor:
    """As many entries of the probe as the hidden layer has."""
    width, dim = hidden.shape[1:].numel(), drawn.shape[2]
    if width > dim:
        raise ValueError(
            f"Expected a hidden layer of at most {dim} numbers, the dimension of x, for bottleneck(); the narrowest "
            f"has {width}. Make a layer of the field narrower, or use hutchinson()."
        )
    return drawn[:, :, :width].reshape(-1, *hidden.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over the event of two stacks ``(K, B, *event)``, shape ``(K, B)``."""
    return (a * b).flatten(2).sum(2)


def _project(Q: Tensor, v: Tensor) -> Tensor:
    r""":math:`Q Q^\top v` for stacks of directions, row by row."""
    q, v_ = Q.flatten(2), v.flatten(2)
    return torch.einsum("kbd,kbm->mbd", q, torch.einsum("kbd,mbd->kbm", q, v_)).reshape(v.shape)


def _orthonormal(Y: Tensor) -> Tensor:
    """Gram-Schmidt, twice for each direction; one that depends on those before it becomes 0, which biases nothing."""
    Q = Y[:0]
    for y in Y:
        y = y[None]
        for least in (0.0, 0.5):
            y = _unit(y - _project(Q, y), least)
        Q = torch.cat([Q, y])
    return Q


def _unit(y: Tensor, least: float) -> Tensor:
    """y scaled to length 1 row by row, zero where its length is not above the least."""
    length = _dot(y, y).sqrt().reshape(*y.shape[:2], *[1] * (y.ndim - 2))
    return torch.where(length > least, y / length.clamp(min=torch.finfo(y.dtype).tiny), 0)
