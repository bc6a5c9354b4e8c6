r"""Residual layers: the identity plus a contraction, inverted by a fixed point.

The map :math:`x \mapsto x + r(x, c)` with a Lipschitz constant :math:`L < 1` of r in x has an inverse: by Banach's
theorem :math:`x \mapsto z - r(x, c)` has one fixed point, and each iterate is closer to it by a factor L.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from cnflib._check import check_built
from cnflib.bijection import Bijection
from cnflib.discrete.lipschitz import Linearized, Settled
from cnflib.discrete.logdets import ExactLogDet, LogDet
from cnflib.nets import push

__all__ = ["Residual"]

_EXACT_LOGDET = ExactLogDet()


class Residual(Bijection):
    r"""A residual layer :math:`z = x + r(x, c)`, where the branch r contracts in x.

    .. math:: \log |\det \partial z / \partial x| = \log\det(I + J), \qquad J = \partial r / \partial x

    Decoding iterates :math:`x \leftarrow z - r(x, c)` without gradients until, in every row, rounding stops the
    steps from getting shorter: as accurate as the dtype allows. That takes about :math:`\log \epsilon / \log L`
    iterations at most, some 340 for :math:`L = 0.9` in float64, and for most nets far fewer. Its gradients are
    those of the exact inverse by implicit differentiation: :math:`\bar z = (I + J)^{-\top} \bar x` by the iteration
    :math:`\bar z \leftarrow \bar x - J^\top \bar z`, and from there on into parameters and context. They are first
    derivatives; a second one raises. Decoding looks at values, so ``torch.compile(fullgraph=True)`` and ``torch.func``
    pass through encoding alone, with an exact log-determinant, to every order and in both modes. Under autocast the
    layer keeps the dtype of x, in both directions.

    Args:
        net: The contraction, most often a :class:`Contraction`. Any module called as ``net(x, context)`` serves, if its
            Lipschitz constant in x is below 1, which is not checked.
        logdet: :class:`ExactLogDet`, :class:`RussianRoulette` or another.
        iterations: Bound on the iterations of decoding.

    Raises:
        ValueError: If ``net`` or ``logdet`` is a class; in decoding, if the iteration does not converge; in a call,
            if a net of one's own returns another shape than that of x.

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

    def __init__(self, net: nn.Module, logdet: LogDet = _EXACT_LOGDET, iterations: int = 5000) -> None:
        super().__init__()
        check_built(net, "net")
        check_built(logdet, "logdet")
        self.event_shape = getattr(net, "shape", None)
        self.net, self.logdet, self.iterations = net, logdet, iterations

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        with _as_it_is(x):
            value, product = self._settle(context, x).linearize(x)
            return x + value, self.logdet(product, x, generator)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        with _as_it_is(z):
            r = self._settle(context, z)
            x = self._solve(r, z)
            return x, -self.logdet(r.linearize(x)[1], x, generator)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        with _as_it_is(x):
            return x + self._settle(context, x)(x)

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        with _as_it_is(z):
            return self._solve(self._settle(context, z), z)

    def _settle(self, context: Tensor | None, x: Tensor) -> "Settled | _WithContext":
        if context is not None and context.is_floating_point() and context.dtype.itemsize < 4:
            context = context.to(x.dtype)  # a net before this one rounded it under autocast
        return self.net.at(context) if hasattr(self.net, "at") else _WithContext(self.net, context)

    def _solve(self, r: "Settled | _WithContext", z: Tensor) -> Tensor:
        with torch.no_grad():
            x = _fixed_point(lambda x: z - r(x), z, self.iterations, "z")
        # At the fixed point z - r(x) is x again, now with gradients: those with respect to z and to what r holds, at x
        # held fixed. By the implicit function theorem the gradients of the inverse are these, of the vector
        # (I + J)^{-T} v in place of v. So the backward pass solves one more fixed point, and neither its memory nor its
        # accuracy depends on the iterations that found x.
        step = z - r(x) if torch.is_grad_enabled() else x
        if not step.requires_grad:
            return x
        leaf = x.clone().requires_grad_()
        value = r(leaf)

        def solved(v: Tensor) -> Tensor:
            pull = lambda u: torch.autograd.grad(value, leaf, u, retain_graph=True, materialize_grads=True)[0]
            with _as_it_is(v):
                return _fixed_point(lambda u: v - pull(u), v, self.iterations, "gradient")

        return _Implicit.apply(step, solved)

    def extra_repr(self) -> str:
        return f"logdet={self.logdet}, iterations={self.iterations}"


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


class _WithContext:
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
        if value.shape != x.shape:
            raise ValueError(
                f"Expected net(x, context) to return x's shape {tuple(x.shape)}; got {tuple(value.shape)}."
            )
        return value


def _as_it_is(x: Tensor) -> torch.autocast:
    """In the dtype of x under autocast too: what is rounded in encoding the iteration would not find again."""
    return torch.autocast(x.device.type, enabled=False)


def _length(x: Tensor) -> Tensor:
    """The length of each row, in units of which no square overflows; not every device has float64."""
    rows = x.flatten(1)
    unit = rows.abs().amax(1).clamp(min=1)
    return unit * (rows / unit[:, None]).norm(dim=1)


def _fixed_point(update: Callable[[Tensor], Tensor], start: Tensor, iterations: int, name: str) -> Tensor:
    """Iterate until in every row a step is no shorter than the one before."""
    x = start.detach()
    length = torch.full_like(_length(x), torch.inf)
    done = torch.zeros_like(length, dtype=torch.bool)
    for _ in range(iterations):
        new = update(x)
        # The steps of a contraction get shorter by a factor of at most L each, until rounding alone moves the point:
        # a step that is no shorter tells that, in any dtype and without a tolerance. A NaN is never shorter. Finished
        # rows go on with the others, within rounding of where they are.
        before, length = length, _length(new - x)
        x, done = new, done | ~(length < before)
        if done.all():
            break
    # Where r does not contract, steps may grow from the start, and end the loop too: what tells the two is their size.
    failed = ~(length < torch.finfo(x.dtype).eps ** 0.5 * (1 + _length(x)))
    if failed.any():
        raise ValueError(
            f"Expected the iteration from {name} to converge; it did not in {int(failed.sum())} of {len(x)} rows. Look "
            f"for NaN in the weights (a learning rate too large) or in {name}, and for a net whose Lipschitz constant "
            "in x is not below 1: use Contraction. For a constant close to 1 raise iterations."
        )
    return x
