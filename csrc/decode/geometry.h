// Where every pixel of an image field comes from: sizes, crop and flip, computed once and given to every
// backend. The C++ twin of fastload/decode/spec.py, which states the rules.
//
// In:  an ImageSpec (one per image field), the size of the upright image (after EXIF orientation), seed, position.
// Out: a Geometry: resize the source box to `resized`, cut the crop out of that, flip.
// Promise: equal to the Python twin bit for bit. All arithmetic is in double precision, with the same libm calls in the
//          same order (no fused multiply-add: -ffp-contract=off); random draws are counters.
#pragma once

#include <cstdint>

namespace fastload {

enum { RESIZE_SHORT = 0, RESIZE_EXACT = 1, RESIZE_RANDOM = 2, RESIZE_SHORT_SIDE = 3 };
enum { CROP_CENTER = 0, CROP_RANDOM = 1, CROP_GIVEN = 2 };
enum { FILTER_NEAREST = 0, FILTER_BILINEAR = 1, FILTER_BICUBIC = 2, FILTER_LANCZOS = 3 };
enum { SCALED_NONE = 0, SCALED_FULL = 1, SCALED_HALF = 2 };
enum { GEOMETRY_OK = 0, GEOMETRY_CROP_OUTSIDE = 1, GEOMETRY_SIZE_OUT_OF_RANGE = 2 };

constexpr int MAX_TARGET_SIDE = 65535;
constexpr int MAX_SOURCE_SIDE = 1 << 24;   // a box edge is float32 in Pillow, exact up to here
constexpr int MAX_RESIZED_SIDE = 1 << 20;  // a 1 x 65535 image that covers 256 x 256 would be 16.8 million long

struct ImageSpec {
    int width = 1, height = 1;                             // of the target, pixels, 1 to MAX_TARGET_SIDE
    int resize = RESIZE_SHORT;                             // RESIZE_*
    int short_side = 0;                                    // of RESIZE_SHORT_SIDE, pixels, at least width and height
    int crop = CROP_CENTER;                                // CROP_*; CROP_GIVEN with RESIZE_SHORT(_SIDE) only
    int crop_left = 0, crop_top = 0;                       // of CROP_GIVEN, in the resized image, pixels, not negative
    int filter = FILTER_BICUBIC;                           // FILTER_*
    int scaled = SCALED_HALF;                              // SCALED_*
    double scale_low = 0.08, scale_high = 1.0;             // of RESIZE_RANDOM: share of the source's area
    double ratio_low = 3.0 / 4.0, ratio_high = 4.0 / 3.0;  // of RESIZE_RANDOM: width over height
    double xflip = 0.0;                                    // probability of a horizontal flip
};

struct Geometry {
    double box[4];             // x0, y0, x1, y1 in pixels of the upright source
    int resized_w, resized_h;  // size of the resized box
    int left, top;             // of the crop in the resized box
    int width, height;         // of the crop: the target
    bool flip;                 // horizontally
    int status;                // GEOMETRY_*; where it is not GEOMETRY_OK, everything else is 0
};

// The geometry of one upright image of `width` x `height` pixels at `position` of the global order.
Geometry geometry(const ImageSpec &spec, int width, int height, uint64_t seed, uint64_t position);

// At which 1/d a JPEG may be decoded: the largest d of 8, 4, 2, 1 that still leaves enough pixels.
// SCALED_HALF: the decoded box is at least twice its resized size on both axes; SCALED_FULL: at least as
// large; SCALED_NONE: 1.
int denominator(int scaled, const Geometry &geometry);

// The size of an image of `width` x `height` (upright; stored with EXIF's `orientation`) when it is decoded at
// 1/denominator, (ceil(width / d), ceil(height / d)) as libjpeg has it, and the box (x0, y0, x1, y1) in its pixels, as
// float32. Where d does not divide a side, the last stored pixel stands for fewer than d; so the box is divided by d,
// not stretched by the ratio of the sizes, and moved where orientation turns the last pixel into the first.
struct ScaledBox {
    int width, height;
    float box[4];
};
ScaledBox scaled_box(const Geometry &geometry, int width, int height, int denominator, int orientation = 1);

}  // namespace fastload
