#include "pixel_kernels.h"

#include <cstring>

namespace fastload {
namespace {

bool runs_here(const PixelKernels *kernels) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (kernels == &PIXEL_KERNELS_VNNI) return avx512 && __builtin_cpu_supports("avx512vnni");
    if (kernels == &PIXEL_KERNELS_AVX512) return avx512;
    if (kernels == &PIXEL_KERNELS_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)kernels;
    return true;
}

const PixelKernels *const WIDEST_FIRST[] = {
#if defined(__x86_64__)
    &PIXEL_KERNELS_VNNI,     &PIXEL_KERNELS_AVX512, &PIXEL_KERNELS_AVX2, &PIXEL_KERNELS_SSE2,
#endif
    &PIXEL_KERNELS_PORTABLE,
};

}  // namespace

const PixelKernels *best_pixel_kernels() {
    for (const PixelKernels *kernels : WIDEST_FIRST)
        if (runs_here(kernels)) return kernels;
    return &PIXEL_KERNELS_PORTABLE;
}

const PixelKernels *pixel_kernels_named(const char *name) {
    for (const PixelKernels *kernels : WIDEST_FIRST)
        if (!std::strcmp(kernels->name, name)) return runs_here(kernels) ? kernels : nullptr;
    return nullptr;
}

}  // namespace fastload
