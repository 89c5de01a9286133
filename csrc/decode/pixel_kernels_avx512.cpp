// The kernels on 512-bit vectors. Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq.
#if defined(__x86_64__)
#include <immintrin.h>

#include "decode/pixel_kernels.h"

#define KERNEL_NAME "avx512"
#define KERNEL_TABLE PIXEL_KERNELS_AVX512
#define KERNEL_WEIGHTS WeightFormat::words

namespace fastload {
namespace {

inline __m512i multiply_add(__m512i sum, __m512i words, __m512i weights) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(words, weights));
}

#include "decode/pixel_kernels_512.inc"
#include "decode/pixel_kernels_x86.inc"
#endif
