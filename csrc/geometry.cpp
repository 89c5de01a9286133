#include <pybind11/pybind11.h>

namespace fastload {
void bind_geometry(pybind11::module_ &) {}
}  // namespace fastload
