r"""The 2-D toy laws of FFJORD with their exact densities and entropies, and a Gaussian mixture.

The laws are those of ``toy_data.py`` in the code of FFJORD (Grathwohl et al., 2018, arXiv:1810.01367); where that
takes a regular grid of angles, these take the uniform law. ``targets`` maps names to laws. Each is a density like any
other, a base of a flow too::

    x = toy.moons.sample(512, generator=generator)
    toy.moons.log_prob(x).mean()  # near -toy.moons.entropy

The checkerboard's entropy is ln 32. The others are sums :math:`-\sum_i w \, \rho(x_i) \log \rho(x_i)` over a grid of
cells of area w, which for smooth densities converge faster than any power of w: grids of 500² and 801² points over
1.3 times ``bounds`` agree in all digits given. The pinwheel's folds leave errors near :math:`10^{-8}` on such a
grid; its entropy is integrated along a blade instead.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cnflib.data._curves import boxed_curve, gaussian_curve, gaussian_rings
from cnflib.data._numerics import gauss_legendre
from cnflib.data._pinwheel import draw_pinwheel, pinwheel_density
from cnflib.data._target import Draws, Target, Toy, ToyMixture
from cnflib.distributions import GaussianMixture

__all__ = [
    "Target",
    "checkerboard",
    "circles",
    "eight_gaussians",
    "gaussian_mixture",
    "moons",
    "pinwheel",
    "rings",
    "swissroll",
    "targets",
    "two_spirals",
]


def draw_checkerboard(n: int, draws: Draws) -> Tensor:
    column, row, u = draws.integers(4, n) - 2, 2 * draws.integers(2, n) - 2, draws.uniform(n, 2)
    corner = torch.stack([column, row + column % 2], dim=-1)
    # u stays an eps below 1, or a rounded corner + u could reach the next cell, where the density is zero.
    return 2 * (corner + (1 - torch.finfo(u.dtype).eps) * u)


def checkerboard_density(x: Tensor) -> Tensor:
    cell = (x / 2).floor()
    inside = (cell.sum(-1) % 2 == 0) & ((cell >= -2) & (cell < 2)).all(-1)
    # The zero keeps x in the graph, so that its gradient is 0 and not an error.
    return torch.where(inside, 0 * cell[:, 0] - math.log(32), -math.inf)


def circle(theta: Tensor) -> Tensor:
    return torch.stack([theta.cos(), theta.sin()], dim=-1)


def draw_rings(n: int, draws: Draws, radii: tuple[float, ...], sigma: float) -> Tensor:
    theta, k = 2 * math.pi * draws.uniform(n), draws.integers(len(radii), n)
    return theta.new_tensor(radii)[k, None] * circle(theta) + sigma * draws.normal(n, 2)


def upper_moon(theta: Tensor) -> Tensor:
    return 2 * circle(theta) + theta.new_tensor([-1.0, -0.2])


def lower_moon(theta: Tensor) -> Tensor:
    return theta.new_tensor([0.0, 0.6]) - upper_moon(theta)


def draw_moons(n: int, draws: Draws) -> Tensor:
    theta, upper = math.pi * draws.uniform(n), draws.integers(2, n, 1) == 0
    return torch.where(upper, upper_moon(theta), lower_moon(theta)) + 0.2 * draws.normal(n, 2)


def moons_density(nodes: int = 96) -> Callable[[Tensor], Tensor]:
    theta, weights = gauss_legendre(0, math.pi, nodes)
    points = torch.cat([upper_moon(theta), lower_moon(theta)])
    return partial(gaussian_curve, points=points, weights=weights.repeat(2) / (2 * math.pi), sigma=0.2)


def roll(theta: Tensor) -> Tensor:
    return theta[:, None] * circle(theta) / 5


def draw_swissroll(n: int, draws: Draws) -> Tensor:
    return roll(1.5 * math.pi * (1 + 2 * draws.uniform(n))) + 0.2 * draws.normal(n, 2)


def swissroll_density(nodes: int = 256) -> Callable[[Tensor], Tensor]:
    theta, weights = gauss_legendre(1.5 * math.pi, 4.5 * math.pi, nodes)
    return partial(gaussian_curve, points=roll(theta), weights=weights / (3 * math.pi), sigma=0.2)


def spiral(theta: Tensor) -> Tensor:
    return theta[:, None] * circle(math.pi - theta) / 3 + 1 / 12


def draw_spirals(n: int, draws: Draws) -> Tensor:
    theta, sign = 3 * math.pi * draws.uniform(n).sqrt(), 2 * draws.integers(2, n, 1) - 1
    return sign * (spiral(theta) + (draws.uniform(n, 2) - 0.5) / 6) + 0.1 * draws.normal(n, 2)


def spirals_density(nodes: int = 288) -> Callable[[Tensor], Tensor]:
    # Nodes even in s = (1 + theta)^2 are about even in arc length: 288 of them do what 360 even in theta would.
    s, weights = gauss_legendre(1, (1 + 3 * math.pi) ** 2, nodes)
    theta = s.sqrt() - 1
    points, weights = spiral(theta), weights * theta / (1 + theta) / (3 * math.pi) ** 2
    return partial(
        boxed_curve,
        points=torch.cat([points, -points]),
        weights=weights.repeat(2) / 2,
        half=1 / 12,
        sigma=0.1,
    )


checkerboard = Toy(
    name="checkerboard",
    bounds=((-4.0, 4.0), (-4.0, 4.0)),
    entropy=math.log(32),
    draw=draw_checkerboard,
    density=checkerboard_density,
)
r"""Eight squares of side 2, of density 1/32; the log-density jumps to -inf off them, and its gradient is 0."""

eight_gaussians = ToyMixture(
    name="eight_gaussians",
    entropy=2.8318804061,
    mixture=GaussianMixture(
        weights=[1 / 8] * 8,
        means=[
            [4 / 1.414 * math.cos(k * math.pi / 4), 4 / 1.414 * math.sin(k * math.pi / 4)] for k in range(8)
        ],
        covariances=[[[(0.5 / 1.414) ** 2, 0.0], [0.0, (0.5 / 1.414) ** 2]]] * 8,
    ),
)
r"""Eight isotropic Gaussians on a circle."""

gaussian_mixture = ToyMixture(
    name="gaussian_mixture",
    entropy=2.6085275350,
    mixture=GaussianMixture(
        weights=[0.5, 0.3, 0.2],
        means=[[-1.8, 0.8], [0.7, -1.8], [1.8, 1.6]],
        covariances=[[[0.45, 0.3], [0.3, 0.4]], [[0.8, -0.3], [-0.3, 0.25]], [[0.2, 0.0], [0.0, 0.2]]],
    ),
)
r"""Three Gaussians of unequal weight, two of them correlated: the law with every interpolant in closed form."""

moons = Toy(
    name="moons",
    bounds=((-4.2, 4.2), (-2.4, 3.0)),
    entropy=2.3938791960,
    draw=draw_moons,
    density=moons_density(),
    chunk=512,
)
r"""Two half circles of radius 2 with noise of standard deviation 0.2."""

circles = Toy(
    name="circles",
    bounds=((-4.4, 4.4), (-4.4, 4.4)),
    entropy=3.2681357117,
    draw=partial(draw_rings, radii=(3.0, 1.5), sigma=0.24),
    density=partial(gaussian_rings, radii=(3.0, 1.5), sigma=0.24),
)
r"""Two circles with noise of standard deviation 0.24."""

rings = Toy(
    name="rings",
    bounds=((-3.5, 3.5), (-3.5, 3.5)),
    entropy=2.6231827703,
    draw=partial(draw_rings, radii=(3.0, 2.25, 1.5, 0.75), sigma=0.08),
    density=partial(gaussian_rings, radii=(3.0, 2.25, 1.5, 0.75), sigma=0.08),
)
r"""Four thin circles with noise of standard deviation 0.08."""

swissroll = Toy(
    name="swissroll",
    bounds=((-4.0, 4.0), (-4.0, 4.0)),
    entropy=2.6696461739,
    draw=draw_swissroll,
    density=swissroll_density(),
    chunk=512,
)
r"""One arm :math:`\theta (\cos\theta, \sin\theta) / 5`, uniform in the angle, with noise of standard deviation 0.2."""

two_spirals = Toy(
    name="two_spirals",
    bounds=((-4.0, 4.0), (-4.0, 4.0)),
    entropy=2.6454502836,
    draw=draw_spirals,
    density=spirals_density(),
    chunk=512,
)
r"""Two interleaved arms, uniform in arc length but for their ends, with box noise and Gaussian noise."""

pinwheel = Toy(
    name="pinwheel",
    bounds=((-5.3, 5.3), (-5.3, 5.3)),
    entropy=2.31778804,
    draw=draw_pinwheel,
    density=pinwheel_density,
)
r"""Five Gaussian blades, twisted by an angle that grows exponentially along them."""

targets: dict[str, Target] = {
    target.name: target
    for target in (
        checkerboard,
        eight_gaussians,
        moons,
        circles,
        rings,
        swissroll,
        two_spirals,
        pinwheel,
        gaussian_mixture,
    )
}
r"""All laws by name: the eight of FFJORD, and the Gaussian mixture."""


def __dir__() -> list[str]:
    return sorted(__all__)
