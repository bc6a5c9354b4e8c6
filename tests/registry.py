"""Every bijection and flow that the laws are held against: a new variant is one line here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from cnflib import Bijection, Chain, Flow, Inverse, Standardize, StandardNormal, tempered
from cnflib.continuous import (
    CNF,
    Bottleneck,
    EndTime,
    Exact,
    Gaussian,
    Hutchinson,
    HutchPP,
    JacobianFrobenius,
    KineticEnergy,
    concat,
    concat_squash,
    convolutional,
)
from cnflib.discrete import (
    MADE,
    ActNorm,
    Additive,
    Affine,
    Contraction,
    Coupling,
    ExactLogDet,
    Flatten,
    InvertibleConv1x1,
    LogDet,
    Logit,
    MaskedAutoregressive,
    Planar,
    Radial,
    RationalQuadratic,
    Residual,
    RussianRoulette,
    Scale,
    halves,
    lipswish,
)
from cnflib.interpolants import (
    Bridge,
    Constant,
    EncodingDecoding,
    Interpolant,
    Linear,
    Mirror,
    OneSided,
    Parabola,
    Sigmoid,
    SineSquared,
    Trigonometric,
    VariancePreserving,
)
from cnflib.models import (
    ffjord,
    gaussian,
    glow,
    iaf,
    maf,
    nice,
    planar_flow,
    radial_flow,
    realnvp,
    residual_flow,
    spline_flow,
)
from cnflib.nets import MLP, Conditioner
from cnflib.ode import Adaptive, Fixed, dopri8

devices = ["cpu", *["cuda"] * torch.cuda.is_available()]
tight = Adaptive(dopri8, rtol=1e-7, atol=1e-7)
tight_adjoint = Adaptive(dopri8, rtol=1e-7, atol=1e-7, adjoint=True)
precise = Fixed(4)
EXACT = ExactLogDet()


class Member(NamedTuple):
    """How to build it, the shape of its events, its context features, whether its log-det is an estimate, its domain.

    The domain takes normal draws to points that the map encodes.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (2,)
    context: int = 0
    noisy: bool = False
    domain: Callable[[Tensor], Tensor] = lambda x: x


def swirl(t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
    """A field without parameters, not autonomous and not linear, of non-zero divergence."""
    return 0.5 * torch.stack([x[:, 1] + t * torch.sin(x[:, 0]), 0.5 * torch.tanh(x[:, 1]) - x[:, 0]], 1)


def field(
    shape: tuple[int, ...] = (2,), context: int = 0, hidden: tuple[int, ...] = (8,), **options: float
) -> MLP:
    return MLP(shape, hidden=hidden, context=context, **options)


def coupling(transform, shape: tuple[int, ...] = (2,), context: int = 0, keep_first: bool = True) -> Coupling:
    mask = (torch.arange(torch.Size(shape).numel()).reshape(shape) % 2 == 0) ^ (not keep_first)
    P = transform.parameters
    kept, moved = (
        (int(mask.sum()), int((~mask).sum() * P)) if len(shape) == 1 else (shape, (shape[0] * P, *shape[1:]))
    )
    return Coupling(mask, transform, Conditioner(kept, moved, (8,), context))


def autoregressive(transform, shape: tuple[int, ...], context: int = 0, reverse: bool = False):
    return MaskedAutoregressive(
        transform, MADE(shape, transform.parameters, (6, 8), context, reverse, nn.Tanh)
    )


def standardize() -> Standardize:
    return Standardize(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0]))


def started(module: nn.Module, shape: tuple[int, ...], context: int = 0) -> nn.Module:
    """After a first batch: until then an ActNorm takes whatever it is given for the data that sets it up."""
    if torch.get_default_device().type == "meta":  # there are no values to set it up
        return module
    with seeded(), torch.no_grad():
        module(torch.randn(64, *shape), torch.randn(64, context) if context else None)
    return module


def couplings() -> Chain:
    return Chain(coupling(Affine()), coupling(Affine(), keep_first=False))


def residual(
    shape: tuple[int, ...] = (2,), context: int = 0, logdet: LogDet = EXACT, **options: object
) -> Residual:
    return Residual(Contraction(shape, (8, 8), context, **options), logdet)


bijections: dict[str, Member] = {
    "Standardize": Member(standardize),
    "Chain of nothing": Member(Chain),
    "Chain": Member(lambda: Chain(standardize(), coupling(Affine()), coupling(Affine(), keep_first=False))),
    "Chain nested": Member(lambda: Chain(couplings(), Chain(standardize(), CNF(field(), solver=precise)))),
    "Chain with context": Member(
        lambda: Chain(coupling(Affine(), context=3), coupling(Additive(), context=3)), (2,), 3
    ),
    "Inverse of Standardize": Member(lambda: Inverse(standardize())),
    "Inverse of Chain": Member(lambda: Inverse(Chain(standardize(), couplings()))),
    "Inverse of CNF": Member(lambda: Inverse(CNF(field(), solver=precise))),
    "Coupling additive": Member(lambda: coupling(Additive(), (3,)), (3,)),
    "Coupling affine": Member(lambda: coupling(Affine(), (3,)), (3,)),
    "Coupling of the first half": Member(
        lambda: Coupling(halves(5), Affine(), Conditioner(3, 4, (8,))), (5,)
    ),
    "Coupling of the last half": Member(
        lambda: Coupling(~halves(5), Affine(), Conditioner(2, 6, (8,))), (5,)
    ),
    "Coupling of channels": Member(
        lambda: Coupling(halves(3), Affine(), Conditioner((2, 2, 2), (2, 2, 2), (8,), 1)), (3, 2, 2), 1
    ),
    "Coupling rational-quadratic": Member(lambda: coupling(RationalQuadratic(4, 3.0), (3,)), (3,)),
    "Coupling rational-quadratic of images": Member(
        lambda: coupling(RationalQuadratic(3, 3.0), (1, 2, 2), 2), (1, 2, 2), 2
    ),
    "MaskedAutoregressive affine": Member(lambda: autoregressive(Affine(), (4,)), (4,)),
    "MaskedAutoregressive additive": Member(lambda: autoregressive(Additive(), (3,), 1), (3,), 1),
    "MaskedAutoregressive rational-quadratic": Member(
        lambda: autoregressive(RationalQuadratic(4, 3.0), (3,), 2, True), (3,), 2
    ),
    "MaskedAutoregressive of images": Member(lambda: autoregressive(Affine(), (2, 2, 2), 0, True), (2, 2, 2)),
    "Inverse of MaskedAutoregressive": Member(lambda: Inverse(autoregressive(Affine(), (3,))), (3,)),
    "Scale": Member(lambda: Scale((2, 3)), (2, 3)),
    "Coupling of a tight bound": Member(lambda: coupling(Affine(bound=0.1))),
    "Coupling with context": Member(lambda: coupling(Affine(), (3,), 2), (3,), 2),
    "Coupling of images": Member(lambda: coupling(Affine(), (2, 4, 4)), (2, 4, 4)),
    "Planar": Member(lambda: Planar(3), (3,)),
    "Planar in one dimension": Member(lambda: Planar(1), (1,)),
    "Planar with context": Member(lambda: Planar(2, (8,), context=3), (2,), 3),
    "Planar of images": Member(lambda: Planar((2, 3, 2), (8,), context=1), (2, 3, 2), 1),
    "Planar inverse": Member(lambda: Inverse(Chain(Planar(2), Planar(2)))),
    "Radial": Member(lambda: Radial(3), (3,)),
    "Radial in one dimension": Member(lambda: Radial(1), (1,)),
    "Radial with context": Member(lambda: Radial(2, (8,), context=3), (2,), 3),
    "Radial of images": Member(lambda: Radial((2, 3, 2), (8,), context=1), (2, 3, 2), 1),
    "Radial inverse": Member(lambda: Inverse(Chain(Radial(2), Radial(2)))),
    "ActNorm": Member(lambda: started(ActNorm(3), (3,)), (3,)),
    "ActNorm of images": Member(lambda: started(ActNorm(2), (2, 3, 2)), (2, 3, 2)),
    "InvertibleConv1x1": Member(lambda: InvertibleConv1x1(3), (3,)),
    "InvertibleConv1x1 of images": Member(lambda: InvertibleConv1x1(3), (3, 2, 3)),
    "Flatten there and back": Member(
        lambda: Chain(Flatten((2, 3)), InvertibleConv1x1(6), Inverse(Flatten((2, 3)))), (2, 3)
    ),
    "Logit": Member(Logit, (3,), domain=torch.sigmoid),
    "Residual": Member(lambda: residual()),
    "Residual with context": Member(lambda: residual((3,), 2, activation=lipswish), (3,), 2),
    "Residual of images": Member(lambda: residual((2, 4, 4), kernel=3), (2, 4, 4)),
    "Residual of a narrow map": Member(lambda: residual((1,), coefficient=0.99), (1,)),
    "Residual of a linear net": Member(lambda: Residual(Contraction((2, 3), ())), (2, 3)),
    "Residual by roulette": Member(lambda: residual((3,), 2, logdet=RussianRoulette(2, 0.8)), (3,), 2, True),
    "Residual of images by roulette": Member(
        lambda: residual((1, 2, 4), logdet=RussianRoulette(probes=2), kernel=3), (1, 2, 4), noisy=True
    ),
    "CNF fixed": Member(lambda: CNF(field(), Exact(), precise)),
    "CNF adaptive": Member(lambda: CNF(field((3,)), Exact(), tight), (3,)),
    "CNF with context": Member(lambda: CNF(field((2,), 3), solver=precise), (2,), 3),
    "CNF of images": Member(lambda: CNF(field((2, 1, 2)), solver=precise), (2, 1, 2)),
    "CNF in one dimension": Member(lambda: CNF(field((1,)), solver=precise), (1,)),
    "CNF with features": Member(
        lambda: CNF(field(time_frequencies=1, fourier=3, fourier_scale=0.2), solver=Fixed(8))
    ),
    "CNF with costs": Member(
        lambda: CNF(field(), costs=(KineticEnergy(), JacobianFrobenius()), solver=precise)
    ),
    "CNF of a function": Member(lambda: CNF(swirl, solver=Fixed(6))),
    "CNF adjoint": Member(lambda: CNF(field((3,)), Exact(), tight_adjoint), (3,)),
    "CNF checkpointed": Member(lambda: CNF(field((2,), 3), solver=Fixed(4, checkpoint=True)), (2,), 3),
    "CNF concat": Member(lambda: CNF(concat((2, 2), (8, 5)), solver=precise), (2, 2)),
    "CNF concat-squash": Member(lambda: CNF(concat_squash(2, (8,), context=3), solver=precise), (2,), 3),
    "CNF convolutional": Member(
        lambda: CNF(convolutional((2, 3, 2), (4,), context=1), solver=precise), (2, 3, 2), 1
    ),
    "CNF of a learnable end time": Member(lambda: CNF(EndTime(concat_squash(2, (8,)), 0.5), solver=precise)),
    "CNF of a narrow net": Member(
        lambda: CNF(field((3,), hidden=(2,)), Bottleneck(), Fixed(3)), (3,), noisy=True
    ),
    "CNF hutch++": Member(lambda: CNF(field((3,)), HutchPP(), precise), (3,), noisy=True),
    "CNF hutchinson": Member(lambda: CNF(field(), Hutchinson(), precise), noisy=True),
    "CNF hutchinson adaptive": Member(lambda: CNF(field(), Hutchinson(Gaussian(), 2), tight), noisy=True),
    "Chain with hutchinson": Member(
        lambda: Chain(couplings(), CNF(field(), Hutchinson(), precise)), noisy=True
    ),
}

flows: dict[str, Member] = {
    "gaussian": Member(lambda: gaussian(dim=3), (3,)),
    "gaussian context": Member(lambda: gaussian(dim=2, hidden=(8,), context=2), (2,), 2),
    "gaussian shape": Member(lambda: gaussian(shape=(2, 2)), (2, 2)),
    "after Standardize": Member(lambda: realnvp(dim=2, layers=2, hidden=(8,)).after(standardize())),
    "after Standardize, context too": Member(
        lambda: realnvp(dim=2, layers=2, hidden=(8,), context=2).after(standardize(), context=standardize()),
        (2,),
        2,
    ),
    "Standardize": Member(lambda: Flow(standardize(), StandardNormal(2))),
    "Chain": Member(lambda: Flow(Chain(standardize(), *couplings().layers), StandardNormal((2,)))),
    "CNF of a function": Member(lambda: Flow(CNF(swirl, solver=Fixed(6)), StandardNormal(2))),
    "nice dim": Member(lambda: nice(dim=2, layers=3, hidden=(8,))),
    "nice shape": Member(lambda: nice(shape=(2, 3), layers=2, hidden=(8,), context=1), (2, 3), 1),
    "maf dim": Member(lambda: maf(dim=2, layers=2, hidden=(8,))),
    "maf shape": Member(lambda: maf(shape=(2, 3), layers=2, hidden=(8, 8), context=1), (2, 3), 1),
    "maf of splines": Member(lambda: maf(dim=2, layers=2, hidden=(8,), transform=RationalQuadratic(4))),
    "iaf dim": Member(lambda: iaf(dim=2, layers=2, hidden=(8,))),
    "iaf context": Member(lambda: iaf(dim=3, layers=2, hidden=(8,), context=2), (3,), 2),
    "spline_flow dim": Member(lambda: spline_flow(dim=2, layers=2, hidden=(8,), bins=4)),
    "spline_flow context": Member(lambda: spline_flow(dim=3, layers=2, hidden=(8,), context=2), (3,), 2),
    "spline_flow shape": Member(lambda: spline_flow(shape=(2, 3), layers=2, hidden=(8,), bins=3), (2, 3)),
    "realnvp dim": Member(lambda: realnvp(dim=2, layers=4, hidden=(8,))),
    "realnvp shape": Member(lambda: realnvp(shape=(2, 3), layers=2, hidden=(8,)), (2, 3)),
    "realnvp context": Member(lambda: realnvp(dim=2, layers=3, hidden=(8,), context=3), (2,), 3),
    "planar dim": Member(lambda: planar_flow(dim=2, layers=4)),
    "planar shape": Member(lambda: planar_flow(shape=(1, 2, 2), layers=3), (1, 2, 2)),
    "planar context": Member(lambda: planar_flow(dim=2, layers=3, hidden=(8,), context=3), (2,), 3),
    "planar posterior": Member(
        lambda: Flow(Inverse(planar_flow(dim=2, layers=4).bijection), StandardNormal(2))
    ),
    "radial dim": Member(lambda: radial_flow(dim=2, layers=4)),
    "radial shape": Member(lambda: radial_flow(shape=(1, 2, 2), layers=3), (1, 2, 2)),
    "radial context": Member(lambda: radial_flow(dim=2, layers=3, hidden=(8,), context=3), (2,), 3),
    "radial posterior": Member(
        lambda: Flow(Inverse(radial_flow(dim=2, layers=4).bijection), StandardNormal(2))
    ),
    "realnvp image": Member(lambda: realnvp(shape=(1, 4, 4), layers=1, hidden=(4,), context=2), (1, 4, 4), 2),
    "glow dim": Member(lambda: started(glow(dim=2, layers=3, hidden=(8,)), (2,))),
    "glow matrix": Member(lambda: started(glow(shape=(2, 2), layers=2, hidden=(8,)), (2, 2)), (2, 2)),
    "glow image": Member(lambda: started(glow(shape=(1, 4, 4), layers=1, hidden=(4,)), (1, 4, 4)), (1, 4, 4)),
    "glow image context": Member(
        lambda: started(glow(shape=(2, 2, 4), layers=1, hidden=(4, 3), context=2), (2, 2, 4), 2), (2, 2, 4), 2
    ),
    "glow odd sides": Member(
        lambda: started(glow(shape=(1, 3, 3), layers=2, hidden=(4,)), (1, 3, 3)), (1, 3, 3)
    ),
    "tempered": Member(lambda: tempered(realnvp(dim=2, layers=3, hidden=(8,), context=3), 0.7), (2,), 3),
    "residual_flow dim": Member(lambda: residual_flow(dim=2, layers=3, hidden=(8,))),
    "residual_flow matrix": Member(lambda: residual_flow(shape=(2, 2), layers=2, hidden=(8,)), (2, 2)),
    "residual_flow image": Member(
        lambda: residual_flow(shape=(1, 2, 4), layers=2, hidden=(4, 4), context=2), (1, 2, 4), 2
    ),
    "residual_flow context": Member(lambda: residual_flow(dim=2, layers=2, hidden=(8,), context=3), (2,), 3),
    "residual_flow by roulette": Member(
        lambda: residual_flow(dim=3, layers=2, hidden=(8,), logdet=RussianRoulette()), (3,), noisy=True
    ),
    "ffjord dim": Member(lambda: ffjord(dim=2, hidden=(8, 8), solver=tight)),
    "ffjord fixed": Member(lambda: ffjord(dim=2, hidden=(8, 8), solver=precise)),
    "ffjord line": Member(lambda: ffjord(dim=1, hidden=(8,), solver=precise), (1,)),
    "ffjord matrix": Member(lambda: ffjord(shape=(2, 2), hidden=(8,), solver=precise), (2, 2)),
    "ffjord image": Member(
        lambda: ffjord(shape=(1, 2, 2), hidden=(4,), divergence=Exact(), solver=precise, blocks=1), (1, 2, 2)
    ),
    "ffjord image hutchinson": Member(
        lambda: ffjord(shape=(1, 2, 4), hidden=(3,), context=2, solver=Fixed(2), blocks=1), (1, 2, 4), 2, True
    ),
    "ffjord context": Member(lambda: ffjord(dim=2, hidden=(8, 8), context=3, solver=precise), (2,), 3),
    "ffjord hutchinson": Member(
        lambda: ffjord(dim=2, hidden=(8,), divergence=Hutchinson(), solver=precise), noisy=True
    ),
}


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draws from torch's default generator inside are reproducible and leave it as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def rng(seed: int = 0, device: str | torch.device = "cpu") -> Generator:
    return Generator(device).manual_seed(seed)


def built(member: Member, dtype: torch.dtype = torch.float64, scale: float = 0.1) -> Bijection | Flow:
    """A member with perturbed weights: a fresh coupling is the identity, of which every law is trivially true."""
    with seeded(1), torch.no_grad():
        module = member.build().to(dtype)
        for p in module.parameters():
            p += scale * torch.randn_like(p)
    return module


def points(
    member: Member, n: int = 3, dtype: torch.dtype = torch.float64, seed: int = 2
) -> tuple[Tensor, Tensor | None]:
    """Points of the member's shape and, where it has one, a context."""
    generator = rng(seed)
    x = torch.randn(n, *member.shape, generator=generator, dtype=dtype)
    return member.domain(x), torch.randn(
        n, member.context, generator=generator, dtype=dtype
    ) if member.context else None


def far(member: Member, sizes: Sequence[float], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Points of which all coordinates are of a size, or the first alone, of either sign."""
    n = 4 * len(sizes)
    x, context = points(member._replace(domain=lambda x: x), n, dtype)
    signed = torch.tensor([sign * size for size in sizes for sign in (1, -1)], dtype=dtype)
    x[: n // 2] = signed.reshape(-1, *[1] * len(member.shape))
    x[n // 2 :].flatten(1)[:, 0] = signed
    return x, context


noises = {
    "none": None,
    "bridge": Bridge(0.8),
    "parabola": Parabola(2.0),
    "sine": SineSquared(0.7),
    "sigmoid": Sigmoid(1.5),
    "constant": Constant(0.4),
}
interpolants: dict[str, Interpolant] = {
    **{f"linear, {name}": Linear(gamma) for name, gamma in noises.items()},
    **{f"trigonometric, {name}": Trigonometric(gamma) for name, gamma in noises.items()},
    **{f"mirror, {name}": Mirror(gamma) for name, gamma in noises.items() if gamma is not None},
    "encoding-decoding": EncodingDecoding(),
    "one-sided": OneSided(beta=lambda t: t**2),
    "variance-preserving": VariancePreserving(),
    "variance-preserving, of a diffusion": VariancePreserving(torch.asin),
    "of a user": Interpolant(lambda t: 1 - t, lambda t: t**2, lambda t: t * (1 - t)),
}
"""Every ready path with every noise it takes, and one that is not ready."""
