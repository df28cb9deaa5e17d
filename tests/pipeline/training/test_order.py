"""The order of an epoch: every row once, whatever the workers; mixed evenly; repeatable; continued anywhere."""

from collections import Counter

import numpy as np
import pytest

from pipeline.data.data_sets import DataSet
from pipeline.training.order import EpochOrder, shares


def data_set(name, row_groups, repeat=1) -> DataSet:
    return DataSet([f"{name}/{i}" for i in range(len(row_groups))], row_groups, repeat)


ONE = data_set("one", [[5, 7], [4], [6, 6, 6]])  # 34 rows
TWO = data_set("two", [[3, 3], [5]], repeat=2)  # 22 rows an epoch
THREE = data_set("three", [[2], [1]])


def taken(order, slots=None, first_step=0):
    """{(step, slot): (shard, group, row, copy)} as the runs of some slots give them."""
    slots = range(order.images_per_step) if slots is None else slots
    queues = {}
    for run in order.runs(slots, first_step):
        rows = queues.setdefault((run.slot, run.data_set), [])
        rows += [(run.shard, run.group, int(row), run.copy) for row in run.rows]
    found = {}
    for slot in slots:
        labels = order.data_sets_of(slot)
        for k in range(len(order.data)):
            steps = np.flatnonzero(labels == k)
            rows = queues.get((slot, k), [])
            late = steps[len(steps) - len(rows) :]
            found |= {(int(step), slot): row for step, row in zip(late, rows, strict=True) if step >= first_step}
    return found


def every_row(*parts):
    return Counter(
        (shard, g, row, copy)
        for part in parts
        for shard, groups in zip(part.shards, part.row_groups, strict=True)
        for g, size in enumerate(groups)
        for row in range(size)
        for copy in range(part.repeat)
    )


@pytest.mark.parametrize("images_per_step", [1, 2, 17, 34])
def test_an_epoch_is_every_row_once(images_per_step):
    found = taken(EpochOrder([ONE], images_per_step, seed=3, epoch=0))
    assert len(found) == 34 and Counter(found.values()) == every_row(ONE)


def test_rows_that_are_left_over_are_others_in_every_epoch():
    lost = [every_row(ONE) - Counter(taken(EpochOrder([ONE], 8, 3, epoch)).values()) for epoch in range(4)]
    assert all(sum(rows.values()) == 2 for rows in lost) and len({tuple(sorted(rows)) for rows in lost}) > 1


def test_repeated_rows_appear_as_often_as_asked_for_and_their_copies_are_told_apart():
    found = taken(EpochOrder([TWO], 2, seed=0, epoch=1))
    assert Counter(found.values()) == every_row(TWO) and {copy for *_, copy in found.values()} == {0, 1}


def test_the_rows_of_a_step_do_not_depend_on_how_slots_are_divided_among_workers():
    order = EpochOrder([ONE, TWO], 6, seed=1, epoch=2)
    whole = taken(order)
    for workers in (2, 3, 6):
        parts = [taken(order, range(r * 6 // workers, (r + 1) * 6 // workers)) for r in range(workers)]
        assert {k: v for part in parts for k, v in part.items()} == whole


def test_an_epoch_continues_at_any_step():
    order = EpochOrder([ONE, TWO, THREE], 4, seed=1, epoch=0)
    whole = taken(order)
    for step in range(order.steps + 1):
        assert taken(order, first_step=step) == {k: v for k, v in whole.items() if k[0] >= step}


def test_the_order_is_drawn_from_seed_and_epoch():
    def order(seed, epoch):
        return list(taken(EpochOrder([ONE], 2, seed, epoch)).values())

    assert order(0, 1) == order(0, 1)
    drawn = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(rows) for rows in drawn}) == 4


def test_every_step_has_its_share_of_every_set_and_the_epoch_has_it_exactly():
    parts = [data_set("large", [[50] * 10] * 4), data_set("small", [[50] * 2] * 3), data_set("rare", [[60]])]
    order = EpochOrder(parts, 16, seed=0, epoch=0)
    labels = np.stack([order.data_sets_of(slot) for slot in range(16)], axis=1)  # (steps, 16)
    rows = np.array([part.rows for part in parts])
    counts = np.array([(labels == k).sum(axis=1) for k in range(3)])
    wanted = rows / rows.sum()
    assert (np.abs(counts - 16 * wanted[:, None]) < 2).all()
    assert (np.abs(counts.sum(axis=1) - labels.size * wanted) < 1).all()
    window = np.lib.stride_tricks.sliding_window_view(counts, 25, axis=1).sum(axis=2) / (25 * 16)
    assert (np.abs(window - wanted[:, None]) < 0.01).all()
    assert Counter(taken(order).values()) <= every_row(*parts)


def test_runs_come_in_the_order_in_which_they_are_needed():
    steps = [run.step for run in EpochOrder([ONE, TWO], 4, seed=5, epoch=0).runs(range(4))]
    assert steps == sorted(steps) and steps[:2] == [0, 0]


def test_the_images_of_a_step_come_from_many_row_groups():
    order = EpochOrder([data_set("large", [[64] * 16] * 64)], 64, seed=0, epoch=0)
    for step in (0, order.steps // 2):
        found = taken(order)
        assert len({found[step, slot][:2] for slot in range(64)}) > 60


def test_too_few_rows_for_a_step_are_refused():
    with pytest.raises(ValueError, match="data has 3 training images, wanted at least one step of 4"):
        EpochOrder([THREE], 4, 0, 0)


def test_shares_are_in_proportion_and_add_up():
    assert shares([10, 10, 10], 8) in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    assert shares([34], 32) == [32] and shares([1, 99], 100) == [1, 99]
    assert all(part <= size for part, size in zip(shares([7, 1, 92], 99), [7, 1, 92], strict=True))
