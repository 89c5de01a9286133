// Want of memory in native code, as Python's OutOfMemoryError of ours: every binding, in one place.
#include <pybind11/pybind11.h>

#include <exception>
#include <new>

namespace fastload {

void bind_shortage(pybind11::module_ &) {
    namespace py = pybind11;
    py::register_local_exception_translator([](std::exception_ptr thrown) {
        try {
            if (thrown) std::rethrow_exception(thrown);
        } catch (const std::bad_alloc &) {
            try {
                py::object error = py::module_::import("fastload.shortage").attr("in_native_code")();
                py::set_error(py::type::of(error), error);
            } catch (const std::exception &) {  // not even for a message
                PyErr_NoMemory();
            }
        }
    });
}

}  // namespace fastload
