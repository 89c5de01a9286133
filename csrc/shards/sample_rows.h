// Members of one container, in their order, become rows: one row a sample, one column an extension.
// In: (name, header offset, payload offset, size) of each regular member. Out: SampleRows, or a ContainerProblem.
// WebDataset's grouping rule, as in fastload/shards/rows.py: the key is the path up to the first dot of the basename
// (directories kept), the extension is the rest, lower-cased in ASCII. Passed over and counted by kind: names whose
// first path component is __x__ ("meta"), basenames that begin with a dot ("hidden"), names without an extension
// ("no extension"). Refused: a second member with the same key and extension, a key that comes back after another
// key, more than 256 different extensions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shards/container_file.h"

namespace fastload {

struct ExtensionColumn {
    std::string extension;
    std::vector<int64_t> offset_bytes;  // one a sample; -1: the sample has no such member
    std::vector<int64_t> size_bytes;
};

struct SampleRows {
    std::vector<ExtensionColumn> columns;
    std::vector<int64_t> key_end;  // key of row i: keys[key_end[i - 1], key_end[i])
    std::string keys;
    std::map<std::string, uint64_t> skipped;
    uint64_t members_stop = 0;  // where the last member's payload ends
    int64_t label_offset = -1;  // dataset.json at the root of a zip
    int64_t label_size = -1;
    uint64_t header_bytes = 0;
};

class RowBuilder {
   public:
    // has_label_file: "dataset.json" is no sample but where EDM's tools keep the labels.
    RowBuilder(const ContainerFile &file, bool has_label_file) : file_(file), has_label_file_(has_label_file) {}

    void add(const std::string &name, uint64_t header_offset, uint64_t offset_bytes, uint64_t size_bytes);
    void skip(const char *kind) { ++rows_.skipped[kind]; }
    SampleRows finish();

   private:
    void begin_sample(std::string_view key, uint64_t header_offset);
    ExtensionColumn &column_of(const std::string &extension, uint64_t header_offset);
    void check_keys_are_unique() const;

    const ContainerFile &file_;
    bool has_label_file_;
    SampleRows rows_;
    std::vector<uint64_t> header_offset_;  // of each sample's first member
    size_t last_column_ = 0;
    bool ascending_ = true;
};

// The rows of the container at `path`; Walk(file, rows).run() adds its members. Throws ContainerProblem, naming the
// byte.
template <class Walk>
SampleRows index_container(const std::string &path, const std::string &name, bool has_label_file) {
    ContainerFile file(path, name);
    RowBuilder rows(file, has_label_file);
    Walk(file, rows).run();
    return rows.finish();
}

}  // namespace fastload
