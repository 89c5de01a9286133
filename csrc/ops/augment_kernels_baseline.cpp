// The augmentation on vectors of four, as GCC and Clang have them on any machine (SSE2, NEON).
#include "ops/augment_kernels.h"

#define KERNEL_NAME "baseline"
#define KERNEL_TABLE AUGMENT_KERNELS_BASELINE

namespace fastload {
namespace {

struct Vector {
    static constexpr int LANES = 4, BLOCKS = 2;
    using Float [[gnu::vector_size(16)]] = float;
    using Int [[gnu::vector_size(16)]] = int32_t;

    static Float splat(float value) { return Float{value, value, value, value}; }
    static Float load(const float *p) {
        Float v;
        __builtin_memcpy(&v, p, sizeof v);
        return v;
    }
    static Float load(const uint8_t *p) {
        using Bytes [[gnu::vector_size(4)]] = uint8_t;
        Bytes bytes;
        __builtin_memcpy(&bytes, p, sizeof bytes);
        return floats(__builtin_convertvector(bytes, Int));
    }
    static void store(float *p, Float v) { __builtin_memcpy(p, &v, sizeof v); }
    static void store_ints(int32_t *p, Int v) { __builtin_memcpy(p, &v, sizeof v); }
    static void stream(float *p, Float v) { store(p, v); }
    static void finish_streams() {}

    static Float min(Float a, Float b) { return a < b ? a : b; }
    static Float max(Float a, Float b) { return a > b ? a : b; }
    static Float magnitude(Float v) { return (Float)((Int)v & 0x7fffffff); }
    static Float where_equal(Float a, Float b, Float then, Float other) { return a == b ? then : other; }
    static Float kept(Float v, const int32_t *keep) {
        Int mask;
        __builtin_memcpy(&mask, keep, sizeof mask);
        return (Float)((Int)v & mask);
    }
    static Float counting() { return Float{0, 1, 2, 3}; }
    static Float floats(Int v) { return __builtin_convertvector(v, Float); }
    // Towards zero. What does not fit an int32 becomes 0: such a coordinate is outside every image.
    static Int truncated(Float v) {
        Float small = magnitude(v) < 2147483648.0f ? v : Float{};
        return __builtin_convertvector(small, Int);
    }
    static Float whole(Float v) {  // nearest
        Float half = (Float)(((Int)v & (int32_t)0x80000000) | (Int)(Float{} + 0.5f));
        return floats(truncated(v + half));
    }

    // Of `count` bytes; what lies past them, up to a whole vector of bytes, is 0.
    static uint64_t sum_uint8(const uint8_t *p, int count) {
        uint64_t sum = 0;
        for (int i = 0; i < count; i++) sum += p[i];
        return sum;
    }

    static void store_float16(uint16_t *p, Float v) {
        Int bits = (Int)v, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
        Int normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
        // Below 2^-14 a unit in the last place is 2^-24: that of a float32 from 1/2 to 1, whose sum rounds.
        Int subnormal = (Int)((Float)magnitude + 0.5f) - 0x3f000000;
        Int large = magnitude > 0x7f800000 ? (Int{} + 0x7e00) : (Int{} + 0x7c00);  // NaN, or infinite
        Int result = magnitude < 0x38800000 ? subnormal : magnitude < 0x47800000 ? normal : large;
        result |= sign;
        for (int lane = 0; lane < LANES; lane++) p[lane] = static_cast<uint16_t>(result[lane]);
    }
    template <bool NANS>
    static void store_bfloat16(uint16_t *p, Float v) {
        Int bits = (Int)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        bits = NANS ? (v == v ? rounded : (Int{} + 0x7fc0)) : rounded;
        for (int lane = 0; lane < LANES; lane++) p[lane] = static_cast<uint16_t>(bits[lane]);
    }
    static void store_uint8(uint8_t *p, Float v) {
        Int bytes = truncated(min(max(v + 0.5f, Float{}), Float{} + 255.0f));
        for (int lane = 0; lane < LANES; lane++) p[lane] = static_cast<uint8_t>(bytes[lane]);
    }

    // The pixels at `pixels`, their neighbours to the right and below, blended by the distance from the first.
    template <class Value>
    static void blend(const Value *packed, size_t row_pixels, const int32_t *pixels, Float past_x, Float past_y,
                      Float *v) {
        Float blended[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            const Value *above = packed + 4 * static_cast<size_t>(pixels[lane]), *below = above + 4 * row_pixels;
            Float left = load(above), right = load(above + 4);
            left += (load(below) - left) * past_y[lane];
            right += (load(below + 4) - right) * past_y[lane];
            blended[lane] = left + (right - left) * past_x[lane];
        }
        for (int channel = 0; channel < 3; channel++)
            v[channel] = Float{blended[0][channel], blended[1][channel], blended[2][channel], blended[3][channel]};
    }
};

#include "ops/augment_kernels.inc"
