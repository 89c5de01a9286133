// Counter-based random bits: the C++ twin of fastload/rng.py, the same bits for the same counter.
//
// In:  a seed, a position in the endless global order, a purpose and a block.
// Out: four uint32, Philox 4x32-10 with key = (seed low, seed high) and
//      counter = (position low, position high, purpose, block).
// Promise: a pure function, equal on every machine; Random123's known answers are in tests/test_rng.py.
#pragma once

#include <cstdint>

namespace fastload {

inline void philox(uint64_t seed, uint64_t position, uint32_t purpose, uint32_t block, uint32_t out[4]) {
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32);
    uint32_t c2 = purpose, c3 = block;
    for (int round = 0; round < 10; ++round) {
        const uint64_t product0 = uint64_t{0xD2511F53} * c0;
        const uint64_t product1 = uint64_t{0xCD9E8D57} * c2;
        c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
        c1 = static_cast<uint32_t>(product1);
        c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
        c3 = static_cast<uint32_t>(product0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

// [0, 1) in steps of 2^-24: 24 bits are what a float32 holds exactly, so the conversion rounds nothing.
inline float uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

}  // namespace fastload
