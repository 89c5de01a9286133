#include "ops/ada.h"

#include <algorithm>
#include <cmath>

#include "ops/ada_filter.h"
#include "ops/ada_warp.h"
#include "order/philox.h"

namespace fastload {
namespace {

template <class T>
void color_three(const T m[3][4], size_t plane, T *planes) {
    T *red = planes, *green = planes + plane, *blue = planes + 2 * plane;
    for (size_t i = 0; i < plane; i++) {
        const T r = red[i], g = green[i], b = blue[i];
        red[i] = m[0][0] * r + m[0][1] * g + m[0][2] * b + m[0][3];
        green[i] = m[1][0] * r + m[1][1] * g + m[1][2] * b + m[1][3];
        blue[i] = m[2][0] * r + m[2][1] * g + m[2][2] * b + m[2][3];
    }
}

// fastload/ops/color_matrix.py; C: [4, 4].
template <class T>
void color(const AdaSettings &settings, const T *C, T *planes) {
    const bool turned = settings.mode == AdaMode::adjoint, offset = settings.mode == AdaMode::affine;
    if (settings.size.channels == 3) {
        T matrix[3][4];
        for (int row = 0; row < 3; row++) {
            for (int column = 0; column < 3; column++)
                matrix[row][column] = turned ? C[4 * column + row] : C[4 * row + column];
            matrix[row][3] = offset ? C[4 * row + 3] : T{0};
        }
        return color_three(matrix, settings.size.plane(), planes);
    }
    T factor = 0, shift = 0;
    for (int row = 0; row < 3; row++) {
        for (int column = 0; column < 3; column++) factor += C[4 * row + column];
        shift += C[4 * row + 3];
    }
    factor /= 3;
    shift = offset ? shift / 3 : T{0};
    for (size_t i = 0; i < settings.size.plane(); i++) planes[i] = planes[i] * factor + shift;
}

// Adds sigma times two standard normals of two words, Box and Muller's; to odd only where that channel exists.
template <class T>
void add_normals(uint32_t a, uint32_t b, T sigma, T *even, T *odd) {
    const T u = static_cast<T>((a >> 8) + 1) * static_cast<T>(0x1p-24),
            v = static_cast<T>(b >> 8) * static_cast<T>(0x1p-24);
    const T radius = std::sqrt(-2 * std::log(u)), angle = static_cast<T>(6.283185307179586) * v;
    *even += sigma * (radius * std::cos(angle));
    if (odd) *odd += sigma * (radius * std::sin(angle));
}

// fastload/ops/noise.py.
template <class T>
void noise(const AdaSize &size, T sigma, const int32_t *key, const T *eps, T *planes) {
    if (eps) {
        for (size_t i = 0; i < size.values(); i++) planes[i] += sigma * eps[i];
        return;
    }
    if (!key || sigma == 0) return;
    const uint64_t seed = static_cast<uint32_t>(key[0]) | uint64_t{static_cast<uint32_t>(key[1])} << 32;
    const size_t plane = size.plane();
    for (int first = 0; first < size.channels; first += 4) {
        T *channel = planes + static_cast<size_t>(first) * plane;
        const int count = std::min(4, size.channels - first);
        for (size_t i = 0; i < plane; i++) {
            uint32_t words[4];
            philox(seed, i, PURPOSE_NOISE, static_cast<uint32_t>(first / 4), words);
            for (int c = 0; c < count; c += 2) {
                T *even = channel + static_cast<size_t>(c) * plane + i;
                add_normals(words[c], words[c + 1], sigma, even, c + 1 < count ? even + plane : nullptr);
            }
        }
    }
}

// fastload/ops/cutout.py, with its comparisons as they are.
template <class T>
void cutout(const AdaSize &size, T cut, const T *center, T *planes) {
    const T half = cut / 2;
    auto hit = [half](int position, int side, T middle) {
        return std::fabs((static_cast<T>(position) + T(0.5)) / static_cast<T>(side) - middle) < half;
    };
    int start = 0, stop = size.width;  // the columns that are hit are neighbours
    while (start < stop && !hit(start, size.width, center[0])) start++;
    while (stop > start && !hit(stop - 1, size.width, center[0])) stop--;
    for (int y = 0; y < size.height && start < stop; y++) {
        if (!hit(y, size.height, center[1])) continue;
        for (int c = 0; c < size.channels; c++) {
            T *row = planes + static_cast<size_t>(c) * size.plane() +
                     static_cast<size_t>(y) * static_cast<size_t>(size.width);
            std::fill(row + start, row + stop, T{0});
        }
    }
}

}  // namespace

template <class T>
void ada_image(const AdaSettings &settings, const T *row, const int32_t *key, const T *eps, const AdaSource<T> &source,
               T *out, AdaScratch<T> &scratch) {
    const AdaSize &size = settings.size;
    const int stages = settings.stages;
    const bool adjoint = settings.mode == AdaMode::adjoint;
    if ((stages & ADA_WARP) && !adjoint)
        ada_warp(settings, row + ADA_G_INV, source, out, scratch);
    else
        copy_planes(size, source, out);
    if (adjoint && (stages & ADA_CUTOUT)) cutout(size, row[ADA_CUT_SIZE], row + ADA_CUT_CENTER, out);
    if (adjoint && (stages & ADA_FILTER)) ada_filter(settings, row + ADA_GAINS, out, scratch);
    if (stages & ADA_COLOR) color(settings, row + ADA_C, out);
    if (!adjoint && (stages & ADA_FILTER)) ada_filter(settings, row + ADA_GAINS, out, scratch);
    if (settings.mode == AdaMode::affine && (stages & ADA_NOISE)) noise(size, row[ADA_SIGMA], key, eps, out);
    if (!adjoint && (stages & ADA_CUTOUT)) cutout(size, row[ADA_CUT_SIZE], row + ADA_CUT_CENTER, out);
    if (adjoint && (stages & ADA_WARP)) {
        const auto plane = static_cast<ptrdiff_t>(size.plane());
        ada_warp(settings, row + ADA_G_INV, AdaSource<T>{out, plane, size.width, 1}, out, scratch);
    }
}

#define INSTANCE(T)                                                                                                   \
    template void ada_image<T>(const AdaSettings &, const T *, const int32_t *, const T *, const AdaSource<T> &, T *, \
                               AdaScratch<T> &);
INSTANCE(float)
INSTANCE(double)
#undef INSTANCE

}  // namespace fastload
