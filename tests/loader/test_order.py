"""Which samples come when: epochs, ranks, ends of epochs, windows; all through the whole loader.

Covers assembly.py and planned.py.
"""

from itertools import chain

import pytest

import fastload as fl
from tests.contracts.stream import assert_equal_streams, assert_ranks_share_each_step, positions
from tests.loader.samples import flat, labels, numbers, pictures, write_shards

N = 23


def joined(lists):
    return list(chain.from_iterable(lists))


def test_without_a_shuffle_samples_come_as_stored(shards):
    loader = labels(shards, 5, shuffle=False, last="partial")
    assert numbers(loader) == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
        [15, 16, 17, 18, 19],
        [20, 21, 22],
    ]


@pytest.mark.parametrize("window", [None, 1, 3, N, 10 * N])
def test_every_shuffled_epoch_is_another_permutation(shards, window):
    loader = labels(shards, last="partial", window=window)
    epochs = [flat(loader) for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(N))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_seed_decides_the_order_and_nothing_else_does(shards):
    orders = {seed: flat(labels(shards, seed=seed)) for seed in (0, 1, 2**64 - 1)}
    assert len({tuple(order) for order in orders.values()}) == 3
    assert flat(labels(shards, seed=1)) == orders[1]


def test_keys_labels_and_texts_belong_to_the_same_sample(shards):
    for batch in fl.Loader(shards, 4, {"label": fl.Int(), "text": fl.Text()}, epochs=2):
        assert batch["__key__"] == [f"{i:05d}" for i in batch["label"].tolist()]
        assert batch["text"] == [f"caption {i}" for i in batch["label"].tolist()]


@pytest.mark.parametrize(
    "arguments", [{"threads": 1}, {"threads": 3}, {"prefetch": 1}, {"prefetch": 9}, {"max_bytes": 1}]
)
def test_batches_do_not_depend_on_threads_prefetch_or_memory(shards, arguments):
    usual = list(pictures(shards, 3, epochs=2, threads=2))
    assert_equal_streams(list(pictures(shards, 3, epochs=2, **{"threads": 2} | arguments)), usual)


@pytest.mark.parametrize("last", ["drop", "partial", "straddle"])
@pytest.mark.parametrize("world_size", range(1, 9))
def test_the_ranks_of_any_world_share_each_step(shards, world_size, last):
    ranks = [
        list(labels(shards, 2, rank=rank, world_size=world_size, last=last, epochs=2))
        for rank in range(world_size)
    ]
    assert_ranks_share_each_step(ranks)


def test_a_step_is_the_same_set_of_samples_on_every_number_of_ranks(shards):
    alone = numbers(labels(shards, 12))
    for world_size in (2, 3, 4, 6, 12):
        ranks = [
            numbers(labels(shards, 12 // world_size, rank=r, world_size=world_size))
            for r in range(world_size)
        ]
        together = [sorted(joined(step)) for step in zip(*ranks, strict=True)]
        assert together == [sorted(step) for step in alone]


def test_drop_leaves_the_rest_of_the_epoch_out(shards):
    loader = labels(shards, 5, shuffle=False)
    assert numbers(loader) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]
    assert next(iter(loader))["__position__"].tolist() == [23, 24, 25, 26, 27]


@pytest.mark.parametrize(
    ("world_size", "sizes"), [(1, [5] * 4 + [3]), (2, [5, 5, 1]), (3, [5, 2]), (4, [5]), (5, [4])]
)
def test_partial_gives_every_rank_an_equal_share_of_the_rest(shards, world_size, sizes):
    for rank in range(world_size):
        loader = labels(shards, 5, last="partial", rank=rank, world_size=world_size)
        assert [len(batch["label"]) for batch in loader] == sizes
        assert len(loader) == len(sizes)


def test_pad_repeats_the_start_of_the_epoch_and_says_so_in_the_mask(shards):
    loader = labels(shards, 5, last="pad", shuffle=False, epochs=2)
    batches = list(loader)
    assert [len(batch["label"]) for batch in batches] == [5] * 10
    *whole, padded = batches[:5]
    assert all(batch["__mask__"].all() for batch in whole)
    assert padded["__mask__"].tolist() == [True, True, True, False, False]
    assert padded["label"].tolist() == [20, 21, 22, 0, 1]
    assert padded["__position__"].tolist() == [20, 21, 22, 0, 1]
    assert batches[-1]["__position__"].tolist() == [43, 44, 45, 23, 24]


def test_pad_over_ranks_masks_each_sample_in_once(shards):
    ranks = [list(labels(shards, 5, last="pad", rank=rank, world_size=2)) for rank in range(2)]
    kept = [
        p for stream in ranks for batch in stream for p in batch["__position__"][batch["__mask__"]].tolist()
    ]
    assert sorted(kept) == list(range(N))


def test_a_batch_of_padding_may_be_larger_than_the_data(shards):
    (batch,) = labels(shards, 50, last="pad", shuffle=False)
    assert batch["label"].tolist() == (list(range(N)) * 3)[:50]
    assert batch["__mask__"].sum() == N


def test_only_pad_has_a_mask(shards):
    for last in ("drop", "partial", "straddle"):
        assert "__mask__" not in next(iter(labels(shards, last=last)))


def test_straddle_runs_on_into_the_next_epoch_and_loses_nothing(shards):
    loader = labels(shards, 5, last="straddle")
    epochs = [positions(list(loader)) for _ in range(5)]
    assert [len(epoch) // 5 for epoch in epochs] == [5, 5, 4, 5, 4]
    assert joined(epochs) == list(range(5 * N))


def test_straddle_with_a_batch_of_several_epochs_still_gives_every_position(shards):
    loader = labels(shards, 2 * N + 1, last="straddle", shuffle=False)
    assert joined(positions(list(loader)) for _ in range(3)) == list(range(3 * (2 * N + 1)))


def test_endless_iteration_runs_across_the_ends_of_epochs(shards):
    finite = labels(shards, 5)
    expected = [numbers(finite) for _ in range(3)]
    endless = iter(labels(shards, 5, epochs=None))
    assert numbers(next(endless) for _ in range(12)) == joined(expected)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_an_iteration_ends_after_its_epochs_and_the_next_goes_on(shards, epochs):
    loader = labels(shards, 5, epochs=epochs)
    for turn in range(2):
        batches = list(loader)
        assert len(batches) == epochs * 4
        assert {p // N for p in positions(batches)} == set(range(turn * epochs, (turn + 1) * epochs))


def test_an_ended_iteration_stays_ended(shards):
    run = iter(labels(shards, 20))
    assert len(list(run)) == 1
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(run)


def test_after_a_break_the_next_iteration_is_the_next_epoch(shards):
    loader, whole = labels(shards, 5), labels(shards, 5)
    expected = [numbers(whole) for _ in range(3)]
    for batch in loader:
        assert batch["label"].tolist() == expected[0][0]
        break
    assert numbers(loader) == expected[1]
    assert numbers(loader) == expected[2]


def test_set_epoch_chooses_the_epoch_of_the_next_iteration(shards):
    whole = labels(shards, 5)
    expected = [numbers(whole) for _ in range(4)]
    loader = labels(shards, 5)
    for epoch in (3, 0, 0, 2):
        loader.set_epoch(epoch)
        assert numbers(loader) == expected[epoch]
    assert numbers(loader) == expected[3]


def test_set_epoch_before_the_first_next_reaches_an_iterator_that_is_there_already(shards):
    whole = labels(shards, 5)
    expected = [numbers(whole) for _ in range(3)]
    loader = labels(shards, 5)
    run = iter(loader)
    loader.set_epoch(2)
    assert numbers(run) == expected[2]


def test_set_epoch_of_the_epoch_under_way_changes_nothing(shards):
    expected = numbers(labels(shards, 5))
    loader = labels(shards, 5)
    got = []
    for batch in loader:
        got.append(batch["label"].tolist())
        loader.set_epoch(0)
    assert got == expected


def test_set_epoch_of_another_epoch_ends_the_iteration_under_way(shards):
    loader = labels(shards, 5)
    run = iter(loader)
    next(run)
    loader.set_epoch(7)
    assert list(run) == []
    assert next(iter(loader))["__position__"].tolist() == [7 * N + i for i in range(5)]


def test_set_epoch_of_an_epoch_that_was_broken_off_begins_it_anew(shards):
    expected = numbers(labels(shards, 5))
    loader = labels(shards, 5)
    next(iter(loader))
    loader.set_epoch(0)
    assert numbers(loader) == expected


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_len_is_the_number_of_batches_of_an_epoch(tmp_path, n, batch_size):
    write_shards(tmp_path, n, 3)
    for last in ("drop", "partial", "pad", "straddle"):
        if last == "drop" and batch_size > n:
            continue
        loader = labels(str(tmp_path), batch_size, last=last)
        assert len(loader) == len(list(loader))


def test_select_keeps_and_exclude_leaves_out_ids_keys_and_what_a_function_says(shards):
    assert sorted(flat(labels(shards, 1, select=[3, 5, 8]))) == [3, 5, 8]
    twenty = [f"{i:05d}" for i in range(20)]
    assert sorted(flat(labels(shards, 1, exclude=twenty))) == [20, 21, 22]
    assert sorted(flat(labels(shards, 1, select=twenty))) == list(range(20))
    assert sorted(flat(labels(shards, 1, exclude=range(21)))) == [21, 22]
    assert sorted(flat(labels(shards, 1, exclude=lambda row: int(row.key) > 2))) == [0, 1, 2]
    assert sorted(flat(labels(shards, 1, select=lambda row: row.key.endswith("7")))) == [7, 17]
