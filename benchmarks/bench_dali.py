"""What bad samples cost a batch that goes through DALI, and how far its pixels are from Pillow's, on the CPU.

    python -m benchmarks.bench_dali --out bad_samples.json

A batch of 64 JPEGs, alone in flight, from `submit` to the end of `finish`, with and without two bad samples
in it: broken Huffman tables (DALI fails: the bad ones are found, the others run again), cut in half and cut
in the header (found before DALI sees them). Geometries: `resized` is photos to 256x256, bicubic, short side
and centre crop; `cropped` is photos of 256x256 that need no resizing, where decoding is all there is and the
second run weighs most. The kinds take turns round by round; the medians of the rounds and their ratios are
written. Checked along the way: the good samples are the same in every kind, and exactly the bad ones are
reported.

Agreement: every photo in the five GEOMETRIES, each filter, against `decode/pillow.py` at full size
(scaled=None) and as the default has it (scaled="half"): PSNR in dB, mean difference in levels, share of equal
values, and the PSNR without the outermost 4 pixels, as DALI repeats pixels at a border where Pillow leaves
them out.
"""

import argparse
import io
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.end_to_end.machine import commit, machine
from fastload.decode.dali.stage import DaliStage
from fastload.decode.pillow import decode_image
from fastload.decode.spec import ImageSpec

PHOTOS = Path(__file__).resolve().parents[1] / "tests" / "data" / "photos"
BATCH, SIDE, BAD = 64, 256, (3, 40)
BORDER = 4
GEOMETRIES = {
    "short 256, centre": {"height": 256, "width": 256, "xflip": 0.5},
    "short 224, random crop": {"height": 224, "width": 224, "crop": "random"},
    "exact 64": {"height": 64, "width": 64, "resize": "exact"},
    "random crop resized to 224": {"height": 224, "width": 224, "resize": "random", "xflip": 0.5},
    "exact 600 x 800": {"height": 600, "width": 800, "resize": "exact"},
}


def corpora(photos: Path) -> dict[str, list[bytes]]:
    """Geometry -> the JPEGs of a batch."""
    files = sorted(photos.rglob("*.jpg"))
    if not files:
        raise FileNotFoundError(f"{photos}: no photo there (*.jpg). Give --photos DIR.")
    whole = [file.read_bytes() for file in files]
    cropped = []
    for jpeg in whole:
        stream = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).convert("RGB").crop((0, 0, SIDE, SIDE)).save(stream, "JPEG", quality=90)
        cropped.append(stream.getvalue())
    return {
        name: [jpegs[i % len(jpegs)] for i in range(BATCH)]
        for name, jpegs in {"resized": whole, "cropped": cropped}.items()
    }


def with_bad_tables(jpeg: bytes) -> bytes:
    """The same JPEG with Huffman tables that no decoder takes; its header is fine."""
    place = jpeg.index(b"\xff\xc4") + 5
    return jpeg[:place] + b"\xff" * 16 + jpeg[place + 16 :]


KINDS = {
    "good": lambda jpeg: jpeg,
    "bad tables": with_bad_tables,
    "cut in half": lambda jpeg: jpeg[: len(jpeg) // 2],
    "cut in the header": lambda jpeg: jpeg[:100],
}


def batches(jpegs: list[bytes]) -> dict[str, list[np.ndarray]]:
    """Kind -> a batch in which the samples of BAD are of that kind."""
    return {
        kind: [np.frombuffer(spoil(one) if i in BAD else one, np.uint8) for i, one in enumerate(jpegs)]
        for kind, spoil in KINDS.items()
    }


def measure(jpegs: list[bytes], threads: int, rounds: int) -> dict:
    """Milliseconds and ratios of each kind."""
    stage = DaliStage(
        {"image": ImageSpec(SIDE, SIDE)},
        device="cpu",
        threads=threads,
        max_batch=BATCH,
        seed=0,
        max_pixels=10**8,
        in_flight=1,
    )
    of_kind, seconds = batches(jpegs), {kind: [] for kind in KINDS}
    good = [i for i in range(BATCH) if i not in BAD]
    expected = stage.submit({"image": of_kind["good"]}, np.arange(BATCH)).finish()["image"].pixels[good]
    for round in range(rounds + 1):  # the first warms up
        for kind, content in of_kind.items():
            begun = time.perf_counter()
            field = stage.submit({"image": content}, np.arange(BATCH)).finish()["image"]
            taken = time.perf_counter() - begun
            assert sorted(field.errors) == ([] if kind == "good" else list(BAD)), (kind, field.errors)
            assert (field.pixels[good] == expected).all(), f"{kind}: other pixels"
            if round:
                seconds[kind].append(taken)
    stage.close()
    reference = statistics.median(seconds["good"])
    return {
        kind: {
            "median_ms": round_to(statistics.median(taken) * 1e3),
            "min_ms": round_to(min(taken) * 1e3),
            "max_ms": round_to(max(taken) * 1e3),
            "of_good": round_to(statistics.median(taken) / reference),
        }
        for kind, taken in seconds.items()
    }


def agreement(photos: list[bytes], threads: int) -> dict:
    """Filter -> figures over all photos and geometries."""
    found = {}
    for filter in ("bilinear", "bicubic", "lanczos"):
        rows = []
        for geometry in GEOMETRIES.values():
            spec = ImageSpec(**geometry, filter=filter, scaled=None)
            settings = {"threads": threads, "max_batch": len(photos), "seed": 0, "max_pixels": 10**9}
            stage = DaliStage({"image": spec}, device="cpu", in_flight=1, **settings)
            content = [np.frombuffer(photo, np.uint8) for photo in photos]
            field = stage.submit({"image": content}, np.arange(len(photos))).finish()["image"]
            assert not field.errors, field.errors
            for i, photo in enumerate(photos):
                rows.append(_differences(field.pixels[i].numpy(), photo, spec, i))
            stage.close()
        psnr, mean, equal, inner, half = np.array(rows).T
        found[filter] = {
            "median_db": round_to(np.median(psnr)),
            "worst_db": round_to(psnr.min()),
            "mean_levels": round(float(mean.mean()), 3),
            "equal_percent": round_to(100 * equal.mean()),
            "worst_db_without_border": round_to(inner.min()),
            "median_db_to_half": round_to(np.median(half)),
            "worst_db_to_half": round_to(half.min()),
        }
    return found


def _differences(pixels: np.ndarray, photo: bytes, spec: ImageSpec, position: int) -> tuple:
    whole = pixels.astype(np.int16) - decode_image(photo, spec, 0, position).pixels
    half = pixels.astype(np.int16) - decode_image(photo, replace(spec, scaled="half"), 0, position).pixels
    inner = whole[BORDER:-BORDER, BORDER:-BORDER]
    return _psnr(whole), np.abs(whole).mean(), (whole == 0).mean(), _psnr(inner), _psnr(half)


def _psnr(differences: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(float((differences.astype(np.float64) ** 2).mean()), 1e-9))


def round_to(number: float) -> float:
    return round(float(number), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="What bad samples cost a batch that goes through DALI.")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of JPEGs of 256x256 and more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--every", type=int, default=1, help="agreement: only every n-th photo")
    parser.add_argument("--out", type=Path, help="where the JSON goes; it is printed in any case")
    given = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(given.photos.rglob("*.jpg"))[:: given.every]]
    result = {
        **commit(),
        "machine": machine(),
        "settings": {"batch": BATCH, "bad": list(BAD), "threads": given.threads, "rounds": given.rounds},
        "geometries": {
            name: measure(jpegs, given.threads, given.rounds) for name, jpegs in corpora(given.photos).items()
        },
        "agreement": {
            "photos": len(photos),
            "geometries": list(GEOMETRIES),
            **agreement(photos, given.threads),
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
