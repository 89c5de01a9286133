// A keyed bijection of [0, n) in O(1) memory: the C++ twin of fastload/order/permutation.py, bit-equal.
//
// In:  an index in [0, n), 1 <= n <= 2^62, and a key of two 64-bit words.
// Out: another index in [0, n). Promise: for a fixed (n, key) the map is a bijection.
//
// The rounds of a balanced Feistel network permute [0, 4^half_bits), the smallest such range that holds n and has
// two halves; an index that lands at n or above is sent through again (cycle walking) until it lands below.
// The range is less than 4 n for n > 1, so an index takes fewer than four turns on average.
#pragma once

#include <cstdint>

namespace fastload {

// The finaliser of SplitMix64: a bijection of 64 bits in which every input bit moves every output bit.
inline uint64_t mix64(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

class Permutation {
   public:
    static constexpr uint64_t MAX_N = uint64_t{1} << 62;

    Permutation(uint64_t n, uint64_t key0, uint64_t key1) : n_(n) {
        while ((uint64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
        rounds_ = 8 + 16 / half_bits_;
        for (int round = 0; round < rounds_; ++round) round_keys_[round] = round_key(round, key0, key1);
        swap_ = round_key(rounds_, key0, key1) >> 63;
    }

    uint64_t operator()(uint64_t index) const {
        do {
            index = turn(index);
        } while (index >= n_);
        return index;
    }

   private:
    static constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15ull;

    static uint64_t round_key(int round, uint64_t key0, uint64_t key1) {
        return mix64(mix64(key0 + static_cast<uint64_t>(round) * GOLDEN) ^ key1);
    }

    uint64_t turn(uint64_t index) const {
        uint64_t left = index >> half_bits_, right = index & ((uint64_t{1} << half_bits_) - 1);
        for (int round = 0; round < rounds_; ++round) {
            const uint64_t swapped = left ^ (mix64(round_keys_[round] + right * GOLDEN) >> (64 - half_bits_));
            left = right;
            right = swapped;
        }
        index = left << half_bits_ | right;
        return index < 2 ? index ^ swap_ : index;
    }

    uint64_t n_;
    int half_bits_ = 1;
    int rounds_ = 0;
    uint64_t swap_ = 0;
    uint64_t round_keys_[24];  // half_bits 1 has the most rounds: 8 + 16
};

}  // namespace fastload
