#include "shards/tar_index.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <vector>

namespace fastload {
namespace {

constexpr uint64_t BLOCK = 512;
constexpr uint64_t MAX_EXTENDED_BYTES = 1 << 20;        // of a pax header or a long name; real ones are below 64 KiB
constexpr uint64_t MAX_SIZE_BYTES = uint64_t{1} << 62;  // larger than any file; keeps sums inside uint64_t

using Block = std::array<unsigned char, BLOCK>;

bool is_zero(const unsigned char *bytes, size_t count) {
    return std::all_of(bytes, bytes + count, [](unsigned char byte) { return byte == 0; });
}

// An octal field: blanks, digits, then blanks or NULs. Nothing at all counts as 0, as in every tar.
std::optional<uint64_t> octal(const unsigned char *field, size_t width) {
    size_t i = 0;
    while (i < width && field[i] == ' ') ++i;
    uint64_t value = 0;
    for (; i < width && field[i] >= '0' && field[i] <= '7'; ++i) value = value * 8 + (field[i] - '0');
    for (; i < width; ++i) {
        if (field[i] == 0) break;
        if (field[i] != ' ') return std::nullopt;
    }
    return value;
}

// A size field: octal, or base-256 if the top bit is set (GNU, for sizes from 8 GiB on).
std::optional<uint64_t> size_field(const unsigned char *field) {
    if ((field[0] & 0x80) == 0) return octal(field, 12);
    if (field[0] != 0x80) return std::nullopt;
    uint64_t value = 0;
    for (size_t i = 1; i < 12; ++i) {
        if (value >= MAX_SIZE_BYTES >> 8) return std::nullopt;
        value = value << 8 | field[i];
    }
    return value;
}

bool checksum_matches(const Block &block) {
    const std::optional<uint64_t> stored = octal(block.data() + 148, 8);
    if (!stored) return false;
    uint64_t plain = 8 * ' ';
    int64_t with_signs = 8 * ' ';  // some old tars summed signed chars
    for (size_t i = 0; i < BLOCK; ++i) {
        if (i >= 148 && i < 156) continue;
        plain += block[i];
        with_signs += static_cast<signed char>(block[i]);
    }
    return *stored == plain || static_cast<int64_t>(*stored) == with_signs;
}

std::string text_field(const unsigned char *field, size_t width) {
    const char *text = reinterpret_cast<const char *>(field);
    return std::string(text, strnlen(text, width));
}

// The name of a ustar header. GNU's own magic ("ustar  ") uses the place of the prefix for other things.
std::string header_name(const Block &block) {
    const std::string name = text_field(block.data(), 100);
    if (std::memcmp(block.data() + 257, "ustar\0", 6) != 0 || block[345] == 0) return name;
    return text_field(block.data() + 345, 155) + "/" + name;
}

// What extended headers say about the member that follows them.
struct Overrides {
    std::optional<std::string> path;
    std::optional<uint64_t> size_bytes;
    bool sparse = false;
    bool pending = false;
};

class TarWalk {
   public:
    TarWalk(ContainerFile &file, RowBuilder &rows) : file_(file), rows_(rows) {}

    void run() {
        Block block;
        while (true) {
            if (!file_.holds(at_, BLOCK)) fail_at_end();
            file_.read(at_, BLOCK, block.data());
            if (is_zero(block.data(), BLOCK)) break;
            if (!checksum_matches(block)) {
                file_.fail(at_, "header checksum mismatch (member " + std::to_string(member_) + ")");
            }
            take(block);
        }
        if (overrides_.pending) file_.fail(at_, "an extended header with no member behind it");
        check_padding();
    }

   private:
    void take(const Block &block) {
        const std::optional<uint64_t> size = size_field(block.data() + 124);
        if (!size || *size > MAX_SIZE_BYTES) {
            file_.fail(at_, "damaged size field (member " + std::to_string(member_) + ")");
        }
        switch (block[156]) {
            case 'x':
            case 'X':
                return take_pax(*size, false);
            case 'g':
                return take_pax(*size, true);
            case 'L': {
                const std::string payload = extended(*size);
                overrides_.path = payload.substr(0, payload.find('\0'));
                overrides_.pending = true;
                return;
            }
            case 'K':
                extended(*size);
                overrides_.pending = true;
                return;
            default:
                take_member(block, *size);
        }
    }

    void take_member(const Block &block, uint64_t size) {
        std::string name = overrides_.path ? *overrides_.path : header_name(block);
        const char kind = static_cast<char>(block[156]);
        const bool regular = kind == '\0' || kind == '0' || kind == '7';
        const bool old_directory = kind == '\0' && !name.empty() && name.back() == '/';
        if (overrides_.sparse || kind == 'S') {
            file_.fail(at_, "'" + name + "' is a sparse member, whose bytes do not lie together",
                       "Pack the shard again without --sparse.");
        }
        if (regular && !old_directory) {
            take_payload(name, overrides_.size_bytes.value_or(size));
        } else {
            skip_member(kind, name);
        }
        overrides_ = Overrides{};
        ++member_;
    }

    void take_payload(const std::string &name, uint64_t size) {
        const uint64_t start = at_ + BLOCK;
        if (!file_.holds(start, size)) {
            file_.fail(at_, "the file is cut: '" + name + "' needs bytes up to " + std::to_string(start + size) +
                                ", the file has " + std::to_string(file_.size()) + ", in the member");
        }
        rows_.add(name, at_, start, size);
        at_ = start + (size + BLOCK - 1) / BLOCK * BLOCK;
    }

    // Links, devices and directories have no payload, whatever their size field says (as GNU tar and Python read it).
    void skip_member(char kind, const std::string &name) {
        if (kind == '1' || kind == '2') {
            rows_.skip("link");
        } else if (kind == '3' || kind == '4' || kind == '6') {
            rows_.skip("device");
        } else if (kind == '5' || kind == '\0') {
            rows_.skip("directory");
        } else if (kind == 'V') {
            rows_.skip("volume label");
        } else {
            file_.fail(at_, "'" + name + "' has the unknown member type " + std::to_string(static_cast<uint8_t>(kind)),
                       "Pack the shard again with regular files only.");
        }
        at_ += BLOCK;
    }

    // The payload of an extended header; moves behind it.
    std::string extended(uint64_t size) {
        if (size > MAX_EXTENDED_BYTES) {
            file_.fail(at_, "an extended header of " + std::to_string(size) + " bytes");
        }
        if (!file_.holds(at_ + BLOCK, size)) file_.fail(at_, "the file is cut in an extended header");
        std::string payload(size, '\0');
        file_.read(at_ + BLOCK, size, payload.data());
        header_at_ = at_;
        at_ += BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
        return payload;
    }

    // Records of the form "LENGTH KEY=VALUE\n", LENGTH counting the whole record.
    void take_pax(uint64_t size, bool global) {
        const std::string payload = extended(size);
        size_t at = 0;
        while (at < payload.size()) {
            const size_t blank = payload.find(' ', at);
            const size_t digits = blank == std::string::npos ? 0 : blank - at;
            const auto length = digits < 10 ? decimal(payload.substr(at, digits)) : std::nullopt;
            if (!length || *length < digits + 3 || *length > payload.size() - at || payload[at + *length - 1] != '\n') {
                file_.fail(header_at_, "damaged pax header");
            }
            const size_t equals = payload.find('=', blank);
            if (equals >= at + *length) file_.fail(header_at_, "damaged pax header");
            take_record(payload.substr(blank + 1, equals - blank - 1),
                        payload.substr(equals + 1, at + *length - 1 - (equals + 1)), global);
            at += *length;
        }
        overrides_.pending = overrides_.pending || !global;
    }

    void take_record(const std::string &key, const std::string &value, bool global) {
        const bool sparse = key.compare(0, 11, "GNU.sparse.") == 0;
        if (global && (sparse || key == "path" || key == "size")) {
            file_.fail(header_at_, "a global pax header that sets '" + key + "' for all members",
                       "Pack the shard again with another tool.");
        }
        if (sparse) overrides_.sparse = true;
        if (key == "path") overrides_.path = value.empty() ? std::nullopt : std::make_optional(value);
        if (key == "size" && value.empty()) overrides_.size_bytes = std::nullopt;
        if (key == "size" && !value.empty()) {
            overrides_.size_bytes = decimal(value);
            if (!overrides_.size_bytes) file_.fail(header_at_, "damaged size in a pax header");
        }
    }

    static std::optional<uint64_t> decimal(const std::string &text) {
        if (text.empty() || text.size() > 18) return std::nullopt;  // 10^18 < 2^62
        uint64_t value = 0;
        for (char digit : text) {
            if (digit < '0' || digit > '9') return std::nullopt;
            value = value * 10 + static_cast<uint64_t>(digit - '0');
        }
        return value;
    }

    [[noreturn]] void fail_at_end() const {
        if (at_ == file_.size()) {
            file_.fail(at_, "no end marker (a block of zeros): the tar seems cut between two members",
                       "Copy or download it again, or append a marker if it is whole: "
                       "head -c 1024 /dev/zero >> FILE.");
        }
        file_.fail(std::min(at_, file_.size()), "the file is cut in a header or in padding");
    }

    // The padding behind the first zero block is at most a record (10 KiB) in what tar programs write.
    void check_padding() {
        std::vector<unsigned char> chunk(64 * 1024);
        uint64_t at = at_ + BLOCK;
        while (at < file_.size()) {
            const uint64_t count = std::min<uint64_t>(chunk.size(), file_.size() - at);
            file_.read(at, count, chunk.data());
            const auto stop = chunk.begin() + static_cast<std::ptrdiff_t>(count);
            const auto found = std::find_if(chunk.begin(), stop, [](unsigned char byte) { return byte != 0; });
            if (found != stop) {
                file_.fail(at + static_cast<uint64_t>(found - chunk.begin()),
                           "content behind the end marker at byte " + std::to_string(at_) +
                               " (two tars joined, or a damaged header)",
                           "Pack the shard again: tar would not show what lies there.");
            }
            at += count;
        }
    }

    ContainerFile &file_;
    RowBuilder &rows_;
    Overrides overrides_;
    uint64_t at_ = 0;
    uint64_t header_at_ = 0;
    uint64_t member_ = 0;
};

}  // namespace

SampleRows index_tar(const std::string &path, const std::string &name) {
    return index_container<TarWalk>(path, name, false);
}

}  // namespace fastload
