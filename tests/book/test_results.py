"""The page on costs shows what the benchmarks wrote, and what it says in words holds in these numbers."""

import math
import re

import pytest
from house_rules import ROOT

pytest.importorskip("sphinx")

import divergences  # noqa: E402
import gradients  # noqa: E402
from measured import TABLES, costs, load, peers, speed  # noqa: E402
from measured.tables import ROUNDING  # noqa: E402

FILES = ("divergences", "gradients", "continuous", "quality", "discrete", "interpolants", "pairing")
TRACES, GRADIENTS, SPEED, QUALITY, DISCRETE, REGRESSION, PAIRING = map(load, FILES)
PAGE, SPEED_PAGE = ((ROOT / f"book/{name}.md").read_text(encoding="utf-8") for name in ("costs", "speed"))
WAYS = {(row["field"], row["divergence"], row["product"]): row for row in TRACES["time"]}
KINDS = tuple(costs.KINDS)
EAGER = ("torchdiffeq by hand", "torchdiffeq by hand, adjoint", "zuko", "torchdyn", "flow_matching")


# The tables.


def test_a_table_says_what_was_measured():
    row = {"matrix": "flat", "Rademacher": [2.294, 2.3], "Gaussian": [2.31, 2.3], "Hutch++": [3.6197, 3.6]}
    assert "| flat | **2.29** | **2.31** | 3.62 |" in TABLES["costs-scatter"].show({"scatter": [row]})
    way = {
        "gradient": "adjoint",
        "ms": [112.4, 111.6, 115.3],
        "ratio": 1.4222,
        "nfe": [26, 30],
        "error": 1.86e-5,
    }
    cells = "112 (112&NoBreak;–&NoBreak;115) | 1.42 | 26&nbsp;+&nbsp;30 | 19"
    assert f"| adjoint | {cells} |" in TABLES["costs-gradients"].show(
        {"cost": [{"title": "A case", "rows": [way]}]}
    )
    held = [
        {"gradient": "a", "steps": [10, 30], "MiB": [8.9499, 1158.5]},
        {"gradient": "b", "steps": [9, 29], "MiB": [4, 4.03]},
    ]
    shown = TABLES["costs-memory"].show({"memory": [{"title": "A case", "rows": held}]})
    assert shown.startswith("*A case*") and "| MiB | 10 steps | 30 steps |" in shown
    assert "| a | 8.95 | 1158 |" in shown and "took 9, 29 steps" in shown


# The words. A number measured belongs into a table: the prose has only what the scripts set.


def test_the_prose_has_no_number_of_its_own():
    prose = re.sub(r"^```.*?^```|^\|.*?$|\$[^$]*\$|`[^`]*`", "", PAGE, flags=re.M | re.S)
    numbers = {int(n) for n in re.findall(r"\d+", prose)}
    assert not re.search(r"\d\.\d", prose)
    assert numbers == {
        divergences.D,
        divergences.PRODUCTS,
        divergences.SKETCH,
        divergences.BATCH,
        5,
        1,
        gradients.STEPS,
    }
    assert divergences.SKETCH == divergences.PROBES == divergences.H
    assert divergences.BATCH == gradients.BATCH and gradients.TOLERANCE == 1e-5


def test_measured_deviations_agree_with_the_formulas():
    pairs = [row[name] for row in TRACES["scatter"] for name in costs.NAMES]
    pairs += [
        row[noise][place]
        for row in TRACES["bottleneck"]
        for noise in costs.NAMES[:2]
        for place in costs.PLACES
    ]
    for found, formula in pairs:
        assert found == pytest.approx(formula, rel=0.03, abs=ROUNDING)


@pytest.mark.parametrize("row", TRACES["scatter"], ids=lambda row: row["matrix"])
def test_hutchpp_wins_where_the_spectrum_decays_and_loses_elsewhere(row):
    signs, normals, plus = (row[name][0] for name in costs.NAMES)
    assert signs <= 1.03 * normals + ROUNDING
    if "k^2" in row["matrix"]:
        assert plus < signs
    elif row is TRACES["scatter"][-1]:
        assert max(signs, normals, plus) < ROUNDING
    else:
        assert plus > 1.05 * signs


def test_two_rows_and_both_nets_are_as_the_prose_has_them():
    names = [row["matrix"] for row in TRACES["scatter"]]
    assert sum("MLP" in name for name in names) == 2 and "rotation" in names[-1]
    assert next(row for row in TRACES["scatter"] if "diagonal" in row["matrix"])["Rademacher"][0] < ROUNDING


@pytest.mark.parametrize("noise", costs.NAMES[:2])
def test_the_bottleneck_turns_with_the_scale_of_its_units_and_fades_in_training(noise):
    plain, rescaled, _, initial, trained = (row[noise] for row in TRACES["bottleneck"])
    in_x, layer = costs.PLACES
    assert rescaled[in_x][0] == pytest.approx(plain[in_x][0], rel=0.03)
    assert plain[layer][0] < plain[in_x][0] and rescaled[layer][0] > rescaled[in_x][0]
    advantage = [row[in_x][0] / row[layer][0] for row in (initial, trained)]
    assert advantage[1] - 1 < 0.5 * (advantage[0] - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_trace_is_cheap_in_two_dimensions_and_not_in_many(kind):
    ratio = {}
    for (field, name, product), row in WAYS.items():
        if (name, product) == ("exact", "own tangents"):
            ratio[field] = row[kind]["ms"][0] / WAYS[field, "hutchinson, 1 probe", product][kind]["ms"][0]
    ratios = list(ratio.values())
    assert ratios == sorted(ratios) and ratios[0] < 1.5 and ratios[-1] > 5


@pytest.mark.parametrize("kind", KINDS)
def test_own_tangents_are_the_fastest_in_the_mlp_and_functional_ones_the_slowest(kind):
    for (field, name, product), row in WAYS.items():
        own = WAYS.get((field, name, "own tangents"))
        if product == "torch.func.jvp" and own:
            assert row[kind]["ratio"] > max(1, own[kind]["ratio"])
            assert own[kind]["ratio"] < 1 or "MLP" not in field


@pytest.mark.parametrize("kind", KINDS)
def test_at_equal_products_hutchpp_takes_longer_and_the_bottleneck_much_longer(kind):
    ms = {name: row[kind]["ms"][0] for (field, name, _), row in WAYS.items() if "D = 64," in field}
    own = {n: r[kind]["ms"][0] for (f, n, p), r in WAYS.items() if "D = 64," in f and p == "own tangents"}
    assert own["hutchpp, 4 + 4 + 4 products"] > own["hutchinson, 12 probes"]
    assert ms["bottleneck at 64, 1 probe"] > 2 * own["hutchinson, 1 probe"]


@pytest.mark.parametrize("case", GRADIENTS["cost"], ids=lambda case: case["title"])
def test_saving_memory_takes_less_than_twice_the_time_and_gives_the_gradient(case):
    rows = {row["gradient"]: row for row in case["rows"]}
    for other, plain in gradients.BACKPROP.items():
        assert 1 < rows[other]["ratio"] < 2
        assert 0.1 < rows[other]["error"] / rows[plain]["error"] < 10
    fixed, checkpointed = (rows[f"fixed rk4, {way}"] for way in ("backprop", "checkpointed"))
    assert checkpointed["error"] == pytest.approx(fixed["error"], rel=0.05)
    assert checkpointed["nfe"] == [fixed["nfe"][0]] * 2
    assert case["float64 adjoint from backprop"] < 1e-9


@pytest.mark.parametrize("case", GRADIENTS["memory"], ids=lambda case: case["title"])
def test_memory_grows_with_the_steps_a_little_or_not_at_all(case):
    size = {row["gradient"]: row["MiB"] for row in case["rows"]}
    steps = {row["gradient"]: row["steps"] for row in case["rows"]}
    grown = {name: held[-1] - held[0] for name, held in size.items()}
    for name in ("fixed rk4, backprop", "dopri5, backprop"):
        by = steps[name][-1] / steps[name][0]
        assert size[name][-1] / size[name][0] == pytest.approx(by, rel=0.2)
    assert 0 < grown["fixed rk4, checkpointed"] < 0.1 * grown["fixed rk4, backprop"]
    assert max(size["dopri5, adjoint"]) < 1.1 * min(size["dopri5, adjoint"])


# Speed.


def test_the_summary_is_that_of_the_table():
    for name, found in SPEED["summary"].items():
        ratios = [
            row[kind]["ratio"]
            for case in SPEED["cost"]
            for row in case["rows"]
            if row["row"] == name
            for kind in speed.ACTS
        ]
        assert len(ratios) == 6 and found["worst"] == max(ratios)
        assert math.prod(ratios) ** (1 / 6) == pytest.approx(found["mean"], rel=1e-4)


@pytest.mark.parametrize("case", SPEED["cost"], ids=lambda case: case["title"])
def test_a_ratio_is_to_the_fastest_eager_peer(case):
    for kind in speed.ACTS:
        peers = [row[kind]["ms"][0] for row in case["rows"] if row["row"] in EAGER and kind in row]
        assert len(peers) >= 4
        for row in case["rows"]:
            if kind in row:
                assert row[kind]["ratio"] == pytest.approx(row[kind]["ms"][0] / min(peers), rel=1e-4)


def test_the_prose_on_speed_has_no_number_of_its_own():
    prose = re.sub(r"^```.*?^```|^<img.*?$|\$[^$]*\$|`[^`]*`", "", SPEED_PAGE, flags=re.M | re.S)
    assert set(re.findall(r"\b\d[\d,.]*\b", prose)) == {"64", "512", "4,096"}


@pytest.mark.parametrize("case", SPEED["cost"], ids=lambda case: case["title"])
def test_the_words_about_the_figures_hold(case):
    """No row of cnflib with controlled error has one much larger than a peer's, and it grows no faster than by hand."""
    errors = {row["row"]: row["error"] for row in case["rows"]}
    for peer in set(EAGER) & set(errors):
        assert max(errors[name] for name in SPEED["summary"]) < 3 * errors[peer]
    for sweep in SPEED["growth"].values():
        ratios = [row["cnflib"][0] / row["by hand"][0] for row in sweep]
        assert max(ratios) < 1.1 and math.prod(ratios) < 1


@pytest.mark.parametrize("case", SPEED["cost"], ids=lambda case: case["title"])
def test_a_gradient_costs_what_the_prose_says(case):
    for row in case["rows"]:
        if "training" in row:
            ratio = row["training"]["ms"][0] / row["log_prob"]["ms"][0]
            assert 6 - 0.05 < ratio < 7.5 if "diffrax" in row["row"] else 2 - 0.05 < ratio < 4


def test_the_words_about_one_tolerance_hold():
    """What is called a tie is one, diffrax is faster where it is said to be, and compiling takes about a minute."""
    small, large = ({row["row"]: row for row in case["rows"]} for case in SPEED["cost"])
    for kind in ("training", "log_prob"):
        peer = min((large[name][kind]["ms"] for name in EAGER if kind in large[name]), key=lambda ms: ms[0])
        ours = large["cnflib"][kind]["ms"]
        assert ours[1] < peer[2] and peer[1] < ours[2]
    for rows, kind in ((small, "log_prob"), (small, "sampling"), (large, "log_prob")):
        assert rows["diffrax, jitted"][kind]["ms"][0] < rows["cnflib"][kind]["ms"][0]
    jitted, steps = large["diffrax, jitted"], large["cnflib, compiled steps"]
    assert steps["log_prob"]["ms"][0] == pytest.approx(jitted["log_prob"]["ms"][0], rel=0.15)
    for name in ("diffrax, jitted", "torchdyn"):
        assert large[name]["nfe"] <= large["cnflib"]["nfe"]
        assert large[name]["error"] > 10 * large["cnflib"]["error"]
    for rows in (small, large):
        assert 6.5 < rows["diffrax, jitted"]["first call, s"] < 8
        assert all(45 < row["first call, s"] < 75 for name, row in rows.items() if "compiled" in name)


def test_two_tolerances_coincide_and_an_error_grows_where_the_prose_says_so():
    for name in ("cnflib", "cnflib, compiled steps"):
        small, large = ([r["error"] for r in case["rows"] if r["row"] == name] for case in SPEED["precision"])
        assert large[0] == large[1] and small[0] < small[1]


def test_steps_of_its_own_make_the_largest_error_grow_as_the_prose_says():
    for case, factor in zip(SPEED["own steps"], (2.5, 15), strict=True):
        common, own = case["rows"].values()
        assert own["error"] / common["error"] == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("case", SPEED["memory"], ids=lambda case: case["title"])
def test_both_adjoints_need_less_memory_than_checkpoints(case):
    held = {row["row"]: row["MiB"] for row in case["rows"]}
    checkpointed = held.pop("cnflib, checkpointed, 3 fixed steps")
    assert {name for name in held if held[name] < checkpointed} == {"torchdiffeq by hand, adjoint", "zuko"}


def test_long_solves_meet_and_many_dimensions_part():
    for row in SPEED["growth"]["evaluations"]:
        assert row["at"] < 100 or row["cnflib"][0] == pytest.approx(row["by hand"][0], rel=0.1)
    last = SPEED["growth"]["dimension"][-1]
    assert 2.5 < last["by hand"][0] / last["cnflib"][0] < 3


def test_a_minute_was_measured_with_one_seed():
    assert {curve["seed"] for curve in QUALITY["curves"]} == {0}


def test_the_densities_of_a_minute_have_mass_one_and_the_order_of_the_figure():
    for curve in QUALITY["curves"]:
        assert curve["mass"] == pytest.approx(1, abs=2e-3)
    for target, entropy in QUALITY["entropy"].items():
        ends = {c["row"]: c["curve"][-1]["nll"] for c in QUALITY["curves"] if c["target"] == target}
        assert all(nll > entropy - 4 * error for nll, error in ends.values())
        best = min(ends, key=lambda name: ends[name][0])
        assert best.startswith("cnflib")


# Discrete flows.


def test_the_summary_of_discrete_flows_is_that_of_the_table():
    ratios = {}
    for case in DISCRETE["cost"]:
        ours, *peers = case["rows"]
        assert ours["row"] == "cnflib" and [row["row"] for row in peers] == list(DISCRETE["packages"])
        for act in speed.ACTS:
            best = min(row[act]["ms"][0] for row in peers)
            assert ours[act]["ratio"] == pytest.approx(ours[act]["ms"][0] / best, rel=1e-4)
            ratios[case["title"], act] = ours[act]["ratio"]
    found = DISCRETE["summary"]
    assert len(ratios) == 27 and found["worst"] == max(ratios.values())
    assert math.prod(ratios.values()) ** (1 / 27) == pytest.approx(found["mean"], rel=1e-4)
    for act in speed.ACTS:
        some = [ratio for (_, kind), ratio in ratios.items() if kind == act]
        assert math.prod(some) ** (1 / 9) == pytest.approx(found[act], rel=1e-4)
    assert {(title, act): ratio for title, act, ratio in found["losing"]} == {
        where: ratio for where, ratio in ratios.items() if ratio > 1
    }


def test_discrete_flows_have_the_same_parameters_and_are_right():
    for case in DISCRETE["cost"]:
        assert len({row["parameters"] for row in case["rows"]}) == 1
    assert [case["title"] for case in DISCRETE["check"]] == [case["title"] for case in DISCRETE["cost"]]
    for case in DISCRETE["check"]:
        for row in case["rows"]:
            assert max(row["inverse"], row["log_prob"]) < 1e-9
            assert ("mass" in row) == case["title"].endswith("D = 2")
            assert row.get("mass", 1) == pytest.approx(1, abs=1e-3)


def test_an_autoregressive_inverse_gains_in_many_dimensions():
    ratio = {case["title"]: case["rows"][0]["sampling"]["ratio"] for case in DISCRETE["cost"]}
    assert ratio["MAF, D = 64"] < ratio["MAF, D = 16"] < 0.7


def test_a_losing_row_is_named_and_a_winning_one_is_not():
    losing = lambda summary: peers.losing({"summary": summary})
    found = {**DISCRETE["summary"], "losing": [["MAF, D = 2", "sampling", 1.25]]}
    assert "slower than the fastest peer here: MAF, $D = 2$, sampling (1.25)." in losing(found)
    assert "slower nowhere" in losing({**found, "losing": []})


# Flow matching.


def test_the_summary_of_flow_matching_is_that_of_its_tables():
    """A ratio is to the fastest of the peers, and the rows computed the same before they were timed."""
    for run in REGRESSION["runs"]:
        rows = {row["row"]: row for row in run["rows"]}
        assert set(rows) == {*REGRESSION["summary"], "flow_matching", "torchcfm"}
        assert max(run["deviation"][k] for k in ("loss", "gradient", "ends")) < 1e-4
        for act in peers.SOLVED:
            best = min(rows[name][act]["ms"][0] for name in ("flow_matching", "torchcfm"))
            for row in rows.values():
                assert row[act]["ratio"] == pytest.approx(row[act]["ms"][0] / best, rel=1e-4)
    for name, found in REGRESSION["summary"].items():
        ratios = [
            r[a]["ratio"]
            for run in REGRESSION["runs"]
            for r in run["rows"]
            if r["row"] == name
            for a in peers.SOLVED
        ]
        assert len(ratios) == 6 and found["worst"] == max(ratios)
        assert math.prod(ratios) ** (1 / 6) == pytest.approx(found["mean"], rel=1e-4)


def test_the_summary_of_the_pairing_is_that_of_its_table():
    """Every row but torchcfm's plan is optimal, and the means and the worst are those of the ratios."""
    for peer, found in PAIRING["summary"].items():
        ratios = []
        for case in PAIRING["cost"]:
            ms = {row["row"]: row["ms"][0] for row in case["rows"]}
            ratios.append(ms["cnflib"] / ms[peer])
            assert all(abs(row["excess"]) < 1e-6 for row in case["rows"] if row["row"] != "torchcfm")
        assert len(ratios) == 10 and found["worst"] == pytest.approx(max(ratios), rel=1e-4)
        assert math.prod(ratios) ** 0.1 == pytest.approx(found["mean"], rel=1e-4)
        assert len(found["losing"]) == sum(ratio > 1 for ratio in ratios)


# Glow on MNIST, of which chapter 4 speaks.


def test_chapter_4_quotes_the_run_of_glow_as_it_was():
    run = load("glow_mnist")
    text = (ROOT / "chapters/04-glow.ipynb").read_text(encoding="utf-8")
    value, error = run["bits_per_dim"]
    assert f"It reached {value:.3f} ± {error:.3f} bits per dimension" in text
    assert f"({run['parameters']:,} parameters)" in text and f"$K = {run['draws']}$ draws" in text
    assert "one hour on one CPU thread" in text
    assert run["machine"]["threads"] == 1 and run["seconds"] == pytest.approx(3600, abs=5)
    assert run["settings"]["layers"] == 8 and run["settings"]["scales"] == 3
