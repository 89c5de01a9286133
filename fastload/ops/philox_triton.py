"""The random bits of rng.py in Triton: functions that all kernels with random draws share."""

import math

import triton
import triton.language as tl

_TURN = tl.constexpr(math.tau)


@triton.jit
def philox(c0, c1, c2, c3, key0, key1):
    """Four words of Philox 4x32-10 for counters and key of uint32.

    Not `tl.philox`, which takes an int64 counter for one of the 4x64 generator."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def words_at(position, purpose, block, seed_low, seed_high):
    """Four words for each position (int64); the halves of the seed as integers of 32 bits."""
    c0, c1 = position.to(tl.uint32), (position >> 32).to(tl.uint32)
    c2, c3 = tl.zeros_like(c0) + purpose, tl.zeros_like(c0) + block
    return philox(c0, c1, c2, c3, seed_low.to(tl.uint32), seed_high.to(tl.uint32))


@triton.jit
def uniform(word):
    """[0, 1) in steps of 2^-24."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def box_muller(a, b):
    """Two standard normals of two words."""
    radius = tl.sqrt_rn(-2 * tl.log(((a >> 8) + 1).to(tl.float32) * 5.9604644775390625e-08))
    angle = uniform(b) * _TURN
    return radius * tl.cos(angle), radius * tl.sin(angle)


def halves(seed: int) -> tuple[int, int]:
    """The seed's words as int32 of the same bits: from 2^31 on Triton would take int64, and compile anew."""
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    return low - (low >> 31 << 32), high - (high >> 31 << 32)
