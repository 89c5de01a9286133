#include <pybind11/pybind11.h>

namespace fastload {
void bind_index_lookup(pybind11::module_ &) {}
}  // namespace fastload
