r"""Multi-scale flows: squeeze an image to half its sides, finish half of its channels, go on with the other half.

A scale is a bijection that keeps the shape of x, and so is the next one inside it::

    # keeps (2, 4, 4); its step sees (8, 2, 2)
    coarse = Chain(Squeeze(), step_coarse, Inverse(Squeeze()))
    # keeps (1, 8, 8); its step sees (4, 4, 4)
    fine = Chain(Squeeze(), step_fine, Split(coarse), Inverse(Squeeze()))
    flow = Flow(fine, StandardNormal((1, 8, 8)))

Glow's learned prior of the finished half :math:`x_b` given :math:`x_a` is an affine coupling that keeps :math:`x_a`,
put before the split: :math:`x_b = m(x_a) + \sigma(x_a) z_b` with a standard normal :math:`z_b` has the density
:math:`N(m(x_a), \sigma(x_a)^2)`.
"""

import math

import torch
from torch import Generator, Tensor

from cnflib._check import check_bijection
from cnflib._check_sizes import event_shape
from cnflib.bijection import Bijection

__all__ = ["Flatten", "Split", "Squeeze"]


class Flatten(Bijection):
    r"""An event of any shape as one vector, so that layers for vectors can act on it; the log-determinant is 0.

    ``Chain(Flatten(event), *layers, Inverse(Flatten(event)))`` keeps the event's shape. A context is ignored.

    Args:
        event: The shape of x without its batch axis, of D numbers in all; z has shape ``(B, D)``.

    Example:
        >>> import torch
        >>> z, _ = Flatten((2, 3))(torch.randn(5, 2, 3))
        >>> z.shape, Flatten((2, 3)).decode(z).shape
        (torch.Size([5, 6]), torch.Size([5, 2, 3]))
    """

    def __init__(self, event: int | tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape(None, event)

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(x.shape[0])

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return z.unflatten(1, self.event_shape), z.new_zeros(z.shape[0])

    def latent_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(event),)

    def data_shape(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        return self.event_shape

    def extra_repr(self) -> str:
        return f"event={self.event_shape}"


class Squeeze(Bijection):
    r"""Space to depth: the four pixels of each 2 × 2 block become four channels; decoding puts them back.

    .. math:: z_{4c + 2i + j,\, h,\, w} = x_{c,\, 2h + i,\, 2w + j}, \quad i, j \in \{0, 1\}, \qquad
        \log |\det \partial z / \partial x| = 0

    It encodes x of shape ``(B, C, H, W)`` as z of shape ``(B, 4C, H / 2, W / 2)``, has no parameters and ignores a
    context.

    Raises:
        ValueError: In encoding, if the event has not three axes, or H or W is odd.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> z, _ = Squeeze()(torch.randn(5, 1, 8, 8))
        >>> z.shape
        torch.Size([5, 4, 4, 4])
    """

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            raise ValueError(
                f"Expected even height and width of x; got shape {tuple(x.shape)}. "
                "Pad or crop the images, or use fewer scales."
            )
        # F.pixel_unshuffle has this order too, but on the CPU it gives an empty batch back in its old shape.
        blocks = x.unflatten(3, (width // 2, 2)).unflatten(2, (height // 2, 2))
        return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3), x.new_zeros(x.shape[0])

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        blocks = z.unflatten(1, (z.shape[1] // 4, 2, 2))
        return blocks.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3), z.new_zeros(z.shape[0])

    def latent_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = event
        return 4 * channels, height // 2, width // 2

    def data_shape(self, latent: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = latent
        return channels // 4, 2 * height, 2 * width


class Split(Bijection):
    r"""Apply a bijection :math:`g` to the first half of the channels and pass the second half on unchanged.

    .. math:: x = (x_a, x_b), \qquad z = (g(x_a), x_b), \qquad
        \log |\det \partial z / \partial x| = \log |\det \partial g / \partial x_a|

    The second half is finished and goes to the base as it is, so a multi-scale flow has one standard normal of x's
    own shape. Channels are axis 1 of x.

    Args:
        inner: The bijection :math:`g` of the first half, shape ``(B, C / 2, *event[1:])``, which it must keep. It
            gets the context and the generator.

    Raises:
        ValueError: In a call, if the number C of channels is odd or 0.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from cnflib import Standardize
        >>> split = Split(
        ...     Standardize(torch.zeros(2, 4, 4), 2 * torch.ones(2, 4, 4))
        ... )
        >>> x = torch.randn(5, 4, 4, 4)
        >>> z, _ = split(x)
        >>> torch.equal(z[:, :2], x[:, :2] / 2), torch.equal(z[:, 2:], x[:, 2:])
        (True, True)
    """

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        check_bijection(inner, "inner")
        self.inner = inner
        half = getattr(inner, "event_shape", None)
        self.event_shape = (2 * half[0], *half[1:]) if half else None

    def encode_and_logdet(
        self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        a, b = _halved(x, "x")
        mapped, logdet = self.inner.encode_and_logdet(a, context, generator)
        return torch.cat([mapped, b], 1), logdet

    def decode_and_logdet(
        self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        a, b = _halved(z, "z")
        mapped, logdet = self.inner.decode_and_logdet(a, context, generator)
        return torch.cat([mapped, b], 1), logdet

    def encode(self, x: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        a, b = _halved(x, "x")
        return torch.cat([self.inner.encode(a, context, generator), b], 1)

    def decode(self, z: Tensor, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        a, b = _halved(z, "z")
        return torch.cat([self.inner.decode(a, context, generator), b], 1)


def _halved(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    channels = x.shape[1]
    if channels < 2 or channels % 2:
        raise ValueError(
            f"Expected {name} with an even number of channels (axis 1), at least 2; got shape {tuple(x.shape)}. "
            "Put a Squeeze() in front: it makes four channels of each."
        )
    return x[:, : channels // 2], x[:, channels // 2 :]
