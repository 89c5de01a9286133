"""Part 3: the whole loader against the decoders alone and against its peers, and before a training step.

In: corpora of JPEGs made on the spot, in the page cache. Out: images a second, medians of interleaved
windows; how long a step of a diffusion transformer takes that the loader feeds, against the same step on a
batch that is there already. The first batches of every contender are compared with Pillow's pixels.
"""

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.gpu import contenders, corpus, engines, timing
from benchmarks.gpu.cases import Case, Context, Outcome, Skipped
from benchmarks.gpu.corpus import Corpus
from benchmarks.gpu.engines import Setting
from benchmarks.gpu.shapes import CORPORA, DETERMINISTIC_LOADS, LOADS, THREADS, TRAINED

BATCH = 64
MAX_DIFFERENCE = (
    2.0  # mean difference from Pillow; another crop or filter is above, scaled decoding is 0.4 off
)
LEAST_DB = 34.0  # of a decoded image against Pillow's
CHECKED_BATCHES = 2
STEPS, BLOCKS = 30, 4  # of training: steps in a block, blocks of either kind


def cases(context: Context) -> list[Case]:
    of_sizes = []
    for name in CORPORA if context.on_gpu else ["256x256"]:
        of_sizes += [
            Case(f"engines {name}", _engines(name), 120),
            Case(f"loaders {name}", _loaders(name), 120),
        ]
        if name in TRAINED:
            of_sizes.append(Case(f"training {name}", _training(name), 120))
    return [Case("copy from pinned memory", _pinned), Case("corpora", _corpora, 120), *of_sizes]


def _pinned(context: Context) -> Outcome:
    if not context.on_gpu:
        raise Skipped("no GPU to copy to")
    copy = timing.pinned_bytes_per_second(256 << 20)
    row = {"MiB": copy["size_bytes"] / 2**20, "median us": copy["median_us"]}
    row |= {"GB/s": copy["bytes_per_second"] / 1e9}
    return Outcome([row], raw=copy)


def _corpora(context: Context) -> Outcome:
    outcome = Outcome()
    for name in CORPORA if context.on_gpu else ["256x256"]:
        made = corpus.of(context, name)
        row = {"corpus": name, "images": made.count, "size": f"{made.width}x{made.height}"}
        row |= {"kB each": made.jpeg_bytes / made.count / 1e3, "seconds to make": made.seconds}
        outcome.table.append(
            row | {"bits a pixel": 8 * made.jpeg_bytes / made.count / made.width / made.height}
        )
    outcome.notes.append("Mosaics of the photos where a photo is smaller: quality 90, 4:2:0, baseline.")
    return outcome


def _engines(name: str):
    """Every engine with every setting; the best ones are what the loaders are held against."""

    def run(context: Context) -> Outcome:
        outcome, made = Outcome(), corpus.of(context, name)
        best: dict[str, tuple[float, Setting]] = {}
        for setting in _settings(context):
            row = {"engine": setting.engine, "hw_decoder_load": setting.load, "threads": setting.threads}
            try:
                rate = _engine_rate(context, made, setting, outcome)
            except Skipped as why:
                outcome.notes.append(str(why))
                continue
            except Exception as error:  # one engine that fails is no reason to lose the others
                outcome.faults.append(f"{setting}: {type(error).__name__}: {str(error)[:300]}")
                continue
            outcome.table.append(row | {"images/s": rate, "MB/s": rate * made.jpeg_bytes / made.count / 1e6})
            kinds = ["any"] + ["deterministic"] * (setting.load in DETERMINISTIC_LOADS)
            for kind in kinds:
                best[kind] = max(best.get(kind, (0.0, setting)), (rate, setting), key=lambda one: one[0])
        context.once(f"best engines {name}", lambda: {kind: setting for kind, (_, setting) in best.items()})
        outcome.raw = {"best": {kind: [rate, str(setting)] for kind, (rate, setting) in best.items()}}
        return outcome

    return run


def _settings(context: Context) -> list[Setting]:
    every = [Setting(e, load, n) for e in engines.ENGINES for load in LOADS for n in THREADS]
    return every if context.on_gpu else [Setting(engine, 0.0, 2) for engine in engines.ENGINES]


def _engine_rate(context: Context, made: Corpus, setting: Setting, outcome: Outcome) -> float:
    from benchmarks.gpu.decoding import psnr
    from fastload.decode.pillow import decode_rgb

    engine = engines.make(context, made, setting, context.of(BATCH, 8))
    try:
        rate = engines.rate(engine, context.of(0.3, 0.05), context)
        sample = engine.sample
    finally:
        engine.close()
    db = psnr(sample, decode_rgb(made.contents()[0].tobytes()))
    if not db >= LEAST_DB:
        outcome.faults.append(f"{setting}: the first image is {db:.1f} dB from Pillow's")
    return rate


def _loaders(name: str):
    def run(context: Context) -> Outcome:
        outcome, made = Outcome(), corpus.of(context, name)
        streams = _opened(context, made, outcome)
        try:
            for who, stream in streams.items():
                if "engine" not in who:
                    _check(context, outcome, who, stream, made)
            rates: dict[str, list[float]] = {who: [] for who in streams}
            for _ in range(context.of(3, 1)):
                for who, stream in streams.items():
                    rates[who].append(engines.rate(stream, context.of(0.6, 0.05), context))
            for who, stream in streams.items():
                if isinstance(stream, contenders.Fastload):
                    outcome.raw[f"stats of {who}"] = stream.stats()
        finally:
            for stream in streams.values():
                stream.close()
        medians = {who: statistics.median(some) for who, some in rates.items()}
        for who, some in rates.items():
            row = {"loader": who, "images/s": medians[who], "least": min(some), "most": max(some)}
            outcome.table.append(row | {"levels from Pillow": outcome.raw.get(f"levels of {who}", "-")})
        outcome.targets = _ratios(name, medians)
        outcome.raw["rates"] = rates
        return outcome

    return run


def _opened(context: Context, made: Corpus, outcome: Outcome) -> dict[str, Any]:
    """The contenders that run here; what does not is a note (not installed) or a fault (broken)."""
    size = context.of(BATCH, 8)
    best = _best_engines(context, made.name)
    makers = {
        "fastload": lambda: contenders.Fastload(context, made, size),
        "fastload deterministic=False": lambda: contenders.Fastload(context, made, size, deterministic=False),
        "fastload native": lambda: contenders.Fastload(context, made, size, decode="native"),
        "DALI by hand": lambda: contenders.DaliByHand(context, made, size),
        "torchvision": lambda: _torchvision(context, made, size),
        "engine, loads 0 and 1": lambda: engines.make(context, made, best["deterministic"], size),
        "engine, any load": lambda: engines.make(context, made, best["any"], size),
    }
    if best["any"] == best["deterministic"]:
        del makers["engine, any load"]
    streams = {}
    for who, make in makers.items():
        try:
            streams[who] = make()
        except Skipped as why:
            outcome.notes.append(f"{who}: {why}")
        except Exception as error:
            outcome.faults.append(f"{who}: {type(error).__name__}: {str(error)[:500]}")
    outcome.raw["engines"] = {kind: str(setting) for kind, setting in best.items()}
    return streams


def _best_engines(context: Context, name: str) -> dict[str, Setting]:
    """As the case of the engines found; a process that was started anew takes DALI's with all threads."""
    plain = {
        kind: Setting("DALI", load, THREADS[-1]) for kind, load in (("deterministic", 1.0), ("any", 0.65))
    }
    return plain | context.once(f"best engines {name}", dict)


def _torchvision(context: Context, made: Corpus, size: int) -> contenders.Torchvision:
    make = lambda: contenders.Torchvision(context, size, made.target)  # noqa: E731
    stream = context.once("torchvision", make)
    stream.turn_to(made)
    return stream


def _check(context: Context, outcome: Outcome, who: str, stream: Any, made: Corpus) -> None:
    """The next batches against Pillow's pixels, whatever their order and mirroring."""
    from benchmarks.end_to_end.agreement import FLIP_SHARE, match

    images = []
    for _ in range(CHECKED_BATCHES):
        batch = next(stream)
        size = (context.of(BATCH, 8), 3, made.target, made.target)
        if tuple(batch.shape) != size or batch.device.type != context.device or batch.element_size() != 2:
            outcome.faults.append(f"{who}: a batch is {tuple(batch.shape)} {batch.dtype} on {batch.device}")
            return
        images.append(((batch.float() + 1) * 127.5).permute(0, 2, 3, 1).cpu().numpy())
    _, mirrored, differences = match(np.concatenate(images), made.reference())
    off, share = float(np.mean(differences)), float(np.mean(mirrored))
    outcome.raw |= {f"levels of {who}": round(off, 3), f"worst image of {who}": float(np.max(differences))}
    if not off <= MAX_DIFFERENCE:
        outcome.faults.append(f"{who}: {off:.2f} levels from Pillow in the mean, more than {MAX_DIFFERENCE}")
    if context.on_gpu and not FLIP_SHARE[0] <= share <= FLIP_SHARE[1]:
        outcome.faults.append(f"{who}: a share of {share:.2f} is mirrored, not about one half")


def _ratios(name: str, medians: dict[str, float]) -> dict[str, float]:
    limit = medians.get("engine, loads 0 and 1")
    any_load = max((rate for who, rate in medians.items() if who.startswith("engine")), default=None)
    pairs = {
        "fastload / engines, loads 0 and 1": ("fastload", limit),
        "fastload deterministic=False / engines, any load": ("fastload deterministic=False", any_load),
        "fastload / engines, any load": ("fastload", any_load),
        "fastload / DALI by hand": ("fastload", medians.get("DALI by hand")),
        "fastload deterministic=False / DALI by hand": (
            "fastload deterministic=False",
            medians.get("DALI by hand"),
        ),
        "fastload / torchvision": ("fastload", medians.get("torchvision")),
    }
    return {
        f"{name}: {says}": medians[who] / other
        for says, (who, other) in pairs.items()
        if other and who in medians
    }


def _training(name: str):
    def run(context: Context) -> Outcome:
        import torch

        from benchmarks.gpu.dit import Size, Training

        outcome, made, size = Outcome(), corpus.of(context, name), context.of(BATCH, 8)
        shape = Size() if context.on_gpu else Size(made.target, 8, 32, 1, 2)
        training = Training(shape, context.device, context.seed)
        stream = contenders.Fastload(context, made, size)
        try:
            resident = next(stream).clone()
            fed = {"resident": lambda: resident, "fed": lambda: next(stream)}
            for take in fed.values():
                _block(context, training, take, context.of(10, 1))
            blocks: dict[str, list[dict]] = {kind: [] for kind in fed}
            for _ in range(context.of(BLOCKS, 1)):
                for kind, take in fed.items():
                    blocks[kind].append(_block(context, training, take, context.of(STEPS, 2)))
            limited_by = stream.stats()["limited_by"]
        finally:
            stream.close()
        medians = {}
        for kind, some in blocks.items():
            medians[kind] = statistics.median(one["ms"] for one in some)
            row = {"batch": kind, "ms a step": medians[kind], "least": min(one["ms"] for one in some)}
            row |= {"most": max(one["ms"] for one in some), "ms in next()": some[-1]["next_ms"]}
            outcome.table.append(row | {"loss": some[-1]["loss"], "images/s": 1000 * size / medians[kind]})
        if not all(torch.isfinite(torch.tensor(one["loss"])) for some in blocks.values() for one in some):
            outcome.faults.append("the loss is not finite")
        stall = 100 * (medians["fed"] / medians["resident"] - 1)
        outcome.raw = {"blocks": blocks, "stall_percent": stall, "limited_by": limited_by}
        _judge_stall(context, outcome, made, stall, 1000 * size / medians["resident"])
        return outcome

    return run


def _block(context: Context, training: Any, take: Any, steps: int) -> dict:
    """Milliseconds a step, those that the host spent in `take`, and the last loss."""
    context.synchronize()
    begun, taking, loss = time.perf_counter(), 0.0, None
    for _ in range(steps):
        before = time.perf_counter()
        images = take()
        taking += time.perf_counter() - before
        loss = training.step(images)
    context.synchronize()
    seconds = time.perf_counter() - begun
    return {"ms": 1000 * seconds / steps, "next_ms": 1000 * taking / steps, "loss": float(loss)}


def _judge_stall(context: Context, outcome: Outcome, made: Corpus, stall: float, wanted: float) -> None:
    """The target holds where the engines alone could feed the step."""
    setting = _best_engines(context, made.name)["deterministic"]
    engine = engines.make(context, made, setting, context.of(BATCH, 8))
    try:
        limit = engines.rate(engine, context.of(0.4, 0.05), context)
    finally:
        engine.close()
    outcome.notes.append(
        f"Stall {stall:.2f} %: the step takes {wanted:.0f} images/s, the engine decodes {limit:.0f}."
    )
    if limit > wanted:
        outcome.targets[f"{made.name}: stall of a training step, %"] = stall
    else:
        outcome.notes.append("The target is not judged: the step wants more than can be decoded.")
