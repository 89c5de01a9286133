#include "shards/index_lookup.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>

namespace fastload {
namespace {

// Eight tables for eight bytes a step (Intel's "slicing by 8"): 1.5 GB/s instead of 0.4.
constexpr auto CRC_TABLES = [] {
    std::array<std::array<uint32_t, 256>, 8> built{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
        built[0][i] = value;
    }
    for (size_t table = 1; table < 8; ++table)
        for (size_t i = 0; i < 256; ++i) {
            const uint32_t before = built[table - 1][i];
            built[table][i] = before >> 8 ^ built[0][before & 0xff];
        }
    return built;
}();

void check_column(const ContainerColumns &container, const PackedColumn &column, uint64_t count) {
    if (column.width == 0) return;
    const uint64_t start = static_cast<uint64_t>(column.start - container.file->bytes());
    const uint64_t size = container.file->size();
    if (start > size || count > (size - start) / column.width) {
        throw std::invalid_argument("an index column does not fit into its file");
    }
}

void check_columns(const ContainerColumns &container) {
    if (container.columns_start > container.file->size()) throw std::invalid_argument("an index file is too short");
    check_column(container, container.key_end, container.rows);
    check_column(container, container.keys, container.keys_bytes);
    check_column(container, container.labels, container.rows);
    for (const ExtensionColumns &columns : container.extensions) {
        check_column(container, columns.offset_bytes, container.rows);
        check_column(container, columns.size_bytes, container.rows);
        check_column(container, columns.spelling, container.rows);
    }
}

}  // namespace

uint32_t crc32(const uint8_t *bytes, uint64_t count) {
    const auto &table = CRC_TABLES;
    uint32_t crc = ~0u;
    for (; count >= 8; count -= 8, bytes += 8) {
        crc ^= bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<uint32_t>(bytes[3]) << 24;
        crc = table[7][crc & 0xff] ^ table[6][crc >> 8 & 0xff] ^ table[5][crc >> 16 & 0xff] ^ table[4][crc >> 24] ^
              table[3][bytes[4]] ^ table[2][bytes[5]] ^ table[1][bytes[6]] ^ table[0][bytes[7]];
    }
    for (; count > 0; --count, ++bytes) crc = crc >> 8 ^ table[0][(crc ^ *bytes) & 0xff];
    return ~crc;
}

MappedFile::MappedFile(const std::string &path) {
    const auto fail = [&](const char *what) {
        throw std::system_error(errno, std::generic_category(), std::string(what) + " " + path);
    };
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail("open");
    struct stat status;
    if (::fstat(descriptor, &status) != 0) {
        ::close(descriptor);
        fail("stat");
    }
    size_ = static_cast<uint64_t>(status.st_size);
    void *mapped = size_ == 0 ? nullptr : ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    ::close(descriptor);
    if (mapped == MAP_FAILED) fail("map");
    bytes_ = static_cast<const uint8_t *>(mapped);
}

MappedFile::~MappedFile() {
    if (bytes_ != nullptr) ::munmap(const_cast<uint8_t *>(bytes_), size_);
}

uint64_t PackedColumn::raw(uint64_t row) const {
    const uint8_t *at = start + row * width;
    uint64_t value = 0;
    for (int i = width; i-- > 0;) value = value << 8 | at[i];
    return value;
}

void IndexLookup::add(std::shared_ptr<ContainerColumns> container) {
    check_columns(*container);
    std::unique_lock<std::shared_mutex> lock(changing_);
    starts_.push_back(starts_.back() + container->rows);
    containers_.push_back(std::move(container));
}

void IndexLookup::replace(uint64_t number, std::shared_ptr<ContainerColumns> container) {
    check_columns(*container);
    std::unique_lock<std::shared_mutex> lock(changing_);
    if (number >= containers_.size() || containers_[number]->rows != container->rows) {
        throw std::invalid_argument("a container's index can only be replaced by one with as many rows");
    }
    containers_[number] = std::move(container);
}

uint64_t IndexLookup::rows() const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    return starts_.back();
}

std::vector<uint64_t> IndexLookup::row_starts() const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    return starts_;
}

const ContainerColumns &IndexLookup::verified(uint64_t number) const {
    const ContainerColumns &container = *containers_[number];
    if (!container.verified.load(std::memory_order_acquire)) {
        // Two threads may do this at once: the same work and the same result.
        const uint8_t *columns = container.file->bytes() + container.columns_start;
        if (crc32(columns, container.file->size() - container.columns_start) != container.checksum) {
            throw IndexDamage(number);
        }
        container.verified.store(true, std::memory_order_release);
    }
    return container;
}

std::pair<uint64_t, uint64_t> IndexLookup::container_and_row(int64_t row) const {
    if (row < 0 || static_cast<uint64_t>(row) >= starts_.back()) {
        throw std::out_of_range("row " + std::to_string(row) + " is outside [0, " + std::to_string(starts_.back()) +
                                ")");
    }
    const uint64_t wanted = static_cast<uint64_t>(row);
    const auto next = std::upper_bound(starts_.begin(), starts_.end(), wanted);
    const uint64_t container = static_cast<uint64_t>(next - starts_.begin()) - 1;
    return {container, wanted - starts_[container]};
}

std::string_view IndexLookup::key_of(const ContainerColumns &container, uint64_t number, uint64_t row) const {
    const uint64_t start = row == 0 ? 0 : container.key_end.at(row - 1);
    const uint64_t stop = container.key_end.at(row);
    if (start > stop || stop > container.keys_bytes) throw IndexDamage(number);
    return std::string_view(reinterpret_cast<const char *>(container.keys.start) + start, stop - start);
}

LocatedRows IndexLookup::locate(const int64_t *rows, uint64_t count, const std::vector<uint64_t> &alternatives) const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    LocatedRows out;
    out.file_id.assign(count, -1);
    out.offset_bytes.assign(count, -1);
    out.size_bytes.assign(count, -1);
    out.alternative.assign(count, -1);
    for (uint64_t i = 0; i < count; ++i) locate_one(i, rows[i], alternatives, out);
    return out;
}

void IndexLookup::locate_one(uint64_t i, int64_t dataset_row, const std::vector<uint64_t> &alternatives,
                             LocatedRows &out) const {
    const auto [number, row] = container_and_row(dataset_row);
    const ContainerColumns &container = verified(number);
    for (uint64_t choice = 0; choice < alternatives.size(); ++choice) {
        for (const ExtensionColumns &columns : container.extensions) {
            if (columns.extension != alternatives[choice] || columns.size_bytes.is_all_ones(row)) continue;
            const uint64_t offset = columns.offset_bytes.width == 0 ? 0 : columns.offset_bytes.at(row);
            const uint64_t size = columns.size_bytes.at(row);
            out.alternative[i] = static_cast<int8_t>(choice);
            out.offset_bytes[i] = static_cast<int64_t>(offset);
            out.size_bytes[i] = static_cast<int64_t>(size);
            if (container.is_folder) {
                out.paths.emplace_back(static_cast<int64_t>(i), path_of(container, number, row, columns));
            } else if (offset > container.container_bytes || size > container.container_bytes - offset) {
                throw IndexDamage(number);
            } else {
                out.file_id[i] = static_cast<int32_t>(number);
            }
            return;
        }
    }
}

std::string IndexLookup::path_of(const ContainerColumns &container, uint64_t number, uint64_t row,
                                 const ExtensionColumns &columns) const {
    const uint64_t spelling = columns.spelling.width == 0 ? 0 : columns.spelling.at(row);
    if (spelling >= columns.spellings.size()) throw IndexDamage(number);
    std::string path = container.folder;
    return path.append(key_of(container, number, row)).append(".").append(columns.spellings[spelling]);
}

std::vector<std::string> IndexLookup::keys(const int64_t *rows, uint64_t count) const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    std::vector<std::string> out;
    out.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
        const auto [number, row] = container_and_row(rows[i]);
        out.emplace_back(key_of(verified(number), number, row));
    }
    return out;
}

std::vector<int64_t> IndexLookup::labels(const int64_t *rows, uint64_t count) const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    std::vector<int64_t> out(count);
    for (uint64_t i = 0; i < count; ++i) {
        const auto [number, row] = container_and_row(rows[i]);
        const ContainerColumns &container = verified(number);
        if (container.labels.width != 4) throw std::invalid_argument("a container has no labels");
        out[i] = static_cast<int32_t>(container.labels.at(row));
    }
    return out;
}

std::pair<std::vector<int64_t>, std::vector<std::string>> IndexLookup::find(
    const std::vector<std::string> &wanted) const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    const std::unordered_set<std::string_view> lookup(wanted.begin(), wanted.end());
    std::unordered_set<std::string_view> seen;
    std::vector<int64_t> found;
    for (uint64_t number = 0; number < containers_.size(); ++number) {
        const ContainerColumns &container = verified(number);
        for (uint64_t row = 0; row < container.rows; ++row) {
            const auto match = lookup.find(key_of(container, number, row));
            if (match == lookup.end()) continue;
            seen.insert(*match);
            found.push_back(static_cast<int64_t>(starts_[number] + row));
        }
    }
    std::vector<std::string> unknown;
    for (const std::string &key : wanted)
        if (seen.count(key) == 0) unknown.push_back(key);
    return {found, unknown};
}

std::pair<std::map<uint64_t, uint64_t>, uint64_t> IndexLookup::tally(const int64_t *rows, uint64_t count) const {
    std::shared_lock<std::shared_mutex> lock(changing_);
    std::map<uint64_t, uint64_t> having;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < count; ++i) {
        const auto [number, row] = container_and_row(rows[i]);
        for (const ExtensionColumns &columns : verified(number).extensions) {
            if (columns.size_bytes.is_all_ones(row)) continue;
            ++having[columns.extension];
            bytes += columns.size_bytes.at(row);
        }
    }
    return {having, bytes};
}

}  // namespace fastload
