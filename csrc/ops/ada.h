// fastload/ops/ada_augment.py on the CPU: warp, colour, band filter, noise and cutout of one image, or their adjoint.
//
// In: an image of any strides, and its row of numbers as fastload/ops/ada_params.py has it. Out: the result in its
// place in the batch. Promises: what that contract says, within the tolerances of its stages; a copy where there is
// nothing to warp or to filter; the same bits on every thread and at every index of a batch; no row, whatever its
// numbers, makes it touch anything outside the image, or takes more than ten times as long as a rotation.
//
// Memory of a thread, kept while a batch lasts, in numbers of the images' type: 17 H W for images of two channels or
// more, 5 H W for one; and 4 (24 (2 WARP_TILE + 10)^2 + 32 max(H, W)), 7.2 MiB and more in float32, whatever the
// matrix.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastload {

// First columns of a row's parts; which parts a batch has; what is computed; and what the noise is drawn for.
enum AdaColumn {
    ADA_G_INV = 0,
    ADA_C = 9,
    ADA_GAINS = 25,
    ADA_SIGMA = 29,
    ADA_CUT_SIZE = 30,
    ADA_CUT_CENTER = 31,
    ADA_COLUMNS = 40
};
enum AdaStage { ADA_WARP = 1, ADA_COLOR = 2, ADA_FILTER = 4, ADA_NOISE = 8, ADA_CUTOUT = 16, ADA_ALL = 31 };
enum class AdaMode { affine = 0, linear = 1, adjoint = 2 };
constexpr uint32_t PURPOSE_NOISE = 16;

constexpr int WARP_TAPS = 12, BAND_TAPS = 43, BANDS = 4;
constexpr int BAND_MARGIN = BAND_TAPS / 2;

// Sides of an image.
struct AdaSize {
    int channels, height, width;
    size_t plane() const { return static_cast<size_t>(height) * static_cast<size_t>(width); }
    size_t values() const { return static_cast<size_t>(channels) * plane(); }
};

// What all images of a batch share. The filters are those of fastload/ops/wavelets.py.
struct AdaSettings {
    int stages;
    AdaMode mode;
    AdaSize size;
    double warp_taps[WARP_TAPS];
    double bands[BANDS][BAND_TAPS];
};

// An image, with its strides counted in numbers.
template <class T>
struct AdaSource {
    const T *values;
    ptrdiff_t channel_stride, row_stride, column_stride;
};

// Memory that a thread takes along from image to image.
template <class T>
struct AdaScratch {
    std::vector<T> image, result, crossed;       // ada_warp.cpp, ada_axes.cpp
    std::vector<T> extended, across, doubled;    // ada_tile.cpp, up to the doubled plane
    std::vector<T> even, odd, window, gradient;  // ada_tile.cpp, from there on
    std::vector<T> filtered, line;               // ada_filter.cpp
};

// At least `size` numbers of memory; what they are is not said.
template <class T>
T *grown(std::vector<T> &memory, size_t size) {
    if (memory.size() < size) memory.resize(size);
    return memory.data();
}

// One image, T float or double. row: [40]; key: the two words of the noise, or eps: [C, H, W], or neither where no
// noise is added. out: [C, H, W], not the source.
template <class T>
void ada_image(const AdaSettings &settings, const T *row, const int32_t *key, const T *eps, const AdaSource<T> &source,
               T *out, AdaScratch<T> &scratch);

}  // namespace fastload
