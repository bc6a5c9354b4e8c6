r"""Coupling layers: part of the event is kept, the rest is transformed with parameters computed from the kept part.

With the kept coordinates :math:`x_A`, the others :math:`x_B` and a net :math:`\theta`,

.. math:: z_A = x_A, \qquad z_B = T(x_B; \theta(x_A)),

the Jacobian is block-triangular, so its determinant is the product of :math:`\partial T / \partial x_B` over the
transformed coordinates. "Coupling" here is the layer; the joint law of two ends of an interpolant is a "pairing".
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from cnflib._check import check_built, check_transform
from cnflib._check_sizes import event_shape
from cnflib._constants import constants
from cnflib.bijection import Bijection
from cnflib.discrete.elementwise import Elementwise

__all__ = ["Coupling", "checkerboard_mask", "halves"]


def halves(size: int) -> Tensor:
    """The mask of shape ``(size,)`` that keeps the first half of axis 1, the larger one where the size is odd.

    Args:
        size: Number of coordinates, or of channels of an image.

    Raises:
        ValueError: If the size is below 2: a coupling needs something to keep and something to transform.

    Example:
        >>> halves(5).tolist()
        [True, True, True, False, False]
    """
    if size < 2:
        raise ValueError(
            f"Expected size >= 2; got {size}. A coupling keeps one part and transforms the other, so it needs at least "
            "two coordinates: squeeze an image of one channel first; in 1-D use ffjord(dim=1) or "
            "maf(dim=1, transform=RationalQuadratic())."
        )
    with constants():
        return torch.arange(size) < (size + 1) // 2


def checkerboard_mask(shape: int | tuple[int, ...]) -> Tensor:
    r"""The mask that keeps the coordinates whose indices have an even sum, in an image every second pixel.

    Args:
        shape: The event shape.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> checkerboard_mask((1, 2, 2)).int().tolist()
        [[[1, 0], [0, 1]]]
    """
    with constants():
        indices = torch.meshgrid(*map(torch.arange, event_shape(None, shape)), indexing="ij")
        return sum(indices) % 2 == 0


class Coupling(Bijection):
    r"""A coupling layer: :math:`z_A = x_A`, :math:`z_B = T(x_B; \theta(x_A, c))`.

    .. math:: \log |\det \partial z / \partial x| = \sum_{i \in B} \log \partial_x T(x_i; \theta_i(x_A, c))

    Args:
        mask: True on the kept part :math:`A`, False on the transformed :math:`B`, a bool tensor or list. Either
            of shape ``(C,)``, for axis 1 of x: the coordinates of a vector, the channels of an image; or of the event's
            shape. Its values are read: it cannot lie on torch's meta device.
        transform: The family :math:`T` with P parameters, e.g. :class:`cnflib.discrete.Affine`.
        net: The net :math:`\theta`, called as ``net(x, context)``. With a mask of one axis it gets :math:`x_A`, shape
            ``(B, |A|, *)``, and returns ``(B, P * |B|, *)``: the first parameter of all coordinates, then the second.
            With a mask of the event's shape it gets x with zeros on B and returns ``(B, P * C, *)``, of which those
            of A are not used.

    Raises:
        ValueError: If the mask keeps all coordinates or none, or ``transform`` is no family of maps.

    References:
        NICE: Non-linear Independent Components Estimation, Dinh et al., 2014, arXiv:1410.8516.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Affine
        >>> from cnflib.nets import Conditioner
        >>> layer = Coupling(
        ...     torch.tensor([True, True, False]), Affine(), Conditioner(2, 2)
        ... )
        >>> z, logdet = layer(torch.randn(5, 3))
        >>> z.shape, logdet.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, mask: Tensor | Sequence, transform: Elementwise, net: nn.Module) -> None:
        super().__init__()
        check_transform(transform)
        check_built(net, "net")
        mask = mask if isinstance(mask, Tensor) else torch.tensor(mask, device="cpu")
        if mask.dtype != torch.bool or mask.all() or not mask.any():
            raise ValueError(
                "Expected mask to be a bool tensor of the event's shape that keeps some coordinates and transforms "
                f"others; got {mask}. An event of one coordinate is for ffjord(dim=1) or "
                "maf(dim=1, transform=RationalQuadratic())."
            )
        self.transform = transform
        self.net = net
        self.register_buffer("mask", mask)
        if mask.ndim > 1:
            self.event_shape = tuple(mask.shape)
        else:
            self.channels = len(mask)
        # A mask of axis 1 whose two parts lie in one piece each splits x into views; any other takes a gather, and a
        # second one to put the parts back.
        self.kept_first = bool(mask.flatten()[0])
        parts = [part.nonzero()[:, 0] for part in ((mask, ~mask) if self.kept_first else (~mask, mask))]
        order, self.sizes = torch.cat(parts), [len(part) for part in parts]
        in_place = mask.ndim > 1 or bool((order.diff() == 1).all())
        self.register_buffer("order", None if in_place else order, persistent=False)
        self.register_buffer("back", None if in_place else order.argsort(), persistent=False)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        z, log_slope = self._apply_transform(self.transform.encode, x, context)
        return z, log_slope.flatten(1).sum(1)

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        x, log_slope = self._apply_transform(self.transform.decode, z, context)
        return x, log_slope.flatten(1).sum(1)

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._apply_transform(self.transform.encode, x, context)[0]

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._apply_transform(self.transform.decode, z, context)[0]

    def _apply_transform(
        self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.mask.ndim > 1:
            y, log_slope = transform(x, self._theta(x * self.mask, context, x.shape[1]))
            return torch.where(self.mask, x, y), log_slope.masked_fill(self.mask, 0)
        kept, moved = self._split(x)
        moved, log_slope = transform(moved, self._theta(kept, context, moved.shape[1]))
        return self._join(kept, moved), log_slope

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The kept and the moved part of axis 1; views where the mask leaves both in one piece."""
        first, last = (x if self.order is None else x.index_select(1, self.order)).split(self.sizes, 1)
        return (first, last) if self.kept_first else (last, first)

    def _join(self, kept: Tensor, moved: Tensor) -> Tensor:
        x = torch.cat((kept, moved) if self.kept_first else (moved, kept), 1)
        return x if self.back is None else x.index_select(1, self.back)

    def _theta(self, x: Tensor, context: Tensor | None, moved: int) -> Tensor:
        """Parameters of the moved coordinates, shape ``(B, P, moved, *)``."""
        theta, P = self.net(x, context), self.transform.parameters
        expected = (x.shape[0], P * moved, *x.shape[2:])
        if theta.shape != expected:
            raise ValueError(
                f"Expected net(x, context) to return shape {expected}, {P} numbers for each transformed coordinate "
                f"of x; got {tuple(theta.shape)}."
            )
        return theta.to(x.dtype).reshape(x.shape[0], P, moved, *x.shape[2:])

    def extra_repr(self) -> str:
        short = self.mask.numel() <= 8 and not self.mask.is_meta
        mask = self.mask.int().tolist() if short else f"<bool of shape {tuple(self.mask.shape)}>"
        return f"mask={mask}, transform={self.transform}"
