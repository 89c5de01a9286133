#include "decode/pixel_writer.h"

#include <cmath>
#include <cstring>

namespace fastload {
namespace {

uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// `bits` without its last `dropped` bits, rounded to nearest, ties to even.
uint32_t round_off(uint32_t bits, int dropped) {
    uint32_t half = 1u << (dropped - 1), odd = (bits >> dropped) & 1;
    return (bits + half - 1 + odd) >> dropped;
}

// As the kernels have it: the product with the reciprocal, corrected by its remainder.
float quotient(float value, float by, float reciprocal) {
    float first = value * reciprocal;
    return std::fma(std::fma(-first, by, value), reciprocal, first);
}

NormalizeRule make_rule(float divisor, float mean, float std) {
    NormalizeRule rule{divisor, mean, std, 1.0f / divisor, 1.0f / std, true};
    for (int v = 0; v < 256; v++) {
        float value = static_cast<float>(v), exact = value / divisor - mean;
        float fast = quotient(value, divisor, rule.divisor_reciprocal) - mean;
        bool same = bits_of(fast) == bits_of(exact) &&
                    bits_of(quotient(exact, std, rule.std_reciprocal)) == bits_of(exact / std);
        rule.exact_reciprocals = rule.exact_reciprocals && same;
    }
    return rule;
}

uint16_t bfloat16_bits(float value) { return static_cast<uint16_t>(round_off(bits_of(value), 16)); }

uint16_t float16_bits(float value) {
    uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65536 and more: infinity
    if (magnitude >= 0x38800000u) return static_cast<uint16_t>(sign | round_off(magnitude - 0x38000000u, 13));
    // Below 2^-14 the result has no implicit bit: a unit in its last place is 2^-24.
    int exponent = static_cast<int>(magnitude >> 23);
    int dropped = 126 - exponent;
    if (dropped > 24) return static_cast<uint16_t>(sign);
    return static_cast<uint16_t>(sign | round_off((magnitude & 0x7fffffu) | 0x800000u, dropped));
}

}  // namespace

size_t item_bytes(Dtype dtype) { return dtype == Dtype::uint8 ? 1 : dtype == Dtype::float32 ? 4 : 2; }

PixelWriter::PixelWriter(Dtype dtype, bool channels_last, int height, int width, float divisor,
                         std::array<float, 3> mean, std::array<float, 3> std)
    : dtype_(dtype), channels_last_(channels_last), height_(height), width_(width), item_bytes_(item_bytes(dtype)) {
    for (size_t channel = 0; channel < 3; channel++) {
        rules_[channel] = make_rule(divisor, mean[channel], std[channel]);
        for (int v = 0; v < 256; v++) {
            float value = (static_cast<float>(v) / divisor - mean[channel]) / std[channel];
            floats_.push_back(value);
            halves_.push_back(dtype == Dtype::float16 ? float16_bits(value) : bfloat16_bits(value));
        }
    }
}

template <class Item>
void PixelWriter::write_from_table(const std::vector<Item> &table, int y, const uint8_t *planes,
                                   size_t plane_stride_bytes, uint8_t *sample) const {
    size_t width = static_cast<size_t>(width_), height = static_cast<size_t>(height_), row = static_cast<size_t>(y);
    Item *out = reinterpret_cast<Item *>(sample);
    for (size_t channel = 0; channel < 3; channel++) {
        const Item *values = table.data() + channel * 256;
        const uint8_t *in = planes + channel * plane_stride_bytes;
        if (channels_last_) {
            for (size_t x = 0; x < width; x++) out[(row * width + x) * 3 + channel] = values[in[x]];
        } else {
            Item *to = out + (channel * height + row) * width;
            for (size_t x = 0; x < width; x++) to[x] = values[in[x]];
        }
    }
}

void PixelWriter::copy_row(int y, const uint8_t *planes, size_t plane_stride_bytes, uint8_t *sample) const {
    size_t width = static_cast<size_t>(width_), height = static_cast<size_t>(height_), row = static_cast<size_t>(y);
    for (size_t channel = 0; channel < 3; channel++) {
        const uint8_t *in = planes + channel * plane_stride_bytes;
        if (channels_last_) {
            for (size_t x = 0; x < width; x++) sample[(row * width + x) * 3 + channel] = in[x];
        } else {
            std::memcpy(sample + (channel * height + row) * width, in, width);
        }
    }
}

void PixelWriter::write_row(const PixelKernels &kernels, int y, const uint8_t *planes, size_t plane_stride_bytes,
                            uint8_t *sample) const {
    if (dtype_ == Dtype::float32 && !channels_last_) {
        size_t width = static_cast<size_t>(width_), height = static_cast<size_t>(height_);
        float *out = reinterpret_cast<float *>(sample);
        for (size_t channel = 0; channel < 3; channel++)
            kernels.normalize(planes + channel * plane_stride_bytes, width_, rules_[channel],
                              out + (channel * height + static_cast<size_t>(y)) * width);
    } else if (dtype_ == Dtype::float32) {
        write_from_table(floats_, y, planes, plane_stride_bytes, sample);
    } else if (dtype_ == Dtype::uint8) {
        copy_row(y, planes, plane_stride_bytes, sample);
    } else {
        write_from_table(halves_, y, planes, plane_stride_bytes, sample);
    }
}

}  // namespace fastload
