r"""Laws of the time t at which a loss looks at an interpolant.

Each is called as ``times(n, like, generator)`` and returns times with weights, so that the loop is the same for all::

    t, weight = times(512, like=x1)
    loss = (weight * velocity_loss(field, interpolant, x0, x1, t=t)).mean()

Times lie in the open interval (0, 1), whatever the rounding.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_generator, check_positive_int
from cnflib._random import source
from cnflib._settings import Built, compact_repr
from cnflib._tensors import widest

__all__ = ["BetaTimes", "ImportanceTimes", "TimeLaw", "UniformTimes", "inside"]


def inside(t: Tensor) -> Tensor:
    """Times of [0, 1] moved into the open interval: an end moves by half the precision of its dtype.

    Example:
        >>> import torch
        >>> inside(torch.tensor([0.0, 0.5])).tolist()
        [5.960464477539063e-08, 0.5]
    """
    least = torch.finfo(t.dtype).eps / 2
    return t.clamp(least, 1 - least)


class TimeLaw(Built, ABC):
    r"""A fixed law of time on (0, 1), with density p.

    One's own is a subclass with two methods, ``draw(n, like, generator)`` and ``density(t)``.

    Attributes:
        unbiased: Whether weights undo the law. If False they are 1, and a loss is a mean over p: the law says which
            times *matter*. If True they are :math:`1 / p(t)`, and the mean is that over uniform times: the law only
            says where to *look*, for less variance.

    Example:
        >>> import torch
        >>> class Late(TimeLaw):
        ...     def draw(self, n, like, generator=None):
        ...         return torch.rand(
        ...             n, generator=generator, dtype=like.dtype, device=like.device
        ...         ).sqrt()
        ...
        ...     def density(self, t):
        ...         return 2 * t
        >>> t, weight = Late()(1000)
        >>> bool(t.mean() > 0.6), weight[:2]
        (True, tensor([1., 1.]))
    """

    unbiased: bool = False

    @abstractmethod
    def draw(self, n: int, like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw n times, shape ``(n,)``, of the dtype and on the device of ``like``."""

    @abstractmethod
    def density(self, t: Tensor) -> Tensor:
        """The density :math:`p(t)`, of the shape of t."""

    def __call__(
        self, n: int, like: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n times and their weights, each of shape ``(n,)``.

        Args:
            n: How many.
            like: A tensor whose dtype and device the times have; by default the default dtype, and the generator's
                device.
            generator: Source of randomness.
        """
        check_generator(generator)
        n = check_positive_int(n, "n")
        t = inside(self.draw(n, _like(like, generator), generator))
        return t, 1 / self.density(t) if self.unbiased else torch.ones_like(t)


@dataclass(frozen=True, repr=False)
class UniformTimes(TimeLaw):
    """Times uniform on (0, 1), of weight 1: what a loss draws by itself.

    Example:
        >>> t, weight = UniformTimes()(3)
        >>> bool(((t > 0) & (t < 1)).all()), weight.tolist()
        (True, [1.0, 1.0, 1.0])
    """

    __repr__ = compact_repr

    def draw(self, n: int, like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw n times, shape ``(n,)``."""
        return torch.rand(n, **source(generator), dtype=like.dtype, device=like.device)

    def density(self, t: Tensor) -> Tensor:
        """The density 1, of the shape of t."""
        return torch.ones_like(t)


@dataclass(frozen=True, repr=False)
class BetaTimes(TimeLaw):
    r"""Times of the law Beta(a, b), of density :math:`p(t) = t^{a - 1} (1 - t)^{b - 1} / B(a, b)`.

    Beta(1, ½) looks more often near the data, where the velocity of sharp data varies most. A rich field has the same
    minimiser under every law of time; a small one is better where the law looks.

    Args:
        a: Exponent at t = 0, positive; below 1 the density is infinite there.
        b: Exponent at t = 1, positive; below 1 the density is infinite there.
        unbiased: False for weights 1, the Beta law as a weighting of time; True for weights :math:`1 / p(t)`, with
            which means are those over uniform times. Where a or b is 2 or more these have infinite variance for a
            loss that does not vanish at that end: :class:`ImportanceTimes` bounds its weights.

    Raises:
        ValueError: If ``a`` or ``b`` is not positive.

    References:
        Stochastic Interpolants: A Unifying Framework, Albergo et al., 2023, arXiv:2303.08797;
        Scaling Rectified Flow Transformers, Esser et al., 2024, arXiv:2403.03206 (laws of time compared).

    Example:
        >>> import torch
        >>> BetaTimes(1.0, 0.5).density(torch.tensor(0.75))
        tensor(1.)
    """

    a: float
    b: float
    unbiased: bool = False

    __repr__ = compact_repr

    def __post_init__(self) -> None:
        if not (0 < self.a < math.inf and 0 < self.b < math.inf):
            raise ValueError(
                f"Expected a and b to be positive numbers; got {self}. BetaTimes(1, 1) is uniform."
            )

    def draw(self, n: int, like: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw n times, shape ``(n,)``: a ratio of Gamma variates, on the scale of logarithms."""
        logit = _log_gamma_variate(self.a, n, generator, like.device)
        return torch.sigmoid(logit - _log_gamma_variate(self.b, n, generator, like.device)).to(like.dtype)

    def density(self, t: Tensor) -> Tensor:
        """The density :math:`p(t)`, of the shape of t."""
        log_scale = math.lgamma(self.a) + math.lgamma(self.b) - math.lgamma(self.a + self.b)
        return ((self.a - 1) * t.log() + (self.b - 1) * torch.log1p(-t) - log_scale).exp()


class ImportanceTimes(nn.Module):
    r"""Times drawn where the loss is large, with weights that keep its mean over uniform times.

    The mean of :math:`\ell(t) / p(t)` is :math:`\int E\,\ell\,dt` for every density p, and varies least for
    :math:`p \propto \sqrt{E[\ell^2 | t]}`. This p is estimated on K bins of equal width from the losses recorded so
    far, the older ones forgotten, and mixed with the uniform law, so that no weight exceeds :math:`1 / \lambda`:

    .. math:: p(t) = \lambda + (1 - \lambda)\, \frac{r_k}{\bar r}, \qquad r_k = \sqrt{E[\ell^2 | t \in \text{bin } k]}

    A bin not yet seen has the mean of the others, so it begins with uniform times. The state is in buffers:
    ``state_dict`` and ``.to(device)`` work.

    Args:
        bins: Number of bins K.
        uniform: The share :math:`\lambda` of the uniform law, in (0, 1].
        memory: Number of recorded batches over which the average runs, about.

    Raises:
        ValueError: If ``uniform`` or ``memory`` is out of range.

    References:
        Improved Denoising Diffusion Probabilistic Models, Nichol & Dhariwal, 2021, arXiv:2102.09672.

    Example:
        >>> import torch
        >>> times = ImportanceTimes(bins=4)
        >>> t, weight = times(1000)
        >>> times.record(t, 4 * t)  # the loss, in training
        >>> t, weight = times(1000)
        >>> bool(t.mean() > 0.55), bool(abs(weight.mean() - 1) < 0.1)
        (True, True)
    """

    def __init__(self, bins: int = 64, uniform: float = 0.1, memory: float = 100.0) -> None:
        super().__init__()
        check_positive_int(bins, "bins")
        if not (0 < uniform <= 1 <= memory < math.inf):
            raise ValueError(
                f"Expected 0 < uniform <= 1, the share that bounds the weights by 1 / uniform, and memory of at least "
                f"1 batch; got uniform={uniform!r} and memory={memory!r}."
            )
        self.uniform, self.memory = uniform, memory
        self.register_buffer("squares", torch.zeros(bins))
        self.register_buffer("counts", torch.zeros(bins))

    def forward(
        self, n: int, like: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n times and their weights 1 / p(t), each of shape ``(n,)``, on the device of the buffers.

        Args:
            n: How many.
            like: A tensor whose dtype the times have; by default the default dtype.
            generator: Source of randomness.
        """
        dtype = _like(like, generator).dtype
        p = self._density()
        u = torch.rand(n, **source(generator), dtype=p.dtype, device=p.device)
        upper = p.cumsum(0) / len(p)
        k = torch.searchsorted(upper, u, right=True).clamp(max=len(p) - 1)
        t = (k + ((u - upper[k]) * len(p) / p[k] + 1).clamp(0, 1)) / len(p)
        t = inside(t.to(dtype))
        return t, 1 / self.density(t)

    @torch.no_grad()
    def record(self, t: Tensor, loss: Tensor) -> None:
        """Take note of losses before their weights, shape ``(n,)``, at the times t, shape ``(n,)``; no gradient flows.

        Raises:
            ValueError: If the shapes differ or a loss is not finite.
        """
        if t.ndim != 1 or t.shape != loss.shape or not loss.isfinite().all():
            raise ValueError(
                f"Expected t and finite losses of the same shape (n,); got {tuple(t.shape)} and {tuple(loss.shape)}, "
                f"with {(~loss.isfinite()).sum().item()} NaN or inf. Record the loss of each row, before the mean."
            )
        k, square = self._bin(t), loss.to(self.squares).square()
        decay = 1 - 1 / self.memory
        self.squares.mul_(decay).index_add_(0, k, square)
        self.counts.mul_(decay).index_add_(0, k, torch.ones_like(square))

    def density(self, t: Tensor) -> Tensor:
        """The density p(t) that the next times are drawn from, of the shape of t."""
        return self._density()[self._bin(t)].to(t)

    def _density(self) -> Tensor:
        """The density on each bin, shape (K,), of mean 1."""
        dtype = widest(self.counts.device)
        squares, counts = self.squares.to(dtype), self.counts.to(dtype)
        seen = counts > 0
        r = torch.where(seen, squares / torch.where(seen, counts, 1), 0).sqrt()
        mean = r.sum() / seen.sum().clamp_min(1)
        relative = torch.where(seen & (mean > 0), r / mean.clamp_min(torch.finfo(dtype).tiny), 1.0)
        return self.uniform + (1 - self.uniform) * relative

    def _bin(self, t: Tensor) -> Tensor:
        return (t.to(self.squares) * len(self.counts)).long().clamp(0, len(self.counts) - 1)

    def extra_repr(self) -> str:
        return f"bins={len(self.counts)}, uniform={self.uniform}, memory={self.memory}"


def _like(like: Tensor | None, generator: Generator | None) -> Tensor:
    """The tensor whose dtype and device times have."""
    if like is not None:
        return like
    return torch.empty(0, device="cpu" if generator is None else generator.device)


def _log_gamma_variate(a: float, n: int, generator: Generator | None, device: torch.device) -> Tensor:
    """The logarithm of n draws of Gamma(a): those of a + 1, times U^(1/a), which underflow for no a."""
    shape = torch.full((n,), a + 1, dtype=widest(device), device=device)
    u = inside(torch.rand(n, **source(generator), dtype=shape.dtype, device=device))
    return torch._standard_gamma(shape, generator=generator).log() + u.log() / a
