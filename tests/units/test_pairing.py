"""Pairings against all permutations of a small batch, duality, closed forms, and what a label must not see."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from registry import rng, seeded
from scipy.optimize import linear_sum_assignment

from cnflib.interpolants import (
    ConditionalPairing,
    IndependentPairing,
    Linear,
    OptimalTransport,
    Paired,
    RowPairing,
    Sinkhorn,
    cost_by_batch,
    pairing_report,
    sinkhorn_plan,
    transport,
    velocity_loss,
)

OT = OptimalTransport()
labels = torch.arange(60) % 3
pairings = {
    "independent": (IndependentPairing(), None),
    "paired": (Paired(), None),
    "transport": (OT, None),
    "sinkhorn": (Sinkhorn(0.1), None),
    "conditional transport": (ConditionalPairing(OT), labels),
    "conditional sinkhorn": (ConditionalPairing(Sinkhorn(0.1)), labels),
    "conditional independent": (ConditionalPairing(IndependentPairing()), labels),
    "near": (ConditionalPairing(OT, 2.0), labels / 7),
    "near sinkhorn": (ConditionalPairing(Sinkhorn(0.1), 2.0), labels / 7),
}
every = pytest.mark.parametrize(("pairing", "context"), pairings.values(), ids=pairings)
permuting = pytest.mark.parametrize("name", [name for name in pairings if "sinkhorn" not in name])
devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def draw(n, *event, seed=0, dtype=torch.float64):
    return torch.randn(n, *event, generator=rng(seed), dtype=torch.float64).to(dtype)


def ends(n, *event, dtype=torch.float64):
    """A normal base, and data of two clusters, shifted and scaled."""
    side = (torch.arange(n) % 2).reshape(-1, *[1] * len(event)).to(dtype)
    return draw(n, *event, seed=1, dtype=dtype), 0.5 * draw(n, *event, seed=2, dtype=dtype) + 4 * side - 1


def squared_distance(x0, x1):
    return (x0.flatten(1)[:, None] - x1.flatten(1)).square().sum(2)


def cost(x0, x1):
    return (x0 - x1).flatten(1).square().sum(1).mean().item()


def least_cost(x0, x1):
    matrix = squared_distance(x0.double(), x1.double())
    return matrix[linear_sum_assignment(matrix.numpy())].mean().item()


# What all have in common.


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", devices)
def test_data_stay_in_place_and_get_points_of_the_base(pairing, context, dtype, device):
    x0, x1 = (x.to(device) for x in ends(60, 2, 1, 3, dtype=dtype))
    context = None if context is None else context.to(device)
    y0, y1 = pairing(x0, x1, generator=rng(device=device), context=context)
    rows = pairing.rows(x0, x1, generator=rng(device=device), context=context)
    assert y1 is x1 and torch.equal(y0, x0[rows])
    assert y0.shape == x0.shape and y0.dtype == dtype and y0.device == x0.device
    assert rows.shape == (60,) and rows.dtype == torch.long and rows.device == x0.device


@permuting
def test_a_permutation_uses_every_base_point_once(name):
    pairing, context = pairings[name]
    rows = pairing.rows(*ends(60, 2), context=context)
    assert rows.sort().values.tolist() == list(range(60))


@every
def test_whether_ends_stay_independent_is_said(pairing, context):
    as_they_come = torch.equal(pairing.rows(*ends(60, 2), context, rng()), torch.arange(60))
    assert as_they_come == (pairing.independent or repr(pairing) == "Paired()")
    keeps = "IndependentPairing()" in repr(pairing)
    assert pairing.independent == keeps


@every
def test_a_pairing_prints_as_its_call_and_travels_to_the_workers_of_a_loader(pairing, context):
    again = eval(repr(pairing))
    sent = pickle.loads(pickle.dumps(pairing))
    assert repr(again) == repr(sent) == repr(pairing)
    assert again == sent == copy.deepcopy(pairing) == pairing and hash(again) == hash(sent) == hash(pairing)
    rows = [p.rows(*ends(60, 2), generator=rng(), context=context) for p in (pairing, again, sent)]
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


@every
def test_gradients_reach_a_learned_base_and_the_pick_holds_no_graph(pairing, context):
    x0, x1 = ends(60, 2)
    y0, _ = pairing(x0.requires_grad_(), x1.requires_grad_(), generator=rng(), context=context)
    (gradient,) = torch.autograd.grad(y0.sum(), x0)
    rows = pairing.rows(x0, x1, generator=rng(), context=context)
    assert torch.equal(gradient[:, 0].long(), rows.bincount(minlength=60)) and not rows.requires_grad


@pytest.mark.parametrize("pairing", [IndependentPairing(), Paired()], ids=repr)
def test_pairs_that_are_kept_are_the_very_tensors_and_compile(pairing):
    x0, x1 = ends(4, 2)
    assert pairing(x0, x1)[0] is x0 and pairing(x0, x1, context=labels[:4])[1] is x1
    compiled = torch.compile(lambda x0, x1: pairing(x0, x1), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x0, x1)[0], x0)


# Optimal transport.


@pytest.mark.parametrize("n", [1, 2, 5, 6])
@pytest.mark.parametrize("event", [(1,), (2,), (2, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transport_is_the_best_of_all_permutations(n, event, dtype):
    x0, x1 = ends(n, *event, dtype=dtype)
    matrix = squared_distance(x0.double(), x1.double())
    best = min(matrix[list(p), range(n)].sum().item() for p in itertools.permutations(range(n)))
    assert cost(*OT(x0, x1)) == pytest.approx(best / n, rel=1e-6 if dtype is torch.float32 else 1e-12)


@pytest.mark.parametrize("n", [128, 129, 257, 600])
@pytest.mark.parametrize("dim", [1, 2, 64])
def test_prices_change_nothing_about_the_optimum(n, dim):
    x0, x1 = ends(n, dim)
    assert cost(*OT(x0, x1)) == pytest.approx(least_cost(x0, x1), rel=1e-12)


hard = {
    "scale and shift": lambda x0, x1: (x0, 1e6 * x1 + 1e8),
    "tiny": lambda x0, x1: (1e-160 * x0, 1e-160 * x1),
    "huge": lambda x0, x1: (1e150 * x0, 1e150 * x1),
    "one point": lambda x0, x1: (torch.full_like(x0, 0.1), x1),
    "the origin": lambda x0, x1: (0 * x0, x1),
    "repeated points": lambda x0, x1: (x0[torch.arange(len(x0)) // 50], x1.round()),
    "outlier": lambda x0, x1: (x0, torch.cat([1e9 * x1[:1], x1[1:]])),
    "sorted": lambda x0, x1: (x0, x1[x1[:, 0].argsort()]),
}


@pytest.mark.parametrize("change", hard.values(), ids=hard)
def test_transport_is_exact_where_numbers_are_awkward(change):
    x0, x1 = change(*ends(300, 2))
    rows = OT.rows(x0, x1)
    assert rows.sort().values.tolist() == list(range(300))
    scale = max(x0.abs().max(), x1.abs().max())
    assert cost(x0[rows] / scale, x1 / scale) == pytest.approx(
        least_cost(x0 / scale, x1 / scale), rel=1e-9, abs=1e-15
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transport_within_clusters_far_apart_is_that_of_double_precision(dtype):
    """Of the cost within a cluster single precision would keep two digits."""
    x0, x1 = draw(300, 2, seed=1), draw(300, 2, seed=2) + 1e5 * (torch.arange(300) % 2)[:, None]
    x0, x1 = x0.to(dtype), x1.to(dtype)
    product = (x1 - x1.mean(0)).double() @ x0.double().T
    assert OT.rows(x0, x1).tolist() == linear_sum_assignment(-product.numpy())[1].tolist()


def test_a_search_leaves_the_random_numbers_of_others_alone():
    with seeded():
        before = torch.get_rng_state()
        OT.rows(*ends(300, 2))
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dim", [2, 64])
def test_prices_bring_the_search_near_the_dual_optimum(dim, monkeypatch):
    """Weak duality: the row minima of C_ij - v_j sum to at most its least assignment; near it, the search is short."""
    seen = []
    solve = lambda matrix: seen.append(matrix) or linear_sum_assignment(matrix)
    monkeypatch.setattr("scipy.optimize.linear_sum_assignment", solve)
    x0, x1 = ends(512, dim)
    OT(x0, x1)
    gap = lambda matrix: matrix[linear_sum_assignment(matrix)].sum() - matrix.min(1).sum()
    without = -(transport._at_the_origin(x1) @ transport._at_the_origin(x0).T).numpy()
    assert 0 < gap(seen[0]) < 0.05 * gap(without)


def test_transport_in_one_dimension_is_that_in_the_plane_of_points_on_a_line():
    x0, x1 = ends(200, 1)
    direction = torch.tensor([[0.6, 0.8]]).double()
    assert torch.equal(OT.rows(x0, x1), OT.rows(x0 * direction, x1 * direction))


@pytest.mark.parametrize("dim", [1, 3])
def test_transport_moves_with_shift_scale_and_order(dim):
    x0, x1 = ends(150, dim)
    rows, order = OT.rows(x0, x1), torch.randperm(150, generator=rng())
    assert torch.equal(OT.rows(3 * x0 + 7, 0.2 * x1 - 5), rows)
    assert torch.equal(order[OT.rows(x0[order], x1)], rows)
    assert torch.equal(OT.rows(x0, x1[order]), rows[order])
    assert torch.equal(OT.rows(x1, x0)[rows], torch.arange(150))


def test_transport_between_normals_on_the_line_costs_what_the_formula_says():
    """W2² of N(0, 1) and N(m, s²) is m² + (1 - s)²."""
    found = cost_by_batch(OT, draw(40_000, 1), 3 + 0.5 * draw(40_000, 1, seed=1), sizes=[10, 1000])
    small, large = found
    assert abs(large.cost - 9.25) < 4 * large.error + 0.01
    assert small.cost - large.cost > 4 * small.error


# Sinkhorn.


def plan_cost(plan, x0, x1):
    return (plan * squared_distance(x0, x1)).sum().item()


def test_plan_has_the_marginals():
    plan = sinkhorn_plan(*ends(50, 3), 0.05, tolerance=1e-6)
    assert plan.min() >= 0 and (plan.sum(0) - 0.02).abs().max() < 1e-15
    assert (plan.sum(1) - 0.02).abs().sum() <= 1e-6


@pytest.mark.parametrize("tolerance", [0.3, 0.03, 0.003])
def test_iterations_end_at_the_tolerance(tolerance):
    error = (sinkhorn_plan(*ends(50, 3), 0.01, tolerance=tolerance).sum(1) - 0.02).abs().sum()
    assert 0.02 * tolerance < error <= tolerance


@pytest.mark.parametrize("regularization", [0.03, 0.3])
def test_plan_is_a_gibbs_kernel_in_units_of_what_the_pairing_can_change(regularization):
    """log P + C / (eps s) is u_i + v_j: all its mixed differences vanish."""
    x0, x1 = ends(20, 2)
    matrix = squared_distance(x0, x1)
    mixed = matrix - matrix.mean(0) - matrix.mean(1, True) + matrix.mean()
    rest = sinkhorn_plan(x0, x1, regularization).log() + matrix / (
        regularization * mixed.square().mean().sqrt()
    )
    assert (rest - rest[:1] - rest[:, :1] + rest[0, 0]).abs().max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plan_depends_on_no_place_and_no_scale_of_either_end(dtype):
    x0, x1 = ends(60, 2, dtype=dtype)
    plan = sinkhorn_plan(x0, x1, tolerance=1e-3)
    for elsewhere in ((x0 + 7, x1 - 300), (x0, 100 * x1), (1e-3 * x0, x1 + 1)):
        torch.testing.assert_close(sinkhorn_plan(*elsewhere, tolerance=1e-3), plan, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 64, 784])
def test_the_default_pairs_nearly_as_well_as_optimal_transport_in_any_dimension(dim):
    x0, x1 = draw(256, dim), 100 + 3 * draw(256, dim, seed=1)
    gain = lambda pairs: ((pairs[0] - x0.mean(0)) * (pairs[1] - x1.mean(0))).sum().item()
    assert gain(Sinkhorn()(x0, x1, generator=rng())) > 0.9 * gain(OT(x0, x1))


def test_the_plan_of_points_far_from_the_origin_keeps_its_digits():
    x0, x1 = ends(20, 2, dtype=torch.float32)
    plan, far = (sinkhorn_plan(x0 + b, x1 + b, 0.1, tolerance=1e-5) for b in (0, 1024))
    torch.testing.assert_close(plan, far, rtol=1e-2, atol=1e-6)


def test_the_plan_of_points_that_coincide_is_that_of_independent_ones():
    torch.testing.assert_close(sinkhorn_plan(torch.ones(4, 2), torch.ones(4, 2)), torch.full((4, 4), 1 / 16))


def test_the_last_of_few_iterations_is_looked_at():
    plan = sinkhorn_plan(*ends(20, 2), 1.0, iterations=9)
    assert (plan.sum(1) - 0.05).abs().sum() <= 0.01


def test_plan_of_swapped_ends_is_the_transpose():
    x0, x1 = ends(20, 2)
    plan, swapped = (sinkhorn_plan(*pair, 0.1, tolerance=1e-10) for pair in ((x0, x1), (x1, x0)))
    torch.testing.assert_close(plan, swapped.T, rtol=1e-6, atol=1e-9)


def test_plan_goes_from_optimal_to_independent_with_the_regularization():
    x0, x1 = ends(7, 2)
    matrix = squared_distance(x0, x1)
    costs = [plan_cost(sinkhorn_plan(x0, x1, eps, 5000, 1e-3), x0, x1) for eps in (0.005, 0.05, 1, 1e4)]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(cost(*OT(x0, x1)), rel=1e-2)
    assert costs[-1] == pytest.approx(matrix.mean().item(), rel=1e-3)


def test_draws_follow_the_plan():
    x0, x1 = ends(5, 2)
    plan, n, generator = sinkhorn_plan(x0, x1, 1.0, tolerance=1e-6), 1000, rng()
    pairing = Sinkhorn(1.0, tolerance=1e-6)
    counts = torch.zeros(5, 5).double()
    for _ in range(n):
        counts[pairing.rows(x0, x1, generator=generator), torch.arange(5)] += 1
    law = 5 * plan
    assert ((counts / n - law).abs() <= 4 * (law * (1 - law) / n).sqrt() + 1e-12).all()
    assert (counts.sum(1) / n - 1).abs().max() < 4 * (5 / n) ** 0.5


def test_draws_come_from_the_generator():
    x0, x1 = ends(50, 2)
    rows = [Sinkhorn(0.3).rows(x0, x1, generator=rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


def test_sinkhorn_says_when_it_has_not_converged():
    with pytest.raises(ValueError, match="tolerance=1e-06 in iterations=20; got"):
        Sinkhorn(0.01, 20, 1e-6)(*ends(50, 2))


# Conditions.


def test_base_points_change_places_only_within_a_label():
    x0, x1 = ends(60, 2)
    rows = ConditionalPairing(OT).rows(x0, x1, context=labels)
    assert torch.equal(labels[rows], labels)
    for label in range(3):
        own = (labels == label).nonzero()[:, 0]
        assert torch.equal(rows[own], own[OT.rows(x0[own], x1[own])])


def test_two_rows_of_a_label_change_places_where_that_is_shorter():
    x = torch.arange(6.0)[:, None]
    rows = ConditionalPairing(OT).rows(x, x.flip(0), context=torch.tensor([0, 1, 2, 2, 1, 0]))
    assert rows.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "context", [labels[:, None], torch.eye(3)[labels], torch.stack([labels * 0, labels], 1).double()]
)
def test_labels_may_come_in_any_code(context):
    pair = ends(60, 2)
    assert torch.equal(
        ConditionalPairing(OT).rows(*pair, context=context),
        ConditionalPairing(OT).rows(*pair, context=labels),
    )


def test_a_pairing_that_ignores_labels_skews_the_base_of_a_class_and_a_conditional_one_does_not():
    n = 400
    side = torch.arange(n) % 2
    x0, x1 = draw(n, 2), 0.3 * draw(n, 2, seed=1) + 6 * side[:, None]
    skewed, kept = OT(x0, x1)[0], ConditionalPairing(OT)(x0, x1, context=side)[0]
    assert skewed[side == 1].mean() > 0.5
    for label in (0, 1):
        assert torch.equal(kept[side == label].sort(0).values, x0[side == label].sort(0).values)
    assert cost(kept, x1) < cost(x0, x1) - 1


def test_a_finite_weight_pays_for_the_distance_of_contexts():
    x0, x1 = ends(6, 2)
    c = draw(6, 2, seed=3)
    for weight in (0.1, 1.0, 5.0):
        matrix = squared_distance(x0, x1) + weight * squared_distance(c, c)
        total = lambda p: matrix[list(p), range(6)].sum()  # noqa: B023
        best = min(itertools.permutations(range(6)), key=total)
        assert ConditionalPairing(OT, weight).rows(x0, x1, context=c).tolist() == list(best)


def test_a_finite_weight_goes_from_transport_to_pairs_as_they_come():
    x0, x1 = ends(60, 2)
    c = draw(60, seed=3).float()
    rows = {w: ConditionalPairing(OT, w).rows(x0, x1, context=c) for w in (1e-9, 1.0, 1e9)}
    assert torch.equal(rows[1e-9], OT.rows(x0, x1)) and torch.equal(rows[1e9], torch.arange(60))
    moved = [(c[r] - c).square().mean() for r in rows.values()]
    assert moved == sorted(moved, reverse=True)
    assert torch.equal(ConditionalPairing(OT).rows(x0, x1, context=c), torch.arange(60))


def test_a_conditional_batch_trains_a_conditional_field():
    x1, context = ends(60, 2)[1].float(), torch.eye(3)[labels]
    x0, x1 = ConditionalPairing(OT)(torch.randn(60, 2, generator=rng()), x1, context=context)
    loss = velocity_loss(lambda t, x, c: c[:, :2] * x, Linear(), x0, x1, context=context, generator=rng())
    assert loss.shape == (60,) and loss.isfinite().all()


# Diagnostics.


def test_report_counts_what_it_says():
    x0, x1 = ends(40, 2)
    pairing = Sinkhorn(0.2)
    report = pairing_report(pairing, x0, x1, generator=rng())
    rows = pairing.rows(x0, x1, generator=rng())
    y0 = x0[rows]
    swaps = sum((y0[i] - y0[j]) @ (x1[i] - x1[j]) < 0 for i, j in itertools.combinations(range(40), 2))
    assert report.cost == pytest.approx(cost(y0, x1))
    assert report.independent_cost == pytest.approx(squared_distance(x0, x1).mean().item())
    assert report.crossing == pytest.approx(swaps.item() / math.comb(40, 2)) and report.crossing > 0
    assert report.used_x0 == len(set(rows.tolist())) / 40 < 1 and report.used_x1 == 1
    assert str(report).count("\n") == 4 and f"{report.cost:.4g}" in str(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lines_of_transport_never_cross_and_independent_ones_do_half_the_time(dtype):
    x0, x1 = (x + 100 for x in ends(300, 3, dtype=dtype))
    report = pairing_report(OT, x0, x1)
    assert report.crossing == 0 and report.used_x0 == 1 and report.cost < report.independent_cost
    assert pairing_report(IndependentPairing(), draw(300, 2), draw(300, 2, seed=1)).crossing == pytest.approx(
        0.5, abs=0.05
    )


def test_report_takes_any_function_and_a_context():
    repeat = lambda x0, x1, context=None, generator=None: (x0, x1[:1].expand_as(x1))
    assert pairing_report(repeat, *ends(20, 2)).used_x1 == 1 / 20
    assert pairing_report(ConditionalPairing(OT), *ends(60, 2), context=labels).used_x0 == 1


def test_report_counts_points_that_repeat_once_and_takes_images():
    x0, x1 = (x[torch.arange(20) // 2] for x in ends(20, 1, 2, 3))
    report = pairing_report(Paired(), x0, x1)
    assert report.used_x0 == report.used_x1 == 1
    assert report == pairing_report(Paired(), x0.flatten(1), x1.flatten(1))


def test_cost_by_batch_takes_images_and_the_batch_that_ends_the_data():
    x0, x1 = ends(20, 2, 3)
    (found,) = cost_by_batch(IndependentPairing(), x0, x1, [10], generator=rng(3))
    first, last = (cost(x0[rows], x1[rows]) for rows in torch.randperm(20, generator=rng(3)).split(10))
    assert found.cost == pytest.approx((first + last) / 2)
    assert found.error == pytest.approx(abs(first - last) / 2)


def test_cost_by_batch_draws_from_its_generator():
    found = [cost_by_batch(Sinkhorn(0.3), *ends(40, 2), [20], generator=rng(seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_cost_by_batch_is_a_mean_over_batches_with_its_error():
    x0, x1 = ends(100, 2)
    batches = torch.randperm(100, generator=rng(3)).split(30)[:3]
    (found,) = cost_by_batch(OT, x0, x1, [30], generator=rng(3))
    each = torch.tensor([cost(*OT(x0[rows], x1[rows])) for rows in batches]).double()
    assert found.size == 30 and found.cost == pytest.approx(each.mean().item())
    assert found.error == pytest.approx(each.std().item() / 3**0.5)


def test_cost_by_batch_takes_a_context_and_data_sorted_by_class():
    x1 = torch.arange(100.0)[:, None] + draw(100, 2)
    shares = torch.arange(100) // 50
    given, blind = (
        cost_by_batch(p, draw(100, 2), x1, [25], c, rng())[0]
        for p, c in ((ConditionalPairing(OT), shares), (OT, None))
    )
    assert given.cost >= blind.cost and given.error < 0.5 * given.cost


def test_the_bias_of_small_batches_shrinks():
    found = cost_by_batch(OT, draw(1024, 2), draw(1024, 2, seed=1), [8, 64, 512])
    assert [c.cost for c in found] == sorted((c.cost for c in found), reverse=True)
    assert found[-1].cost > 0


class Reverse(RowPairing):
    """One's own, by its one method."""

    def pick(self, x0, x1, context=None, generator=None):
        return torch.arange(len(x0)).flip(0)


def test_a_pairing_of_ones_own_meets_the_same_checks():
    x0, x1 = ends(60, 2)
    assert torch.equal(Reverse()(x0, x1)[0], x0.flip(0)) and not Reverse().independent
    assert ConditionalPairing(Reverse()).rows(x0, x1, labels)[0] == 57
    with pytest.raises(ValueError, match="Expected x1"):
        Reverse()(*(draw(n, 2) for n in (3, 4)))
    with pytest.raises(ValueError, match="Expected no context"):
        Reverse()(x0, x1, labels)


@every
def test_a_generator_is_not_taken_for_a_context(pairing, context):
    x0, x1 = ends(60, 2)
    for call in (pairing, pairing.rows):
        with pytest.raises(ValueError, match="Expected context"):
            call(x0, x1, rng())


def test_settings_are_checked_when_they_are_built_and_print_without_defaults():
    for build, name in (
        (lambda: ConditionalPairing(OptimalTransport), "pairing"),
        (lambda: ConditionalPairing(OT, -1.0), "pairing"),
    ):
        with pytest.raises(ValueError, match=f"Expected {name}"):
            build()
    assert [repr(p) for p in (OT, Sinkhorn(), Sinkhorn(0.05), ConditionalPairing(OT))] == [
        "OptimalTransport()",
        "Sinkhorn()",
        "Sinkhorn()",
        "ConditionalPairing(OptimalTransport())",
    ]
    assert Sinkhorn(0.1) != Sinkhorn() != OT != IndependentPairing() != Paired()


def test_pairings_are_built_inside_a_compiled_function():
    torch._dynamo.reset()

    def pairs(x0, x1):
        kept = ConditionalPairing(IndependentPairing(), 2.0)
        x0 = x0 * Sinkhorn(0.1).regularization + float(kept.independent)
        return IndependentPairing()(*Paired()(x0, x1))[0]

    x0, x1 = ends(4, 2)
    found = torch.compile(pairs, fullgraph=True, backend="eager")(x0, x1)
    torch.testing.assert_close(found, 0.1 * x0 + 1)


@pytest.mark.parametrize("pairing", [IndependentPairing(), OptimalTransport(), Sinkhorn()], ids=str)
def test_no_pairs_are_no_pairs(pairing):
    x0, x1 = pairing(torch.empty(0, 3), torch.empty(0, 3))
    assert x0.shape == x1.shape == (0, 3) and pairing.rows(x0, x1).shape == (0,)
