r"""Discrete data: paths that jump from noise to data, token by token, and the processes that a net learns of them.

A point is a row of D tokens, each one of a vocabulary. On the path from noise :math:`x_0` to data :math:`x_1` every
token has become that of the data with probability :math:`\kappa(t)`, each by itself:

.. math:: p_t(x^i | x_0, x_1) = (1 - \kappa)\, \delta(x^i, x_0^i) + \kappa\, \delta(x^i, x_1^i), \qquad
          \kappa(0) = 0, \quad \kappa(1) = 1

Along one pair a token jumps from x to y at the rate
:math:`R_t(x, y | x_1) = \frac{\dot\kappa}{1 - \kappa} \big(\delta(y, x_1) - \delta(y, x)\big)`. As the velocity of an
interpolant is the mean of its rates, so are the rates of the whole process:

.. math:: R_t(x, y) &= E[R_t(x, y | x_1) | x_t = x] \\
          &= \tfrac{\dot\kappa}{1 - \kappa} \big(p(x_1^i = y | x_t = x) - \delta(y, x)\big)

and :math:`\dot p_t(y) = \sum_x p_t(x) R_t(x, y)` holds for the law :math:`p_t` of :math:`x_t`. A net learns the
posterior :math:`p(x_1^i | x_t)`, of which it gives the logits: ``posterior(t, x)`` or ``posterior(t, x, context)``,
with t of shape ``(B,)`` and tokens x of shape ``(B, D)``, returns ``(B, D, vocabulary)``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cnflib._check import check_context, check_positive_int, check_returned, reference
from cnflib._field import uniform
from cnflib._random import source
from cnflib._settings import Built, compact_repr
from cnflib.interpolants._checks import check_schedule
from cnflib.interpolants._schedules import RISING, ReadySchedule
from cnflib.interpolants._tokens import check_tokens, hazard, rowwise
from cnflib.interpolants.interpolant import Schedule
from cnflib.interpolants.times import inside
from cnflib.nets import VectorField

__all__ = ["JumpPath", "Masked", "UniformNoise", "mean_rate"]


@dataclass(frozen=True, repr=False)
class JumpPath(Built, ABC):
    r"""A path from noise to tokens; its members say what the noise is, and what is known of the data without a net.

    Args:
        vocabulary: The number of values of a token of data, 0, 1, ..., vocabulary - 1.
        kappa: The schedule :math:`\kappa`, a differentiable function of a tensor t, elementwise, that rises from 0 at
            t = 0 to 1 at t = 1.

    Raises:
        ValueError: If the vocabulary is no positive int, or the schedule is none or has other ends.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import UniformNoise
        >>> late = UniformNoise(4, kappa=lambda t: t**2)
        >>> t, x = late.draw(torch.zeros(5, 3, dtype=torch.long))
        >>> t.shape, x.shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    vocabulary: int
    kappa: Schedule = RISING

    __repr__ = compact_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", check_positive_int(self.vocabulary, "vocabulary"))
        if self.kappa is RISING:
            return
        if not isinstance(self.kappa, ReadySchedule):
            check_schedule(self.kappa, "kappa")
        ends = self.kappa(torch.tensor([0.0, 1.0])).tolist()
        if max(abs(ends[0]), abs(ends[1] - 1)) > 1e-5:
            raise ValueError(f"Expected kappa to rise from 0 at t = 0 to 1 at t = 1; got {ends}.")

    @property
    def states(self) -> int:
        """The number of values of a token on the way, at least those of the data."""
        return self.vocabulary

    @abstractmethod
    def noise(
        self,
        shape: tuple[int, int],
        generator: Generator | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> Tensor:
        r"""Draw noise :math:`x_0` of shape ``(B, D)``, on a device, by default the generator's."""

    @abstractmethod
    def log_posterior(self, logits: Tensor, x: Tensor) -> Tensor:
        """The logarithms of the posterior at x that the logits of a net mean, shape ``(B, D, states)``."""

    def draw(
        self, x1: Tensor, t: float | Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""A time for each row of data, and its tokens :math:`x_t` there.

        Args:
            x1: Data, integers of shape ``(B, D)``.
            t: Times in [0, 1], a float or shape ``()`` or ``(B,)``; drawn uniformly on the open interval by default.
            generator: Source of times and tokens.

        Returns:
            The times of shape ``(B,)``, of t's dtype or the default one, and the tokens of shape ``(B, D)``.

        Raises:
            ValueError: If x1 are no tokens of this vocabulary, or a time is outside [0, 1].
        """
        check_tokens(x1, self.vocabulary, "x1")
        draw = {**source(generator), "device": x1.device}
        t = inside(torch.rand(len(x1), **draw)) if t is None else rowwise(t, x1)
        noise = self.noise(x1.shape, generator, device=x1.device)
        arrived = torch.rand(x1.shape, **draw, dtype=t.dtype) < self.kappa(t)[:, None]
        return t, torch.where(arrived, x1, noise)

    def rate(self, t: float | Tensor, x: Tensor, x1: Tensor) -> Tensor:
        r"""The rates :math:`R_t(x, y | x_1)` along one pair to all y, shape ``(B, D, states)``; they add up to 0."""
        return self._towards(F.one_hot(x1, self.states), rowwise(t, x), x)

    def _learned(self, posterior: VectorField, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The log-posterior that a net gives at x, shape (B, D, states); the net gets times of its own dtype."""
        check_context(context, x)
        like = reference(posterior)
        logits = uniform(posterior)(t if like is None else t.to(like.dtype), x, context)
        check_returned(logits, (*x.shape, self.vocabulary), "posterior(t, x, context)", "logits")
        return self.log_posterior(logits, x)

    def _towards(self, target: Tensor, t: Tensor, x: Tensor) -> Tensor:
        """Rates that lead from x to a law of tokens."""
        return hazard(self.kappa, t)[:, None, None] * (target - F.one_hot(x, self.states))


@dataclass(frozen=True, repr=False)
class Masked(JumpPath):
    r"""The path whose noise is a mask on every token: each is uncovered once, and stays.

    The mask is one value more, ``path.mask``, equal to the vocabulary; the net sees it in x and gives no logit for it.
    Of a token that is uncovered the posterior is known, whatever the net says. The posterior at all others does not
    depend on t, so that the net may leave t out.

    References:
        Structured Denoising Diffusion Models in Discrete State-Spaces, Austin et al., 2021, arXiv:2107.03006;
        Simple and Effective Masked Diffusion Language Models, Sahoo et al., 2024, arXiv:2406.07524.

    Example:
        >>> import torch
        >>> path = Masked(4)
        >>> path.draw(torch.tensor([[1, 2]]), t=0.0)[1], path.mask
        (tensor([[4, 4]]), 4)
    """

    @property
    def states(self) -> int:
        """The number of values of a token on the way: those of the data and the mask."""
        return self.vocabulary + 1

    @property
    def mask(self) -> int:
        """The value that covers a token."""
        return self.vocabulary

    def noise(
        self,
        shape: tuple[int, int],
        generator: Generator | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Masks, of shape ``(B, D)``."""
        return torch.full(shape, self.mask, device=_place(generator, device))

    def log_posterior(self, logits: Tensor, x: Tensor) -> Tensor:
        """That of the net where x is a mask, and x itself where it is none."""
        learned = F.pad(logits.log_softmax(-1), (0, 1), value=-torch.inf)
        known = torch.full_like(learned, -torch.inf).scatter(-1, x[..., None], 0.0)
        return torch.where((x == self.mask)[..., None], learned, known)


@dataclass(frozen=True, repr=False)
class UniformNoise(JumpPath):
    r"""The path whose noise is uniform on the vocabulary: a token may change again, and so be corrected.

    References:
        Structured Denoising Diffusion Models in Discrete State-Spaces, Austin et al., 2021, arXiv:2107.03006;
        Discrete Flow Matching, Gat et al., 2024, arXiv:2407.15595.

    Example:
        >>> import torch
        >>> path = UniformNoise(4)
        >>> path.noise((3, 2)).shape, path.draw(torch.tensor([[1, 2]]), t=1.0)[1]
        (torch.Size([3, 2]), tensor([[1, 2]]))
    """

    def noise(
        self,
        shape: tuple[int, int],
        generator: Generator | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Tokens drawn uniformly, of shape ``(B, D)``."""
        return torch.randint(self.vocabulary, shape, **source(generator), device=_place(generator, device))

    def log_posterior(self, logits: Tensor, x: Tensor) -> Tensor:
        """That of the net."""
        return logits.log_softmax(-1)


def _place(generator: Generator | None, device: torch.device | str | None) -> torch.device | str | None:
    return generator.device if device is None and generator is not None else device


def mean_rate(
    posterior: VectorField, path: JumpPath, t: float | Tensor, x: Tensor, context: Tensor | None = None
) -> Tensor:
    r"""The rates :math:`R_t(x, y) = E[R_t(x, y | x_1) | x_t = x]` at which each token of x jumps to y.

    With the exact posterior they carry the law of noise through all :math:`p_t` to that of the data.

    Args:
        posterior: The net, of logits.
        path: The path.
        t: Times in [0, 1), a float or shape ``()`` or ``(B,)``.
        x: Tokens on the way, shape ``(B, D)``.
        context: What the net is conditioned on, a tensor with B rows; it reaches the net untouched.

    Returns:
        Shape ``(B, D, states)``, in jumps per unit of time. To x itself it is minus the sum of all others.

    Raises:
        ValueError: If x are no tokens of the path, or times, context or logits are not as above.

    References:
        Generative Flows on Discrete State-Spaces, Campbell et al., 2024, arXiv:2402.04997;
        Discrete Flow Matching, Gat et al., 2024, arXiv:2407.15595.

    Example:
        >>> import torch
        >>> from cnflib.interpolants import UniformNoise
        >>> even = lambda t, x: torch.zeros(*x.shape, 2)
        >>> mean_rate(even, UniformNoise(2), 0.5, torch.tensor([[0, 1]]))
        tensor([[[-1.,  1.],
                 [ 1., -1.]]])
    """
    check_tokens(x, path.states, "x")
    t = rowwise(t, x)
    return path._towards(path._learned(posterior, t, x, context).exp(), t, x)
