// Turns std::bad_alloc of every binding into fastload's OutOfMemoryError.
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
            } catch (const std::exception &) {  // no memory even for the message
                PyErr_NoMemory();
            }
        }
    });
}

}  // namespace fastload
