r"""The divergence :math:`\operatorname{tr} J` of a vector field with Jacobian :math:`J = \partial f / \partial x`.

A divergence works in two stages. Called with the starting points of a solve it draws what it needs (a probe for each
row) and returns an estimator; the estimator is then evaluated at every stage of the solve. Within a solve the
right-hand side is therefore a smooth function of time, and an adaptive solver does not integrate noise.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_positive_int, check_velocity
from cnflib._random import source
from cnflib._settings import compact_repr
from cnflib.continuous._arguments import check_callable
from cnflib.continuous._tangents import factors
from cnflib.continuous.products import Automatic, Product
from cnflib.nets import VectorField, push

__all__ = [
    "Bottleneck",
    "Divergence",
    "Estimator",
    "Exact",
    "Gaussian",
    "HutchPP",
    "Hutchinson",
    "Local",
    "Probe",
    "Rademacher",
    "TrainEval",
]


class Local(NamedTuple):
    r"""What a solve needs of a field at one point of time.

    Attributes:
        velocity: :math:`f(t, x)`, shape ``(B, *event)``.
        divergence: :math:`\operatorname{tr} J` or an unbiased estimate, shape ``(B,)``, per unit of time.
        frobenius: :math:`|J|_F^2` or an unbiased estimate, shape ``(B,)``.

    Example:
        >>> import torch
        >>> from cnflib.continuous import Exact
        >>> x = torch.ones(1, 3)
        >>> Exact()(x)(lambda t, x: 2 * x, torch.tensor(0.0), x, None)
        Local(velocity=tensor([[2., 2., 2.]]), divergence=tensor([6.]), frobenius=tensor([12.]))
    """

    velocity: Tensor
    divergence: Tensor
    frobenius: Tensor


Estimator = Callable[[VectorField, Tensor, Tensor, Tensor | None], Local]
"""``estimator(field, t, x, context) -> Local``."""

Divergence = Callable[[Tensor, Generator | None], Estimator]
"""``divergence(x, generator) -> estimator``: called once a solve with its starting points, draws its probes."""

Probe = Callable[[tuple[int, ...], Tensor, Generator | None], Tensor]
r"""``probe(shape, like, generator)``: entries of mean 0 and variance 1, with dtype and device of ``like``."""


@dataclass(frozen=True, repr=False)
class Rademacher:
    r"""Independent signs :math:`\pm 1`: the least variance of all probes with independent entries.

    Example:
        >>> import torch
        >>> Rademacher()((2, 3), torch.zeros(1)).abs()
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    __repr__ = compact_repr

    def __call__(self, shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw signs of a shape, with dtype and device of ``like``."""
        return torch.randint(0, 2, shape, **source(generator), dtype=like.dtype, device=like.device) * 2 - 1


@dataclass(frozen=True, repr=False)
class Gaussian:
    r"""Independent standard normals, :math:`\eta \sim N(0, I)`.

    Example:
        >>> import torch
        >>> Gaussian()((2, 3), torch.zeros(1, dtype=torch.float64)).dtype
        torch.float64
    """

    __repr__ = compact_repr

    def __call__(self, shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw normals of a shape, with dtype and device of ``like``."""
        return torch.randn(shape, **source(generator), dtype=like.dtype, device=like.device)


_AUTOMATIC, _RADEMACHER, _GAUSSIAN = Automatic(), Rademacher(), Gaussian()


def _traceable(settings: type) -> type:
    """A dataclass that can be built inside of what torch compiles, where no object may be the default of an argument.

    The argument defaults to None, which ``__post_init__`` replaces; the signature shows what it stands for.
    """
    settings.__signature__ = inspect.signature(settings)
    plain = (default if isinstance(default, int) else None for default in settings.__init__.__defaults__)
    settings.__init__.__defaults__ = tuple(plain)
    return settings


def _settle_probe(divergence: object, default: Probe) -> None:
    """Check the law and the number of probes."""
    probe, kind = divergence.probe, type(divergence).__name__
    number = isinstance(probe, int) and not isinstance(probe, bool)
    way = f" For {probe} probes: {kind}(probes={probe})." if number else f" Write {kind}({default!r})."
    _settle_callable(divergence, "probe", default, repr(default), way)
    _settle_int(divergence, "probes")


def _settle_callable(divergence: object, name: str, default: object, example: str, way: str = "") -> None:
    """Check that a setting can be called, and take the default for None."""
    if getattr(divergence, name) is None:
        object.__setattr__(divergence, name, default)
    check_callable(getattr(divergence, name), name, example, way)


def _settle_int(divergence: object, name: str) -> None:
    """Check that a setting is a positive int, and keep it as Python's own."""
    object.__setattr__(divergence, name, check_positive_int(getattr(divergence, name), name))


@_traceable
@dataclass(frozen=True, repr=False)
class Exact:
    r"""The exact divergence :math:`\sum_i e_i^\top J e_i`, by one product with J for each of the D axes.

    Time and memory grow as D times an evaluation of the field; from a few dozen dimensions on, train with
    :class:`Hutchinson` and keep this one for evaluation (:class:`TrainEval` does both), in chunks of rows
    (:func:`cnflib.continuous.in_chunks`).

    Args:
        product: How J is multiplied: :class:`Automatic`, :class:`ForwardMode` or :class:`ReverseMode`.

    Example:
        >>> import torch
        >>> x = torch.randn(4, 3)
        >>> Exact()(x)(lambda t, x: -x, torch.tensor(0.0), x, None).divergence
        tensor([-3., -3., -3., -3.])
    """

    product: Product = _AUTOMATIC
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        _settle_callable(self, "product", _AUTOMATIC, "ReverseMode()")

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, of which shape, dtype and device matter; nothing is drawn."""
        product = _settled(self.product)
        axes = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])

        def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
            velocity, columns = product(field, t, x, context, axes)
            J = columns.flatten(2)
            return Local(velocity, J.diagonal(dim1=0, dim2=2).sum(1), J.square().sum((0, 2)))

        return estimate


@_traceable
@dataclass(frozen=True, repr=False)
class Hutchinson:
    r"""Hutchinson's unbiased estimate :math:`\eta^\top J \eta`, with :math:`E\,\eta\eta^\top = I`.

    With :math:`S = (J + J^\top)/2` its variance is :math:`2(|S|_F^2 - \sum_i s_{ii}^2)` for :class:`Rademacher` probes
    and :math:`2|S|_F^2` for :class:`Gaussian` ones, divided by the number of probes. For the log-determinant of a whole
    solve the same holds with :math:`M = \int J\,dt` along the path in the place of J, for the probe does not change.

    Args:
        probe: Law of the probes :math:`\eta`: :class:`Rademacher`, :class:`Gaussian`, or a function
            ``probe(shape, like, generator)`` of your own.
        probes: Number of probes that are averaged; each costs a product with J an evaluation.
        product: How J is multiplied: :class:`Automatic`, :class:`ForwardMode` or :class:`ReverseMode`.

    Raises:
        ValueError: If ``probe`` or ``product`` cannot be called, or ``probes`` is not a positive int.

    References:
        A stochastic estimator of the trace of the influence matrix, Hutchinson, 1989;
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.

    Example:
        >>> import torch
        >>> x = torch.randn(4, 3)
        >>> Hutchinson(probes=2)(x)(lambda t, x: -x, torch.tensor(0.0), x, None).divergence
        tensor([-3., -3., -3., -3.])
    """

    probe: Probe = _RADEMACHER
    probes: int = 1
    product: Product = _AUTOMATIC
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        _settle_probe(self, _RADEMACHER)
        _settle_callable(self, "product", _AUTOMATIC, "ReverseMode()")

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, with a probe drawn for each row."""
        product, eta = _settled(self.product), self.probe((self.probes, *x.shape), x, generator)

        def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
            velocity, products = product(field, t, x, context, eta)
            return Local(velocity, _dot(eta, products).mean(0), _dot(products, products).mean(0))

        return estimate


@_traceable
@dataclass(frozen=True, repr=False)
class HutchPP:
    r"""Hutch++: the trace on a sketched range of J exactly, the rest by Hutchinson's estimate.

    .. math:: \operatorname{tr} Q^\top J Q + \frac1m \sum_{k \le m} g_k^\top J g_k, \qquad
        Q = \operatorname{orth}(J S), \quad g_k = (I - Q Q^\top) \eta_k

    The Gaussian sketch S and the Rademacher probes :math:`\eta_k` are drawn once a solve. Q is taken as a constant in
    gradients: for any orthonormal Q the estimate is unbiased, so its gradient is too, though one draw's gradient is
    not the derivative of that draw. It costs two passes over the field and 2 ``sketch`` + ``probes`` products, and pays
    for a symmetric J of decaying spectrum. For a flat spectrum, a nearly diagonal J, and the nets we measured,
    :class:`Hutchinson` scatters less at equal cost.

    Args:
        sketch: Columns of S; with as many as there are dimensions the trace is exact.
        probes: Number m of probes.
        product: How J is multiplied: :class:`Automatic`, :class:`ForwardMode` or :class:`ReverseMode`.

    Raises:
        ValueError: If ``sketch`` or ``probes`` is not a positive int, or ``product`` cannot be called.

    References:
        Hutch++: Optimal Stochastic Trace Estimation, Meyer et al., 2021, arXiv:2010.09649.

    Example:
        >>> import torch
        >>> x = torch.randn(4, 3)
        >>> trace = HutchPP(sketch=3)(x)(lambda t, x: -x, torch.tensor(0.0), x, None).divergence
        >>> torch.allclose(trace, torch.full((4,), -3.0), atol=1e-4)
        True
    """

    sketch: int = 1
    probes: int = 1
    product: Product = _AUTOMATIC
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        _settle_int(self, "sketch")
        _settle_int(self, "probes")
        _settle_callable(self, "product", _AUTOMATIC, "ReverseMode()")

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, with a sketch and probes drawn for each row."""
        product = _settled(self.product)
        S = _GAUSSIAN((self.sketch, *x.shape), x, generator)
        eta = _RADEMACHER((self.probes, *x.shape), x, generator)

        def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
            Q = _orthonormal(product(field, t, x, context, S)[1].detach())
            g = eta - _project(Q, eta)
            velocity, products = product(field, t, x, context, torch.cat([Q, g]))
            on_range, rest = products[: len(Q)], products[len(Q) :]
            trace = _dot(Q, on_range).sum(0) + _dot(g, rest).mean(0)
            return Local(velocity, trace, _dot(on_range, on_range).sum(0) + _dot(rest, rest).mean(0))

        return estimate


@_traceable
@dataclass(frozen=True, repr=False)
class Bottleneck:
    r"""FFJORD's bottleneck estimate: the probe lives in a narrow hidden layer of the field.

    For :math:`f = g \circ h` with H numbers between, and :math:`J_g`, :math:`J_h` the Jacobians of the two parts,

    .. math:: \operatorname{tr} J = \operatorname{tr} J_g J_h = \operatorname{tr} J_h J_g
        = E\,\eta^\top J_h J_g\,\eta, \qquad \eta \in \mathbb R^H.

    Its variance is that of :class:`Hutchinson` with :math:`J_h J_g` in the place of :math:`J`. So it is the smaller one
    iff the symmetric part of :math:`J_h J_g` has the smaller Frobenius norm, or for Rademacher probes the smaller one
    off the diagonal. A narrow layer alone does not make it so: rescaling the hidden units changes it and not the field.
    :math:`|J|_F^2` takes a probe in x of its own; an evaluation takes three to over four times that of
    :class:`Hutchinson` with one probe.

    The field must offer the two parts by a method ``factors(t, context) -> (h, g)`` with
    ``field(t, x, context) == g(h(x))`` and h(x) of shape ``(B, H)``; :class:`cnflib.nets.MLP` and our other nets do,
    at their narrowest layer.

    Args:
        probe: Law of the probes: :class:`Gaussian`, :class:`Rademacher`, or a function
            ``probe(shape, like, generator)`` of your own.
        probes: Number of probes that are averaged.

    Raises:
        ValueError: If ``probe`` cannot be called, or ``probes`` is not a positive int; in a solve, if the field has no
            ``factors`` or no layer as narrow as x.

    References:
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367, section 3.1.1.

    Example:
        >>> import torch
        >>> from cnflib.continuous import CNF
        >>> from cnflib.nets import MLP
        >>> cnf = CNF(MLP(8, hidden=(32, 4, 32)), Bottleneck())
        >>> cnf.solve(torch.randn(5, 8), 1.0, 0.0).logdet.shape
        torch.Size([5])
    """

    probe: Probe = _GAUSSIAN
    probes: int = 1
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        _settle_probe(self, _GAUSSIAN)

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, with probes drawn for each row."""
        nu = self.probe((self.probes, *x.shape), x, generator)
        drawn = self.probe((self.probes, x.shape[0], x.shape[1:].numel()), x, generator)

        def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
            h, g = factors(field, t, context)
            hidden, dh = push(h, x, nu)
            eta = _narrow(drawn, hidden)
            velocity, products = push(g, hidden, torch.cat([eta, dh]))
            check_velocity(velocity, x)
            through, whole = products[: self.probes], products[self.probes :]
            _, back = push(h, x, through)
            return Local(velocity, _dot(eta, back).mean(0), _dot(whole, whole).mean(0))

        return estimate


_HUTCHINSON, _EXACT = Hutchinson(), Exact()


class TrainEval(nn.Module):
    """One divergence while the flow is trained and another while it is evaluated, as FFJORD does it.

    A flow with it in it switches by ``flow.train()`` and ``flow.eval()``, as dropout does. A new flow is in training
    mode; after ``flow.eval()`` its log-density is exact.

    Args:
        train: The divergence in training mode.
        eval: The divergence in evaluation mode.

    Raises:
        ValueError: If one of the two cannot be called.

    References:
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.

    Example:
        >>> import torch
        >>> from cnflib import Flow, StandardNormal
        >>> from cnflib.continuous import CNF
        >>> from cnflib.nets import MLP
        >>> flow, x = Flow(CNF(MLP(2), TrainEval()), StandardNormal(2)), torch.randn(99, 2)
        >>> torch.equal(flow.log_prob(x), flow.log_prob(x))
        False
        >>> torch.equal(flow.eval().log_prob(x), flow.log_prob(x))
        True
    """

    def __init__(self, train: Divergence = _HUTCHINSON, eval: Divergence = _EXACT) -> None:
        super().__init__()
        check_callable(train, "train", "Hutchinson()")
        check_callable(eval, "eval", "Exact()")
        self.in_training, self.in_evaluation = train, eval

    def forward(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, by the divergence of the mode the flow is in."""
        return (self.in_training if self.training else self.in_evaluation)(x, generator)

    def __repr__(self) -> str:
        parts = (("train", self.in_training, _HUTCHINSON), ("eval", self.in_evaluation, _EXACT))
        return (
            f"TrainEval({', '.join(f'{name}={part!r}' for name, part, default in parts if part != default)})"
        )


def _settled(product: Product) -> Product:
    """The product for one solve of one field, at which a product that chooses looks once, to keep to its choice."""
    if not hasattr(product, "chosen"):
        return product
    kept: list[Product] = []

    def keeping(
        field: VectorField, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not kept:
            kept.append(product.chosen(field))
        return kept[0](field, t, x, context, directions)

    return keeping


def _narrow(drawn: Tensor, hidden: Tensor) -> Tensor:
    """As many entries of the probe as the hidden layer has."""
    width, dim = hidden.shape[1:].numel(), drawn.shape[2]
    if width > dim:
        raise ValueError(
            f"Expected a hidden layer of at most {dim} numbers, the dimension of x, for Bottleneck(); the narrowest "
            f"has {width}. Make a layer of the field narrower, or use Hutchinson()."
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
