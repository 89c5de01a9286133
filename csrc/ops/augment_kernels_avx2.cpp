// The augmentation on 256-bit vectors. Compiled with -mavx2 -mfma -mf16c.
#if defined(__x86_64__)
#include <immintrin.h>

#include "ops/augment_kernels.h"

#define KERNEL_NAME "avx2"
#define MM(name) _mm256_##name
#define KERNEL_TABLE AUGMENT_KERNELS_AVX2

namespace fastload {
namespace {

struct Vector {
    static constexpr int LANES = 8, BLOCKS = 2;
    using Float = __m256;
    using Bits = __m256i;
    using Pairs = __m256d;
    using Int [[gnu::vector_size(32)]] = int32_t;

    static Float load(const uint8_t *p) { return widened(load_8(p)); }
    static void store_ints(int32_t *p, Int v) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), (__m256i)v); }

    static Float magnitude(Float v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
    static Float where_equal(Float a, Float b, Float then, Float other) {
        return _mm256_blendv_ps(other, then, _mm256_cmp_ps(a, b, _CMP_EQ_OQ));
    }
    static Float counting() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
    static Float whole(Float v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

    // Of `count` bytes; what lies past them, up to a whole vector of bytes, is 0.
    static uint64_t sum_uint8(const uint8_t *p, int count) {
        __m256i sum = _mm256_setzero_si256();
        for (int i = 0; i < count; i += 32)
            sum = _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p + i)),
                                                        _mm256_setzero_si256()));
        return static_cast<uint64_t>(sum[0] + sum[1] + sum[2] + sum[3]);
    }

    static void store_float16(uint16_t *p, Float v) {
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    // 32-bit lanes that hold 16 bits -> those.
    static __m128i narrowed(__m256i v) {
        return _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    }
    template <bool NANS>
    static void store_bfloat16(uint16_t *p, Float v) {
        __m256i bits = _mm256_castps_si256(v);
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        bits = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        if constexpr (NANS) {
            __m256i is_number = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_ORD_Q));
            bits = _mm256_blendv_epi8(_mm256_set1_epi32(0x7fc00000), bits, is_number);
        }
        _mm_storeu_si128(reinterpret_cast<__m128i *>(p), narrowed(_mm256_srli_epi32(bits, 16)));
    }
    static void store_uint8(uint8_t *p, Float v) {
        v = min(max(v + 0.5f, _mm256_setzero_ps()), _mm256_set1_ps(255.0f));
        __m128i words = narrowed(_mm256_cvttps_epi32(v));
        _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packus_epi16(words, words));
    }

    // Two pixels with their neighbours to the right.
    static void load_taps(const uint8_t *const *p, size_t offset, Float *left, Float *right) {
        __m128i taps = _mm_unpacklo_epi32(load_8(p[0] + offset), load_8(p[1] + offset));
        *left = widened(taps);
        *right = widened(_mm_srli_si128(taps, 8));
    }
    static void load_taps(const float *const *p, size_t offset, Float *left, Float *right) {
        Float first = _mm256_loadu_ps(p[0] + offset), second = _mm256_loadu_ps(p[1] + offset);
        *left = _mm256_permute2f128_ps(first, second, 0x20);
        *right = _mm256_permute2f128_ps(first, second, 0x31);
    }

#include "ops/augment_kernels_x86.inc"
};

#include "ops/augment_kernels.inc"
#endif
