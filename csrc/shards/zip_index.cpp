#include "shards/zip_index.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace fastload {
namespace {

constexpr uint64_t END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56, ENTRY_BYTES = 46, LOCAL_BYTES = 30;
constexpr uint64_t MAX_COMMENT_BYTES = 65535;
const char *const REPACK = "Pack it again as one plain zip without compression (zip -0), or as a tar.";

uint64_t little(const unsigned char *bytes, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    return value;
}

struct Directory {
    uint64_t start, stop, count;
};

struct Entry {
    std::string name;
    uint64_t flags, method, packed_bytes, size_bytes, local_offset, mode;
};

class ZipWalk {
   public:
    ZipWalk(ContainerFile &file, RowBuilder &rows) : file_(file), rows_(rows) {}

    void run() {
        const Directory directory = find_directory();
        std::vector<unsigned char> bytes(directory.stop - directory.start);
        file_.read(directory.start, bytes.size(), bytes.data());
        uint64_t at = 0, count = 0;
        while (at < bytes.size()) {
            const uint64_t left = bytes.size() - at;
            const unsigned char *entry = bytes.data() + at;
            const bool whole = left >= ENTRY_BYTES && std::memcmp(entry, "PK\1\2", 4) == 0;
            const uint64_t length =
                whole ? ENTRY_BYTES + little(entry + 28, 2) + little(entry + 30, 2) + little(entry + 32, 2) : 0;
            if (!whole || length > left) {
                file_.fail(directory.start + at, "damaged entry in the directory");
            }
            take(parse(entry, directory.start + at), directory);
            at += length;
            ++count;
        }
        if (count != directory.count) {
            file_.fail(directory.start, "the directory has " + std::to_string(count) + " entries and claims " +
                                            std::to_string(directory.count) + ", starting");
        }
        check_overlap();
    }

   private:
    Directory find_directory() {
        const uint64_t tail_bytes = std::min(file_.size(), END_BYTES + MAX_COMMENT_BYTES);
        const uint64_t tail_start = file_.size() - tail_bytes;
        std::vector<unsigned char> tail(tail_bytes);
        file_.read(tail_start, tail_bytes, tail.data());
        for (uint64_t i = tail_bytes < END_BYTES ? 0 : tail_bytes - END_BYTES + 1; i-- > 0;) {
            const unsigned char *end = tail.data() + i;
            if (std::memcmp(end, "PK\5\6", 4) != 0 || little(end + 20, 2) != tail_bytes - i - END_BYTES) continue;
            return checked(end, tail_start + i);
        }
        file_.fail(file_.size(), "the zip is cut: it has no directory before its end");
    }

    Directory checked(const unsigned char *end, uint64_t end_offset) {
        Directory found{little(end + 16, 4), end_offset, little(end + 10, 2)};
        uint64_t disks = little(end + 4, 2) | little(end + 6, 2);
        uint64_t size = little(end + 12, 4);
        unsigned char locator[LOCATOR_BYTES];
        unsigned char end64[END64_BYTES];
        if (end_offset >= LOCATOR_BYTES) {
            file_.read(end_offset - LOCATOR_BYTES, LOCATOR_BYTES, locator);
            if (std::memcmp(locator, "PK\6\7", 4) == 0) {
                found.stop = little(locator + 8, 8);
                if (file_.holds(found.stop, END64_BYTES)) file_.read(found.stop, END64_BYTES, end64);
                if (!file_.holds(found.stop, END64_BYTES) || std::memcmp(end64, "PK\6\6", 4) != 0) {
                    file_.fail(end_offset - LOCATOR_BYTES, "damaged zip64 record");
                }
                found.start = little(end64 + 48, 8);
                found.count = little(end64 + 32, 8);
                size = little(end64 + 40, 8);
                disks = little(end64 + 16, 4) | little(end64 + 20, 4);
            }
        }
        if (disks != 0) file_.fail(end_offset, "the zip is spread over several disks", REPACK);
        if (found.start > found.stop || size != found.stop - found.start) {
            file_.fail(found.stop, "the directory does not end where it should (bytes put before the zip, or damage)",
                       REPACK);
        }
        return found;
    }

    Entry parse(const unsigned char *entry, uint64_t entry_offset) const {
        const uint64_t name_bytes = little(entry + 28, 2);
        Entry out{std::string(reinterpret_cast<const char *>(entry) + ENTRY_BYTES, name_bytes),
                  little(entry + 8, 2),
                  little(entry + 10, 2),
                  little(entry + 20, 4),
                  little(entry + 24, 4),
                  little(entry + 42, 4),
                  entry[5] == 3 ? little(entry + 40, 2) : 0};  // unix: the file's mode
        take_zip64(entry + ENTRY_BYTES + name_bytes, little(entry + 30, 2), out, entry_offset);
        return out;
    }

    // Extra field 1 holds, in this order, those of the three numbers that did not fit.
    void take_zip64(const unsigned char *extra, uint64_t extra_bytes, Entry &entry, uint64_t entry_offset) const {
        const uint64_t full = 0xffffffff;
        if (entry.size_bytes != full && entry.packed_bytes != full && entry.local_offset != full) return;
        uint64_t at = 0;
        while (at + 4 <= extra_bytes) {
            const uint64_t length = little(extra + at + 2, 2);
            if (length > extra_bytes - at - 4) break;
            if (little(extra + at, 2) == 1) {
                uint64_t used = 0;
                for (uint64_t *number : {&entry.size_bytes, &entry.packed_bytes, &entry.local_offset}) {
                    if (*number != full) continue;
                    if (used + 8 > length) break;
                    *number = little(extra + at + 4 + used, 8);
                    used += 8;
                }
                return;
            }
            at += 4 + length;
        }
        file_.fail(entry_offset, "'" + entry.name + "' has no zip64 sizes: damaged entry");
    }

    void take(const Entry &entry, const Directory &directory) {
        if (!entry.name.empty() && entry.name.back() == '/') return rows_.skip("directory");
        if ((entry.mode & 0xf000) == 0xa000) return rows_.skip("link");
        if ((entry.flags & 0x2041) != 0) {
            file_.fail(entry.local_offset, "'" + entry.name + "' is encrypted", REPACK);
        }
        if (entry.method != 0 || entry.packed_bytes != entry.size_bytes) {
            file_.fail(entry.local_offset,
                       "'" + entry.name + "' is compressed (method " + std::to_string(entry.method) + ")", REPACK);
        }
        const uint64_t head_bytes = LOCAL_BYTES + entry.name.size();
        std::vector<unsigned char> head(head_bytes);
        const bool inside = file_.holds(entry.local_offset, head_bytes);
        if (inside) file_.read(entry.local_offset, head_bytes, head.data());
        if (!inside || std::memcmp(head.data(), "PK\3\4", 4) != 0 || little(&head[26], 2) != entry.name.size() ||
            std::memcmp(head.data() + LOCAL_BYTES, entry.name.data(), entry.name.size()) != 0) {
            file_.fail(entry.local_offset, "no local header of '" + entry.name + "'");
        }
        if (contradicts(head.data(), entry)) {
            file_.fail(entry.local_offset, "the local header of '" + entry.name + "' contradicts the directory");
        }
        const uint64_t start = entry.local_offset + head_bytes + little(&head[28], 2);
        if (start > directory.start || entry.size_bytes > directory.start - start) {
            file_.fail(entry.local_offset, "'" + entry.name + "' runs into the directory");
        }
        extents_.emplace_back(entry.local_offset, start + entry.size_bytes);
        rows_.add(entry.name, entry.local_offset, start, entry.size_bytes);
    }

    // Whether a local header makes of a stored member something else. Sizes may stand behind the content instead (flag
    // 8), or in a zip64 field.
    static bool contradicts(const unsigned char *head, const Entry &entry) {
        const uint64_t flags = little(head + 6, 2), method = little(head + 8, 2), full = 0xffffffff;
        if (method != 0 || (flags & 0x2041) != 0) return true;
        for (uint64_t size : {little(head + 18, 4), little(head + 22, 4)})
            if ((flags & 8) == 0 && size != full && size != entry.size_bytes) return true;
        return false;
    }

    // A damaged length of a local header's extra field moves a member's content into the next member.
    void check_overlap() {
        std::sort(extents_.begin(), extents_.end());
        for (size_t i = 1; i < extents_.size(); ++i) {
            if (extents_[i].first < extents_[i - 1].second) {
                file_.fail(extents_[i].first, "two members overlap, the second");
            }
        }
    }

    ContainerFile &file_;
    RowBuilder &rows_;
    std::vector<std::pair<uint64_t, uint64_t>> extents_;  // of the members: local header, end of the content
};

}  // namespace

SampleRows index_zip(const std::string &path, const std::string &name) {
    return index_container<ZipWalk>(path, name, true);
}

}  // namespace fastload
