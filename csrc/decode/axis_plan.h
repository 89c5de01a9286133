// The weights of one axis of a resize.
//
// In: how many samples, a box of them, how many to make, which of these, the filter. Out: for each output its taps in
// fours and their weights as a set of kernels takes them.
// Promises: Pillow 13's weights, computed in double and rounded to 22 fractional bits, taps clamped to the image.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "decode/geometry.h"
#include "decode/pixel_kernels.h"

namespace fastload {

// What one axis of a resize is: `out` samples from [box_start, box_stop) of `in` samples; of these `count` from
// `first`.
struct AxisRequest {
    int in;
    float box_start, box_stop;
    int out, first, count;
    int filter;
    bool reverse;  // deliver the samples last to first (a flip)

    bool identity() const { return out == in && box_start == 0.0f && box_stop == static_cast<float>(in); }
    bool operator==(const AxisRequest &other) const;
};

// The weights of one axis, in fours of taps counted from `origin`.
struct AxisPlan {
    AxisRequest request;
    int source_start, source_stop;  // inputs that are read
    int origin;                     // up to 3 before source_start, so that the taps fall into as few fours as can be
    int max_fours, shift;           // these and the rest are as AxisWeights has them
    bool rest_is_rare;
    std::vector<int32_t> first_four, fours, least, spread, entries;

    AxisWeights weights() const;
    size_t held_bytes() const;
};

AxisPlan make_axis_plan(const AxisRequest &request, WeightFormat format);

// Plans that were made lately; image sizes repeat. Not shared between threads.
class AxisPlanCache {
   public:
    explicit AxisPlanCache(WeightFormat format) : format_(format) {}
    std::shared_ptr<const AxisPlan> get(const AxisRequest &request);
    size_t held_bytes() const;

   private:
    WeightFormat format_;
    std::vector<std::shared_ptr<const AxisPlan>> plans_;
    size_t next_ = 0;
};

}  // namespace fastload
