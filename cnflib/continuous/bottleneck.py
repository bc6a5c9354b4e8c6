r"""FFJORD's bottleneck: a trace estimated in a narrow hidden layer of the field."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from cnflib._check_field import check_velocity
from cnflib._settings import check_settings, compact_repr, traceable
from cnflib.continuous.divergence import Estimator, Local
from cnflib.continuous.probes import Gaussian, Probe
from cnflib.continuous.products import dot, factors
from cnflib.nets import VectorField, push

__all__ = ["Bottleneck"]

_GAUSSIAN = Gaussian()


@traceable
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
        check_settings(self, probe=_GAUSSIAN, probes=1)

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
            return Local(velocity, dot(eta, back).mean(0), dot(whole, whole).mean(0))

        return estimate


def _narrow(drawn: Tensor, hidden: Tensor) -> Tensor:
    """As many entries of the probe as the hidden layer has."""
    width, dim = hidden.shape[1:].numel(), drawn.shape[2]
    if width > dim:
        raise ValueError(
            f"Expected a hidden layer of at most {dim} numbers, the dimension of x, for Bottleneck(); the narrowest "
            f"has {width}. Make a layer of the field narrower, or use Hutchinson()."
        )
    return drawn[:, :, :width].reshape(-1, *hidden.shape)
