"""How an image is cut into tiles: what kernels that go over all pixels of a batch share."""

from typing import Any

import triton
import triton.language as tl

# Pixels of a tile, and the warps that share them: 4 pixels for each lane, so that a lane's 12 bytes of an
# image are three words, and its results one store of 8 bytes (two-byte floats) or 16 (float32) per channel.
# As Triton 3.6 and 3.9 compile it for sm_90, nothing goes through shared memory between load and store.
BLOCK, NUM_WARPS = 1024, 8
# The longest row of a tile: 256 pixels are 768 bytes of input.
MAX_ROW = 256
# CUDA's limit on the second axis of a grid.
MAX_IMAGES = 65535


def tile_width_of(width: int) -> int:
    """The power of two that pads rows the least; of equals the largest, whose loads are the longest."""
    candidates = [2**k for k in range(5, MAX_ROW.bit_length())]
    return min(candidates, key=lambda one: (triton.cdiv(width, one) * one, -one))


def reach(tensor: Any, axes: tuple) -> int:
    """How many elements the last one of an image lies from its first."""
    return sum((tensor.shape[axis] - 1) * tensor.stride(axis) for axis in axes)


@triton.jit
def pixels_of_tile(tile, COUNT: tl.constexpr, ROW: tl.constexpr, TILES_X: tl.constexpr):
    """y and x [COUNT] of a tile's pixels, in rows of ROW.

    One axis, not two: where neither is contiguous in memory, Triton 3.6 spreads lanes over the first one."""
    number = tl.arange(0, COUNT)
    return (tile // TILES_X) * (COUNT // ROW) + number // ROW, (tile % TILES_X) * ROW + number % ROW
