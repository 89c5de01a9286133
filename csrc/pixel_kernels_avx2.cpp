// The kernels on 256-bit vectors. Compiled with -mavx2.
#if defined(__x86_64__)
#include <immintrin.h>

#include "pixel_kernels.h"

#define KERNEL_NAME "avx2"
#define KERNEL_TABLE PIXEL_KERNELS_AVX2

namespace fastload {
namespace {

struct Vector {
    using Int = __m256i;
    static constexpr int WORDS = 8;
    static constexpr int MOST_BLOCKS = 6;

    static Int zero() { return _mm256_setzero_si256(); }
    static Int set1(int32_t value) { return _mm256_set1_epi32(value); }
    static Int widen(const uint8_t *p) { return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
    static Int dot(Int sum, Int words, Int weights) { return _mm256_add_epi32(sum, _mm256_madd_epi16(words, weights)); }
    template <int LOW, int ALL>
    static Int join(Int high, Int low) { return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW), low), ALL); }
    static void store_bytes(uint8_t *p, Int words) {
        __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packus_epi16(halves, halves));
    }
    static void store_normalized(const uint8_t *in, float divisor, float mean, float std, bool scaled, float *out) {
        Int words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(in)));
        __m256 value = _mm256_sub_ps(_mm256_div_ps(_mm256_cvtepi32_ps(words), _mm256_set1_ps(divisor)), _mm256_set1_ps(mean));
        _mm256_storeu_ps(out, scaled ? _mm256_div_ps(value, _mm256_set1_ps(std)) : value);
    }
};

#include "pixel_kernels_x86.inc"
#endif
