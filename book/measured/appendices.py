"""The figures of the appendices: drawings, of nothing that was measured."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from cnflib.plot import BASE, DATA, MODEL, TRAJECTORY
from measured.figures import figure
from measured.tables import Row

FIELD = np.array([[1.0, -0.5], [0.5, 0.0]])  # that of chapter 9's determinant by hand
SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
ENDS, PATHS, STEPS, LAST = 2.0, 24, 800, 3.0  # of the noising: where it begins, how many, until when


@figure("appendix-a")
def determinant(_: Row) -> plt.Figure:
    """A square under I + hJ, and its area as a function of h."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(7, 3.1))
    moved = SQUARE @ (np.eye(2) + 0.3 * FIELD).T
    left.fill(*moved.T, color=MODEL, alpha=0.25, lw=0)
    left.plot(*moved.T, color=MODEL)
    left.plot(*SQUARE.T, "--", color="black", lw=1.5)
    left.set(aspect="equal", title="h = 0.3", xlim=(-0.35, 1.55), ylim=(-0.2, 1.4))
    h = np.linspace(-1, 1, 101)
    trace, det = np.trace(FIELD), np.linalg.det(FIELD)
    right.plot(h, 1 + h * trace + h**2 * det, color=MODEL)
    right.plot(h, 1 + h * trace, "--", color="black", lw=1.5)
    right.plot(h, np.exp(h * trace), ":", color=TRAJECTORY)
    right.set(xlabel="h", ylabel="area", xticks=[-1, 0, 1], yticks=[0, 1, 2])
    return drawn


@figure("appendix-b")
def conditional_mean(_: Row) -> plt.Figure:
    """A cloud, its conditional mean, the best line, and what scatters around the mean."""
    rng = np.random.default_rng(0)
    curve, scatter = lambda x: np.sin(2 * x), lambda x: 0.25 + 0.15 * np.abs(x)
    x = rng.uniform(-1.8, 1.8, 500)
    y = curve(x) + scatter(x) * rng.standard_normal(500)
    places, grid = np.array([-1.2, 0.2, 1.4]), np.linspace(-1.8, 1.8, 200)
    slope = np.mean(grid * curve(grid)) / np.mean(grid**2)  # x is centred, and the curve odd
    drawn, ax = plt.subplots(figsize=(7, 3.4))
    ax.plot(x, y, "o", color=DATA, ms=3, alpha=0.5, mew=0)
    ax.plot(grid, curve(grid), color=MODEL, lw=3)
    ax.plot(grid, slope * grid, "--", color="black", lw=1.5)
    ax.errorbar(
        places, curve(places), 2 * scatter(places), fmt="none", ecolor=TRAJECTORY, elinewidth=2.5, capsize=5
    )
    ax.set(xlabel="x", ylabel="y", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    return drawn


@figure("appendix-c")
def reversal(_: Row) -> plt.Figure:
    """Paths that forget two points, and fresh paths by the reversed equation, which end there."""
    rng, h = np.random.default_rng(0), LAST / STEPS
    forth = [np.where(np.arange(PATHS) % 2, ENDS, -ENDS)]
    back = [rng.standard_normal(PATHS)]
    for k in range(STEPS):
        noise = np.sqrt(2 * h) * rng.standard_normal((2, PATHS))
        forth.append(forth[-1] - h * forth[-1] + noise[0])
        back.append(back[-1] + h * (back[-1] + 2 * score(LAST - k * h, back[-1])) + noise[1])
    drawn, axes = plt.subplots(1, 2, figsize=(7, 3.1), sharey=True)
    paths(axes[0], forth, (DATA, BASE))
    paths(axes[1], back, (BASE, DATA))
    axes[0].set(title="noise is added", xlabel="time since the data, τ", ylabel="x")
    axes[1].set(title="run backward", xlabel=f"time t = {LAST:.0f} − τ")
    return drawn


def score(tau: float, x: np.ndarray) -> np.ndarray:
    """That of the noised points at the time tau since the data, which are the two ends."""
    a, v = ENDS * np.exp(-tau), 1 - np.exp(-2 * tau)
    return (a * np.tanh(a * x / v) - x) / v


def paths(ax: Axes, points: list[np.ndarray], colours: tuple[str, str]) -> None:
    """Thin lines over time; where they begin and end as dots."""
    times = np.linspace(0, LAST, STEPS + 1)
    ax.plot(times[::2], points[::2], color=TRAJECTORY, lw=0.7, alpha=0.7)
    for t, dots, colour in zip((0, LAST), (points[0], points[-1]), colours, strict=True):
        ax.plot(np.full(PATHS, t), dots, "o", color=colour, ms=5, clip_on=False)
    ax.set(xticks=[0, 1, 2, 3], yticks=[-2, 0, 2])
