"""Multi-scale chains: layers at the resolution of an image and, squeezed, at the halves of it."""

from collections.abc import Callable, Sequence

from cnflib._check import check_positive_int
from cnflib.bijection import Bijection, Chain, Inverse
from cnflib.discrete import Split, Squeeze

__all__ = ["multiscale"]


def multiscale(
    event: tuple[int, ...],
    layers: Callable[[tuple[int, ...]], Sequence[Bijection]],
    scales: int | None = None,
) -> Chain:
    r"""The same kind of layers at every resolution of an image; each scale below takes half of the channels.

    A scale runs layers at ``(C, H, W)``, squeezes, runs layers at ``(4C, H / 2, W / 2)``, leaves the second half of
    the channels as they are, gives the first to the next scale, and undoes the squeeze.

    Args:
        event: The shape ``(C, H, W)`` of the image.
        layers: Makes the layers for a shape ``(C, H, W)``, which they keep.
        scales: Number of resolutions; by default as many as the sides can be halved for, at most 3.

    Raises:
        ValueError: If the sides cannot be halved ``scales - 1`` times.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Coupling, affine
        >>> from cnflib.nets import Conditioner
        >>> def layers(event):
        ...     mask = torch.rand(event) < 0.5
        ...     return [Coupling(mask, affine(), Conditioner(event, (2 * event[0], *event[1:])))]
        >>> chain = multiscale((1, 8, 8), layers, scales=2)
        >>> chain(torch.randn(5, 1, 8, 8))[0].shape
        torch.Size([5, 1, 8, 8])
    """
    halvings = min(_halvings(event[1]), _halvings(event[2]))
    scales = min(3, 1 + halvings) if scales is None else scales
    check_positive_int(scales, "scales")
    if scales > 1 + halvings:
        raise ValueError(
            f"Expected sides that can be halved {scales - 1} times; got {event[1:]}. Use at most "
            f"scales={1 + halvings}, or pad the images."
        )
    return _scale(event, scales, layers)


def _scale(
    event: tuple[int, ...], scales: int, layers: Callable[[tuple[int, ...]], Sequence[Bijection]]
) -> Chain:
    if scales == 1:
        return Chain(*layers(event))
    channels, height, width = 4 * event[0], event[1] // 2, event[2] // 2
    below = _scale((channels // 2, height, width), scales - 1, layers)
    squeezed = layers((channels, height, width))
    return Chain(*layers(event), Squeeze(), *squeezed, Split(below), Inverse(Squeeze()))


def _halvings(side: int) -> int:
    """How often a side can be halved."""
    return (side & -side).bit_length() - 1
