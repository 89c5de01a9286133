"""Does DALI on the GPU decode what DALI on the CPU and Pillow decode? Photos, and odd files made in code.

Every file goes through the loader's own `DaliStage` with the same geometry, once for each filter and share of
the hardware decoder, and through the reference of decode/pillow.py. The bounds are those that say "this is
the same picture": the rounding of nvJPEG's transforms has not been measured. What DALI's gate leaves to
Pillow is counted, and says nothing about DALI.
"""

import math
from typing import Any

import numpy as np

from benchmarks.gpu.cases import Case, Context, Outcome
from benchmarks.gpu.shapes import DETERMINISTIC_LOADS

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
PIXELS = 40_000_000  # of one file, at most
# Least PSNR in dB. On the CPU, DALI against Pillow: photos 46.8 and more; odd files 26.8 and more, the worst
# of them pictures of two colours, where Pillow rounds overshoots between its passes and DALI does not, and
# ties of the nearest pixel. Another picture, a shift, or swapped channels are below 20.
LEAST_DB = {"photos": 35.0, "odd files": 24.0}


def cases() -> list[Case]:
    return [Case(f"decoding, {filter}", _filter(filter)) for filter in FILTERS] + [
        Case("decoding, no resize", _whole)
    ]


def _filter(filter: str):
    def run(context: Context) -> Outcome:
        from fastload.decode.spec import ImageSpec

        outcome = Outcome()
        photos, odd = _files(context)
        for name, contents, side in (("photos", photos, context.of(256, 64)), ("odd files", odd, 40)):
            spec = ImageSpec(side, side, resize="short", filter=filter, scaled=None)
            _compare(context, outcome, name, contents, spec, LEAST_DB[name])
        return outcome

    return run


def _whole(context: Context) -> Outcome:
    """Every file cropped to what fits, so that pixels are only decoded: one stage for each size of crop."""
    from fastload.decode.image_header import image_header
    from fastload.decode.spec import ImageSpec

    outcome = Outcome()
    photos, odd = _files(context)
    for name, contents in (("photos", photos), ("odd files", odd)):
        sizes: dict[tuple, dict] = {}
        for key, one in contents.items():
            sizes.setdefault(image_header(one).upright, {})[key] = one
        commonest = sorted(sizes.items(), key=lambda item: -len(item[1]))[: context.of(3, 1)]
        for (width, height), some in commonest:
            spec = ImageSpec(height, width, resize="exact", scaled=None)
            _compare(context, outcome, f"{name} {width}x{height}", some, spec, LEAST_DB["photos"])
    return outcome


def _files(context: Context) -> tuple[dict[str, bytes], dict[str, bytes]]:
    from tests import corpus

    photos = {path.name: path.read_bytes() for path in sorted(context.photos.glob("*.jpg"))}
    odd = corpus.pictures()
    if not context.on_gpu:
        photos, odd = dict(list(photos.items())[:4]), {name: odd[name] for name in list(odd)[::9]}
    return photos, odd


def _compare(
    context: Context, outcome: Outcome, name: str, contents: dict, spec: Any, least_db: float
) -> None:
    from fastload.decode.pillow import decode_image

    pillow = {key: decode_image(one, spec, 0, 0).pixels for key, one in contents.items()}
    on_cpu, _ = through_dali(contents, spec, "cpu", None)
    sides = {"DALI on the CPU": on_cpu}
    if context.on_gpu:
        for load in DETERMINISTIC_LOADS:
            decoded, taken = through_dali(contents, spec, "cuda", load)
            sides[f"GPU, hw_decoder_load={load:g}"] = decoded
            outcome.raw[f"{name} {load:g}"] = f"{taken} of {len(contents)} by DALI"
    for side, decoded in sides.items():
        for other, images in (("Pillow", pillow), ("DALI on the CPU", on_cpu)):
            if side == other:
                continue
            row = {"files": name, "what": side, "against": other, "count": len(contents)}
            outcome.table.append(row | _agreement(decoded, images))
            for key, found in decoded.items():
                if isinstance(found, str):
                    outcome.faults.append(f"{name}: {side}: {key}: refused: {found}")
                elif (db := psnr(found, images[key])) < least_db:
                    outcome.faults.append(f"{name}: {side} against {other}: {key}: {db:.1f} dB")


def through_dali(contents: dict[str, bytes], spec: Any, device: str, load: float | None) -> tuple[dict, int]:
    """Name -> pixels [height, width, 3] uint8, or why there are none; and how many DALI itself decoded."""
    stage = make_stage(spec, device, load, max_batch=32)
    names = list(contents)
    decoded: dict[str, Any] = {}
    try:
        for start in range(0, len(names), 32):
            some = names[start : start + 32]
            batch = stage.submit({"image": [contents[name] for name in some]}, np.zeros(len(some), np.int64))
            field = batch.finish()["image"]
            pixels = field.pixels.cpu().numpy()
            for i, name in enumerate(some):
                decoded[name] = field.errors.get(i, pixels[i].copy())
            del field
            release(batch, device)
        return decoded, stage.stats.dali_samples
    finally:
        stage.close()


def make_stage(
    spec: Any,
    device: str,
    load: float | None,
    *,
    max_batch: int,
    threads: int | None = None,
    in_flight: int = 4,
):
    """A `DaliStage` of one field, "image"."""
    from benchmarks.gpu.cases import cpus
    from fastload.decode.dali.stage import DaliStage

    return DaliStage(
        {"image": spec}, device=device, threads=threads or cpus(), max_batch=max_batch, seed=0,
        max_pixels=PIXELS, in_flight=in_flight, hw_decoder_load=load, deterministic=load in (None, 0.0, 1.0),
    )  # fmt: skip


def release(batch: Any, device: str) -> None:
    """Gives a batch's memory back once the current stream has used it."""
    if device != "cuda":
        batch.release()
        return
    import torch

    event = torch.cuda.Event()
    event.record()
    batch.release(event)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    squared = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if squared == 0 else 10 * math.log10(255**2 / squared)


def _agreement(decoded: dict, images: dict) -> dict:
    pairs = [(one, images[key]) for key, one in decoded.items() if not isinstance(one, str)]
    if not pairs:
        return {"median dB": "-", "least dB": "-", "largest levels": "-", "equal": 0}
    ratios = [psnr(one, other) for one, other in pairs]
    largest = max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)
    equal = sum(ratio == math.inf for ratio in ratios)
    levels = {"largest levels": largest, "equal": equal}
    return {"median dB": float(np.median(ratios)), "least dB": min(ratios), **levels}
