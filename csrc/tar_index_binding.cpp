// The Python face of tar_index: the GIL is released, a ContainerProblem becomes a ShardError.
#include <pybind11/stl.h>

#include "sample_rows_binding.h"
#include "tar_index.h"

namespace fastload {

void bind_tar_index(pybind11::module_ &module) {
    namespace py = pybind11;
    module.def(
        "index_tar",
        [](const std::string &path, const std::string &name) {
            try {
                SampleRows rows;
                {
                    py::gil_scoped_release unlocked;
                    rows = index_tar(path, name);
                }
                return rows_to_python(std::move(rows));
            } catch (const ContainerProblem &problem) {
                raise_shard_error(problem.what());
            }
        },
        py::arg("path"), py::arg("name"), "The rows of one tar as keyword arguments of Rows; see shards/tar.py.");
}

}  // namespace fastload
