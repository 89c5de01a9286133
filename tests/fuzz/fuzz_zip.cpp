// Fuzz target of zip_index: the bytes as they are, and once more with the end record saying where the directory lies
// and how many entries it has, since a mutation that makes an entry longer would not come past it.
#include <cstring>

#include "container_target.h"
#include "shards/zip_index.h"

namespace {

constexpr size_t END_BYTES = 22;

void put(uint8_t *to, size_t value, size_t width) {
    for (size_t i = 0; i < width; ++i) to[i] = static_cast<uint8_t>(value >> (8 * i));
}

std::vector<uint8_t> with_right_end(const uint8_t *bytes, size_t size) {
    std::vector<uint8_t> repaired(bytes, bytes + size);
    const std::string text(bytes, bytes + size);
    const size_t end = text.rfind("PK\5\6"), start = text.find("PK\1\2");
    if (end == std::string::npos || end + END_BYTES > size || start == std::string::npos || start > end) {
        return repaired;
    }
    size_t count = 0;
    for (size_t at = start; at < end; at = text.find("PK\1\2", at + 4)) ++count;
    uint8_t *record = repaired.data() + end;
    put(record + 8, count, 2);
    put(record + 10, count, 2);
    put(record + 12, end - start, 4);
    put(record + 16, start, 4);
    put(record + 20, size - end - END_BYTES, 2);
    return repaired;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    fastload::index_and_check(fastload::index_zip, bytes, size);
    const std::vector<uint8_t> repaired = with_right_end(bytes, size);
    if (size > 0 && std::memcmp(repaired.data(), bytes, size) != 0) {
        fastload::index_and_check(fastload::index_zip, repaired.data(), size);
    }
    return 0;
}
