// The Python face of geometry: every value of a spec is checked here, and arrays of images are gone through.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>

#include "base/unlocked.h"
#include "decode/geometry.h"

namespace fastload {
namespace {
namespace py = pybind11;

using Int64s = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

ImageSpec make_spec(int width, int height, int resize, int short_side, int crop, int crop_left, int crop_top,
                    int filter, int scaled, double scale_low, double scale_high, double ratio_low, double ratio_high,
                    double xflip) {
    const bool sides = width >= 1 && height >= 1 && width <= MAX_TARGET_SIDE && height <= MAX_TARGET_SIDE;
    const bool short_sides =
        resize != RESIZE_SHORT_SIDE || (short_side >= width && short_side >= height && short_side <= MAX_TARGET_SIDE);
    const bool codes = resize >= 0 && resize <= 3 && short_sides && crop >= 0 && crop <= 2 && filter >= 0 &&
                       filter <= 3 && scaled >= 0 && scaled <= 2 && crop_left >= 0 && crop_top >= 0;
    const bool ranges = scale_low > 0 && scale_low <= scale_high && scale_high <= 1 && ratio_low > 0 &&
                        ratio_low <= ratio_high && std::isfinite(ratio_high) && xflip >= 0 && xflip <= 1;
    if (!sides || !codes || !ranges)
        throw py::value_error("ImageSpec: an argument is out of range; decode/spec.py checks them");
    return ImageSpec{width,  height, resize,    short_side, crop,      crop_left,  crop_top,
                     filter, scaled, scale_low, scale_high, ratio_low, ratio_high, xflip};
}

// A side beyond int is out of range all the same.
int clamped(int64_t side) { return static_cast<int>(std::clamp<int64_t>(side, -1, int64_t{MAX_SOURCE_SIDE} + 1)); }

py::tuple geometries(const ImageSpec &spec, const Int64s &widths, const Int64s &heights, uint64_t seed,
                     const Int64s &positions) {
    if (widths.ndim() != 1 || heights.ndim() != 1 || positions.ndim() != 1 || widths.size() != positions.size() ||
        heights.size() != positions.size()) {
        throw py::value_error("geometries: widths, heights and positions must be [N], all of one N");
    }
    const py::ssize_t n = positions.size();
    py::array_t<double> box({n, py::ssize_t{4}});
    py::array_t<int32_t> resized({n, py::ssize_t{2}}), crop({n, py::ssize_t{4}}), denominators(n), status(n);
    py::array_t<bool> flip(n);
    without_gil([&] {
        for (py::ssize_t i = 0; i < n; ++i) {
            const Geometry g = geometry(spec, clamped(widths.at(i)), clamped(heights.at(i)), seed,
                                        static_cast<uint64_t>(positions.at(i)));
            std::copy(g.box, g.box + 4, box.mutable_data(i, 0));
            const int sizes[6] = {g.resized_w, g.resized_h, g.left, g.top, g.width, g.height};
            std::copy(sizes, sizes + 2, resized.mutable_data(i, 0));
            std::copy(sizes + 2, sizes + 6, crop.mutable_data(i, 0));
            flip.mutable_at(i) = g.flip;
            denominators.mutable_at(i) = g.status == GEOMETRY_OK ? denominator(spec.scaled, g) : 0;
            status.mutable_at(i) = g.status;
        }
    });
    return py::make_tuple(box, resized, crop, flip, denominators, status);
}

}  // namespace

void bind_geometry(py::module_ &module) {
    py::class_<ImageSpec>(module, "ImageSpec", "The C++ half of decode/spec.py's ImageSpec.")
        .def(py::init(&make_spec), py::kw_only(), py::arg("width"), py::arg("height"), py::arg("resize"),
             py::arg("short_side"), py::arg("crop"), py::arg("crop_left"), py::arg("crop_top"), py::arg("filter"),
             py::arg("scaled"), py::arg("scale_low"), py::arg("scale_high"), py::arg("ratio_low"),
             py::arg("ratio_high"), py::arg("xflip"));
    module.def("geometries", &geometries, py::arg("spec"), py::arg("widths"), py::arg("heights"), py::arg("seed"),
               py::arg("positions"));
    module.def(
        "scaled_box",
        [](py::tuple box, int width, int height, int denominator, int orientation) {
            if (box.size() != 4 || width < 1 || height < 1 || denominator < 1 || denominator > 8) {
                throw py::value_error(
                    "scaled_box: needs a box of four edges, positive width and height, a denominator of 1 to 8");
            }
            Geometry g{};
            for (int edge = 0; edge < 4; ++edge) g.box[edge] = box[edge].cast<double>();
            const ScaledBox out = scaled_box(g, width, height, denominator, orientation);
            return py::make_tuple(py::make_tuple(out.width, out.height),
                                  py::make_tuple(out.box[0], out.box[1], out.box[2], out.box[3]));
        },
        py::arg("box"), py::arg("width"), py::arg("height"), py::arg("denominator"), py::arg("orientation"));
}

}  // namespace fastload
