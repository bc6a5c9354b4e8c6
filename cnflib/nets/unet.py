r"""A vector field for images that sees them at several resolutions.

A convolution reaches a few pixels. Where the sides are halved, and halved again, a few pixels span the whole image, so
the net sees strokes and the digit they make; on the way up the bridges bring back what halving has lost.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnflib._check import check_positive_int
from cnflib._check_sizes import check_features, check_widths, event_shape
from cnflib.nets.embeddings import TimeEmbedding, conditions
from cnflib.nets.layers import feedforward

__all__ = ["UNet"]


class UNet(nn.Module):
    r"""A vector field :math:`f(t, x, c)` on images by a U-Net: down to coarse images and back up, bridged at each size.

    .. math:: h_0 = W * x, \quad h_{l + 1} = \downarrow B(h_l), \qquad
        g_L = B(A(B(h_L))), \quad g_l = B(\uparrow g_{l + 1}, B(h_l)), \qquad f = V * \sigma(N(g_0))

    B are residual blocks, each of two convolutions of 3 × 3 behind a normalisation N over groups of channels and a SiLU
    :math:`\sigma`; time and context scale and shift what stands between the two. :math:`\downarrow` is a convolution of
    stride 2, :math:`\uparrow` one of stride 1 whose every pixel is repeated four times, and A is a layer of
    self-attention over the pixels of the coarsest image. Each row is normalised by itself, nothing is random, and every
    part is smooth, so the log-determinant is defined. The last convolution V starts at zero, and with it the field: an
    audit perturbs the weights before it judges.

    Args:
        shape: Shape (C, H, W) of the event x; the output has the same.
        channels: Channels of the finest image, a multiple of ``groups``.
        multipliers: Channels of each size, in multiples of ``channels``; as many sizes as there are multipliers.
        blocks: Residual blocks at each size on the way down, and again on the way up.
        attention: Whether the coarsest image attends to itself.
        context: Number of context features; 0 for none. A label of ten is ``context=10`` and a one-hot row.
        time_frequencies: Number of frequencies of the :class:`TimeEmbedding`.
        patch: Side of the squares of pixels that become the channels of one pixel before the first convolution. 2 makes
            the net about four times as cheap, 1 leaves the image as it is.
        groups: Groups of channels that are normalised together.

    Raises:
        ValueError: If the shape is not (C, H, W), a side is not a multiple of what the sizes need, or the channels are
            not one of ``groups``; in a call, if the context is not what was declared.

    References:
        U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger et al., 2015, arXiv:1505.04597;
        Denoising Diffusion Probabilistic Models, Ho et al., 2020, arXiv:2006.11239.

    Example:
        >>> import torch
        >>> field = UNet((1, 28, 28), context=10)
        >>> label = torch.nn.functional.one_hot(torch.tensor([3, 7]), 10).float()
        >>> field(torch.tensor(0.5), torch.randn(2, 1, 28, 28), label).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: bool = True,
        context: int = 0,
        time_frequencies: int = 8,
        patch: int = 1,
        groups: int = 8,
    ) -> None:
        super().__init__()
        self.shape, self.context = event_shape(None, shape), check_features(context)
        self.patch = patch = check_positive_int(patch, "patch")
        channels, groups = check_positive_int(channels, "channels"), check_positive_int(groups, "groups")
        blocks = check_positive_int(blocks, "blocks", least=0)
        widths = [channels * m for m in check_widths(multipliers, least=1)]
        _check_sides(self.shape, patch * 2 ** (len(widths) - 1), widths[-1] // groups)
        pixel, embedded = self.shape[0] * patch**2, 4 * channels

        def stacks(inputs: Sequence[int]) -> nn.ModuleList:
            pairs = zip(inputs, widths, strict=True)
            return nn.ModuleList(_stack(n, m, blocks, embedded, groups) for n, m in pairs)

        self.time = TimeEmbedding(time_frequencies)
        self.embed = feedforward(self.time.features + self.context, embedded, (embedded,), nn.SiLU)
        self.first = nn.Conv2d(pixel, widths[0], 3, padding=1)
        self.down = stacks([widths[0], *widths[:-1]])
        self.shrink = nn.ModuleList(nn.Conv2d(n, n, 3, 2, 1) for n in widths[:-1])
        self.middle = _Attention(widths[-1], groups) if attention else nn.Identity()
        self.grow = nn.ModuleList(nn.Conv2d(m, n, 3, padding=1) for n, m in pairwise(widths))
        self.up = stacks([*(2 * n for n in widths[:-1]), widths[-1]])
        self.norm = nn.GroupNorm(groups, widths[0])
        self.last = nn.Conv2d(widths[0], pixel, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time t of shape ``()`` or ``(B,)`` and x of shape ``(B, C, H, W)``."""
        c = F.silu(self.embed(conditions(self, t, x, context)))
        h, bridges = self.first(F.pixel_unshuffle(x, self.patch)), []
        for blocks, shrink in zip(self.down, [*self.shrink, nn.Identity()], strict=True):
            h = _through(blocks, h, c)
            bridges.append(h)
            h = shrink(h)
        h = _through(self.up[-1], self.middle(h), c)
        for k in reversed(range(len(self.grow))):
            h = F.interpolate(self.grow[k](h), scale_factor=2.0)
            h = _through(self.up[k], torch.cat([h, bridges[k]], 1), c)
        return F.pixel_shuffle(self.last(F.silu(self.norm(h))), self.patch)


class _Block(nn.Module):
    r"""A residual block, scaled and shifted by features c of time and context.

    .. math:: B(h) = R h + W_2 * \sigma\big((1 + a(c)) \odot N(W_1 * \sigma(N(h))) + b(c)\big)

    R is the identity, or where the channels change a convolution of 1 × 1.
    """

    def __init__(self, inputs: int, outputs: int, embedded: int, groups: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            (nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs, affine=False))
        )
        self.convolutions = nn.ModuleList(nn.Conv2d(n, outputs, 3, padding=1) for n in (inputs, outputs))
        self.modulate = nn.Linear(embedded, 2 * outputs)
        self.around = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        a, b = self.modulate(c)[:, :, None, None].chunk(2, 1)
        y = self.convolutions[0](F.silu(self.norms[0](h)))
        y = torch.addcmul(b, 1 + a, self.norms[1](y))
        return self.around(h) + self.convolutions[1](F.silu(y))


class _Attention(nn.Module):
    r"""Self-attention, one head over the pixels of an image of d channels, added to it.

    .. math:: A(h) = h + W_o V \operatorname{softmax}\big(Q^\top K / \sqrt d\big)^\top, \qquad
        (Q, K, V) = W N(h)
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.inputs = nn.Conv2d(channels, 3 * channels, 1)
        self.outputs = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.inputs(self.norm(h)).flatten(2).chunk(3, 1)
        weights = torch.softmax(q.mT @ k / q.shape[1] ** 0.5, 2)
        return h + self.outputs((v @ weights.mT).unflatten(2, h.shape[2:]))


def _stack(inputs: int, outputs: int, blocks: int, embedded: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(outputs if k else inputs, outputs, embedded, groups) for k in range(blocks))


def _through(blocks: nn.ModuleList, h: Tensor, c: Tensor) -> Tensor:
    for block in blocks:
        h = block(h, c)
    return h


def _check_sides(shape: tuple[int, ...], factor: int, channels: int) -> None:
    """Check that every halving leaves a whole number of pixels, and a group of channels more than one value."""
    if len(shape) != 3:
        raise ValueError(
            f"Expected shape to be (C, H, W), that of an image; got {shape}. For other events use MLP(shape)."
        )
    _, height, width = shape
    if height % factor or width % factor:
        raise ValueError(
            f"Expected sides that are multiples of {factor} = patch · 2^(sizes - 1); got {height} × {width}. Pad x by "
            f"torch.nn.functional.pad(x, (0, {-width % factor}, 0, {-height % factor})), or take fewer multipliers or "
            "a smaller patch."
        )
    if height * width * channels == factor**2:
        raise ValueError(
            f"Expected more than one value in a group of the smallest image; got 1 × 1 pixels and {channels} channel, "
            "of which a GroupNorm leaves nothing. Take fewer multipliers, or fewer groups."
        )
