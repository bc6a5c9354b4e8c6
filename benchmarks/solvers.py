"""What an answer of a given error takes: evaluations of the field by every kind of solver, on five fields.

    python benchmarks/solvers.py [field ...]

The fields, from what this book solves most to what its solvers are not made for:

    net           64 points through the net of the other benchmarks, tanh, time from 0 to 1
    kinked net    the same with ReLU in the place of tanh, so that the field bends in kinks
    hares         Lotka and Volterra's equations over twenty years, which turn sharply every ten
    eight lumps   64 points by the exact velocity of a linear interpolant, N(0, I) to eight narrow Gaussians on a ring
    stiff         x' = -1000 (x - cos t), which falls to the slow curve x ≈ cos t within a hundredth

Everything is in float64, against dopri8 at tolerance 1e-13. The error is the largest of any coordinate at the end. For
fixed steps the least number of steps is found by bisection; for the others the loosest of the tolerances 10^(-k/3),
with the absolute one equal to the relative one. Radau of SciPy, an implicit method whose gradients are nobody's, is
there for scale where y is one row; its evaluations include those for its Jacobian. Nothing here is timed, so the
table is the same on every machine, but for rounding.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from harness import field as net
from harness import record
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from cnflib import GaussianMixture, StandardNormal
from cnflib.interpolants import Linear, Oracle
from cnflib.nets import MLP
from cnflib.ode import (
    Adaptive,
    Fixed,
    SolveError,
    TorchDiffEq,
    adaptive_heun,
    bosh3,
    dopri5,
    dopri8,
    euler,
    midpoint,
    rk4,
    solve,
)

ERRORS, MOST = (1e-2, 1e-4, 1e-6, 1e-8), 10_000
TOLERANCES = [10 ** (-k / 3) for k in range(3, 40)]


class Problem(NamedTuple):
    """A field with its start and its times."""

    f: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    times: tuple[float, float] = (0.0, 1.0)


def kinked() -> nn.Module:
    """The benchmarks' net with ReLU."""
    smooth = net(2)
    bent = MLP(2, hidden=(64,) * 3, activation=nn.ReLU)
    bent.load_state_dict(smooth.state_dict())
    return bent.double()


def lumps() -> Oracle:
    """The linear interpolant to eight Gaussians of standard deviation .05 on a circle of radius 2."""
    angle = torch.arange(8) * torch.pi / 4
    means = 2 * torch.stack((angle.cos(), angle.sin()), 1)
    ring = GaussianMixture(torch.full((8,), 1 / 8), means, (0.05**2 * torch.eye(2)).expand(8, 2, 2))
    return Oracle(Linear(), StandardNormal(2), ring)


def hares(t: Tensor, y: Tensor) -> Tensor:
    """Logarithms of hares and lynxes, in thousands, a year as the unit of time."""
    h, l = y.unbind(-1)
    return torch.stack((0.5 - 0.025 * l.exp(), 0.025 * h.exp() - 0.85), -1)


def problems() -> dict[str, Problem]:
    """The five fields."""
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return {
        "net": Problem(net(2).double(), points),
        "kinked net": Problem(kinked(), points),
        "hares": Problem(hares, torch.tensor([30.0, 4.0], dtype=torch.float64).log(), (0.0, 20.0)),
        "eight lumps": Problem(lumps().velocity, points),
        "stiff": Problem(lambda t, y: -1000 * (y - t.cos()), 2 * one, (0.0, 2.0)),
    }


FIXED = {
    "euler": partial(Fixed, tableau=euler),
    "midpoint": partial(Fixed, tableau=midpoint),
    "rk4": partial(Fixed, tableau=rk4),
}
ADAMS = {name: partial(TorchDiffEq, f"{name}_adams", max_order=4) for name in ("explicit", "implicit")}
ADAPTIVE = {
    tableau: partial(Adaptive, found)
    for tableau, found in (
        ("adaptive_heun", adaptive_heun),
        ("bosh3", bosh3),
        ("dopri5", dopri5),
        ("dopri8", dopri8),
    )
} | {f"torchdiffeq's {name}": partial(TorchDiffEq, name) for name in ("dopri5", "dopri8")}
Judged = tuple[float, int]  # the error at the end, and the evaluations


def judged(problem: Problem, truth: Tensor, solver: object) -> Judged:
    """One solve; a failed one has no finite error."""
    try:
        result = solve(problem.f, problem.y0, problem.times, solver)
    except SolveError:
        return float("inf"), 0
    error = (result.y[-1] - truth).abs().max().item()
    return (error if error < float("inf") else float("inf")), result.nfe


def radau(problem: Problem, truth: Tensor, tolerance: float) -> Judged:
    """SciPy's implicit method of order 5."""
    f = lambda t, y: problem.f(torch.tensor(t, dtype=torch.float64), torch.from_numpy(y)).numpy()
    y0 = problem.y0.numpy()
    result = solve_ivp(f, problem.times, y0, method="Radau", rtol=max(tolerance, 1e-13), atol=tolerance)
    error = abs(result.y[:, -1] - truth.numpy()).max()
    return error, result.nfev + len(y0) * result.njev


def fewest_steps(of: Callable[[int], Judged], target: float) -> int | None:
    """Evaluations with the least number of steps that meets the target; None if that is more than MOST."""
    low, high = 0, 1
    while of(high)[0] > target:
        low, high = high, 2 * high
        if of(high)[1] > MOST:
            return None
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if of(middle)[0] > target else (low, middle)
    return of(high)[1]


def loosest(of: Callable[[float], Judged]) -> Iterator[int | None]:
    """Evaluations at the loosest tolerance from which on each target is met."""
    found = []
    for tolerance in TOLERANCES:
        found.append(of(tolerance))
        if found[-1][0] < min(ERRORS) / 10 or found[-1][1] > MOST:
            break
    for target in ERRORS:
        missed = max((k for k, (error, _) in enumerate(found) if error > target), default=-1)
        yield found[missed + 1][1] if missed + 1 < len(found) else None


def promise(problem: Problem, truth: Tensor) -> list[float]:
    """The errors of dopri5 at tolerances 1e-3, 1e-5 and 1e-7, over the tolerance."""
    return [judged(problem, truth, Adaptive(rtol=tol, atol=tol))[0] / tol for tol in (1e-3, 1e-5, 1e-7)]


def measured(problem: Problem) -> dict[str, object]:
    """One table."""
    length = problem.times[1] - problem.times[0]
    truth = solve(problem.f, problem.y0, problem.times, Adaptive(dopri8, 1e-13, 1e-13, 10**6)).y[-1]
    rows = []
    steps = {name: lambda n, make=make: make(n) for name, make in FIXED.items()} | {
        f"torchdiffeq's {name}_adams": lambda n, make=make: make(step_size=length / n)
        for name, make in ADAMS.items()
    }
    for name, make in steps.items():
        seen: dict[int, Judged] = {}

        def of(n: int, make: Callable = make, seen: dict[int, Judged] = seen) -> Judged:
            if n not in seen:
                seen[n] = judged(problem, truth, make(n))
            return seen[n]

        rows.append({"solver": name, "evaluations": [fewest_steps(of, target) for target in ERRORS]})
    for name, make in ADAPTIVE.items():
        of = lambda tol, make=make: judged(problem, truth, make(rtol=tol, atol=tol))
        rows.append({"solver": name, "evaluations": list(loosest(of))})
    if problem.y0.ndim == 1:  # a batch would have one large Jacobian
        rows.append({"solver": "SciPy's Radau", "evaluations": list(loosest(partial(radau, problem, truth)))})
    return {"rows": rows, "promise": promise(problem, truth)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fields", nargs="*", default=list(problems()), metavar="field")
    chosen = parser.parse_args().fields
    cases = []
    with torch.no_grad():
        for title, problem in problems().items():
            if title in chosen:
                cases.append({"title": title, **measured(problem)})
                print(title)
                for row in cases[-1]["rows"]:
                    print(f"  {row['solver']:28}", *(f"{n or '-':>8}" for n in row["evaluations"]))
                print("  error / tolerance", *(f"{ratio:8.3g}" for ratio in cases[-1]["promise"]), flush=True)
    if len(cases) == len(problems()):
        record("solvers", {"errors": ERRORS, "most": MOST, "fields": cases})


if __name__ == "__main__":
    main()
