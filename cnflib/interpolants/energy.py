r"""How long a path is, and how much longer than the shortest.

The energy of a path is :math:`\int_0^1 E|b(t, x_t)|^2\,dt \ge W_2^2`, with equality only for optimal transport, between
the laws that it joins: those of :math:`x_t` at t = 0 and 1, which :class:`~cnflib.interpolants.Constant` noise has
smoothed.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from cnflib.interpolants._checks import check_step, evaluate
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["TransportGap", "gaussian_cost", "path_energy", "transport_gap"]


class TransportGap(NamedTuple):
    """The energy of a path beside the cost of optimal transport; prints as a table.

    Attributes:
        energy: The energy of the path, in squared data units.
        error: The standard error of the energy.
        cost: The cost of optimal transport, :math:`W_2^2`.

    Example:
        >>> print(TransportGap(energy=6.0, error=0.5, cost=4.0))
        path energy        6.0000 ± 0.5000
        W2 squared         4.0000
        gap                2.0000
    """

    energy: float
    error: float
    cost: float

    @property
    def gap(self) -> float:
        """Energy minus cost."""
        return self.energy - self.cost

    @property
    def normalised(self) -> float:
        r"""The gap over the cost, :math:`|E - W_2^2| / W_2^2`: the normalised path energy of OT-CFM; inf of no cost."""
        return abs(self.gap) / self.cost if self.cost else math.inf

    def __str__(self) -> str:
        return (
            f"path energy    {self.energy:10.4f} ± {self.error:.4f}\n"
            f"W2 squared     {self.cost:10.4f}\n"
            f"gap            {self.gap:10.4f}"
            + (
                ", below 0: the field misses its ends, or these are smoothed"
                if self.gap < -3 * self.error
                else ""
            )
        )


def path_energy(
    field: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The energy :math:`|f(t, x_t, c)|^2` of a field at one point of each pair.

    At the velocity its mean is the energy :math:`\int E|b|^2\,dt` of the path. Of another field it is that of the field
    on the path's points, not along its own trajectories: for these integrate
    :class:`~cnflib.continuous.KineticEnergy`.

    Arguments and errors are those of :func:`~cnflib.interpolants.velocity_loss`, except that times at which noise
    vanishes are welcome.

    Returns:
        Shape ``(B,)``, in squared data units.

    References:
        Building Normalizing Flows with Stochastic Interpolants, Albergo & Vanden-Eijnden, 2022, arXiv:2209.15571.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear
        >>> path_energy(
        ...     lambda t, x: torch.ones_like(x), Linear(), *torch.randn(2, 3, 2)
        ... ).tolist()
        [2.0, 2.0, 2.0]
    """
    check_step(field, interpolant, x0, context)
    t, x_t, _, _ = interpolant._noisy_point(x0, x1, t, xi, generator)
    return evaluate(field, "field", t, x_t, context).square().flatten(1).sum(1)


def gaussian_cost(mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor) -> Tensor:
    r"""The cost of optimal transport between two Gaussians, in closed form.

    .. math:: W_2^2 = |m_1 - m_0|^2 + \operatorname{tr}\big(C_0 + C_1 - 2 (C_0^{1/2} C_1 C_0^{1/2})^{1/2}\big)

    Args:
        mean0: :math:`m_0`, shape ``(D,)``.
        covariance0: :math:`C_0`, symmetric and positive semi-definite, shape ``(D, D)``.
        mean1: :math:`m_1`, shape ``(D,)``.
        covariance1: :math:`C_1`, shape ``(D, D)``.

    Returns:
        Shape ``()``, in squared data units.

    Raises:
        ValueError: If the shapes disagree.

    References:
        The distance between two random vectors with given dispersion matrices, Olkin & Pukelsheim, 1982.

    Example:
        >>> import torch
        >>> gaussian_cost(
        ...     torch.zeros(1), torch.eye(1), torch.zeros(1), 9 * torch.eye(1)
        ... )
        tensor(4.)
    """
    D = mean0.numel()
    shapes = [tuple(part.shape) for part in (mean0, covariance0, mean1, covariance1)]
    if shapes != [(D,), (D, D), (D,), (D, D)]:
        raise ValueError(
            "Expected mean0, covariance0, mean1, covariance1 of shapes (D,), (D, D), (D,), (D, D); got "
            f"{', '.join(map(str, shapes))}. For a variance: variance * torch.eye(D)."
        )
    cross = torch.linalg.svdvals(_factor(covariance0).T @ _factor(covariance1)).sum()
    return (mean1 - mean0).square().sum() + covariance0.trace() + covariance1.trace() - 2 * cross


def _factor(covariance: Tensor) -> Tensor:
    """Any R with R Rᵀ = C; that of Cholesky where there is one, as its gradient is finite for equal eigenvalues."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


def transport_gap(energy: Tensor, cost: float | Tensor) -> TransportGap:
    r"""How much longer a path is than optimal transport.

    Args:
        energy: The energies of :func:`path_energy`, shape ``(B,)`` with B at least 2.
        cost: :math:`W_2^2` of the two ends: :func:`gaussian_cost`, or between samples the mean of
            :math:`|x_1 - x_0|^2` over pairs of an exact assignment of many points. That of B points is biased, and
            an assignment of one batch can lie above the energy of a good path.
            Of smoothed ends take the smoothed laws. The energy, too, is only as good as the field: below
            :math:`W_2^2` the field misses its ends, and :func:`~cnflib.interpolants.monitor` is then not 0.

    Returns:
        Energy with its standard error, cost and gap.

    References:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport, Tong et al., 2023,
        arXiv:2302.00482.

    Example:
        >>> import torch
        >>> transport_gap(torch.tensor([5.0, 7.0]), 4.0).normalised
        0.5
    """
    return TransportGap(energy.mean().item(), (energy.std() / len(energy) ** 0.5).item(), float(cost))
