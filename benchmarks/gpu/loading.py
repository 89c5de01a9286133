"""Bad samples and whole loaders: the others are right, the cost is bounded, every run gives equal pixels."""

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.gpu import corpus
from benchmarks.gpu.cases import Case, Context, Outcome
from benchmarks.gpu.decoding import make_stage, release
from benchmarks.gpu.shapes import DETERMINISTIC_LOADS

DEPTHS = (1, 4, 8)  # of prefetching


def cases() -> list[Case]:
    return [
        Case("two bad samples of 64", _bad_samples),
        Case("loader: two runs and every prefetch depth are equal", _equal_runs),
        Case("loader: batches that are held are not overwritten", _held),
        Case("loader: decoders agree", _decoders_agree),
    ]


def _bad_samples(context: Context) -> Outcome:
    """Batches with and without two bad samples in turn: `kind` says how these are bad."""
    from fastload.decode.spec import ImageSpec

    outcome = Outcome()
    made = corpus.of(context, "500x375")
    size = context.of(64, 16)
    good = [made.contents()[i % made.count] for i in range(size)]
    spec = ImageSpec(made.target, made.target, scaled=None)
    worst = 0.0
    for load in context.of(DETERMINISTIC_LOADS, (None,)):
        stage = make_stage(spec, context.device, load, max_batch=size)
        try:
            reference, _, _ = _decoded(context, stage, good)
            for kind, content in bad_files(good[0].tobytes()).items():
                places = (3, size - 5)
                bad = [content if i in places else one for i, one in enumerate(good)]
                row = {"kind": kind, "hw_decoder_load": "-" if load is None else load}
                row |= _cost(context, stage, good, bad)
                pixels, errors, reruns = _decoded(context, stage, bad)
                row |= {"named": sorted(errors), "runs repeated": reruns}
                outcome.table.append(row)
                worst = max(worst, row["bad / good"])
                _judge(outcome, kind, places, errors, pixels, reference)
        finally:
            stage.close()
    outcome.targets["bad batch"] = worst
    outcome.notes.append(
        "The target is judged with the dearest kind. Where no run is repeated, the gate found it."
    )
    return outcome


def bad_files(good: bytes) -> dict[str, np.ndarray]:
    """Kinds of bad JPEGs: some that a look at the file finds, and some that only decoding does."""
    table = good.index(b"\xff\xc4") + 5  # the counts of the first Huffman table
    garbled = good[:table] + b"\xff" * 16 + good[table + 16 :]
    files = {
        "text": b"<html><body>404 not found</body></html>",
        "cut in the middle": good[: len(good) // 2],
        "cut, with an end": good[: len(good) // 2] + b"\xff\xd9",
        "bad Huffman table": garbled,
    }
    return {name: np.frombuffer(one, np.uint8) for name, one in files.items()}


def _judge(outcome: Outcome, kind: str, places: tuple, errors: dict, pixels: Any, reference: Any) -> None:
    if kind == "cut, with an end":  # decoders may take it, as libjpeg does with a warning
        wrongly = set(errors) - set(places)
    else:
        wrongly = set(errors) ^ set(places)
    if wrongly:
        outcome.faults.append(f"{kind}: bad are {places}, and named were {sorted(errors)}")
    others = [i for i in range(len(reference)) if i not in places]
    differing = int((pixels[others] != reference[others]).sum())
    if differing:
        outcome.faults.append(f"{kind}: {differing} values of the good samples differ from a good batch")


def _decoded(context: Context, stage: Any, content: list) -> tuple[np.ndarray, dict, int]:
    """Pixels, errors, and how many runs were repeated for it."""
    before = stage.stats.reruns
    batch = stage.submit({"image": content}, np.arange(len(content)))
    field = batch.finish()["image"]
    pixels, errors = field.pixels.cpu().numpy().copy(), dict(field.errors)
    del field
    release(batch, context.device)
    return pixels, errors, stage.stats.reruns - before


def _cost(context: Context, stage: Any, good: list, bad: list) -> dict:
    """Median milliseconds of either kind of batch, one after the other and each alone."""
    times: dict[str, list[float]] = {"good": [], "bad": []}
    positions = np.arange(len(good))
    for turn in range(context.of(23, 4)):
        for name, content in (("good", good), ("bad", bad)):
            begun = time.perf_counter()
            batch = stage.submit({"image": content}, positions)
            batch.finish()
            context.synchronize()
            release(batch, context.device)
            if turn >= context.of(3, 1):  # the first bad batch makes the pipeline that repairs
                times[name].append(1000 * (time.perf_counter() - begun))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "good ms": medians["good"],
        "bad ms": medians["bad"],
        "bad / good": medians["bad"] / medians["good"],
    }


def make_loader(context: Context, name: str = "500x375", **arguments: Any):
    """A loader of the corpus with a bit of everything random in it."""
    import fastload as fl

    made = corpus.of(context, name)
    settings = {
        "augment": fl.Augment(xflip=0.5, rotate=5, color_jitter=(0.2, 0.2, 0.2, 0.05), cutout=(0.5, 0.25)),
        "dtype": context.of("bfloat16", "float32"), "device": context.device, "decode": "dali",
        "seed": 7, "epochs": 1,
    } | arguments  # fmt: skip
    fields = {"image": fl.Image("jpg", size=made.target), "label": fl.Int("cls")}
    return fl.Loader(made.shards, context.of(32, 8), fields, **settings)


def _epoch(loader: Any) -> list:
    """The images of one epoch, copied as they come."""
    with loader:
        return [batch["image"].clone() for batch in loader]


def _equal_runs(context: Context) -> Outcome:
    outcome = Outcome()
    for decode in ("dali", "native"):
        for load in context.of(DETERMINISTIC_LOADS, (None,)) if decode == "dali" else (None,):
            first = None
            for run, depth in enumerate((DEPTHS[1], *DEPTHS)):
                images = _epoch(make_loader(context, decode=decode, prefetch=depth, hw_decoder_load=load))
                first = first or images
                same = len(images) == len(first) and all(
                    bool((one == other).all()) for one, other in zip(images, first, strict=True)
                )
                row = {"decode": decode, "hw_decoder_load": "-" if load is None else load, "run": run}
                row |= {"prefetch": depth, "batches": len(images), "equal to the first": same}
                outcome.table.append(row)
                if not same:
                    outcome.faults.append(f"not equal to the first run: {row}")
    return outcome


def _held(context: Context) -> Outcome:
    """Batches are kept while later ones are made, and compared with copies made when they came."""
    import torch

    outcome = Outcome()
    for decode in ("dali", "native"):
        held, copies = [], []
        with make_loader(context, decode=decode, epochs=context.of(4, 2)) as loader:
            for _ in range(context.of(4, 2)):
                for batch in loader:
                    held.append(batch["image"])
                    copies.append(batch["image"].clone())
                    if context.on_gpu:  # work of a training step, so that the loader gets ahead of it
                        torch.relu(batch["image"]).sum()
        context.synchronize()
        changed = sum(not bool((one == copy).all()) for one, copy in zip(held, copies, strict=True))
        outcome.table.append({"decode": decode, "batches held": len(held), "changed": changed})
        if changed:
            outcome.faults.append(f"{decode}: {changed} of {len(held)} batches that were held have changed")
    return outcome


def _decoders_agree(context: Context) -> Outcome:
    """The same order and dice whoever decodes: the mean difference from native decoding, in levels of 255."""
    outcome = Outcome()
    plain = _epoch(make_loader(context, decode="native"))
    for load in context.of(DETERMINISTIC_LOADS, (None,)):
        images = _epoch(make_loader(context, decode="dali", hw_decoder_load=load))
        pairs = zip(images, plain, strict=True)
        off = [127.5 * float((one.float() - other.float()).abs().mean()) for one, other in pairs]
        row = {"decode": "dali", "hw_decoder_load": "-" if load is None else load}
        outcome.table.append(row | {"mean levels": statistics.mean(off), "worst batch": max(off)})
        if not max(off) < 2.0:  # other dice or another order would make it 30 and more
            outcome.faults.append(f"hw_decoder_load={load}: {max(off):.2f} levels from native decoding")
    return outcome
