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
    static Int widen(const uint8_t *p) { return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))); }
    static Int dot(Int sum, Int words, Int weights) { return _mm512_dpwssd_epi32(sum, words, weights); }
    template <int LOW, int ALL>
    static Int join(Int high, Int low) { return _mm512_srai_epi32(_mm512_add_epi32(_mm512_slli_epi32(high, LOW), low), ALL); }
    static void store_bytes(uint8_t *p, Int words) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtusepi32_epi8(_mm512_max_epi32(words, zero())));
    }
    static void store_normalized(const uint8_t *in, float divisor, float mean, float std, bool scaled, float *out) {
        Int words = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(in)));
        __m512 value = _mm512_sub_ps(_mm512_div_ps(_mm512_cvtepi32_ps(words), _mm512_set1_ps(divisor)), _mm512_set1_ps(mean));
        _mm512_storeu_ps(out, scaled ? _mm512_div_ps(value, _mm512_set1_ps(std)) : value);
    }
};

#include "pixel_kernels_x86.inc"
#endif
