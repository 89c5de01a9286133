#include "decode/geometry.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "order/philox.h"

namespace fastload {
namespace {

constexpr uint32_t PURPOSE_XFLIP = 1, PURPOSE_CROP = 2;  // fastload/rng.py, Purpose
constexpr int TRIES = 10;                                // of RandomResizedCrop, as in torchvision

std::array<double, 4> draws(uint64_t seed, uint64_t position, uint32_t purpose, uint32_t block) {
    uint32_t bits[4];
    philox(seed, position, purpose, block, bits);
    return {uniform(bits[0]), uniform(bits[1]), uniform(bits[2]), uniform(bits[3])};
}

// An integer of [0, highest] from a uniform of [0, 1).
int pick(double uniform, int highest) {
    return std::min(static_cast<int>(uniform * static_cast<double>(highest + 1)), highest);
}

// nearbyint rounds half to even, as Python's round does.
double round_half_even(double x) { return std::nearbyint(x); }

void set_box(Geometry &out, int left, int top, int box_w, int box_h) {
    out.box[0] = left;
    out.box[1] = top;
    out.box[2] = left + box_w;
    out.box[3] = top + box_h;
}

// The size at which the image just covers the target; false where a side is longer than MAX_RESIZED_SIDE.
bool covering_size(const ImageSpec &spec, int width, int height, Geometry &out) {
    double resized_w = spec.width, resized_h = spec.height;
    if (int64_t{spec.width} * height >= int64_t{spec.height} * width) {
        const double scale = static_cast<double>(spec.width) / width;
        resized_h = std::max(resized_h, round_half_even(height * scale));
    } else {
        const double scale = static_cast<double>(spec.height) / height;
        resized_w = std::max(resized_w, round_half_even(width * scale));
    }
    if (std::max(resized_w, resized_h) > MAX_RESIZED_SIDE) return false;
    out.resized_w = static_cast<int>(resized_w);
    out.resized_h = static_cast<int>(resized_h);
    return true;
}

// The size at which the short side is spec.short_side; false where a side is longer than MAX_RESIZED_SIDE.
bool short_side_size(const ImageSpec &spec, int width, int height, Geometry &out) {
    const int64_t side = spec.short_side;
    const int64_t long_side = side * std::max(width, height) / std::min(width, height);
    if (long_side > MAX_RESIZED_SIDE) return false;
    out.resized_w = static_cast<int>(width <= height ? side : long_side);
    out.resized_h = static_cast<int>(width <= height ? long_side : side);
    return true;
}

// Half of what is left beside a centred crop: rounded down, or, as torchvision has it, half to even.
int centred(const ImageSpec &spec, int room) {
    return spec.resize == RESIZE_SHORT_SIDE ? static_cast<int>(round_half_even(room / 2.0)) : room / 2;
}

// Left and top of the crop in the resized image; false where a given crop does not fit.
bool corner(const ImageSpec &spec, uint64_t seed, uint64_t position, Geometry &out) {
    const int room_w = out.resized_w - spec.width, room_h = out.resized_h - spec.height;
    if (spec.crop == CROP_RANDOM) {
        const auto d = draws(seed, position, PURPOSE_CROP, 0);
        out.left = pick(d[0], room_w);
        out.top = pick(d[1], room_h);
        return true;
    }
    const bool given = spec.crop == CROP_GIVEN;
    out.left = given ? spec.crop_left : centred(spec, room_w);
    out.top = given ? spec.crop_top : centred(spec, room_h);
    return out.left <= room_w && out.top <= room_h;
}

// The largest centred box whose aspect is in [ratio_low, ratio_high].
void central_box(const ImageSpec &spec, int width, int height, Geometry &out) {
    int box_w = width, box_h = height;
    const double aspect = static_cast<double>(width) / height;
    if (aspect < spec.ratio_low) {
        box_h = static_cast<int>(std::max(1.0, round_half_even(width / spec.ratio_low)));
    } else if (aspect > spec.ratio_high) {
        box_w = static_cast<int>(std::max(1.0, round_half_even(height * spec.ratio_high)));
    }
    set_box(out, (width - box_w) / 2, (height - box_h) / 2, box_w, box_h);
}

void random_box(const ImageSpec &spec, int width, int height, uint64_t seed, uint64_t position, Geometry &out) {
    const double area = static_cast<double>(width) * static_cast<double>(height);
    const double log_low = std::log(spec.ratio_low), log_high = std::log(spec.ratio_high);
    for (uint32_t attempt = 0; attempt < TRIES; ++attempt) {
        const auto d = draws(seed, position, PURPOSE_CROP, attempt);
        const double box_area = area * (spec.scale_low + d[0] * (spec.scale_high - spec.scale_low));
        const double aspect = std::exp(log_low + d[1] * (log_high - log_low));
        const double box_w = round_half_even(std::sqrt(box_area * aspect));
        const double box_h = round_half_even(std::sqrt(box_area / aspect));
        if (box_w > 0 && box_w <= width && box_h > 0 && box_h <= height) {
            const int w = static_cast<int>(box_w), h = static_cast<int>(box_h);
            const int left = pick(d[2], width - w), top = pick(d[3], height - h);
            set_box(out, left, top, w, h);
            return;
        }
    }
    central_box(spec, width, height, out);
}

Geometry failed(int status) {
    Geometry out{};
    out.status = status;
    return out;
}

}  // namespace

Geometry geometry(const ImageSpec &spec, int width, int height, uint64_t seed, uint64_t position) {
    if (width < 1 || height < 1 || width > MAX_SOURCE_SIDE || height > MAX_SOURCE_SIDE) {
        return failed(GEOMETRY_SIZE_OUT_OF_RANGE);
    }
    Geometry out{};
    out.width = spec.width;
    out.height = spec.height;
    out.resized_w = spec.width;
    out.resized_h = spec.height;
    out.flip = draws(seed, position, PURPOSE_XFLIP, 0)[0] < spec.xflip;
    if (spec.resize == RESIZE_RANDOM) {
        random_box(spec, width, height, seed, position, out);
        return out;
    }
    set_box(out, 0, 0, width, height);
    if (spec.resize == RESIZE_EXACT) return out;
    const bool fits = spec.resize == RESIZE_SHORT_SIDE ? short_side_size(spec, width, height, out)
                                                       : covering_size(spec, width, height, out);
    if (!fits) return failed(GEOMETRY_SIZE_OUT_OF_RANGE);
    if (!corner(spec, seed, position, out)) return failed(GEOMETRY_CROP_OUTSIDE);
    return out;
}

int denominator(int scaled, const Geometry &geometry) {
    if (scaled == SCALED_NONE) return 1;
    const double factor = scaled == SCALED_HALF ? 2.0 : 1.0;
    const double box_w = geometry.box[2] - geometry.box[0], box_h = geometry.box[3] - geometry.box[1];
    for (int d = 8; d > 1; d /= 2) {
        if (box_w >= d * factor * geometry.resized_w && box_h >= d * factor * geometry.resized_h) return d;
    }
    return 1;
}

ScaledBox scaled_box(const Geometry &geometry, int width, int height, int denominator, int orientation) {
    ScaledBox out;
    out.width = (width + denominator - 1) / denominator;
    out.height = (height + denominator - 1) / denominator;
    const double d = denominator;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    const bool from_below = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    const double missing_x = from_right ? out.width - width / d : 0.0;
    const double missing_y = from_below ? out.height - height / d : 0.0;
    for (int edge = 0; edge < 4; ++edge) {
        out.box[edge] = static_cast<float>(geometry.box[edge] / d + (edge % 2 ? missing_y : missing_x));
    }
    return out;
}

}  // namespace fastload
