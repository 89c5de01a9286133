// Antialiased separable resize with Pillow's arithmetic, of just the pixels that a crop needs.
//
// In: rows of interleaved RGB bytes, all at once or strip by strip as a decoder delivers them.
// Out: the crop of the resized image, flipped where asked, as planar rows of bytes handed to a sink.
// Promises: bit-equal to Pillow 13's Image.resize(size, filter, box=box).crop(...): weights in double, 22 fractional
// bits, the intermediate rounded to bytes, taps clamped to the image (not to the box), the vertical pass first
// exactly where Pillow takes it first.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "decode/axis_plan.h"
#include "decode/geometry.h"
#include "decode/pixel_kernels.h"

namespace fastload {

// A resize as the geometry has it, in pixels of the decoded upright image.
struct ResizeRequest {
    int in_width, in_height;
    float box[4];  // x0, y0, x1, y1
    int resized_width, resized_height;
    int left, top, width, height;  // the crop of the resized image
    bool flip;
    int filter;
};

// STRIP_ROWS rows of RGB: interleaved, or, where plane_stride_bytes is not 0, in three planes.
struct Strip {
    const uint8_t *rows;  // at first_column_needed()
    size_t stride_bytes;
    size_t plane_stride_bytes;
};

// Receives row `y` of the result: three planes of `width` bytes.
using RowSink = std::function<void(int y, const uint8_t *planes, size_t plane_stride_bytes)>;

class Resizer {
   public:
    explicit Resizer(const PixelKernels *kernels) : kernels_(kernels), cache_(kernels->weights) {}

    // Bytes kept for the next image, plans included.
    size_t held_bytes() const;

    // Plans the resize; then either all rows at once:
    void begin(const ResizeRequest &request);
    void run(const uint8_t *rgb, size_t stride_bytes, const RowSink &sink);

    // or, where can_stream(whether strips come in planes), rows [first_row(), last_row()) and columns
    // [first_column_needed(), last_column_needed()) in strips of STRIP_ROWS. The first blank_rows() rows of the first
    // strip count for nothing; columns_read() pixels and LANE_PADDING must be readable from each row, and FRONT_PADDING
    // before it.
    bool can_stream(bool planes) const { return !vertical_first_ && (planes || !copy_); }
    int first_row() const { return vertical_->source_start; }
    int last_row() const { return vertical_->source_stop; }
    int blank_rows() const { return vertical_->source_start - vertical_->origin; }
    int first_column_needed() const { return horizontal_->source_start; }
    int last_column_needed() const { return horizontal_->source_stop; }
    size_t columns_read() const { return static_cast<size_t>(gathered_columns_); }
    void push_strip(const Strip &strip, const RowSink &sink);

   private:
    void run_vertical_first(const uint8_t *rgb, size_t stride_bytes, const RowSink &sink);
    void copy_strip(const Strip &strip, const RowSink &sink);
    void drop_used_fours();
    void vertical_rows(const RowSink &sink);
    void horizontal_strip(const Strip &strip, uint8_t *out_fours);
    size_t row_bytes() const { return columns_read() * 3 + LANE_PADDING; }
    void begin_strips(int rows);

    const PixelKernels *kernels_;
    AxisPlanCache cache_;
    ResizeRequest request_{};
    std::shared_ptr<const AxisPlan> horizontal_, vertical_;
    bool vertical_first_ = false, copy_ = false;
    int gathered_columns_ = 0;  // of a strip, a multiple of 16
    int out_columns_ = 0;       // of the result, a multiple of 16
    int strips_copied_ = 0, rows_out_ = 0;
    int first_four_held_ = 0, fours_held_ = 0, four_capacity_ = 0;  // of the fours of rows in fours_
    size_t four_stride_bytes_ = 0, plane_stride_bytes_ = 0;
    std::vector<uint8_t> strip_, columns_, outputs_, fours_, planes_, tall_;
};

}  // namespace fastload
