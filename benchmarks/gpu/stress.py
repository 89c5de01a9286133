"""Do streams disturb each other's pixels? Decoding, augmenting and a busy default stream, all at once.

In: a maker of decoders, each with a stream of its own. Out: how many of the iterations gave a pixel that
differs from the first, quiet, single-stream result of the same batch: bit for bit, every pixel, of the
decoded levels and of what fused_augment makes of them. It must be none. nvJPEG's batched hardware path has
been reported to corrupt 134 of 200 iterations on an H100, so both shares of the hardware decoder are tried.

The comparison itself runs on the device, on the augmenting stream, and leaves one number for an iteration.
"""

import contextlib
import io
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from benchmarks.gpu.cases import Case, Context, Outcome
from benchmarks.gpu.decoding import make_stage, release
from benchmarks.gpu.shapes import DETERMINISTIC_LOADS

ITERATIONS, STAGES_AT_ONCE = 200, (1, 2, 4)
BATCHES = 4  # different ones, in turn
AHEAD = 3  # batches that each decoder is given before the first is asked for


class Decoder(Protocol):
    """What is put under stress: `submit` batch number k, `finish` it for the current stream, `release` it."""

    def submit(self, k: int) -> Any: ...

    def finish(self, handle: Any) -> Any:
        """[n, height, width, 3] uint8."""
        ...

    def release(self, handle: Any) -> None: ...

    def close(self) -> None: ...


class DaliDecoder:
    """A `DaliStage` that decodes these batches."""

    def __init__(self, batches: list[list[bytes]], side: int, device: str, load: float | None):
        from fastload.decode.spec import ImageSpec

        spec = ImageSpec(side, side, resize="short", scaled=None, xflip=0.5)
        most = max(map(len, batches))
        self._batches, self._device = batches, device
        self._stage = make_stage(spec, device, load, max_batch=most, threads=4, in_flight=AHEAD + 2)

    def submit(self, k: int) -> Any:
        positions = np.arange(len(self._batches[k])) + 1000 * k
        return self._stage.submit({"image": self._batches[k]}, positions)

    def finish(self, handle: Any) -> Any:
        field = handle.finish()["image"]
        if field.errors:
            raise RuntimeError(f"good images were refused: {field.errors}")
        return field.pixels

    def release(self, handle: Any) -> None:
        release(handle, self._device)

    def close(self) -> None:
        self._stage.close()


def cases(context: Context) -> list[Case]:
    return [Case(f"stress, hw_decoder_load={load}", _with(load), 150) for load in DETERMINISTIC_LOADS]


def _with(load: float) -> Callable[[Context], Outcome]:
    def run(context: Context) -> Outcome:
        batches = mixed_batches(context)
        side = context.of(256, 32)
        make = lambda: DaliDecoder(batches, side, context.device, context.of(load, None))  # noqa: E731
        iterations = context.of(ITERATIONS, 6)
        outcome = stressed(context, make, len(batches), STAGES_AT_ONCE, iterations)
        outcome.targets[f"corrupted {load}"] = sum(row["corrupted"] for row in outcome.table)
        if not context.on_gpu:
            outcome.notes.append("On the CPU: no streams, and DALI's CPU decoder.")
        return outcome

    return run


def mixed_batches(context: Context) -> list[list[bytes]]:
    """JPEGs of many sizes, baseline and progressive, 4:2:0 and 4:4:4, another mixture in each batch."""
    from PIL import Image

    photos = [path.read_bytes() for path in sorted(context.photos.glob("*.jpg"))]
    made = []
    for number, photo in enumerate(photos):
        image = Image.open(io.BytesIO(photo)).convert("RGB")
        image = image.resize((image.width * (5 + number % 9) // 8, image.height * (4 + number % 7) // 8))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=70 + number, subsampling=number % 3, progressive=number % 4 == 3)
        made.append(out.getvalue())
    every = photos + made
    size = context.of(48, 4)
    rng = np.random.default_rng(context.seed)
    chosen = [rng.integers(0, len(every), size) for _ in range(BATCHES)]
    return [[every[i] for i in some] for some in chosen]


def stressed(
    context: Context, make: Callable[[], Decoder], batches: int, at_once: tuple[int, ...], iterations: int
) -> Outcome:
    """The stress with each number of decoders at once; see the top of the file."""
    outcome = Outcome()
    levels, augmented, fault = _quiet(context, make, batches)
    if fault:
        outcome.faults.append(fault)
    for count in at_once:
        decoders = [make() for _ in range(count)]
        try:
            differing = _loud(context, decoders, levels, augmented, iterations)
        finally:
            for decoder in decoders:
                decoder.close()
        # [iterations, decoders, (levels, augmented)]
        corrupted = differing.astype(bool).any(axis=(1, 2))
        row = {"streams": count, "iterations": iterations, "corrupted": int(corrupted.sum())}
        row |= {"of the levels": int(differing[..., 0].any(axis=1).sum())}
        row |= {"of the results": int(differing[..., 1].any(axis=1).sum())}
        row |= {"most values in an iteration": int(differing.max())}
        outcome.table.append(row)
        if corrupted.any():
            first = np.flatnonzero(corrupted)[:8].tolist()
            outcome.faults.append(
                f"{count} streams: {row['corrupted']} of {iterations} iterations are corrupted, first {first}"
            )
    return outcome


def _quiet(context: Context, make: Callable[[], Decoder], batches: int) -> tuple[list, list, str | None]:
    """Levels and results of each batch, from one decoder with nothing beside it; each is made twice."""
    decoder = make()
    levels: list = []
    augmented: list = []
    fault = None
    for turn, k in [(turn, k) for turn in range(2) for k in range(batches)]:
        handle = decoder.submit(k)
        pixels = decoder.finish(handle)
        kept, result = pixels.clone(), _augment(context, pixels, k)
        context.synchronize()
        del pixels
        decoder.release(handle)
        if turn == 0:
            levels.append(kept)
            augmented.append(result)
        elif not (bool((kept == levels[k]).all()) and bool((result == augmented[k]).all())):
            fault = f"batch {k} is not the same when it is decoded again, with nothing beside it"
    decoder.close()
    return levels, augmented, fault


def _loud(context: Context, decoders: list, levels: list, augmented: list, iterations: int) -> np.ndarray:
    """[iterations, decoders, 2]: how many values of the levels and of the results differ."""
    import torch

    streams = [torch.cuda.Stream() if context.on_gpu else None for _ in decoders]
    counts = torch.zeros(iterations, len(decoders), 2, dtype=torch.int64, device=context.device)
    context.synchronize()  # the streams below must not run ahead of the zeros
    busy = _Matmuls(context)
    waiting = [deque((i, decoder.submit((i + d) % len(levels))) for i in range(min(AHEAD, iterations)))
               for d, decoder in enumerate(decoders)]  # fmt: skip
    for i in range(iterations):
        busy.add()
        for d, (decoder, stream) in enumerate(zip(decoders, streams, strict=True)):
            _, handle = waiting[d].popleft()
            k = (i + d) % len(levels)
            with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
                pixels = decoder.finish(handle)
                result = _augment(context, pixels, k)
                counts[i, d, 0] = (pixels != levels[k]).sum()
                counts[i, d, 1] = (result != augmented[k]).sum()
                del pixels, result
                decoder.release(handle)
            if i + AHEAD < iterations:
                waiting[d].append((i + AHEAD, decoder.submit((i + AHEAD + d) % len(levels))))
    context.synchronize()
    return counts.cpu().numpy()


def _augment(context: Context, pixels: Any, k: int) -> Any:
    """What a loader makes of a batch: other random draws for each, with a rotation and a jitter."""
    from fastload.augment.pipe import Augment
    from fastload.ops.fused.augment_params import AugmentParams
    from fastload.ops.fused.draw_params import draw_params
    from fastload.ops.fused.fused_augment import fused_augment

    n, height, width, _ = pixels.shape
    plan = Augment(xflip=0.5, rotate=10, color_jitter=(0.4, 0.4, 0.4, 0.1), cutout=(0.5, 0.25)).plan(
        height, width
    )
    rows = draw_params(plan, np.arange(n) + 1000 * k, 1, device=pixels.device)
    params = AugmentParams.from_rows(rows, plan.stages)
    dtype = "bfloat16" if context.on_gpu else "float32"
    return fused_augment(pixels, params, normalize="gan", dtype=dtype, impl=context.of("triton", "native"))


class _Matmuls:
    """Keeps the default stream busy with products, as a training step would, some 10 ms ahead at most."""

    def __init__(self, context: Context):
        self._on_gpu, self._events = context.on_gpu, deque()
        if self._on_gpu:
            import torch

            self._matrix = torch.randn(4096, 4096, dtype=torch.bfloat16, device="cuda")

    def add(self) -> None:
        if not self._on_gpu:
            return
        import torch

        if len(self._events) >= 2:
            self._events.popleft().synchronize()
        for _ in range(16):
            self._matrix @ self._matrix
        event = torch.cuda.Event()
        event.record()
        self._events.append(event)
