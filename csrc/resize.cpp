#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace fastload {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr size_t CACHED_PLANS = 64;
constexpr int MOST_HIGH = 127 * 256 + 127;  // what a byte and a rest of a signed byte can hold

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

int fours_of(const Taps &taps, int origin) { return ((taps.start - origin) % FOUR + taps.count + FOUR - 1) / FOUR; }

int best_origin(const std::vector<Taps> &all, int source_start) {
    int best = source_start, fewest = 0;
    for (int origin = source_start; origin > source_start - FOUR; origin--) {
        int fours = 0;
        for (const Taps &taps : all) fours += fours_of(taps, origin);
        if (origin == source_start || fours < fewest) best = origin, fewest = fours;
    }
    return best;
}

struct SplitWeight {
    int high, low;  // high * 2^shift + low, low from -2^(shift - 1) to 2^(shift - 1) - 1
};

SplitWeight split(int32_t weight, int shift) {
    int high = shift == 0 ? weight : (weight + (1 << (shift - 1))) >> shift;
    return {high, weight - high * (1 << shift)};
}

// The fewest bits of `low` with which every `high` is small enough: 0 to 8, as no weight reaches 2.
int bits_of_low(const std::vector<Taps> &all) {
    for (int shift = 0; shift <= 8; shift++) {
        bool fits = true;
        for (const Taps &taps : all)
            for (int32_t weight : taps.weights) fits = fits && std::abs(split(weight, shift).high) <= MOST_HIGH;
        if (fits) return shift;
    }
    throw std::logic_error("a resize has a weight of 2 or more");
}

// A test that fails costs as much as the low parts of some 7 fours (measured on Zen 4), and it is made for all lanes of
// a strip at once.
bool rest_is_rare(const AxisPlan &plan) {
    constexpr double FOURS_OF_A_FAILED_TEST = 7.0;
    double spread = 0.0, fours = 0.0;
    for (int32_t value : plan.spread) spread += value;
    for (int32_t value : plan.fours) fours += value;
    double one_fails = spread / static_cast<double>(plan.spread.size()) / (1 << (WEIGHT_BITS - plan.shift));
    double any_fails = 1.0 - std::pow(1.0 - std::min(one_fails, 1.0), 3 * STRIP_ROWS);
    return any_fails * FOURS_OF_A_FAILED_TEST < fours / static_cast<double>(plan.fours.size());
}

// Weight number `tap` of an output among its entries.
void place(const SplitWeight &weight, int tap, WeightFormat format, int most_fours, int32_t *entries) {
    auto put = [&](int plane, int value, int bits, int at) {
        uint32_t mask = (1u << bits) - 1, bytes = (static_cast<uint32_t>(value) & mask) << (bits * at);
        int32_t &entry = entries[plane * most_fours + tap / FOUR];
        entry = static_cast<int32_t>(static_cast<uint32_t>(entry) | bytes);
    };
    int at = tap % FOUR;
    if (format == WeightFormat::bytes) {
        int upper = (weight.high + 128) >> 8;
        put(0, upper, 8, at);
        put(1, weight.high - upper * 256, 8, at);
        put(2, weight.low, 8, at);
    } else {
        put(at % 2, weight.high, 16, at / 2);
        put(2 + at % 2, weight.low, 16, at / 2);
    }
}

}  // namespace

bool AxisRequest::operator==(const AxisRequest &other) const {
    return in == other.in && box_start == other.box_start && box_stop == other.box_stop && out == other.out &&
           first == other.first && count == other.count && filter == other.filter && reverse == other.reverse;
}

AxisPlan make_axis_plan(const AxisRequest &request, WeightFormat format) {
    std::vector<Taps> all = all_taps(request);
    AxisPlan plan;
    plan.request = request;
    plan.source_start = request.in;
    plan.source_stop = 0;
    for (const Taps &taps : all) {
        plan.source_start = std::min(plan.source_start, taps.start);
        plan.source_stop = std::max(plan.source_stop, taps.start + taps.count);
    }
    plan.origin = best_origin(all, plan.source_start);
    plan.shift = bits_of_low(all);
    plan.most_fours = 0;
    for (const Taps &taps : all) {
        int first = (taps.start - plan.origin) / FOUR;
        plan.first_four.push_back(first);
        plan.fours.push_back(fours_of(taps, plan.origin));
        plan.most_fours = std::max(plan.most_fours, plan.fours.back());
    }
    plan.entries.assign(all.size() * static_cast<size_t>(weight_planes(format) * plan.most_fours), 0);
    for (size_t i = 0; i < all.size(); i++) {
        int32_t *entries = plan.entries.data() + i * static_cast<size_t>(weight_planes(format) * plan.most_fours);
        int64_t half = int64_t{1} << (WEIGHT_BITS - 1), least = 0, most = 0;
        for (int t = 0; t < all[i].count; t++) {
            SplitWeight weight = split(all[i].weights[static_cast<size_t>(t)], plan.shift);
            place(weight, (all[i].start - plan.origin) % FOUR + t, format, plan.most_fours, entries);
            (weight.low < 0 ? least : most) += int64_t{255} * weight.low;
        }
        plan.least.push_back(static_cast<int32_t>((least + half) >> plan.shift));
        plan.spread.push_back(static_cast<int32_t>((most + half) >> plan.shift) - plan.least.back());
    }
    plan.rest_is_rare = rest_is_rare(plan);
    return plan;
}

AxisWeights AxisPlan::weights() const {
    return {request.count,  most_fours,   shift,        first_four.data(), fours.data(),
            entries.data(), rest_is_rare, least.data(), spread.data()};
}

size_t AxisPlan::held_bytes() const {
    return sizeof(int32_t) * (first_four.size() + fours.size() + least.size() + spread.size() + entries.size());
}

std::shared_ptr<const AxisPlan> AxisPlanCache::get(const AxisRequest &request) {
    for (const auto &plan : plans_)
        if (plan->request == request) return plan;
    auto plan = std::make_shared<const AxisPlan>(make_axis_plan(request, format_));
    if (plans_.size() < CACHED_PLANS) {
        plans_.push_back(plan);
    } else {
        plans_[next_] = plan;
        next_ = (next_ + 1) % CACHED_PLANS;
    }
    return plan;
}

size_t AxisPlanCache::held_bytes() const {
    size_t bytes = 0;
    for (const auto &plan : plans_) bytes += plan->held_bytes();
    return bytes;
}

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
    int enough_fours = vertical_->most_fours + 4 * STRIP_ROWS / FOUR;
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
        size_t place = static_cast<size_t>(row - plan.origin);
        uint8_t *to = &fours[place / FOUR * lanes * FOUR + place % FOUR];
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
