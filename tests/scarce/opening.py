"""A program: what comes of opening a kind of source with n descriptors left, for each n up to MOST.

Arguments: a folder, and the name of a kind below. It prints one line "n, first or again: outcome" for each
try: "fine", or the exception. The first try of an n finds no index, the second one the index that was made.
"""

import json
import os
import resource
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

import fastload as fl
from fastload import _native
from fastload.prepare.check import check
from fastload.prepare.index import index
from fastload.prepare.info import info
from fastload.shards import retry
from fastload.shards.writer import ShardWriter
from tests.scarce.descriptors import outcome

MOST = 22
LIMIT = 256
IMAGES = {"x": fl.Image(size=16)}
LABELLED = {**IMAGES, "y": fl.Int("cls")}


def jpeg(number: int) -> bytes:
    out = BytesIO()
    Image.fromarray(np.full((16, 16, 3), number * 9, np.uint8)).save(out, "jpeg")
    return out.getvalue()


def shards(folder: Path, most: int = 2) -> Path:
    with ShardWriter(str(folder / "set" / "%02d.tar"), max_samples=most) as writer:
        for number in range(8):
            writer.write({"__key__": f"{number:02d}", "jpg": jpeg(number), "cls": number})
    return folder / "set"


def images(folder: Path, *inner: str) -> Path:
    for number in range(8):
        home = folder / "images" / inner[number % len(inner)] if inner else folder / "images"
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{number}.jpg").write_bytes(jpeg(number))
    return folder / "images"


def zipped(folder: Path) -> str:
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_STORED) as out:
        labels = [[f"{number}.jpg", number] for number in range(8)]
        out.writestr("dataset.json", json.dumps({"labels": labels}))
        for number in range(8):
            out.writestr(f"{number}.jpg", jpeg(number))
    return str(folder / "set.zip")


def loaded(source, fields=LABELLED):
    def first_batch():
        with fl.Loader(source, 8, fields, device="cpu", threads=2, ledger=None) as loader:
            assert sum(len(batch["x"]) for batch in loader) == 8

    return first_batch


def named(folder: Path) -> fl.Files:
    return fl.Files(sorted(str(path) for path in images(folder).iterdir()), labels=range(8))


def mixed(folder: Path):
    sources = {"one": (str(shards(folder)), 1), "other": (str(images(folder, "a", "b")), 1)}
    return loaded(fl.Mixture(sources, epoch_samples=8), IMAGES)


KINDS = {
    "tar": lambda folder: loaded(shards(folder, most=8) / "00.tar"),
    "tars": lambda folder: loaded(sorted(shards(folder).iterdir())),
    "folder of tars": lambda folder: loaded(shards(folder)),
    "zip": lambda folder: loaded(zipped(folder)),
    "images": lambda folder: loaded(images(folder), IMAGES),
    "classes": lambda folder: loaded(images(folder, "cat", "dog")),
    "files": lambda folder: loaded(named(folder)),
    "mixture": mixed,
    "glob": lambda folder: loaded(str(shards(folder) / "*.tar")),
    "deep glob": lambda folder: loaded(str(shards(folder).parent / "**" / "*.tar")),
    "braces": lambda folder: loaded(str(shards(folder) / "{00..03}.tar")),
    "info": lambda folder: _call(info, shards(folder)),
    "index": lambda folder: _call(index, shards(folder)),
    "index beside": lambda folder: _call(index, shards(folder), beside=True),
    "check": lambda folder: _call(check, shards(folder), threads=2),
    "writer": lambda folder: _call(shards, folder),
}


def _call(function, *arguments, **named):
    return lambda: function(*arguments, **named)


def make_impatient() -> None:
    retry.PAUSES_SECONDS = (0.001,)
    made = _native.ShardReader

    def reader(threads):
        one = made(threads)
        one.backoff_seconds = [0.001, 0.001]
        return one

    _native.ShardReader = reader


def main(folder: Path, kind: str) -> None:
    make_impatient()
    os.environ["FASTLOAD_CACHE"] = str(folder / "warm")
    call = KINDS[kind](folder)
    call()  # imports what it needs
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    for free in range(MOST + 1):
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            os.environ["FASTLOAD_CACHE"] = cache
            print(f"{free}, first: {outcome(call, free)}")
            call()
            print(f"{free}, again: {outcome(call, free)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
