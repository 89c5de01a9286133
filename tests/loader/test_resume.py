"""A saved cursor gives the rest of the stream: anywhere, in any loader, on any number of ranks.

Covers checkpoint_check.py.
"""

import json
import warnings

import pytest
import torch

import fastload as fl
from fastload.errors import ConfigError, CursorError
from fastload.loader.config import LoaderConfig
from fastload.loader.describe import pixel_fingerprints
from tests.contracts.stream import assert_equal_streams, assert_every_cursor_gives_the_rest, positions
from tests.loader.samples import flat, labels, numbers, pictures, write_shards

N = 23
VARIANTS = [
    {},
    {"last": "partial"},
    {"last": "pad"},
    {"last": "straddle"},
    {"window": 4},
    {"shuffle": False},
    {"epochs": 2},
    {"rank": 1, "world_size": 2, "last": "partial"},
]


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_every_cursor_gives_the_rest_of_the_stream_in_a_new_loader(shards, arguments):
    def restored(state):
        loader = pictures(shards, 3, augment=fl.Augment(xflip=0.5), **arguments)
        loader.load_state_dict(json.loads(json.dumps(state)))
        return loader

    assert_every_cursor_gives_the_rest(
        lambda: pictures(shards, 3, augment=fl.Augment(xflip=0.5), **arguments), restored
    )


def test_every_cursor_gives_the_rest_of_the_stream_in_the_same_loader(shards):
    loader = pictures(shards, 3)

    def restored(state):
        loader.load_state_dict(state)
        return loader

    assert_every_cursor_gives_the_rest(lambda: pictures(shards, 3), restored)
    assert positions(list(loader))[0] == N  # and then comes the next epoch


def test_the_state_is_what_the_training_got_not_what_was_prefetched(shards):
    loader = labels(shards, 4, prefetch=5)
    run = iter(loader)
    for step in range(5):
        assert loader.state_dict()["position"] == 4 * step
        next(run)


@pytest.mark.parametrize("restored_on", [1, 2, 3, 4, 6])
def test_a_cursor_resumes_on_another_number_of_ranks(shards, restored_on):
    whole = flat(labels(shards, 12, last="partial"))
    run = [labels(shards, 6, rank=rank, world_size=2, last="partial") for rank in range(2)]
    states = []
    for loader in run:
        next(iter(loader))
        states.append(loader.state_dict())
    assert states[0] == states[1]
    rest = []
    for rank in range(restored_on):
        loader = labels(shards, 1, rank=rank, world_size=restored_on, last="partial")
        loader.load_state_dict(states[0])
        rest += flat(loader)
    assert sorted(rest) == sorted(whole[12 : 12 + 11 // restored_on * restored_on])


def test_a_cursor_resumes_with_another_batch_size(shards):
    whole = flat(labels(shards, 1))
    loader = labels(shards, 5)
    next(iter(loader))
    other = labels(shards, 7, last="partial")
    other.load_state_dict(loader.state_dict())
    assert flat(other) == whole[5:]


def test_a_cursor_whose_epoch_has_too_few_samples_left_goes_on_in_the_next_one(shards):
    loader = labels(shards, 20, last="partial")
    next(iter(loader))
    other = labels(shards, 5, epochs=2)
    other.load_state_dict(loader.state_dict())
    assert positions(list(other))[0] == N
    other.load_state_dict(loader.state_dict())
    single = labels(shards, 5)
    single.load_state_dict(loader.state_dict())
    assert list(single) == []
    assert positions(list(single))[0] == N


def test_restoring_then_set_epoch_of_the_cursors_epoch_goes_on_in_its_middle(shards):
    whole = labels(shards, 5)
    expected = [numbers(whole) for _ in range(3)]
    saved = labels(shards, 5)
    list(saved)
    for _, _ in zip(saved, range(2), strict=False):
        state = saved.state_dict()
    loader = labels(shards, 5)
    loader.load_state_dict(state)
    got = []
    for epoch in (1, 2):  # what trainers do
        loader.set_epoch(epoch)
        got.append(numbers(loader))
    assert got == [expected[1][2:], expected[2]]


def test_a_restored_loader_gives_its_state_back_without_opening_anything():
    loader = labels("/nowhere/at/all.tar")
    state = {"version": 2, "epoch": 3, "position": 77, "order": {"a": 1}, "pixels": {}, "mixture": None}
    loader.load_state_dict(state)
    assert loader.state_dict() == state


def test_the_state_before_the_first_batch_is_the_start(shards):
    state = labels(shards).state_dict()
    assert (state["epoch"], state["position"]) == (0, 0)
    loader = labels(shards)
    loader.set_epoch(4)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (4, 4 * N)


def test_the_state_after_an_epoch_is_the_start_of_the_next(shards):
    loader = labels(shards, 5)
    list(loader)
    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (1, N)


def test_load_state_dict_ends_the_iteration_under_way(shards):
    loader = labels(shards, 4)
    start = loader.state_dict()
    run = iter(loader)
    first = next(run)
    loader.load_state_dict(start)
    assert list(run) == []
    assert_equal_streams([next(iter(loader))], [first])


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"seed": 1}, r"seed \(0 then, 1 now\)"),
        ({"shuffle": False}, r"plan \(global/1 then, sequential/1 now\)"),
        ({"window": 4}, r"plan \(.* now\), window \(None then, 4 now\)"),
        ({"select": lambda row: row.key != "00003"}, "source"),
        ({"exclude": ["00003"], "seed": 5}, r"seed \(0 then, 5 now\), source"),
    ],
    ids=["seed", "shuffle", "window", "select", "two"],
)
def test_a_cursor_of_another_order_is_refused_and_again_and_the_part_is_named(shards, other, differs, cases):
    loader = labels(shards, **other)
    loader.load_state_dict(labels(shards).state_dict())
    for _ in range(2):
        with pytest.raises(CursorError, match=rf"another order: it differs in {differs}\. .*[Rr]estore"):
            next(iter(loader))
    cases("fingerprints", 1)


def test_a_cursor_of_another_selection_is_refused_and_the_way_out_named(shards, cases):
    state = labels(shards, select=[1, 2, 3, 4]).state_dict()
    loader = labels(shards, select=[1, 2, 3, 5])
    loader.load_state_dict(state)
    with pytest.raises(
        CursorError, match=r"differs in source\. .*If select= or exclude= was different, restore it"
    ):
        next(iter(loader))
    cases("fingerprints", 1)


def test_the_sizes_of_the_run_are_in_no_fingerprint(shards, cases):
    state = labels(shards, 4).state_dict()
    how = {"rank": 2, "world_size": 3, "prefetch": 7, "threads": 3, "epochs": None, "last": "pad"}
    assert labels(shards, 9, **how).state_dict() == state
    cases("fingerprints", 1)


def test_the_state_is_small_json_and_names_the_decoder(shards):
    loader = pictures(shards, 4, augment=fl.Augment(xflip=0.5, rotate=10), window=100, select=list(range(20)))
    loader.set_epoch(2**31 - 1)
    text = json.dumps(loader.state_dict())
    assert len(text) < 1024
    assert loader.state_dict()["pixels"]["decode"] == "native"
    assert pictures(shards, 4, decode="pillow").state_dict()["pixels"]["decode"] == "pillow"
    assert json.loads(text) == loader.state_dict()


def test_where_sources_lie_is_no_part_of_the_order(shards, tmp_path, cases):
    # As on scratch disks, where every job has a folder of its own.
    for place in ("here", "there/below"):
        write_shards(tmp_path / place / "more", 9, 4)
    state = labels([shards, str(tmp_path / "here" / "more")]).state_dict()
    moved = labels([shards, str(tmp_path / "there" / "below" / "more")])
    moved.load_state_dict(state)
    assert len(flat(moved)) == 32
    turned = labels([str(tmp_path / "here" / "more"), shards])
    turned.load_state_dict(state)
    with pytest.raises(CursorError, match="it differs in source"):
        next(iter(turned))
    cases("fingerprints", 2)


def test_a_cursor_of_other_data_is_refused_and_of_a_copy_is_not(shards, tmp_path, cases):
    write_shards(tmp_path / "copy", N, 6)
    write_shards(tmp_path / "other", N + 1, 6)
    state = labels(shards).state_dict()
    copy = labels(str(tmp_path / "copy"))
    copy.load_state_dict(state)
    next(iter(copy))
    other = labels(str(tmp_path / "other"))
    other.load_state_dict(state)
    with pytest.raises(CursorError, match="it differs in source"):
        next(iter(other))
    cases("fingerprints", 1)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"fields": {"image": fl.Image(size=9)}}, "image fields"),
        ({"augment": fl.Augment(xflip=0.5)}, "augment"),
        ({"normalize": "vae"}, "image fields"),
        ({"dtype": "float16"}, r"dtype \(float32 then, float16 now\)"),
        ({"decode": "pillow"}, r"decode \(native then, pillow now\)"),
        ({"decode": "pillow", "dtype": "float16"}, r"dtype \(.*\), decode \(native then, pillow now\)"),
    ],
    ids=["size", "augment", "normalize", "dtype", "decode", "two"],
)
def test_a_cursor_of_other_pixels_goes_on_with_one_warning_that_names_the_part(shards, other, differs, cases):
    fields = {"image": fl.Image(size=8)}
    saved = fl.Loader(shards, 4, fields)
    next(iter(saved))
    loader = fl.Loader(shards, 4, **{"fields": fields} | other)
    loader.load_state_dict(saved.state_dict())
    with pytest.warns(
        UserWarning, match=f"^{differs} differ from .* pixels are computed differently"
    ) as seen:
        got = positions(list(loader))
        list(loader)
        loader.state_dict()
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert got == list(range(4, 20))
    cases("fingerprints", 1)


def one_function(content):
    return content


@pytest.mark.parametrize(
    "other",
    [
        {"normalize": "diffusion"},
        {"normalize": (0.5, 0.5), "fields": {"image": fl.Image(size=8, normalize="gan")}},
        {"layout": "channels_last"},
        {"threads": 3, "prefetch": 1, "max_bytes": 1},
        {"fields": {"image": fl.Image(size=8, report=True), "raw": fl.Custom("txt", one_function)}},
    ],
    ids=["its name", "whose it is", "layout", "sizes of the run", "other fields"],
)
def test_what_leaves_the_pixels_as_they_are_is_no_warning(shards, other, cases):
    fields = {"image": fl.Image(size=8)}
    state = fl.Loader(shards, 4, fields).state_dict()
    loader = fl.Loader(shards, 4, **{"fields": fields} | other)
    loader.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(loader))
    cases("fingerprints", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99"),
        ({"position": -1}, "position must be an integer >= 0, got -1"),
        ({"epoch": "one"}, "epoch must be an integer >= 0, got 'one'"),
        ({"extra": 1}, "unknown 'extra'"),
    ],
)
def test_what_is_no_cursor_is_refused_at_once_and_changes_nothing(shards, change, message):
    loader = labels(shards, 4)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(CursorError, match=message):
        loader.load_state_dict(state | change)
    assert loader.state_dict() == state


@pytest.mark.parametrize(
    "change", [{"epoch": 5}, {"position": 1000}, {"epoch": 10**30, "position": 10**30 * N}], ids=str
)
def test_a_cursor_whose_position_is_not_in_its_epoch_is_refused(shards, change):
    loader = labels(shards)
    loader.load_state_dict(loader.state_dict() | change)
    with pytest.raises(CursorError, match="the checkpoint is damaged"):
        next(iter(loader))


@pytest.mark.parametrize("epoch", [-1, 1.5, "2", True, None, 2**40])
def test_set_epoch_takes_whole_numbers_only(shards, epoch):
    with pytest.raises(ConfigError, match=r"^epoch must be an integer from 0 to"):
        labels(shards).set_epoch(epoch)


def test_where_pixels_are_finished_is_part_of_how_they_are_made(shards, monkeypatch):
    # A GPU finishes levels with kernels of its own; without one, only the name can be looked at.
    def decode(device):
        config = LoaderConfig(shards, 4, {"image": fl.Image(size=8)}, device=device, decode="native")
        return pixel_fingerprints(config)["decode"]

    monkeypatch.setattr("fastload.loader.describe.resolve_device", torch.device)
    assert (decode("cpu"), decode("cuda")) == ("native", "native, finished on cuda")
