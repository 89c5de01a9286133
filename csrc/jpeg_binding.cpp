// The Python face of jpeg: which library is loaded.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "jpeg.h"

namespace fastload {

void bind_jpeg(pybind11::module_ &module) {
    namespace py = pybind11;
    module.def(
        "load_jpeg_library",
        [](const std::vector<std::string> &paths) -> py::object {
            std::string reasons;
            const JpegLibrary *loaded = load_jpeg_library(paths, &reasons);
            if (!loaded) return py::make_tuple(py::none(), 0, reasons);
            return py::make_tuple(loaded->path, loaded->abi, reasons);
        },
        py::arg("paths"), "(path, abi, reasons) of the libjpeg in use; path is None where none of `paths` will do.");
}

}  // namespace fastload
