"""Laws of the figures: what is drawn is the density, its mass, its areas, and nothing global changes."""

import inspect
import itertools
import math
import runpy

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from matplotlib.colors import to_rgb, to_rgba  # noqa: E402

from cnflib import plot  # noqa: E402
from cnflib.continuous import CNF  # noqa: E402
from cnflib.metrics import mass  # noqa: E402
from cnflib.nets import MLP  # noqa: E402
from cnflib.ode import Fixed, solve  # noqa: E402
from cnflib.plot import BASE, COLORS, DATA, MODEL, TRAJECTORY  # noqa: E402

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")),
]
BOX = ((-5.0, 7.0), (-3.0, 6.0))
ON_GRAPH = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()


def gaussian(x):
    """A normal density centred at (1, 0) that is wider along the first axis than along the second."""
    return -0.5 * ((x[:, 0] - 1) ** 2 + (x[:, 1] / 0.5) ** 2) - math.log(2 * math.pi * 0.5)


def bend(x):
    return torch.stack([x[:, 0], x[:, 1] + x[:, 0] ** 2], dim=1)


def spin(t, x):
    """A rotation about (1, 2), the faster the later."""
    centre = x.new_tensor([1.0, 2.0])
    return (1 + t) * (x - centre).flip(1) * x.new_tensor([-1.0, 1.0])


PICTURES = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()

FUNCTIONS = {
    "density": lambda ax: plot.density(ax, gaussian, BOX),
    "contours": lambda ax: plot.contours(ax, gaussian, BOX),
    "samples": lambda ax: plot.samples(ax, ON_GRAPH, DATA, label="data"),
    "curve": lambda ax: plot.curve(ax, ON_GRAPH[:, :1].sort(0).values, ON_GRAPH[:, 1].exp(), "model"),
    "trajectories": lambda ax: plot.trajectories(ax, ON_GRAPH.reshape(5, 6, 2)),
    "grid_warp": lambda ax: plot.grid_warp(ax, bend, BOX),
    "field": lambda ax: plot.field(ax, spin, 0.5, BOX),
    "images": lambda ax: plot.images(ax, PICTURES),
    "training_curve": lambda ax: plot.training_curve(ax, range(30), list(ON_GRAPH[:, 0]), floor=-1.0),
    "arrow_diagram": plot.arrow_diagram,
}


@pytest.fixture
def ax():
    with plt.rc_context():
        plot.use_style()
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


def pixels(ax):
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())


def test_the_registry_is_complete():
    public = {name for name in plot.__all__ if inspect.isfunction(getattr(plot, name))}
    assert public == FUNCTIONS.keys() | {"use_style", "animation", "slider"}  # two have tests of their own


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_draws_on_the_axes_it_is_given_and_inside_an_opaque_figure(ax, name):
    blank = pixels(ax).copy()
    settings, random = dict(matplotlib.rcParams), torch.get_rng_state()
    artist = FUNCTIONS[name](ax)
    image = pixels(ax)
    assert (image[..., 3] == 255).all() and not np.array_equal(image, blank)
    edges = (image[:3], image[-3:], image[:, :3], image[:, -3:])
    assert all((edge == 255).all() for edge in edges)
    assert artist is None or artist.axes is ax
    assert plt.get_fignums() == [ax.figure.number]
    assert dict(matplotlib.rcParams) == settings and torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["density", "contours", "samples", "trajectories", "grid_warp", "field"])
def test_the_plane_has_equal_units_and_few_ticks(ax, name):
    FUNCTIONS[name](ax)
    ax.figure.canvas.draw()
    assert ax.get_aspect() == 1
    assert len(ax.get_xticks()) <= 7 and len(ax.get_yticks()) <= 7


def test_the_image_of_a_density_carries_its_mass(ax):
    image = plot.density(ax, gaussian, BOX, points=150)
    values, area = image.get_array(), math.prod(b - a for a, b in BOX)
    assert (
        values.mean() * area
        == pytest.approx(mass(gaussian, BOX, 150), rel=1e-6)
        == pytest.approx(1, abs=1e-4)
    )


def test_the_image_of_a_density_puts_each_value_at_its_point(ax):
    image = plot.density(ax, gaussian, BOX, points=90)
    left, right, bottom, top = image.get_extent()
    assert image.origin == "lower" and (ax.get_xlim(), ax.get_ylim()) == BOX == ((left, right), (bottom, top))
    row, column = np.unravel_index(image.get_array().argmax(), (90, 90))
    assert left + (column + 0.5) * (right - left) / 90 == pytest.approx(1, abs=0.07)
    assert bottom + (row + 0.5) * (top - bottom) / 90 == pytest.approx(0, abs=0.07)


def test_two_densities_can_share_one_scale(ax):
    first = plot.density(ax, gaussian, BOX)
    second = plot.density(ax, lambda x: gaussian(x) - 1, BOX, vmax=first.get_clim()[1])
    assert first.get_clim() == second.get_clim() == (0, first.get_array().max())
    assert first.get_cmap() == second.get_cmap()
    assert first.get_cmap()(0.0) == to_rgba("white")


def test_contours_enclose_their_share_of_the_mass(ax):
    masses = (0.3, 0.6, 0.9)
    lines = plot.contours(ax, gaussian, BOX, masses=masses, points=300)
    for path, share in zip(lines.get_paths(), sorted(masses, reverse=True), strict=True):
        u, v = ((path.vertices - (1, 0)) / (1, 0.5)).T
        assert np.hypot(u, v) == pytest.approx(math.sqrt(-2 * math.log(1 - share)), rel=0.02)
    assert np.allclose(lines.get_edgecolor()[0], to_rgba(MODEL))


def test_samples_and_curve_draw_the_numbers_they_are_given(ax):
    x = ON_GRAPH.detach().double().numpy()
    assert np.array_equal(plot.samples(ax, ON_GRAPH).get_offsets(), x)
    line = plot.curve(ax, ON_GRAPH[:, :1], ON_GRAPH[:, 1])
    assert np.array_equal(line.get_xydata(), x)


def test_a_crowd_is_drawn_smaller_and_fainter_and_named_in_the_legend(ax):
    few, many = (plot.samples(ax, torch.zeros(n, 2), MODEL, label=f"{n} points") for n in (50, 20000))
    assert few.get_sizes() > many.get_sizes() and few.get_alpha() > many.get_alpha()
    handles = ax.legend().legend_handles
    assert len(handles) == 2 and all(np.allclose(h.get_facecolor(), to_rgba(MODEL)) for h in handles)


def test_trajectories_run_from_base_to_data(ax):
    path = torch.randn(7, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    lines = plot.trajectories(ax, path)
    assert np.array_equal(np.stack(lines.get_segments()), path.transpose(0, 1).numpy())
    ends = {tuple(c.get_facecolor()[0]): c.get_offsets() for c in ax.collections if c is not lines}
    assert np.array_equal(ends[to_rgba(BASE)], path[0]) and np.array_equal(ends[to_rgba(DATA)], path[-1])
    assert np.allclose(lines.get_edgecolor()[0, :3], to_rgb(TRAJECTORY))


@pytest.mark.parametrize(
    "matrix", [[[2.0, 0.0], [0.0, 0.25]], [[0.5, 1.0], [-2.0, 0.3]], [[0.0, 1.0], [1.0, 0.0]]]
)
def test_grid_cells_grow_by_the_determinant_of_a_linear_map(ax, matrix):
    a = torch.tensor(matrix)
    cells = plot.grid_warp(ax, lambda x: x @ a.T + 100, BOX, cells=9)
    assert len(cells.get_paths()) == 81
    growth = np.asarray(cells.get_array())
    assert growth == pytest.approx(math.log2(abs(torch.linalg.det(a).item())), abs=1e-4)
    low, high = cells.get_clim()
    assert low == -high and high >= np.abs(growth).max()


def test_grid_cells_grow_by_the_local_determinant(ax):
    cells = plot.grid_warp(ax, lambda x: x**3 / 3, ((1, 2), (2, 3)), cells=10, dtype=torch.float64)
    middle = torch.cartesian_prod(torch.arange(10) / 10 + 1.05, torch.arange(10) / 10 + 2.05)
    assert np.asarray(cells.get_array()) == pytest.approx(2 * middle.prod(1).log2().numpy(), abs=0.01)
    shear = plot.grid_warp(ax, bend, BOX, cells=10, dtype=torch.float64)
    assert np.asarray(shear.get_array()) == pytest.approx(0, abs=1e-9)


def arrows(quiver):
    """Where the arrows stand and what they show, in the unit of x: their length at the scale drawn."""
    return quiver.XY, np.stack([quiver.U, quiver.V], 1) / quiver.scale


def test_arrows_stand_on_an_even_grid_and_point_along_the_field(ax):
    points, shown = arrows(plot.field(ax, spin, 0.5, BOX, points=12))
    x = torch.from_numpy(points)
    assert (ax.get_xlim(), ax.get_ylim()) == BOX
    assert len(x) == 12 * 9 and [len(x[:, k].unique()) for k in (0, 1)] == [
        12,
        9,
    ]  # one apart along both axes
    for k, (low, high) in enumerate(BOX):
        assert x[:, k].unique().numpy() == pytest.approx(np.arange(low, high) + 0.5)
    v = spin(torch.tensor(0.5).double(), x).numpy()
    assert shown == pytest.approx(v / np.hypot(*v.T).max(), abs=1e-6)  # the longest as long as they are apart


def test_a_given_speed_sets_the_length_of_all_arrows(ax):
    first, second = (plot.field(ax, spin, t, BOX, points=12, speed=4.0) for t in (0.0, 1.0))
    assert first.scale == second.scale == 4.0
    assert arrows(second)[1] == pytest.approx(2 * arrows(first)[1], abs=1e-6)
    still = plot.field(ax, lambda t, x: 0 * x, 0.0, BOX)
    assert np.isfinite(arrows(still)[1]).all()


def test_a_field_is_called_by_the_rule_of_fields_at_one_time_without_gradients(ax):
    seen = []

    def note(t, x, context=None):
        seen.append(
            (t.shape, t.item(), x.dtype, None if context is None else context, torch.is_grad_enabled())
        )
        return x

    plot.field(ax, note, torch.tensor([0.25]), BOX)
    plot.field(ax, lambda t, x, context: note(t, x, context), 0.25, BOX, dtype=torch.float64)
    labels = torch.tensor([7])
    plot.field(ax, note, 0.25, BOX, context=labels)
    assert [s[:3] for s in seen] == [
        ((), 0.25, dtype) for dtype in (torch.float32, torch.float64, torch.float32)
    ]
    assert seen[0][3] is seen[1][3] is None and not any(s[4] for s in seen)
    assert seen[2][3].dtype == torch.int64 and (seen[2][3] == 7).all() and len(seen[2][3]) == 16 * 12


def test_a_net_of_double_precision_is_drawn_as_it_is(ax):
    net = MLP(2, hidden=(8,)).double()
    points, shown = arrows(plot.field(ax, net, 0.5, BOX))
    with torch.no_grad():
        v = net(torch.tensor(0.5).double(), torch.from_numpy(points)).numpy()
    assert shown * np.hypot(*v.T).max() * 16 == pytest.approx(12 * v, abs=1e-9)


def tile(picture, k, columns, height, width):
    """The k-th image of a grid with gaps of one pixel."""
    row, column = k // columns, k % columns
    top, left = row * (height + 1), column * (width + 1)
    return picture[top : top + height, left : left + width]


@pytest.mark.parametrize("columns", [None, 1, 2, 5, 7])
def test_images_stand_in_rows_with_white_between_and_after_them(ax, columns):
    x = PICTURES.detach()
    grid = np.asarray(plot.images(ax, PICTURES, columns).get_array())
    wide = columns or 3
    rows = math.ceil(5 / wide)
    assert grid.shape == (rows * 7 - 1, wide * 5 - 1, 3)
    low, high = x.min().item(), x.max().item()
    for k in range(5):
        wanted = (x[k].movedim(0, -1).numpy() - low) / (high - low)
        assert tile(grid, k, wide, 6, 4) == pytest.approx(wanted, abs=1e-6)
    for k in range(5, rows * wide):
        assert (tile(grid, k, wide, 6, 4) == 1).all()
    assert (grid[6::7] == 1).all() and (grid[:, 4::5] == 1).all()


def test_grey_images_with_and_without_their_channel_are_the_same_picture(ax):
    x = PICTURES.detach()[:, 0]
    plain, one = (np.asarray(plot.images(ax, y).get_array()) for y in (x, x[:, None]))
    assert np.array_equal(plain, one) and np.ptp(plain, axis=2).max() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.numpy(),
        lambda x: x.requires_grad_(),
        lambda x: (255 * x).round().to(torch.uint8),
        lambda x: (255 * x).round().numpy().astype("uint8"),
        lambda x: x.double().numpy()[:, 0],
    ],
)
def test_images_of_any_kind_are_the_same_picture(ax, change):
    x = torch.arange(60.0).reshape(3, 1, 4, 5) / 255
    picture = plot.images(ax, x).get_array()
    np.testing.assert_allclose(plot.images(ax, change(x)).get_array(), picture, atol=1e-6)


numbers = {
    "lists": list,
    "NumPy": lambda x: x.detach().numpy(),
    "gradients": lambda x: x.clone().requires_grad_(),
}


@pytest.mark.parametrize("kind", numbers.values(), ids=numbers)
def test_lines_are_drawn_of_any_kind_of_numbers(ax, kind):
    x, y = torch.linspace(0, 1, 5), torch.rand(5, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(plot.curve(ax, kind(x), kind(y)).get_ydata(), y.numpy())
    floor = torch.tensor(0.1, requires_grad=True)
    assert len(plot.training_curve(ax, range(5), kind(y), floor=floor).get_ydata()) == 5


def test_a_field_is_drawn_in_a_box_of_tensors_with_one_row_of_context(ax):
    box = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]])
    arrows = plot.field(ax, lambda t, x, c: x + c, 0.5, box, points=4, context=torch.ones(1, 2))
    np.testing.assert_allclose(arrows.U, arrows.X + 1)


def test_a_solution_is_not_its_points(ax):
    cnf = CNF(lambda t, x: -x, solver=Fixed(1))
    path = cnf.solve_along(torch.ones(3, 2), [0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"points are path\.x"):
        plot.trajectories(ax, path)
    with pytest.raises(ValueError, match=r"points are path\.y"):
        plot.trajectories(ax, solve(lambda t, y: -y, torch.ones(3, 2), (0.0, 1.0)))
    assert len(plot.trajectories(ax, path.x).get_segments()) == 3


line = torch.linspace(0, 1, 5)
misdrawn = {
    "more x than y": (lambda ax: plot.curve(ax, line, line[:4]), "Expected as many"),
    "a function for y": (lambda ax: plot.curve(ax, line, torch.sin), "Expected as many"),
    "no losses": (lambda ax: plot.training_curve(ax, [], []), "Expected as many"),
    "masses in percent": (lambda ax: plot.contours(ax, gaussian, BOX, masses=(50, 90)), "Expected masses"),
    "a list for context": (lambda ax: plot.field(ax, FIELD, 0.5, BOX, context=[0.0]), "Expected context"),
    "a context of no row": (
        lambda ax: plot.field(ax, FIELD, 0.5, BOX, context=torch.ones(3)),
        "Expected context",
    ),
    "a batch of times": (lambda ax: plot.field(ax, FIELD, line, BOX), "Expected t"),
}
FIELD = MLP(2, (4,))


@pytest.mark.parametrize(("draw", "match"), misdrawn.values(), ids=misdrawn)
def test_what_cannot_be_drawn_is_named(ax, draw, match):
    with pytest.raises(ValueError, match=match):
        draw(ax)


def test_low_and_high_set_black_and_white(ax):
    x = torch.tensor([[[-1.0, 0.0], [8.0, 20.0]]])
    grid = np.asarray(plot.images(ax, x, low=0, high=16).get_array())
    assert grid[..., 0].tolist() == [[0.0, 0.0], [0.5, 1.0]]
    whole = np.asarray(plot.images(ax, torch.arange(256).reshape(1, 16, 16).to(torch.uint8)).get_array())
    assert whole[0, 0].tolist() == [0, 0, 0] and whole[-1, -1].tolist() == [1, 1, 1]
    assert (np.asarray(plot.images(ax, torch.full((2, 3, 3), 5.0)).get_array())[:3, :3] == 0).all()


def test_the_training_curve_is_the_losses_and_their_centred_mean(ax):
    steps, losses = range(0, 4000, 2), torch.linspace(5, 3, 2000)
    line = plot.training_curve(ax, steps, losses)
    x, y = line.get_data()
    assert np.allclose(y, 5 - x / 3998 * 2)
    assert np.allclose(ax.lines[0].get_ydata(), losses)
    noisy = losses + torch.randn(2000, generator=torch.Generator().manual_seed(2))
    assert np.std(plot.training_curve(ax, steps, list(noisy)).get_ydata() - y) == pytest.approx(
        41**-0.5, rel=0.3
    )


def test_the_floor_is_labelled_and_inside_the_axes(ax):
    plot.training_curve(ax, range(3), [5.0, 4.0, 3.6], floor=math.log(32))
    (label,) = ax.texts
    assert label.get_text() == "entropy 3.466"
    assert ax.lines[-1].get_linestyle() == "--" and set(ax.lines[-1].get_ydata()) == {math.log(32)}
    pixels(ax)
    assert ax.get_window_extent().y0 < label.get_window_extent().y0


def test_the_diagram_shows_both_directions_with_their_times(ax):
    plot.arrow_diagram(ax)
    at = {text.get_text(): text.get_position() for text in ax.texts}
    assert at["base, latent $z$"][0] == at["$t = 0$"][0] < at["data $x$"][0] == at["$t = 1$"][0]
    (top, bottom) = sorted(ax.patches[-2:], key=lambda arrow: -arrow._posA_posB[0][1])
    assert top._posA_posB[0][0] < top._posA_posB[1][0] and bottom._posA_posB[0][0] > bottom._posA_posB[1][0]
    above = {text for text, (_, y) in at.items() if y > 0}
    assert {"decode: latent → data", r"$t: 0 \to 1$"} <= above
    assert {"encode: data → latent", r"$t: 1 \to 0$"}.isdisjoint(above)
    assert any("log" in text and "det" in text for text in at.keys() - above)


def test_the_diagram_shows_densities_of_equal_level_sets(ax):
    plot.arrow_diagram(ax)
    shapes = [patch.get_xy() for patch in ax.patches[:-2]]
    x, y = (np.stack([s[:-1, k] for s in shapes]) for k in (0, 1))
    areas = 0.5 * np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1))
    assert areas[:4] == pytest.approx(areas[4:], rel=1e-3)


def test_only_use_style_changes_settings():
    with plt.rc_context():
        matplotlib.rcdefaults()  # other figures drawn in this process may have set the style
        before = dict(matplotlib.rcParams)
        for module in (plot, plot.style, plot.plane, plot.curves):
            runpy.run_path(module.__file__)
        assert dict(matplotlib.rcParams) == before
        assert plot.use_style() is None
        assert dict(matplotlib.rcParams) != before


CONES = {
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(color):
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(to_xyz @ np.clip(rgb, 0, 1), 0.009, None) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", CONES)
def test_the_four_colours_stay_apart_in_colour_blindness(kind):
    """Machado, Oliveira and Fernandes (2009), severity 1; a CIE 1976 difference of 10 is plain at a glance."""
    seen = [lab(CONES[kind] @ linear(color)) for color in COLORS.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("name", COLORS)
def test_each_colour_stands_out_from_white(name):
    """WCAG 2.1, criterion 1.4.11: a contrast of 3 to 1 for what a figure shows."""
    assert 1.05 / (linear(COLORS[name]) @ [0.2126, 0.7152, 0.0722] + 0.05) > 3


@pytest.mark.parametrize("kind", CONES)
def test_a_larger_density_is_darker_to_every_eye(ax, kind):
    shades = plot.density(ax, gaussian, BOX).get_cmap()(np.linspace(0, 1, 64))[:, :3]
    lightness = np.array([lab(CONES[kind] @ linear(shade))[0] for shade in shades])
    assert (np.diff(lightness) < 0).all() and lightness[0] - lightness[-1] > 60


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_on_any_device_are_drawn(ax, device):
    x = ON_GRAPH.to(device)
    plot.samples(ax, x)
    plot.field(ax, lambda t, x: -x, 0.0, BOX, device=device)
    plot.images(ax, PICTURES.to(device))
    plot.training_curve(ax, range(30), list(x[:, 0]))
    plot.density(ax, lambda x: gaussian(x), BOX, points=20, device=device, dtype=torch.float64)
    plot.grid_warp(ax, lambda x: bend(x), BOX, cells=4, device=device)
    assert len(ax.collections) == 3 and len(ax.images) == 2 and len(ax.lines) == 2


FAULTS = {
    "samples": (lambda ax: plot.samples(ax, torch.zeros(5, 3)), r"x of shape \(N, 2\); got \(5, 3\)"),
    "one axis": (lambda ax: plot.samples(ax, torch.zeros(5)), r"got \(5,\)"),
    "pair": (
        lambda ax: plot.grid_warp(ax, lambda x: (x, x[:, 0]), BOX),
        r"bijection\(x\) of shape",
    ),
    "path": (lambda ax: plot.trajectories(ax, torch.zeros(5, 2)), r"path of shape \(T, B, 2\)"),
    "1-D box": (lambda ax: plot.density(ax, gaussian, ((-1, 1),)), "In 1-D use curve"),
    "flat box": (lambda ax: plot.contours(ax, gaussian, (-4, 4)), "got .-4, 4."),
    "reversed box": (lambda ax: plot.grid_warp(ax, bend, ((1, -1), (0, 1))), "a < b"),
    "box of a field": (lambda ax: plot.field(ax, spin, 0.0, ((-1, 1),)), "a < b"),
    "no arrows": (lambda ax: plot.field(ax, spin, 0.0, BOX, points=0), "points to be a positive int"),
    "no field": (lambda ax: plot.field(ax, ON_GRAPH, 0.0, BOX), "Expected field"),
    "density as a field": (lambda ax: plot.field(ax, lambda t, x: x[:, 0], 0.0, BOX), r"f\(t, x\) of shape"),
    "infinite field": (
        lambda ax: plot.field(ax, lambda t, x: x / t, 0.0, BOX),
        "finite in the box; got NaN or inf",
    ),
    "channels last": (lambda ax: plot.images(ax, torch.zeros(2, 8, 8, 3)), r"movedim\(-1, 1\)"),
    "one image": (lambda ax: plot.images(ax, torch.zeros(8, 8)), r"got \(8, 8\)"),
    "no image": (lambda ax: plot.images(ax, torch.zeros(0, 8, 8)), "one image at least"),
    "a list": (lambda ax: plot.images(ax, [1.0]), "got list"),
    "no axes": (lambda ax: plot.images(PICTURES), r"got NoneType.*images\(ax, x\)"),
    "NaN in an image": (lambda ax: plot.images(ax, torch.full((2, 8, 8), math.nan)), "finite x; got NaN"),
    "no columns": (lambda ax: plot.images(ax, PICTURES, columns=0), "columns to be a positive int"),
    "NaN": (lambda ax: plot.density(ax, lambda x: x[:, 0] * math.nan, BOX), "NaN"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(ax, name):
    call, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        call(ax)
