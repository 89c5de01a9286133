"""`fastload info`: samples, sizes and extensions are counted; the samples shown are evenly spaced."""

import json

import pytest

from fastload import cli
from fastload.prepare import info as info_module
from fastload.prepare.info import info
from fastload.shards.writer import ShardWriter
from tests.prepare.pictures import jpeg


def test_info_counts_samples_containers_and_extensions(shards):
    report = info(shards)
    assert (report.samples, report.bytes_total) == (
        20,
        sum(e.total_bytes for e in report.extensions.values()),
    )
    assert list(report.containers.values()) == [7, 7, 6]
    sizes = [len(jpeg(number, 60 + 7 * number, 90)) for number in range(20)]
    jpg = report.extensions["jpg"]
    assert (jpg.samples, jpg.total_bytes) == (20, sum(sizes))
    assert (jpg.smallest_bytes, jpg.largest_bytes) == (min(sizes), max(sizes))


@pytest.mark.parametrize("chunk", [1, 6, 7, 19, 20, 21])
def test_sizes_do_not_depend_on_the_chunk(shards, monkeypatch, chunk):
    expected = info(shards).extensions
    monkeypatch.setattr(info_module, "CHUNK", chunk)
    assert info(shards).extensions == expected


def test_an_extension_of_some_samples_is_counted_for_those(tmp_path):
    with ShardWriter(tmp_path / "some-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": jpeg(0)})
        writer.write({"__key__": "b", "jpg": jpeg(1), "txt": "four"})
    text = info(tmp_path / "some-0.tar").extensions["txt"]
    assert (text.samples, text.total_bytes, text.smallest_bytes, text.largest_bytes) == (1, 4, 4, 4)


@pytest.mark.parametrize("asked, keys", [(0, []), (1, ["0000"]), (3, ["0000", "0006", "0013"])])
def test_the_samples_shown_are_evenly_spaced(shards, asked, keys):
    shown = info(shards, samples=asked).shown
    assert [sample.key for sample in shown] == keys
    assert all(sample.image == f"{60 + 7 * int(sample.key)} x 90 JPEG RGB" for sample in shown)


def test_no_more_samples_are_shown_than_there_are(shards):
    assert len(info(shards, samples=99).shown) == 20


def test_a_broken_image_is_described_as_such(tmp_path):
    with ShardWriter(tmp_path / "bad-%d.tar") as writer:
        writer.write({"__key__": "a", "jpg": b"no jpeg"})
    (shown,) = info(tmp_path / "bad-0.tar").shown
    assert shown.image == "not an image that Pillow can read"


def test_class_folders_are_counted(class_folders):
    report = info(class_folders)
    assert report.classes == ("cats", "dogs") and "2 class folders" in report.render()


def test_info_from_the_command_line(shards, capsys):
    assert cli.main(["info", str(shards), "--json", "--samples", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["samples"] == 20 and len(printed["shown"]) == 2
    assert cli.main(["info", str(shards)]) == 0
    text = capsys.readouterr().out
    assert "00001.tar" in text and "96" not in text.splitlines()[0].replace(str(shards), "")
    assert cli.main(["info", str(shards), "--samples", "-1"]) == 2


def test_many_containers_are_cut_to_a_few_lines(shards, monkeypatch):
    monkeypatch.setattr(info_module, "CONTAINERS_SHOWN", 2)
    text = info(shards).render()
    assert "... and 1 more" in text and "00002.tar  " not in text.split("container")[2].split("samples\n")[0]
