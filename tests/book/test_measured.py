"""Every table, sentence and figure of measured numbers follows its benchmark, fits its page, and is shown there."""

import copy
import json
import re

import pytest
from house_rules import ROOT

pytest.importorskip("sphinx")

import measured  # noqa: E402
from measured import tables  # noqa: E402

SOURCES = sorted({shown.source for shown in measured.TABLES.values()})
FOUND = {source: measured.load(source) for source in SOURCES}
PAGES = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "book").glob("*.md"))
CHANGES = {
    "costs-traces-measured": ["machine", "cpu"],
    "costs-exact": ["time", 2, "with gradient", "ms", 0],
    "costs-scatter": ["scatter", 0, "Hutch++", 0],
    "costs-agreement": ["scatter", 0, "Gaussian", 1],
    "costs-bottleneck-gaussian": ["bottleneck", 1, "Gaussian", "in the layer", 0],
    "costs-bottleneck-rademacher": ["bottleneck", 0, "Rademacher", "in x", 0],
    "costs-estimates": ["time", -4, "without", "ms", 2],
    "costs-products-training": ["time", 2, "with gradient", "ratio"],
    "costs-products-evaluation": ["time", 1, "without", "ratio"],
    "costs-gradients-measured": ["machine", "date"],
    "costs-gradients": ["cost", 1, "rows", 3, "error"],
    "costs-adjoint": ["cost", 0, "float64 adjoint from backprop"],
    "costs-memory": ["memory", 0, "rows", 1, "MiB", 2],
    "speed-measured": ["packages", "zuko"],
    "speed-times": ["cost", 1, "rows", 3, "training", "ms", 0],
    "speed-summary": ["summary", "cnflib", "mean"],
    "speed-equal-error": ["equal error", 1, "ms", "cnflib"],
    "speed-evaluations": ["cost", 1, "rows", 3, "nfe"],
    "speed-shares": ["cost", 0, "rows", 0, "training", "share"],
    "speed-memory": ["memory", 1, "rows", 0, "MiB"],
    "speed-own-steps": ["own steps", 0, "rows", "common steps", "error"],
    "speed-quality": ["entropy", "checkerboard"],
    "speed-quality-measured": ["machine", "date"],
    "discrete-parameters": ["cost", 1, "rows", 0, "parameters"],
    "discrete-check": ["check", 0, "rows", 0, "mass"],
    "discrete-ratios": ["cost", 3, "rows", 0, "sampling", "ratio"],
    "discrete-summary": ["summary", "mean"],
    "discrete-training": ["cost", 8, "rows", 2, "training", "ms", 0],
    "discrete-log_prob": ["cost", 0, "rows", 1, "log_prob", "ms", 0],
    "discrete-sampling": ["cost", 5, "rows", 3, "sampling", "ms", 0],
    "discrete-MiB": ["cost", 2, "rows", 0, "MiB"],
    "discrete-measured": ["packages", "nflows"],
    "flow-matching-times": ["runs", 0, "rows", 0, "training", "ms", 0],
    "flow-matching-summary": ["summary", "cnflib", "mean"],
    "flow-matching-measured": ["packages", "torchcfm"],
    "pairing-times": ["cost", 1, "rows", 3, "ms", 0],
    "pairing-summary": ["summary", "POT", "worst"],
    "pairing-measured": ["packages", "lapx"],
    **{f"one-target-{target}": ["entropy", target] for target in FOUND["one_target"]["entropy"]},
    "one-table": ["runs", 0, "nll", 0],
    "one-table-cost": ["runs", 1, "parameters"],
    "one-table-measured": ["machine", "date"],
    "one-target-volume": ["entropy", "checkerboard"],
    "one-target-cost": ["runs", 0, "parameters"],
    "one-target-measured": ["machine", "torch"],
    "one-target-glow": ["bits_per_dim", 0],
    "one-target-glow-measured": ["machine", "cpu"],
    "one-target-interpolant": ["published", "Glow"],
    "one-target-interpolant-measured": ["tolerance"],
    "interpolants-minute": ["runs", 0, "nll", 0],
    "interpolants-minute-checked": ["runs", 0, "mass, fewer nodes"],
    "interpolants-minute-measured": ["machine", "date"],
    "interpolants-race": ["entropy"],
    "interpolants-race-end": ["runs", 0, "curve", -1, "nll", 0],
    "interpolants-race-measured": ["machine", "cpu"],
    "interpolants-energy": ["runs", 0, "NPE"],
    "interpolants-energy-setting": ["runs", 0, "steps"],
    "interpolants-energy-measured": ["machine", "torch"],
    "solvers-evaluations": ["fields", 0, "rows", 0, "evaluations", 0],
    "solvers-promise": ["fields", 4, "promise", 2],
    "solvers-measured": ["machine", "date"],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_number_changes_its_table(name):
    source, show = measured.TABLES[name]
    (*path, last), changed = CHANGES[name], copy.deepcopy(FOUND[source])
    place = changed
    for key in path:
        place = place[key]
    place[last] = place[last] * 20
    assert show(changed) != show(FOUND[source])


def test_every_table_is_on_one_page_and_has_its_change_tested():
    included = re.findall(r"^```\{include\} \.\./_build/pages/(\S+)\.md$", PAGES, re.M)
    of_chapters = {"map-table", "run-times", "simpler", "traps"}  # which the build writes from the notebooks
    assert sorted(set(included) - of_chapters) == sorted(measured.TABLES) == sorted(CHANGES)
    assert len(included) == len(set(included))


def test_every_row_has_as_many_cells_as_its_head():
    for name, text in measured.pages().items():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            widths = {line.count("|") for line in block.splitlines()}
            assert len(widths) == 1 and widths.pop() <= 6, f"{name} would not fit on a phone"


@pytest.mark.parametrize("name", FOUND)
def test_a_missing_file_is_named_with_the_command_that_writes_it(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps(FOUND[name]))
    assert measured.load(name) == FOUND[name]
    (tmp_path / f"{name}.json").unlink()
    with pytest.raises(SystemExit, match=rf"results/{name}\.json is missing.*python \w+/{name}\.py") as end:
        measured.load(name)
    assert (ROOT / re.search(r"python (\S+\.py)", str(end.value))[1]).exists()


def test_every_figure_is_drawn_and_shown(tmp_path):
    measured.figures.draw(tmp_path)
    shown = {name for name in re.findall(r'src="\.\./_static/(\S+?)\.png"', PAGES) if "hero" not in name}
    assert {path.stem for path in tmp_path.iterdir()} == set(measured.figures.FIGURES) == shown


def test_the_machine_is_said():
    host = {"cpu": "Model X", "threads": 2, "torch": "2.13.0", "date": "2026-01-31"}
    said = "Measured on 2 threads of Model X, PyTorch 2.13.0, 2026-01-31; `make bench` measures again.\n"
    assert tables.where(host, {}) == said


@pytest.mark.parametrize(
    ("value", "count", "shown"),
    [(0.06773, 3, "0.0677"), (0.053, 3, "0.0530"), (1158.5, 3, "1158"), (2, 3, "2.00"), (40.478, 2, "40")],
)
def test_a_number_is_shown_without_an_exponent(value, count, shown):
    assert tables.digits(value, count) == shown


def test_rounding_is_shown_as_zero_and_ties_are_bold():
    assert tables.deviations([2e-7, 1.9]) == ["**0**", "1.90"]
    assert tables.deviations([1.00, 1.04, 1.06]) == ["**1.00**", "**1.04**", "1.06"]
