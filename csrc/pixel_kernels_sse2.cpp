// The kernels on 128-bit vectors: the baseline of every x86-64.
#if defined(__x86_64__)
#include <emmintrin.h>

#include "pixel_kernels.h"

#define KERNEL_NAME "sse2"
#define KERNEL_TABLE PIXEL_KERNELS_SSE2

namespace fastload {
namespace {

struct Vector {
    using Int = __m128i;
    static constexpr int WORDS = 4;
    static constexpr int MOST_BLOCKS = 4;

    static Int zero() { return _mm_setzero_si128(); }
    static Int set1(int32_t value) { return _mm_set1_epi32(value); }
    static Int widen(const uint8_t *p) {
        return _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)), zero());
    }
    static Int dot(Int sum, Int words, Int weights) { return _mm_add_epi32(sum, _mm_madd_epi16(words, weights)); }
    template <int LOW, int ALL>
    static Int join(Int high, Int low) {
        return _mm_srai_epi32(_mm_add_epi32(_mm_slli_epi32(high, LOW), low), ALL);
    }
    static void store_bytes(uint8_t *p, Int words) {
        words = _mm_packs_epi32(words, words);
        int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
        __builtin_memcpy(p, &bytes, 4);
    }

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

#include "pixel_kernels_x86.inc"
#endif
