// The kernels on 128-bit vectors: the baseline of every x86-64.
#if defined(__x86_64__)
#include <emmintrin.h>

#include "decode/pixel_kernels.h"

#define KERNEL_NAME "sse2"
#define KERNEL_TABLE PIXEL_KERNELS_SSE2
#define KERNEL_WEIGHTS WeightFormat::words
#define MM(name) _mm_##name
#define MM_BITS(name) _mm_##name##_si128

namespace fastload {
namespace {

struct Vector {
    using Int = __m128i;
    using Float = __m128;
    static constexpr int WORDS = 4, MAX_BLOCKS = 4;

#include "decode/pixel_vector_x86.inc"

    static Int dot(Int sum, Int words, Int weights) { return _mm_add_epi32(sum, _mm_madd_epi16(words, weights)); }
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

    static Float floats(const uint8_t *p) {
        int bytes;
        __builtin_memcpy(&bytes, p, 4);
        return _mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), zero()), zero()));
    }
};

#include "decode/pixel_kernels_x86.inc"
#endif
