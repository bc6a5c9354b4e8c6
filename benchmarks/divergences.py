"""Estimates of the trace tr J of a field's Jacobian: how much they scatter, and what one evaluation costs.

    python benchmarks/divergences.py

Scatter at equal numbers of products with J: Hutchinson's estimate with 12 probes, Rademacher or Gaussian, beside
Hutch++ with a sketch of 4 and 4 probes (4 + 4 + 4 products), for Jacobians of different spectra in D = 64. Scatter of
the bottleneck: the probe in x against the probe in a hidden layer of 4, where the layer helps and where it hurts.
Every standard deviation over independent draws stands beside its formula, with S = (J + J^T) / 2:

    Gaussian sqrt(2 |S|^2 / m),   Rademacher sqrt(2 (|S|^2 - sum_i s_ii^2) / m),

and for Hutch++ the Rademacher formula of what the sketch leaves over, averaged over sketches.

Time of one evaluation of velocity and divergence, as each stage of a solve makes one, without a gradient and with the
gradient for weights and x as a training step takes it: products by the net's own tangents, by torch.func.jvp (the net
behind a plain function, which hides its tangents), and by reverse mode. Rows take turns, round after round. A time is
a median with its quartiles; a ratio below 1 is faster than reverse mode. Hutch++ makes two passes over the net.

The tables are also written to benchmarks/results/divergences.json.
"""

from collections.abc import Callable

import torch
from harness import BATCH, machine, measure, quartiles, record
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cnflib.continuous import (
    Bottleneck,
    Divergence,
    Exact,
    ForwardMode,
    Gaussian,
    Hutchinson,
    HutchPP,
    Rademacher,
    ReverseMode,
    convolutional,
)
from cnflib.nets import MLP, VectorField

D, H, SKETCH, PROBES = 64, 4, 4, 4
PRODUCTS = 2 * SKETCH + PROBES
DRAWS, CHUNK = {PRODUCTS: 20_000, 1: 100_000}, 2_500  # a single probe has the heavier tails
ROUNDS = {2: 61, 8: 61, D: 15}  # more rounds for shorter calls
Rows = dict[tuple[str, str], tuple[Divergence, VectorField]]  # (divergence, products) by name
NOISES = {"Rademacher": Rademacher(), "Gaussian": Gaussian()}


class Factored(nn.Module):
    """The linear field f(x) = W V x with the hidden layer V x."""

    def __init__(self, W: Tensor, V: Tensor) -> None:
        super().__init__()
        self.W, self.V = W, V

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x @ self.V.T @ self.W.T

    def jvp(self, t: Tensor, x: Tensor, context: Tensor | None, directions: Tensor) -> tuple[Tensor, Tensor]:
        return self(t, x), self(t, directions).expand(-1, *x.shape)

    def factors(self, t: Tensor, context: Tensor | None) -> tuple[Callable, Callable]:
        return lambda x: x @ self.V.T, lambda h: h @ self.W.T


def linear(A: Tensor) -> Factored:
    """The field f(x) = A x."""
    return Factored(A, torch.eye(len(A)))


def spectral(values: Tensor) -> Factored:
    """The symmetric matrix with these eigenvalues in a random basis."""
    U = torch.linalg.qr(torch.randn(D, D)).Q
    return linear(U * values @ U.T)


def trained(net: MLP, steps: int = 1500) -> MLP:
    """The net after a short velocity regression from noise to the 8 x 8 digits of scikit-learn, 64 numbers each."""
    images = torch.as_tensor(load_digits().data, dtype=torch.float32) / 8 - 1
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        x1 = images[torch.randint(len(images), (256,))]
        x0, t = torch.randn_like(x1), torch.rand(256, 1)
        loss = (net(t[:, 0], (1 - t) * x0 + t * x1) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


# Scatter


@torch.no_grad()
def scatter(divergence: Divergence, field: VectorField, x: Tensor, draws: int) -> float:
    """Standard deviation of the estimate at x, over rows that differ in their probes alone."""
    rows = x.repeat(CHUNK, 1)
    drawn = [divergence(rows, None)(field, torch.tensor(0.5), rows, None) for _ in range(draws // CHUNK)]
    return torch.cat([here.divergence for here in drawn]).double().std().item()


def jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.jacrev(lambda y: f(y[None])[0])(x[0]).detach()


def formula(J: Tensor, noise: str, probes: int) -> float:
    """The standard deviation of Hutchinson's estimate of tr J; of a stack of matrices the one of their mixture."""
    S = (J + J.mT) / 2
    square = S.square().sum((-2, -1))
    if noise == "Rademacher":
        square = square - S.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return (2 * square.mean() / probes).clamp(min=0).sqrt().item()


def formula_hutchpp(J: Tensor) -> float:
    Q = torch.linalg.qr(J @ torch.randn(2000, D, SKETCH)).Q
    P = torch.eye(D) - Q @ Q.mT
    return formula(P @ J @ P, "Rademacher", PROBES)


def spectra() -> list[dict[str, object]]:
    torch.manual_seed(0)
    x, k = torch.randn(1, D), torch.arange(1.0, D + 1)
    skew = torch.randn(D, D) / D**0.5
    fields = {
        "positive, eigenvalues 1/k^2": spectral(1 / k**2),
        "indefinite, eigenvalues (-1)^k / k^2": spectral((-1) ** k / k**2),
        "MLP 3 x 64 at initialisation": MLP(D),
        "MLP 3 x 64 trained on digits": trained(MLP(D)),
        "flat, entries N(0, 1/D)": linear(torch.randn(D, D) / D**0.5),
        "diagonal, entries N(0, 1)": linear(torch.randn(D).diag()),
        "rotation (skew)": linear((skew - skew.T) / 2),
    }
    return [spectrum(name, field, x) for name, field in fields.items()]


def spectrum(name: str, field: VectorField, x: Tensor) -> dict[str, object]:
    J = jacobian(lambda y: field(torch.tensor(0.5), y, None), x)
    row = {"matrix": name, "trace": J.trace().item()}
    for noise, draw in NOISES.items():
        row[noise] = (
            scatter(Hutchinson(draw, PRODUCTS), field, x, DRAWS[PRODUCTS]),
            formula(J, noise, PRODUCTS),
        )
    row["Hutch++"] = scatter(HutchPP(SKETCH, PROBES), field, x, DRAWS[PRODUCTS]), formula_hutchpp(J)
    row["verdict"] = verdict(row["Hutch++"][0], row["Rademacher"][0])
    return row


def verdict(new: float, old: float) -> str:
    if min(new, old) < 1e-4:  # rounding
        return (
            "both exact" if max(new, old) < 1e-4 else "wins: exact" if new < old else "loses to an exact one"
        )
    if abs(new - old) < 0.05 * old:
        return "the same"
    return f"wins, {old / new:.1f} times less" if new < old else f"loses, {new / old:.1f} times more"


def bottlenecks() -> list[dict[str, object]]:
    torch.manual_seed(1)
    x = torch.randn(1, D)
    V, W = torch.randn(H, D) / D**0.5, torch.randn(D, H) / H**0.5
    rescale = 5.0 ** torch.arange(H)
    U = torch.linalg.qr(V.T).Q
    fields = {
        "W V x, V and W independent": Factored(W, V),
        "the same W V, hidden units rescaled": Factored(W / rescale, rescale[:, None] * V),
        "W = V^T, rows of V orthonormal": Factored(U, U.T),
        "MLP 64-4-64 at initialisation": MLP(D, (64, H, 64)),
        "MLP 64-4-64 trained on digits": trained(MLP(D, (64, H, 64))),
    }
    return [narrow(name, field, x) for name, field in fields.items()]


def narrow(name: str, field: VectorField, x: Tensor) -> dict[str, object]:
    h, g = field.factors(torch.tensor(0.5), None)
    with torch.no_grad():
        hidden = h(x)
    into, out = jacobian(h, x), jacobian(g, hidden)
    inside, outside = into @ out, out @ into
    row = {
        "field": name,
        "norm in x": outside.norm().item(),
        "norm in the layer": inside.norm().item(),
    }
    for noise, draw in NOISES.items():
        row[noise] = {
            "in x": (scatter(Hutchinson(draw), field, x, DRAWS[1]), formula(outside, noise, 1)),
            "in the layer": (scatter(Bottleneck(draw), field, x, DRAWS[1]), formula(inside, noise, 1)),
        }
        row[noise]["verdict"] = verdict(row[noise]["in the layer"][0], row[noise]["in x"][0])
    return row


def pair(measured: float, predicted: float) -> str:
    return f"{max(measured, 0) + 0.0:8.3f} /{predicted:7.3f}"


def show_spectra(rows: list[dict[str, object]]) -> None:
    print(
        f"\nStandard deviation, measured / formula: D = {D}, {PRODUCTS} products with J, {DRAWS[PRODUCTS]} draws"
    )
    print(
        f"{'Jacobian':<38}{'trace':>8}{'Rademacher':>17}{'Gaussian':>17}{'Hutch++':>17}  Hutch++ against Rademacher"
    )
    for row in rows:
        columns = "".join(f"{pair(*row[name]):>17}" for name in (*NOISES, "Hutch++"))
        print(f"{row['matrix']:<38}{row['trace']:8.2f}{columns}  {row['verdict']}")


def show_bottlenecks(rows: list[dict[str, object]]) -> None:
    print(f"\nBottleneck: D = {D}, hidden layer of {H}, one probe; standard deviation, measured / formula")
    print(
        f"{'field':<38}{'|J|':>7}{'|J_h J_g|':>11}   {'noise':<12}{'probe in x':>17}{'in the layer':>17}  bottleneck"
    )
    for row in rows:
        head = f"{row['field']:<38}{row['norm in x']:7.2f}{row['norm in the layer']:11.2f}"
        for noise in NOISES:
            x, layer = row[noise]["in x"], row[noise]["in the layer"]
            print(f"{head:<56}   {noise:<12}{pair(*x):>17}{pair(*layer):>17}  {row[noise]['verdict']}")
            head = ""


# Time


def hidden(net: nn.Module) -> VectorField:
    """The net as a plain function, whose tangents nobody sees."""
    return lambda t, x, context: net(t, x, context)


def evaluation(divergence: Divergence, field: VectorField, x: Tensor, gradient: bool) -> Callable[[], None]:
    """One call of the estimator; its probes are drawn once a solve and so outside of the time."""
    local, t = divergence(x, None), torch.tensor(0.5)
    x = x.clone().requires_grad_(gradient)

    def evaluate() -> None:
        with torch.set_grad_enabled(gradient):
            here = local(field, t, x, None)
            if gradient:
                (here.velocity.square().mean() + here.divergence.mean()).backward()

    return evaluate


def vectors(dim: int) -> list[dict[str, object]]:
    torch.manual_seed(2)
    net, x = MLP(dim), torch.randn(BATCH, dim)
    rows = {
        ("exact", "reverse mode"): (Exact(ReverseMode()), net),
        ("exact", "torch.func.jvp"): (Exact(ForwardMode()), hidden(net)),
        ("exact", "own tangents"): (Exact(), net),
        **one_probe(net),
        ("hutchpp, 1 + 1 + 1 products", "own tangents"): (HutchPP(1, 1), net),
    }
    if dim == D:
        rows[f"hutchinson, {PRODUCTS} probes", "own tangents"] = Hutchinson(probes=PRODUCTS), net
        split = f"hutchpp, {SKETCH} + {SKETCH} + {PROBES} products"
        rows[split, "own tangents"] = HutchPP(SKETCH, PROBES), net
        rows["bottleneck at 64, 1 probe", "torch.func.jvp"] = Bottleneck(), net
    return timed(f"MLP 3 x 64, D = {dim}, batch {BATCH}", rows, x, ROUNDS[dim])


def images() -> list[dict[str, object]]:
    torch.manual_seed(3)
    net, x = convolutional((1, 28, 28)), torch.randn(16, 1, 28, 28)
    return timed("convolutional((1, 28, 28)), batch 16", one_probe(net), x, 7)


def one_probe(net: nn.Module) -> Rows:
    return {
        ("hutchinson, 1 probe", "reverse mode"): (Hutchinson(product=ReverseMode()), net),
        ("hutchinson, 1 probe", "torch.func.jvp"): (Hutchinson(product=ForwardMode()), hidden(net)),
        ("hutchinson, 1 probe", "own tangents"): (Hutchinson(), net),
    }


def timed(title: str, rows: Rows, x: Tensor, rounds: int) -> list[dict[str, object]]:
    done: list[dict[str, object]] = [
        {"field": title, "divergence": name, "product": mode} for name, mode in rows
    ]
    for kind, gradient in (("with gradient", True), ("without", False)):
        calls = {key: evaluation(*row, x, gradient) for key, row in rows.items()}
        times = {key: quartiles(t) for key, t in measure(calls, rounds).items()}
        for entry, key in zip(done, rows, strict=True):
            entry[kind] = {"ms": times[key], "ratio": times[key][0] / times[baseline(key[0])][0]}
    return done


def baseline(name: str) -> tuple[str, str]:
    """The row in reverse mode to compare with: the exact trace with itself, every estimate with one probe."""
    return ("exact" if name == "exact" else "hutchinson, 1 probe"), "reverse mode"


def show_times(rows: list[dict[str, object]]) -> None:
    print(
        f"\nOne evaluation of {rows[0]['field']}; ratio to reverse mode (exact) or to reverse mode with one probe"
    )
    print(f"{'':<28}{'products':<16}{'with gradient, ms':>24} {'ratio':>6}{'without, ms':>24} {'ratio':>6}")
    for row in rows:
        columns = "".join(column(**row[kind]) for kind in ("with gradient", "without"))
        print(f"{row['divergence']:<28}{row['product']:<16}{columns}")


def column(ms: list[float], ratio: float) -> str:
    middle, low, high = ms
    return f"{f'{middle:.2f} ({low:.2f}-{high:.2f})':>24} {ratio:6.2f}"


# Record


def main() -> None:
    torch.set_num_threads(1)  # nets this small gain nothing from more, and one is easier to compare
    here = machine()
    print(f"{here['cpu']}, one thread, torch {here['torch']}, float32")
    tables = {"scatter": spectra(), "bottleneck": bottlenecks()}
    show_spectra(tables["scatter"])
    show_bottlenecks(tables["bottleneck"])
    tables["time"] = []
    for rows in (lambda: vectors(2), lambda: vectors(8), lambda: vectors(D), images):
        tables["time"] += (done := rows())
        show_times(done)
    record("divergences", tables)


if __name__ == "__main__":
    main()
