// The Python face of tar_index.
#include "shards/sample_rows_binding.h"
#include "shards/tar_index.h"

namespace fastload {

void bind_tar_index(pybind11::module_ &module) {
    bind_container_index(module, "index_tar", &index_tar,
                         "The rows of one tar as keyword arguments of Rows; see shards/tar.py.");
}

}  // namespace fastload
