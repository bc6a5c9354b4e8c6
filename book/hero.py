"""The picture on the landing page: a Gaussian cloud becomes data and goes back, drawn from a flow trained on the spot.

An interpolant learns a field on the pinwheel. Every shade is then the density p_t of the resulting flow at that point,
found by integrating back to t = 0, and the threads are paths of particles. Time runs across the picture: the cloud at
time t stands t of the way to the right. It all takes about a minute on one core.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cnflib import Flow, StandardNormal
from cnflib.continuous import CNF
from cnflib.data.toy import pinwheel
from cnflib.interpolants import Trigonometric, velocity_loss
from cnflib.nets import MLP
from cnflib.ode import Fixed
from cnflib.plot import BASE, DATA, TRAJECTORY
from cnflib.train import EMA, steps

SEED, STEPS, BATCH = 0, 3000, 768
FRAMES, HOLD_MS, FRAME_MS = 26, 1400, 90
WIDTH, HEIGHT, UNIT, TRAVEL, RISE = 1200, 520, 56, 12.6, 0.22  # pixels, pixels, pixels and twice units of x
REACH, GRID = 4.6, 112  # units of x, points along a side of the grid of the density
PARTICLES = 44


class Theme(NamedTuple):
    """The colours of one background."""

    suffix: str
    background: str
    base: str
    middle: str
    data: str
    line: str
    ink: str


LIGHT = Theme("", "#FFFFFF", BASE, "#7F52B9", DATA, TRAJECTORY, "#222222")
DARK = Theme("-dark", "#14181E", "#4FB3F0", "#B493F0", "#FF9248", "#AEB6C2", "#FFFFFF")


class Motion(NamedTuple):
    """The flow at the times of the frames: how dark each pixel is, and where the particles are."""

    times: np.ndarray
    shades: list[np.ndarray]
    particles: np.ndarray


def train() -> Flow:
    """A flow on the pinwheel; the same for the same seed and version of torch."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        features = {"time_frequencies": 2, "fourier": 24, "fourier_scale": 0.25}
        field = MLP(2, hidden=(64, 64, 64), activation=torch.nn.SiLU, **features)
    optimizer = torch.optim.Adam(field.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    ema = EMA(field, 0.995)
    interpolant = Trigonometric()

    def loss() -> Tensor:
        x0 = torch.randn(BATCH, 2, generator=generator)
        x1 = pinwheel.sample(BATCH, generator=generator)
        return velocity_loss(field, interpolant, x0, x1, generator=generator).mean()

    for _ in steps(loss, optimizer, STEPS, ema=ema, progress=False):
        schedule.step()
    return Flow(CNF(ema.module, solver=Fixed(2)), StandardNormal(2))


def check(flow: Flow) -> float:
    """The mean of log p − log p̂ on fresh points, in nats; the picture is drawn only if it is small."""
    x = pinwheel.sample(4000, generator=torch.Generator().manual_seed(SEED + 1))
    fine = Flow(CNF(flow.bijection.field, solver=Fixed(40)), flow.base)
    with torch.no_grad():
        gap = (pinwheel.log_prob(x) - fine.log_prob(x)).mean().item()
    if not -0.01 < gap < 0.12:
        raise RuntimeError(
            f"The flow of the landing page is {gap:.3f} nats from the pinwheel; expected 0.04."
        )
    return gap


def move(flow: Flow) -> Motion:
    """The particles' paths and the density at the times of the frames, which lie closer together at both ends."""
    times = (1 - torch.linspace(0, torch.pi, FRAMES).cos()) / 2
    z = torch.randn(PARTICLES, 2, generator=torch.Generator().manual_seed(SEED + 2))
    with torch.no_grad():
        particles = flow.bijection.trajectory(z, times)
        shades = [shade(flow, t) for t in times.tolist()]
    return Motion(times.numpy(), shades, particles.numpy())


def shade(flow: Flow, t: float) -> np.ndarray:
    r"""How dark each pixel is at time t, from 0 to 1: p_t over its maximum, to the power 0.8.

    The points of a grid are carried back to t = 0: log p_t(x) = log p_0(z) + log|det ∂z/∂x|.
    """
    side = torch.linspace(-REACH, REACH, GRID)
    x = torch.cartesian_prod(side, side)
    cnf = CNF(flow.bijection.field, solver=Fixed(1 + round(12 * t)))
    back = cnf.solve(x, t, 0.0)
    p = (flow.base.log_prob(back.x) + back.logdet).exp().unflatten(0, (GRID, GRID))
    dark = (1.15 * p / p.max()).clamp(max=1).pow(0.8)
    figure, ax = canvas("black")
    (left, bottom), (right, top) = across(np.array([[-REACH, -REACH], [REACH, REACH]]), np.full(2, t))
    look = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "bicubic", "aspect": "auto"}
    ax.imshow(dark.numpy().T, extent=(left, right, bottom, top), origin="lower", **look)
    return pixels(figure)[..., 0] / 255


def color_at(t: float, theme: Theme) -> np.ndarray:
    """From the base's colour over violet to the data's."""
    stops = np.array([to_rgb(theme.base), to_rgb(theme.middle), to_rgb(theme.data)])
    return np.array([np.interp(t, (0, 0.5, 1), channel) for channel in stops.T])


def across(x: np.ndarray, t: np.ndarray | float) -> np.ndarray:
    """Points x at time t in the coordinates of the picture."""
    return x + np.stack([TRAVEL * (np.asarray(t) - 0.5), np.full_like(t, RISE)], axis=-1)


def canvas(background: str) -> tuple[Figure, Axes]:
    """An empty picture without margins."""
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor=background)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    half = np.array([WIDTH, HEIGHT]) / UNIT / 2
    ax.set(xlim=(-half[0], half[0]), ylim=(-half[1], half[1]))
    return figure, ax


def pixels(figure: Figure) -> np.ndarray:
    """The colours of a drawn picture, shape (height, width, 3), from 0 to 255."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def picture(motion: Motion, theme: Theme, clouds: dict[int, float], now: int) -> Image.Image:
    """Clouds at some frames, each with its strength; the particles at one frame, and their paths."""
    figure, ax = canvas(theme.background)
    image = np.broadcast_to(to_rgb(theme.background), (HEIGHT, WIDTH, 3))
    for k, strength in clouds.items():
        weight = strength * motion.shades[k][..., None]
        image = (1 - weight) * image + weight * color_at(motion.times[k], theme)
    ax.imshow(image, extent=(*ax.get_xlim(), *ax.get_ylim()), aspect="auto")
    paths = across(motion.particles, motion.times[:, None]).swapaxes(0, 1)
    ax.add_collection(LineCollection(list(paths), colors=theme.line, linewidths=0.9, alpha=0.25))
    ax.add_collection(LineCollection(list(paths[:, : now + 1]), colors=theme.line, linewidths=1.2, alpha=0.6))
    rail(ax, motion.times[now], theme)
    return Image.fromarray(_dots(figure, ax, paths, motion, now, theme))


def _dots(figure: Figure, ax: Axes, paths: np.ndarray, motion: Motion, now: int, theme: Theme) -> np.ndarray:
    ends = {0: 0.5, FRAMES - 1: 0.5, now: 1.0}
    for k, alpha in ends.items():
        color = 0.65 * color_at(motion.times[k], theme) + 0.35 * np.array(to_rgb(theme.ink))
        look = {"s": 30 if k == now else 12, "edgecolor": theme.background, "linewidth": 0.9}
        ax.scatter(*paths[:, k].T, color=[color], alpha=alpha, zorder=3, **look)
    return pixels(figure)


def rail(ax: Axes, t: float, theme: Theme) -> None:
    """The line of time under the picture, with a mark at t."""
    y = ax.get_ylim()[0] + 0.3
    ends = TRAVEL * (np.linspace(0, 1, 61) - 0.5)
    segments = np.stack([ends, np.full_like(ends, y)], axis=-1)
    colors = [color_at(s, theme) for s in np.linspace(0, 1, 60)]
    ax.add_collection(
        LineCollection(np.stack([segments[:-1], segments[1:]], axis=1), colors=colors, linewidths=3)
    )
    ax.scatter(
        TRAVEL * (t - 0.5),
        y,
        s=150,
        color=[color_at(t, theme)],
        edgecolor=theme.background,
        linewidth=2,
        zorder=3,
    )


def frame(motion: Motion, theme: Theme, k: int) -> Image.Image:
    """Frame k: the cloud on its way between a shadow of the base and one of the data."""
    return picture(motion, theme, {0: 0.35, FRAMES - 1: 0.35, k: 1.0}, k)


def still(motion: Motion, theme: Theme) -> Image.Image:
    """The whole motion in one picture: the cloud at t = 0, halfway and at t = 1."""
    middle = int(np.abs(motion.times - 0.5).argmin())
    return picture(motion, theme, {0: 1.0, middle: 0.8, FRAMES - 1: 1.0}, FRAMES - 1)


def draw(folder: Path) -> None:
    """Write ``hero.avif`` (there and back, looped) and ``hero.png`` (a still), and both with ``-dark``, to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    flow = train()
    check(flow)
    motion = move(flow)
    for theme in (LIGHT, DARK):
        there = [frame(motion, theme, k) for k in range(FRAMES)]
        first, *others = there + there[-2:0:-1]
        pauses = [HOLD_MS if k in (0, FRAMES - 1) else FRAME_MS for k in range(2 * FRAMES - 2)]
        # Chromium reads moving AVIF as of limited range, whatever the file says: full range turns the ground black.
        options = {"quality": 60, "speed": 8, "range": "limited", "max_threads": 1, "duration": pauses}
        first.save(folder / f"hero{theme.suffix}.avif", save_all=True, append_images=others, **options)
        still(motion, theme).save(folder / f"hero{theme.suffix}.png", optimize=True)
