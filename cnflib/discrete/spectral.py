r"""Spectral norms of linear maps, matrices and convolutions: what a bound on a Lipschitz constant is made of.

Norms are computed, not estimated: power iteration approaches a norm from below, and a bound that is too small by a
percent is no bound for a net that is to contract by 0.99.
"""

import math

import torch
from torch import Tensor

__all__ = ["spectral_norm"]


def spectral_norm(weight: Tensor) -> Tensor:
    r"""The operator norm :math:`\|W\|_2` of a matrix, or an upper bound on that of a convolution at most 4 % above it.

    A convolution with zero padding is the one on the whole grid, restricted in space, so at every size of the image

    .. math:: \|W\|_2 \le \sup_\omega \|\hat K(\omega)\|_2 \le
        \max_{\omega \in \text{grid}} \frac{\|\hat K(\omega)\|_2}{\cos^2(\pi / 16)},

    where :math:`\hat K(\omega)` is the Fourier transform of the kernel, a matrix of channels. The second step holds for
    trigonometric polynomials, as :math:`u^* \hat K v` is one, on a grid of 8 (k - 1) frequencies an axis for a kernel
    of side k (Ehlich & Zeller). The supremum is the norm in the limit of large images. Not the norm of the kernel
    reshaped to a matrix: that can be smaller by a factor k, and bounds nothing.

    Args:
        weight: Matrix of shape ``(outputs, inputs)``, or kernel ``(outputs, inputs, k, k)``.

    Returns:
        Shape ``()``, differentiable in the weight.

    Raises:
        ValueError: If the weight has neither of the two shapes.

    References:
        Schwankung von Polynomen zwischen Gitterpunkten, Ehlich & Zeller, 1964;
        The Singular Values of Convolutional Layers, Sedghi et al., 2018, arXiv:1805.10408.

    Example:
        >>> import torch
        >>> spectral_norm(torch.tensor([[3.0, 0.0], [0.0, -4.0]])).item()
        4.0
        >>> blur = torch.ones(1, 1, 3, 3) / 9
        >>> 1 <= spectral_norm(blur) < 1.04
        tensor(True)
    """
    if weight.ndim == 2:
        return torch.linalg.matrix_norm(weight, 2)
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        raise ValueError(
            f"Expected a weight of shape (outputs, inputs) or (outputs, inputs, k, k); got {tuple(weight.shape)}."
        )
    k = weight.shape[2]
    if k == 1:
        return torch.linalg.matrix_norm(weight[:, :, 0, 0], 2)
    size = max(8 * (k - 1), 1)
    symbols = torch.fft.rfft2(weight, (size, size)).flatten(2).movedim(2, 0)
    top = _square_norms(symbols.detach()).argmax()
    return torch.linalg.matrix_norm(symbols.index_select(0, top[None])[0], 2) / math.cos(math.pi / 16) ** 2


def _square_norms(matrices: Tensor) -> Tensor:
    """The largest eigenvalue of the smaller Gram matrix of each."""
    M = matrices if matrices.shape[1] >= matrices.shape[2] else matrices.mH
    return torch.linalg.eigvalsh(M.mH @ M)[:, -1]
