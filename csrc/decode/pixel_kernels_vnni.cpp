// The kernels on 512-bit vectors with one instruction for multiply-add (VNNI). Compiled with -mavx512vnni.
#if defined(__x86_64__)
#include <immintrin.h>

#include "decode/pixel_kernels.h"

#define KERNEL_NAME "vnni"
#define KERNEL_TABLE PIXEL_KERNELS_VNNI
#define KERNEL_WEIGHTS WeightFormat::bytes

namespace fastload {
namespace {

inline __m512i multiply_add(__m512i sum, __m512i bytes, __m512i weights) {
    return _mm512_dpbusd_epi32(sum, bytes, weights);
}

#include "decode/pixel_kernels_512.inc"
#include "decode/pixel_kernels_x86.inc"
#endif
