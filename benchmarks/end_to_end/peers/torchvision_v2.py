"""torch DataLoader, worker processes, torchvision's decoder and its v2 transforms on uint8 tensors.

Where the long side does not come out whole, v2.Resize truncates it and v2.CenterCrop rounds, which shifts
the image by up to a pixel against the reference; the sizes of the corpora here are not among those.
"""

from benchmarks.end_to_end.peers.dataloader_parts import Files, batches


class TorchvisionTransform:
    """A path -> uint8 tensor [3, target, target]."""

    def __init__(self, target: int):
        from torchvision.transforms import v2

        resize = v2.Resize(target, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        self.transform = v2.Compose([resize, v2.CenterCrop(target), v2.RandomHorizontalFlip(0.5)])

    def __call__(self, path: str):
        from torchvision.io import ImageReadMode, decode_jpeg, read_file

        return self.transform(decode_jpeg(read_file(path), mode=ImageReadMode.RGB))


def make(corpus, batch_size: int, threads: int, seed: int):
    return batches(Files(corpus.files, TorchvisionTransform(corpus.target)), batch_size, threads, seed)
