#include <pybind11/pybind11.h>

namespace fastload {
void bind_shard_reader(pybind11::module_ &) {}
}  // namespace fastload
