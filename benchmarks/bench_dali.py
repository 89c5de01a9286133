"""What bad samples cost a batch that goes through DALI, on the CPU.

    python -m benchmarks.bench_dali --out bad_samples.json

A batch of 64 JPEGs, alone in flight, from `submit` to the end of `finish`, with and without two bad samples
in it: broken Huffman tables (DALI fails: the bad ones are found, the others run again), cut in half and cut
in the header (found before DALI sees them). Geometries: `resized` is photos to 256x256, bicubic, short side
and centre crop; `cropped` is photos of 256x256 that need no resizing, where decoding is all there is and the
second run weighs most. The kinds take turns round by round; the medians of the rounds and their ratios are
written. Checked along the way: the good samples are the same in every kind, and exactly the bad ones are
reported.
"""

import argparse
import io
import json
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.end_to_end.machine import commit, machine
from fastload.decode.dali import DaliStage
from fastload.decode.spec import ImageSpec

PHOTOS = Path(__file__).resolve().parents[1] / "tests" / "data" / "photos"
BATCH, SIDE, BAD = 64, 256, (3, 40)


def corpora(photos: Path) -> dict[str, list[bytes]]:
    """Geometry -> the JPEGs of a batch."""
    files = sorted(photos.glob("*.jpg"))
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


def round_to(number: float) -> float:
    return round(number, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description="What bad samples cost a batch that goes through DALI.")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder of JPEGs of 256x256 and more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="where the JSON goes; it is printed in any case")
    given = parser.parse_args()
    result = {
        **commit(),
        "machine": machine(),
        "settings": {"batch": BATCH, "bad": list(BAD), "threads": given.threads, "rounds": given.rounds},
        "geometries": {
            name: measure(jpegs, given.threads, given.rounds) for name, jpegs in corpora(given.photos).items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
