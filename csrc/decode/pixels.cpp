#include "decode/pixels.h"

namespace fastload {
namespace {

bool runs_here(const PixelKernels *kernels) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (kernels == &PIXEL_KERNELS_VNNI) return has_avx512() && __builtin_cpu_supports("avx512vnni");
    if (kernels == &PIXEL_KERNELS_AVX512) return has_avx512();
    if (kernels == &PIXEL_KERNELS_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)kernels;
    return true;
}

}  // namespace

KernelChoice<PixelKernels> &pixel_kernel_choice() {
    static KernelChoice<PixelKernels> choice(
        {
#if defined(__x86_64__)
            &PIXEL_KERNELS_VNNI,
            &PIXEL_KERNELS_AVX512,
            &PIXEL_KERNELS_AVX2,
            &PIXEL_KERNELS_SSE2,
#endif
            &PIXEL_KERNELS_PORTABLE,
        },
        runs_here);
    return choice;
}

const PixelKernels &pixel_kernels_in_use() { return pixel_kernel_choice().in_use(); }

void resize_to(const ResizeRequest &request, const uint8_t *rgb, size_t stride_bytes, const PixelWriter &writer,
               uint8_t *sample) {
    const PixelKernels &kernels = pixel_kernels_in_use();
    Resizer resizer(&kernels);
    resizer.begin(request);
    resizer.run(rgb, stride_bytes, [&](int y, const uint8_t *planes, size_t plane_stride) {
        writer.write_row(kernels, y, planes, plane_stride, sample);
    });
    kernels.finish_writes();
}

}  // namespace fastload
