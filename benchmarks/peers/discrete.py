"""The same discrete flows in other libraries, behind one interface: ``log_prob``, ``sample``, ``encode``, ``decode``.

Each library has the three kinds: ``realnvp``, affine couplings by halves; ``maf``, affine masked autoregressive layers
that take the coordinates forwards and backwards in turn; ``spline``, rational-quadratic couplings by halves. The nets
are fully connected, with ReLU. Where the library's own builder differs from that, the flow is put together from its
layers: zuko's ``NSF(passes=2)`` and normflows' ``CoupledRationalQuadraticSpline`` also transform the half that a
coupling keeps, the latter by a residual net. A layer of MAF in normflows maps the base to the data in one pass, as in
IAF; its ``Reverse`` makes it MAF.
"""

import torch
from harness import BINS, BOX, COUPLINGS, HIDDEN, MASKED, SPLINES
from torch import Tensor, nn


class Discrete(nn.Module):
    """A row of the table: one library, one kind of flow, one dimension."""

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        self.flow = getattr(self, kind)(dim)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        return self.flow.sample(n)


def masks(dim: int, layers: int) -> list[Tensor]:
    """True on the half that a coupling keeps: the first, the last, and so on."""
    first = torch.arange(dim) < dim // 2
    return [first if k % 2 == 0 else ~first for k in range(layers)]


class Zuko(Discrete):
    """zuko: a flow is called for its distribution, which is built anew each time."""

    def realnvp(self, dim: int) -> nn.Module:
        return self.couplings(dim, COUPLINGS)

    def spline(self, dim: int) -> nn.Module:
        from zuko.transforms import MonotonicRQSTransform as spline

        assert BOX == 5  # the box of zuko's splines
        return self.couplings(dim, SPLINES, univariate=spline, shapes=[(BINS,), (BINS,), (BINS - 1,)])

    def couplings(self, dim: int, layers: int, **options: object) -> nn.Module:
        from zuko.flows import NICE, Flow
        from zuko.flows.coupling import GeneralCouplingTransform as Coupling

        base = NICE(dim).base
        return Flow(
            [Coupling(dim, mask=mask, hidden_features=HIDDEN, **options) for mask in masks(dim, layers)], base
        )

    def maf(self, dim: int) -> nn.Module:
        from zuko.flows import MAF

        return MAF(dim, transforms=MASKED, hidden_features=HIDDEN)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        return self.flow().sample((n,))

    def encode(self, x: Tensor) -> Tensor:
        return self.flow().transform(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.flow().transform.inv(z)


class Net(nn.Module):
    """The conditioner of nflows' couplings and of normflows' splines, which are called with a context."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs, *HIDDEN]
        hidden = [
            part for a, b in zip(widths, widths[1:], strict=False) for part in (nn.Linear(a, b), nn.ReLU())
        ]
        self.layers = nn.Sequential(*hidden, nn.Linear(widths[-1], outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layers(x)


class Nflows(Discrete):
    """nflows."""

    def realnvp(self, dim: int) -> nn.Module:
        from nflows.transforms import AffineCouplingTransform as Coupling

        return self.chain(dim, [Coupling((~mask).int(), Net) for mask in masks(dim, COUPLINGS)])

    def spline(self, dim: int) -> nn.Module:
        from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform as Coupling

        options = {"num_bins": BINS, "tails": "linear", "tail_bound": BOX}
        return self.chain(dim, [Coupling((~mask).int(), Net, **options) for mask in masks(dim, SPLINES)])

    def maf(self, dim: int) -> nn.Module:
        from nflows.transforms import MaskedAffineAutoregressiveTransform as Masked
        from nflows.transforms import ReversePermutation

        width, *blocks = HIDDEN
        layers = []
        for _ in range(MASKED):
            layers += [
                Masked(dim, width, num_blocks=len(blocks), use_residual_blocks=False),
                ReversePermutation(dim),
            ]
        return self.chain(dim, layers[:-1])

    def chain(self, dim: int, layers: list[nn.Module]) -> nn.Module:
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.transforms import CompositeTransform

        return Flow(CompositeTransform(layers), StandardNormal([dim]))

    def encode(self, x: Tensor) -> Tensor:
        return self.flow.transform_to_noise(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.flow._transform.inverse(z)[0]


class Normflows(Discrete):
    """normflows: layers are listed from the base to the data; a sample always comes with its density."""

    def realnvp(self, dim: int) -> nn.Module:
        import normflows as nf

        half = dim // 2
        layers = []
        for _ in range(COUPLINGS):
            net = nf.nets.MLP([half, *HIDDEN, 2 * half])
            layers += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(dim, mode="swap")]
        return self.chain(dim, layers[:-1])

    def spline(self, dim: int) -> nn.Module:
        import normflows as nf
        from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling as Coupling

        options = {"num_bins": BINS, "tails": "linear", "tail_bound": BOX}
        layers = [Coupling((~mask).int(), Net, **options) for mask in masks(dim, SPLINES)]
        return self.chain(dim, [nf.flows.Reverse(layer) for layer in layers])

    def maf(self, dim: int) -> nn.Module:
        import normflows as nf

        width, *blocks = HIDDEN
        layers = []
        for _ in range(MASKED):
            masked = nf.flows.MaskedAffineAutoregressive(
                dim, width, num_blocks=len(blocks), use_residual_blocks=False
            )
            turn = nf.flows.Permute(dim)
            turn.perm = turn.inv_perm = torch.arange(dim).flip(0)
            layers += [nf.flows.Reverse(masked), turn]
        return self.chain(dim, layers[:-1])

    def chain(self, dim: int, layers: list[nn.Module]) -> nn.Module:
        import normflows as nf

        return nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), layers)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        return self.flow.sample(n)[0]

    def encode(self, x: Tensor) -> Tensor:
        return self.flow.inverse(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.flow(z)
