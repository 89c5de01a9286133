// What Python sees of adaptive augmentation: a batch of arrays at once, on the threads of the other augmentations.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "base/unlocked.h"
#include "ops/ada.h"
#include "ops/image_threads.h"

namespace fastload {
namespace {
namespace py = pybind11;
using WarpTaps = std::array<double, WARP_TAPS>;
using BandTaps = py::array_t<double, py::array::c_style>;

// So that indices of the doubled plane, six to a pixel, fit an int.
constexpr py::ssize_t MAX_SIDE = (1 << 28) - 1, MAX_CHANNELS = 1 << 24, MAX_VALUES = PTRDIFF_MAX / 256;

void check(bool condition, const char *message) {
    if (!condition) throw std::invalid_argument(message);
}

AdaSize checked_size(const py::array &images, int stages) {
    py::ssize_t channels = images.shape(1), height = images.shape(2), width = images.shape(3);
    check(channels <= MAX_CHANNELS && height <= MAX_SIDE && width <= MAX_SIDE,
          "height and width must be below 2^28, channels at most 2^24");
    check(channels == 0 || height == 0 || width <= MAX_VALUES / channels / height, "images are too large");
    check(!(stages & ADA_WARP) || std::min(height, width) >= 2, "a warp needs height and width of 2 or more");
    check(!(stages & ADA_COLOR) || channels == 1 || channels == 3, "a colour matrix needs 1 or 3 channels");
    check(!(stages & ADA_FILTER) || std::min(height, width) > BAND_MARGIN,
          "a filter needs height and width of 22 or more");
    return {static_cast<int>(channels), static_cast<int>(height), static_cast<int>(width)};
}

AdaSettings checked_settings(const py::array &images, int stages, int mode, const WarpTaps &warp_taps,
                             const BandTaps &bands) {
    check(stages >= 0 && stages <= ADA_ALL, "stages must be flags of AdaStage");
    check(mode >= 0 && mode <= 2, "mode must be AFFINE, LINEAR or ADJOINT");
    check(bands.ndim() == 2 && bands.shape(0) == BANDS && bands.shape(1) == BAND_TAPS, "bands must be [4, 43]");
    AdaSettings settings{stages, static_cast<AdaMode>(mode), checked_size(images, stages), {}, {}};
    std::copy(warp_taps.begin(), warp_taps.end(), settings.warp_taps);
    std::copy(bands.data(), bands.data() + bands.size(), &settings.bands[0][0]);
    return settings;
}

// Memory of the type T, where its items are aligned to it in all strides.
template <class T>
bool holds(const py::array &array) {
    bool aligned = reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0;
    for (py::ssize_t axis = 0; axis < array.ndim(); axis++)
        aligned = aligned && array.strides(axis) % static_cast<py::ssize_t>(sizeof(T)) == 0;
    return py::isinstance<py::array_t<T>>(array) && aligned;
}

// The contiguous numbers of an array of this shape, or nullptr for None.
template <class T>
const T *numbers(const py::object &given, const std::vector<py::ssize_t> &shape, const char *message) {
    if (given.is_none()) return nullptr;
    check(py::isinstance<py::array>(given), message);
    auto array = py::reinterpret_borrow<py::array>(given);
    check(holds<T>(array) && (array.flags() & py::array::c_style), message);
    check(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()) == shape, message);
    return static_cast<const T *>(array.data());
}

template <class T>
void ada_batch(const AdaSettings &settings, const py::array &images, const py::object &rows,
               const py::object &noise_key, const py::object &eps, py::array &out, const ImageThreads &threads) {
    const std::vector<py::ssize_t> shape(images.shape(), images.shape() + 4);
    const T *row = numbers<T>(rows, {shape[0], ADA_COLUMNS}, "rows must be [N, 40] of the images' dtype, contiguous");
    const auto *key = numbers<int32_t>(noise_key, {shape[0], 2}, "noise_key must be [N, 2] int32, contiguous");
    const T *noise = numbers<T>(eps, shape, "eps must be as the images, contiguous");
    const T *to = numbers<T>(out, shape, "out must be as the images, contiguous");
    check(row != nullptr, "rows must be [N, 40]");
    check(!(settings.stages & ADA_NOISE) || settings.mode != AdaMode::affine || key || noise,
          "noise needs a key or eps");
    if (images.size() == 0) return;
    check(to != images.data(), "out must not be the images");
    T *first_out = static_cast<T *>(out.mutable_data());
    auto stride = [&images](int axis) { return images.strides(axis) / static_cast<py::ssize_t>(sizeof(T)); };
    const AdaSource<T> first{static_cast<const T *>(images.data()), stride(1), stride(2), stride(3)};
    const ptrdiff_t image_stride = stride(0);
    const auto count = static_cast<size_t>(shape[0]);
    std::vector<AdaScratch<T>> scratch(threads.workers(count));
    Unlocked unlocked;
    threads.run(count, [&](size_t i, size_t worker) {
        AdaSource<T> source = first;
        source.values += static_cast<ptrdiff_t>(i) * image_stride;
        const size_t at = i * settings.size.values();
        ada_image(settings, row + i * ADA_COLUMNS, key ? key + 2 * i : nullptr, noise ? noise + at : nullptr, source,
                  first_out + at, scratch[worker]);
    });
}

void ada(const py::array &images, const py::object &rows, const py::object &noise_key, const py::object &eps,
         int stages, int mode, const WarpTaps &warp_taps, const BandTaps &bands, py::array &out,
         const ImageThreads &threads) {
    check(images.ndim() == 4, "images must be [N, C, H, W]");
    threads.check();
    const AdaSettings settings = checked_settings(images, stages, mode, warp_taps, bands);
    if (holds<float>(images)) return ada_batch<float>(settings, images, rows, noise_key, eps, out, threads);
    check(holds<double>(images), "images must be float32 or float64");
    ada_batch<double>(settings, images, rows, noise_key, eps, out, threads);
}

// Where a row's numbers lie, and the other numbers that Python has too, for the test that compares them.
py::dict layout() {
    return py::dict(py::arg("COLUMNS") = +ADA_COLUMNS, py::arg("G_INV") = +ADA_G_INV, py::arg("C") = +ADA_C,
                    py::arg("GAINS") = +ADA_GAINS, py::arg("SIGMA") = +ADA_SIGMA, py::arg("CUT_SIZE") = +ADA_CUT_SIZE,
                    py::arg("CUT_CENTER") = +ADA_CUT_CENTER, py::arg("WARP") = +ADA_WARP, py::arg("COLOR") = +ADA_COLOR,
                    py::arg("FILTER") = +ADA_FILTER, py::arg("NOISE") = +ADA_NOISE, py::arg("CUTOUT") = +ADA_CUTOUT,
                    py::arg("AFFINE") = static_cast<int>(AdaMode::affine),
                    py::arg("LINEAR") = static_cast<int>(AdaMode::linear),
                    py::arg("ADJOINT") = static_cast<int>(AdaMode::adjoint), py::arg("PURPOSE_NOISE") = PURPOSE_NOISE);
}

}  // namespace

void bind_ada(py::module_ &module) {
    module.def("ada", &ada, py::arg("images"), py::arg("rows"), py::arg("noise_key"), py::arg("eps"), py::arg("stages"),
               py::arg("mode"), py::arg("warp_taps"), py::arg("bands"), py::arg("out").noconvert(), py::arg("threads"),
               "Writes `images` [N, C, H, W], float32 or float64 in any strides, to `out` as their rows [N, 40] say.");
    module.def("ada_layout", &layout, "Columns of a row, bits of the stages, modes and the noise's purpose, by name.");
}

}  // namespace fastload
