#include "decode/resize.h"

#include <algorithm>
#include <cstring>

namespace fastload {
namespace {

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

size_t Resizer::held_bytes() const {
    size_t bytes = cache_.held_bytes();
    for (const std::vector<uint8_t> *memory : {&strip_, &columns_, &outputs_, &fours_, &planes_, &tall_})
        bytes += memory->capacity();
    return bytes;
}

void Resizer::begin(const ResizeRequest &request) {
    request_ = request;
    AxisRequest across{request.in_width, request.box[0], request.box[2], request.resized_width,
                       request.left,     request.width,  request.filter, request.flip};
    AxisRequest down{request.in_height, request.box[1], request.box[3], request.resized_height,
                     request.top,       request.height, request.filter, false};
    horizontal_ = cache_.get(across);
    vertical_ = cache_.get(down);
    copy_ = across.identity() && down.identity();
    // Pillow 13 begins with the axis that sheds more of the work; rounding between the passes makes that visible.
    int shed_rows = request.in_height - request.resized_height, shed_columns = request.in_width - request.resized_width;
    vertical_first_ = request.filter != FILTER_NEAREST && !across.identity() && !down.identity() && shed_rows > 0 &&
                      shed_rows > 2 * shed_columns;
    gathered_columns_ = round_up(horizontal_->source_stop - horizontal_->origin, 16);
    out_columns_ = round_up(request.width, 16);
    four_stride_bytes_ = static_cast<size_t>(out_columns_) * FOUR;
    if (!vertical_first_) begin_strips(blank_rows() + last_row() - first_row());
}

void Resizer::begin_strips(int rows) {
    strips_copied_ = rows_out_ = first_four_held_ = fours_held_ = 0;
    planes_.resize(static_cast<size_t>(out_columns_) * 3 + LANE_PADDING);
    if (copy_) return;
    int all_fours = round_up(rows, STRIP_ROWS) / FOUR;
    // What one output needs, one strip more, and room so that what is kept is seldom moved.
    int enough_fours = vertical_->max_fours + 4 * STRIP_ROWS / FOUR;
    four_capacity_ = vertical_first_ ? all_fours : std::min(all_fours, enough_fours);
    plane_stride_bytes_ = static_cast<size_t>(four_capacity_) * four_stride_bytes_;
    fours_.resize(plane_stride_bytes_ * 3 + LANE_PADDING);
    columns_.resize(static_cast<size_t>(gathered_columns_) * 3 * STRIP_ROWS + LANE_PADDING);
    outputs_.resize(static_cast<size_t>(out_columns_) * 3 * STRIP_ROWS + LANE_PADDING);
}

// One strip through the horizontal pass, to fours of rows.
void Resizer::horizontal_strip(const Strip &strip, uint8_t *out_fours) {
    const AxisPlan &plan = *horizontal_;
    int before = plan.source_start - plan.origin;
    if (strip.plane_stride_bytes) {
        kernels_->gather_planes(strip.rows - before, strip.plane_stride_bytes, strip.stride_bytes, gathered_columns_,
                                columns_.data());
    } else {
        kernels_->gather_columns(strip.rows - before * 3, strip.stride_bytes, gathered_columns_, columns_.data());
    }
    kernels_->fir_strip(columns_.data(), plan.weights(), outputs_.data());
    kernels_->scatter_rows(outputs_.data(), round_up(plan.request.count, 4), out_fours, plane_stride_bytes_,
                           four_stride_bytes_);
}

void Resizer::push_strip(const Strip &strip, const RowSink &sink) {
    if (copy_) return copy_strip(strip, sink);
    if (fours_held_ + STRIP_ROWS / FOUR > four_capacity_) drop_used_fours();
    horizontal_strip(strip, fours_.data() + static_cast<size_t>(fours_held_) * four_stride_bytes_);
    fours_held_ += STRIP_ROWS / FOUR;
    if (!vertical_first_) vertical_rows(sink);
}

// Moves the fours of rows that are still needed to the front: the intermediate stays small enough for the cache.
void Resizer::drop_used_fours() {
    // The next row may begin behind all that is held: nearest takes few rows of many.
    int used = std::min(vertical_->first_four[static_cast<size_t>(rows_out_)] - first_four_held_, fours_held_);
    size_t kept_bytes = static_cast<size_t>(fours_held_ - used) * four_stride_bytes_;
    for (size_t channel = 0; channel < 3; channel++) {
        uint8_t *plane = fours_.data() + channel * plane_stride_bytes_;
        std::memmove(plane, plane + static_cast<size_t>(used) * four_stride_bytes_, kept_bytes);
    }
    first_four_held_ += used;
    fours_held_ -= used;
}

// All rows whose taps are there.
void Resizer::vertical_rows(const RowSink &sink) {
    const AxisPlan &plan = *vertical_;
    AxisWeights weights = plan.weights();
    for (; rows_out_ < plan.request.count; rows_out_++) {
        size_t row = static_cast<size_t>(rows_out_);
        int first_four = plan.first_four[row] - first_four_held_;
        if (first_four + plan.fours[row] > fours_held_) return;
        const uint8_t *first = fours_.data() + static_cast<size_t>(first_four) * four_stride_bytes_;
        for (size_t channel = 0; channel < 3; channel++)
            kernels_->fir(first + channel * plane_stride_bytes_, four_stride_bytes_, weights, rows_out_,
                          planes_.data() + channel * static_cast<size_t>(out_columns_), out_columns_);
        sink(rows_out_, planes_.data(), static_cast<size_t>(out_columns_));
    }
}

void Resizer::run(const uint8_t *rgb, size_t stride_bytes, const RowSink &sink) {
    if (vertical_first_) return run_vertical_first(rgb, stride_bytes, sink);
    size_t strip_stride = row_bytes();
    strip_.resize(FRONT_PADDING + strip_stride * STRIP_ROWS);
    uint8_t *strip = strip_.data() + FRONT_PADDING;
    size_t wanted = static_cast<size_t>(last_column_needed() - first_column_needed()) * 3;
    const uint8_t *columns = rgb + static_cast<size_t>(first_column_needed()) * 3;
    for (int row = first_row() - blank_rows(); row < last_row(); row += STRIP_ROWS) {
        if (copy_) {
            copy_strip({columns + static_cast<size_t>(row) * stride_bytes, stride_bytes, 0}, sink);
            continue;
        }
        for (int y = std::max(row, first_row()); y < std::min(row + STRIP_ROWS, last_row()); y++)
            std::memcpy(strip + static_cast<size_t>(y - row) * strip_stride,
                        columns + static_cast<size_t>(y) * stride_bytes, wanted);
        push_strip({strip, strip_stride, 0}, sink);
    }
}

// Nothing is resized: the rows of the crop go to the sink as they come.
void Resizer::copy_strip(const Strip &strip, const RowSink &sink) {
    size_t skipped = static_cast<size_t>(request_.left - first_column_needed());
    for (int i = 0; i < STRIP_ROWS; i++) {
        int y = first_row() + strips_copied_ * STRIP_ROWS + i - request_.top;
        if (y < 0 || y >= request_.height) continue;
        const uint8_t *row = strip.rows + static_cast<size_t>(i) * strip.stride_bytes;
        if (strip.plane_stride_bytes && !request_.flip) {
            sink(y, row + skipped, strip.plane_stride_bytes);
            continue;
        }
        if (strip.plane_stride_bytes) {
            for (size_t channel = 0; channel < 3; channel++)
                kernels_->reverse_row(row + skipped + channel * strip.plane_stride_bytes, request_.width,
                                      planes_.data() + channel * static_cast<size_t>(out_columns_));
        } else {
            kernels_->split_channels(row + skipped * 3, request_.width, request_.flip, planes_.data(),
                                     static_cast<size_t>(out_columns_));
        }
        sink(y, planes_.data(), static_cast<size_t>(out_columns_));
    }
    strips_copied_++;
}

// Rare (tall images), so it is kept simple: the vertical pass makes whole rows, which then go through the horizontal
// pass as if they had been the source.
void Resizer::run_vertical_first(const uint8_t *rgb, size_t stride_bytes, const RowSink &sink) {
    const AxisPlan &plan = *vertical_;
    AxisWeights weights = plan.weights();
    size_t columns = static_cast<size_t>(last_column_needed() - first_column_needed());
    size_t lanes = (columns * 3 + 15) / 16 * 16;
    size_t four_count = static_cast<size_t>(last_row() - plan.origin + FOUR - 1) / FOUR;
    std::vector<uint8_t> fours(four_count * lanes * FOUR + LANE_PADDING);
    for (int row = first_row(); row < last_row(); row++) {
        const uint8_t *from =
            rgb + static_cast<size_t>(row) * stride_bytes + static_cast<size_t>(first_column_needed()) * 3;
        size_t position = static_cast<size_t>(row - plan.origin);
        uint8_t *to = &fours[position / FOUR * lanes * FOUR + position % FOUR];
        for (size_t i = 0; i < columns * 3; i++) to[FOUR * i] = from[i];
    }
    int height = plan.request.count;
    size_t tall_stride = std::max(row_bytes(), lanes);
    tall_.resize(FRONT_PADDING + tall_stride * static_cast<size_t>(round_up(height, STRIP_ROWS)) + LANE_PADDING);
    uint8_t *tall = tall_.data() + FRONT_PADDING;
    for (int y = 0; y < height; y++) {
        size_t row = static_cast<size_t>(y);
        kernels_->fir(&fours[static_cast<size_t>(plan.first_four[row]) * lanes * FOUR], lanes * FOUR, weights, y,
                      tall + row * tall_stride, static_cast<int>(lanes));
    }
    begin_strips(height);
    for (int row = 0; row < height; row += STRIP_ROWS)
        push_strip({tall + static_cast<size_t>(row) * tall_stride, tall_stride, 0}, sink);
    for (int y = 0; y < height; y++) {
        for (size_t channel = 0; channel < 3; channel++) {
            const uint8_t *from =
                &fours_[channel * plane_stride_bytes_ + static_cast<size_t>(y / FOUR) * four_stride_bytes_ +
                        static_cast<size_t>(y % FOUR)];
            uint8_t *to = &planes_[channel * static_cast<size_t>(out_columns_)];
            for (int x = 0; x < request_.width; x++) to[x] = from[FOUR * x];
        }
        sink(y, planes_.data(), static_cast<size_t>(out_columns_));
    }
}

}  // namespace fastload
