// The rows of one tar file, read from its headers only: ustar, pax (size and path overrides), GNU long names and
// long links, base-256 sizes. The twin of fastload/shards/tar.py, which says the same in Python:
//
// Every header's checksum is verified, every payload must lie inside the file. Directories, links and devices are no
// samples and carry no payload; they are counted in `skipped`. Refused, because a byte range of the file is not the
// member's content or because nobody knows what it is: sparse members, multi-volume parts, unknown member types.
// The end: from the first zero block on all bytes must be zero, and there must be one. A file that ends at a member
// boundary without any zero block is refused: it looks the same as a tar that was cut there.
#pragma once

#include "shards/container_file.h"
#include "shards/sample_rows.h"

namespace fastload {

// Throws ContainerProblem, naming the byte.
SampleRows index_tar(const std::string &path, const std::string &name);

}  // namespace fastload
