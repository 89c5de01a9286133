"""DALI's own webdataset reader, decoder, resize and crop_mirror_normalize, all on the CPU.

DALI resamples even where the size does not change. `resize=False` leaves the operator out, for a corpus
that is known to have the target's size already.
"""


def make(corpus, batch_size: int, threads: int, seed: int, resize: bool = True):
    from nvidia.dali import fn, pipeline_def, types

    side = corpus.target

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=None, seed=seed)
    def trip():
        jpegs = fn.readers.webdataset(
            paths=corpus.shards,
            ext=["jpg"],
            random_shuffle=True,
            initial_fill=256,
            missing_component_behavior="error",
        )
        images = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB)
        if resize:
            images = fn.resize(images, resize_shorter=side, interp_type=types.INTERP_CUBIC, antialias=True)
        return fn.crop_mirror_normalize(
            images,
            crop=(side, side),
            mirror=fn.random.coin_flip(probability=0.5),
            mean=[127.5] * 3,
            std=[127.5] * 3,
            dtype=types.FLOAT,
            output_layout="CHW",
            rounding="truncate",  # the default rounds the crop's origin up where Pillow's users round it down
        )

    pipe = trip()
    pipe.build()
    return _run(pipe)


def _run(pipe):
    import torch

    while True:
        (images,) = pipe.run()
        yield torch.from_dlpack(images.as_tensor())
