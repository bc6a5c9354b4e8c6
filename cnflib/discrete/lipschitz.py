r"""Nets whose Lipschitz constant in x is bounded below 1, for residual flows.

A composition of linear maps and activations of slope at most 1 in modulus has

.. math:: \operatorname{Lip}(r) \le \prod_k \|W_k\|_2,

so for a constant of at most L it is enough to bound the spectral norm of each of the n linear maps by :math:`L^{1/n}`.
Norms are computed at every call, so nothing is stored between calls and a net is a function of its parameters alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnflib._check import check_declared
from cnflib._check_sizes import check_features, check_widths, event_shape
from cnflib.discrete.spectral import spectral_norm

__all__ = ["Activation", "Contraction", "JacobianProduct", "Linearized", "Settled", "lipswish", "sine"]

Activation = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``activation(a) -> (value, slope)``, entry by entry; smooth, with a slope of modulus at most 1."""

JacobianProduct = Callable[..., Tensor]
r"""``product(v, rows=None)``: :math:`J v` for stacks v of shape ``(K, B, *event)``, or ``(K, 1, *event)`` for the same
in every row. With ``rows``, an index of b rows of the batch, v and the result have those b rows only."""

Linearized = tuple[Tensor, JacobianProduct]
r"""The value :math:`r(x)` and the products :math:`v \mapsto J v` with its Jacobian there."""


def lipswish(a: Tensor) -> tuple[Tensor, Tensor]:
    r"""The activation :math:`a\,\sigma(a) / 1.1`, whose slope lies between -0.091 and 0.9999.

    Unlike that of a tanh, its slope is near its bound on a half-line, and its second derivative is continuous: the
    gradient of a log-determinant is made of second derivatives.

    Args:
        a: Of any shape.

    Returns:
        Value and slope, both of a's shape.

    References:
        Residual Flows for Invertible Generative Modeling, Chen et al., 2019, arXiv:1906.02735.

    Example:
        >>> import torch
        >>> value, slope = lipswish(torch.zeros(1))
        >>> value.item(), round(slope.item(), 4)
        (0.0, 0.4545)
    """
    s = torch.sigmoid(a)
    y = a * s / 1.1
    return y, y + s * (1 / 1.1 - y)


def sine(a: Tensor) -> tuple[Tensor, Tensor]:
    r"""The activation :math:`\sin a`: its slope comes back to ±1 again and again, however large a grows.

    Args:
        a: Of any shape.

    Returns:
        Value and slope, both of a's shape.

    Example:
        >>> import torch
        >>> value, slope = sine(torch.zeros(1))
        >>> value.item(), slope.item()
        (0.0, 1.0)
    """
    return a.sin(), a.cos()


class Contraction(nn.Module):
    r"""A net :math:`r(x, c)` with :math:`|r(x, c) - r(y, c)| \le L |x - y|` at any value of its parameters.

    .. math:: h_k = \phi\big(\bar W_k h_{k-1} + b_k + V_k c\big), \qquad
        \bar W_k = W_k \big/ \max\big(1, \|W_k\|_2 / L^{1/n}\big), \quad k \le n,

    without the activation in the last layer. Only what x passes through is bounded; the context may enter freely.

    Args:
        shape: Shape of the event x; the output has the same.
        hidden: Widths of the hidden layers, or their channels.
        context: Number of context features; 0 for none.
        coefficient: The bound L, in (0, 1).
        kernel: For images ``(C, H, W)`` the odd side of the convolutions in the first and the last layer, with zeros
            outside; the layers between mix the channels of each pixel. None flattens the event.
        activation: :func:`sine`, :func:`lipswish`, or another of slope at most 1.

    Raises:
        ValueError: If the coefficient is not in (0, 1), or a kernel is even or given for an event that is no image.

    References:
        Invertible Residual Networks, Behrmann et al., 2018, arXiv:1811.00995.

    Example:
        >>> import torch
        >>> r = Contraction(3, coefficient=0.9)
        >>> x, y = torch.randn(5, 3), torch.randn(5, 3)
        >>> bool(((r(x) - r(y)).norm(dim=1) < 0.9 * (x - y).norm(dim=1)).all())
        True
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        hidden: Sequence[int] = (64, 64),
        context: int = 0,
        coefficient: float = 0.9,
        kernel: int | None = None,
        activation: Activation = sine,
    ) -> None:
        super().__init__()
        self.shape = event_shape(None, shape)
        if not 0 < coefficient < 1:
            raise ValueError(
                f"Expected 0 < coefficient < 1; got {coefficient}. At 1 the map x + r(x) need not be invertible."
            )
        if kernel is not None and (kernel % 2 == 0 or len(self.shape) != 3):
            raise ValueError(
                f"Expected an odd kernel and an event of shape (C, H, W); got kernel={kernel} and shape {self.shape}. "
                "Vectors, and other events, take kernel=None."
            )
        if not callable(activation):
            raise ValueError(
                f"Expected activation to be a function of slope at most 1, like sine or lipswish; got {activation!r}. "
                "Pass the function of cnflib.discrete, not its name."
            )
        hidden, context = check_widths(hidden), check_features(context)
        self.context, self.coefficient, self.kernel = context, coefficient, kernel
        self.activation = activation
        ends = math.prod(self.shape) if kernel is None else self.shape[0]
        widths = [ends, *hidden, ends]
        self.weights = nn.ParameterList(map(nn.Parameter, _orthogonal(widths, kernel)))
        phases = [torch.empty(n).uniform_(-math.pi, math.pi) for n in hidden]
        self.biases = nn.ParameterList(map(nn.Parameter, [*phases, torch.zeros(ends)]))
        self.conditions = nn.ModuleList(nn.Linear(context, n, bias=False) for n in widths[1:] if context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map x of shape ``(B, *shape)`` to the same shape."""
        return self.at(context)(x)

    def at(self, context: Tensor | None = None) -> "Settled":
        """The map of x alone, its weights bounded and the context taken in once for many evaluations."""
        check_declared(context, self.context, "Contraction", self.weights[0])
        bound = self.coefficient ** (1 / len(self.weights))
        weights = [W / (spectral_norm(W) / bound).clamp(min=1) for W in self.weights]
        shifts = list(self.biases)
        if context is not None:
            shifts = [b + V(context.flatten(1)) for b, V in zip(shifts, self.conditions, strict=True)]
        return Settled(self.shape, weights, shifts, self.activation)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, context={self.context}, coefficient={self.coefficient}"


def _orthogonal(widths: Sequence[int], kernel: int | None) -> list[Tensor]:
    """Linear maps of equal singular values: a product of such has a norm near the product of their norms."""
    sides = [() if kernel is None else (1, 1) for _ in widths[1:]]
    if kernel is not None:
        sides[0] = sides[-1] = (kernel, kernel)
    shapes = zip(widths[1:], widths[:-1], sides, strict=True)
    return [nn.init.orthogonal_(torch.empty(o, i, *side)) for o, i, side in shapes]


class Settled:
    r"""A map :math:`x \mapsto r(x)` of given weights: :math:`h_k = \phi(W_k h_{k-1} + b_k)`.

    Args:
        shape: Shape of the event.
        weights: Matrices, or kernels of an image.
        shifts: :math:`b_k`, one for all rows or one for each.
        activation: :math:`\phi`.

    Example:
        >>> import torch
        >>> from cnflib.discrete import lipswish
        >>> r = Settled(
        ...     (2,),
        ...     [torch.tensor([[0.5, 0.0], [0.0, -0.5]])],
        ...     [torch.zeros(2)],
        ...     lipswish,
        ... )
        >>> value, product = r.linearize(torch.ones(1, 2))
        >>> value, product(torch.eye(2)[:, None])[1]
        (tensor([[ 0.5000, -0.5000]]), tensor([[ 0.0000, -0.5000]]))
    """

    def __init__(
        self, shape: tuple[int, ...], weights: list[Tensor], shifts: list[Tensor], activation: Activation
    ) -> None:
        self.shape, self.weights, self.activation = shape, weights, activation
        self.shifts = [b if W.ndim == 2 else b[..., None, None] for W, b in zip(weights, shifts)]

    def __call__(self, x: Tensor) -> Tensor:
        """The value at x of shape ``(B, *shape)``."""
        return self.linearize(x)[0]

    def linearize(self, x: Tensor) -> Linearized:
        """The value at x and the products with the Jacobian there, of which each takes the linear maps alone."""
        first, *others = self.weights
        slopes: list[Tensor] = []
        h = self._apply(first, x if first.ndim == 4 else x.flatten(1)) + self.shifts[0]
        for W, b in zip(others, self.shifts[1:], strict=True):
            h, slope = self.activation(h)
            slopes.append(slope)
            h = self._apply(W, h) + b

        def product(v: Tensor, rows: Tensor | None = None) -> Tensor:
            dh = self._apply_stack(first, v if first.ndim == 4 else v.flatten(2))
            for W, slope in zip(others, slopes, strict=True):
                dh = self._apply_stack(W, dh * (slope if rows is None else slope[rows]))
            return dh.reshape(*dh.shape[:2], *self.shape)

        return h.reshape(x.shape), product

    def _apply_stack(self, W: Tensor, v: Tensor) -> Tensor:
        return v @ W.T if W.ndim == 2 else self._apply(W, v.flatten(0, 1)).unflatten(0, v.shape[:2])

    def _apply(self, W: Tensor, h: Tensor) -> Tensor:
        return h @ W.T if W.ndim == 2 else F.conv2d(h, W, padding=W.shape[2] // 2)
