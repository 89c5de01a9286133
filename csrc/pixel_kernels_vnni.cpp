// The kernels on 512-bit vectors with one instruction for multiply-add (VNNI). Compiled with -mavx512vnni.
#if defined(__x86_64__)
#include <immintrin.h>

#include "pixel_kernels.h"

#define KERNEL_NAME "vnni"
#define KERNEL_TABLE PIXEL_KERNELS_VNNI

namespace fastload {
namespace {

struct Vector {
    using Int = __m512i;
    static constexpr int WORDS = 16;
    static constexpr int MOST_BLOCKS = 8;

    static Int zero() { return _mm512_setzero_si512(); }
    static Int set1(int32_t value) { return _mm512_set1_epi32(value); }
    static Int widen(const uint8_t *p) {
        return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
    }
    static Int dot(Int sum, Int words, Int weights) { return _mm512_dpwssd_epi32(sum, words, weights); }
    template <int LOW, int ALL>
    static Int join(Int high, Int low) {
        return _mm512_srai_epi32(_mm512_add_epi32(_mm512_slli_epi32(high, LOW), low), ALL);
    }
    static void store_bytes(uint8_t *p, Int words) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtusepi32_epi8(_mm512_max_epi32(words, zero())));
    }

    using Float = __m512;
    static Float floats(const uint8_t *p) {
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))));
    }
    static Float divide(Float value, float by) { return _mm512_div_ps(value, _mm512_set1_ps(by)); }
    static Float minus(Float value, float mean) { return _mm512_sub_ps(value, _mm512_set1_ps(mean)); }
    static Float quotient(Float value, float by, float reciprocal) {
        Float first = _mm512_mul_ps(value, _mm512_set1_ps(reciprocal));
        Float remainder = _mm512_fnmadd_ps(first, _mm512_set1_ps(by), value);
        return _mm512_fmadd_ps(remainder, _mm512_set1_ps(reciprocal), first);
    }
    static void store_floats(float *p, Float value) { _mm512_storeu_ps(p, value); }
    static void stream_floats(float *p, Float value) { _mm512_stream_ps(p, value); }

    static Int unpack_low_words(Int a, Int b) { return _mm512_unpacklo_epi16(a, b); }
    static Int unpack_high_words(Int a, Int b) { return _mm512_unpackhi_epi16(a, b); }
    static Int pair_words(const uint8_t *p) {
        Int bytes = _mm512_loadu_si512(p);  // 16 pixels are 48 of these
        bytes = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11), bytes);
        const __m128i order = _mm_setr_epi8(0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1);
        return _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(order));
    }
    // Lane l of both, 32 bytes, to p + l * stride.
    static void store_lanes(uint8_t *p, int stride, Int upper, Int lower) {
        Int first = _mm512_permutex2var_epi64(upper, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), lower);
        Int second = _mm512_permutex2var_epi64(upper, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), lower);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_castsi512_si256(first));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p + stride), _mm512_extracti64x4_epi64(first, 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p + 2 * stride), _mm512_castsi512_si256(second));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p + 3 * stride), _mm512_extracti64x4_epi64(second, 1));
    }
};

#include "pixel_kernels_x86.inc"
#endif
