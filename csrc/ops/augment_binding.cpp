// What Python sees of the augmentation: a batch of arrays at once, or an Augmenter for the batches of the loader.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>

#include "base/kernel_choice_binding.h"
#include "base/unlocked.h"
#include "decode/pixels.h"
#include "ops/augment.h"
#include "ops/image_threads.h"

namespace fastload {
namespace {
namespace py = pybind11;
using Rows = py::array_t<float, py::array::c_style>;
using Pixels = py::array_t<uint8_t, py::array::c_style>;

constexpr py::ssize_t MAX_SIDE = (1 << 24) - 1, MAX_PIXELS = INT32_MAX;
constexpr size_t PAST_CACHE_BYTES = size_t{8} << 20;

void check(bool condition, const char *message) {
    if (!condition) throw std::invalid_argument(message);
}

void check_size(py::ssize_t height, py::ssize_t width) {
    check(height > 0 && width > 0 && height <= MAX_SIDE && width <= MAX_SIDE, "height and width must be in [1, 2^24)");
    check((height + 1) * (width + 1) <= MAX_PIXELS, "(height + 1) * (width + 1) must be below 2^31");
}

std::vector<float> checked_rows(const Rows &rows, const AugmentSettings &settings) {
    check(rows.ndim() == 2 && rows.shape(1) == AUGMENT_COLUMNS, "rows must be [N, 32] float32");
    for (py::ssize_t i = 0; i < rows.shape(0); i++) {
        std::string error = row_error(settings, rows.data(i, 0));
        if (!error.empty()) throw std::invalid_argument("row " + std::to_string(i) + ": " + error);
    }
    return {rows.data(), rows.data() + rows.size()};
}

AugmentSettings checked_settings(int stages, double divisor, std::array<double, 3> mean, std::array<double, 3> std,
                                 bool nearest, Dtype dtype, bool channels_last) {
    check(stages >= 0 && stages <= STAGE_ALL, "stages must be flags of Stage");
    check(divisor > 0 && *std::min_element(std.begin(), std.end()) > 0, "divisor and std must be above 0");
    return {stages, divisor, mean, std, nearest, dtype, channels_last, true};
}

AugmentSource checked_source(const py::array &images) {
    check(images.ndim() == 4 && (images.shape(3) == 1 || images.shape(3) == 3), "images must be [N, H, W, 1 or 3]");
    bool floats = py::isinstance<py::array_t<float>>(images);
    check(floats || py::isinstance<py::array_t<uint8_t>>(images), "images must be uint8 or float32");
    check_size(images.shape(1), images.shape(2));
    const auto *pixels = static_cast<const uint8_t *>(images.data());
    auto side = [&](int axis) { return static_cast<int>(images.shape(axis)); };
    auto stride = [&](int axis) { return images.strides(axis); };
    const auto split = pixel_kernels_in_use().split_channels;
    return {pixels, stride(1), stride(2), stride(3), side(1), side(2), side(3), floats, split};
}

// The bytes that an array reaches: [first, last).
std::array<const uint8_t *, 2> reach(const py::array &array) {
    const uint8_t *first = static_cast<const uint8_t *>(array.data()), *last = first + array.itemsize();
    for (py::ssize_t axis = 0; axis < array.ndim(); axis++) {
        py::ssize_t span = (array.shape(axis) - 1) * array.strides(axis);
        (span < 0 ? first : last) += span;
    }
    return {first, last};
}

bool is_dtype(const py::array &array, Dtype dtype) {
    const bool floats = dtype == Dtype::float32 || dtype == Dtype::float16;  // NumPy has only the bits of bfloat16
    return array.dtype().kind() == (floats ? 'f' : 'u') && static_cast<size_t>(array.itemsize()) == item_bytes(dtype);
}

void check_out(const py::array &out, const py::array &images, const AugmentSettings &settings) {
    check(is_dtype(out, settings.dtype), "out must have the dtype (bfloat16 as uint16)");
    using Order = std::array<size_t, 4>;
    const Order order = settings.channels_last ? Order{0, 1, 2, 3} : Order{0, 3, 1, 2};
    bool fits = out.ndim() == 4;
    for (size_t axis = 0; axis < 4; axis++) fits = fits && out.shape()[axis] == images.shape()[order[axis]];
    check(fits, "out must be [N, C, H, W], or [N, H, W, C] where channels_last");
    check(out.flags() & py::array::c_style, "out must be contiguous");
    check(reinterpret_cast<uintptr_t>(out.data()) % static_cast<uintptr_t>(out.itemsize()) == 0,
          "out must be aligned to its items");
    auto from = reach(images), to = reach(out);
    check(from[1] <= to[0] || to[1] <= from[0], "out must not overlap the images");
}

void augment(const py::array &images, const Rows &rows, int stages, double divisor, std::array<double, 3> mean,
             std::array<double, 3> std, bool nearest, py::array &out, Dtype dtype, bool channels_last,
             const ImageThreads &threads) {
    AugmentSettings settings = checked_settings(stages, divisor, mean, std, nearest, dtype, channels_last);
    check(images.ndim() == 4 && rows.ndim() == 2 && rows.shape(0) == images.shape(0),
          "images must be [N, H, W, C], rows [N, 32]");
    if (images.size() == 0) return;
    AugmentSource source = checked_source(images);
    check_out(out, images, settings);
    threads.check();
    settings.past_cache = static_cast<size_t>(out.nbytes()) >= PAST_CACHE_BYTES;
    const std::vector<float> numbers = checked_rows(rows, settings);
    const size_t bytes = result_bytes(settings, source.height, source.width, source.channels);
    const ptrdiff_t image_stride_bytes = images.strides(0);
    uint8_t *to = static_cast<uint8_t *>(out.mutable_data());
    const size_t count = static_cast<size_t>(images.shape(0));
    Unlocked unlocked;
    threads.run(count, [&](size_t i, size_t) {
        AugmentSource image = source;
        image.pixels += static_cast<ptrdiff_t>(i) * image_stride_bytes;
        augment_image(settings, numbers.data() + i * AUGMENT_COLUMNS, image, to + i * bytes);
    });
}

std::shared_ptr<Augmenter> make_augmenter(const Rows &rows, int stages, double divisor, std::array<double, 3> mean,
                                          std::array<double, 3> std, bool nearest, Dtype dtype, bool channels_last,
                                          py::ssize_t height, py::ssize_t width) {
    AugmentSettings settings = checked_settings(stages, divisor, mean, std, nearest, dtype, channels_last);
    check_size(height, width);
    return std::make_shared<Augmenter>(settings, checked_rows(rows, settings), static_cast<int>(height),
                                       static_cast<int>(width));
}

void write(const Augmenter &augmenter, const Pixels &pixels, size_t sample, const py::buffer &out) {
    check(pixels.ndim() == 3 && pixels.shape(0) == augmenter.pixel_writer.height() &&
              pixels.shape(1) == augmenter.pixel_writer.width() && pixels.shape(2) == 3,
          "pixels must be [height, width, 3] with the augmenter's size");
    check(sample < augmenter.samples, "sample must be below the augmenter's number of rows");
    py::buffer_info buffer = out.request(true);
    check(PyBuffer_IsContiguous(buffer.view(), 'C') != 0, "out must be contiguous");
    check(reinterpret_cast<uintptr_t>(buffer.ptr) % sizeof(float) == 0, "out must be aligned to 4 bytes");
    size_t bytes = static_cast<size_t>(buffer.size) * static_cast<size_t>(buffer.itemsize);
    check(sample < bytes / augmenter.sample_bytes, "out is too small for this sample");
    uint8_t *to = static_cast<uint8_t *>(buffer.ptr) + sample * augmenter.sample_bytes;
    const uint8_t *from = pixels.data();
    Unlocked unlocked;
    augmenter.augment(from, sample, to);
}

// Columns of a row and bits of the stages, for the test that compares them with Python's.
py::dict layout() {
    return py::dict(py::arg("COLUMNS") = +AUGMENT_COLUMNS, py::arg("G_INV") = +COLUMN_G_INV, py::arg("C") = +COLUMN_C,
                    py::arg("JITTER") = +COLUMN_JITTER, py::arg("ORDER") = +COLUMN_ORDER, py::arg("HSV") = +COLUMN_HSV,
                    py::arg("CUT_SIZE") = +COLUMN_CUT_SIZE, py::arg("CUT_CENTER") = +COLUMN_CUT_CENTER,
                    py::arg("WARP") = +STAGE_WARP, py::arg("STAGE_JITTER") = +STAGE_JITTER,
                    py::arg("MEAN") = +STAGE_MEAN, py::arg("COLOR") = +STAGE_COLOR, py::arg("STAGE_HSV") = +STAGE_HSV,
                    py::arg("CUTOUT") = +STAGE_CUTOUT);
}

}  // namespace

void bind_augment(py::module_ &module) {
    py::class_<ImageThreads>(module, "AugmentThreads", "The calling thread, and helpers up to this number in all.")
        .def(py::init<int>(), py::arg("threads"));
    module.def(
        "augment", &augment, py::arg("images"), py::arg("rows").noconvert(), py::arg("stages"), py::arg("divisor"),
        py::arg("mean"), py::arg("std"), py::arg("nearest"), py::arg("out").noconvert(), py::arg("dtype"),
        py::arg("channels_last"), py::arg("threads"),
        "Writes `images` [N, H, W, 1 or 3], uint8 or float32 in any strides, to `out` as their rows [N, 32] say: "
        "[N, C, H, W], or [N, H, W, C] where channels_last, contiguous.");
    py::class_<Augmenter, ImageAugmenter, std::shared_ptr<Augmenter>>(
        module, "Augmenter", "The augmentation of one batch: rows [N, 32], a row per sample.")
        .def(py::init(&make_augmenter), py::arg("rows").noconvert(), py::arg("stages"), py::arg("divisor"),
             py::arg("mean"), py::arg("std"), py::arg("nearest"), py::arg("dtype"), py::arg("channels_last"),
             py::arg("height"), py::arg("width"))
        .def_readonly("sample_bytes", &Augmenter::sample_bytes)
        .def_readonly("samples", &Augmenter::samples)
        .def("write", &write, py::arg("pixels").noconvert(), py::arg("sample"), py::arg("out"),
             "Augments `pixels` [height, width, 3] uint8 into sample number `sample` of the buffer `out`.");
    module.def("augment_layout", &layout, "Columns of a row and bits of the stages, by name.");
    bind_kernel_choice(module, "augment_kernels", augment_kernel_choice());
}

}  // namespace fastload
