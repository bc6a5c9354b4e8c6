"""Couplings of images: convolutional conditioners, masks of pixels and of channels, several resolutions."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from cnflib._check_sizes import check_layers
from cnflib.bijection import Chain
from cnflib.discrete import Coupling, Elementwise, checkerboard_mask, halves
from cnflib.models.scales import multiscale
from cnflib.nets import ConvNet

__all__ = ["convolutional_coupling", "pixels_then_channels"]


def convolutional_coupling(
    mask: Tensor,
    channels: int,
    transform: Elementwise,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> Coupling:
    """A coupling of an image with a :class:`cnflib.nets.ConvNet` as conditioner.

    Args:
        mask: True on what is kept, over the channels, shape ``(C,)``, or over the image, shape ``(C, H, W)``.
        channels: Number C of channels.
        transform: The family of maps.
        hidden: Channels of the hidden layers of the conditioner.
        context: Number of context features; 0 for none.
        activation: Constructor of the activation of the conditioner.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Affine, halves
        >>> layer = convolutional_coupling(halves(4), 4, Affine())
        >>> layer(torch.randn(5, 4, 7, 7))[0].shape
        torch.Size([5, 4, 7, 7])
    """
    kept, moved = (int(mask.sum()), int((~mask).sum())) if mask.ndim == 1 else (channels, channels)
    return Coupling(mask, transform, ConvNet(kept, moved * transform.parameters, hidden, context, activation))


def pixels_then_channels(
    event: tuple[int, ...],
    transform: Elementwise,
    layers: int = 3,
    hidden: Sequence[int] = (64, 64),
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
    scales: int | None = None,
) -> Chain:
    """RealNVP's multi-scale chain: couplings of a checkerboard of pixels, then, squeezed, of the channels' halves.

    Every second coupling of a group swaps what is kept and what is transformed. Sides that cannot be halved leave
    the checkerboards alone.

    Args:
        event: The shape ``(C, H, W)`` of the image.
        transform: The family of maps.
        layers: Number of couplings before, and as many after, each squeeze.
        hidden: Channels of the hidden layers of each conditioner.
        context: Number of context features; 0 for none.
        activation: Constructor of the activation of the conditioners.
        scales: Number of resolutions; by default as many as the sides can be halved for, at most 3.

    Raises:
        ValueError: If the sides cannot be halved ``scales - 1`` times.

    References:
        Density estimation using Real NVP, Dinh et al., 2016, arXiv:1605.08803.

    Example:
        >>> import torch
        >>> from cnflib.discrete import Affine
        >>> chain = pixels_then_channels((1, 8, 8), Affine(), layers=1, scales=2)
        >>> chain(torch.randn(5, 1, 8, 8))[0].shape
        torch.Size([5, 1, 8, 8])
    """

    def alternate(mask: Tensor, channels: int) -> list[Coupling]:
        masks = [mask if k % 2 == 0 else ~mask for k in range(check_layers(layers))]
        return [convolutional_coupling(m, channels, transform, hidden, context, activation) for m in masks]

    return multiscale(
        event,
        layers=lambda shape: alternate(checkerboard_mask(shape), shape[0]),
        scales=scales,
        squeezed=lambda shape: alternate(halves(shape[0]), shape[0]),
    )
