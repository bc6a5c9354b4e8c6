r"""Residual layers: the identity plus a contraction, inverted by a fixed point.

The map :math:`x \mapsto x + r(x, c)` with a Lipschitz constant :math:`L < 1` of r in x has an inverse: by Banach's
theorem :math:`x \mapsto z - r(x, c)` has one fixed point, and each iterate is closer to it by a factor L.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from cnflib._check import check_finite, check_positive_int
from cnflib.bijection import Bijection
from cnflib.discrete.lipschitz import Linearized, Settled
from cnflib.discrete.logdets import ExactLogDet, LogDet
from cnflib.nets import push

__all__ = ["Residual"]

_EXACT = ExactLogDet()


class Residual(Bijection):
    r"""A residual layer :math:`z = x + r(x, c)`, where the branch r contracts in x.

    .. math:: \log |\det \partial z / \partial x| = \log\det(I + J), \qquad J = \partial r / \partial x

    Decoding iterates :math:`x \leftarrow z - r(x, c)` without gradients until, in every row, rounding stops the
    steps from getting shorter: as accurate as the dtype allows. That takes about :math:`\log \epsilon / \log L`
    iterations at most, some 340 for :math:`L = 0.9` in float64, and for most nets far fewer. Its gradients are
    those of the exact inverse by implicit differentiation: :math:`\bar z = (I + J)^{-\top} \bar x` by the iteration
    :math:`\bar z \leftarrow \bar x - J^\top \bar z`, and from there on into parameters and context. They are first
    derivatives; a second one raises. Decoding looks at values, so ``torch.compile(fullgraph=True)`` and
    ``torch.func`` pass through encoding alone, with an exact log-determinant.

    Args:
        net: The contraction, most often a :class:`Contraction`. Any module called as ``net(x, context)`` serves, if its
            Lipschitz constant in x is below 1: that is for its author to see to.
        logdet: :class:`ExactLogDet`, :class:`RussianRoulette` or another.
        iterations: Bound on the iterations of decoding.

    Raises:
        ValueError: If ``iterations`` is not a positive int, or ``logdet`` cannot be called so; in decoding, if the
            iteration does not converge.

    References:
        Invertible Residual Networks, Behrmann et al., 2018, arXiv:1811.00995;
        Deep Equilibrium Models, Bai et al., 2019, arXiv:1909.01377.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Contraction
        >>> layer = Residual(Contraction(2))
        >>> x = torch.randn(5, 2)
        >>> z, logdet = layer(x)
        >>> torch.allclose(layer.decode(z), x, atol=1e-5)
        True
    """

    def __init__(self, net: nn.Module, logdet: LogDet = _EXACT, iterations: int = 5000) -> None:
        super().__init__()
        check_positive_int(iterations, "iterations")
        _check_logdet(logdet)
        self.event_shape = getattr(net, "shape", None)
        self.net, self.logdet, self.iterations = net, logdet, iterations

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        value, product = self._settle(context).linearize(x)
        return x + value, self.logdet(product, x, generator)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r = self._settle(context)
        x = self._solve(r, z)
        return x, -self.logdet(r.linearize(x)[1], x, generator)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return x + self._settle(context)(x)

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._solve(self._settle(context), z)

    def _settle(self, context: Tensor | None) -> "Settled | _Plain":
        return self.net.at(context) if hasattr(self.net, "at") else _Plain(self.net, context)

    def _solve(self, r: "Settled | _Plain", z: Tensor) -> Tensor:
        with torch.no_grad():
            x = _fixed_point(lambda x: z - r(x), z, self.iterations, "z")
        step = z - r(x) if torch.is_grad_enabled() else x
        if not step.requires_grad:
            return x
        leaf = x.clone().requires_grad_()
        value = r(leaf)

        def pull(v: Tensor) -> Tensor:
            return torch.autograd.grad(value, leaf, v, retain_graph=True, materialize_grads=True)[0]

        return _Implicit.apply(
            step, lambda v: _fixed_point(lambda u: v - pull(u), v, self.iterations, "gradient")
        )

    def extra_repr(self) -> str:
        return f"logdet={self.logdet}, iterations={self.iterations}"


def _check_logdet(logdet: object) -> None:
    """Check that a residual layer was given a way to its log-determinant, not the class that makes one."""
    if isinstance(logdet, type) or not callable(logdet):
        way = f"Call it: {logdet.__name__}()." if isinstance(logdet, type) else "Take ExactLogDet()."
        raise ValueError(
            f"Expected logdet to be called as logdet(product, x, generator); got {logdet!r}. {way}"
        )


class _Implicit(torch.autograd.Function):
    """The identity, whose gradient goes through a solve."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, v: Tensor) -> tuple[Tensor, None]:
        return ctx.solve(v), None


class _Plain:
    """A net of any kind with its context."""

    def __init__(self, net: nn.Module, context: Tensor | None) -> None:
        self.net, self.context = net, context

    def __call__(self, x: Tensor) -> Tensor:
        return self._at(x, None)

    def linearize(self, x: Tensor) -> Linearized:
        def product(v: Tensor, rows: Tensor | None = None) -> Tensor:
            y = x if rows is None else x[rows]
            return push(lambda y: self._at(y, rows), y, v)[1]

        return self(x), product

    def _at(self, x: Tensor, rows: Tensor | None) -> Tensor:
        context = self.context if rows is None or self.context is None else self.context[rows]
        value = self.net(x, context)
        if not isinstance(value, Tensor) or value.shape != x.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"Expected net(x, context) to return a tensor of x's shape {tuple(x.shape)}; got {got}."
            )
        return value


def _fixed_point(update: Callable[[Tensor], Tensor], start: Tensor, iterations: int, name: str) -> Tensor:
    """Iterate until in every row a step is no shorter than the one before: then only rounding moves it."""
    x = start.detach()
    length = torch.full_like(x.flatten(1).sum(1), torch.inf)
    done = torch.zeros_like(length, dtype=torch.bool)
    for _ in range(iterations):
        new = update(x)
        before, length = length, (new - x).flatten(1).norm(dim=1)
        x, done = new, done | ~(length < before)
        if done.all():
            break
    _check_converged(x, length, start, name)
    return x


def _check_converged(x: Tensor, length: Tensor, start: Tensor, name: str) -> None:
    scale = 1 + x.flatten(1).norm(dim=1)
    failed = ~(length < torch.finfo(x.dtype).eps ** 0.5 * scale)
    if failed.any():
        check_finite(start, name)
        raise ValueError(
            f"Expected the iteration x ← z - r(x) to converge; it did not in {failed.sum().item()} of {len(x)} rows. "
            "Look for NaN in the weights (a learning rate too large), and for a net whose Lipschitz constant in x is "
            "not below 1: use Contraction. For a constant close to 1 raise iterations."
        )
