// Binds pixels.h and pixel_writer.h to Python: the resize of the simplejpeg fallback, and what the tests look at.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>

#include "base/kernel_choice_binding.h"
#include "base/unlocked.h"
#include "decode/pixels.h"

namespace fastload {
namespace {
namespace py = pybind11;
using Rgb = py::array_t<uint8_t, py::array::c_style>;

void check(bool condition, const char *message) {
    if (!condition) throw std::invalid_argument(message);
}

ResizeRequest request_of(const Rgb &rgb, std::array<double, 4> box, std::array<int, 2> resized, std::array<int, 4> crop,
                         bool flip, int filter) {
    check(rgb.ndim() == 3 && rgb.shape(2) == 3 && rgb.shape(0) > 0 && rgb.shape(1) > 0,
          "rgb must be [height, width, 3] and not empty");
    check(rgb.shape(0) < (1 << 24) && rgb.shape(1) < (1 << 24), "height and width of rgb must be below 2^24");
    int width = static_cast<int>(rgb.shape(1)), height = static_cast<int>(rgb.shape(0));
    check(box[0] >= 0 && box[1] >= 0 && box[2] <= width && box[3] <= height && box[0] < box[2] && box[1] < box[3],
          "box must lie inside the image");
    check(crop[0] >= 0 && crop[1] >= 0 && crop[2] > 0 && crop[3] > 0 && crop[0] + crop[2] <= resized[0] &&
              crop[1] + crop[3] <= resized[1],
          "crop must lie inside the resized image");
    check(filter >= FILTER_NEAREST && filter <= FILTER_LANCZOS,
          "filter must be 0 (nearest), 1 (bilinear), 2 (bicubic) or 3 (lanczos)");
    ResizeRequest request{width, height, {}, resized[0], resized[1], crop[0], crop[1], crop[2], crop[3], flip, filter};
    for (size_t i = 0; i < 4; i++) request.box[i] = static_cast<float>(box[i]);
    return request;
}

void write_image(Rgb rgb, std::array<double, 4> box, std::array<int, 2> resized, std::array<int, 4> crop, bool flip,
                 int filter, const PixelWriter &writer, Rgb out, size_t sample) {
    ResizeRequest request = request_of(rgb, box, resized, crop, flip, filter);
    check(request.width == writer.width() && request.height == writer.height(), "crop must have the writer's size");
    check(sample < static_cast<size_t>(out.nbytes()) / writer.sample_bytes(), "out is too small for this sample");
    uint8_t *to = out.mutable_data() + sample * writer.sample_bytes();
    const uint8_t *from = rgb.data();
    Unlocked unlocked;
    resize_to(request, from, static_cast<size_t>(request.in_width) * 3, writer, to);
}

}  // namespace

void bind_pixels(py::module_ &module) {
    py::enum_<Dtype>(module, "Dtype")
        .value("uint8", Dtype::uint8)
        .value("float32", Dtype::float32)
        .value("float16", Dtype::float16)
        .value("bfloat16", Dtype::bfloat16);
    py::class_<PixelWriter, std::shared_ptr<PixelWriter>>(module, "PixelWriter",
                                                          "How pixels are written: dtype, layout, size, normalization.")
        .def(py::init([](Dtype dtype, bool channels_last, int height, int width, float divisor,
                         std::array<float, 3> mean, std::array<float, 3> std) {
                 check(height > 0 && width > 0 && height < (1 << 24) && width < (1 << 24),
                       "height and width must be in [1, 2^24)");
                 return std::make_shared<PixelWriter>(dtype, channels_last, height, width, divisor, mean, std);
             }),
             py::arg("dtype"), py::arg("channels_last"), py::arg("height"), py::arg("width"), py::arg("divisor"),
             py::arg("mean"), py::arg("std"))
        .def_property_readonly("sample_bytes", &PixelWriter::sample_bytes);
    module.def("write_image", &write_image, py::arg("rgb"), py::arg("box"), py::arg("resized"), py::arg("crop"),
               py::arg("flip"), py::arg("filter"), py::arg("writer"), py::arg("out").noconvert(), py::arg("sample"),
               "Resizes, crops and flips `rgb` [height, width, 3] uint8 and writes it as sample number `sample` of the "
               "buffer `out`.");
    bind_kernel_choice(module, "pixel_kernels", pixel_kernel_choice());
}

}  // namespace fastload
