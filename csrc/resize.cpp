#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fastload {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr size_t CACHED_PLANS = 64;

double filter_support(int filter) { return filter == FILTER_BILINEAR ? 1.0 : filter == FILTER_BICUBIC ? 2.0 : 3.0; }

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * PI) / (x * PI); }

double filter_value(int filter, double x) {
    if (filter == FILTER_LANCZOS) return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
    x = std::fabs(x);
    if (filter == FILTER_BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
    constexpr double A = -0.5;
    if (x < 1.0) return ((A + 2.0) * x - (A + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * A;
    return 0.0;
}

struct Taps {
    int start, count;
    std::vector<int32_t> weights;  // 22 fractional bits
};

// Rounding to fixed point is half away from zero, as Pillow's.
int32_t fixed_point(double weight) {
    double scaled = weight * (1 << WEIGHT_BITS);
    return static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

Taps filtered_taps(const AxisRequest &request, int index) {
    double scale = static_cast<double>(request.box_stop - request.box_start) / request.out;
    double filter_scale = std::max(scale, 1.0);
    double support = filter_support(request.filter) * filter_scale;
    double centre = request.box_start + (index + 0.5) * scale;
    double reciprocal = 1.0 / filter_scale;
    Taps taps;
    taps.start = std::max(static_cast<int>(centre - support + 0.5), 0);
    taps.count = std::min(static_cast<int>(centre + support + 0.5), request.in) - taps.start;
    std::vector<double> weights(static_cast<size_t>(std::max(taps.count, 0)));
    double sum = 0.0;
    for (int t = 0; t < taps.count; t++)
        sum += weights[static_cast<size_t>(t)] =
            filter_value(request.filter, (t + taps.start - centre + 0.5) * reciprocal);
    for (double weight : weights) taps.weights.push_back(fixed_point(sum != 0.0 ? weight / sum : weight));
    return taps;
}

// One tap each. Pillow steps through the axis by repeated addition, so the rounding of that sum is part of the result.
std::vector<Taps> nearest_taps(const AxisRequest &request) {
    double step = static_cast<double>(request.box_stop - request.box_start) / request.out;
    double position = request.box_start + step * 0.5;
    std::vector<Taps> taps;
    for (int i = 0; i < request.first + request.count; i++, position += step)
        if (i >= request.first)
            taps.push_back({std::clamp(static_cast<int>(position), 0, request.in - 1), 1, {1 << WEIGHT_BITS}});
    return taps;
}

std::vector<Taps> all_taps(const AxisRequest &request) {
    std::vector<Taps> all;
    if (request.identity()) {
        for (int i = request.first; i < request.first + request.count; i++) all.push_back({i, 1, {1 << WEIGHT_BITS}});
    } else if (request.filter == FILTER_NEAREST) {
        all = nearest_taps(request);
    } else {
        for (int i = request.first; i < request.first + request.count; i++) all.push_back(filtered_taps(request, i));
    }
    if (request.reverse) std::reverse(all.begin(), all.end());
    return all;
}

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

bool AxisRequest::operator==(const AxisRequest &other) const {
    return in == other.in && box_start == other.box_start && box_stop == other.box_stop && out == other.out &&
           first == other.first && count == other.count && filter == other.filter && reverse == other.reverse;
}

AxisPlan make_axis_plan(const AxisRequest &request) {
    std::vector<Taps> all = all_taps(request);
    AxisPlan plan;
    plan.request = request;
    plan.source_start = request.in;
    plan.source_stop = 0;
    for (const Taps &taps : all) {
        plan.source_start = std::min(plan.source_start, taps.start);
        plan.source_stop = std::max(plan.source_stop, taps.start + taps.count);
    }
    plan.source_start &= ~1;
    plan.pair_stride = 0;
    for (const Taps &taps : all) plan.pair_stride = std::max(plan.pair_stride, (taps.start % 2 + taps.count + 1) / 2);
    size_t entries = all.size() * static_cast<size_t>(plan.pair_stride);
    plan.high.assign(entries, 0);
    plan.low.assign(entries, 0);
    for (size_t i = 0; i < all.size(); i++) {
        const Taps &taps = all[i];
        int odd = taps.start % 2;
        plan.first_pair.push_back((taps.start - odd - plan.source_start) / 2);
        plan.pairs.push_back((odd + taps.count + 1) / 2);
        for (int t = 0; t < taps.count; t++) {
            size_t entry = i * static_cast<size_t>(plan.pair_stride) + static_cast<size_t>((t + odd) / 2);
            int shift = 16 * ((t + odd) % 2);
            int32_t weight = taps.weights[static_cast<size_t>(t)];
            uint32_t high = static_cast<uint16_t>(weight >> LOW_BITS),
                     low = static_cast<uint16_t>(weight & ((1 << LOW_BITS) - 1));
            plan.high[entry] |= static_cast<int32_t>(high << shift);
            plan.low[entry] |= static_cast<int32_t>(low << shift);
        }
    }
    return plan;
}

std::shared_ptr<const AxisPlan> AxisPlanCache::get(const AxisRequest &request) {
    for (const auto &plan : plans_)
        if (plan->request == request) return plan;
    auto plan = std::make_shared<const AxisPlan>(make_axis_plan(request));
    if (plans_.size() < CACHED_PLANS) {
        plans_.push_back(plan);
    } else {
        plans_[next_] = plan;
        next_ = (next_ + 1) % CACHED_PLANS;
    }
    return plan;
}

size_t AxisPlanCache::held_bytes() const {
    size_t entries = 0;
    for (const auto &plan : plans_)
        entries += plan->high.size() + plan->low.size() + plan->first_pair.size() + plan->pairs.size();
    return entries * sizeof(int32_t);
}

size_t Resizer::held_bytes() const {
    size_t bytes = cache_.held_bytes();
    for (const std::vector<uint8_t> *memory : {&strip_, &columns_, &outputs_, &pairs_, &planes_, &tall_})
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
    gathered_columns_ = round_up(horizontal_->source_stop - horizontal_->source_start, 16);
    out_columns_ = round_up(request.width, 16);
    pair_stride_bytes_ = static_cast<size_t>(out_columns_) * 2;
    if (!vertical_first_) begin_strips(last_row() - first_row());
}

void Resizer::begin_strips(int rows) {
    strips_copied_ = rows_out_ = first_pair_held_ = strip_pairs_ = 0;
    planes_.resize(static_cast<size_t>(out_columns_) * 3 + LANE_PADDING);
    if (copy_) return;
    int all_pairs = round_up(rows, STRIP_ROWS) / 2;
    // What one output needs, one strip more, and room so that what is kept is seldom moved.
    int enough_pairs = vertical_->pair_stride + 4 * STRIP_ROWS;
    pair_capacity_ = vertical_first_ ? all_pairs : std::min(all_pairs, enough_pairs);
    plane_stride_bytes_ = static_cast<size_t>(pair_capacity_) * pair_stride_bytes_;
    pairs_.resize(plane_stride_bytes_ * 3 + LANE_PADDING);
    columns_.resize(static_cast<size_t>(gathered_columns_) * 3 * STRIP_ROWS + LANE_PADDING);
    outputs_.resize(static_cast<size_t>(out_columns_) * 3 * STRIP_ROWS + LANE_PADDING);
}

// One strip through the horizontal pass, to row pairs.
void Resizer::horizontal_strip(const uint8_t *rows, size_t stride_bytes, uint8_t *out_pairs) {
    const AxisPlan &plan = *horizontal_;
    kernels_->gather_columns(rows, stride_bytes, gathered_columns_, columns_.data());
    kernels_->fir_strip(columns_.data(), plan.request.count, plan.first_pair.data(), plan.pairs.data(),
                        plan.high.data(), plan.low.data(), plan.pair_stride, outputs_.data());
    kernels_->scatter_rows(outputs_.data(), round_up(plan.request.count, 8), out_pairs, plane_stride_bytes_,
                           pair_stride_bytes_);
}

void Resizer::push_strip(const uint8_t *rows, size_t stride_bytes, const RowSink &sink) {
    if (strip_pairs_ + STRIP_ROWS / 2 > pair_capacity_) drop_used_pairs();
    horizontal_strip(rows, stride_bytes, pairs_.data() + static_cast<size_t>(strip_pairs_) * pair_stride_bytes_);
    strip_pairs_ += STRIP_ROWS / 2;
    if (!vertical_first_) vertical_rows(sink);
}

// Moves the row pairs that are still needed to the front: the intermediate stays small enough for the cache.
void Resizer::drop_used_pairs() {
    // The next row may begin behind all that is held: nearest takes few rows of many.
    int used = std::min(vertical_->first_pair[static_cast<size_t>(rows_out_)] - first_pair_held_, strip_pairs_);
    size_t kept_bytes = static_cast<size_t>(strip_pairs_ - used) * pair_stride_bytes_;
    for (size_t channel = 0; channel < 3; channel++) {
        uint8_t *plane = pairs_.data() + channel * plane_stride_bytes_;
        std::memmove(plane, plane + static_cast<size_t>(used) * pair_stride_bytes_, kept_bytes);
    }
    first_pair_held_ += used;
    strip_pairs_ -= used;
}

// All rows whose row pairs are there.
void Resizer::vertical_rows(const RowSink &sink) {
    const AxisPlan &plan = *vertical_;
    for (; rows_out_ < plan.request.count; rows_out_++) {
        size_t row = static_cast<size_t>(rows_out_), entry = row * static_cast<size_t>(plan.pair_stride);
        int first_pair = plan.first_pair[row] - first_pair_held_;
        if (first_pair + plan.pairs[row] > strip_pairs_) return;
        const uint8_t *first = pairs_.data() + static_cast<size_t>(first_pair) * pair_stride_bytes_;
        for (size_t channel = 0; channel < 3; channel++)
            kernels_->fir(first + channel * plane_stride_bytes_, pair_stride_bytes_, plan.pairs[row], &plan.high[entry],
                          &plan.low[entry], planes_.data() + channel * static_cast<size_t>(out_columns_), out_columns_);
        sink(rows_out_, planes_.data(), static_cast<size_t>(out_columns_));
    }
}

void Resizer::run(const uint8_t *rgb, size_t stride_bytes, const RowSink &sink) {
    if (vertical_first_) return run_vertical_first(rgb, stride_bytes, sink);
    size_t strip_stride = row_bytes();
    strip_.resize(strip_stride * STRIP_ROWS + LANE_PADDING);
    size_t wanted = static_cast<size_t>(last_column_needed() - first_column_needed()) * 3;
    for (int row = first_row(); row < last_row(); row += STRIP_ROWS) {
        const uint8_t *from =
            rgb + static_cast<size_t>(row) * stride_bytes + static_cast<size_t>(first_column_needed()) * 3;
        if (copy_) {
            copy_strip(from, stride_bytes, sink);
            continue;
        }
        for (int i = 0; i < std::min(STRIP_ROWS, last_row() - row); i++)
            std::memcpy(&strip_[static_cast<size_t>(i) * strip_stride], from + static_cast<size_t>(i) * stride_bytes,
                        wanted);
        push_strip(strip_.data(), strip_stride, sink);
    }
}

// Nothing is resized: the rows of the crop go to the sink as they come.
void Resizer::copy_strip(const uint8_t *rows, size_t stride_bytes, const RowSink &sink) {
    rows += static_cast<size_t>(request_.left - first_column_needed()) * 3;
    for (int i = 0; i < STRIP_ROWS; i++) {
        int y = first_row() + strips_copied_ * STRIP_ROWS + i - request_.top;
        if (y < 0 || y >= request_.height) continue;
        kernels_->split_channels(rows + static_cast<size_t>(i) * stride_bytes, request_.width, request_.flip,
                                 planes_.data(), static_cast<size_t>(out_columns_));
        sink(y, planes_.data(), static_cast<size_t>(out_columns_));
    }
    strips_copied_++;
}

// Rare (tall images), so it is kept simple: the vertical pass makes whole rows, which then go through the horizontal
// pass as if they had been the source.
void Resizer::run_vertical_first(const uint8_t *rgb, size_t stride_bytes, const RowSink &sink) {
    const AxisPlan &plan = *vertical_;
    size_t columns = static_cast<size_t>(last_column_needed() - first_column_needed());
    size_t lanes = (columns * 3 + 15) / 16 * 16;
    size_t pair_count = static_cast<size_t>(last_row() - first_row() + 1) / 2;
    std::vector<uint8_t> row_pairs(pair_count * lanes * 2 + LANE_PADDING);
    for (int row = first_row(); row < last_row(); row++) {
        const uint8_t *from =
            rgb + static_cast<size_t>(row) * stride_bytes + static_cast<size_t>(first_column_needed()) * 3;
        uint8_t *to = &row_pairs[static_cast<size_t>((row - first_row()) / 2) * lanes * 2 +
                                 static_cast<size_t>((row - first_row()) % 2)];
        for (size_t i = 0; i < columns * 3; i++) to[2 * i] = from[i];
    }
    int height = plan.request.count;
    size_t tall_stride = std::max(row_bytes(), lanes);
    tall_.resize(tall_stride * static_cast<size_t>(round_up(height, STRIP_ROWS)) + LANE_PADDING);
    for (int y = 0; y < height; y++) {
        size_t row = static_cast<size_t>(y), entry = row * static_cast<size_t>(plan.pair_stride);
        kernels_->fir(&row_pairs[static_cast<size_t>(plan.first_pair[row]) * lanes * 2], lanes * 2, plan.pairs[row],
                      &plan.high[entry], &plan.low[entry], &tall_[row * tall_stride], static_cast<int>(lanes));
    }
    begin_strips(height);
    for (int row = 0; row < height; row += STRIP_ROWS)
        push_strip(&tall_[static_cast<size_t>(row) * tall_stride], tall_stride, sink);
    for (int y = 0; y < height; y++) {
        for (size_t channel = 0; channel < 3; channel++) {
            const uint8_t *from = &pairs_[channel * plane_stride_bytes_ +
                                          static_cast<size_t>(y / 2) * pair_stride_bytes_ + static_cast<size_t>(y % 2)];
            uint8_t *to = &planes_[channel * static_cast<size_t>(out_columns_)];
            for (int x = 0; x < request_.width; x++) to[x] = from[2 * x];
        }
        sink(y, planes_.data(), static_cast<size_t>(out_columns_));
    }
}

}  // namespace fastload
