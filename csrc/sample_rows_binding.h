// What the bindings of tar_index and zip_index share: rows and problems, as Python has them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "sample_rows.h"

namespace fastload {

// The rows as the keyword arguments of fastload.shards.rows.Rows.
pybind11::dict rows_to_python(SampleRows &&rows);

// Raises fastload.errors.ShardError with this message (the GIL must be held).
[[noreturn]] void raise_shard_error(const std::string &message);

}  // namespace fastload
