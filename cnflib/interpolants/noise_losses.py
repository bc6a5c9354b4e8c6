r"""Losses that learn what the noise of an interpolant was: its denoiser, and with it the score.

.. math:: \bar\xi(t, x) = E[\xi | x_t = x] = -\gamma(t)\, s(t, x), \qquad s = \nabla_x \log p_t
"""

from torch import Generator, Tensor

from cnflib.interpolants._pairs import check, draw, evaluate
from cnflib.interpolants._root import root
from cnflib.interpolants.interpolant import Interpolant
from cnflib.nets import VectorField

__all__ = ["denoiser_loss", "score_loss"]


def denoiser_loss(
    denoiser: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The squared error :math:`|\bar\xi(t, x_t, c) - \xi|^2` at one time for each pair.

    Its mean is least at the denoiser :math:`E[\xi | x_t = x]`, between 0 and the dimension of the event. No rate
    enters: it is finite for every noise and at every time, the ends too.

    Args:
        denoiser: The net ``denoiser(t, x)`` or ``denoiser(t, x, context)``; t arrives with shape ``(B,)``.
        interpolant: An interpolant with noise.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times in [0, 1], shape ``(B,)``; drawn uniformly on the open interval by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default.
        context: What the net is conditioned on, a tensor with B rows, labels of shape ``(B,)`` too; the net gets it
            untouched.
        generator: Source of t and xi.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, without a unit.

    Raises:
        ValueError: If the interpolant has no noise, or if ends, times, noise, context or the net's result disagree.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Bridge, Linear
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> denoiser_loss(MLP(2), Linear(Bridge()), x0, x1).shape
        torch.Size([64])
    """
    value, _, xi = _at(denoiser, "denoiser", interpolant, x0, x1, t, xi, context, generator)
    return (value - xi).square().flatten(1).sum(1)


def score_loss(
    score: VectorField,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None = None,
    xi: Tensor | None = None,
    context: Tensor | None = None,
    generator: Generator | None = None,
) -> Tensor:
    r"""The squared error of the score, weighted by :math:`\gamma^2`: :math:`|\gamma\, s(t, x_t, c) + \xi|^2`.

    Along one pair the score is :math:`-\xi / \gamma`, infinite where :math:`\gamma = 0`; the weight makes the loss
    that of the denoiser :math:`-\gamma s`, finite at all times. Its mean is least at :math:`s = \nabla \log p_t`. It
    asks for little near the ends, where :math:`\gamma` is small and the score is not; there a net for the denoiser,
    divided by :math:`-\gamma`, is no better.

    Args:
        score: The net ``s(t, x)`` or ``s(t, x, context)``; t arrives with shape ``(B,)``.
        interpolant: An interpolant with noise.
        x0: Base points, shape ``(B, *event)``.
        x1: Data points, shape ``(B, *event)``.
        t: Times in [0, 1], shape ``(B,)``; drawn uniformly on the open interval by default.
        xi: Noise, shape ``(B, *event)``; drawn from N(0, I) by default.
        context: What the net is conditioned on, a tensor with B rows, labels of shape ``(B,)`` too; the net gets it
            untouched.
        generator: Source of t and xi.

    Returns:
        The error summed over the event, no factor ½, shape ``(B,)``, without a unit.

    Raises:
        ValueError: As :func:`denoiser_loss`.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import Linear, Parabola
        >>> from cnflib.nets import MLP
        >>> x0, x1 = torch.randn(64, 2), torch.rand(64, 2)
        >>> score_loss(MLP(2), Linear(Parabola()), x0, x1).shape
        torch.Size([64])
    """
    value, gamma, xi = _at(score, "score", interpolant, x0, x1, t, xi, context, generator)
    return (gamma * value + xi).square().flatten(1).sum(1)


def _at(
    model: VectorField,
    name: str,
    interpolant: Interpolant,
    x0: Tensor,
    x1: Tensor,
    t: Tensor | None,
    xi: Tensor | None,
    context: Tensor | None,
    generator: Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The model's value at :math:`x_t`, :math:`\gamma`, and :math:`\xi`."""
    f = check(model, name, interpolant, x0, x1, context)
    if interpolant.gamma2 is None:
        raise ValueError(
            f"Expected an interpolant with noise, of which a {name} is learned; got one without. Take one with noise, "
            "e.g. Linear(Parabola()), or derive the score from the velocity where the base is Gaussian and drawn "
            "independently of the data: score_from_velocity."
        )
    t, xi = draw(interpolant, x0, t, xi, generator)
    column = t.reshape(-1, *[1] * (x0.ndim - 1))
    gamma = root(interpolant.gamma2(column))
    x_t = interpolant.alpha(column) * x0 + interpolant.beta(column) * x1 + gamma * xi
    return evaluate(f, name, t, x_t, context), gamma, xi
