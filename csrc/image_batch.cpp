#include <pybind11/pybind11.h>

namespace fastload {
void bind_image_batch(pybind11::module_ &) {}
}  // namespace fastload
