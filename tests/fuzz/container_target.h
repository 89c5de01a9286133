// What the fuzz targets of tar_index and zip_index share: bytes become a file, and what an indexer says of it is
// checked.
//
// In: an indexer and the bytes of a container. Checked: it gives rows or a ContainerProblem and throws nothing else;
// every payload lies inside the file and before members_stop; keys and extensions are unique and not empty; no row
// and no column is empty; a problem is one line that begins with the name.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "property.h"
#include "shards/sample_rows.h"

namespace fastload {

// One file whose content is replaced for each input; the indexers open it by its path. In memory where the system can:
// on a disk truncating it takes longer than the parser does.
class ScratchFile {
   public:
    ScratchFile() {
#ifdef __linux__
        descriptor_ = ::memfd_create("fuzz", 0);
        path_ = "/proc/self/fd/" + std::to_string(descriptor_);
#else
        const char *folder = std::getenv("TMPDIR");
        path_ = std::string(folder ? folder : "/tmp") + "/fuzzXXXXXX";
        descriptor_ = ::mkstemp(path_.data());
#endif
        PROPERTY(descriptor_ >= 0);
    }
    const std::string &holding(const uint8_t *bytes, size_t size) {
        PROPERTY(::ftruncate(descriptor_, 0) == 0);
        PROPERTY(::pwrite(descriptor_, bytes, size, 0) == static_cast<ssize_t>(size));
        return path_;
    }

   private:
    std::string path_;
    int descriptor_;
};

using Ranges = std::vector<std::pair<int64_t, int64_t>>;  // start, stop of every payload

inline void check_keys(const SampleRows &rows) {
    std::set<std::string> keys;
    int64_t start = 0;
    for (const int64_t stop : rows.key_end) {
        PROPERTY(start < stop && stop <= static_cast<int64_t>(rows.keys.size()));
        PROPERTY(keys.insert(rows.keys.substr(static_cast<size_t>(start), static_cast<size_t>(stop - start))).second);
        start = stop;
    }
    PROPERTY(start == static_cast<int64_t>(rows.keys.size()));
}

inline Ranges checked_ranges(const SampleRows &rows, size_t file_size) {
    const size_t count = rows.key_end.size();
    std::set<std::string> extensions;
    std::vector<bool> row_has_member(count);
    Ranges ranges;
    PROPERTY(rows.members_stop <= file_size);
    for (const ExtensionColumn &column : rows.columns) {
        PROPERTY(!column.extension.empty() && extensions.insert(column.extension).second);
        PROPERTY(column.offset_bytes.size() == count && column.size_bytes.size() == count);
        const size_t before = ranges.size();
        for (size_t row = 0; row < count; ++row) {
            const int64_t offset = column.offset_bytes[row], size = column.size_bytes[row];
            if (offset == -1 && size == -1) continue;
            PROPERTY(offset >= 0 && size >= 0 && size <= static_cast<int64_t>(rows.members_stop));
            PROPERTY(offset <= static_cast<int64_t>(rows.members_stop) - size);
            row_has_member[row] = true;
            ranges.emplace_back(offset, offset + size);
        }
        PROPERTY(ranges.size() > before);
    }
    PROPERTY(std::count(row_has_member.begin(), row_has_member.end(), false) == 0);
    return ranges;
}

inline void check_problem(const std::string &message) {
    PROPERTY(message.compare(0, 6, "name: ") == 0 && message.find(" at byte ") != std::string::npos);
    for (const char letter : message) PROPERTY(static_cast<unsigned char>(letter) >= 0x20 && letter != 0x7f);
}

// The payloads of the container, empty for one that was refused.
template <class Index>
Ranges index_and_check(Index index, const uint8_t *bytes, size_t size) {
    static ScratchFile file;
    try {
        const SampleRows rows = index(file.holding(bytes, size), "name");
        check_keys(rows);
        if (rows.label_offset != -1) {
            PROPERTY(rows.label_offset >= 0 && rows.label_size >= 0);
            PROPERTY(static_cast<uint64_t>(rows.label_offset + rows.label_size) <= rows.members_stop);
        }
        return checked_ranges(rows, size);
    } catch (const ContainerProblem &problem) {
        check_problem(problem.what());
        return {};
    }
}

}  // namespace fastload
