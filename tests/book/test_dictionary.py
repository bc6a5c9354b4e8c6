"""Every formula of the page "dictionary" is read from there and agrees with closed forms on a Gaussian mixture."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from house_rules import ROOT

from cnflib import GaussianMixture, StandardNormal
from cnflib.interpolants import (
    Interpolant,
    Linear,
    Oracle,
    Trigonometric,
    score_from_velocity,
    velocity_from_score,
)

PAGE = (ROOT / "book/dictionary.md").read_text(encoding="utf-8")
TOKEN = re.compile(r"\\(?:dot|bar)\s*(?:\\[a-z]+|x_\d)|\\[a-z]+|[a-z](?:_\d)?|\d+(?:\.\d+)?|[-+^(){}]")
FUNCTIONS = {"cos": torch.cos, "sin": torch.sin, "exp": torch.exp, "ln": math.log, "sqrt": torch.sqrt}
MIXTURE = GaussianMixture(
    [0.3, 0.7], [[-1.0, 0.5], [1.5, 0.0]], [[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.4]]]
)
TIMES = torch.tensor([0.1, 0.35, 0.5, 0.8, 0.95], dtype=torch.float64)


# From a formula of the page to Python.


def python(formula: str) -> str:
    """A formula as Python: products are written out, and a letter goes by its name without backslashes."""
    tokens = TOKEN.findall(formula)
    assert "".join(tokens).replace(" ", "") == formula.replace(" ", ""), (
        f"{formula} has a sign unknown to the test"
    )
    return expression(tokens, "")


def expression(tokens: list[str], end: str) -> str:
    """Everything up to a closing bracket, which is taken too."""
    said, operand = "", False
    while tokens and tokens[0] != end:
        if tokens[0] in "+-":
            said, operand = said + tokens.pop(0), False
        elif tokens[0] == "^":
            tokens.pop(0)
            said += f"**{factor(tokens)}"
        else:
            function = tokens[0].removeprefix("\\") in FUNCTIONS
            said, operand = said + "*" * operand + factor(tokens), not function
    tokens[:1] = []
    return said


def factor(tokens: list[str]) -> str:
    """One factor: a bracket, a fraction, a number or a name."""
    token = tokens.pop(0)
    if token in ("(", "{"):
        return f"({expression(tokens, {'(': ')', '{': '}'}[token])})"
    if token in (r"\frac", r"\dfrac"):
        return f"({factor(tokens)}/{factor(tokens)})"
    return re.sub(r"\\|\s", "", token)


def value(formula: str, values: dict[str, object]) -> torch.Tensor:
    return eval(python(formula), {**FUNCTIONS, "pi": math.pi, **values})


def table(page: str, *heads: str) -> list[list[str]]:
    """The rows of the table with these heads, formulas without their dollars."""
    head = re.escape(f"| {' | '.join(heads)} |")
    (rows,) = re.findall(rf"^{head}\n\|[-:|]+\|\n((?:\|.*\n)+)", page, re.M)
    return [[cell.strip().strip("$") for cell in row.strip("|").split("|")] for row in rows.splitlines()]


# The tables.

PATHS = table(PAGE, "path", r"$\alpha$", r"$\beta$")
LEFT = table(
    PAGE, "path", r"signal left at $t = 0$, $\beta / \alpha$", r"noise left at $t = 1$, $\alpha / \beta$"
)
CONVERSIONS = table(PAGE, "from", "to", "formula")
SHORT = table(PAGE, "path", "quantity", "formula")
STARS = table(PAGE, "path", r"$\varepsilon_{\ast}$")
TARGETS = table(PAGE, "a net for", "is called", "its loss compares it with")
ERRORS = table(PAGE, "error of", "is that of", "times")


def schedule(formula: str, **others: Callable) -> Callable:
    return lambda t: value(formula, {"t": t, "tau": 1 - t, **{k: f(t) for k, f in others.items()}}) + 0 * t


def path_of(name: str) -> Interpolant:
    """The path of a row, made of what stands there."""
    (alpha, beta) = next(row[1:] for row in PATHS if row[0] == name)
    b = schedule(beta)
    return Interpolant(schedule(alpha, beta=b), b)


def exact(path: Interpolant) -> dict[str, torch.Tensor]:
    """All quantities at random points of the path, the letters of the page by their names."""
    generator = torch.Generator().manual_seed(0)
    t = TIMES.repeat_interleave(40)
    x0 = torch.randn(len(t), 2, generator=generator, dtype=torch.float64)
    x1 = MIXTURE.sample(len(t), generator=generator).double()
    oracle, x, c = Oracle(path, StandardNormal(2), MIXTURE), path(t, x0, x1), path.coefficients(t[:, None])
    mean0, mean1 = oracle.ends(t, x)
    return {
        **{"t": t[:, None], "tau": 1 - t[:, None], "x": x, "barx_0": mean0, "barx_1": mean1},
        **{"b": oracle.velocity(t, x), "s": oracle.score(t, x)},
        **{"alpha": c.alpha, "beta": c.beta, "dotalpha": c.alpha_rate, "dotbeta": c.beta_rate},
    }


EXACT = {row[0]: exact(path_of(row[0])) for row in PATHS}


def name(letter: str) -> str:
    return re.sub(r"\\|\s", "", letter)


def off(formula: str, wanted: str, values: dict[str, torch.Tensor]) -> float:
    """The largest error of a formula, relative to the quantity."""
    truth = values[name(wanted)]
    return ((value(formula, values) - truth).abs().max() / truth.abs().max()).item()


@pytest.mark.parametrize("path", EXACT)
@pytest.mark.parametrize(("given", "wanted", "formula"), CONVERSIONS)
def test_a_conversion_holds_on_every_path(path, given, wanted, formula):
    others = {"b", "s", r"\bar x_0", r"\bar x_1"} - {given}
    assert not {name(other) for other in others} & set(re.findall(r"\w+", python(formula)))
    assert off(formula, wanted, EXACT[path]) < 1e-9


def test_every_quantity_follows_from_every_other():
    four = {row[0] for row in CONVERSIONS}
    assert len(four) == 4
    assert {(row[0], row[1]) for row in CONVERSIONS} == {(a, b) for a in four for b in four if a != b}


@pytest.mark.parametrize(("given", "wanted", "formula"), CONVERSIONS)
def test_a_wrong_sign_is_seen_to_fail(given, wanted, formula):
    signs = [match.start() for match in re.finditer("[-+]", formula)]
    for k in signs:
        wrong = formula[:k] + {"-": "+", "+": "-"}[formula[k]] + formula[k + 1 :]
        assert max(off(wrong, wanted, EXACT[path]) for path in ("linear", "trigonometric")) > 1e-2
    assert signs


@pytest.mark.parametrize(("path", "wanted", "formula"), SHORT)
def test_a_short_form_holds_on_its_path(path, wanted, formula):
    assert off(formula, wanted, EXACT[path]) < 1e-9


@pytest.mark.parametrize(("path", "formula"), STARS)
def test_the_noise_that_draws_from_the_posterior_is_the_coefficient_of_the_score(path, formula):
    values = EXACT[path]
    forming = values["dotbeta"] / values["beta"] * values["x"]
    assert torch.allclose(forming + value(formula, values) * values["s"], values["b"], rtol=1e-9)
    assert {row[0] for row in STARS} == set(EXACT)


@pytest.mark.parametrize("row", LEFT, ids=lambda row: row[0])
def test_what_is_left_at_the_ends_is_as_the_page_says(row):
    path = path_of(row[0])
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    a, b = path.alpha(ends), path.beta(ends)
    for said, found in zip(row[1:], (b[0] / a[0], a[1] / b[1])):
        assert abs(float(said) - found) < 5e-5
    assert (float(row[1]) > 0) == (row[0] in ("VP", "VE"))


@pytest.mark.parametrize(("path", "ready"), [("linear", Linear()), ("trigonometric", Trigonometric())])
def test_the_ready_paths_are_those_of_the_table(path, ready):
    mine = path_of(path)
    for which in ("alpha", "beta"):
        assert (getattr(mine, which)(TIMES) - getattr(ready, which)(TIMES)).abs().max() < 1e-12


@pytest.mark.parametrize(("quantity", "_", "target"), TARGETS)
def test_the_mean_of_what_a_loss_compares_with_is_the_quantity(quantity, _, target):
    for values in EXACT.values():  # every target is linear in the ends, so its mean is that of the means
        assert off(target, quantity, {**values, "x_0": values["barx_0"], "x_1": values["barx_1"]}) < 1e-9


@pytest.mark.parametrize(("wanted", "given", "factor_"), ERRORS)
def test_an_error_is_multiplied_as_the_page_says(wanted, given, factor_):
    (formula,) = (row[2] for row in CONVERSIONS if row[:2] == [given, wanted])
    for values in EXACT.values():
        error = torch.ones_like(values["x"])
        moved = value(formula, {**values, name(given): values[name(given)] + error}) - values[name(wanted)]
        expected = value(factor_, values) * error
        assert ((moved - expected).abs() / (1 + expected.abs())).max() < 1e-7


def test_the_probability_flow_of_a_variance_preserving_diffusion_is_minus_the_velocity():
    values = EXACT["VP"]
    tau = 1 - values["t"]
    drift = -0.5 * (0.1 + 19.9 * tau) * (values["x"] + values["s"])
    assert torch.allclose(drift, -values["b"], rtol=1e-9)
    assert "$g^2 = 0.1 + 19.9\\,\\tau$" in PAGE


def test_the_library_converts_as_the_page_does():
    values = EXACT["linear"]
    t, x = values["t"][:, 0], values["x"]
    oracle = Oracle(Linear(), StandardNormal(2), MIXTURE)
    assert torch.allclose(score_from_velocity(oracle.velocity, Linear())(t, x), values["s"], atol=1e-9)
    assert torch.allclose(velocity_from_score(oracle.score, Linear())(t, x), values["b"], atol=1e-9)


@pytest.mark.parametrize(
    "pair", [("b", r"\bar x_0"), ("b", r"\bar x_1"), (r"\bar x_0", "b"), (r"\bar x_1", "b")]
)
def test_velocity_and_means_convert_under_a_dependent_pairing(pair):
    """Between N(0, 1) and N(0, 4) by x1 = 2 x0, where the score by the formula is three times the true one."""
    t = TIMES[:, None]
    x = torch.ones_like(t)
    x0 = x / (1 + t)
    values = {
        "t": t, "x": x, "b": x0, "barx_0": x0, "barx_1": 2 * x0, "s": -x / (1 + t) ** 2,
        "alpha": 1 - t, "beta": t, "dotalpha": -x, "dotbeta": x,
    }  # fmt: skip
    formulas = {(given, wanted): formula for given, wanted, formula in CONVERSIONS}
    assert off(formulas[pair], pair[1], values) < 1e-12
    score = value(formulas["b", "s"], values)[2] / values["s"][2]
    assert torch.isclose(score, torch.tensor(3.0).double())
