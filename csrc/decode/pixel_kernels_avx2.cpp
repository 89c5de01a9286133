// The kernels on 256-bit vectors. Compiled with -mavx2 -mfma.
#if defined(__x86_64__)
#include <immintrin.h>

#include "decode/pixel_kernels.h"

#define KERNEL_NAME "avx2"
#define KERNEL_TABLE PIXEL_KERNELS_AVX2
#define KERNEL_WEIGHTS WeightFormat::words
#define MM(name) _mm256_##name
#define MM_BITS(name) _mm256_##name##_si256

namespace fastload {
namespace {

struct Vector {
    using Int = __m256i;
    using Float = __m256;
    static constexpr int WORDS = 8, MAX_BLOCKS = 6;

#include "decode/pixel_vector_x86.inc"

    static Int dot(Int sum, Int words, Int weights) { return _mm256_add_epi32(sum, _mm256_madd_epi16(words, weights)); }
    static Int or_difference(Int sum, Int a, Int b) { return _mm256_or_si256(sum, _mm256_xor_si256(a, b)); }
    static bool any(Int a, Int bits) { return !_mm256_testz_si256(a, bits); }
    // The values of all four, clamped, lane after lane.
    static Int pack(Int a, Int b, Int c, Int d) {
        Int bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }

    static Float floats(const uint8_t *p) {
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p))));
    }

    // 16 bytes of each of two rows.
    static Int load_lanes(const uint8_t *p, size_t stride_bytes) {
        Int first = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
        return _mm256_inserti128_si256(first, _mm_loadu_si128(reinterpret_cast<const __m128i *>(p + stride_bytes)), 1);
    }
    static Int shuffle_bytes(Int bytes, __m128i order) {
        return _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(order));
    }
};

#include "decode/pixel_kernels_x86.inc"
#endif
