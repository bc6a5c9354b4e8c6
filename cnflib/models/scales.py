"""Multi-scale chains: layers at the resolution of an image and, squeezed, at the halves of it."""

from collections.abc import Callable, Sequence

from cnflib.bijection import Bijection, Chain, Inverse
from cnflib.discrete import Split, Squeeze

__all__ = ["multiscale", "resolutions"]

Layers = Callable[[tuple[int, ...]], Sequence[Bijection]]


def multiscale(
    event: tuple[int, ...],
    layers: Layers,
    scales: int | None = None,
    squeezed: Layers | None = None,
) -> Chain:
    r"""The same kind of layers at every resolution of an image; each scale below takes half of the channels.

    A scale runs layers at ``(C, H, W)``, squeezes, runs layers at ``(4C, H / 2, W / 2)``, leaves the second half of
    the channels as they are, gives the first to the next scale, and undoes the squeeze.

    Args:
        event: The shape ``(C, H, W)`` of the image.
        layers: Makes the layers for a shape ``(C, H, W)``, which they keep.
        scales: Number of resolutions; by default as many as the sides can be halved for, at most 3.
        squeezed: Makes the layers after a squeeze, if they are others.

    Raises:
        ValueError: If the sides cannot be halved ``scales - 1`` times.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Affine, Coupling
        >>> from cnflib.nets import Conditioner
        >>> def layers(event):
        ...     mask = torch.rand(event) < 0.5
        ...     return [
        ...         Coupling(
        ...             mask,
        ...             Affine(),
        ...             Conditioner(event, (2 * event[0], *event[1:])),
        ...         )
        ...     ]
        >>> chain = multiscale((1, 8, 8), layers, scales=2)
        >>> chain(torch.randn(5, 1, 8, 8))[0].shape
        torch.Size([5, 1, 8, 8])
    """
    return _scale(event, resolutions(event, scales), layers, squeezed or layers)


def resolutions(event: tuple[int, ...], scales: int | None = None) -> int:
    """The number of resolutions of an image: as asked for, or as many as its sides can be halved for, at most 3.

    Args:
        event: The shape ``(C, H, W)`` of the image.
        scales: The number asked for.

    Raises:
        ValueError: If the sides cannot be halved ``scales - 1`` times.

    Example:
        >>> (
        ...     resolutions((1, 28, 28)),
        ...     resolutions((1, 7, 7)),
        ...     resolutions((3, 32, 32), scales=6),
        ... )
        (3, 1, 6)
    """
    halvings = min(_halvings(side) for side in event[1:])
    scales = min(3, 1 + halvings) if scales is None else scales
    if not 1 <= scales <= 1 + halvings:
        raise ValueError(
            f"Expected sides that can be halved {scales - 1} times; got {event[1:]}. Use at least scales=1 and at most "
            f"scales={1 + halvings}, or pad the images."
        )
    return scales


def _scale(event: tuple[int, ...], scales: int, layers: Layers, squeezed: Layers) -> Chain:
    if scales == 1:
        return Chain(*layers(event))
    channels, height, width = 4 * event[0], event[1] // 2, event[2] // 2
    below = _scale((channels // 2, height, width), scales - 1, layers, squeezed)
    inside = squeezed((channels, height, width))
    return Chain(*layers(event), Squeeze(), *inside, Split(below), Inverse(Squeeze()))


def _halvings(side: int) -> int:
    """How often a side can be halved."""
    return (side & -side).bit_length() - 1
