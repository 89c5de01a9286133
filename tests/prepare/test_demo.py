"""The demo: the fields that the data has, the numbers, and a sheet whose halves show the same samples."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fastload import cli
from fastload.errors import ConfigError, FieldError, SourceError
from fastload.prepare import demo as module
from fastload.prepare import demo_images
from fastload.prepare.common import pipeline
from fastload.prepare.common.pillow_peer import short_side_center_crop
from fastload.prepare.common.stored import read_bytes, read_stored
from fastload.prepare.demo import demo
from fastload.shards.dataset import open_dataset
from fastload.shards.writer import ShardWriter
from tests.prepare.pictures import jpeg


@pytest.fixture
def sheet_pairs(monkeypatch):
    """The pairs that a demo puts on its sheet."""
    pairs = []
    monkeypatch.setattr(
        "fastload.prepare.common.contact_sheet.contact_sheet",
        lambda drawn, *_: pairs.extend(drawn) or Image.new("RGB", (1, 1)),
    )
    return pairs


def run(source, tmp_path, **options):
    return demo(
        source, **{"seconds": 0.05, "size": 32, "threads": 1, "out": tmp_path / "sheet.png", **options}
    )


def test_shards_are_trained_on_and_reported(shards, tmp_path):
    report = run(shards, tmp_path)
    assert (report.samples, report.shards, report.batch_size) == (20, 3, 20)
    assert report.extensions == {"jpg": 20, "cls": 20, "txt": 20}
    assert report.stats["images"] >= 20 and report.problems == 0
    with Image.open(report.sheet) as sheet:
        assert sheet.format == "PNG" and min(sheet.size) > 500


def test_the_report_is_json_and_text(shards, tmp_path):
    report = run(shards, tmp_path, batch_size=5)
    assert json.loads(json.dumps(report.to_dict()))["cpu_seconds_per_1000_images"] > 0
    text = report.render()
    for word in ("images/s", "CPU s per 1000 images", "first batch after", "<- limits", "sheet.png"):
        assert word in text


def test_fields_are_those_that_the_data_has(shards, class_folders, tmp_path, loader_calls):
    run(shards, tmp_path)
    assert set(loader_calls[-1]["fields"]) == {"image", "label", "caption"}
    run(class_folders, tmp_path)
    assert set(loader_calls[-1]["fields"]) == {"image", "label"}


def test_the_pipeline_is_the_default_one(shards, tmp_path, loader_calls):
    demo(shards, seconds=0.05, out=tmp_path / "sheet.png")
    (settings,) = loader_calls
    assert settings["fields"]["image"].size == (256, 256)
    assert (settings["augment"].xflip, settings["normalize"], settings["epochs"]) == (0.5, "gan", None)
    assert settings["batch_size"] == 20  # 64, but no more than there are


def test_a_field_that_some_samples_lack_gets_a_default(tmp_path):
    with ShardWriter(tmp_path / "some-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": jpeg(0), "txt": "first", "cls": 4})
        writer.write({"__key__": "b", "jpg": jpeg(1)})
    chosen = pipeline.choose_fields(open_dataset(tmp_path / "some-0.tar"), size=32)
    assert (chosen["label"].default, chosen["caption"].default) == (-1, "")
    assert chosen["image"].required


def test_an_image_under_an_unusual_name_is_found(tmp_path):
    with ShardWriter(tmp_path / "named-%d.tar") as writer:
        writer.write({"__key__": "a", "left.jpg": jpeg(0), "right.jpg": jpeg(1)})
        writer.write({"__key__": "b", "right.jpg": jpeg(1)})
    assert pipeline.image_extensions(open_dataset(tmp_path / "named-0.tar")) == ("right.jpg",)


def test_data_without_images_is_an_error_that_names_the_extensions(tmp_path):
    with ShardWriter(tmp_path / "text-%d.tar") as writer:
        writer.write({"__key__": "a", "txt": "words", "json": {}})
    with pytest.raises(FieldError, match=r"no sample has an image; the extensions are: json, txt\."):
        run(tmp_path / "text-0.tar", tmp_path)


def test_both_halves_of_every_pair_show_the_same_sample(shards, tmp_path, sheet_pairs):
    run(shards, tmp_path, batch_size=7)
    assert len(sheet_pairs) == module.SHEET_SAMPLES
    for pair in sheet_pairs:
        key, size = re.match(r"(\d{4}) . (\d+) x 90 JPEG", pair.title).groups()
        assert int(size) == 60 + 7 * int(key) == pair.stored.width
        assert pair.note == f"cls {int(key) % 3} \N{MIDDLE DOT} caption {int(key)}"
        expected = np.asarray(short_side_center_crop(pair.stored, 32), np.int16)
        trained = np.asarray(pair.trained, np.int16)
        flips = (np.abs(trained - expected).mean(), np.abs(trained[:, ::-1] - expected).mean())
        assert min(flips) < 2.0  # levels; decoding at half size moves some by a few


@pytest.mark.filterwarnings("ignore:a bad sample was replaced")
def test_a_bad_sample_stops_no_demo_and_is_not_on_the_sheet(tmp_path, sheet_pairs):
    with ShardWriter(tmp_path / "odd-%d.tar") as writer:
        for number in range(12):
            writer.write({"__key__": f"{number:04d}", "jpg": b"" if number == 4 else jpeg(number)})
    report = run(tmp_path / "odd-0.tar", tmp_path, batch_size=6, seconds=0.3)
    assert report.stats["bad_samples"] >= 1
    assert len(sheet_pairs) > 0 and not any(pair.title.startswith("0004") for pair in sheet_pairs)
    for pair in sheet_pairs:
        ours = np.asarray(pair.trained, np.int16)
        theirs = np.asarray(short_side_center_crop(pair.stored, 32), np.int16)
        assert min(np.abs(ours - theirs).mean(), np.abs(ours[:, ::-1] - theirs).mean()) < 2.0


def test_class_folders_are_named_on_the_sheet(class_folders, tmp_path, sheet_pairs):
    run(class_folders, tmp_path)
    assert {pair.note for pair in sheet_pairs} == {"cats", "dogs"}


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_of_nothing_is_refused(shards, tmp_path, seconds):
    with pytest.raises(ConfigError, match="give a time above 0"):
        run(shards, tmp_path, seconds=seconds)


@pytest.mark.parametrize("out, says", [("sheet.jpg", r"\.png"), ("no/such/sheet.png", "does not exist")])
def test_a_sheet_that_cannot_be_written_is_told_before_the_work(shards, tmp_path, out, says, loader_calls):
    with pytest.raises(ConfigError, match=says):
        run(shards, tmp_path, out=tmp_path / out)
    assert loader_calls == []


def test_a_missing_source_is_one_line_and_exit_code_one(tmp_path, capsys):
    assert cli.main(["demo", str(tmp_path / "none.tar"), "--out", str(tmp_path / "s.png")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fastload: error: ") and err.count("\n") == 1


def test_a_missing_source_is_a_source_error(tmp_path):
    with pytest.raises(SourceError):
        run(tmp_path / "none", tmp_path)


@pytest.mark.parametrize("option, value", [("--size", "0"), ("--batch-size", "21"), ("--seconds", "0")])
def test_a_wrong_number_is_wrong_usage(shards, tmp_path, capsys, option, value):
    assert cli.main(["demo", str(shards), "--out", str(tmp_path / "s.png"), option, value]) == 2
    assert "fastload: error: " in capsys.readouterr().err


def test_without_a_source_it_draws_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_images, "DRAWINGS_PER_KIND", 1)
    monkeypatch.setattr(demo_images, "CUTS_PER_DRAWING", 1)
    words = ["demo", "--json", "--seconds", "0.05", "--size", "16", "--out", str(tmp_path / "s.png")]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["samples"] == len(demo_images.KINDS)
    assert "drawing samples" in captured.err and "training" in captured.err


def test_a_turned_photo_is_shown_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    with ShardWriter(tmp_path / "turned-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": jpeg(0, 96, 64, exif=turned)})
    stored = read_stored(open_dataset(tmp_path / "turned-0.tar"), 0, ("jpg",))
    assert (stored.width, stored.height) == stored.picture.size == (64, 96)


def test_stored_bytes_are_read_back_exactly(shards, class_folders):
    for source, sample_id, number in ((shards, 13, 13), (class_folders, 4, 1)):
        read = read_bytes(open_dataset(source), sample_id, ("png", "jpg"))
        with Image.open(io.BytesIO(read)) as image:
            image.load()
        assert read == (jpeg(number, 60 + 7 * number, 90) if source is shards else jpeg(number))
