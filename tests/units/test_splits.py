"""A split is by one permutation for all tables, disjoint and complete."""

import numpy as np
import pytest
import torch
from registry import rng

from cnflib.data import split

x, context = torch.arange(100.0)[:, None].repeat(1, 2), torch.arange(100)


def test_the_parts_are_disjoint_complete_and_of_the_same_rows():
    parts = split(x, context)
    assert [(len(a), len(b)) for a, b in parts] == [(80, 80), (10, 10), (10, 10)]
    rows = torch.cat([c for _, c in parts])
    assert torch.equal(rows.sort().values, context) and not torch.equal(rows, context)
    assert all(torch.equal(a[:, 1], c.float()) for a, c in parts)
    assert all(a.dtype == torch.float32 and c.dtype == torch.int64 for a, c in parts)


def test_the_order_is_fixed_without_a_generator_and_drawn_with_one():
    before = torch.random.get_rng_state()
    first = [split(context)[0][0] for _ in range(2)]
    drawn = [split(context, generator=rng(seed))[0][0] for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(*first) and first[0][:5].tolist() == [26, 86, 2, 55, 75]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], first[0])


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.7, 0.15, 0.15), (1.0,), (1 / 3, 1 / 3, 1 / 3), (0.1,) * 10]
)
@pytest.mark.parametrize("n", [10, 99, 100])
def test_sizes_are_the_fractions_to_a_row(fractions, n):
    sizes = [len(part) for (part,) in split(torch.zeros(n, 3), fractions=fractions)]
    assert sum(sizes) == n
    assert all(abs(size - f * n) <= 1 for size, f in zip(sizes, fractions))


def test_arrays_and_lists_are_welcome_and_parts_are_copies():
    table = np.arange(20.0).reshape(10, 2)
    table.flags.writeable = False
    (train, labels), _ = split(table, list(range(10)), fractions=(0.9, 0.1))
    assert train.dtype == torch.float64 and torch.equal(train[:, 0] / 2, labels.double())
    train += 1
    assert table[0, 0] == 0


@pytest.mark.parametrize(
    ("tables", "fractions"),
    [
        ((x, context[:9]), (0.5, 0.5)),
        ((x,), (0.8, 0.1)),
        ((x,), (1.2, -0.2)),
        ((x,), (1.0, 0.0)),
        ((x[:3],), (0.8, 0.1, 0.1)),
        ((x,), ()),
        ((), (0.5, 0.5)),
        ((x, context, 256), (0.5, 0.5)),
        ((x, (0.5, 0.5)), (0.8, 0.1, 0.1)),
        ((x,), 0.8),
        ((x,), (float("nan"), 0.5)),
        ((x,), None),
    ],
    ids=["rows", "sum", "negative", "zero", "empty part", "no part", "no table"]
    + ["a number as a table", "fractions as a table", "one share", "NaN", "None"],
)
def test_what_is_no_split_is_refused(tables, fractions):
    with pytest.raises(ValueError, match="Expected tables.*fractions"):
        split(*tables, fractions=fractions)


def test_a_seed_is_no_generator():
    with pytest.raises(ValueError, match="generator.*manual_seed"):
        split(x, generator=0)
