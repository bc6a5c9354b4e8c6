"""The look of the book: colours, rcParams, and the one diagram."""

from collections.abc import Callable

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyArrowPatch

__all__ = ["BASE", "COLORS", "DATA", "MODEL", "TRAJECTORY", "arrow_diagram", "use_style"]


def __dir__() -> list[str]:
    return sorted(__all__)


BASE, DATA, MODEL, TRAJECTORY = "#0173B2", "#D55E00", "#029E73", "#4D4D4D"
COLORS = {"base": BASE, "data": DATA, "model": MODEL, "trajectory": TRAJECTORY}
INK = "#222222"
DENSITY = LinearSegmentedColormap.from_list(
    "density", ["#FFFFFF", "#E0D8F2", "#C0AEE4", "#9F80D2", "#7F52B9", "#5F2C98", "#420F74"]
)
VOLUME = sns.diverging_palette(330, 80, s=80, l=60, as_cmap=True)

PAIRS = np.array(
    [[-0.86, 0.52], [0.1, 1.05], [0.9, 0.24], [0.14, -0.2], [-0.52, -0.9], [0.57, -0.8], [-0.28, 0.33]]
)


def use_style() -> None:
    """Set matplotlib's rcParams for the book: opaque white, large type, the four colours first.

    Call it once at the top of a chapter; importing this module changes nothing. In a figure 7 inches wide,
    type of 13 points is 10 pixels tall on a phone 390 pixels wide.
    """
    size = {"font.size": 13, "axes.titlesize": 14, "axes.labelsize": 13, "legend.fontsize": 12}
    ticks = {"xtick.labelsize": 12, "ytick.labelsize": 12, "xtick.color": INK, "ytick.color": INK}
    white = {f"{part}.facecolor": "white" for part in ("figure", "axes", "savefig")}
    ink = {key: INK for key in ("text.color", "axes.labelcolor", "axes.edgecolor")}
    lines = {
        "axes.linewidth": 0.8,
        "lines.linewidth": 2.2,
        "legend.edgecolor": "white",
        "legend.framealpha": 0.9,
    }
    figure = {
        "figure.figsize": (7, 3.5),
        "figure.dpi": 144,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.constrained_layout.h_pad": 0.08,
        "mathtext.fontset": "dejavusans",
        "savefig.dpi": 144,
        "savefig.transparent": False,
    }
    palette = [MODEL, DATA, BASE, TRAJECTORY]
    sns.set_theme(style="ticks", palette=palette, rc=size | ticks | white | ink | lines | figure)


def arrow_diagram(ax: Axes) -> None:
    r"""The two directions of a flow: latent z on the left, data x on the right, time from 0 to 1.

    .. math:: z = g(x)\ (t: 1 \to 0), \qquad x = g^{-1}(z)\ (t: 0 \to 1), \qquad
              \log p(x) = \log p(z) + \log |\det \partial z / \partial x|

    The right shape is the image of the left one under :math:`(u, v) \mapsto (1.2 u, v / 1.2 + 0.75 \sin 2u)`.
    That map keeps areas, so the contours are level sets of the density there; the dots are pairs. Best on
    7 × 3.2 inches.
    """
    _shape(ax, 0.0, lambda z: z, BASE)
    _shape(ax, 9.4, _bend, DATA)
    arrow = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=-0.16", "mutation_scale": 24}
    for tail, head in (((2.2, 0.75), (6.9, 0.75)), ((6.9, -0.75), (2.2, -0.75))):
        ax.add_patch(FancyArrowPatch(tail, head, linewidth=3, color=MODEL, **arrow))
    for x, y, text, color, weight in (
        (0.0, 2.4, "base, latent $z$", BASE, "bold"),
        (0.0, -2.4, "$t = 0$", BASE, "normal"),
        (9.4, 2.4, "data $x$", DATA, "bold"),
        (9.4, -2.4, "$t = 1$", DATA, "normal"),
        (4.6, 1.7, "decode: latent → data", INK, "bold"),
        (4.6, 0.7, r"$t: 0 \to 1$", INK, "normal"),
        (4.6, -0.7, r"$t: 1 \to 0$", INK, "normal"),
        (4.6, -1.7, "encode: data → latent", INK, "bold"),
        (4.6, -2.3, r"adds $\log\,|\mathrm{det}\;\partial z/\partial x|$", INK, "normal"),
    ):
        ax.text(x, y, text, color=color, weight=weight, ha="center", va="center")
    ax.set(xlim=(-1.9, 11.7), ylim=(-2.8, 2.8), aspect="equal")
    ax.axis("off")


def _shape(ax: Axes, centre: float, decode: Callable[[np.ndarray], np.ndarray], color: str) -> None:
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for radius in (1.75, 1.3, 0.85, 0.42):
        ax.fill(*(decode(radius * circle) + (centre, 0)).T, color=color, alpha=0.22, linewidth=0)
    dots = decode(PAIRS) + (centre, 0)
    ax.scatter(*dots.T, s=26, color=color, edgecolor="white", linewidth=0.8, zorder=3)


def _bend(z: np.ndarray) -> np.ndarray:
    u, v = z.T
    return np.stack([1.2 * u, v / 1.2 + 0.75 * np.sin(2 * u)], axis=1)
