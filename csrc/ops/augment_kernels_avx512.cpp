// The augmentation on 512-bit vectors. Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq.
#if defined(__x86_64__)
#include <immintrin.h>

#include "ops/augment_kernels.h"

#define KERNEL_NAME "avx512"
#define MM(name) _mm512_##name
#define KERNEL_TABLE AUGMENT_KERNELS_AVX512

namespace fastload {
namespace {

struct Vector {
    static constexpr int LANES = 16, BLOCKS = 2;
    using Float = __m512;
    using Bits = __m512i;
    using Pairs = __m512d;
    using Int [[gnu::vector_size(64)]] = int32_t;

    static Float load(const uint8_t *p) { return widened(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))); }
    static void store_ints(int32_t *p, Int v) { _mm512_storeu_si512(p, (__m512i)v); }

    static Float magnitude(Float v) { return _mm512_abs_ps(v); }
    static Float where_equal(Float a, Float b, Float then, Float other) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), other, then);
    }
    static Float counting() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
    static Float whole(Float v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

    // Of `count` bytes; what lies past them, up to a whole vector of bytes, is 0.
    static uint64_t sum_uint8(const uint8_t *p, int count) {
        __m512i sum = _mm512_setzero_si512();
        for (int i = 0; i < count; i += 64)
            sum = _mm512_add_epi64(sum, _mm512_sad_epu8(_mm512_loadu_si512(p + i), _mm512_setzero_si512()));
        return static_cast<uint64_t>(_mm512_reduce_add_epi64(sum));
    }

    static void store_float16(uint16_t *p, Float v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    template <bool NANS>
    static void store_bfloat16(uint16_t *p, Float v) {
        __m512i bits = _mm512_castps_si512(v);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        if constexpr (NANS)
            bits = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x7fc00000));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    }
    static void store_uint8(uint8_t *p, Float v) {
        v = min(max(v + 0.5f, _mm512_setzero_ps()), _mm512_set1_ps(255.0f));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
    }

    // Four pixels with their neighbours to the right.
    static void load_taps(const uint8_t *const *p, size_t offset, Float *left, Float *right) {
        __m128i ab = _mm_unpacklo_epi32(load_8(p[0] + offset), load_8(p[1] + offset));
        __m128i cd = _mm_unpacklo_epi32(load_8(p[2] + offset), load_8(p[3] + offset));
        *left = widened(_mm_unpacklo_epi64(ab, cd));
        *right = widened(_mm_unpackhi_epi64(ab, cd));
    }
    static Float load_four(const float *const *p, size_t offset) {
        Float taps = _mm512_castps128_ps512(_mm_loadu_ps(p[0] + offset));
        taps = _mm512_insertf32x4(taps, _mm_loadu_ps(p[1] + offset), 1);
        taps = _mm512_insertf32x4(taps, _mm_loadu_ps(p[2] + offset), 2);
        return _mm512_insertf32x4(taps, _mm_loadu_ps(p[3] + offset), 3);
    }
    static void load_taps(const float *const *p, size_t offset, Float *left, Float *right) {
        *left = load_four(p, offset);
        *right = load_four(p, offset + 4);
    }

#include "ops/augment_kernels_x86.inc"
};

#include "ops/augment_kernels.inc"
#endif
