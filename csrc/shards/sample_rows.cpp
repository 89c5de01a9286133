#include "shards/sample_rows.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace fastload {
namespace {

constexpr size_t MAX_EXTENSIONS = 256;

// "__x__" or "__x__/...", webdataset's rule for members that are no samples.
bool is_meta(const std::string &name) {
    const size_t stop = std::min(name.find('/'), name.size());
    return stop >= 4 && name.compare(0, 2, "__") == 0 && name.compare(stop - 2, 2, "__") == 0;
}

std::string lowered(std::string text) {
    for (char &letter : text)
        if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
    return text;
}

std::string_view key_at(const SampleRows &rows, size_t row) {
    const size_t start = row == 0 ? 0 : static_cast<size_t>(rows.key_end[row - 1]);
    return std::string_view(rows.keys).substr(start, static_cast<size_t>(rows.key_end[row]) - start);
}

}  // namespace

void RowBuilder::add(const std::string &name, uint64_t header_offset, uint64_t offset_bytes, uint64_t size_bytes) {
    rows_.members_stop = std::max(rows_.members_stop, offset_bytes + size_bytes);
    if (has_label_file_ && name == "dataset.json") {
        rows_.label_offset = static_cast<int64_t>(offset_bytes);
        rows_.label_size = static_cast<int64_t>(size_bytes);
        return skip("label file");
    }
    if (is_meta(name)) return skip("meta");
    const size_t slash = name.rfind('/');
    const size_t base = slash == std::string::npos ? 0 : slash + 1;
    const size_t dot = name.find('.', base);
    if (dot == std::string::npos || dot + 1 == name.size()) return skip("no extension");
    if (dot == base) return skip("hidden");
    begin_sample(std::string_view(name).substr(0, dot), header_offset);
    ExtensionColumn &column = column_of(lowered(name.substr(dot + 1)), header_offset);
    const size_t rows = rows_.key_end.size();
    if (column.offset_bytes.size() == rows) {
        file_.fail(header_offset, "a second member '" + name + "' (extensions count in lower case)",
                   "Rename or remove one of the two and pack the shard again.");
    }
    column.offset_bytes.resize(rows - 1, -1);
    column.size_bytes.resize(rows - 1, -1);
    column.offset_bytes.push_back(static_cast<int64_t>(offset_bytes));
    column.size_bytes.push_back(static_cast<int64_t>(size_bytes));
}

SampleRows RowBuilder::finish() {
    if (!ascending_) check_keys_are_unique();
    for (ExtensionColumn &column : rows_.columns) {
        column.offset_bytes.resize(rows_.key_end.size(), -1);
        column.size_bytes.resize(rows_.key_end.size(), -1);
    }
    rows_.header_bytes = file_.bytes_read();
    return std::move(rows_);
}

// Unless the current sample has this key.
void RowBuilder::begin_sample(std::string_view key, uint64_t header_offset) {
    if (!rows_.key_end.empty()) {
        const std::string_view current = key_at(rows_, rows_.key_end.size() - 1);
        if (key == current) return;
        // Keys that only ever ascend cannot come back, which spares the usual shard the sort at the end.
        ascending_ = ascending_ && current < key;
    }
    rows_.keys.append(key);
    rows_.key_end.push_back(static_cast<int64_t>(rows_.keys.size()));
    header_offset_.push_back(header_offset);
}

ExtensionColumn &RowBuilder::column_of(const std::string &extension, uint64_t header_offset) {
    // Extensions come round in the same order sample after sample, so the next column is the first guess.
    const size_t known = rows_.columns.size();
    for (size_t step = 1; step <= known; ++step) {
        const size_t guess = (last_column_ + step) % known;
        if (rows_.columns[guess].extension == extension) {
            last_column_ = guess;
            return rows_.columns[guess];
        }
    }
    if (known == MAX_EXTENSIONS) {
        file_.fail(header_offset,
                   "more than 256 different extensions, the latest '" + extension +
                       "': the keys seem to hold dots, and an extension starts at the first dot of the name",
                   "Rename the members so that their keys have no dots and pack the shard again.");
    }
    rows_.columns.push_back({extension, {}, {}});
    last_column_ = known;
    return rows_.columns.back();
}

void RowBuilder::check_keys_are_unique() const {
    const size_t count = rows_.key_end.size();
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [this](size_t a, size_t b) { return key_at(rows_, a) < key_at(rows_, b); });
    size_t earliest = count;
    size_t first_place = 0;
    for (size_t i = 1; i < count; ++i) {
        if (order[i] < earliest && key_at(rows_, order[i - 1]) == key_at(rows_, order[i])) {
            earliest = order[i];
            first_place = order[i - 1];
        }
    }
    if (earliest == count) return;
    file_.fail(header_offset_[earliest],
               "the key '" + std::string(key_at(rows_, earliest)) + "', first seen at byte " +
                   std::to_string(header_offset_[first_place]) + ", comes back",
               "All members of a sample must lie together: pack the shard again, sorted by name.");
}

}  // namespace fastload
