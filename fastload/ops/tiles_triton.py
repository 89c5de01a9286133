"""What the launches of all kernels share: tensors as arguments, batches in parts that a grid has room for,
and images cut into tiles."""

from typing import Any

import triton
import triton.language as tl

# Pixels of a tile, and the warps that share them: 4 pixels for each lane, so that a lane's 12 bytes of an
# image are three words, and its results one store of 8 bytes (two-byte floats) or 16 (float32) per channel.
# As Triton 3.6 and 3.9 compile it for sm_90, nothing goes through shared memory between load and store.
BLOCK, NUM_WARPS = 1024, 8
# The longest row of a tile: 256 pixels are 768 bytes of input.
MAX_ROW = 256
MAX_IMAGES = 65535  # CUDA's limit on the second axis of a grid
# Partial sums of an image at most: 64 images are 2048 programs, 15 for each multiprocessor of an H200.
SPLITS = 32  # a power of two

_SPLITS = tl.constexpr(SPLITS)


def strided(tensor: Any) -> tuple:
    """A tensor as kernels take it: (pointer, *strides)."""
    return tensor, *tensor.stride()


def parts_of(n: int, size: int | None = None) -> list[slice]:
    """Slices of n images, of `size` at most; None: as many as a grid has room for."""
    size = size or MAX_IMAGES
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def tiles_of(height: int, width: int, block: int) -> tuple[int, int, int]:
    """The width of an image's tiles of `block` pixels, how many are in a row of tiles, and how many in all.

    The width is the power of two that pads rows the least; of equals the largest: its loads are the longest.
    """
    candidates = [2**k for k in range(5, MAX_ROW.bit_length())]
    tile_width = min(candidates, key=lambda side: (triton.cdiv(width, side) * side, -side))
    tiles_x = triton.cdiv(width, tile_width)
    return tile_width, tiles_x, tiles_x * triton.cdiv(height, block // tile_width)


def reach(tensor: Any, axes: tuple = (1, 2, 3)) -> int:
    """The distance from the first element of an image to its last, in elements."""
    return sum((tensor.shape[axis] - 1) * tensor.stride(axis) for axis in axes)


def index_type(*distances: int) -> Any:
    """The integers that offsets of so many elements need."""
    return tl.int64 if max(distances) >= 2**31 else tl.int32


@triton.jit
def pixels_of_tile(tile, COUNT: tl.constexpr, ROW: tl.constexpr, TILES_X: tl.constexpr):
    """y and x [COUNT] of a tile's pixels, in rows of ROW.

    One axis, not two: where neither is contiguous in memory, Triton 3.6 spreads lanes over the first one."""
    number = tl.arange(0, COUNT)
    return (tile // TILES_X) * (COUNT // ROW) + number // ROW, (tile % TILES_X) * ROW + number % ROW


@triton.jit
def total_of(partial_sums_ptr, image, splits):
    """The sum of an image's partial sums, of [N, splits]; always in the same order."""
    split = tl.arange(0, _SPLITS)
    sums_ptr = partial_sums_ptr + image.to(tl.int64) * splits
    return tl.sum(tl.load(sums_ptr + split, mask=split < splits, other=0.0))
