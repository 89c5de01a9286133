// The Python face of image_header: checks that the buffer is contiguous bytes and releases the GIL.
#include <pybind11/pybind11.h>

#include "base/unlocked.h"
#include "decode/image_header.h"

namespace fastload {
namespace py = pybind11;

void bind_image_header(py::module_ &module) {
    module.def(
        "parse_image_header",
        [](py::buffer content) {
            const py::buffer_info view = content.request();
            if (view.ndim != 1 || view.itemsize != 1 || (view.size > 0 && view.strides[0] != 1)) {
                throw py::value_error("parse_image_header needs contiguous bytes");
            }
            ImageHeader header;
            const bool found = without_gil([&] {
                return parse_image_header(static_cast<const uint8_t *>(view.ptr), static_cast<size_t>(view.size),
                                          &header);
            });
            return py::make_tuple(found, header.format, header.width, header.height, header.orientation,
                                  header.channels, header.bits, header.progressive, header.adobe_transform);
        },
        py::arg("content"));
}

}  // namespace fastload
