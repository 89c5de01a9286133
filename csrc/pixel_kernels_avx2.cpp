// The kernels on 256-bit vectors. Compiled with -mavx2 -mfma.
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
    static Int widen(const uint8_t *p) {
        return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
    }
    static Int dot(Int sum, Int words, Int weights) { return _mm256_add_epi32(sum, _mm256_madd_epi16(words, weights)); }
    template <int LOW, int ALL>
    static Int join(Int high, Int low) {
        return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW), low), ALL);
    }
    static void store_bytes(uint8_t *p, Int words) {
        __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packus_epi16(halves, halves));
    }

    using Float = __m256;
    static Float floats(const uint8_t *p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
    }
    static Float divide(Float value, float by) { return _mm256_div_ps(value, _mm256_set1_ps(by)); }
    static Float minus(Float value, float mean) { return _mm256_sub_ps(value, _mm256_set1_ps(mean)); }
    static Float quotient(Float value, float by, float reciprocal) {
        Float first = _mm256_mul_ps(value, _mm256_set1_ps(reciprocal));
        Float remainder = _mm256_fnmadd_ps(first, _mm256_set1_ps(by), value);
        return _mm256_fmadd_ps(remainder, _mm256_set1_ps(reciprocal), first);
    }
    static void store_floats(float *p, Float value) { _mm256_storeu_ps(p, value); }
    static void stream_floats(float *p, Float value) { _mm256_stream_ps(p, value); }

    static Int unpack_low_words(Int a, Int b) { return _mm256_unpacklo_epi16(a, b); }
    static Int unpack_high_words(Int a, Int b) { return _mm256_unpackhi_epi16(a, b); }
    static Int pair_words(const uint8_t *p) {
        Int bytes = _mm256_loadu_si256(reinterpret_cast<const Int *>(p));  // 8 pixels are 24 of these
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5));
        const __m128i order = _mm_setr_epi8(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1);
        return _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
    }
    // Lane l of both, 32 bytes, to p + l * stride.
    static void store_lanes(uint8_t *p, int stride, Int upper, Int lower) {
        _mm256_storeu_si256(reinterpret_cast<Int *>(p), _mm256_permute2x128_si256(upper, lower, 0x20));
        _mm256_storeu_si256(reinterpret_cast<Int *>(p + stride), _mm256_permute2x128_si256(upper, lower, 0x31));
    }
};

#include "pixel_kernels_x86.inc"
#endif
