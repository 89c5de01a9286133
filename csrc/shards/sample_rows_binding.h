// The Python face of what indexes a container: rows and problems, as Python has them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "shards/sample_rows.h"

namespace fastload {

// `index` as module.NAME(path, name): it runs without the GIL; a ContainerProblem becomes a ShardError, and what the
// system refuses an OSError.
void bind_container_index(pybind11::module_ &module, const char *name,
                          SampleRows (*index)(const std::string &path, const std::string &name),
                          const char *description);

}  // namespace fastload
