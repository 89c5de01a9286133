#include "decode/pixels.h"

namespace fastload {

KernelChoice<PixelKernels> &pixel_kernel_choice() {
    static KernelChoice<PixelKernels> choice({
#if defined(__x86_64__)
        {&PIXEL_KERNELS_VNNI, has_avx512() && __builtin_cpu_supports("avx512vnni")},
        {&PIXEL_KERNELS_AVX512, has_avx512()},
        {&PIXEL_KERNELS_AVX2, has_avx2()},
        {&PIXEL_KERNELS_SSE2, true},
#endif
        {&PIXEL_KERNELS_PORTABLE, true},
    });
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
