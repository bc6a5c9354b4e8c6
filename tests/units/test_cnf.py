"""Continuous flows against closed forms, in both directions of time."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from registry import rng, seeded
from scipy.linalg import expm

from cnflib import Chain, Flow, Inverse, StandardNormal
from cnflib.continuous import (
    CNF,
    Exact,
    ForwardMode,
    Gaussian,
    Hutchinson,
    HutchPP,
    JacobianFrobenius,
    KineticEnergy,
    PathDerivative,
    ReverseMode,
    TrainEval,
    carry,
    log_prob_at,
)
from cnflib.interpolants import Linear, velocity_loss
from cnflib.nets import MLP
from cnflib.ode import Adaptive, Fixed, dopri8, euler, heun, midpoint, rk4

precise = Adaptive(rtol=1e-9, atol=1e-9)
kinds = {
    "adaptive": precise,
    "adjoint": Adaptive(rtol=1e-9, atol=1e-9, adjoint=True),
    "fixed": Fixed(12, dopri8),
    "checkpointed": Fixed(12, dopri8, checkpoint=True),
}
solvers = pytest.mark.parametrize("solver", kinds.values(), ids=kinds)
orders = {"euler": (euler, 1), "midpoint": (midpoint, 2), "heun": (heun, 2), "rk4": (rk4, 4)}


def matrix(kind, dim):
    A = torch.randn(dim, dim, generator=rng(dim), dtype=torch.float64) / dim**0.5
    if kind == "rotation":
        return A - A.T
    return A if kind == "random" else A.triu(1) * 3 + 0.5 * torch.eye(dim)  # one eigenvalue, far from normal


def flow_of(A, **options):
    return CNF(lambda t, x, context: x @ A.T, **({"solver": precise} | options))


def draw(*shape):
    return torch.randn(*shape, generator=rng(), dtype=torch.float64)


def assert_close(a, b, tolerance=1e-7):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@solvers
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("kind", ["random", "rotation", "defective"])
def test_the_flow_of_a_linear_field_is_the_matrix_exponential(kind, dim, solver):
    A, x = matrix(kind, dim), draw(4, dim)
    cnf = flow_of(A, solver=solver)
    for (y, logdet), sign in ((cnf.decode_and_logdet(x), 1), (cnf(x), -1)):
        assert_close(y, x @ torch.from_numpy(expm(sign * A.numpy())).T)
        assert_close(logdet, sign * A.trace().expand(4))


products = {"forward": ForwardMode(), "reverse": ReverseMode()}


@pytest.mark.parametrize("product", products.values(), ids=products)
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 3, 1), (3, 2)])
def test_an_image_is_carried_as_the_vector_of_its_pixels(shape, product):
    A, x = matrix("random", math.prod(shape)), draw(4, *shape)
    cnf = CNF(lambda t, x, c: (x.flatten(1) @ A.T).reshape(x.shape), Exact(product), precise)
    for (y, logdet), sign in ((cnf.decode_and_logdet(x), 1), (cnf(x), -1)):
        assert_close(y.flatten(1), x.flatten(1) @ torch.from_numpy(expm(sign * A.numpy())).T)
        assert_close(logdet, sign * A.trace().expand(4))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_a_gaussian_becomes_the_gaussian_of_the_matrix_exponential(t):
    """x' = A x carries N(0, I) to N(0, e^{tA} e^{tA}ᵀ) at time t."""
    A, x = matrix("random", 3), draw(5, 3)
    flow = Flow(flow_of(A), StandardNormal(3))
    root = torch.from_numpy(expm(t * A.numpy()))
    there = torch.distributions.MultivariateNormal(torch.zeros(3).double(), root @ root.T)
    assert_close(log_prob_at(flow, x, t), there.log_prob(x))
    assert t < 1 or torch.equal(flow.log_prob(x), log_prob_at(flow, x, t))


@pytest.mark.parametrize(("tableau", "order"), orders.values(), ids=orders)
def test_point_logdet_and_cost_converge_at_the_order_of_the_method(tableau, order):
    """x' = x (1 - x), whose flow and log-det are known; the energy is compared with a fine solve."""
    x = torch.rand(4, 3, generator=rng(), dtype=torch.float64)
    cnf = CNF(lambda t, x, c: x * (1 - x), costs=(KineticEnergy(),), solver=Fixed(20, dopri8))
    energy = cnf.solve(x, 0.0, 1.0).costs[0]
    below = 1 + x * (math.e - 1)
    errors = []
    for steps in (16, 32, 64):
        cnf.solver = Fixed(steps, tableau)
        solution = cnf.solve(x, 0.0, 1.0)
        truths = (x * math.e / below, (1 - 2 * below.log()).sum(1), energy)
        found = (solution.x, solution.logdet, *solution.costs)
        errors.append([(a - b).abs().max() for a, b in zip(found, truths, strict=True)])
    assert (-torch.tensor(errors).log2().diff(dim=0) - order).abs().max() < 0.2


@pytest.mark.parametrize("divergence", [Hutchinson(), Hutchinson(Gaussian()), HutchPP()])
def test_the_variance_over_a_whole_solve_is_that_of_the_integrated_jacobian(divergence):
    """Along a linear field the estimate of the log-det is the estimator applied to M = ∫ J dt."""
    A, x = matrix("random", 4), torch.zeros(20_000, 4).double()
    field = lambda t, x, c: (1 + t) * (x @ A.T)  # noqa: E731
    whole = CNF(field, divergence, Fixed(4)).solve(x, 0.0, 1.0, generator=rng(3)).logdet
    once = divergence(x, rng(3))(
        lambda t, x, c: 1.5 * (x @ A.T), torch.tensor(0.0).double(), x, None
    ).divergence
    assert_close(whole, once)


def test_a_rotation_keeps_volume():
    x = draw(3, 4)
    cnf = flow_of(matrix("rotation", 4))
    assert_close(cnf(x)[1], torch.zeros(3).double(), 1e-12)
    assert_close(cnf(x)[0].norm(dim=1), x.norm(dim=1))


@solvers
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, 0.0), (0.2, 0.7), (0.9, 0.3)])
def test_a_field_that_varies_in_time_is_asked_at_its_own_time(solver, t0, t1):
    """x' = (1 + 3 t²) x scales by exp(t1 + t1³ - t0 - t0³)."""
    x = draw(3, 2)
    solution = CNF(lambda t, x, c: (1 + 3 * t**2) * x, solver=solver).solve(x, t0, t1)
    scale = t1 + t1**3 - t0 - t0**3
    assert_close(solution.x, x * math.exp(scale))
    assert_close(solution.logdet, torch.full((3,), 2 * scale).double())


@solvers
def test_the_flow_of_a_nonlinear_field_has_the_logdet_of_its_solution(solver):
    """x' = x (1 - x) is solved by x eᵗ / (1 + x (eᵗ - 1)), of slope eᵗ / (1 + x (eᵗ - 1))²."""
    x = torch.rand(4, 3, generator=rng(), dtype=torch.float64)
    y, logdet = CNF(lambda t, x, c: x * (1 - x), solver=solver).decode_and_logdet(x)
    below = 1 + x * (math.e - 1)
    assert_close(y, x * math.e / below)
    assert_close(logdet, (1 - 2 * below.log()).sum(1))


@solvers
def test_density_along_a_path_is_that_of_the_gaussian_it_carries(solver):
    """dx/dt = (s'/s) x carries N(0, s(t)²), s(t) = 1 + 2 t."""
    times = [0.0, 0.25, 0.6, 1.0]
    cnf = CNF(lambda t, x, c: 2 / (1 + 2 * t) * x, solver=solver)
    z = draw(5, 2)
    up = cnf.solve_along(z, times)
    log_p = StandardNormal(2).double().log_prob(z) - up.logdet
    for k, t in enumerate(times):
        assert_close(log_p[k], torch.distributions.Normal(0, 1 + 2 * t).log_prob(up.x[k]).sum(1))
    down = cnf.solve_along(up.x[-1], times[::-1])
    assert_close(down.x, up.x.flip(0))
    assert_close(down.logdet, up.logdet.flip(0) - up.logdet[-1])


@solvers
@pytest.mark.parametrize("times", [[0.0, 0.3, 1.0], [0.8, 0.5, 0.1]])
def test_a_path_is_its_solves_one_after_the_other(solver, times):
    cnf = CNF(lambda t, x, c: torch.sin(x + t), costs=(KineticEnergy(),), solver=solver)
    x = draw(3, 2)
    path = cnf.solve_along(x, times)
    assert_close(path.x[0], x)
    assert not path.logdet[0].any() and not path.costs[0][0].any()
    for k in range(1, len(times)):
        leg = cnf.solve(path.x[k - 1], times[k - 1], times[k])
        assert_close(path.x[k], leg.x)
        assert_close(path.logdet[k] - path.logdet[k - 1], leg.logdet)
        assert_close(path.costs[0][k] - path.costs[0][k - 1], leg.costs[0])


@solvers
def test_encode_and_decode_are_the_solves_between_data_and_base(solver):
    cnf = CNF(lambda t, x, c: torch.sin(x + 2 * t), solver=solver)
    x = draw(3, 2)
    for (y, logdet), times in ((cnf(x), (1.0, 0.0)), (cnf.decode_and_logdet(x), (0.0, 1.0))):
        solution = cnf.solve(x, *times)
        assert torch.equal(y, solution.x) and torch.equal(logdet, solution.logdet)


@solvers
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, 0.0), (0.5, 0.75)])
def test_costs_are_integrals_over_the_length_of_time(solver, t0, t1):
    """Along x' = -x the energy is x0² (e^{-2 t0} - e^{-2 t1}) / 2 in its own time, and |J|² = D throughout."""
    cnf = CNF(lambda t, x, c: -x, costs=(KineticEnergy(), JacobianFrobenius()), solver=solver)
    x = draw(4, 3)
    energy, frobenius = cnf.solve(x, t0, t1).costs
    assert_close(energy, x.square().sum(1) * abs(1 - math.exp(-2 * (t1 - t0))) / 2)
    assert_close(frobenius, torch.full((4,), 3 * abs(t1 - t0)).double())
    assert (energy > 0).all() and (frobenius > 0).all()


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("solver", [precise, kinds["checkpointed"]], ids=["adaptive", "checkpointed"])
def test_path_derivatives_of_a_linear_field_are_its_powers(order, solver):
    """Along x' = A x with A antisymmetric the K-th derivative is A^K x, of constant length."""
    A, x = matrix("rotation", 3), draw(4, 3)
    cost = flow_of(A, costs=(PathDerivative(order),), solver=solver).solve(x, 0.0, 1.0).costs[0]
    assert_close(cost, (x @ torch.linalg.matrix_power(A, order).T).square().sum(1))


def test_path_derivatives_count_the_change_of_the_field_in_time():
    """Along x' = t² the next derivatives are 2 t, 2 and 0."""
    x = draw(3, 1)
    costs = (PathDerivative(2), PathDerivative(3), PathDerivative(4))
    cnf = CNF(lambda t, x, c: 0 * x + (t**2).reshape(-1, 1), costs=costs, solver=Fixed(2))
    for times in ((0.0, 1.0), (1.0, 0.0)):
        found = cnf.solve(x, *times).costs
        assert_close(torch.stack(found), torch.tensor([4 / 3, 4.0, 0.0]).double()[:, None].expand(3, 3))
    rows = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert_close(PathDerivative(2)(cnf.field, rows, x, None, None), 4 * rows**2)


def test_the_first_path_derivative_is_the_kinetic_energy():
    cnf = CNF(lambda t, x, c: torch.sin(x + t), costs=(PathDerivative(1), KineticEnergy()), solver=Fixed(4))
    assert torch.equal(*cnf.solve(draw(3, 2), 0.0, 1.0).costs)


@pytest.mark.parametrize("make", [Fixed, partial(Fixed, checkpoint=True)])
def test_the_gradient_of_a_path_derivative_is_the_central_difference(make):
    net = MLP(2, (4,)).double()
    cnf, x, h = CNF(net, costs=(PathDerivative(2),), solver=make(4)), draw(3, 2), 1e-6
    weight = net.net[0].weight
    (slope,) = torch.autograd.grad(cnf.solve(x, 0.0, 1.0).costs[0].sum(), weight)
    with torch.no_grad():
        values = []
        for step in (h, -2 * h):
            weight[0, 0] += step
            values.append(cnf.solve(x, 0.0, 1.0).costs[0].sum())
        assert_close(slope[0, 0], (values[0] - values[1]) / (2 * h), 1e-6)


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.9, 0.4)])
def test_a_cost_of_one_s_own_sees_the_time_the_point_the_context_and_the_field(t0, t1):
    def own(field, t, x, context, local):
        assert torch.equal(field(t, x, context), local.velocity)
        return t * context[:, 0]

    x, context = draw(3, 2), draw(3, 1)
    solution = CNF(lambda t, x, c: c * x, costs=(own,), solver=Fixed(4)).solve(x, t0, t1, context)
    assert_close(solution.costs[0], context[:, 0] * abs(t1**2 - t0**2) / 2)


def test_estimated_costs_are_unbiased():
    A = matrix("random", 4)
    cnf = flow_of(A, divergence=Hutchinson(Gaussian()), costs=(JacobianFrobenius(),), solver=Fixed(2))
    cost = cnf.solve(torch.zeros(20_000, 4).double(), 0.0, 1.0, generator=rng()).costs[0]
    assert abs(cost.mean() - A.square().sum()) < 4 * cost.std() / len(cost) ** 0.5


@solvers
@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_a_solve_of_no_length_is_the_identity(solver, t):
    x = draw(3, 2)
    solution = CNF(lambda t, x, c: x, costs=(KineticEnergy(),), solver=solver).solve(x, t, t)
    assert torch.equal(solution.x, x) and solution[3:6] == (0, 0, 0) and solution.backward.nfe == 0
    assert not solution.logdet.any() and not solution.costs[0].any() and solution.logdet.shape == (3,)


@solvers
def test_a_learnable_end_time_gets_its_gradient(solver):
    A, x = matrix("random", 2), draw(1, 2)
    t0, t1 = (torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (0.1, 0.8))
    solution = flow_of(A, solver=solver).solve(x, t0, t1)
    slopes = torch.autograd.grad(solution.logdet.sum(), (t0, t1), retain_graph=True)
    assert_close(torch.stack(slopes), A.trace() * torch.tensor([-1.0, 1.0]).double())
    assert_close(torch.autograd.grad(solution.x[0, 0], t1)[0], (solution.x @ A.T)[0, 0].detach())


def test_decode_does_not_pay_for_a_divergence():
    A, x = matrix("random", 2), draw(3, 2)
    alone = flow_of(A, divergence=never, solver=Fixed(4)).decode(x)
    assert torch.equal(alone, flow_of(A, solver=Fixed(4)).decode_and_logdet(x)[0])


@solvers
def test_context_reaches_the_field_row_by_row(solver):
    cnf = CNF(lambda t, x, c: c * x, solver=solver)
    x, c = draw(3, 2), draw(3, 1)
    assert_close(cnf.decode_and_logdet(x, c)[0], x * c.exp())
    assert_close(cnf.decode_and_logdet(x, c)[1], 2 * c[:, 0])
    assert_close(cnf.decode(x, c), x * c.exp())
    assert_close(cnf.solve_along(x, [0.0, 0.5], c).x[1], x * (c / 2).exp())


def test_an_empty_batch_is_solved_without_a_step():
    cnf = CNF(lambda t, x, c: x, costs=(KineticEnergy(),), solver=precise)
    path = cnf.solve_along(torch.zeros(0, 2), [0.0, 0.5, 1.0])
    assert path.x.shape == (3, 0, 2) and path.logdet.shape == path.costs[0].shape == (3, 0)
    assert path[3:6] == (0, 0, 0)


def test_solutions_count_their_work():
    x = draw(3, 2)
    assert flow_of(matrix("random", 2), solver=Fixed(5)).solve(x, 0.0, 1.0)[3:6] == (20, 5, 0)
    assert flow_of(matrix("random", 2), solver=Fixed(5)).solve_along(x, [0.0, 0.5, 1.0])[3:6] == (40, 10, 0)


def test_parameters_of_a_field_are_the_flow_s():
    field = MLP(2)
    assert set(Flow(CNF(field), StandardNormal(2)).parameters()) == set(field.parameters())


class Priced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, field, t, x, context, local):
        return self.weight * local.velocity.square().sum(1)


def test_parameters_of_a_cost_are_the_flow_s_too():
    cost = Priced()
    cnf = CNF(MLP(2), costs=(KineticEnergy(), cost), solver=Fixed(2)).double()
    assert cost.weight in set(cnf.parameters()) and cost.weight.dtype == torch.float64
    energy, priced = cnf.solve(draw(3, 2), 0.0, 1.0).costs
    assert_close(energy, priced)
    assert_close(torch.autograd.grad(priced.sum(), cost.weight)[0], priced.sum())


@pytest.mark.parametrize("make", [Fixed, partial(Fixed, checkpoint=True)])
@pytest.mark.parametrize("steps", [3, 7, 10, 12, 30])
def test_fixed_steps_do_not_look_beyond_the_ends(make, steps):
    """A field with roots at both ends is NaN a rounding error beyond them."""
    cnf = CNF(lambda t, x, c: -x * t.sqrt() * (1 - t).sqrt(), solver=make(steps))
    x = draw(3, 2).float()
    assert cnf.solve(x, 1.0, 0.0).x.isfinite().all() and cnf.solve(x, 0.0, 1.0).x.isfinite().all()


def test_the_gradient_of_hutchpp_does_not_depend_on_the_first_step():
    """Its projector is held constant: a step size that is differentiated would not cancel."""
    net = MLP(3, (6,)).double()
    x = draw(4, 3)

    def gradient(solver):
        logdet = CNF(net, HutchPP(), solver).solve(x, 1.0, 0.0, generator=rng(1)).logdet
        return torch.cat([g.flatten() for g in torch.autograd.grad(logdet.sum(), list(net.parameters()))])

    assert_close(gradient(Adaptive(rtol=1e-7, atol=1e-7)), gradient(Fixed(60)), 1e-6)


@solvers
def test_a_time_that_is_learned_keeps_its_gradient_where_a_solve_has_no_length(solver):
    A, x = matrix("random", 2), draw(3, 2)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    solution = flow_of(A, solver=solver).solve(x, 0.3, t)
    assert torch.equal(solution.x, x)
    assert_close(torch.autograd.grad(solution.x[0, 0], t, retain_graph=True)[0], (x @ A.T)[0, 0])
    assert_close(torch.autograd.grad(solution.logdet[0], t)[0], A.trace())


def test_times_that_agree_in_the_precision_of_x_are_the_same():
    x = draw(3, 2).float()
    assert torch.equal(CNF(MLP(2), solver=Adaptive()).solve(x, 0.5, 0.5 + 1e-9).x, x)


class Counting(torch.nn.Module):
    """Counts its calls, and refuses to be differentiated by a product or to carry tangents."""

    def __init__(self):
        super().__init__()
        self.net, self.calls = torch.nn.Linear(2, 2, dtype=torch.float64), 0

    def forward(self, t, x):
        assert torch.func.debug_unwrap(x) is x
        self.calls += 1
        return torch.tanh(self.net(x)) + t

    def jvp(self, t, x, context, directions):
        raise AssertionError("asked for tangents")


def never(x, generator=None):
    raise AssertionError("asked for a divergence")


points_alone = {
    "encode": lambda cnf, x: cnf.encode(x),
    "decode": lambda cnf, x: cnf.decode(x),
    "encode of the inverse": lambda cnf, x: Inverse(cnf).encode(x),
    "decode of the inverse": lambda cnf, x: Inverse(cnf).decode(x),
    "encode of a chain": lambda cnf, x: Chain(cnf).encode(x),
    "trajectory": lambda cnf, x: cnf.trajectory(x, [1.0, 0.0]),
    "sample": lambda cnf, x: Flow(cnf, StandardNormal(2).double()).sample(3),
    "carry": lambda cnf, x: carry(cnf.field, x, 0.0, 1.0, cnf.solver),
}


@pytest.mark.parametrize("call", points_alone.values(), ids=points_alone)
def test_points_alone_take_one_evaluation_of_the_field_a_stage(call):
    cnf = CNF(Counting(), never, Fixed(2))
    call(cnf, draw(3, 2))
    assert cnf.field.calls == 8


@solvers
def test_points_alone_are_those_of_the_solve_with_its_logdet(solver):
    cnf, x = CNF(lambda t, x: torch.sin(x + 2 * t), solver=solver), draw(3, 2)
    assert_close(cnf.encode(x), cnf.encode_and_logdet(x)[0])
    assert_close(cnf.decode(x), cnf.decode_and_logdet(x)[0])
    assert_close(Inverse(cnf).encode(x), cnf.decode_and_logdet(x)[0])
    times = torch.tensor([0.9, 0.5, 0.1])
    assert_close(cnf.trajectory(x, times), cnf.solve_along(x, times).x)
    assert_close(carry(cnf.field, x, 0.2, 0.7, solver), cnf.solve(x, 0.2, 0.7).x)
    assert carry(cnf.field, x, 0.2, 0.2, solver) is x


def test_points_are_carried_in_one_compiled_piece():
    net, x, context = MLP(2, (4,), context=1), draw(3, 2).float(), draw(3, 1).float()
    compiled = torch.compile(
        lambda x: carry(net, x, 0.0, 1.0, Fixed(2), context), fullgraph=True, backend="eager"
    )
    assert_close(compiled(x), carry(net, x, 0.0, 1.0, Fixed(2), context))


def test_a_solve_compiles_in_one_piece():
    cnf, x = CNF(MLP(2, (4,)), Hutchinson(), Fixed(1, midpoint)), draw(3, 2).float()
    compiled = torch.compile(cnf.encode_and_logdet, fullgraph=True, backend="eager")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        once = compiled(x)
        torch.manual_seed(0)
        for a, b in zip(once, cnf.encode_and_logdet(x), strict=True):
            assert_close(a, b)


class Labelled(torch.nn.Module):
    """A field of labels 0 to 9."""

    def __init__(self):
        super().__init__()
        self.embed, self.net = torch.nn.Embedding(10, 8), torch.nn.Linear(2 + 8 + 1, 2)

    def forward(self, t, x, context):
        return torch.tanh(self.net(torch.cat([x, self.embed(context), t.expand(len(x), 1)], 1)))


@solvers
@pytest.mark.parametrize("divergence", [Exact(), Hutchinson()])
def test_labels_condition_a_field_that_embeds_them(divergence, solver):
    with seeded():
        flow = Flow(CNF(Labelled().double(), divergence, solver), StandardNormal(2).double())
    x, labels = draw(4, 2), torch.tensor([3, 1, 3, 9])
    log_prob = flow.log_prob(x, labels, rng())
    other = flow.log_prob(x, torch.tensor([3, 2, 3, 9]), rng())
    assert_close(log_prob[[0, 2, 3]], other[[0, 2, 3]], 1e-6)
    assert log_prob[1] != other[1]
    (-log_prob.mean()).backward()
    embedding = flow.bijection.field.embed.weight.grad
    assert embedding[[1, 3, 9]].any(1).all() and not embedding[[0, 2, 4, 5, 6, 7, 8]].any()
    assert flow.sample(4, labels).shape == (4, 2) and flow.sample(5, torch.tensor([7])).shape == (5, 2)
    assert flow.bijection.trajectory(x, [0.0, 1.0], labels).shape == (2, 4, 2)


@solvers
def test_a_field_of_two_arguments_is_the_same_field(solver):
    x, costs = draw(3, 2), (KineticEnergy(), JacobianFrobenius(), PathDerivative())
    two = CNF(lambda t, x: torch.sin(x + t), costs=costs, solver=solver).solve(x, 0.0, 1.0)
    three = CNF(lambda t, x, context=None: torch.sin(x + t), costs=costs, solver=solver).solve(x, 0.0, 1.0)
    assert torch.equal(two.x, three.x) and torch.equal(two.logdet, three.logdet)
    assert all(map(torch.equal, two.costs, three.costs))
    with pytest.raises(ValueError, match="Expected no context"):
        CNF(lambda t, x: x, solver=solver).encode_and_logdet(x, draw(3, 1))


@solvers
@pytest.mark.parametrize("call", ["encode", "encode_and_logdet"])
def test_a_net_of_times_row_by_row_is_told_of_at_its_first_call(call, solver):
    net = torch.nn.Linear(3, 2, dtype=torch.float64)
    cnf = CNF(lambda t, x: net(torch.cat([x, t[:, None]], 1)), solver=solver)
    with pytest.raises(ValueError, match="Expected field"):
        getattr(cnf, call)(draw(3, 2))


class Ridges(torch.nn.Module):
    """The gradient of U(x) = sum of log cosh w·x, by its closed form or by a way to differentiate U."""

    def __init__(self, gradient=None):
        super().__init__()
        self.W = torch.nn.Parameter(0.5 * draw(4, 2))
        self.gradient = gradient

    def potential(self, x):
        return (x @ self.W.T).cosh().log().sum()

    def forward(self, t, x):
        return self.gradient(self.potential, x) if self.gradient else (x @ self.W.T).tanh() @ self.W


def by_autograd(U, x):
    return torch.autograd.grad(U(x), x, create_graph=True)[0]


def by_autograd_with_grad(U, x):
    with torch.enable_grad():
        return by_autograd(U, x.requires_grad_())


uses = {
    "sample": lambda flow, x, g: flow.sample(3, None, g),
    "rsample": lambda flow, x, g: flow.rsample_and_log_prob(3, None, g)[1],
    "log_prob": lambda flow, x, g: flow.log_prob(x, None, g),
    "encode": lambda flow, x, g: flow.encode(x),
    "trajectory": lambda flow, x, g: flow.bijection.trajectory(x, [0.0, 0.5, 1.0]),
    "velocity_loss": lambda flow, x, g: velocity_loss(flow.bijection.field, Linear(), x, x + 1, generator=g),
}


quick = {
    "adaptive": Adaptive(rtol=1e-2, atol=1e-2),
    "adjoint": Adaptive(rtol=1e-2, atol=1e-2, adjoint=True),
    "fixed": Fixed(2, midpoint),
    "checkpointed": Fixed(2, midpoint, checkpoint=True),
}
quickly = pytest.mark.parametrize("solver", quick.values(), ids=quick)


@quickly
@pytest.mark.parametrize("use", uses.values(), ids=uses)
def test_a_gradient_of_a_potential_by_torch_func_is_a_field_everywhere(use, solver):
    for divergence in (Exact(), Hutchinson(), HutchPP(), Exact(ForwardMode())):
        check_same_use(use, divergence, solver)


def check_same_use(use, divergence, solver):
    found = []
    for field in (Ridges(), Ridges(lambda U, x: torch.func.grad(U)(x))):
        value = use(Flow(CNF(field, divergence, solver), StandardNormal(2)).double(), draw(3, 2), rng())
        if value.requires_grad:
            value.square().sum().backward()
        found.append((value.detach(), field.W.grad))
    assert_close(*found, 1e-6)


@pytest.mark.parametrize("solver", [quick["adaptive"], quick["fixed"]])
@pytest.mark.parametrize("name", uses)
def test_a_potential_s_gradient_in_a_plain_function_is_the_same_field(name, solver):
    module = Ridges()
    plain = lambda t, x: torch.func.grad(lambda y: module.potential(y))(x)  # noqa: E731
    flows = [Flow(CNF(f, solver=solver), StandardNormal(2)).double() for f in (module, plain)]
    assert_close(*(uses[name](flow, draw(3, 2), rng()).detach() for flow in flows), 1e-6)


@quickly
@pytest.mark.parametrize("gradient", [by_autograd, by_autograd_with_grad])
def test_torch_autograd_in_a_field_is_right_or_refused_with_the_way_out(gradient, solver):
    refused = 0
    for use in uses.values():
        flows = [Flow(CNF(Ridges(g), solver=solver), StandardNormal(2)).double() for g in (None, gradient)]
        try:
            assert_close(*(use(flow, draw(3, 2), rng()).detach() for flow in flows), 1e-6)
        except ValueError as error:
            assert "torch.func.grad(lambda y: U(y).sum())(x)" in str(error)
            refused += 1
    assert 0 < refused < len(uses)


def test_a_part_may_be_replaced_by_any_other():
    x = draw(3, 2)
    cnf = CNF(MLP(2).double(), TrainEval(), Fixed(2))
    cnf.divergence = Exact()
    assert_close(cnf.encode_and_logdet(x), CNF(cnf.field, solver=Fixed(2)).encode_and_logdet(x))
    cnf.divergence = TrainEval(Hutchinson(Gaussian()))
    assert set(dict(cnf.named_modules())) >= {"divergence", "field"}
    cnf.divergence, cnf.field = Exact(), lambda t, x: -x
    assert_close(cnf.encode_and_logdet(x)[1], torch.full((3,), 2.0).double(), 1e-2)
    assert "field" not in dict(cnf.named_modules())
    cnf.field = MLP(2)
    assert set(cnf.state_dict()) == {f"field.{name}" for name in cnf.field.state_dict()}


def swirling(t, x):
    return x.flip(1)


def test_a_flow_prints_its_parts():
    shown = str(CNF(swirling, Hutchinson(probes=2), Fixed(3), (KineticEnergy(), PathDerivative(3))))
    assert shown == (
        "CNF(field=swirling, divergence=Hutchinson(probes=2), solver=Fixed(3), "
        "costs=(KineticEnergy(), PathDerivative(order=3)))"
    )
    shown = str(CNF(MLP(2), TrainEval(), costs=(Priced(),)))
    assert "solver=Adaptive(), costs=(Priced(…),)" in shown and "(divergence): TrainEval()" in shown


@pytest.mark.parametrize("solver", [Fixed(2), Fixed(2, checkpoint=True), Adaptive(), Adaptive(adjoint=True)])
def test_a_copy_of_a_flow_is_the_flow(solver):
    cnf, x = CNF(MLP(2).double(), TrainEval(), solver, (KineticEnergy(),)).eval(), draw(3, 2)
    for twin in (copy.deepcopy(cnf), pickle.loads(pickle.dumps(cnf))):
        assert all(map(torch.equal, twin.encode_and_logdet(x), cnf.encode_and_logdet(x)))
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        assert not torch.equal(twin.encode(x), cnf.encode(x))


field = MLP(2)
wrong = {
    "no field": (lambda: CNF(None), "Expected field"),
    "class of a field": (lambda: CNF(MLP), "Expected field"),
    "field of one argument": (
        lambda: CNF(torch.nn.Linear(2, 2)),
        "Expected field",
    ),
    "bijection as field": (
        lambda: CNF(CNF(field)),
        "Expected field",
    ),
    "flow as field": (
        lambda: CNF(Flow(CNF(field), StandardNormal(2))),
        "Expected field",
    ),
    "bijection carries": (lambda: carry(CNF(field), draw(3, 2), 0.0, 1.0), "Expected field"),
    "class of a divergence": (
        lambda: CNF(field, Hutchinson),
        "Expected divergence",
    ),
    "name of a divergence": (lambda: CNF(field, "exact"), "Expected divergence"),
    "solver as divergence": (
        lambda: CNF(field, Fixed(4)),
        "Expected divergence",
    ),
    "class of a solver": (
        lambda: CNF(field, solver=Adaptive),
        "Expected solver",
    ),
    "name of a solver": (
        lambda: CNF(field, solver="dopri5"),
        "Expected solver",
    ),
    "no solver": (lambda: carry(field, draw(3, 2), 0.0, 1.0, None), "Expected solver"),
    "order": (lambda: PathDerivative(0), "Expected order"),
    "class as order": (lambda: PathDerivative("2"), "Expected order"),
    "time": (lambda: CNF(field).solve(draw(3, 2).float(), 1.5, 0.0), "Expected times"),
    "one time": (
        lambda: CNF(field).trajectory(draw(3, 2).float(), [0.5]),
        "at least two times",
    ),
    "times of no order": (
        lambda: CNF(field).solve_along(draw(3, 2).float(), [0.0, 1.0, 0.5]),
        "in strict order",
    ),
    "dtype": (lambda: CNF(field).trajectory(draw(3, 2), [0.0, 1.0]), "Expected x"),
    "rows of context": (
        lambda: CNF(field).solve(draw(3, 2).float(), 0.0, 1.0, draw(4, 1)),
        "Expected context",
    ),
}


@pytest.mark.parametrize(("call", "match"), wrong.values(), ids=wrong)
def test_a_wrong_part_or_argument_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_field_that_couples_rows_is_refused_by_every_call():
    x = draw(3, 2).float()
    cnf = CNF(MLP(2, activation=lambda: torch.nn.Dropout(0.5)))
    for call in (cnf, cnf.encode, cnf.decode, cnf.encode_and_logdet, cnf.decode_and_logdet):
        with pytest.raises(ValueError, match="function of each row alone; Dropout in training mode"):
            call(x)
    cnf.eval()(x)
