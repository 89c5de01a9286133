// Resize and write of a decoded image, and the instruction set in use.
#pragma once
#include "base/kernel_choice.h"
#include "decode/pixel_kernels.h"
#include "decode/pixel_writer.h"
#include "decode/resize.h"

namespace fastload {

KernelChoice<PixelKernels> &pixel_kernel_choice();
const PixelKernels &pixel_kernels_in_use();

// Resizes, crops, flips and writes one image of interleaved RGB bytes.
void resize_to(const ResizeRequest &request, const uint8_t *rgb, size_t stride_bytes, const PixelWriter &writer,
               uint8_t *sample);

}  // namespace fastload
