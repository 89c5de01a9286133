// Fuzz target of tar_index: the bytes as they are, and once more with the checksums of their headers put right, since
// almost no mutation of a header would come past them. Also checked: payloads do not overlap.
#include <cstring>

#include "container_target.h"
#include "shards/tar_index.h"

namespace {

constexpr size_t BLOCK = 512, CHECKSUM = 148, CHECKSUM_BYTES = 8;

// Every block that has the magic of a header, and the first one, which old tars write without.
std::vector<uint8_t> with_right_checksums(const uint8_t *bytes, size_t size) {
    std::vector<uint8_t> repaired(bytes, bytes + size);
    for (size_t at = 0; at + BLOCK <= size; at += BLOCK) {
        uint8_t *header = repaired.data() + at;
        if (at > 0 && std::memcmp(header + 257, "ustar", 5) != 0) continue;
        std::memset(header + CHECKSUM, ' ', CHECKSUM_BYTES);
        unsigned sum = 0;
        for (size_t i = 0; i < BLOCK; ++i) sum += header[i];
        if (sum == CHECKSUM_BYTES * ' ') {
            std::memset(header + CHECKSUM, 0, CHECKSUM_BYTES);  // a block of zeros is the end marker, not a header
        } else {
            std::snprintf(reinterpret_cast<char *>(header) + CHECKSUM, CHECKSUM_BYTES, "%06o", sum);
        }
    }
    return repaired;
}

void check(const uint8_t *bytes, size_t size) {
    fastload::Ranges ranges = fastload::index_and_check(fastload::index_tar, bytes, size);
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 1; i < ranges.size(); ++i) PROPERTY(ranges[i - 1].second <= ranges[i].first);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    check(bytes, size);
    const std::vector<uint8_t> repaired = with_right_checksums(bytes, size);
    if (size > 0 && std::memcmp(repaired.data(), bytes, size) != 0) check(repaired.data(), size);
    return 0;
}
