#include <pybind11/pybind11.h>

namespace fastload {
void bind_tar_index(pybind11::module_ &) {}
}  // namespace fastload
