r"""The book's figures: one style, and one colour for one object.

Blue is the base, vermilion the data, green the model, dark grey a trajectory. The four stay apart in the
common kinds of colour blindness and stand out from the opaque white background, which keeps them legible in
dark mode. Every function draws on the ``ax`` it is given, and takes tensors with gradients, on any device;
:func:`animation` and :func:`slider` take a figure that is drawn again and again.
"""

from cnflib.plot.curves import curve, training_curve
from cnflib.plot.moving import Animation, Slider, animation, slider
from cnflib.plot.pictures import images
from cnflib.plot.plane import contours, density, field, grid_warp, samples, trajectories
from cnflib.plot.style import BASE, COLORS, DATA, MODEL, TRAJECTORY, arrow_diagram, use_style

__all__ = [
    "BASE",
    "COLORS",
    "DATA",
    "MODEL",
    "TRAJECTORY",
    "Animation",
    "Slider",
    "animation",
    "arrow_diagram",
    "contours",
    "curve",
    "density",
    "field",
    "grid_warp",
    "images",
    "samples",
    "slider",
    "training_curve",
    "trajectories",
    "use_style",
]


def __dir__() -> list[str]:
    return sorted(__all__)
