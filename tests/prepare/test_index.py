"""`fastload index`: a missing or stale index is built, an up-to-date one is kept."""

import json
import os

import pytest

from fastload import cli
from fastload.errors import ConfigError, SourceError
from fastload.prepare.index import index


def test_an_index_is_rebuilt_only_when_its_shard_changes(shards, tmp_path):
    folder = tmp_path / "indexes"
    assert [index(shards, cache_dir=folder).built for _ in range(2)] == [3, 0]
    os.utime(shards / "00001.tar", ns=(1, 1))
    assert index(shards, cache_dir=folder).built == 1


def test_beside_writes_an_index_next_to_every_shard(shards, tmp_path):
    report = index(shards, beside=True, threads=2)
    assert report.built == 3 and report.written_to == "beside the shards"
    assert len([name for name in os.listdir(shards) if not name.endswith(".tar")]) == 3
    assert index(shards, cache_dir=tmp_path / "other").built == 0


def test_the_report_counts_what_was_found(shards, tmp_path):
    report = index(shards, cache_dir=tmp_path / "indexes")
    assert (report.samples, report.shards, report.extensions["txt"]) == (20, 3, 20)
    text = report.render()
    assert "3 (3 indexed now, 0 up to date)" in text and str(tmp_path / "indexes") in text


def test_progress_ends_at_100_percent(shards, tmp_path):
    calls = []
    index(shards, cache_dir=tmp_path / "indexes", progress=lambda *call: calls.append(call))
    assert calls[-1] == (1.0, "3 of 3 shards opened")


def test_wrong_arguments_are_refused(shards, tmp_path, capsys):
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        index(shards, threads=0)
    with pytest.raises(SourceError):
        index(tmp_path / "none")
    assert cli.main(["index", str(shards), "--beside", "--cache-dir", str(tmp_path)]) == 2
    assert "argument --cache-dir: not allowed with argument --beside" in capsys.readouterr().err


def test_index_from_the_command_line(shards, tmp_path, capsys):
    assert cli.main(["index", str(shards), "--cache-dir", str(tmp_path / "indexes"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["samples"] == 20 and "index: 100%" in captured.err
