r"""The divergence :math:`\operatorname{tr} J` of a vector field with Jacobian :math:`J = \partial f / \partial x`.

A divergence works in two stages. Called with the starting points of a solve it draws what it needs (a probe for each
row) and returns an estimator; the estimator is then evaluated at every stage of the solve. Within a solve the
right-hand side is therefore a smooth function of time, and an adaptive solver does not integrate noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib._settings import check_settings, compact_repr, traceable
from cnflib.continuous._boundary import check_divergence
from cnflib.continuous.probes import Probe, Rademacher
from cnflib.continuous.products import Automatic, Product, dot
from cnflib.nets import VectorField

__all__ = ["Divergence", "Estimator", "Exact", "Hutchinson", "Local", "TrainEval"]


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
        >>> local = Exact()(x)(lambda t, x: 2 * x, torch.tensor(0.0), x, None)
        >>> local.divergence, local.frobenius
        (tensor([6.]), tensor([12.]))
    """

    velocity: Tensor
    divergence: Tensor
    frobenius: Tensor


Estimator = Callable[[VectorField, Tensor, Tensor, Tensor | None], Local]
"""``estimator(field, t, x, context) -> Local``."""

Divergence = Callable[[Tensor, Generator | None], Estimator]
"""``divergence(x, generator) -> estimator``: called once a solve with its starting points, draws its probes."""

_AUTOMATIC, _RADEMACHER = Automatic(), Rademacher()


@traceable
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
        check_settings(self, product=_AUTOMATIC)

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, of which shape, dtype and device matter; nothing is drawn."""
        product = self.product
        axes = torch.eye(x.shape[1:].numel(), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])

        def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
            velocity, columns = product(field, t, x, context, axes)
            J = columns.flatten(2)
            return Local(velocity, J.diagonal(dim1=0, dim2=2).sum(1), J.square().sum((0, 2)))

        return estimate


@traceable
@dataclass(frozen=True, repr=False)
class Hutchinson:
    r"""Hutchinson's unbiased estimate :math:`\eta^\top J \eta`, with :math:`E\,\eta\eta^\top = I`.

    With :math:`S = (J + J^\top)/2` its variance is :math:`2(|S|_F^2 - \sum_i s_{ii}^2)` for :class:`Rademacher` probes
    and :math:`2|S|_F^2` for :class:`Gaussian` ones, divided by the number of probes. For the log-determinant of a whole
    solve the same holds with :math:`M = \int J\,dt` along the path in the place of J, for the probe does not change.

    Args:
        probe: Law of the probes :math:`\eta`: :class:`Rademacher`, :class:`Gaussian`, or a function
            ``probe(shape, like, generator)`` of your own.
        probes: Number of probes K that are averaged; each costs a product with J an evaluation. The products are taken
            together, as one batch of K B rows, and so is their memory.
        product: How J is multiplied: :class:`Automatic`, :class:`ForwardMode` or :class:`ReverseMode`.

    Raises:
        ValueError: If ``probe`` or ``product`` cannot be called, or ``probes`` is not a positive int.

    References:
        A stochastic estimator of the trace of the influence matrix, Hutchinson, 1989;
        FFJORD, Grathwohl et al., 2018, arXiv:1810.01367.

    Example:
        >>> import torch
        >>> x = torch.randn(4, 3)
        >>> Hutchinson(probes=2)(x)(
        ...     lambda t, x: -x, torch.tensor(0.0), x, None
        ... ).divergence
        tensor([-3., -3., -3., -3.])
    """

    probe: Probe = _RADEMACHER
    probes: int = 1
    product: Product = _AUTOMATIC
    __repr__ = compact_repr

    def __post_init__(self) -> None:
        check_settings(self, probe=_RADEMACHER, probes=1, product=_AUTOMATIC)

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, with a probe drawn for each row."""
        product, eta = self.product, self.probe((self.probes, *x.shape), x, generator)

        def estimate(field: VectorField, t: Tensor, x: Tensor, context: Tensor | None) -> Local:
            velocity, products = product(field, t, x, context, eta)
            return Local(velocity, dot(eta, products).mean(0), dot(products, products).mean(0))

        return estimate


_HUTCHINSON, _EXACT = Hutchinson(), Exact()


class TrainEval(nn.Module):
    """One divergence while the flow is trained and another while it is evaluated, as FFJORD does it.

    ``flow.train()`` and ``flow.eval()`` select between the two, as for dropout. A new flow is in training
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
        >>> flow, x = (
        ...     Flow(CNF(MLP(2), TrainEval()), StandardNormal(2)),
        ...     torch.randn(99, 2),
        ... )
        >>> torch.equal(flow.log_prob(x), flow.log_prob(x))
        False
        >>> torch.equal(flow.eval().log_prob(x), flow.log_prob(x))
        True
    """

    def __init__(self, train: Divergence = _HUTCHINSON, eval: Divergence = _EXACT) -> None:
        super().__init__()
        check_divergence(train, "train")
        check_divergence(eval, "eval")
        self.in_training, self.in_evaluation = train, eval

    def forward(self, x: Tensor, generator: Generator | None = None) -> Estimator:
        """The estimator of a solve from points x, by the divergence of the mode the flow is in."""
        return (self.in_training if self.training else self.in_evaluation)(x, generator)

    def __repr__(self) -> str:
        parts = (("train", self.in_training, _HUTCHINSON), ("eval", self.in_evaluation, _EXACT))
        return (
            f"TrainEval({', '.join(f'{name}={part!r}' for name, part, default in parts if part != default)})"
        )
