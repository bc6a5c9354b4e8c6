"""The vector field of a continuous flow: its type, and the plain net for one."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnflib._check_sizes import check_features, event_shape
from cnflib.nets.embeddings import FourierFeatures, TimeEmbedding, conditions
from cnflib.nets.layers import Tanh, feedforward, intercepted, narrowest
from cnflib.nets.tangents import push

__all__ = ["MLP", "VectorField"]

VectorField = Callable[..., Tensor]
"""A vector field ``f(t, x)`` or ``f(t, x, context)``: t of shape ``()`` or ``(B,)``, x and the result ``(B, *event)``.

Without a context it is called with two arguments, so an optional third one serves both calls; only where the third is
required is it called with None. It must act on each row alone: a field that mixes rows (BatchNorm) has no divergence
row by row. The gradient of a potential U is ``torch.func.grad(lambda y: U(y).sum())(x)``, which runs everywhere;
``torch.autograd.grad`` runs neither without gradients nor inside of a transform.
"""


class MLP(nn.Module):
    r"""A vector field :math:`f(t, x, c)` by a fully connected net on :math:`(x, t, c)`.

    With the default activation the field is smooth, and Lipschitz in x with a constant uniform in t, so it
    generates a flow. The net carries tangents along with the value (:meth:`jvp`), which makes divergences cheap.

    Args:
        shape: Shape of the event x; the output has the same.
        hidden: Widths of the hidden layers.
        context: Number of context features; 0 for none. Labels become features by ``one_hot(labels, k).float()``.
        time_frequencies: Number of frequencies of the :class:`TimeEmbedding`; 0 appends :math:`t` alone.
        fourier: Number of :class:`FourierFeatures` of x; 0 for none.
        fourier_scale: Their standard deviation, in periods per unit of x.
        activation: Constructor of the activation. A kink (ReLU) breaks the smoothness that the log-determinant needs.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        hidden: Sequence[int] = (64, 64, 64),
        context: int = 0,
        time_frequencies: int = 0,
        fourier: int = 0,
        fourier_scale: float = 0.5,
        activation: Callable[[], nn.Module] = Tanh,
    ) -> None:
        super().__init__()
        self.shape = event_shape(None, shape)
        self.context = context = check_features(context)
        dim = math.prod(self.shape)
        self.time = TimeEmbedding(time_frequencies)
        self.embed = FourierFeatures(dim, fourier, fourier_scale)
        self.net = feedforward(self.embed.features + self.time.features + context, dim, hidden, activation)

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time t of shape ``()`` or ``(B,)`` and x of shape ``(B, *shape)``."""
        first, *others = self.net
        h = self._enter(first, self.embed(x.flatten(1)), t, context)
        for layer in others:
            h = layer(h)
        return h.unflatten(1, x.shape[1:])

    def jvp(self, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        r"""The velocity and :math:`J v` for directions v of shape ``(K, B, *shape)`` or ``(K, 1, *shape)``."""
        first, *others = self.net
        features, dh = self.embed.jvp(x.flatten(1), directions.flatten(2))
        h, dh = self._enter(first, features, t, context), dh @ first.weight[:, : dh.shape[2]].T
        for layer in others:
            h, dh = push(layer, h, dh)
        return h.unflatten(1, x.shape[1:]), dh.unflatten(2, x.shape[1:])

    def factors(
        self, t: Tensor, context: Tensor | None
    ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        r"""Two maps whose composition is the field: from x into its narrowest hidden layer, and on from there."""
        cut = narrowest(self.net)

        def into(x: Tensor) -> Tensor:
            features = self.embed(x.flatten(1))
            return self.net[:cut](_joined(features, conditions(self, t, features, context)))

        return into, lambda h: self.net[cut:](h).unflatten(1, self.shape)

    def _enter(self, first: nn.Module, features: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        """The first layer; what all rows have in common adds a bias, computed once for the whole batch."""
        n, common = features.shape[1], conditions(self, t, features, context)
        if common.shape[0] != 1 or type(first) is not nn.Linear or intercepted(first):
            return first(_joined(features, common))
        shift = F.linear(common, first.weight[:, n:], first.bias)
        return F.linear(features, first.weight[:, :n], shift[0])


def _joined(features: Tensor, common: Tensor) -> Tensor:
    return torch.cat([features, common.expand(features.shape[0], -1)], 1)
