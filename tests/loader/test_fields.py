"""Fields and containers through the whole loader: masks, reports, defaults, values, folders, zips.

Covers crop_report.py and value_stage.py.
"""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import fastload as fl
from tests import corpus
from tests.loader.samples import jpeg, sample, write

DECODERS = ("native", "pillow")


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def quadrants(width: int, height: int) -> np.ndarray:
    """Four flat colours, whose borders tell where a crop lies: [height, width, 3] uint8."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 50
    image[: height // 2, width // 2 :] = 100
    image[height // 2 :, : width // 2] = 150
    image[height // 2 :, width // 2 :] = 200
    return image


@pytest.mark.parametrize(
    "arguments", [{}, {"crop": "random"}, {"resize": "random"}, {"resize": "exact"}], ids=str
)
@pytest.mark.parametrize("decode", DECODERS)
def test_a_mask_of_another_size_shows_what_its_image_shows(tmp_path, decode, arguments):
    """The image at 64 x 48, its mask at 32 x 24: no level is mixed, edges agree to a pixel."""
    picture, mask = quadrants(64, 48), quadrants(32, 24)
    one = {"jpg": corpus.encode(picture, "JPEG", quality=100), "mask.png": corpus.encode(mask, "PNG")}
    write(tmp_path, ({"__key__": f"{i}"} | one for i in range(8)))
    fields = {
        "image": fl.Image("jpg", size=24, **arguments),
        "mask": fl.Image("mask.png", like="image", filter="nearest"),
    }
    loader = fl.Loader(str(tmp_path), 8, fields, augment=fl.Augment(xflip=0.5), dtype="uint8", decode=decode)
    (batch,) = loader
    assert set(batch["mask"].unique().tolist()) <= {50, 100, 150, 200}
    nearest = (batch["image"].int() - 50 + 25).div(50, rounding_mode="floor") * 50 + 50
    assert (nearest == batch["mask"]).float().mean() > 0.9


def test_a_jpeg_mask_with_nearest_is_never_decoded_scaled(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    content = corpus.encode(stripes, "JPEG", quality=100, subsampling=0)
    write(tmp_path, [{"__key__": "0", "jpg": content, "mask.jpg": content}])
    fields = {"image": fl.Image("jpg", size=32), "mask": fl.Image("mask.jpg", like="image", filter="nearest")}
    (batch,) = fl.Loader(str(tmp_path), 1, fields, dtype="uint8")
    assert set(batch["mask"].unique().tolist()) <= {0, 1, 254, 255}


@pytest.mark.parametrize("decode", DECODERS)
def test_report_tells_original_size_crop_and_target(tmp_path, decode):
    files = [corpus.encode(corpus.picture(60, 40, i), "PNG" if i % 2 else "JPEG") for i in range(4)]
    files.append(corpus.encode(corpus.picture(40, 60), "JPEG", 6))  # upright it is 60 wide and 40 high
    write(tmp_path, ({"__key__": f"{i}", "jpg": content} for i, content in enumerate(files)))
    fields = {"image": fl.Image("jpg", size=(20, 10), crop=(7, 0), report=True)}
    (batch,) = fl.Loader(str(tmp_path), 5, fields, decode=decode)
    assert batch["image.original_size"].tolist() == [[40, 60]] * 5
    assert batch["image.target_size"].tolist() == [[20, 10]] * 5
    assert batch["image.crop_top_left"].tolist() == [[0, 7]] * 5
    assert batch["image.crop_box"].tolist() == [[14.0, 0.0, 34.0, 40.0]] * 5
    kinds = {name: value.dtype for name, value in batch.items() if name.startswith("image.")}
    assert kinds.pop("image.crop_box") == torch.float32
    assert set(kinds.values()) == {torch.int32}


@pytest.mark.parametrize("decode", DECODERS)
def test_defaults_stand_in_for_what_a_sample_lacks(tmp_path, decode):
    whole = {
        "jpg": jpeg(0),
        "cls": 7,
        "txt": "words",
        "json": {"a": [1]},
        "npy": npy(np.arange(3)),
        "bin": b"\x00\x01",
        "odd": b"4",
    }
    write(tmp_path, [{"__key__": "0"} | whole, {"__key__": "1", "other": b"-"}, {"__key__": "2"} | whole])
    fields = {
        "image": fl.Image(size=4, default=(10, 20, 30)),
        "mask": fl.Image("jpg", like="image", filter="nearest", default=255),
        "label": fl.Int(default=-1),
        "text": fl.Text(default=None),
        "meta": fl.Json(default={"a": []}),
        "latent": fl.Tensor("npy", default=np.zeros(3, np.int64)),
        "raw": fl.Bytes("bin", default=b""),
        "odd": fl.Custom("odd", int, default=0),
    }
    loader = fl.Loader(str(tmp_path), 3, fields, shuffle=False, dtype="uint8", decode=decode)
    (batch,) = loader
    assert batch["image"][1].flatten(1).unique(dim=1).tolist() == [[10], [20], [30]]
    assert batch["mask"][1].unique().tolist() == [255]
    assert torch.equal(batch["image"][0], batch["image"][2])
    assert batch["label"].tolist() == [7, -1, 7]
    assert batch["text"] == ["words", None, "words"]
    assert batch["meta"] == [{"a": [1]}, {"a": []}, {"a": [1]}]
    assert batch["latent"].tolist() == [[0, 1, 2], [0, 0, 0], [0, 1, 2]]
    assert batch["raw"] == [b"\x00\x01", b"", b"\x00\x01"]
    assert batch["odd"].tolist() == [4, 0, 4]
    batch["meta"][1]["a"].append("mine")
    loader.set_epoch(0)
    assert next(iter(loader))["meta"][1] == {"a": []}


def test_the_first_alternative_that_a_sample_has_is_taken(tmp_path):
    both = {
        "__key__": "both",
        "png": corpus.encode(quadrants(8, 8), "PNG"),
        "jpg": jpeg(0),
        "a": b"1",
        "b": b"2",
    }
    write(tmp_path, [both, {"__key__": "one", "png": corpus.encode(quadrants(8, 8), "PNG"), "b": b"2"}])
    fields = {"image": fl.Image("jpg;png", size=8), "number": fl.Int("a;b")}
    (batch,) = fl.Loader(str(tmp_path), 2, fields, shuffle=False, dtype="uint8")
    assert batch["number"].tolist() == [1, 2]
    assert batch["image"][1, 0].tolist() == quadrants(8, 8)[..., 0].tolist()
    assert batch["image"][0, 0].tolist() != quadrants(8, 8)[..., 0].tolist()


def test_every_kind_of_value_comes_through(tmp_path):
    archive, weights = io.BytesIO(), io.BytesIO()
    np.savez(archive, a=np.ones(2, np.float32), b=np.int64(3))
    torch.save({"t": torch.arange(2)}, weights)
    write(
        tmp_path,
        (
            {"__key__": f"{i}", "npy": npy(np.full((2, 2), i, np.float16)), "npz": archive.getvalue()}
            | {"pth": weights.getvalue(), "json": {"i": i}, "txt": "ä\n", "upper": b"abc"}
            for i in range(4)
        ),
    )
    fields = {
        "latent": fl.Tensor("npy"),
        "arrays": fl.Tensor("npz"),
        "tensors": fl.Tensor("pth"),
        "meta": fl.Json(),
        "text": fl.Text(),
        "upper": fl.Custom("upper", lambda content: content.decode().upper()),
        "length": fl.Custom("upper", len),
    }
    (batch,) = fl.Loader(str(tmp_path), 4, fields, shuffle=False)
    assert batch["latent"].dtype == torch.float16
    assert batch["latent"][:, 0, 0].tolist() == [0, 1, 2, 3]
    assert batch["arrays"]["a"].shape == (4, 2)
    assert batch["tensors"]["t"].tolist() == [[0, 1]] * 4
    assert batch["meta"] == [{"i": i} for i in range(4)]
    assert batch["text"] == ["ä"] * 4
    assert batch["upper"] == ["ABC"] * 4
    assert batch["length"].tolist() == [3] * 4


def test_two_fields_may_read_the_same_entry(shards):
    fields = {
        "small": fl.Image(size=4),
        "large": fl.Image(size=16),
        "raw": fl.Bytes("jpg"),
        "label": fl.Int(),
    }
    batch = next(iter(fl.Loader(shards, 3, fields)))
    assert (batch["small"].shape, batch["large"].shape) == ((3, 3, 4, 4), (3, 3, 16, 16))
    assert batch["raw"] == [jpeg(i) for i in batch["label"].tolist()]


@pytest.fixture
def class_folders(tmp_path):
    for name, start in (("cat", 0), ("dog", 3), ("empty", 6)):
        (tmp_path / name).mkdir()
        for i in range(start, min(start + 3, 6)):
            (tmp_path / name / f"{i} a.b.jpg").write_bytes(jpeg(i))
    return tmp_path


def test_class_folders_give_labels(class_folders):
    (batch,) = fl.Loader(str(class_folders), 6, {"image": fl.Image(size=8), "label": fl.Int()})
    labels = [0 if key.startswith("cat/") else 1 for key in batch["__key__"]]
    assert batch["label"].tolist() == labels
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]


def test_labels_from_folders_need_no_file_and_leave_alternatives_their_place(class_folders):
    (batch,) = fl.Loader(str(class_folders), 6, {"label": fl.Int("cls;index")}, shuffle=False)
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1]
    for i in range(6):
        folder = class_folders / ("cat" if i < 3 else "dog")
        (folder / f"{i} a.b.index").write_text(str(10 * i))
    loader = fl.Loader(str(class_folders), 6, {"label": fl.Int("cls;index")}, shuffle=False)
    assert next(iter(loader))["label"].tolist() == [0, 10, 20, 30, 40, 50]


def test_a_folder_with_sidecars_is_read_file_by_file(tmp_path):
    for i in range(5):
        (tmp_path / f"photo {i}.JPG").write_bytes(jpeg(i))
        (tmp_path / f"photo {i}.txt").write_text(f"caption {i}\n")
    fields = {"image": fl.Image(size=8), "text": fl.Text(), "raw": fl.Bytes("jpg")}
    (batch,) = fl.Loader(str(tmp_path), 5, fields)
    for key, text, raw in zip(batch["__key__"], batch["text"], batch["raw"], strict=True):
        i = int(key[-1])
        assert (text, raw) == (f"caption {i}", jpeg(i))


def test_a_zip_gives_images_and_the_labels_of_its_dataset_json(tmp_path):
    path = tmp_path / "set.zip"
    table = [[f"00/img{i}.jpg", i % 3] for i in range(7)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i in range(7):
            archive.writestr(f"00/img{i}.jpg", jpeg(i))
        archive.writestr("dataset.json", json.dumps({"labels": table}))
    fields = {"image": fl.Image(size=8), "label": fl.Int(), "raw": fl.Bytes("jpg")}
    (batch,) = fl.Loader(str(path), 7, fields)
    numbers = [int(key[-1]) for key in batch["__key__"]]
    assert batch["label"].tolist() == [i % 3 for i in numbers]
    assert batch["raw"] == [jpeg(i) for i in numbers]


def test_a_list_of_sources_is_one_dataset(tmp_path):
    write(tmp_path / "a", [sample(i) for i in range(3)])
    write(tmp_path / "b", [sample(i) for i in range(3, 5)])
    loader = fl.Loader(
        [tmp_path / "a" / "000.tar", str(tmp_path / "b")], 5, {"label": fl.Int()}, shuffle=False
    )
    assert next(iter(loader))["label"].tolist() == [0, 1, 2, 3, 4]


def test_an_image_field_of_one_pixel_comes_through(tmp_path):
    dot = Image.fromarray(np.full((1, 1, 3), 9, np.uint8))
    write(tmp_path, [{"__key__": "0", "png": corpus.encode(dot, "PNG")}])
    (batch,) = fl.Loader(str(tmp_path), 1, {"image": fl.Image(size=1)}, dtype="uint8")
    assert batch["image"].flatten().tolist() == [9, 9, 9]


def drawing(content, draw):
    return [draw.uniform(), draw.integer(1000), draw.choice("abcdef")]


def test_a_function_that_draws_gets_the_same_numbers_for_a_sample_however_it_is_loaded(shards):
    fields = {"one": fl.Custom("txt", drawing, draws=True), "other": fl.Custom("txt", drawing, draws=True)}

    def drawn(batch_size=3, **arguments):
        """(position, field) -> the numbers"""
        found = {}
        for batch in fl.Loader(shards, batch_size, fields, last="partial", **arguments):
            for i, position in enumerate(batch["__position__"].tolist()):
                found.update({(position, name): tuple(batch[name][i]) for name in fields})
        return found

    expected = drawn()
    assert len(expected) == 46 == len(set(expected.values()))  # of fields and of positions: all differ
    assert drawn(5, threads=3, prefetch=1) == expected
    parts = [drawn(2, rank=rank, world_size=2) for rank in (0, 1)]
    both = parts[0] | parts[1]
    assert len(both) == 44 and both.items() <= expected.items()
    assert set(drawn(seed=1).values()).isdisjoint(expected.values())
    later = drawn(epochs=2)
    assert {key: value for key, value in later.items() if key[0] < 23} == expected
    assert len(set(later.values())) == 92


def test_draws_must_be_a_bool():
    with pytest.raises(fl.ConfigError, match="draws='yes'"):
        fl.Custom("txt", drawing, draws="yes")
