"""`fastload demo`: the fields that the data has, the numbers, a sheet whose halves show the same samples."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastload import cli
from fastload.errors import ConfigError, FieldError
from fastload.prepare import demo as module
from fastload.prepare.common.pillow_peer import short_side_center_crop
from fastload.prepare.demo import demo
from fastload.shards.writer import ShardWriter
from tests.prepare.pictures import jpeg


@pytest.fixture
def sheet_pairs(monkeypatch):
    """The pairs that a demo puts on its sheet, which is not drawn: that takes most of a short demo's time."""
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


def test_the_report_is_json_and_text(shards, tmp_path, sheet_pairs):
    report = run(shards, tmp_path, batch_size=5)
    assert json.loads(json.dumps(report.to_dict()))["cpu_seconds_per_1000_images"] > 0
    text = report.render()
    for word in ("images/s", "CPU s per 1000 images", "first batch after", "<- limits", "sheet.png"):
        assert word in text


def test_fields_are_those_that_the_data_has(shards, class_folders, tmp_path, loader_calls, sheet_pairs):
    run(shards, tmp_path)
    assert set(loader_calls[-1]["fields"]) == {"image", "label", "caption"}
    run(class_folders, tmp_path)
    assert set(loader_calls[-1]["fields"]) == {"image", "label"}


def test_the_pipeline_is_the_default_one(shards, tmp_path, loader_calls, sheet_pairs):
    demo(shards, seconds=0.05, out=tmp_path / "sheet.png")
    (settings,) = loader_calls
    assert settings["fields"]["image"].size == (256, 256)
    assert (settings["augment"].xflip, settings["normalize"], settings["epochs"]) == (0.5, "gan", None)
    assert settings["batch_size"] == 20  # 64, but no more than there are


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
        assert min(flips) < 2.0  # of 255; decoding at half size changes some by a few


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
def test_seconds_must_be_positive(shards, tmp_path, seconds):
    with pytest.raises(ConfigError, match=f"seconds must be above 0, got {seconds}"):
        run(shards, tmp_path, seconds=seconds)


@pytest.mark.parametrize("out, says", [("sheet.jpg", r"\.png"), ("no/such/sheet.png", "does not exist")])
def test_a_wrong_name_for_the_sheet_is_refused_before_the_work(shards, tmp_path, out, says, loader_calls):
    with pytest.raises(ConfigError, match=says):
        run(shards, tmp_path, out=tmp_path / out)
    assert loader_calls == []


@pytest.mark.parametrize("option, value", [("--size", "0"), ("--batch-size", "21"), ("--seconds", "0")])
def test_a_wrong_number_is_wrong_usage(shards, tmp_path, capsys, option, value):
    assert cli.main(["demo", str(shards), "--out", str(tmp_path / "s.png"), option, value]) == 2
    assert "fastload: error: " in capsys.readouterr().err


def test_a_missing_source_is_one_line_and_exit_code_one(tmp_path, capsys):
    assert cli.main(["demo", str(tmp_path / "none.tar"), "--out", str(tmp_path / "s.png")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("fastload: error: ") and err.count("\n") == 1


def test_without_a_source_it_makes_its_own_samples(tmp_path, capsys, sheet_pairs):
    words = ["demo", "--json", "--seconds", "0.05", "--size", "16", "--out", str(tmp_path / "s.png")]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert (report["samples"], report["extensions"].keys()) == (200, {"jpg", "cls", "txt"})
    assert "making samples: butterfly" in captured.err and "training" in captured.err


def test_the_first_batch_is_timed_from_the_start_of_the_command(shards, tmp_path, sheet_pairs):
    began = time.monotonic()
    report = run(shards, tmp_path, started=began - 100)
    assert 100 < report.first_batch_seconds < 100 + time.monotonic() - began
    assert f"start-up       {report.first_batch_seconds:.1f} s from the command" in report.render()
    assert run(shards, tmp_path).first_batch_seconds < time.monotonic() - began


def test_the_command_tells_the_demo_when_it_started(shards, tmp_path, monkeypatch, capsys):
    ticks = iter(range(1000))
    monkeypatch.setattr(cli.time, "monotonic", lambda: float(next(ticks)))
    at = []
    monkeypatch.setattr(module, "demo", lambda started, **_: at.append(started))
    with pytest.raises(AttributeError):  # there is no report to print
        cli.main(["demo", str(shards)])
    assert at == [0.0]


def test_the_report_is_printed_before_the_error_of_a_sheet_that_cannot_be_written(
    shards, tmp_path, capfd, sheet_pairs
):
    out = tmp_path / "sheet.png"
    out.mkdir()
    assert cli.main(["demo", str(shards), "--seconds", "0.05", "--size", "16", "--out", str(out)]) == 1
    printed, err = capfd.readouterr()
    assert "images/s" in printed and "contact sheet  not written" in printed
    assert err.splitlines()[-1] == (
        f"fastload: error: {out}: the contact sheet was not written: Is a directory. Name another file with "
        "--out."
    )


def test_a_full_disk_loses_no_numbers(shards, tmp_path, monkeypatch, sheet_pairs):
    def full(image, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Image.Image, "save", full)
    report = run(shards, tmp_path)
    assert report.stats["images"] >= 20 and report.sheet is None
    assert "sheet.png: the contact sheet was not written: No space left on device. Name" in report.error
    assert json.loads(json.dumps(report.to_dict()))["error"] == report.error


@pytest.mark.parametrize(
    "harm, says",
    [(Path.unlink, r"No such file.*dogs/1\.jpg"), (Path.touch, r"dogs/1.*Pillow cannot decode this image")],
)
def test_a_sample_that_is_damaged_before_the_sheet_is_drawn_loses_no_numbers(
    class_folders, tmp_path, monkeypatch, harm, says
):
    train = module._train

    def train_and_harm(*arguments):
        trained = train(*arguments)
        (class_folders / "dogs" / "1.jpg").write_bytes(b"no jpeg")
        harm(class_folders / "dogs" / "1.jpg")
        return trained

    monkeypatch.setattr(module, "_train", train_and_harm)
    report = run(class_folders, tmp_path)
    assert report.stats["images"] >= 6 and report.sheet is None
    assert re.search(f"sheet.png: the contact sheet was not written: .*{says}", report.error)
    assert "--out" not in report.error


@pytest.mark.slow  # on a busy machine it says nothing: an import of torch alone may take longer
def test_the_first_batch_comes_within_3_seconds_of_the_command_on_a_new_machine(tmp_path):
    def seconds(number):
        environment = {**os.environ, "FASTLOAD_CACHE": str(tmp_path / f"empty-{number}")}
        words = ["demo", "--seconds", "0.05", "--out", str(tmp_path / "sheet.png")]
        started = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "fastload.cli", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as command:
            first = next(time.perf_counter() for line in command.stderr if "training: " in line)
            command.stderr.read()
        return first - started

    assert min(seconds(number) for number in range(3)) < 3
