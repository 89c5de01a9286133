// The rows of one zip file, read from its central directory and its local headers: stored members, zip64.
// The twin of fastload/shards/zip.py, which says the same in Python:
//
// Members count in the order of the central directory. Each one's local header is read too, because only it tells
// where the content starts; its signature and name must agree with the directory. Directories and symbolic links are
// no samples; they are counted in `skipped`. Refused by name: compressed and encrypted members. Refused: several
// disks, bytes put before the zip, a directory whose length or count is wrong.
#pragma once

#include "shards/container_file.h"
#include "shards/sample_rows.h"

namespace fastload {

// Throws ContainerProblem, naming the byte.
SampleRows index_zip(const std::string &path, const std::string &name);

}  // namespace fastload
