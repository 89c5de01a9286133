// Binds buffer_pool.h to Python: a Buffer is a writable buffer of bytes.
#include <pybind11/pybind11.h>

#include "read/buffer_pool.h"

namespace fastload {
namespace py = pybind11;

void bind_buffer_pool(py::module_ &module) {
    py::class_<Buffer, std::shared_ptr<Buffer>>(module, "Buffer", py::buffer_protocol(),
                                                "Memory of a BufferPool, writable bytes.")
        .def_buffer([](Buffer &buffer) {
            return py::buffer_info(buffer.bytes(), 1, py::format_descriptor<uint8_t>::format(), 1, {buffer.capacity()},
                                   {size_t{1}});
        })
        .def_property_readonly("address",
                               [](const Buffer &buffer) { return reinterpret_cast<uintptr_t>(buffer.bytes()); })
        .def_property_readonly("capacity", &Buffer::capacity);
    py::class_<BufferPool, std::shared_ptr<BufferPool>>(module, "BufferPool")
        .def(py::init([](size_t max_bytes) { return std::make_shared<BufferPool>(max_bytes); }), py::arg("max_bytes"))
        .def("acquire", &BufferPool::acquire, py::arg("size"))
        .def("trim", &BufferPool::trim)
        .def_property_readonly("idle_bytes", &BufferPool::idle_bytes)
        .def_property_readonly("used_bytes", &BufferPool::used_bytes)
        .def_property_readonly("reused", &BufferPool::reused)
        .def_property_readonly("allocated", &BufferPool::allocated);
}

}  // namespace fastload
