#include "ops/ada_warp.h"

#include <algorithm>

#include "ops/ada_axes.h"
#include "ops/ada_tile.h"

namespace fastload {
namespace {

bool is_identity(const Placement &to_doubled, const AdaSize &size) {
    return to_doubled.xx == 1 && to_doubled.yy == 1 && to_doubled.xy == 0 && to_doubled.yx == 0 && to_doubled.tx == 0 &&
           to_doubled.ty == 0 && std::min(size.height, size.width) >= 4;  // below, mirror images end within the taps
}

// Channels [first, first + count) side by side; lanes without a channel are 0.
template <int LANES, class T>
void to_points(const AdaSize &size, const AdaSource<T> &source, int first, int count, T *to) {
    if (count < LANES) std::fill(to, to + size.plane() * LANES, T{0});
    for (int c = 0; c < count; c++) {
        T *lane = to + c;
        for (int y = 0; y < size.height; y++) {
            const T *row = source.values + (first + c) * source.channel_stride + y * source.row_stride;
            for (int x = 0; x < size.width; x++, lane += LANES) *lane = row[x * source.column_stride];
        }
    }
}

template <int LANES, class T>
void to_planes(const AdaSize &size, const T *from, int first, int count, T *out) {
    const size_t plane = size.plane();
    for (int c = 0; c < count; c++) {
        T *to = out + static_cast<size_t>(first + c) * plane;
        for (size_t i = 0; i < plane; i++) to[i] = from[i * LANES + static_cast<size_t>(c)];
    }
}

template <int LANES, class T>
void warp_by_tiles(const AdaSettings &settings, const Placement &to_doubled, const T *from, T *to,
                   AdaScratch<T> &scratch) {
    const AdaSize &size = settings.size;
    TileWarp<T, LANES> warp(settings, to_doubled, scratch);
    const bool adjoint = settings.mode == AdaMode::adjoint;
    if (adjoint) std::fill(to, to + size.plane() * LANES, T{0});
    for (int y = 0; y < size.height; y += WARP_TILE)
        for (int x = 0; x < size.width; x += WARP_TILE) {
            WarpTile tile{x, y, std::min(WARP_TILE, size.width - x), std::min(WARP_TILE, size.height - y)};
            if (adjoint)
                warp.adjoint(tile, from, to);
            else
                warp.forward(tile, from, to);
        }
}

template <int LANES, class T>
void warp_channels(const AdaSettings &settings, const Placement &to_doubled, const AdaSource<T> &source, int first,
                   T *out, AdaScratch<T> &scratch) {
    const AdaSize &size = settings.size;
    const int count = std::min(LANES, size.channels - first);
    T *image = grown(scratch.image, size.plane() * LANES), *result = grown(scratch.result, size.plane() * LANES);
    to_points<LANES>(size, source, first, count, image);
    if (along_axes(to_doubled))
        warp_along_axes<LANES>(settings, to_doubled, image, result, scratch);
    else
        warp_by_tiles<LANES>(settings, to_doubled, image, result, scratch);
    to_planes<LANES>(size, result, first, count, out);
}

}  // namespace

template <class T>
void ada_warp(const AdaSettings &settings, const T *G_inv, const AdaSource<T> &source, T *out, AdaScratch<T> &scratch) {
    const Placement to_doubled = placement(G_inv, settings.size);
    if (is_identity(to_doubled, settings.size)) return copy_planes(settings.size, source, out);
    for (int first = 0; first < settings.size.channels; first += 4) {
        if (settings.size.channels - first == 1)
            warp_channels<1>(settings, to_doubled, source, first, out, scratch);
        else
            warp_channels<4>(settings, to_doubled, source, first, out, scratch);
    }
}

template <class T>
void copy_planes(const AdaSize &size, const AdaSource<T> &source, T *out) {
    if (source.values == out) return;
    for (int c = 0; c < size.channels; c++)
        for (int y = 0; y < size.height; y++, out += size.width) {
            const T *row = source.values + c * source.channel_stride + y * source.row_stride;
            if (source.column_stride == 1)
                std::copy(row, row + size.width, out);
            else
                for (int x = 0; x < size.width; x++) out[x] = row[x * source.column_stride];
        }
}

#define INSTANCE(T)                                                                                        \
    template void ada_warp<T>(const AdaSettings &, const T *, const AdaSource<T> &, T *, AdaScratch<T> &); \
    template void copy_planes<T>(const AdaSize &, const AdaSource<T> &, T *);
INSTANCE(float)
INSTANCE(double)
#undef INSTANCE

}  // namespace fastload
