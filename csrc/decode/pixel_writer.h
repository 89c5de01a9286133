// From rows of bytes to the training tensor: normalize, cast, lay out.
//
// In: one planar row of a sample. Out: the row in the batch, float32, float16, bfloat16 or uint8, NCHW or NHWC.
// Promises: value = (float32(v) / divisor - mean) / std, each step rounded to float32, then rounded to nearest even
// where the type is narrower; the same bits on every machine and twin. uint8 is passed on as it is.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/dtype.h"
#include "decode/pixel_kernels.h"

namespace fastload {

class PixelWriter {
   public:
    PixelWriter(Dtype dtype, bool channels_last, int height, int width, float divisor, std::array<float, 3> mean,
                std::array<float, 3> std);

    int height() const { return height_; }
    int width() const { return width_; }
    size_t sample_bytes() const { return static_cast<size_t>(height_) * static_cast<size_t>(width_) * 3 * item_bytes_; }

    // Writes row `y` of the sample at `sample`; `planes` are three rows of `width` bytes, `plane_stride_bytes` apart.
    void write_row(const PixelKernels &kernels, int y, const uint8_t *planes, size_t plane_stride_bytes,
                   uint8_t *sample) const;

   private:
    void copy_row(int y, const uint8_t *planes, size_t plane_stride_bytes, uint8_t *sample) const;
    template <class Item>
    void write_from_table(const std::vector<Item> &table, int y, const uint8_t *planes, size_t plane_stride_bytes,
                          uint8_t *sample) const;

    Dtype dtype_;
    bool channels_last_;
    int height_, width_;
    std::array<NormalizeRule, 3> rules_;
    size_t item_bytes_;
    // A byte has 256 values: all of them, per channel, computed once.
    std::vector<float> floats_;
    std::vector<uint16_t> halves_;
};

size_t item_bytes(Dtype dtype);

}  // namespace fastload
