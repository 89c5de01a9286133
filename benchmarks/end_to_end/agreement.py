"""Does a competitor deliver what it should? Its batches against the Pillow reference of the corpus.

The very batches of the training order are compared: each image is matched with the reference that it is
nearest to, mirrored or not, by means over 16x16 blocks, and then compared with it in full, in levels of
255. Also counted: how many different images came, and how many of them mirrored, since a loader that
repeats itself or never flips is faster.
"""

import numpy as np
from PIL import Image

from benchmarks.end_to_end.corpora import Corpus, pillow_pixels
from benchmarks.end_to_end.peers import Augmented, Decoded

BLOCK = 16
FLIP_SHARE = (0.3, 0.7)  # of 128 fair flips, fewer or more happen in about 1 of 150,000 checks


def compare(batches: list, corpus: Corpus, bound_levels: float, batch_size: int) -> dict:
    """What was found, with `faults`, a list of sentences, empty if the output is as promised."""
    if isinstance(batches[0], Augmented):
        return _compare_augmented(batches, bound_levels)
    if isinstance(batches[0], Decoded):
        resized = [pillow_pixels(Image.fromarray(batch.sample), corpus.target) for batch in batches]
        images, faults, decodes_only = np.stack(resized).astype(np.float32), [], True
    else:
        faults, decodes_only = _faults_of_form(batches, corpus.target, batch_size), False
        if faults:
            return {"faults": faults}
        images = np.concatenate([(b.numpy() + 1) * np.float32(127.5) for b in batches]).transpose(0, 2, 3, 1)
    ids, mirrored, differences = match(images, corpus.reference())
    found = {
        "images": len(images),
        "different_images": len(set(ids)),
        "mirrored_share": round(float(np.mean(mirrored)), 3),
        "mean_difference_levels": round(float(np.mean(differences)), 4),
        "worst_image_levels": round(float(np.max(differences)), 4),
        "bound_levels": bound_levels,
    }
    if found["mean_difference_levels"] > bound_levels:
        off = found["mean_difference_levels"]
        faults.append(f"mean difference {off} levels, above the bound of {bound_levels}")
    if not decodes_only:
        if not FLIP_SHARE[0] <= found["mirrored_share"] <= FLIP_SHARE[1]:
            faults.append(f"a share of {found['mirrored_share']} is mirrored, not about one half")
        if found["different_images"] < min(len(images), corpus.count) / 2:
            faults.append(f"only {found['different_images']} different images among {len(images)}")
    return found | {"faults": faults}


def _compare_augmented(batches: list[Augmented], bound_levels: float) -> dict:
    """Every image against the repetition of its own draws."""
    differences = [(batch.images - batch.expected()).abs().mean((1, 2, 3)) * 127.5 for batch in batches]
    worst = max(float(one.max()) for one in differences)
    mean = sum(float(one.mean()) for one in differences) / len(differences)
    found = {
        "images": sum(len(batch) for batch in batches),
        "mean_difference_levels": round(mean, 4),
        "worst_image_levels": round(worst, 4),
        "bound_levels": bound_levels,
    }
    off = f"mean difference {mean:.4f} levels, above the bound of {bound_levels}"
    return found | {"faults": [off] if mean > bound_levels else []}


def match(images: np.ndarray, reference: np.ndarray) -> tuple[list[int], list[bool], list[float]]:
    """For each image: the index of its reference, whether it is mirrored, and the mean difference in levels.

    images: [N, H, W, 3] float32, in levels. reference: [M, H, W, 3] uint8.
    """
    thumbnails = _thumbnails(reference)
    ids, mirrored, differences = [], [], []
    for image in images:
        candidates = []
        for flip in (False, True):
            upright = image[:, ::-1] if flip else image
            distances = np.abs(thumbnails - _thumbnails(upright[None])).mean(axis=(1, 2, 3))
            candidates.append((float(distances.min()), flip, int(distances.argmin()), upright))
        _, flip, index, upright = min(candidates, key=lambda candidate: candidate[0])
        ids.append(index)
        mirrored.append(flip)
        differences.append(float(np.abs(upright - reference[index]).mean()))
    return ids, mirrored, differences


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] -> means over blocks, [N, H / BLOCK, W / BLOCK, 3] float32."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float32)


def _faults_of_form(batches: list, target: int, batch_size: int) -> list[str]:
    faults = []
    for batch in batches:
        if tuple(batch.shape) != (batch_size, 3, target, target) or str(batch.dtype) != "torch.float32":
            faults.append(f"a batch is {tuple(batch.shape)} {batch.dtype}")
            continue
        least, greatest = float(batch.min()), float(batch.max())
        if not (-1.0001 <= least < -0.5 and 0.5 < greatest <= 1.0001):
            faults.append(f"values lie in [{least:.3f}, {greatest:.3f}], not in [-1, 1]")
    return faults
