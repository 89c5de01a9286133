// The Python face of jpeg: which library is loaded, and what is damaged in a file.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>

#include "base/unlocked.h"
#include "decode/jpeg.h"

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
    module.def(
        "jpeg_tells_of_memory", [](const std::string &message) { return tells_of_memory(message.c_str()); },
        py::arg("message"), "Whether what a libjpeg said is about the memory of this process, not about the image.");
    module.attr("MAX_JPEG_SCANS") = JpegDecoder::MAX_SCANS;
    module.def(
        "jpeg_damage",
        [](const py::buffer &content) {
            py::buffer_info view = content.request();
            std::string reasons;
            const bool loaded = load_jpeg_library({}, &reasons) != nullptr;
            if (!loaded || view.ndim != 1 || view.itemsize != 1 || (view.size > 0 && view.strides[0] != 1))
                throw py::value_error("jpeg_damage needs a loaded libjpeg and contiguous bytes");
            Unlocked unlocked;
            JpegDecoder decoder;
            JpegDecoder::Status status =
                decoder.check(static_cast<const uint8_t *>(view.ptr), static_cast<size_t>(view.size));
            if (status != JpegDecoder::Status::damaged) return std::string();
            if (decoder.out_of_memory()) throw std::bad_alloc();
            return std::string(decoder.message());
        },
        py::arg("content"), "What is damaged in a JPEG, found by reading all of it; empty for one that is whole.");
}

}  // namespace fastload
