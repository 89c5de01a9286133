"""A loader over fl.Files: the whole trip, from the list to batches, as over any other source."""

import os
import pickle

import pytest
import torch

import fastload as fl
from fastload.errors import FieldError
from fastload.shards.files import Files
from tests import corpus
from tests.contracts.stream import assert_equal_streams, assert_every_cursor_gives_the_rest
from tests.loader import samples
from tests.loader.test_life import in_a_child

N = 13
LABELS = [5 * i % 13 for i in range(N)]


@pytest.fixture
def files(tmp_path):
    """Thirteen images in three folders and four formats; the third and the fourth share a key."""
    paths = []
    for i in range(N):
        ext = ("jpg", "png", "JPEG", "bmp")[i % 4]
        path = tmp_path / "images" / f"f{i % 3}" / f"{2 if i == 3 else i}.{ext}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = corpus.picture(24 + i % 7, 20 + i % 5, i)
        path.write_bytes(corpus.encode(picture, {"jpg": "JPEG"}.get(ext, ext.upper())))
        paths.append(str(path))
    return Files(paths[::-1], LABELS)


def in_order(files, **arguments):
    return samples.pictures(files, 4, shuffle=False, last="partial", **arguments)


@pytest.mark.parametrize("decode", ["native", "pillow"])
def test_without_a_shuffle_the_batches_are_the_list(files, decode):
    from fastload.decode.pillow import decode_image
    from fastload.decode.spec import ImageSpec

    loader = in_order(files, decode=decode, dtype="uint8")
    batches = list(loader)
    assert samples.flat(batches) == LABELS
    images = torch.cat([batch["image"] for batch in batches])
    for i, path in enumerate(files.paths):
        with open(path, "rb") as file:
            expected = decode_image(file.read(), ImageSpec(8, 8), 0, i).pixels
        assert torch.equal(images[i], torch.from_numpy(expected.copy()).permute(2, 0, 1)), path
    names = [key for batch in batches for key in batch["__key__"]]
    assert names == [
        os.path.splitext(os.path.relpath(p, loader.dataset.containers[0]))[0] for p in files.paths
    ]


def test_shuffled_every_sample_comes_once_with_its_label(files):
    plain = {b["label"][0].item(): b["image"] for b in samples.pictures(files, 1, shuffle=False)}
    shuffled = list(samples.pictures(files, 1))
    assert sorted(samples.flat(shuffled)) == sorted(LABELS) != samples.flat(shuffled)
    assert all(torch.equal(batch["image"], plain[batch["label"][0].item()]) for batch in shuffled)


@pytest.mark.parametrize("arguments", [{}, {"shuffle": False}, {"window": 4, "epochs": 2}], ids=str)
def test_every_cursor_gives_the_rest_of_the_stream(files, arguments):
    def made():
        return samples.pictures(
            pickle.loads(pickle.dumps(files)), 3, augment=fl.Augment(xflip=0.5), **arguments
        )

    def restored(state):
        loader = made()
        loader.load_state_dict(state)
        return loader

    assert_every_cursor_gives_the_rest(made, restored)


def test_a_cursor_of_a_list_fits_its_copy_and_no_other_list(files, tmp_path):
    loader = samples.pictures(files, 3)
    next(iter(loader))
    state = loader.state_dict()
    os.rename(tmp_path / "images", tmp_path / "moved")
    moved = [path.replace(f"{tmp_path}/images", f"{tmp_path}/moved") for path in files.paths]
    again = samples.pictures(Files(moved, LABELS), 3)
    again.load_state_dict(state)
    assert len(list(again)) == 3
    other = samples.pictures(Files(moved[::-1], LABELS), 3)
    other.load_state_dict(state)
    with pytest.raises(fl.CursorError, match="source"):
        next(iter(other))


def test_ranks_share_a_list(files):
    parts = [samples.pictures(files, 3, rank=rank, world_size=2, last="partial") for rank in range(2)]
    taken = [label for part in parts for label in samples.flat(part)]
    assert len(set(taken)) == len(taken) == N - 1  # one is left, and no two ranks can share it


def test_a_bad_file_is_replaced_and_named(files, tmp_path):
    with open(files.paths[4], "r+b") as file:
        file.write(b"this is no image")
    loader = in_order(files, ledger=tmp_path / "ledger.jsonl", max_bad_fraction=0.5)
    with pytest.warns(UserWarning, match="replaced"):
        batches = list(loader)
    assert loader.stats()["bad_samples"] == 1 and len(set(samples.flat(batches))) == N - 1
    assert f'"key": "f2/{N - 5}"' in (tmp_path / "ledger.jsonl").read_text()
    with pytest.raises(fl.SampleError, match=f"key 'f2/{N - 5}'"):
        list(in_order(files, on_bad="raise"))


def test_a_file_that_changed_since_it_was_indexed_is_an_error(files):
    loader = in_order(files)
    assert loader.dataset.n == N
    with open(files.paths[0], "ab") as file:
        file.write(b"more")
    with pytest.raises(fl.ShardError, match=f"key 'f0/{N - 1}'"):
        list(loader)


def test_labels_need_to_be_given(files):
    with pytest.raises(FieldError, match=r"fields\['label'\]: no sample of .* has cls"):
        next(iter(samples.pictures(Files(files.paths))))


def test_the_repr_of_a_loader_shows_the_list_in_a_line(files):
    assert repr(in_order(files)).splitlines()[0] == f"fastload.Loader({files!r}, batch_size=4)"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_reads_the_list_anew(files):
    expected = list(samples.pictures(files, 3))
    loader = samples.pictures(files, 3)
    run = iter(loader)
    got = [next(run)]

    def work():
        assert_equal_streams(list(loader), expected[1:])
        loader.close()

    assert in_a_child(work) == 0
    assert_equal_streams(got + list(run), expected)


def test_a_list_and_its_folder_are_the_same_stream(tmp_path):
    for i in range(7):
        samples_path = tmp_path / "d" / f"c{i % 2}" / f"{i}.jpg"
        samples_path.parent.mkdir(parents=True, exist_ok=True)
        samples_path.write_bytes(samples.jpeg(i))
    paths = sorted(str(path) for path in (tmp_path / "d").rglob("*.jpg"))
    listed = Files(paths, [int(path[-7]) for path in paths], ["c0", "c1"])
    assert_equal_streams(list(samples.pictures(listed, 2)), list(samples.pictures(tmp_path / "d", 2)))
