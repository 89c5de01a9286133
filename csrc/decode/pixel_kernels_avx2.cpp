// The kernels on 256-bit vectors. Compiled with -mavx2 -mfma.
#if defined(__x86_64__)
#include <immintrin.h>

#include "decode/pixel_kernels.h"

#define KERNEL_NAME "avx2"
#define KERNEL_TABLE PIXEL_KERNELS_AVX2
#define KERNEL_WEIGHTS WeightFormat::words

namespace fastload {
namespace {

struct Vector {
    using Int = __m256i;
    static constexpr int WORDS = 8;
    static constexpr int MAX_BLOCKS = 6;

    static Int zero() { return _mm256_setzero_si256(); }
    static Int set1(int32_t value) { return _mm256_set1_epi32(value); }
    static Int load(const uint8_t *p) { return _mm256_loadu_si256(reinterpret_cast<const Int *>(p)); }
    static Int even_bytes(Int bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi16(0xff)); }
    static Int odd_bytes(Int bytes) { return _mm256_srli_epi16(bytes, 8); }
    static Int dot(Int sum, Int words, Int weights) { return _mm256_add_epi32(sum, _mm256_madd_epi16(words, weights)); }
    static Int plus(Int a, Int b) { return _mm256_add_epi32(a, b); }
    static Int shift_left(Int a, int bits) { return _mm256_sllv_epi32(a, _mm256_set1_epi32(bits)); }
    static Int shift_right(Int a, int bits) { return _mm256_srav_epi32(a, _mm256_set1_epi32(bits)); }
    static Int or_difference(Int sum, Int a, Int b) { return _mm256_or_si256(sum, _mm256_xor_si256(a, b)); }
    static bool any(Int a, Int bits) { return !_mm256_testz_si256(a, bits); }
    // The values of all four, clamped, lane after lane.
    static Int pack(Int a, Int b, Int c, Int d) {
        Int bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
    static void store(uint8_t *p, Int a) { _mm256_storeu_si256(reinterpret_cast<Int *>(p), a); }

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

    // 16 bytes of each of two rows.
    static Int load_lanes(const uint8_t *p, size_t stride_bytes) {
        Int first = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
        return _mm256_inserti128_si256(first, _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + stride_bytes)), 1);
    }
    static Int shuffle_bytes(Int bytes, __m128i order) {
        return _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
    }
    static Int low_dwords(Int a, Int b) { return _mm256_unpacklo_epi32(a, b); }
    static Int high_dwords(Int a, Int b) { return _mm256_unpackhi_epi32(a, b); }
    static Int low_qwords(Int a, Int b) { return _mm256_unpacklo_epi64(a, b); }
    static Int high_qwords(Int a, Int b) { return _mm256_unpackhi_epi64(a, b); }
};

#include "decode/pixel_kernels_x86.inc"
#endif
