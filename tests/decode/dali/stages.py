"""DALI's stages for the tests, photos, files that it fails at, and the reference's pixels."""

import dataclasses

import numpy as np
import pytest
import torch

from fastload import backends
from fastload.decode.dali.stage import DaliStage
from fastload.decode.pillow import decode_image
from fastload.decode.spec import DEFAULT_MAX_PIXELS
from tests import corpus

SEED = 11
needs_dali = pytest.mark.skipif(
    not backends.has("nvidia.dali"), reason="DALI is not installed: pip install nvidia-dali-cuda130"
)
PHOTOS = list(corpus.photos().values())
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))
on_each_device = pytest.mark.parametrize("device", ["cpu", GPU])


def a_stage(specs, device="cpu", **settings):
    specs = specs if isinstance(specs, dict) else {"image": specs}
    given = {"threads": 2, "max_batch": 256, "seed": SEED, "max_pixels": DEFAULT_MAX_PIXELS, "in_flight": 8}
    return DaliStage(specs, device=device, **{**given, **settings})


def finished(batch):
    """(pixels on the host, errors, rows) of the field "image"."""
    field = batch.finish()["image"]
    pixels = field.pixels.cpu().numpy()
    if field.pixels.is_cuda:
        event = torch.cuda.Event()
        event.record()
        batch.release(event)
    return pixels, field.errors, field.rows


def decoded(stage, blobs, positions=None, guides=None):
    positions = np.arange(len(blobs)) if positions is None else positions
    return finished(stage.submit({"image": blobs}, positions, guides and {"image": guides}))


def reference(blobs, spec, positions=None, guides=None):
    spec = dataclasses.replace(spec, scaled=None)
    positions, guides = positions or range(len(blobs)), guides or [None] * len(blobs)
    return [
        decode_image(blob, spec, SEED, position, guide=guide)
        for blob, position, guide in zip(blobs, positions, guides, strict=True)
    ]


def with_bad_tables(jpeg):
    """Its header is fine, and no decoder takes its Huffman tables: DALI's run fails."""
    place = jpeg.index(b"\xff\xc4") + 5
    return jpeg[:place] + b"\xff" * 16 + jpeg[place + 16 :]


def with_bad_rows(png):
    """A PNG with damage in the middle of its pixels."""
    middle = len(png) // 2
    return png[:middle] + bytes(255 - byte for byte in png[middle : middle + 60]) + png[middle + 60 :]


FAILING = {
    "jpeg tables": with_bad_tables(PHOTOS[0]),
    "png rows": with_bad_rows(corpus.encode(corpus.picture(200, 150), "PNG")),
    "bmp cut": corpus.broken()["bmp cut"],
}
