// Rows of a whole dataset, looked up in the memory-mapped columns of its index files.
// In: row numbers, counted through the containers in order. Out: where a member lies, keys, labels.
// Promised: the columns are never copied and never changed; before a container's columns are used for the first time
// they are checked against the checksum that their file carries (IndexDamage names the container, so that the caller
// can build that index again and `replace` it); no file stays open; all methods may be called from any thread.
// The layout of an index file is described in fastload/shards/index_file.py.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace fastload {

uint32_t crc32(const uint8_t *bytes, uint64_t count);  // zlib's

// The index file of this container does not hold what its writer wrote.
class IndexDamage : public std::runtime_error {
   public:
    explicit IndexDamage(uint64_t container) : std::runtime_error(std::to_string(container)) {}
};

// A whole file, mapped for reading; the descriptor is closed again, so that 100,000 shards need no open files.
class MappedFile {
   public:
    explicit MappedFile(const std::string &path);
    ~MappedFile();
    MappedFile(const MappedFile &) = delete;
    MappedFile &operator=(const MappedFile &) = delete;
    const uint8_t *bytes() const { return bytes_; }
    uint64_t size() const { return size_; }

   private:
    const uint8_t *bytes_ = nullptr;
    uint64_t size_ = 0;
};

// Unsigned integers of 1, 2, 4 or 8 bytes, little-endian, each shifted left by `shift` when read.
struct PackedColumn {
    const uint8_t *start = nullptr;
    uint8_t width = 0;  // 0: there is no such column
    uint8_t shift = 0;

    uint64_t raw(uint64_t row) const;
    uint64_t at(uint64_t row) const { return raw(row) << shift; }
    bool is_all_ones(uint64_t row) const { return raw(row) == ~uint64_t{0} >> (64 - 8 * width); }
};

struct ExtensionColumns {
    uint64_t extension = 0;  // number in the dataset's list
    PackedColumn offset_bytes, size_bytes, spelling;
    std::vector<std::string> spellings;  // of a folder container: how the extension is written on disk
};

struct ContainerColumns {
    std::shared_ptr<const MappedFile> file;
    uint64_t rows = 0;
    uint64_t container_bytes = 0;  // size of the container, an upper bound of what its rows may name
    uint64_t columns_start = 0;
    uint32_t checksum = 0;  // of everything in the file from columns_start on
    bool is_folder = false;
    std::string folder;  // with a trailing slash, if is_folder
    std::vector<ExtensionColumns> extensions;
    PackedColumn key_end, keys, labels;
    uint64_t keys_bytes = 0;
    mutable std::atomic<bool> verified{false};
};

// Where one field of B samples lies; -1 in all four for a sample that has none of the alternatives.
struct LocatedRows {
    std::vector<int32_t> file_id;  // the container; -1 in a folder, whose files have paths of their own
    std::vector<int64_t> offset_bytes, size_bytes;
    std::vector<int8_t> alternative;
    std::vector<std::pair<int64_t, std::string>> paths;  // (index in the batch, path), folder containers only
};

class IndexLookup {
   public:
    // Throws std::invalid_argument if a column does not fit into its file.
    void add(std::shared_ptr<ContainerColumns> container);
    void replace(uint64_t number, std::shared_ptr<ContainerColumns> container);
    uint64_t rows() const;
    std::vector<uint64_t> row_starts() const;

    // The first of the alternatives (numbers of extensions) that a row has. Throws std::out_of_range, IndexDamage.
    LocatedRows locate(const int64_t *rows, uint64_t count, const std::vector<uint64_t> &alternatives) const;
    std::vector<std::string> keys(const int64_t *rows, uint64_t count) const;
    std::vector<int64_t> labels(const int64_t *rows, uint64_t count) const;

    // Ascending numbers of all rows whose key is in `wanted`; the keys that no row has.
    std::pair<std::vector<int64_t>, std::vector<std::string>> find(const std::vector<std::string> &wanted) const;

    // Over these rows: how many have each extension, and the sum of all sizes.
    std::pair<std::map<uint64_t, uint64_t>, uint64_t> tally(const int64_t *rows, uint64_t count) const;

   private:
    const ContainerColumns &verified(uint64_t container) const;
    void locate_one(uint64_t i, int64_t row, const std::vector<uint64_t> &alternatives, LocatedRows &out) const;
    std::string path_of(const ContainerColumns &container, uint64_t container_number, uint64_t row,
                        const ExtensionColumns &columns) const;
    std::pair<uint64_t, uint64_t> container_and_row(int64_t row) const;  // (container, row inside it)
    std::string_view key_of(const ContainerColumns &container, uint64_t container_number, uint64_t row) const;

    std::vector<std::shared_ptr<ContainerColumns>> containers_;
    std::vector<uint64_t> starts_{0};
    mutable std::shared_mutex changing_;
};

}  // namespace fastload
