#include "decode/axis_plan.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace fastload {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr size_t CACHED_PLANS = 64;
constexpr int MAX_HIGH = 127 * 256 + 127;  // what a byte and a rest of a signed byte can hold

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
    size_t first_weight;
};

// The taps of all outputs of an axis; one vector holds all weights: a random crop makes new ones for each image.
struct AxisTaps {
    std::vector<Taps> outputs;
    std::vector<int32_t> weights;  // 22 fractional bits

    void add(int start, const std::vector<int32_t> &fixed) {
        outputs.push_back({start, static_cast<int>(fixed.size()), weights.size()});
        weights.insert(weights.end(), fixed.begin(), fixed.end());
    }
};

const std::vector<int32_t> ONE_TAP = {1 << WEIGHT_BITS};

// Rounding to fixed point is half away from zero, as Pillow's.
int32_t fixed_point(double weight) {
    double scaled = weight * (1 << WEIGHT_BITS);
    return static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

void add_filtered(const AxisRequest &request, AxisTaps *all) {
    double scale = static_cast<double>(request.box_stop - request.box_start) / request.out;
    double filter_scale = std::max(scale, 1.0);
    double support = filter_support(request.filter) * filter_scale;
    double reciprocal = 1.0 / filter_scale;
    std::vector<double> weights;
    std::vector<int32_t> fixed;
    for (int i = request.first; i < request.first + request.count; i++) {
        double centre = request.box_start + (i + 0.5) * scale;
        int start = std::max(static_cast<int>(centre - support + 0.5), 0);
        int stop = std::min(static_cast<int>(centre + support + 0.5), request.in);
        double sum = 0.0;
        weights.clear();
        fixed.clear();
        for (int t = start; t < stop; t++) {
            weights.push_back(filter_value(request.filter, (t - centre + 0.5) * reciprocal));
            sum += weights.back();
        }
        for (double weight : weights) fixed.push_back(fixed_point(sum != 0.0 ? weight / sum : weight));
        all->add(start, fixed);
    }
}

// One tap each. Pillow steps through the axis by repeated addition, so the rounding of that sum is part of the result.
void add_nearest(const AxisRequest &request, AxisTaps *all) {
    double step = static_cast<double>(request.box_stop - request.box_start) / request.out;
    double position = request.box_start + step * 0.5;
    for (int i = 0; i < request.first + request.count; i++, position += step)
        if (i >= request.first) all->add(std::clamp(static_cast<int>(position), 0, request.in - 1), ONE_TAP);
}

AxisTaps all_taps(const AxisRequest &request) {
    AxisTaps all;
    if (request.identity()) {
        for (int i = request.first; i < request.first + request.count; i++) all.add(i, ONE_TAP);
    } else if (request.filter == FILTER_NEAREST) {
        add_nearest(request, &all);
    } else {
        add_filtered(request, &all);
    }
    if (request.reverse) std::reverse(all.outputs.begin(), all.outputs.end());
    return all;
}

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

// The fewest bits of `low` with which every `high` is small enough. 8 are enough for weights below 2, and none comes
// near: the tap nearest to the centre always counts, so that the sum by which all are divided is at least 0.47.
int bits_of_low(const std::vector<int32_t> &weights) {
    int32_t lowest = 0, highest = 0;
    for (int32_t weight : weights) lowest = std::min(lowest, weight), highest = std::max(highest, weight);
    int shift = 0;
    while (split(highest, shift).high > MAX_HIGH || split(lowest, shift).high < -MAX_HIGH) shift++;
    assert(shift <= 8);
    return shift;
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
void put_weight(const SplitWeight &weight, int tap, WeightFormat format, int max_fours, int32_t *entries) {
    auto put = [&](int plane, int value, int bits, int at) {
        uint32_t mask = (1u << bits) - 1, bytes = (static_cast<uint32_t>(value) & mask) << (bits * at);
        int32_t &entry = entries[plane * max_fours + tap / FOUR];
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
    AxisTaps taps_of_all = all_taps(request);
    const std::vector<Taps> &all = taps_of_all.outputs;
    AxisPlan plan;
    plan.request = request;
    plan.source_start = request.in;
    plan.source_stop = 0;
    for (const Taps &taps : all) {
        plan.source_start = std::min(plan.source_start, taps.start);
        plan.source_stop = std::max(plan.source_stop, taps.start + taps.count);
    }
    plan.origin = best_origin(all, plan.source_start);
    plan.shift = bits_of_low(taps_of_all.weights);
    plan.max_fours = 0;
    for (const Taps &taps : all) {
        int first = (taps.start - plan.origin) / FOUR;
        plan.first_four.push_back(first);
        plan.fours.push_back(fours_of(taps, plan.origin));
        plan.max_fours = std::max(plan.max_fours, plan.fours.back());
    }
    plan.entries.assign(all.size() * static_cast<size_t>(weight_planes(format) * plan.max_fours), 0);
    for (size_t i = 0; i < all.size(); i++) {
        int32_t *entries = plan.entries.data() + i * static_cast<size_t>(weight_planes(format) * plan.max_fours);
        int64_t half = int64_t{1} << (WEIGHT_BITS - 1), lowest = 0, highest = 0;
        for (int t = 0; t < all[i].count; t++) {
            SplitWeight weight = split(taps_of_all.weights[all[i].first_weight + static_cast<size_t>(t)], plan.shift);
            put_weight(weight, (all[i].start - plan.origin) % FOUR + t, format, plan.max_fours, entries);
            (weight.low < 0 ? lowest : highest) += int64_t{255} * weight.low;
        }
        plan.least.push_back(static_cast<int32_t>((lowest + half) >> plan.shift));
        plan.spread.push_back(static_cast<int32_t>((highest + half) >> plan.shift) - plan.least.back());
    }
    plan.rest_is_rare = rest_is_rare(plan);
    return plan;
}

AxisWeights AxisPlan::weights() const {
    return {request.count,  max_fours,    shift,        first_four.data(), fours.data(),
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

}  // namespace fastload
