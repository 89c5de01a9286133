"""SPDL: its thread pipeline, and FFmpeg's decoder and scaler (bicubic, antialiased when it shrinks)."""

import random

from benchmarks.end_to_end.peers.dataloader_parts import EndlessOrder, to_float


def make(corpus, batch_size: int, threads: int, seed: int):
    import spdl.io
    import torch
    from spdl.pipeline import PipelineBuilder

    torch.set_num_threads(1)
    files = corpus.files
    side = corpus.target
    dice = random.Random(seed)
    plain, mirrored = (
        spdl.io.get_video_filter_desc(
            scale_width=side, scale_height=side, scale_algo="bicubic", scale_mode="crop", filter_desc=flip
        )
        for flip in (None, "hflip")
    )

    def decode(index: int):
        wanted = mirrored if dice.random() < 0.5 else plain
        return spdl.io.decode_packets(spdl.io.demux_image(files[index]), filter_desc=wanted)

    def decode_batch(indices: list[int]):
        """One task for each batch: one for each image took SPDL's event loop 5-10 % more CPU time."""
        return spdl.io.to_torch(spdl.io.convert_frames([decode(index) for index in indices]))

    pipeline = (
        PipelineBuilder()
        .add_source(EndlessOrder(len(files), seed))
        .aggregate(batch_size)
        .pipe(decode_batch, concurrency=threads)
        .add_sink(3)
        .build(num_threads=threads)
    )
    return _run(pipeline)


def _run(pipeline):
    with pipeline.auto_stop():
        for images in pipeline:
            yield to_float(images.permute(0, 3, 1, 2).contiguous())
