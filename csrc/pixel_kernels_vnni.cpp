// The kernels on 512-bit vectors with one instruction for multiply-add (VNNI). Compiled with -mavx512vnni.
#if defined(__x86_64__)
#include <immintrin.h>

#include "pixel_kernels.h"

#define KERNEL_NAME "vnni"
#define KERNEL_TABLE PIXEL_KERNELS_VNNI

namespace fastload {
namespace {

inline __m512i multiply_add(__m512i sum, __m512i words, __m512i weights) {
    return _mm512_dpwssd_epi32(sum, words, weights);
}

#include "pixel_kernels_512.inc"
#include "pixel_kernels_x86.inc"
#endif
