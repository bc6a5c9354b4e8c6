"""What a solver refuses when it is built, and what it says when it gives up."""

from cnflib._check import check_built
from cnflib.ode.solver import SolveError
from cnflib.ode.tableaus import Tableau

__all__: list[str] = []


def check_tableau(tableau: Tableau, ready: str) -> None:
    """Refuse what is no tableau, and one whose numbers of stages do not agree."""
    if not isinstance(tableau, Tableau):
        raise ValueError(
            f"Expected tableau to be a Tableau; got {tableau!r}. Ready in cnflib.ode, without quotes: {ready}."
        )
    stages, rows = len(tableau.b), [len(row) for row in tableau.a]
    if rows != list(range(stages)) or len(tableau.c) != stages or len(tableau.e) not in (0, stages):
        raise ValueError(
            f"Expected tableau of {stages} stages, as many as weights b: {stages} times c, rows of 0 to {stages - 1} "
            f"weights in a, {stages} or no weights e; got {tableau!r}."
        )


def check_solver(solver: object) -> None:
    """Refuse what is no solver: the class of one, a tableau, the name of a method."""
    check_built(solver, "solver")
    if not callable(solver):
        raise ValueError(
            f"Expected solver to be callable like Adaptive() or Fixed(steps); got {solver!r}. Ready "
            "methods are tableaus, Adaptive(dopri5), or those of torchdiffeq, TorchDiffEq('dopri5')."
        )


def check_tolerances(rtol: float, atol: float) -> None:
    """Refuse tolerances that are not positive numbers."""
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not isinstance(tolerance, int | float) or not 0 < tolerance < float("inf"):
            raise ValueError(
                f"Expected {name} to be a number, > 0 and finite; got {tolerance!r}. Usual values are 1e-3 to 1e-8."
            )


def gave_up(where: str, reason: str = "") -> SolveError:
    """What to try after a solve that stopped there for that reason, or by default for a slope that is not finite."""
    if reason:
        return SolveError(
            f"{where}{reason}. The field is too steep or too stiff for these tolerances. Try larger rtol and atol; "
            "float64; a field with a smaller Lipschitz constant (weight decay, smooth activations); or Fixed(steps), "
            "whose error you then check yourself."
        )
    return SolveError(
        f"{where}the field or its divergence returned NaN or inf. Look for NaN weights (a learning rate too high, a "
        "log or square root at 0) and for a field that blows up in finite time (bound its growth in x)."
    )
