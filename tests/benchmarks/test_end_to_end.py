"""The harness that judges fastload is judged here: its corpora, its check of outputs, its records."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.end_to_end import corpora, harness, machine, report, targets, window
from benchmarks.end_to_end.agreement import compare
from benchmarks.end_to_end.competitors import COMPETITORS, Competitor
from benchmarks.end_to_end.peers import Decoded, pillow_dataloader

PHOTOS = Path(__file__).resolve().parents[1] / "data" / "photos"
COUNT, BATCH = 32, 16


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    kind = corpora.Kind("in500", 500, 375, COUNT)
    return corpora.make(kind, PHOTOS, tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def batches(corpus):
    """Two batches of the Pillow peer, in this process."""
    torch.manual_seed(0)
    stream = pillow_dataloader.make(corpus, BATCH, 0, seed=0)
    return [next(stream), next(stream)]


def settings(tmp_path, corpus, **more):
    return harness.Settings(
        photos=PHOTOS, cache=corpus.folder.parent, corpora=("in500",), count=COUNT, **more
    )


def test_shards_and_files_of_a_corpus_hold_the_same_jpegs(corpus):
    stored = {}
    for path in corpus.shards:
        with tarfile.open(path) as tar:
            stored |= {member.name: tar.extractfile(member).read() for member in tar}
    assert [name for name in stored if name.endswith(".jpg")] == [Path(path).name for path in corpus.files]
    for index, path in enumerate(corpus.files):
        assert stored[f"{index:06d}.jpg"] == Path(path).read_bytes()
        assert stored[f"{index:06d}.cls"] == str(index).encode()
    assert sum(len(jpeg) for name, jpeg in stored.items() if name.endswith(".jpg")) == corpus.jpeg_bytes


def test_images_of_a_corpus_are_baseline_420_of_the_size_asked_for(corpus):
    with Image.open(corpus.files[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (500, 375))
        assert [(across, down) for _, across, down, _ in image.layer] == [(2, 2), (1, 1), (1, 1)]
        assert "progressive" not in image.info
    assert (corpus.count, corpus.photos, corpus.enlarged) == (COUNT, len(list(PHOTOS.glob("*.jpg"))), 0)


def test_a_corpus_is_drawn_once_and_again_only_where_it_is_incomplete(corpus):
    kind = corpora.Kind("in500", 500, 375, COUNT)
    first = {path: os.stat(path).st_mtime_ns for path in corpus.files}
    assert corpora.make(kind, PHOTOS, corpus.folder.parent) == corpus
    assert {path: os.stat(path).st_mtime_ns for path in corpus.files} == first
    contents = [Path(path).read_bytes() for path in corpus.files]
    (corpus.folder / "manifest.json").unlink()
    assert corpora.make(kind, PHOTOS, corpus.folder.parent) == corpus
    assert [Path(path).read_bytes() for path in corpus.files] == contents


def test_photos_too_small_are_enlarged_and_counted(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "small.png")
    made = corpora.make(corpora.Kind("big", 64, 64, 3), tmp_path, tmp_path / "cache")
    assert (made.enlarged, len(made.files), len(made.shards)) == (3, 3, 3)


def test_a_folder_without_photos_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no photo there"):
        corpora.make(corpora.KINDS["in500"], tmp_path, tmp_path / "cache")


def test_the_pillow_peer_delivers_the_reference_shuffled_and_mirrored(corpus, batches):
    found = compare(batches, corpus, bound_levels=0.01, batch_size=BATCH)
    assert found["faults"] == []
    assert (found["images"], found["different_images"]) == (2 * BATCH, 2 * BATCH)
    assert 0.3 < found["mirrored_share"] < 0.7


def test_outputs_that_are_wrong_are_told_from_those_that_are_right(corpus, batches):
    def faults(change):
        return compare([change(batch) for batch in batches], corpus, 0.01, BATCH)["faults"]

    upright = torch.from_numpy(corpus.reference()[:BATCH].transpose(0, 3, 1, 2) / np.float32(127.5) - 1)
    assert "mean difference" in faults(lambda batch: batch.roll(1, dims=-1))[0]
    assert "is mirrored" in faults(lambda batch: upright)[0]
    assert "only 2 different" in faults(lambda batch: batch[:1].repeat(BATCH, 1, 1, 1))[-1]
    assert "values lie in" in faults(lambda batch: batch / 2 + 0.5)[0]
    assert "float16" in faults(lambda batch: batch.half())[0]
    assert "a batch is (15," in faults(lambda batch: batch[1:])[0]


def test_a_decoded_image_is_compared_after_the_resize_of_the_reference(corpus):
    decoded = [Decoded(1, np.asarray(Image.open(path))) for path in corpus.files[:2]]
    assert compare(decoded, corpus, 0.01, BATCH)["faults"] == []
    smaller = [Decoded(1, np.asarray(Image.open(path).reduce(2))) for path in corpus.files[:2]]
    assert compare(smaller, corpus, 0.01, BATCH)["faults"] != []


def test_competitors_take_turns_and_the_harder_modes_are_for_some(tmp_path, corpus):
    chosen = [c for c in COMPETITORS if c.name in ("decode_limit", "pillow_dataloader", "pillow_draft")]
    taken = harness.turns([corpus], chosen, settings(tmp_path, corpus, rounds=2, spinner=True, step_ms=5.0))
    each = [("decode_limit", mode) for mode in ("quiet", "spinner", "step")] + [
        ("pillow_dataloader", "quiet")
    ]
    assert [(turn.competitor.name, turn.mode) for turn in taken] == each * 2


def test_a_window_that_fails_or_hangs_is_recorded_with_its_reason(tmp_path, corpus, monkeypatch):
    nobody = Competitor("nobody", "nobody", ("torch",), "none", 0.0)
    absent = Competitor("absent", "absent", ("no_such_package", "no_such.part", "torch"), "none", 0.0)
    monkeypatch.setattr(harness, "COMPETITORS", (nobody, absent))
    result = harness.run(settings(tmp_path, corpus, rounds=2))
    assert result["absent"] == {"absent": "not installed: no_such_package, no_such.part"}
    assert [failed["competitor"] for failed in result["failures"]] == ["nobody"]  # not tried again in round 2
    assert "exit code 2: " in result["failures"][0]["reason"]
    turn = harness.Turn(corpus, COMPETITORS[0], "quiet", 0)
    slow = harness._in_own_process(turn, settings(tmp_path, corpus, timeout_seconds=0.01))
    assert "no result after" in slow["failure"]


def test_a_result_is_written_as_json_and_as_tables_with_losses_and_absences(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(harness, "COMPETITORS", ())
    result = harness.run(settings(tmp_path, corpus))
    result["competitors"] = [
        {"name": name, "role": role, "resize": "some", "scaled_decode": False, "full_bicubic": True}
        for name, role in (("decode_limit", "limit"), ("fastload", "fastload"), ("other", "peer"))
    ]
    for name, rates in {
        "decode_limit": (90, 100, 110),
        "fastload": (70, 60, 50),
        "other": (50, 40, 30),
    }.items():
        for number, rate in enumerate(rates):
            row = {"corpus": "in500", "competitor": name, "mode": "quiet", "round": number, "seconds": 1.0}
            row |= {"images_per_second": rate, "cpu_seconds_per_1000": 2.0, "first_batch_seconds": 0.1}
            result["windows"].append(row | {"others_cpu_seconds": 0.25, "described": None})
    result["absent"] = {"gone": "not installed: gone"}
    result["summary"] = harness.summarise(result["windows"])
    result["verdicts"] = targets.verdicts(result)
    stored, page = report.write(result, tmp_path)
    assert json.loads(stored.read_text()) == json.loads(json.dumps(result))
    text = page.read_text()
    assert "| fastload | 60 | 50 - 70 | 60 % | 1.00x | 2.00 | 0.1 | - | some |" in text
    assert "| in500 | fastload / best peer | 2.5 | 1.500 | **missed** |" in text
    assert "- gone: not installed: gone" in text
    assert "up to 0.25 CPUs" in text
    assert str(PHOTOS) not in text + stored.read_text()


def test_cpu_seconds_count_the_whole_process_tree():
    burn = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(5)"

    def of_children():
        return window.tree_cpu_seconds(os.getpid()) - time.process_time()

    before = of_children()
    child = subprocess.Popen([sys.executable, "-c", burn])
    deadline = time.monotonic() + 5
    while (used := of_children() - before) < 0.25 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert used >= 0.25


def test_paths_are_cut_from_what_goes_into_a_result():
    assert machine.without_paths("cannot open /a/b-c/lib.so.1: gone") == "cannot open lib.so.1: gone"
    assert machine.without_paths("18 images/s, 3/4") == "18 images/s, 3/4"


def test_the_reference_of_a_square_of_the_target_size_is_the_image_itself():
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert np.array_equal(corpora.pillow_pixels(Image.open(file), 256), pixels)
