// The kernels on 128-bit vectors: the baseline of every x86-64.
#if defined(__x86_64__)
#include <emmintrin.h>

#include "decode/pixel_kernels.h"

#define KERNEL_NAME "sse2"
#define KERNEL_TABLE PIXEL_KERNELS_SSE2
#define KERNEL_WEIGHTS WeightFormat::words

namespace fastload {
namespace {

struct Vector {
    using Int = __m128i;
    static constexpr int WORDS = 4;
    static constexpr int MAX_BLOCKS = 4;

    static Int zero() { return _mm_setzero_si128(); }
    static Int set1(int32_t value) { return _mm_set1_epi32(value); }
    static Int load(const uint8_t *p) { return _mm_loadu_si128(reinterpret_cast<const Int *>(p)); }
    static Int even_bytes(Int bytes) { return _mm_and_si128(bytes, _mm_set1_epi16(0xff)); }
    static Int odd_bytes(Int bytes) { return _mm_srli_epi16(bytes, 8); }
    static Int dot(Int sum, Int words, Int weights) { return _mm_add_epi32(sum, _mm_madd_epi16(words, weights)); }
    static Int plus(Int a, Int b) { return _mm_add_epi32(a, b); }
    static Int shift_left(Int a, int bits) { return _mm_sll_epi32(a, _mm_cvtsi32_si128(bits)); }
    static Int shift_right(Int a, int bits) { return _mm_sra_epi32(a, _mm_cvtsi32_si128(bits)); }
    static Int or_difference(Int sum, Int a, Int b) { return _mm_or_si128(sum, _mm_xor_si128(a, b)); }
    static bool any(Int a, Int bits) {
        return _mm_movemask_epi8(_mm_cmpeq_epi32(_mm_and_si128(a, bits), zero())) != 0xffff;
    }
    // The values of all four, clamped, lane after lane.
    static Int pack(Int a, Int b, Int c, Int d) {
        return _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
    }
    static void store(uint8_t *p, Int a) { _mm_storeu_si128(reinterpret_cast<Int *>(p), a); }

    using Float = __m128;
    static Float floats(const uint8_t *p) {
        int bytes;
        __builtin_memcpy(&bytes, p, 4);
        return _mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero()), zero()));
    }
    static Float divide(Float value, float by) { return _mm_div_ps(value, _mm_set1_ps(by)); }
    static Float minus(Float value, float mean) { return _mm_sub_ps(value, _mm_set1_ps(mean)); }
    static void store_floats(float *p, Float value) { _mm_storeu_ps(p, value); }
    static void stream_floats(float *p, Float value) { _mm_stream_ps(p, value); }
};

#include "decode/pixel_kernels_x86.inc"
#endif
