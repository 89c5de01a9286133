"""Which images DALI may decode, and its arguments for each: region to decode, box to resize, flip.

In: the bytes of a batch's images with their geometry (spec.py). Out: the samples that DALI takes, and their
arguments as columns. Promised: DALI gets nothing that its parser refuses, because a bad header in a batch of
32 or more kills the process (it throws while other threads still work on the batch); every region is inside
its image; the arguments of a sample depend on the sample alone, except for `aligned`: a batch that needs no
resizing is not resized (the pixels are equal: a filter at scale 1 on whole pixels is the identity).

Pillow decodes these, although DALI could decode most of them:
- GIF, AVIF and HEIC, which DALI lacks; JPEG 2000, whose decoder crashed under fuzzing;
- TIFF: Lab, gray with alpha, YCbCr and palettes differ much from Pillow; and PNM, which is not used in
  training;
- more than 8 bits: DALI scales by 255/65535 and rounds, the reference shifts, and they differ by one;
- JPEGs with four channels or with RGB inside: on a GPU nvJPEG converts the colours in its own way;
- JPEG, WebP and BMP files that end early, as broken downloads do: found here, they cost no second run.
  nvImageCodec silently returns garbage for a BMP without its last padding;
- files that take DALI minutes or gigabytes: JPEGs with very many scans, PNGs with large compressed texts.

DALI is less strict than the other backends (damage.py): in a JPEG that is damaged between its header and its
end marker it fills in the missing pixels, and libjpeg-turbo's warning goes to stderr. To find such damage one
must decode all codes on the CPU, which is most of the work that DALI takes over.
"""

from typing import NamedTuple

import numpy as np

from fastload import _native
from fastload.decode.damage import packed_text_bytes
from fastload.decode.image_header import ImageHeader
from fastload.decode.spec import Geometries, ImageSpec
from fastload.errors import ConfigError

DALI_LOAD = 0.65  # of the hardware decoder: DALI's own default
FORMATS = ("jpeg", "png", "webp", "bmp")
# Pixels that a filter reads to either side of a sample, at scale 1; when shrinking they grow with the scale.
_SUPPORT = {"nearest": 0.5, "bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
# Beyond what the filter reads: at the edge of a region, upsampled chroma lacks its neighbours if a decoder
# does not read outside the region (libjpeg-turbo does; for nvJPEG that is not documented).
MARGIN = 4
_EDGE = 1e-6  # pixels: above the error of float64 sums, below the distance of centres on different edges
# Decompressed they may be a thousand times larger, and libpng keeps them. Pillow gets none of them.
_MAX_TEXT_BYTES = 1 << 16
_TAIL_BYTES = 64  # where the end marker of a JPEG nearly always is; a search of the whole file takes longer


class Arguments(NamedTuple):
    """DALI's arguments for n samples; all (y, x), in pixels of the upright image."""

    start: np.ndarray  # [n, 2] int32: the region to decode
    shape: np.ndarray  # [n, 2] int32
    roi_start: np.ndarray  # [n, 2] float32: the box to resize, in pixels of the region
    roi_end: np.ndarray  # [n, 2] float32; the output is flipped if it lies left of the start
    inner: np.ndarray  # [n, 2] int32: where the output begins in the region, if nothing is resized
    flip: np.ndarray  # [n] int32, if nothing is resized

    def of(self, samples: np.ndarray) -> "Arguments":
        """The arguments of some of the samples."""
        return Arguments(*(column[samples] for column in self))


def hardware_share(hw_decoder_load: float | None, deterministic: bool) -> float:
    """The share of the JPEGs for a GPU's hardware decoder. None: all; or DALI's default if not deterministic.

    Raises ConfigError for a number outside [0, 1], and for a share with which a sample's decoder would depend
    on its batch.
    """
    if hw_decoder_load is None:
        return 1.0 if deterministic else DALI_LOAD
    is_number = isinstance(hw_decoder_load, (int, float)) and not isinstance(hw_decoder_load, bool)
    if not is_number or not 0.0 <= hw_decoder_load <= 1.0:
        raise ConfigError(
            f"hw_decoder_load must be a share of the images in [0, 1], got {hw_decoder_load!r}."
        )
    if deterministic and hw_decoder_load not in (0.0, 1.0):
        raise ConfigError(
            f"with hw_decoder_load={hw_decoder_load!r} the load decides which decoder an image gets, and "
            "pixels differ: use 0 or 1, or deterministic=False."
        )
    return float(hw_decoder_load)


def admits(library, content: np.ndarray, header: ImageHeader, max_pixels: int) -> bool:
    """Whether DALI may decode this image.

    content: [bytes] uint8. library: from `pipeline.load`; its parser is the one that DALI uses.
    """
    if header.format not in FORMATS or not header.complete or header.width * header.height > max_pixels:
        return False
    if header.bits > 8 or not _ends_well(header, content):
        return False
    if header.format == "jpeg" and (header.channels not in (1, 3) or header.adobe_transform == 0):
        return False
    if header.format == "jpeg" and _max_scans(content) > _native.MAX_JPEG_SCANS:
        return False
    if header.format == "png" and packed_text_bytes(content) > _MAX_TEXT_BYTES:
        return False
    try:
        stream = library.nvimgcodec.CodeStream(content)
        # The type, too: some damaged files have a size but no valid sample type, and DALI throws at them.
        found = stream.dtype, stream.width, stream.height
    except (RuntimeError, TypeError, ValueError):  # the parser refuses the file
        return False
    return found == (np.uint8, header.width, header.height)


def arguments(
    spec: ImageSpec, chosen: Geometries, sizes: np.ndarray, own_sizes: np.ndarray, margin: int
) -> tuple[Arguments, bool]:
    """DALI's arguments for n samples, and whether none of them needs resizing.

    chosen: their geometry in images of `sizes` [n, 2] (width, height), which is stretched to `own_sizes` as
    `spec.stretched` does. margin: pixels to decode around the needed region if nothing is resized; they are
    cut off afterwards.
    """
    sizes, own = np.tile(sizes, 2), np.tile(own_sizes, 2)
    box = np.where(sizes == own, chosen.box, chosen.box * own / sizes)
    step = (box[:, 2:] - box[:, :2]) / chosen.resized  # pixels of the image to one of the output, (x, y)
    begin = box[:, :2] + chosen.crop[:, :2] * step
    end = box[:, :2] + (chosen.crop[:, :2] + chosen.crop[:, 2:]) * step
    aligned = bool((step == 1.0).all() and (begin == np.floor(begin)).all())
    reach = margin if aligned else _SUPPORT[spec.filter] * np.maximum(step, 1.0) + MARGIN
    start = np.maximum(np.floor(begin - reach), 0)
    stop = np.minimum(np.ceil(end + reach), own[:, :2])
    # An exception while DALI sets up a batch kills the process.
    assert ((start >= 0) & (start < stop) & (stop <= own[:, :2])).all(), "a region outside its image"
    inner = np.floor(begin) - start
    roi_start, roi_end = begin - start, end - start
    if spec.filter == "nearest" and not aligned:
        nudge = _nudges(box, chosen)
        roi_start, roi_end = roi_start + nudge, roi_end + nudge
    flip = np.asarray(chosen.flip, bool)
    roi_start[flip, 0], roi_end[flip, 0] = roi_end[flip, 0], roi_start[flip, 0]
    columns = (start, np.int32), (stop - start, np.int32), (roi_start, np.float32), (roi_end, np.float32)
    columns = *columns, (inner, np.int32)
    rows_first = (np.ascontiguousarray(pairs[:, ::-1], kind) for pairs, kind in columns)
    return Arguments(*rows_first, flip.astype(np.int32)), aligned


def _nudges(box: np.ndarray, chosen: Geometries) -> np.ndarray:
    """By how much to move a box for "nearest", [n, 2] pixels, so that it takes the same pixels as Pillow.

    For a centre on the edge between two pixels the last bit decides which one is taken, and Pillow sums steps
    in float64 while DALI multiplies in float32. Pillow's choices allow a range of moves; its middle is used.
    If they allow none, because Pillow's sums fall short at one edge but not at another, the right and lower
    pixel is taken at all edges: the same on every device, and as near as the other.
    """
    nudges = np.zeros((len(box), 2))
    for i, axis in np.ndindex(nudges.shape):
        low, high = box[i, axis], box[i, axis + 2]
        first, count = int(chosen.crop[i, axis]), int(chosen.crop[i, axis + 2])
        step = (high - low) / int(chosen.resized[i, axis])
        summed = np.add.accumulate(np.concatenate([[low + step * 0.5], np.full(first + count - 1, step)]))
        centres = low + (np.arange(first, first + count) + 0.5) * step
        offsets = centres - np.floor(summed[first:])  # from the left edge of the pixel that Pillow takes
        if offsets.max() - offsets.min() > 1.0 - _EDGE:
            offsets = centres - np.floor(centres + _EDGE)
        nudges[i, axis] = (1.0 - offsets.max() - offsets.min()) / 2
    return nudges


def _max_scans(content: np.ndarray) -> int:
    """At most how many scans a JPEG has: all bytes that look like the marker of one, also in previews and
    trailers. DALI itself has no limit."""
    return int(np.count_nonzero((content[:-1] == 0xFF) & (content[1:] == 0xDA)))


def _ends_well(header: ImageHeader, content: np.ndarray) -> bool:
    """False if a JPEG, WebP or BMP is truncated: checks its end marker, RIFF size, or rows of words.

    A truncated JPEG with a preview inside may still have a marker: DALI's run finds it.
    """
    if header.format == "jpeg":
        end = b"\xff\xd9"
        return end in content[-_TAIL_BYTES:].tobytes() or end in content.tobytes()
    if header.format == "webp":
        return _little(content[4:8]) + 8 <= len(content)
    if header.format == "bmp":
        bits = _little(content[24:26] if _little(content[14:18]) == 12 else content[28:30])
        return _little(content[10:14]) + -(-header.width * bits // 32) * 4 * header.height <= len(content)
    return True


def _little(content: np.ndarray) -> int:
    return int.from_bytes(content.tobytes(), "little")
