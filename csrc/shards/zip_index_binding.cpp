// The Python face of zip_index.
#include "shards/sample_rows_binding.h"
#include "shards/zip_index.h"

namespace fastload {

void bind_zip_index(pybind11::module_ &module) {
    bind_container_index(module, "index_zip", &index_zip,
                         "The rows of one zip as keyword arguments of Rows; see shards/zip.py.");
}

}  // namespace fastload
